// Package tally counts what a limiter decides: exactly, without a lock, and without callers that disturb each
// other.
package tally

import (
	"iter"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"
)

// Tally counts the calls of one strategy of a provider.
//
// The counters are striped, and a call adds to one cell of one stripe: one atomic add to a cache line that
// the processor mostly has. Of some calls it also samples how long they took, and
// which key was denied.
type Tally struct {
	stripes [1 << stripeBits]stripe
	latency [Buckets]atomic.Uint64
	took    atomic.Int64 // by those in latency, together
	top     top
}

// Cell is what is counted.
type Cell uint8

// The cells. Each call is Allowed, Denied or Failed; it may also count in the other cells.
const (
	Allowed  Cell = iota
	Denied        // by either strategy
	Failed        // with an error
	Fallback      // decided by the failure policy
	Waited        // for a round trip
)

// Judged returns the cell of a decision.
func Judged(allowed bool) Cell {
	if allowed {
		return Allowed
	}
	return Denied
}

// stripe is one cache line.
type stripe struct {
	cells [8]atomic.Uint64
}

// Buckets is how many buckets of latency there are: bucket i is for calls of less than 2^i ns, that are in
// none before it. The last is for all others, too.
const Buckets = 36

// New returns a Tally of nothing.
func New() *Tally {
	t := new(Tally)
	t.top.init()
	return t
}

const (
	stripeBits = 7 // enough that two goroutines seldom meet in one

	golden = 0x9e3779b97f4a7c15 // 2⁶⁴ divided by the golden ratio
	// SampleEvery is one in how many calls is sampled, once a stripe has had that many.
	SampleEvery = 1024
)

// Count adds a call to a cell. It returns how many calls this one stands for if it is sampled, else 0: the
// first calls of a stripe are, then one in SampleEvery. The product with the golden ratio spreads those
// evenly over any pattern of calls, where each 1024th call might always be of the same key.
//
// The stripe is picked by where the stack of the goroutine is, which is the cheapest thing that differs
// between goroutines. The address is used as a number only: that a stack may move does not matter.
//
// A nil Tally counts nothing.
func (t *Tally) Count(c Cell) (sample uint64) {
	if t == nil {
		return 0
	}
	var here byte
	stripe := uint64(uintptr(unsafe.Pointer(&here))>>11) * golden >> (64 - stripeBits)
	n := t.stripes[stripe].cells[c&7].Add(1)
	switch {
	case n <= SampleEvery:
		return 1
	case n*golden < 1<<64/SampleEvery:
		return SampleEvery
	}
	return 0
}

// Decided counts a decision about a key, by the failure policy if it was a fallback, or that there was none
// but an error. It returns what Count does for the outcome, and has noted the key if it was denied.
func (t *Tally) Decided(key string, allowed, fallback bool, err error) (sample uint64) {
	if err != nil {
		t.Count(Failed)
		return 0
	}
	if fallback {
		t.Count(Fallback)
	}
	if sample = t.Count(Judged(allowed)); sample > 0 && !allowed {
		t.Denied(key, sample)
	}
	return sample
}

// Took adds how long a call took.
func (t *Tally) Took(d time.Duration) {
	d = max(d, 0)
	t.latency[min(bits.Len64(uint64(d)), Buckets-1)].Add(1)
	t.took.Add(int64(d))
}

// Denied adds n denied calls to a key.
func (t *Tally) Denied(key string, n uint64) { t.top.add(key, n, time.Now()) }

// TopDenied yields the n keys that were denied most of late, and how often at least, as far as sampled.
func (t *Tally) TopDenied(n int) iter.Seq2[string, uint64] {
	return Ranked(t.top.denied(time.Now()), n)
}

// Counters is a trypema.Counters, which this package cannot import, field by field.
type Counters struct {
	Allowed    uint64
	Rejected   uint64
	Suppressed uint64
	Errors     uint64
	Fallbacks  uint64
	Waited     uint64
	Outages    uint64 // not counted here
	Unreadable uint64 // nor this
	Latency    [Buckets]uint64
	LatencySum time.Duration
}

// Read returns what was counted. Denials are suppressed calls, or else rejected ones.
func (t *Tally) Read(suppressed bool) Counters {
	c := Counters{
		Allowed:    t.sum(Allowed),
		Errors:     t.sum(Failed),
		Fallbacks:  t.sum(Fallback),
		Waited:     t.sum(Waited),
		LatencySum: time.Duration(t.took.Load()),
	}
	if suppressed {
		c.Suppressed = t.sum(Denied)
	} else {
		c.Rejected = t.sum(Denied)
	}
	for i := range c.Latency {
		c.Latency[i] = t.latency[i].Load()
	}
	return c
}

// The bounds that metrics tell apart: 2^i ns, from 32 ns to 8.6 s.
const (
	firstBound = 5
	lastBound  = 33
)

// Below yields how many calls took less than each bound, in seconds.
func Below(latency *[Buckets]uint64) iter.Seq2[float64, uint64] {
	return func(yield func(float64, uint64) bool) {
		n := uint64(0)
		for i, more := range latency[:lastBound+1] {
			n += more
			if i >= firstBound && !yield((time.Duration(1)<<i).Seconds(), n) {
				return
			}
		}
	}
}

// Measured returns how many calls there are in all buckets.
func Measured(latency *[Buckets]uint64) (n uint64) {
	for _, more := range latency {
		n += more
	}
	return n
}

// sum returns a cell of all stripes together.
func (t *Tally) sum(c Cell) (n uint64) {
	for i := range t.stripes {
		n += t.stripes[i].cells[c].Load()
	}
	return n
}
