package redisproto

import (
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/window"
)

// Decide makes d, which is zero, what a verdict means at a capacity. The unit is that of v.Wait; denial is
// how the strategy says no.
func Decide(
	d *trypema.Decision, capacity uint64, v *window.Verdict, unit time.Duration, denial trypema.Outcome,
) {
	d.Allowed = v.Allowed
	d.Outcome = denial
	if v.Allowed {
		d.Outcome = trypema.OutcomeAllowed
	}
	d.Limit = capacity
	d.Remaining = window.Room(capacity, v.Now)
	d.RetryAfter = trypema.Never
	if v.Wait != window.Never {
		d.RetryAfter = time.Duration(v.Wait) * unit
		d.RemainingAfterWaiting = window.Room(capacity, v.Then)
	}
	d.SuppressionFactor = v.Factor
}

// Open returns the decision of a limiter that can not ask, and admits.
func Open(capacity, n uint64) trypema.Decision {
	room := window.Room(capacity, n)
	return trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: capacity, Remaining: room,
		RemainingAfterWaiting: room}
}

// Closed returns the decision of a limiter that can not ask, and says no until it asks again, after retry.
func Closed(capacity, n uint64, retry time.Duration, denial trypema.Outcome) trypema.Decision {
	d := trypema.Decision{Outcome: denial, Limit: capacity, RetryAfter: retry}
	if n > capacity {
		d.RetryAfter = trypema.Never
	}
	if denial == trypema.OutcomeSuppressed {
		d.SuppressionFactor = 1
	}
	return d
}
