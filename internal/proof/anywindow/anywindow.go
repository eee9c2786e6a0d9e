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
	"container/heap"
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
// each admission of the last window; an admission costs O(log n) of these. It is not safe for concurrent use.
type Counter struct {
	window   time.Duration
	starts   starts
	sum, max uint64 // cost of starts, and the most of that so far
}

// NewCounter returns a Counter for windows of length w.
func NewCounter(w time.Duration) *Counter { return &Counter{window: w} }

// Add records an admission that was decided between before and after. The calls must come in the order of
// after: then every set that ends with this admission is a set of what was added so far, and an older
// admission that no longer fits into one window with it fits with no later one.
func (c *Counter) Add(before, after time.Duration, cost uint64) {
	heap.Push(&c.starts, start{before, cost})
	c.sum += cost
	for len(c.starts) > 0 && after-c.starts[0].at >= c.window {
		c.sum -= heap.Pop(&c.starts).(start).cost
	}
	c.max = max(c.max, c.sum)
}

// Max is the most cost in any window so far.
func (c *Counter) Max() uint64 { return c.max }

type start struct {
	at   time.Duration
	cost uint64
}

// starts is a heap of the earliest instants, the oldest on top. It is a heap and not a queue because calls
// end in another order than they began.
type starts []start

func (s starts) Len() int           { return len(s) }
func (s starts) Less(i, j int) bool { return s[i].at < s[j].at }
func (s starts) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *starts) Push(x any)        { *s = append(*s, x.(start)) }
func (s *starts) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}
