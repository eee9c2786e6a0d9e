package trypema

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/guard"
)

// ErrSettled is a second Commit or Refund of a reservation, or one of a reservation that was denied.
var ErrSettled = errors.New("trypema: the reservation is settled already")

// Reservation is a call that was admitted at an estimated cost, or denied: see its Decision.
//
//	r, err := limits.Reserve(ctx, "user:42", 1000, time.Minute)
//	if err != nil { … }
//	if !r.Allowed { … r.RetryAfter … }
//	tokens, err := answer(…)
//	if err != nil { r.Refund(ctx) … }
//	r.Commit(ctx, tokens)
//
// The true cost takes the place of the estimate: in the group of events where that was recorded, however long ago, so that
// it leaves the window when the estimate would have. A higher one is entered whole, even if the window then holds more than its
// capacity; the next calls wait for it. What has left a window is not settled there.
//
// Set and Delete change what there is to settle; never is more taken back than is there.
type Reservation struct {
	Decision

	settle func(ctx context.Context, was, is uint64) error

	mu      sync.Mutex // guards the below, and is held while it is settled
	settled bool
	charged uint64
	timer   *time.Timer
}

// NewReservation is for implementations of MultiLimiter: it returns the reservation of a call that was
// decided. settle changes what it costs from was to is; it is not called for one that was denied, or twice at
// a time. A settle of nil changes nothing.
func NewReservation(d Decision, estimate uint64, expiry time.Duration, settle func(ctx context.Context, was, is uint64) error) *Reservation {
	r := &Reservation{Decision: d, settle: settle, charged: estimate, settled: !d.Allowed}
	if d.Allowed && expiry > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.timer = time.AfterFunc(expiry, r.expire)
	}
	return r
}

// Commit settles the reservation at its true cost; 0 is a Refund. It can be called once: later calls return ErrSettled. After
// the expiry it enters the true cost where the estimate was, though others may have had that room meanwhile.
//
// With Redis it takes a round trip or two, and an error means that it may have been settled or not; it is not to be repeated.
func (r *Reservation) Commit(ctx context.Context, n uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settled {
		return ErrSettled
	}
	r.settled = true
	if r.timer != nil {
		r.timer.Stop()
	}
	return r.changeLocked(ctx, n)
}

// Refund gives the estimate back: the call counts for nothing. It is a Commit of 0.
func (r *Reservation) Refund(ctx context.Context) error { return r.Commit(ctx, 0) }

// expire refunds what nobody has settled.
func (r *Reservation) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.settled {
		// If Redis can not be told, the estimate counts until it has left the window.
		guard.Log("the MultiLimiter", func() { _ = r.changeLocked(context.Background(), 0) })
	}
}

func (r *Reservation) changeLocked(ctx context.Context, n uint64) error {
	was := r.charged
	if n == was || r.settle == nil {
		return nil
	}
	r.charged = n
	return r.settle(ctx, was, n)
}
