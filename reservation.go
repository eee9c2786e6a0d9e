package trypema

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/guard"
	"github.com/trypema/trypema/internal/invalid"
)

// ErrSettled is a second Commit or Refund of a reservation, also after one that failed. The error that is
// returned tells both costs.
var ErrSettled = errors.New("trypema: the reservation was committed before")

// ErrDenied is a Commit or Refund of a reservation that was denied: there is nothing to settle.
var ErrDenied = errors.New("trypema: the reservation was denied")

// Reservation is a call that was admitted at an estimated cost, or denied: see its Decision.
//
//	r, err := limits.Reserve(ctx, "user:42", 1000, time.Minute)
//	if err != nil { … }
//	if !r.Allowed { … r.RetryAfter … }
//	tokens, err := answer(…)
//	if err != nil { r.Refund(ctx) … }
//	r.Commit(ctx, tokens)
//
// Until it is settled, the estimate counts. At the expiry it leaves the windows by itself, less than a bucket
// late: also if the process has ended by then, or the provider was closed. Redis keeps the expiry, so no
// instance has to be alive for it. With an expiry of 0, the estimate counts until it is a window old.
//
// A Commit puts the true cost in the place of the estimate. It counts from the instant of the admission on,
// however long ago that was, and so leaves each window when any call of that instant does. A higher cost is
// entered whole, even if the window then holds more than its capacity; the next calls wait for it.
type Reservation struct {
	Decision

	settle func(ctx context.Context, was, is uint64) error

	mu      sync.Mutex // guards the below, and is held while it is settled
	settled bool
	charged uint64 // what it costs now
	timer   *time.Timer
}

// NewReservation is for implementations of Keeper: it returns the reservation of a call that was decided.
// settle changes the cost from was to is, which may be equal. It is not called for a denied call, and never
// twice at the same time. A settle of nil changes nothing. With an expiry, settle is called with 0 by a timer
// after that. An implementation whose store expires the estimate by itself passes 0; was is then the estimate
// also where it has expired.
func NewReservation(
	d Decision, estimate uint64, expiry time.Duration, settle func(ctx context.Context, was, is uint64) error,
) *Reservation {
	r := &Reservation{Decision: d, settle: settle, charged: estimate}
	if d.Allowed && expiry > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.timer = time.AfterFunc(expiry, r.expire)
	}
	return r
}

// Commit settles the reservation at its true cost; 0 is a Refund. It can be called once: later calls return
// ErrSettled, and ErrDenied if the call was not admitted.
//
// It enters the true cost whatever has become of the estimate: it may have expired, or been deleted with its
// key. Others may have had its room since; the window then holds more than its capacity. A cost is not
// entered into a window that is shorter than the time since the admission.
//
// With Redis it takes a round trip or two, and an error means that it may have been settled or not; it is not
// to be repeated. If it was not, the estimate counts until its expiry, and the true cost is not counted after
// that. After Close of the provider it returns ErrClosed, and enters nothing.
func (r *Reservation) Commit(ctx context.Context, n uint64) error {
	if r == nil {
		return invalid.Errorf(ErrDenied, "the reservation is nil; it must be made by Reserve, without an error")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.Allowed:
		return invalid.Errorf(ErrDenied, "the reservation was denied; there is no cost to settle")
	case r.settled:
		return invalid.Errorf(ErrSettled,
			"the reservation was committed before, at a cost of %d; it cannot be committed at %d", r.charged, n)
	}
	r.settled = true
	if r.timer != nil {
		r.timer.Stop()
	}
	return r.changeLocked(ctx, n)
}

// Refund gives the estimate back: the call counts for nothing. It is a Commit of 0.
func (r *Reservation) Refund(ctx context.Context) error { return r.Commit(ctx, 0) }

// expire refunds what was not settled.
func (r *Reservation) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.settled {
		// If the store cannot be told, the estimate counts until it has left the window.
		guard.Log("the Keeper", func() { _ = r.changeLocked(context.Background(), 0) })
	}
}

func (r *Reservation) changeLocked(ctx context.Context, n uint64) error {
	was := r.charged
	r.charged = n
	if r.settle == nil || was == 0 && n == 0 {
		return nil
	}
	return r.settle(ctx, was, n)
}
