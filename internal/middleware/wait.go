package middleware

import (
	"context"
	"time"

	"github.com/trypema/trypema"
)

// Allow asks a limiter until it allows a call, waiting in between as long as it says, and most in all. If the
// call would have to wait longer, or beyond the deadline of the context, it returns the denial at once. While
// it waits it may be overtaken.
func Allow(
	ctx context.Context, most time.Duration, ask func() (trypema.Decision, error),
) (trypema.Decision, error) {
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
