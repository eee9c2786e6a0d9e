// Package anywindow judges the bound: what limiters admitted in any window, wherever it begins.
package anywindow

import (
	"slices"
	"time"
)

// Admission is a call that was admitted at some instant from From to To, both included: the instants right before and after
// it, or twice the same where the clock stands still meanwhile.
type Admission struct {
	From, To time.Time
	Cost     uint64
}

// Most returns the most cost that was certainly admitted in one half-open interval of length w: by calls that both began
// and ended in it. The log may have any order. It takes O(n log n) time.
func Most(log []Admission, w time.Duration) (most uint64) {
	var froms, tos []Admission
	for _, a := range log {
		if a.To.Sub(a.From) < w { // or it fits into none
			froms, tos = append(froms, a), append(tos, a)
		}
	}
	slices.SortFunc(froms, func(a, b Admission) int { return a.From.Compare(b.From) })
	slices.SortFunc(tos, func(a, b Admission) int { return a.To.Compare(b.To) })
	// What has ended before the interval does, less what began before it does: all of that has ended by then.
	var sum uint64
	next := 0
	for _, first := range froms {
		for next < len(tos) && tos[next].To.Sub(first.From) < w {
			sum += tos[next].Cost
			next++
		}
		most = max(most, sum)
		sum -= first.Cost
	}
	return most
}
