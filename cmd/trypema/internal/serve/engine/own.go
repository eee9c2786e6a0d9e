package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"math/bits"
	"strings"
	"sync"
	"time"

	"github.com/trypema/trypema"
)

// MaxKeyLen bounds the key of a request.
const MaxKeyLen = 4096

// Limit is a limit that a request brings along: at most Capacity in any Window. A capacity of 0 denies
// everything.
type Limit struct {
	Capacity uint64
	Window   time.Duration
}

const (
	minWindow   = time.Millisecond
	maxWindow   = 100 * 365 * 24 * time.Hour
	maxCapacity = 1 << 53 // which every provider holds exactly
)

// Check returns what is wrong with a limit, or nil.
func (l Limit) Check() error {
	switch {
	case l.Window < minWindow || l.Window > maxWindow:
		return invalid("window is %v; it must be from %v to %v", l.Window, minWindow, maxWindow)
	case l.Capacity > maxCapacity:
		return invalid("limit is %d; it must be at most %d", l.Capacity, uint64(maxCapacity))
	}
	return nil
}

// Scaled returns the limit of the window in which capacity events at count per period fill it: capacity ×
// period ÷ count, rounded up. A window of less than 1 ms, which no provider has, is multiplied together with
// its capacity.
func Scaled(capacity, count uint64, period time.Duration) (Limit, error) {
	if capacity == 0 || count == 0 || period <= 0 {
		return Limit{}, invalid("capacity, count and period must be above 0")
	}
	ns := func(capacity uint64) (time.Duration, bool) {
		high, low := bits.Mul64(capacity, uint64(period))
		if high >= count {
			return 0, false
		}
		window, rest := bits.Div64(high, low, count)
		if rest > 0 {
			window++
		}
		return time.Duration(window), window <= uint64(maxWindow)
	}
	window, ok := ns(capacity)
	if ok && window < minWindow {
		times := uint64((minWindow + window - 1) / window)
		if capacity > maxCapacity/times {
			return Limit{}, invalid("%d per %v is too much to count", count, period)
		}
		capacity *= times
		window, ok = ns(capacity)
	}
	if !ok {
		return Limit{}, invalid("%d at %d per %v takes longer than %v", capacity, count, period, maxWindow)
	}
	return Limit{capacity, window}, nil
}

// Target is what a request by key is judged by: a policy, if it is named, or else a limit.
type Target struct {
	Policy string
	Limit  Limit
	Key    string
}

// ErrUnknownPolicy is a request by a policy that is not there.
var ErrUnknownPolicy = trypema.ErrUnknownPolicy

// bound returns the limits that a target is judged by, and its key as they know it.
func (e *Engine) bound(t *Target) (b *trypema.Bound, key string, err error) {
	switch {
	case t.Key == "":
		return nil, "", invalid("key is empty; it must have from 1 to %d bytes", MaxKeyLen)
	case len(t.Key) > MaxKeyLen:
		return nil, "", invalid("key has %d bytes; it must have at most %d", len(t.Key), MaxKeyLen)
	case t.Policy == "":
		if err := t.Limit.Check(); err != nil {
			return nil, "", err
		}
		l, err := e.own.of(t.Limit)
		if err != nil {
			return nil, "", err
		}
		return l.Bound, "key|" + t.Key, nil
	}
	p := e.Policies()
	if p == nil {
		return nil, "", ErrUnknownPolicy
	}
	b, err = p.Use(t.Policy)
	return b, t.Key, err
}

// Allow decides a call of a cost, and records it if it is admitted. With a policy, a cost of 0 is that of the
// policy; otherwise it is wrong.
func (e *Engine) Allow(ctx context.Context, t *Target, cost uint64) (d trypema.Decision, err error) {
	b, key, err := e.bound(t)
	switch {
	case err != nil:
		return d, err
	case cost > 0:
		d, err = b.AllowN(ctx, key, cost)
	case t.Policy == "":
		return d, invalid("cost is 0; it must be at least 1")
	default:
		d, err = b.Allow(ctx, key)
	}
	return d, e.failed(d.Fallback, err)
}

// Peek decides as Allow would, and records nothing. A cost of 0 asks whether there is any room.
func (e *Engine) Peek(ctx context.Context, t *Target, cost uint64) (d trypema.Decision, err error) {
	b, key, err := e.bound(t)
	if err != nil {
		return d, err
	}
	d, err = b.Peek(ctx, key, cost)
	return d, e.failed(d.Fallback, err)
}

// ResetAfter returns the time until all capacity of a limit is free, if nothing else happens.
func (e *Engine) ResetAfter(ctx context.Context, t *Target) (time.Duration, error) {
	d, err := e.Peek(ctx, t, max(t.Limit.Capacity, 1))
	if err != nil || d.Allowed || d.RetryAfter == trypema.Never {
		return 0, err
	}
	return d.RetryAfter, nil
}

