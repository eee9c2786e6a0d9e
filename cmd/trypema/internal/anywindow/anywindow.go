// Package anywindow finds the fullest window of admissions there ever was, by instants that are known only within
// bounds.
//
// A limiter decides at some instant between the clock reads before and after a call. A check that took either read
// for the instant itself would blame the limiter for the delays of the scheduler. So an admission counts for a
// half-open interval of length W only if it lies in it whichever instant of its own was the true one:
//
//	fullest = max over all sets of admissions with max(after) − min(before) < W of their number
//
// What this finds is certain: a limiter that keeps "at most C in any window" never shows more than C here.
package anywindow

import (
	"container/heap"
	"time"
)

// Counter keeps the fullest window of a stream of admissions. It holds one number for each admission of the last
// window; an admission costs O(log n) of these. It is not safe for concurrent use.
type Counter struct {
	window time.Duration
	starts starts
	max    int
}

// New returns a Counter for windows of length w.
func New(w time.Duration) *Counter { return &Counter{window: w} }

// Add records an admission that was decided between before and after. The calls must come in the order of after:
// then every set that ends with this admission is a set of what was added so far, and an older admission that no
// longer fits into one window with it fits with no later one.
func (c *Counter) Add(before, after time.Duration) {
	heap.Push(&c.starts, before)
	for len(c.starts) > 0 && c.starts[0] <= after-c.window {
		heap.Pop(&c.starts)
	}
	c.max = max(c.max, len(c.starts))
}

// Max is the number of admissions in the fullest window so far.
func (c *Counter) Max() int { return c.max }

// starts is a heap of the earliest instants, the oldest on top. It is a heap and not a queue because calls end in
// another order than they began.
type starts []time.Duration

func (s starts) Len() int           { return len(s) }
func (s starts) Less(i, j int) bool { return s[i] < s[j] }
func (s starts) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *starts) Push(x any)        { *s = append(*s, x.(time.Duration)) }
func (s *starts) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}
