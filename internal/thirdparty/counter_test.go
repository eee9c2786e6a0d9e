package thirdparty

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/trypema/trypema"
)

// This file is the sequential specification that histories are judged by: what a limiter whose window has not
// yet lost anything would answer, if calls came one after another. It knows nothing of groups, tables or
// locks.

// rules is a limiter of one strategy, in the first window after it was made.
type rules struct {
	// suppressed counts what is denied. Its HardLimitFactor is 1, so that it declines by need and never by
	// chance.
	suppressed bool
	window     time.Duration
	// limits are those of a trypema.Bound, the shortest window first; none for a trypema.Limiter.
	limits []trypema.Limit
	// oneGroup says that the bucket is the window: all events leave together, when the last of them is a
	// window old.
	oneGroup bool
	// most is the largest capacity, and counted where what is denied is no longer counted.
	most, counted uint64
	// slack is how much the clock of the limiter may be off during a history.
	slack time.Duration
}

// maxLimits is how many limits a history may have.
const maxLimits = 3

// counter is what the limiter holds for a key in one window, and counters in all of them.
type (
	counter struct {
		admitted, declined uint64
		last               int64 // the last recorded event did not come before this
	}
	counters [maxLimits]counter
)

func (c counter) observed() uint64 { return c.admitted + c.declined }

// bound is one limit of a call.
type bound struct {
	capacity uint64
	window   time.Duration
	name     string // that a denial by it gives
}

// boundsOf returns the limits of a call: its own, or those of a trypema.Bound.
func (r rules) boundsOf(c call) []bound {
	if r.limits == nil {
		return []bound{{c.capacity, r.window, ""}}
	}
	bounds := make([]bound, len(r.limits))
	for i, l := range r.limits {
		capacity, _ := l.Rate.Capacity(l.Window)
		bounds[i] = bound{min(capacity, r.most), l.Window, l.Label()}
	}
	return bounds
}

func (b bound) fits(have counter, n uint64) bool {
	return have.admitted <= b.capacity && n <= b.capacity-have.admitted
}

func (b bound) room(have counter) uint64 { return b.capacity - min(b.capacity, have.admitted) }

// step reports whether an answer is the one that a key with these counts gives, and returns the counts after
// it.
func (r rules) step(have counters, c call, a answer) (bool, counters) {
	if a.err != nil {
		return false, have
	}
	switch c.verb {
	case usage:
		b, one := r.boundsOf(c)[c.part], have[c.part]
		want := trypema.Usage{Total: one.observed(), Declined: one.declined, Limit: b.capacity, Remaining: b.room(one)}
		if r.suppressed && want.Remaining == 0 {
			want.SuppressionFactor = 1
		}
		return a.usage[c.part] == want, have
	case set:
		ok, one := r.set(have[0], c, a)
		return ok, counters{one}
	case remove:
		have[c.part] = counter{}
		return true, have
	case commit:
		have[c.part] = r.commit(have[c.part], c)
		return true, have
	default:
		return r.decide(have, c, a)
	}
}

// decide is a call that all limits admit, and record, or that is denied.
func (r rules) decide(have counters, c call, a answer) (bool, counters) {
	n, bounds := max(c.n, 1), r.boundsOf(c)
	allowed := true
	// What is told is of the limit with the least room, or, of those that refuse, of the one that takes
	// longest.
	by, refused := 0, -1
	for i, b := range bounds {
		if !b.fits(have[i], n) {
			allowed = false
			if refused < 0 || n <= bounds[refused].capacity {
				refused = i
			}
		}
	}
	for i := range bounds {
		if c.verb != peek {
			have[i] = r.record(have[i], c, n, allowed)
		}
		if bounds[i].room(have[i]) < bounds[by].room(have[by]) {
			by = i
		}
	}
	if !allowed {
		by = refused
	}
	b := bounds[by]
	want := trypema.Decision{Allowed: allowed, Outcome: trypema.OutcomeAllowed, Limit: b.capacity, Remaining: b.room(have[by])}
	switch {
	case allowed:
	case r.suppressed:
		want.Outcome, want.SuppressionFactor, want.RefusedBy = trypema.OutcomeSuppressed, 1, b.name
	default:
		want.Outcome, want.RefusedBy = trypema.OutcomeRejected, b.name
	}
	switch {
	case allowed:
		want.RemainingAfterWaiting = want.Remaining
	case n > b.capacity:
		want.RetryAfter = trypema.Never
	default:
		if !r.waits(have[by], b, c, n, a) {
			return false, have
		}
		want.RetryAfter, want.RemainingAfterWaiting = a.decision.RetryAfter, a.decision.RemainingAfterWaiting
	}
	return a.decision == want, have
}

// record counts a call that was decided.
func (r rules) record(have counter, c call, n uint64, allowed bool) counter {
	// What is denied is counted until the total is as large as it can be.
	declined := min(n, r.counted-min(have.observed(), r.counted))
	switch {
	case allowed:
		have.admitted += n
		have.last = max(have.last, c.at)
	case r.suppressed && declined > 0:
		have.declined += declined
		have.last = max(have.last, c.at)
	}
	return have
}

// waits reports whether RetryAfter is possible: the call was judged between c.at and a.at, and what has to
// expire came before the latter.
func (r rules) waits(have counter, b bound, c call, n uint64, a answer) bool {
	wait, then := int64(a.decision.RetryAfter), a.decision.RemainingAfterWaiting
	oldest, window, slack := int64(0), int64(b.window), int64(r.slack)
	if r.oneGroup {
		oldest = have.last
		n = b.capacity
	}
	return wait >= oldest+window-a.at-slack && wait <= window+a.at-c.at+slack && then >= n && then <= b.capacity
}

// commit is the settlement of a call that was admitted at c.n, at the true cost c.total, in one window: what
// is there of the estimate is taken back, and then the true cost is entered.
func (r rules) commit(have counter, c call) counter {
	have.admitted -= min(c.n, have.admitted)
	have.admitted += min(c.total, r.counted-min(have.observed(), r.counted))
	if have.observed() == 0 {
		return counter{}
	}
	return have
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

// model returns the rules in the form that the checker wants. Keys have nothing to do with each other, so
// each is checked by itself.
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
		Init: func() any { return counters{} },
		Step: func(state, input, output any) (bool, any) {
			return r.step(state.(counters), input.(call), output.(answer))
		},
		DescribeOperation: func(input, output any) string { return input.(call).describe(output.(answer)) },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}
