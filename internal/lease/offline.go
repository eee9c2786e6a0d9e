package lease

import (
	"math"
	"math/bits"

	"github.com/trypema/trypema/internal/window"
)

// spell is a time in which the failure policy decides for an account, because the ledger does not answer, or
// only now and then. It begins with the first such decision, and ends a window after the last one. These
// count, each for as long as it is in the window:
//
//	B   what was there when the spell began, as far as it was known, of all instances
//	M   what this instance has admitted since then, from leases or by the policy
//	P   the part of M that the policy admitted
//	K   all that is known now, of this instance and, by the answers that do come, of others
//	U   the part of P that came after the last message that was answered
//	L   what others had on lease by the last answer, as far as the window may hold it: see othersLease
//
// A reservation counts in B, M and P as in the window: an estimate until its expiry, and what it is settled
// to from its admission on.
//
// As one of n > 1 instances, the policy admits a call of cost c while both hold:
//
//	B + L + M + (n − 1) P + n c ≤ C    each instance has a share of what was left when the spell began
//	K + L + (n − 1) U + n c ≤ C        what others have admitted counts as soon as it is heard of
//
// A single instance admits while B + M + c ≤ C: it answers for itself, and others for themselves.
//
// All instances together admit at most C by the policy. P is a part of M, so by the first line n P ≤ C − B at
// each admission, and P has all policy admissions of the last window, since a spell does not end before that.
// So each of n instances has at most C/n by the policy in any window, whatever messages are lost or late.
//
// Each instance admits at most C, since B and M hold all that it has admitted in the last window.
//
// They use it, since nothing counts twice. What others admit is in K, because it was heard of, or is taken to
// be as much as this instance's own U or P, never both. What is heard of late counts from when it happened:
// the answer to a message in a spell tells the whole window again, with ages.
//
// While the policy decides, messages settle and take nothing on lease, since a lost grant would keep room
// from others. What the policy admits is taken from what is on lease, so that it is not admitted twice.
//
// The ledger does not know what the policy admits until that is settled, so an instance that it answers may
// lease the same room: up to C by the policy on top of C from leases. If the ledger then holds more than C,
// it grants nothing until that has aged out.
//
// Its invariant: policy is a part of own, and before and own together hold all that this instance has
// admitted in the last window.
type spell struct {
	began  int64
	last   int64         // when the policy decided last
	before window.Window // what the view held when it began
	own    window.Window // what this instance has done since then
	policy window.Window // the part of that which the policy has decided

	unsent  window.Counts // what the policy has decided since the last message was sent
	unheard window.Counts // what it has decided since that message was sent which was answered last
}

// spellAt returns the spell in which the policy decides at m.Now. It begins one if there is none.
func (a *Account) spellAt(m *Moment) *spell {
	if a.spell != nil && m.Now-a.spell.last >= m.Window {
		a.endSpell(m.Groups)
	}
	if a.spell == nil {
		a.spell = &spell{began: m.Now}
		for last, c := range a.view.All(m.Groups) {
			a.spell.before.RecordGroup(m.Groups, window.Span{Window: m.Window, Bucket: 1}, last, last, c)
		}
		a.unsettled.open = false // groups from before take no more events
	}
	s := a.spell
	s.last = max(s.last, m.Now)
	s.before.Advance(m.Groups, m.Span, m.Now)
	s.own.Advance(m.Groups, m.Span, m.Now)
	s.policy.Advance(m.Groups, m.Span, m.Now)
	return s
}

// hearSpell notes that the ledger has answered.
func (a *Account) hearSpell(m *Moment) {
	switch s := a.spell; {
	case s == nil:
	case m.Now-s.last >= m.Window:
		a.endSpell(m.Groups)
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
		for i := range a.unsettled.groups {
			a.unsettled.groups[i].inSpell = false
		}
	}
}

// inSpell does something with those windows of the spell, if there is one, that hold a call.
func (a *Account) inSpell(r *Reserved, do func(w *window.Window)) {
	switch s := a.spell; {
	case s == nil:
	case r.spell != s:
		do(&s.before)
	case r.byPolicy:
		do(&s.policy)
		fallthrough
	default:
		do(&s.own)
	}
}

