package thirdparty

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/trypema/trypema"
)

// This file is the sequential specification that histories are judged by: what a limiter whose window has not yet lost
// anything would answer, if calls came one after another. It knows nothing of groups, tables or locks.

// rules is a limiter of one strategy, in the first window after it was made.
type rules struct {
	// suppressed counts what is denied. Its HardLimitFactor is 1, so that it declines by need and never by chance.
	suppressed bool
	window     time.Duration
	// oneGroup says that the bucket is the window: all events leave together, when the last of them is a window old.
	oneGroup bool
}

// counter is what the limiter holds for a key.
type counter struct {
	admitted, declined uint64
	last               int64 // the last recorded event did not come before this
}

func (c counter) observed() uint64 { return c.admitted + c.declined }

// step reports whether an answer is the one that a key with these counts gives, and returns the counts after it.
func (r rules) step(have counter, c call, a answer) (bool, counter) {
	if a.err != nil {
		return false, have
	}
	switch c.verb {
	case usage:
		want := trypema.Usage{
			Total:     have.observed(),
			Declined:  have.declined,
			Limit:     c.capacity,
			Remaining: c.capacity - min(c.capacity, have.admitted),
		}
		if r.suppressed && want.Remaining == 0 {
			want.SuppressionFactor = 1
		}
		return a.usage == want, have
	case set:
		return r.set(have, c, a)
	case remove:
		return true, counter{}
	default:
		return r.decide(have, c, a)
	}
}

func (r rules) decide(have counter, c call, a answer) (bool, counter) {
	n := max(c.n, 1)
	fits := have.admitted <= c.capacity && n <= c.capacity-have.admitted
	// What is denied is counted until the total is as large as a capacity can be.
	declined := min(n, unlimited-min(have.observed(), unlimited))
	switch {
	case c.verb == peek:
	case fits:
		have.admitted += n
		have.last = max(have.last, c.at)
	case r.suppressed && declined > 0:
		have.declined += declined
		have.last = max(have.last, c.at)
	}
	want := trypema.Decision{
		Allowed:   fits,
		Outcome:   trypema.OutcomeAllowed,
		Limit:     c.capacity,
		Remaining: c.capacity - min(c.capacity, have.admitted),
	}
	switch {
	case fits:
	case r.suppressed:
		want.Outcome, want.SuppressionFactor = trypema.OutcomeSuppressed, 1
	default:
		want.Outcome = trypema.OutcomeRejected
	}
	switch {
	case fits:
		want.RemainingAfterWaiting = want.Remaining
	case n > c.capacity:
		want.RetryAfter = trypema.Never
	default:
		if !r.waits(have, c, n, a) {
			return false, have
		}
		want.RetryAfter, want.RemainingAfterWaiting = a.decision.RetryAfter, a.decision.RemainingAfterWaiting
	}
	return a.decision == want, have
}

// waits reports whether RetryAfter is possible: the call was judged between c.at and a.at, and what has to expire came
// before the latter.
func (r rules) waits(have counter, c call, n uint64, a answer) bool {
	wait, then := int64(a.decision.RetryAfter), a.decision.RemainingAfterWaiting
	oldest := int64(0)
	if r.oneGroup {
		oldest = have.last
		n = c.capacity
	}
	return wait >= oldest+int64(r.window)-a.at && wait <= int64(r.window)+a.at-c.at && then >= n && then <= c.capacity
}

func (r rules) set(have counter, c call, a answer) (bool, counter) {
	total := have.observed()
	want := trypema.SetResult{Matched: c.when.Holds(total), Previous: total, Current: total}
	if !want.Matched {
		return a.set == want, have
	}
	want.Current = c.total
	switch {
	case c.total == 0:
		have = counter{}
	case c.keep == trypema.Replace || total == 0:
		have = counter{admitted: c.total, last: c.at}
	case c.total >= total:
		have.admitted += c.total - total
	default: // a cut group keeps the share of what it declined, rounded down
		hi, lo := bits.Mul64(have.declined, c.total)
		have.declined, _ = bits.Div64(hi, lo, total)
		have.admitted = c.total - have.declined
	}
	return a.set == want, have
}

// model returns the rules in the form that the checker wants. Keys have nothing to do with each other, so each is
// checked by itself.
func (r rules) model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			var keys []string
			byKey := map[string][]porcupine.Operation{}
			for _, op := range history {
				k := op.Input.(call).key
				if byKey[k] == nil {
					keys = append(keys, k)
				}
				byKey[k] = append(byKey[k], op)
			}
			var parts [][]porcupine.Operation
			for _, k := range keys {
				parts = append(parts, byKey[k])
			}
			return parts
		},
		Init: func() any { return counter{} },
		Step: func(state, input, output any) (bool, any) {
			return r.step(state.(counter), input.(call), output.(answer))
		},
		DescribeOperation: func(input, output any) string { return input.(call).describe(output.(answer)) },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}
