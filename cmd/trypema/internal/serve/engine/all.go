package engine

import (
	"context"
	"time"

	"github.com/trypema/trypema"
)

// ask is a limit and a key that a call has to keep, and its cost.
type ask struct {
	*limiter
	key  string
	cost uint64
	at   int // the status in the answer
}

// settleTime bounds how long a part of a call that several limits decide may count, if this process ends
// before they have.
const settleTime = 10 * time.Second

// all decides several asks together, and records the call in all of them or in none. It returns the place of
// the ask that refused with the longest RetryAfter, or -1.
//
// A call that does not fit is refused by a look, which records nothing. One that fits is reserved limit by
// limit; if another call has taken the room of one of them meanwhile, what was reserved is given back.
func all(ctx context.Context, asks []ask) (refused int, d trypema.Decision, err error) {
	refused = -1
	for i, a := range asks {
		one, err := a.Peek(ctx, a.key, a.cost)
		if err != nil {
			return -1, one, err
		}
		d.Fallback = d.Fallback || one.Fallback
		if !one.Allowed && (refused < 0 || one.RetryAfter > d.RetryAfter) {
			refused, d = i, one
		}
	}
	if refused >= 0 {
		return refused, d, nil
	}
	var room [4]*trypema.Reservation
	made := room[:0]
	for i, a := range asks {
		r, err := a.Reserve(ctx, a.key, a.cost, 0)
		if err == nil && r.Allowed {
			made = append(made, r)
			continue
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
		defer cancel()
		for _, r := range made {
			_ = r.Refund(undo) // if the store cannot be told, it counts until it is a window old
		}
		if err != nil {
			return -1, d, err
		}
		return i, r.Decision, nil
	}
	d.Allowed = true
	for _, r := range made {
		d.Fallback = d.Fallback || r.Fallback
	}
	return -1, d, nil
}

// blocked is a limit of 0: it denies everything, and holds nothing.
type blocked struct{}

func (blocked) Allow(context.Context, string) (trypema.Decision, error) {
	return trypema.Decision{RetryAfter: trypema.Never}, nil
}

func (blocked) AllowN(context.Context, string, uint64) (trypema.Decision, error) {
	return trypema.Decision{RetryAfter: trypema.Never}, nil
}

func (blocked) Peek(context.Context, string, uint64) (trypema.Decision, error) {
	return trypema.Decision{RetryAfter: trypema.Never}, nil
}

func (blocked) Reserve(context.Context, string, uint64, time.Duration) (*trypema.Reservation, error) {
	return trypema.NewReservation(trypema.Decision{RetryAfter: trypema.Never}, 0, 0, nil), nil
}

func (blocked) Usage(context.Context, string) ([]trypema.Usage, error) {
	return make([]trypema.Usage, 1), nil
}

func (blocked) Delete(context.Context, string) error { return nil }
