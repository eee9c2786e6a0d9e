package lease

import (
	"math"
	"math/bits"

	"github.com/trypema/trypema/internal/window"
)

// spell is a time in which a policy decides for an account, because the ledger does not answer, or only now and then. It begins with the
// first such decision, and ends a window after the last one. docs/design.md has what counts in it, and why that holds the limit.
type spell struct {
	began  int64
	last   int64         // when the policy decided last
	before window.Window // what the view held when it began
	own    window.Window // what this instance has done since then
	policy window.Window // the part of that which the policy has decided

	// What the policy has decided since the last message was sent, and since that was sent which was answered last.
	unsent, unheard window.Counts
}

// decides returns the spell in which a policy decides at now.
func (a *Account) decides(g *window.Groups, t *Terms, now int64) *spell {
	if a.spell != nil && now-a.spell.last >= t.Window {
		a.endSpell(g)
	}
	if a.spell == nil {
		a.spell = &spell{began: now}
		for last, c := range a.view.All(g) {
			a.spell.before.RecordGroup(g, window.Span{Window: t.Window, Bucket: 1}, last, last, c)
		}
		a.open = false // what is from before is not to be mixed up with what comes
	}
	s := a.spell
	s.last = max(s.last, now)
	s.before.Advance(g, t.Span, now)
	s.own.Advance(g, t.Span, now)
	s.policy.Advance(g, t.Span, now)
	return s
}

// hearSpell is told of an answer.
func (a *Account) hearSpell(g *window.Groups, t *Terms, now int64) {
	switch s := a.spell; {
	case s == nil:
	case now-s.last >= t.Window:
		a.endSpell(g)
	default:
		s.unheard = s.unsent
	}
}

func (a *Account) endSpell(g *window.Groups) {
	if s := a.spell; s != nil {
		s.before.Clear(g)
		s.own.Clear(g)
		s.policy.Clear(g)
		a.spell = nil
		for i := range a.pending {
			a.pending[i].inSpell = false
		}
	}
}

// inSpell does something with the windows of the spell, if there is one, that have a held call.
func (a *Account) inSpell(h *Held, do func(w *window.Window)) {
	switch s := a.spell; {
	case s == nil:
	case h.spell != s:
		do(&s.before)
	case h.byPolicy:
		do(&s.policy)
		fallthrough
	default:
		do(&s.own)
	}
}

// estimate returns what the window is taken to hold, all instances together, and what of that was observed in its recent part, by one of
// so many instances.
func (a *Account) estimate(g *window.Groups, t *Terms, now int64, s *spell, instances uint64) (have window.Counts, recent uint64) {
	others := instances - 1
	since := now - t.Recent()
	before, own, policy := s.before.Counts(), s.own.Counts(), s.policy.Counts()
	known, knownRecently := a.view.After(g, now-t.Window+a.trip), a.view.Since(g, since)
	ownRecently, policyRecently := s.own.Since(g, since), s.policy.Since(g, since)
	if s.began > since {
		ownRecently = knownRecently
	}
	if others == 0 { // it answers for itself, and others for themselves
		return before.Plus(own), ownRecently
	}
	most := func(before, own, policy, known, unheard uint64) uint64 {
		return max(sum(sum(before, own), times(others, policy)), sum(known, times(others, min(unheard, policy))))
	}
	have.Admitted = most(before.Admitted, own.Admitted, policy.Admitted, known.Admitted, s.unheard.Admitted)
	have.Admitted = sum(have.Admitted, a.inUse(now))
	have.Declined = most(before.Declined, own.Declined, policy.Declined, known.Declined, s.unheard.Declined)
	have.Declined = min(have.Declined, math.MaxInt64-have.Admitted)
	return have, most(0, ownRecently, policyRecently, knownRecently, s.unheard.Observed())
}

// inUse returns what others had on lease when the ledger was heard of last, as long as the window may hold what they admit from it.
func (a *Account) inUse(now int64) uint64 {
	if now < a.using {
		return a.others
	}
	return 0
}

