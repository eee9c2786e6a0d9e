// Package anywindow judges the bound: the most that limiters admitted in any window, wherever it begins.
//
// A limiter decides at some instant between the clock reads before and after a call. A judge that took either
// read for that instant would blame the limiter for the delays of the scheduler. So an admission counts for a
// half-open interval of length W only if it lies in it whichever instant of its own was the true one:
//
//	most = max over all sets of admissions with max(after) − min(before) < W of their cost
//
// What this finds is certain: a limiter that keeps "at most C in any window" never shows more than C here.
// Counter judges while admissions happen, Most judges a log of them.
package anywindow

import (
	"cmp"
	"slices"
	"time"
)

// Admission is a call that was admitted at some instant from From to To, both included: the instants right
// before and after it, or twice the same where the clock stands still meanwhile.
type Admission struct {
	From, To time.Time
	Cost     uint64
}

// Most returns the most cost that was certainly admitted in one half-open interval of length w: by calls that
// both began and ended in it. The log may have any order. It takes O(n log n) time.
func Most(log []Admission, w time.Duration) uint64 {
	log = slices.Clone(log)
	slices.SortFunc(log, func(a, b Admission) int { return a.To.Compare(b.To) })
	c := NewCounter(w)
	for _, a := range log {
		c.Add(a.From.Sub(log[0].From), a.To.Sub(log[0].From), a.Cost)
	}
	return c.Max()
}

// Counter keeps the most that was admitted in a window of a stream of admissions. It holds two numbers for
// each admission of the last window. An admission costs O(log n) of these, and O(1) for each call that ended
// before it and began after it. It is not safe for concurrent use.
type Counter struct {
	window   time.Duration
	starts   []start // sorted: calls end in another order than they began
	sum, max uint64  // cost of starts, and the most of that so far
}

type start struct {
	at   time.Duration
	cost uint64
}

// NewCounter returns a Counter for windows of length w.
func NewCounter(w time.Duration) *Counter { return &Counter{window: w} }

// Add records an admission that was decided between before and after. The calls must come in the order of
// after: then every set that ends with this admission is a set of what was added so far, and an older
// admission that no longer fits into one window with it fits with no later one.
func (c *Counter) Add(before, after time.Duration, cost uint64) {
	order := func(s start, at time.Duration) int { return cmp.Compare(s.at, at) }
	i, _ := slices.BinarySearchFunc(c.starts, before, order)
	c.starts = slices.Insert(c.starts, i, start{before, cost})
	c.sum += cost
	for len(c.starts) > 0 && after-c.starts[0].at >= c.window {
		c.sum -= c.starts[0].cost
		c.starts = c.starts[1:]
	}
	c.max = max(c.max, c.sum)
}

// Max is the most cost in any window so far.
func (c *Counter) Max() uint64 { return c.max }
