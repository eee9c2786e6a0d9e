package trypema

import (
	"math"
	"strconv"
	"time"

	"github.com/trypema/trypema/internal/window"
)

// Never is the RetryAfter of a call whose cost is above the capacity: no amount of waiting lets it pass.
const Never time.Duration = math.MaxInt64

// Decision is the answer to one call.
type Decision struct {
	// Allowed reports whether the call may pass. It equals Outcome == OutcomeAllowed.
	Allowed bool

	// Outcome is the answer as a word.
	Outcome Outcome

	// Fallback reports that a provider that needs Redis decided by its failure policy, because Redis did not
	// answer.
	Fallback bool

	// Shadowed reports that a policy in shadow let a call pass which its limits denied: see Policy.Shadow.
	Shadowed bool

	// Limit is the capacity C of one window at the rate of this call: floor(rate × window).
	Limit uint64

	// Remaining is the cost that still fits below Limit after this decision. It can be above zero in a
	// denial, when the cost asked for is larger.
	Remaining uint64

	// RetryAfter is 0 when the call was allowed, else how long to wait: with nothing else happening, the same
	// call is certain to be allowed after exactly this time, and not before. Never when the cost is above
	// Limit.
	RetryAfter time.Duration

	// RemainingAfterWaiting is the cost that fits below Limit once RetryAfter has passed, if nothing else
	// happens: equal to Remaining when the call was allowed, 0 when RetryAfter is Never.
	RemainingAfterWaiting uint64

	// RefusedBy names the limit of a Bound that refused. It is empty where the call was allowed, and where
	// the rate was given to the call.
	RefusedBy string

	// SuppressionFactor is the probability, from 0 to 1, with which Suppressed declined a call in this state;
	// 1 when nothing can pass. Absolute leaves it 0.
	SuppressionFactor float64
}

// RetryAfterSeconds is RetryAfter in whole seconds, for people and headers. It is rounded up, so a caller
// that waits so long is never too early, and it is at least 1. It is 0 if the call was allowed, and at most a
// year, also for Never.
func (d Decision) RetryAfterSeconds() int {
	const most = 365 * 24 * time.Hour
	switch {
	case d.Allowed:
		return 0
	case d.RetryAfter >= most:
		return int(most / time.Second)
	}
	return int(max(1, (d.RetryAfter+time.Second-1)/time.Second))
}

// Outcome says what became of a call.
type Outcome uint8

const (
	// OutcomeRejected is a denial by Absolute: the window has no room for the cost. Nothing was recorded. It
	// is the zero value, so that an empty Decision denies.
	OutcomeRejected Outcome = iota
	// OutcomeAllowed is a call that was recorded and may pass.
	OutcomeAllowed
	// OutcomeSuppressed is a denial by Suppressed, by chance or because the hard capacity is reached. It was
	// counted as declined.
	OutcomeSuppressed
)

// String returns "rejected", "allowed" or "suppressed".
func (o Outcome) String() string {
	switch o {
	case OutcomeRejected:
		return "rejected"
	case OutcomeAllowed:
		return "allowed"
	case OutcomeSuppressed:
		return "suppressed"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// Usage is what the window of one key holds.
type Usage struct {
	// Total is the cost observed in the window: admitted plus declined.
	Total uint64
	// Declined is the part of Total that Suppressed declined; always 0 under Absolute. It is no longer
	// counted once Total is 2⁶³−1.
	Declined uint64
	// Limit is the capacity at the rate asked about.
	Limit uint64
	// Remaining is the cost that still fits below Limit.
	Remaining uint64
	// SuppressionFactor is the probability with which a call of cost 1 would be declined now; 0 under
	// Absolute.
	SuppressionFactor float64
}

// set makes d the decision that a verdict means. It writes through a pointer because a Decision is too large
// for the compiler to keep in registers: made and returned by value it would be copied at every step.
func (d *Decision) set(capacity uint64, v *window.Verdict, denial Outcome) {
	d.Allowed = v.Allowed
	d.Outcome = denial
	if v.Allowed {
		d.Outcome = OutcomeAllowed
	}
	d.Limit = capacity
	d.Remaining = window.Room(capacity, v.Now)
	d.RetryAfter = time.Duration(v.Wait)
	if v.Wait != window.Never {
		d.RemainingAfterWaiting = window.Room(capacity, v.Then)
	}
	d.SuppressionFactor = v.Factor
}