// DecideOffline decides a call without the ledger, as one of so many instances that each take the same part
// of what is left. It records the outcome if the mode is Record. d must be the zero Decision.
func (a *Account) DecideOffline(d *Decision, m *Moment, c *Call, instances uint64) {
	a.advance(m)
	a.calledAt, a.capacity = max(a.calledAt, m.Now), c.bound(m.Terms)
	s := a.spellAt(m)
	have, recent := a.estimate(m, s, instances)
	d.Now = have.Admitted
	n := min(c.Cost, c.Capacity+1) // so that products do not wrap
	all := times(n, instances)
	if m.Suppressed {
		d.Factor = 1
		if n <= c.Capacity {
			d.Factor = c.Law.Factor(have, recent, all)
		}
		d.Allowed = c.Dice >= d.Factor
	} else {
		d.Allowed = have.Admitted <= c.Capacity && all <= c.Capacity-have.Admitted
	}
	if c.Mode == Record {
		var counts window.Counts
		switch {
		case d.Allowed:
			counts.Admitted = n
		case m.Suppressed:
			counts.Declined = c.Cost
		}
		a.recordOffline(m, s, counts, instances)
	}
	switch {
	case d.Allowed && c.Mode == Record:
		d.Now += n
		d.Then = d.Now
	case d.Allowed:
		d.Then = d.Now
	case n > c.Capacity || all > c.Capacity:
		d.Wait = window.Never
	default:
		// After a window all that is counted now has gone. Absolute knows when enough of it has.
		room, then := a.view.Last()+m.Window, uint64(0)
		if !m.Suppressed {
			room, then = a.roomOffline(m, s, instances, c.Capacity-all, room)
		}
		d.Wait, d.Then = max(room-m.Now, 1), then
	}
}

// recordOffline records what the policy has decided, and takes it from the lease: it could be admitted twice.
func (a *Account) recordOffline(m *Moment, s *spell, counts window.Counts, instances uint64) {
	if counts == (window.Counts{}) {
		return
	}
	a.record(m, counts)
	a.unsettled.uncharge() // the lease is not charged for all of it
	if instances > 1 {
		at := m.Now
		if r := a.reserved; r != nil && counts.Admitted > 0 {
			at, r.byPolicy = r.recordedAt, true
		}
		s.policy.Place(m.Groups, m.Span, s.policy.Advance(m.Groups, m.Span, m.Now), at, at, counts)
	}
	s.unsent, s.unheard = s.unsent.Plus(counts), s.unheard.Plus(counts)
	a.admitted += counts.Admitted
	fromLease := min(a.budget, counts.Admitted)
	a.demand.unchargedCost += counts.Admitted - fromLease
	a.budget -= fromLease
}

// estimate returns what one of so many instances takes the window to hold, of all of them together, and how
// much of that was observed in its recent part.
func (a *Account) estimate(m *Moment, s *spell, instances uint64) (have window.Counts, recent uint64) {
	others := instances - 1
	since := m.Now - m.Recent()
	before, own, policy := s.before.Counts(), s.own.Counts(), s.policy.Counts()
	known := a.view.After(m.Groups, m.Now-m.Window+a.knowledge.answerDelay)
	knownRecently := a.view.Since(m.Groups, since)
	ownRecently, policyRecently := s.own.Since(m.Groups, since), s.policy.Since(m.Groups, since)
	if s.began > since {
		ownRecently = knownRecently
	}
	if others == 0 { // it answers for itself, and others for themselves
		return before.Plus(own), ownRecently
	}
	have.Admitted = sum(a.othersLease(m, instances), larger(others, parts{
		before.Admitted, own.Admitted, policy.Admitted, known.Admitted, s.unheard.Admitted,
	}))
	have.Declined = min(math.MaxInt64-have.Admitted, larger(others, parts{
		before.Declined, own.Declined, policy.Declined, known.Declined, s.unheard.Declined,
	}))
	return have, larger(others, parts{0, ownRecently, policyRecently, knownRecently, s.unheard.Observed()})
}

