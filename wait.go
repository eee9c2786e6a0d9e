package trypema

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/window"
)

// Wait is WaitN with a cost of 1, or with that of the policy.
func (b *Bound) Wait(ctx context.Context, key string) (Decision, error) {
	n := uint64(1)
	if b = b.made(); b.live != nil {
		n = b.live.cost()
	}
	return b.WaitN(ctx, key, n)
}

// WaitN returns when a call of cost n is admitted, and not before those of the same key that came earlier:
// calls that wait on one Bound are admitted in the order in which they came, whatever they cost. The decision
// is then that of AllowN. A call by Allow does not stand in the line, and may take room that one in the line
// would have had. Instances of Hybrid take turns under Absolute: each gets an equal share of the limit.
//
// It returns at once if the deadline of ctx comes before the turn of the call can: ErrWouldExceedDeadline,
// and a decision whose RetryAfter is how long it would have taken at least. What can never be admitted is
// ErrInvalidCost. It returns the error of ctx when that ends, and ErrClosed when the provider is closed. With
// an error nothing was recorded, unless the error says so.
//
// Only the first in the line asks the provider, by one timer: a call that waits costs less than 1 KiB and no
// work. Under Suppressed a call that waits counts as one that was observed, however long it waits.
func (b *Bound) WaitN(ctx context.Context, key string, n uint64) (Decision, error) {
	if b = b.made(); b == noBound {
		return Decision{}, errNoBound
	}
	if err := ctx.Err(); err != nil {
		return Decision{}, err
	}
	if n == 0 {
		return Decision{}, errZeroCost
	}
	w := &waiter{cost: n}
	of, ahead := b.lines.join(key, w)
	defer b.lines.leave(key, w)
	if w.turn == nil {
		return b.first(ctx, of, key, n)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if d := b.turnAfter(ctx, key, ahead, n); d.RetryAfter > time.Until(deadline) {
			return d, tooLate(d.RetryAfter, time.Until(deadline))
		}
	}
	select {
	case <-w.turn:
		return b.first(ctx, of, key, n)
	case <-ctx.Done():
		return Decision{}, ctx.Err()
	case <-b.done():
		return Decision{}, ErrClosed
	}
}

// first waits for a call that is the first of its line.
func (b *Bound) first(ctx context.Context, of *line, key string, n uint64) (d Decision, err error) {
	var timer *time.Timer
	wait := time.Until(of.nextTry)
	for ask := b.AllowN; ; ask = b.again {
		if wait > 0 {
			if deadline, ok := ctx.Deadline(); ok && wait > time.Until(deadline) {
				if d.RetryAfter == 0 { // it was not asked yet
					d, _ = b.Peek(ctx, key, n)
				}
				b.deny(&d, wait)
				return d, tooLate(wait, time.Until(deadline))
			}
			if timer == nil {
				timer = time.NewTimer(wait)
				defer timer.Stop() //nolint:gocritic // there is one timer
			} else {
				timer.Reset(wait)
			}
			select {
			case <-timer.C:
			case <-ctx.Done():
				return Decision{}, ctx.Err()
			case <-b.done():
				return Decision{}, ErrClosed
			}
		}
		d, err = ask(ctx, key, n)
		switch {
		case err != nil:
			return d, err
		case d.Allowed:
			if d.SuppressionFactor > 0 && !b.inShadow() {
				of.nextTry = time.Now().Add(b.pace(&d, n))
			}
			return d, nil
		case d.RetryAfter == Never:
			return d, invalid.Errorf(ErrInvalidCost,
				"cost is %d; it must be at most %d, which is all that limit %q can hold", n, d.Limit, d.RefusedBy)
		}
		wait = d.RetryAfter
		if d.Outcome == OutcomeSuppressed {
			wait = min(wait, b.pace(&d, n))
		}
		wait = max(wait, time.Microsecond)
	}
}

func tooLate(wait, left time.Duration) error {
	return invalid.Errorf(ErrWouldExceedDeadline,
		"the turn of the call comes in %v at the earliest; the deadline is in %v", wait, max(left, 0))
}

// pace is the time in which the limit of a decision has room for one more call of cost n. Under Suppressed, a
// line of calls that wait tries once in that time. It cannot wait for RetryAfter, which is when a call is
// certain to be admitted: under load that never comes. And as the odds are for callers that try at the limit,
// a line without competitors is served at the limit.
func (b *Bound) pace(d *Decision, n uint64) time.Duration {
	for _, l := range b.now().limits {
		if c, err := l.Capacity(); err == nil && c == d.Limit && c > 0 {
			return time.Duration(min(float64(l.Window)*float64(n)/float64(c), math.MaxInt64/2))
		}
	}
	return d.RetryAfter
}