// Usage reports what the windows of a key hold, and the limits that these have.
func (e *Engine) Usage(ctx context.Context, t *Target) ([]trypema.Usage, []Limit, error) {
	b, key, err := e.bound(t)
	if err != nil {
		return nil, nil, err
	}
	used, err := b.Usage(ctx, key)
	if err != nil {
		return nil, nil, e.failed(false, err)
	}
	var limits []Limit
	for _, l := range b.Limits() {
		c, _ := l.Capacity() // it was checked
		limits = append(limits, Limit{c, l.Window})
	}
	return used, limits[:min(len(limits), len(used))], nil
}

// Delete forgets what a key has used.
func (e *Engine) Delete(ctx context.Context, t *Target) error {
	b, key, err := e.bound(t)
	if err != nil {
		return err
	}
	return e.failed(false, b.Delete(ctx, key))
}

const (
	// DefaultExpiry is how long a reservation holds its estimate if nothing else is said.
	DefaultExpiry = time.Minute
	// MaxExpiry is how long it can.
	MaxExpiry = 24 * time.Hour
	// MaxReservations bounds those that are open.
	MaxReservations = 1 << 18
)

// The errors of reservations.
var (
	ErrUnknownReservation  = errors.New("the reservation is unknown, settled or expired")
	ErrTooManyReservations = errors.New("too many reservations are open")
)

// reservations are those that are open, by their names. Each is forgotten at its expiry, at which its
// provider gives back the estimate.
type reservations struct {
	mu   sync.Mutex
	open map[string]*reservation
}

type reservation struct {
	*trypema.Reservation
	timer *time.Timer
}

// Reserve is Allow for a call whose cost is an estimate. If it is admitted, Commit with the name that is
// returned puts the true cost in the place of the estimate. Otherwise the estimate is given back after
// expiry, which is DefaultExpiry if it is 0.
func (e *Engine) Reserve(
	ctx context.Context, t *Target, estimate uint64, expiry time.Duration,
) (name string, d trypema.Decision, err error) {
	expiry = cmp.Or(expiry, DefaultExpiry)
	switch {
	case estimate == 0:
		return "", d, invalid("estimate is 0; it must be at least 1")
	case expiry < time.Millisecond || expiry > MaxExpiry:
		return "", d, invalid("expiry is %v; it must be from 1ms to %v", expiry, MaxExpiry)
	}
	b, key, err := e.bound(t)
	switch {
	case err != nil:
		return "", d, err
	case !e.reserved.hasRoom():
		return "", d, ErrTooManyReservations
	}
	r, err := b.Reserve(ctx, key, estimate, expiry)
	if err != nil {
		return "", d, e.failed(false, err)
	}
	if err := e.failed(r.Fallback, nil); err != nil || !r.Allowed {
		return "", r.Decision, err
	}
	return e.reserved.add(r, expiry), r.Decision, nil
}

func (r *reservations) hasRoom() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open) < MaxReservations
}

func (r *reservations) add(one *trypema.Reservation, expiry time.Duration) string {
	var id [16]byte
	rand.Read(id[:]) // which never fails
	name := hex.EncodeToString(id[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[name] = &reservation{one, time.AfterFunc(expiry, func() { r.take(name) })}
	return name
}

// take returns the reservation of a name, and forgets it.
func (r *reservations) take(name string) *reservation {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.open[name]
	delete(r.open, name)
	return one
}

// Commit settles a reservation at its true cost; 0 gives everything back.
func (e *Engine) Commit(ctx context.Context, name string, cost uint64) error {
	if cost > math.MaxInt64 {
		return invalid("cost is %d; it must be at most %d", cost, uint64(math.MaxInt64))
	}
	one := e.reserved.take(name)
	if one == nil {
		return ErrUnknownReservation
	}
	one.timer.Stop()
	return one.Commit(ctx, cost)
}

// Close ends the timers of open reservations, whose estimates expire all the same. The provider stays open.
func (e *Engine) Close() {
	e.reserved.mu.Lock()
	defer e.reserved.mu.Unlock()
	for _, one := range e.reserved.open {
		one.timer.Stop()
	}
	clear(e.reserved.open)
}

// Problem returns what may be told to a client of an error, and whether the client is at fault. Errors of a
// store are not told: they may name servers and keys.
func Problem(err error) (text string, isClients bool) {
	var wrong *InvalidError
	switch {
	case errors.As(err, &wrong):
		return wrong.Problem, true
	case errors.Is(err, ErrUnknownPolicy), errors.Is(err, ErrUnknownReservation),
		errors.Is(err, ErrTooManyReservations), errors.Is(err, ErrTooManyLimits), errors.Is(err, ErrNotLoaded),
		errors.Is(err, ErrUnavailable):
		text = strings.TrimPrefix(err.Error(), "trypema: ")
		return text, errors.Is(err, ErrUnknownPolicy) || errors.Is(err, ErrUnknownReservation)
	case errors.Is(err, trypema.ErrInvalidCost), errors.Is(err, trypema.ErrInvalidKey),
		errors.Is(err, trypema.ErrInvalidRate), errors.Is(err, trypema.ErrInvalidOptions):
		return strings.TrimPrefix(err.Error(), "trypema: "), true
	case errors.Is(err, trypema.ErrClosed):
		return "the server is shutting down", false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "the request has ended before it was decided", false
	}
	return "the limit could not be judged", false
}
