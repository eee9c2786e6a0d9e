package window

import "math"

// Never is the Wait of a call that can not pass however long it waits.
const Never = math.MaxInt64

// Verdict is the answer to one call; what judges a call wants a zero one to write to.
type Verdict struct {
	Allowed bool
	Factor  float64 // suppression factor, 0 under Absolute
	Wait    int64   // until the same call is certain to pass if nothing else happens; 0 when allowed, or Never
	Now     uint64  // admitted events in the window after this decision
	Then    uint64  // admitted events in the window after Wait
}

// Room returns what fits below a capacity.
func Room(capacity, admitted uint64) uint64 { return capacity - min(capacity, admitted) }

// Absolute judges a call of cost n at now, and records it if it is admitted and record is set.
//
// The verdict is written through a pointer. Returned by value it would be copied in wider pieces than it was
// written in, which waits until all stores before have reached the cache: with many keys, for the miss of the
// window.
func (w *Window) Absolute(v *Verdict, g *Groups, s Span, capacity uint64, now int64, n uint64, record bool) {
	now = w.Advance(g, s, now)
	v.Now = w.Counts().Admitted
	v.Allowed = v.Now <= capacity && n <= capacity-v.Now
	switch {
	case v.Allowed:
		if record {
			w.Record(g, s, now, Counts{Admitted: n})
			v.Now += n
		}
		v.Then = v.Now
	case n > capacity:
		v.Wait = Never
	default:
		var at int64
		at, v.Then = w.Fits(g, s, capacity-n)
		v.Wait = at - now
	}
}

// Suppressed judges a call of cost n at now by a throw of the dice, a number in [0, 1), and records it,
// admitted or declined, if record is set.
func (w *Window) Suppressed(
	v *Verdict, g *Groups, s Span, l *Law, now int64, n uint64, dice float64, record bool,
) {
	now = w.Advance(g, s, now)
	w.Throw(v, g, s, l, now, n, dice)
	c := Counts{Declined: n}
	if v.Allowed {
		c = Counts{Admitted: n}
	}
	if record {
		w.Record(g, s, now, c)
	}
	w.Tell(v, g, s, l, now, n)
}

// Throw is the first half of Suppressed: whether the call passes, at now, which must come from Advance.
func (w *Window) Throw(v *Verdict, g *Groups, s Span, l *Law, now int64, n uint64, dice float64) {
	v.Factor = 1
	if n <= l.Capacity {
		v.Factor = w.Factor(g, s, l, now, n)
	}
	v.Allowed = dice >= v.Factor
}

// Tell is the second half: what is there once the call is recorded, and the wait from then on. A call that is
// declined is observed, so it makes the wait for the next one longer.
func (w *Window) Tell(v *Verdict, g *Groups, s Span, l *Law, now int64, n uint64) {
	v.Now = w.Counts().Admitted
	switch {
	case v.Allowed:
		v.Then = v.Now
	case n > l.Capacity:
		v.Wait = Never
	default:
		var at int64
		at, v.Then = w.Calms(g, s, l, n)
		v.Wait = at - now
	}
}

// Joint is the verdict on a call that has several limits to keep, each with a window of its own: that of the
// limit which refuses for longest, or, if none does, of the one with the least room. The zero value has seen
// no limit.
type Joint struct {
	Verdict
	Limit    int // which
	Capacity uint64
	Most     float64 // the largest suppression factor
	seen     bool
}

// Add takes the verdict of one limit.
func (t *Joint) Add(limit int, capacity uint64, v *Verdict) {
	t.Most = max(t.Most, v.Factor)
	switch {
	case !t.seen:
	case v.Allowed != t.Allowed:
		if v.Allowed {
			return
		}
	case v.Allowed && Room(capacity, v.Now) >= Room(t.Capacity, t.Now), !v.Allowed && v.Wait <= t.Wait:
		return
	}
	t.Verdict, t.Limit, t.Capacity, t.seen = *v, limit, capacity, true
}