// turnAfter returns the denial of a call that has costs ahead of it in its line. Its RetryAfter is how long
// the call waits at least; 0 if that is not known. A window of W admits at most C, so k × C take k × W.
// The rest, less than C, waits until all of it would fit at once, because costs that are admitted until
// then stay in the window.
func (b *Bound) turnAfter(ctx context.Context, key string, ahead, n uint64) (d Decision) {
	sum := window.SumOf(ahead, n)
	if b.Strategy() == StrategySuppressed || sum == math.MaxUint64 || b.inShadow() {
		return d
	}
	var wait time.Duration
	limits := b.now().limits
	for _, l := range limits {
		c, err := l.Capacity()
		if err != nil || c == 0 {
			return d
		}
		if times := (sum - 1) / c; times > 0 {
			if times > uint64(math.MaxInt64/l.Window) {
				wait = math.MaxInt64
				break
			}
			wait = max(wait, time.Duration(times)*l.Window)
			if len(limits) == 1 {
				sum -= times * c
			}
		}
	}
	several := wait > 0 && len(limits) > 1
	if several {
		sum = n
	}
	d, err := b.Peek(ctx, key, sum)
	if err == nil && !d.Allowed && !several && d.RetryAfter <= math.MaxInt64-wait && d.RetryAfter != Never {
		wait += d.RetryAfter
	}
	b.deny(&d, wait)
	return d
}

// deny makes d the denial of a call that has to wait for so long.
func (b *Bound) deny(d *Decision, wait time.Duration) {
	now := b.now()
	d.Allowed, d.Shadowed, d.Outcome, d.RetryAfter = false, false, OutcomeRejected, wait
	if now.strategy == StrategySuppressed {
		d.Outcome = OutcomeSuppressed
	}
	for i := 0; i < len(now.limits) && d.RefusedBy == ""; i++ {
		if c, _ := now.limits[i].Capacity(); c == d.Limit {
			d.RefusedBy = now.limits[i].Label()
		}
	}
}

// inShadow reports whether the Bound is that of a policy in shadow.
func (b *Bound) inShadow() bool {
	if b.live == nil {
		return false
	}
	p, err := b.live.find()
	return err == nil && p.Shadow
}

// again is AllowN for a call that was denied before.
func (b *Bound) again(ctx context.Context, key string, n uint64) (Decision, error) {
	if b.live != nil {
		return b.live.again(ctx, key, n)
	}
	if k, ok := b.counting.(interface {
		Again(context.Context, string, uint64) (Decision, error)
	}); ok && b.blocks < 0 {
		return k.Again(ctx, key, n)
	}
	return b.AllowN(ctx, key, n)
}

// done returns a channel that is closed with the provider; nil if it does not say.
func (b *Bound) done() <-chan struct{} {
	if k, ok := b.now().counting.(interface{ Done() <-chan struct{} }); ok {
		return k.Done()
	}
	return nil
}

// lines are the calls that wait on a Bound, by key. Invariant: a line has at least one waiter, the first of
// which asks the provider; each other has a turn, which is closed when it becomes the first.
type lines struct {
	mu    sync.Mutex
	byKey map[string]*line
}

type line struct {
	first, last *waiter
	cost        uint64    // of all, saturating
	nextTry     time.Time // before which the first does not ask; only the first reads and writes it
}

// waiter is a call in a line.
type waiter struct {
	next, previous *waiter
	cost           uint64
	turn           chan struct{} // nil if it was the first from the beginning
}

// join puts a waiter at the end of the line of a key, and returns what those ahead of it cost.
func (l *lines) join(key string, w *waiter) (of *line, ahead uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of = l.byKey[key]
	if of == nil {
		if l.byKey == nil {
			l.byKey = make(map[string]*line)
		}
		of = &line{first: w, last: w, cost: w.cost}
		l.byKey[key] = of
		return of, 0
	}
	w.turn = make(chan struct{})
	w.previous, of.last.next, of.last = of.last, w, w
	ahead = of.cost
	of.cost = window.SumOf(ahead, w.cost)
	return of, ahead
}

// leave takes a waiter out of its line. If it was the first, it is the turn of the next.
func (l *lines) leave(key string, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.byKey[key]
	if of.cost != math.MaxUint64 {
		of.cost -= w.cost
	}
	if w.next != nil {
		w.next.previous = w.previous
	} else {
		of.last = w.previous
	}
	switch {
	case w.previous != nil:
		w.previous.next = w.next
	case w.next != nil:
		of.first = w.next
		close(w.next.turn)
	default:
		delete(l.byKey, key)
	}
}
