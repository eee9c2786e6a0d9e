package middleware

import (
	"context"
	"errors"
	"time"

	"github.com/trypema/trypema"
)

// wait returns when a Bound admits a call in its turn. If that can or could not be within the time most, or
// before the deadline of the context, it returns a denial. A cost of 0 is that which the Bound says.
func wait(
	ctx context.Context, most time.Duration, b *trypema.Bound, key string, cost uint64,
) (d trypema.Decision, err error) {
	waiting, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if cost == 0 {
		d, err = b.Wait(waiting, key)
	} else {
		d, err = b.WaitN(waiting, key, cost)
	}
	switch {
	case errors.Is(err, trypema.ErrWouldExceedDeadline):
		return d, nil
	case errors.Is(err, trypema.ErrInvalidCost) && d.RetryAfter == trypema.Never: // whose cost is too high
		return d, nil
	case errors.Is(err, context.DeadlineExceeded) && waiting.Err() != nil && ctx.Err() == nil:
		if d, err = b.Peek(ctx, key, cost); err != nil {
			return trypema.Decision{}, err
		}
		if d.Allowed { // there is room now, but the time is up
			d.Allowed, d.Shadowed, d.Outcome = false, false, trypema.OutcomeRejected
		}
	}
	return d, err
}

// again asks until the call is allowed. Between two attempts it waits for RetryAfter, and in all for most. If
// the call would have to wait longer, or beyond the deadline of the context, again returns the denial at
// once. Calls that come later may be allowed earlier.
func again(
	ctx context.Context, most time.Duration, ask func() (trypema.Decision, error),
) (trypema.Decision, error) {
	if most == 0 {
		return ask()
	}
	until := time.Now().Add(most)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	for {
		d, err := ask()
		if err != nil || d.Allowed {
			return d, err
		}
		now, wait := time.Now(), max(d.RetryAfter, time.Millisecond) // Suppressed may ask to come again at once
		if wait > until.Sub(now) {                                   // Never included
			return d, nil
		}
		timer := time.NewTimer(time.Until(now.Add(wait)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return d, ctx.Err()
		case <-timer.C:
		}
	}
}
