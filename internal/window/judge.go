package window

import "math"

// Never is the Wait of a call that can not pass however long it waits.
const Never = math.MaxInt64

// Verdict is the answer to one call.
type Verdict struct {
	Allowed bool
	Factor  float64 // suppression factor, 0 under Absolute
	Wait    int64   // until the same call is certain to pass if nothing else happens; 0 when allowed, or Never
	Now     uint64  // admitted events in the window after this decision
	Then    uint64  // admitted events in the window after Wait
}

// Absolute judges a call of cost n at now, and records it if it is admitted and record is set.
func (w *Window) Absolute(g *Groups, s Span, capacity uint64, now int64, n uint64, record bool) Verdict {
	now = w.Advance(g, s, now)
	have := w.Counts().Admitted
	if have <= capacity && n <= capacity-have {
		if record {
			w.Record(g, s, now, Counts{Admitted: n})
			have += n
		}
		return Verdict{Allowed: true, Now: have, Then: have}
	}
	if n > capacity {
		return Verdict{Wait: Never, Now: have}
	}
	at, then := w.Fits(g, s, capacity-n)
	return Verdict{Wait: at - now, Now: have, Then: then}
}

// Suppressed judges a call of cost n at now by a throw of the dice, a number in [0, 1), and records it, admitted or
// declined, if record is set.
func (w *Window) Suppressed(g *Groups, s Span, l *Law, now int64, n uint64, dice float64, record bool) Verdict {
	now = w.Advance(g, s, now)
	factor := 1.0
	if n <= l.Capacity {
		factor = w.Factor(g, s, l, now, n)
	}
	v := Verdict{Allowed: dice >= factor, Factor: factor}
	c := Counts{Declined: n}
	if v.Allowed {
		c = Counts{Admitted: n}
	}
	if record {
		w.Record(g, s, now, c)
	}
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
	return v
}