// parts are counts of a spell, by their letters above: B, M, P, K and U.
type parts struct{ before, own, policy, known, unheard uint64 }

// larger returns the larger one of two sums that each hold the limit: the share of what was left when the
// spell began, and what is known now. In both, others are taken to admit as much as this instance.
func larger(others uint64, p parts) uint64 {
	share := sum(sum(p.before, p.own), times(others, p.policy))
	return max(share, sum(p.known, times(others, min(p.unheard, p.policy))))
}

// othersLease returns what the window may hold of what others had on lease when the ledger last answered. A
// lease counts for a window after its end. Under Absolute the life of one that is not small is short: see
// atStake and Account.brief. So the longer ago the answer is, the smaller are the leases that still count.
func (a *Account) othersLease(m *Moment, instances uint64) uint64 {
	ago := m.Now - a.demand.since
	lived := ago - ago/clockError - m.Window // how long those have lived at least that count
	switch {
	case m.Now >= a.knowledge.othersAdmit:
		return 0
	case m.Suppressed || lived <= m.longest():
		return a.others
	}
	stake := int64(atStake)
	if lived <= m.spread() {
		stake = 1
	}
	each := max(float64(m.Window)/float64(stake*lived)*float64(a.ceiling), float64(a.ceiling/smallPart))
	return min(a.others, uint64(each*float64(instances-1))+instances-1)
}

// longest returns a life that a lease of any size may have: of a slow lease, of one in turns, or of a brief
// one of an instance that has a few times as many keys.
func (m *Moment) longest() int64 { return max(3*m.Pace.Brief, cheapIntervals*m.Interval) }

// spread returns for how long renewals may be spread by an instance that has a few times as many keys.
func (m *Moment) spread() int64 { return 3 * m.Pace.Spread }

// othersLeaseEnds returns when othersLease is at most a limit.
func (a *Account) othersLeaseEnds(m *Moment, instances, limit uint64) int64 {
	if at := a.knowledge.othersAdmit; m.Suppressed || limit < instances+(instances-1)*(a.ceiling/smallPart) {
		return at
	}
	lived := float64(m.Window) * float64(a.ceiling) * float64(instances-1) / float64(atStake*(limit-instances+1))
	lived = max(lived, min(atStake*lived, float64(m.spread())), float64(m.longest()))
	at := float64(a.demand.since) + (lived+float64(m.Window)+1)*clockError/(clockError-1)
	return int64(min(at+1, float64(a.knowledge.othersAdmit)))
}

// roomOffline returns when the estimate is at most a limit if nothing else happens, and what it is then; or
// latest and 0 if that is not known.
func (a *Account) roomOffline(
	m *Moment, s *spell, instances, limit uint64, latest int64,
) (at int64, then uint64) {
	fits := func(w *window.Window, limit uint64) (int64, uint64) {
		if have := w.Counts().Admitted; have <= limit {
			return m.Now, have
		}
		return w.Fits(m.Groups, m.Span, limit)
	}
	before, others := s.before.Counts().Admitted, instances-1
	if others == 0 {
		if before > 0 { // it is a part of the view, as is what came since
			return fits(&a.view, limit)
		}
		return fits(&s.own, limit)
	}
	policy, own := s.policy.Counts().Admitted, s.own.Counts().Admitted
	leased, unheard := a.othersLease(m, instances), times(others, min(s.unheard.Admitted, policy))
	fromLeases := own - min(policy, own)
	switch {
	case leased > limit:
		return max(latest, a.othersLeaseEnds(m, instances, limit)), 0
	case max(sum(before, fromLeases), unheard) > limit-leased:
		return latest, 0
	}
	limit -= leased
	at, then = fits(&a.view, limit-unheard)
	share, left := fits(&s.policy, (limit-before-fromLeases)/instances)
	then = max(sum(then, unheard), sum(before+fromLeases, times(instances, left)))
	return max(at, share), sum(leased, then)
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