// sum and times end at the largest number.
func sum(a, b uint64) uint64 { return min(a+min(b, math.MaxInt64), math.MaxInt64) }

func times(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi > 0 {
		return math.MaxInt64
	}
	return min(lo, math.MaxInt64)
}

// Alone judges a call without the ledger, when that cannot be asked or does not answer, as one of so many instances that each take the
// same part of what is left: by a law, or as Absolute if there is none. It records it if record is set.
func (a *Account) Alone(v *Verdict, g *window.Groups, t *Terms, capacity uint64, l *window.Law, instances uint64, now int64, n uint64, dice float64, record bool) {
	now = a.view.Advance(g, t.Span, now)
	a.touched, a.capacity = max(a.touched, now), capacity
	if l != nil {
		a.capacity = l.Hard
	}
	s := a.decides(g, t, now)
	have, recent := a.estimate(g, t, now, s, instances)
	v.Now = have.Admitted
	counted := window.Counts{Declined: n}
	n = min(n, capacity+1) // so that products do not wrap
	all := times(n, instances)
	if l == nil {
		v.Allowed = have.Admitted <= capacity && all <= capacity-have.Admitted
		counted = window.Counts{}
	} else {
		v.Factor = 1
		if n <= capacity {
			v.Factor = l.Factor(have, recent, all)
		}
		v.Allowed = dice >= v.Factor
	}
	if v.Allowed {
		counted = window.Counts{Admitted: n}
	}
	if record && counted != (window.Counts{}) {
		a.record(g, t, now, counted)
		if instances > 1 {
			at := now
			if h := a.next; h != nil && v.Allowed {
				at, h.byPolicy = h.from, true
			}
			s.policy.Place(g, t.Span, s.policy.Advance(g, t.Span, now), at, at, counted)
		}
		s.unsent, s.unheard = s.unsent.Plus(counted), s.unheard.Plus(counted)
		a.used += counted.Admitted
		a.owed += counted.Admitted - min(a.budget, counted.Admitted)
		a.budget -= min(a.budget, counted.Admitted) // or it could be admitted once more
	}
	switch {
	case v.Allowed && record:
		v.Now += n
		v.Then = v.Now
	case v.Allowed:
		v.Then = v.Now
	case n > capacity || all > capacity:
		v.Wait = window.Never
	default:
		// Waiting until all that is counted now has gone is enough; a part of it may be.
		at, then := a.view.Last()+t.Window, uint64(0)
		if l == nil {
			at, then = a.roomAlone(g, t, now, s, instances, capacity-all, at)
		}
		v.Wait, v.Then = max(at-now, 1), then
	}
}

// roomAlone returns when the estimate is at most a limit, if nothing else happens, or latest if that is not known, and what it is then.
func (a *Account) roomAlone(g *window.Groups, t *Terms, now int64, s *spell, instances, limit uint64, latest int64) (at int64, then uint64) {
	fits := func(w *window.Window, limit uint64) (int64, uint64) {
		if have := w.Counts().Admitted; have <= limit {
			return now, have
		}
		return w.Fits(g, t.Span, limit)
	}
	before, others := s.before.Counts().Admitted, instances-1
	if others == 0 {
		if before > 0 { // it is a part of the view, as is what came since
			return fits(&a.view, limit)
		}
		return fits(&s.own, limit)
	}
	leased, unheard := a.inUse(now), times(others, min(s.unheard.Admitted, s.policy.Counts().Admitted))
	leases := s.own.Counts().Admitted - min(s.policy.Counts().Admitted, s.own.Counts().Admitted) // what was admitted from them
	switch {
	case leased > limit:
		return max(latest, a.using), 0
	case max(sum(before, leases), unheard) > limit-leased:
		return latest, 0
	}
	limit -= leased
	at, then = fits(&a.view, limit-unheard)
	share, left := fits(&s.policy, (limit-before-leases)/instances)
	return max(at, share), sum(leased, max(sum(then, unheard), sum(before+leases, times(instances, left))))
}
