package lease

import "github.com/trypema/trypema/internal/window"

// Message is what a holder says about one key, and wants. Instants and durations are in µs.
type Message struct {
	Holder   uint64 // not 0
	Seq      uint64 // number of this message
	Slot     uint64 // where the ledger keeps the holder, by its last answer
	Capacity uint64 // that leases must not pass: of a window, or the hard one

	Hold     uint64 // what the holder has of its lease, and goes on using until it is answered
	HoldLife int64  // or for so long, if it is not
	Kept     uint64 // the part of Hold that it has used, and keeps in a window of its own
	Near     uint64 // what it wants beyond Hold near the limit
	NearLife int64  // how long it wants that
	Keeps    bool   // far from the limit, it keeps a window
	Lone     bool   // it keeps a window while the ledger knows no other holder
	New      bool   // its demand is not known
	Far      uint64 // what it wants beyond Hold far from the limit, for the life that leases have there
	FarLeast uint64 // if it keeps a window: with less than that, Hold included, that is not worth it
	Brief    int64  // and the shortest life that its lease may have there
	Need     uint64 // cost of the calls that wait; what it has not used of Hold may be used up by then
	Waiting  uint64 // cost of one call that waits for room; 0 if none does

	Base   window.Counts // settled before Groups, as far as the holder knows
	Groups []Group       // since then, the oldest first
	Whole  bool          // the answer is to contain all groups
	Count  bool          // the answer is to say what others keep
}

// Group is a number of events: how old the last one is, and how much older the first.
type Group struct {
	Age, Span int64
	window.Counts
}

// Answer is what the ledger says.
type Answer struct {
	Stale bool // a later message of the holder was here before; nothing was done

	Grant  uint64 // beyond Hold; all of the lease may be used for Life from the instant of asking
	Life   int64
	Far    bool  // it is a lease far from the limit
	Lone   bool  // it is a window lease because there is no other holder, as the message asked
	Next   int64 // in turns: after so long the holder may get more; otherwise -1
	Slot   uint64
	Live   window.Counts // what the window holds, that of the message included
	Others uint64        // on lease to others
	Kept   uint64        // if it was asked for: what others have admitted from that, when they were heard last
	Before window.Counts // running counts, before and after what was in the message
	After  window.Counts
	Now    int64   // from which ages count, by the ledger's clock
	Whole  bool    // it was asked for Groups:
	Groups []Group // what the window holds
}

// Want is what a message wants of the ledger.
type Want uint8

// The wants: More is what the demand needs, Same keeps the lease as it is, Nothing gives it back.
const (
	More Want = iota
	Same
	Nothing
)

// exchange is the message under way, or the last one. Its invariant: at most one message of an account is
// under way, and its answer is only heard if it has the number of the last one.
type exchange struct {
	seq      uint64 // number of the message
	slot     uint64
	underWay bool
	void     bool  // the lease that the answer brings must not be used
	lost     bool  // the last message has no answer
	mustTell bool  // the next message must tell what is not settled
	sentAt   int64 // when the message was made

	hold       uint64
	keeps      bool   // it does not settle
	near, far  uint64 // wanted beyond hold
	nearTarget uint64 // budgets that were wanted
	farTarget  uint64
	capacity   uint64
	slow       bool // what was wanted near the limit is a slow lease
}

// largeSettled is the count from which on an account starts again from 0, under another number: messages have
// no room for more.
const largeSettled = 1 << 50

// UnderWay reports whether a message is under way.
func (a *Account) UnderWay() bool { return a.exchange.underWay }

// SentAt returns when the last message was made.
func (a *Account) SentAt() int64 { return a.exchange.sentAt }

// Seq returns the number of the last message.
func (a *Account) Seq() uint64 { return a.exchange.seq }

// Lost notes that the message under way has no answer. The next one says it all again.
func (a *Account) Lost() {
	a.exchange.underWay, a.exchange.void, a.exchange.lost, a.unsettled.sent = false, false, true, 0
}

// Message returns the message to send at m.Now. need is at least what the calls cost that wait. No message
// may be under way.
func (a *Account) Message(m *Moment, need uint64, want Want) Message {
	x, u, now := &a.exchange, &a.unsettled, m.Now
	a.reclaim(m)
	if now >= a.waits.until {
		a.waits.cost = 0
	}
	u.forget(m.ownWindow(), now)
	if now >= a.leaseEnd || want == Nothing {
		a.budget, a.leaseEnd = 0, min(a.leaseEnd, now)
	}
	x.seq++
	out := Message{Holder: a.Holder, Seq: x.seq, Slot: x.slot, Capacity: a.capacity, Base: u.settled}
	out.Whole = !a.knowledge.answered || a.knowledge.wantsWindow || a.dated(m)
	keeps := want == More && a.keepsWindow(m)
	x.keeps, a.rests = keeps, false
	kept := uint64(0)
	if keeps {
		kept = u.charged
	}
	life := m.Pace.Near
	if want == More {
		life = a.wants(m, &out, kept, need)
	}
	a.demand.missedCost, a.demand.unchargedCost = 0, 0
	if a.spell != nil {
		a.spell.unsent = window.Counts{}
	}
	out.Hold, out.Kept, out.NearLife = a.budget+kept, kept, life/m.Micro
	all := min(out.Hold+max(out.Near, out.Far), a.capacity)
	out.Brief = a.brief(m, all) / m.Micro
	if out.Hold > 0 {
		if out.Keeps || out.Lone {
			// All of it is charged for as long as what it has lives. So that lives no longer than what it
			// wants.
			a.leaseEnd = min(a.leaseEnd, now+a.windowLife(m, all))
		}
		left := a.leaseEnd - now
		out.HoldLife = (left+left/clockError)/m.Micro + 1
	}
	if out.Hold > 0 || want == More {
		charged := max(life, m.Pace.Far)
		if out.Waiting > 0 {
			charged = max(charged, m.Window+m.Window/settlePart)
		}
		a.chargedUntil = max(a.chargedUntil, now+charged+m.Window)
	}
	if !keeps {
		u.uncharge()
		u.coarsen()
		u.sent = len(u.groups)
		for i := range u.groups {
			g := &u.groups[i]
			g.told = true
			age, span := m.age(now, g.last, g.backdated), (g.last-g.first)/m.Micro
			out.Groups = append(out.Groups, Group{age, span, g.Counts})
		}
		a.demand.keptSince = now
	}
	if out.Count = x.mustTell; x.mustTell { // others may keep a window whatever this one wants
		out.Lone = m.Suppressed
	}
	x.underWay, x.sentAt = true, now
	if k := &a.knowledge; k.turnAt > 0 { // the answer may get lost
		k.exhaustedUntil = max(k.exhaustedUntil, now+2*m.Pace.Slack)
	}
	x.mustTell = false
	x.hold, x.near, x.far, x.capacity = out.Hold, out.Near, out.Far, out.Capacity
	return out
}

// brief returns how long a window lease of so much lives at least. With so many keys that renewing their
// leases is a load, a lease that others do not need lives longer: a holder that falls silent then keeps from
// others as much as a window holds, at most, and not a part of that.
func (a *Account) brief(m *Moment, all uint64) int64 {
	if a.tight() {
		return m.Pace.Brief
	}
	whole := float64(m.Window) * float64(a.capacity) / float64(max(all, 1))
	return max(m.Pace.Brief, int64(min(whole, float64(m.Pace.Spread))))
}

// windowLife returns how long a window lease of so much lives if the ledger grants that.
func (a *Account) windowLife(m *Moment, all uint64) int64 {
	return windowLife(all, a.capacity, m.Window, m.Pace.Far, a.brief(m, all))
}

// MustTell has the next message tell what is not settled, for those who want to see it in the ledger, and ask
// what others keep.
func (a *Account) MustTell() { a.exchange.mustTell = true }

// keepsWindow reports whether the account need not settle what it has admitted: it has a window lease, which
// is charged for all of it.
func (a *Account) keepsWindow(m *Moment) bool {
	x, u := &a.exchange, &a.unsettled
	return a.kind == far && a.keeps && a.Fresh(m.Now) && !x.mustTell && !x.void && a.spell == nil &&
		u.allCharged() && !u.expires() && (a.waits.cost == 0 || a.holdsAll(a.capacity))
}

// wants sets what a message wants, and returns the life of a lease near the limit. What the lease has beyond
// that goes back. kept is what the holder goes on keeping.
func (a *Account) wants(m *Moment, out *Message, kept, need uint64) (life int64) {
	x, d := &a.exchange, &a.demand
	d.estimate(m.Terms, m.Now, a.admitted)
	a.interval = a.enough(d.rate * float64(m.Pace.Interval+m.Pace.Trip))
	life, x.nearTarget = m.Pace.Near, a.interval
	x.slow = !d.halfFull && d.rate*float64(m.Pace.Interval) < slowDemand
	if x.slow = x.slow && a.waits.cost == 0; x.slow { // what calls wait for is used at once
		life = max(life, a.slowLife(m.Terms))
		x.nearTarget = max(a.interval, min(a.enough(d.rate*float64(life)), a.knowledge.free/slowPart))
	}
	if kept == 0 {
		out.Waiting = min(a.waits.cost, a.capacity)
	}
	had := a.budget
	if a.knowledge.turnAt != 0 && a.budget < out.Waiting {
		a.budget = 0 // others may wait for what is less than a call
	}
	out.Keeps, out.Lone = !m.Suppressed, m.Suppressed
	if out.Keeps || a.keeps || !a.knowledge.answered {
		a.wantsWindowLease(m, out, kept, need)
	} else {
		x.farTarget = max(a.enough(d.rate*float64(m.Pace.Far)*5/4), a.capacity/coldPart)
	}
	if a.kind != far { // what was leased far from the limit is too much near it
		a.budget = min(a.budget, max(x.nearTarget, need, out.Waiting))
	}
	if a.capacity < a.ceiling { // as is what was leased for a larger capacity
		a.budget = min(a.budget, x.farTarget)
	}
	if a.budget < had {
		a.knowledge.exhaustedUntil = 0 // the ledger has again what goes back
	}
	out.Need = min(max(need, d.missedCost), a.capacity) // all of it: the budget may be used up by then
	x.nearTarget = max(x.nearTarget, out.Waiting)
	out.Near = max(x.nearTarget-min(x.nearTarget, a.budget), out.Need)
	out.Far = max(x.farTarget-min(x.farTarget, a.budget), out.Need)
	return life
}

// Hear takes the answer to the message under way, which came at m.Now.
func (a *Account) Hear(m *Moment, r Answer) {
	a.exchange.underWay = false
	if r.Stale {
		a.unsettled.sent = 0
		return
	}
	a.exchange.lost = false
	a.knowledge.answerDelay = min(m.Now-a.exchange.sentAt, m.Window/4)
	a.advance(m)
	a.hearSettled(m, r)
	news := excess(r.Before, a.knowledge.running) // what others have settled since the last answer
	a.hearWindow(m, r, news)
	a.hearSpell(m)
	k := &a.knowledge
	k.othersKeep = r.Kept
	k.running, k.live, k.answered, a.exchange.slot = r.After, r.Live, true, r.Slot
	if k.disagreements++; r.Whole || a.agrees(r.Live) {
		k.disagreements = 0
	}
	k.wantsWindow = k.disagreements >= maxDisagreements || a.exchange.void
	a.hearLease(m, r, news)
}

// hearSettled takes out what the message has settled.
func (a *Account) hearSettled(m *Moment, r Answer) {
	k, u, sentAt := &a.knowledge, &a.unsettled, a.exchange.sentAt
	if took := m.Now - sentAt; u.sent > 0 && (took >= k.settleDelay || m.Now >= k.settleDelayUntil) {
		k.settleDelay, k.settleDelayUntil = took, m.Now+m.Window
	}
	u.acknowledge(func(g *ownGroup) (int64, bool) {
		age := m.age(sentAt, g.last, g.backdated)
		return r.Now - age, age < m.Window/m.Micro
	})
	k.ledgerTime, k.ledgerTimeAt = r.Now, sentAt
	if u.settled.Admitted >= largeSettled || u.settled.Declined >= largeSettled {
		// All that was sent is acknowledged, so a holder of which the ledger has not heard can go on. What
		// this one has on lease stays charged until it has aged out.
		a.Holder, u.settled = a.Holder+1<<32, window.Counts{}
	}
}

// hearWindow enters what others have settled into the view, or replaces the view by what the answer says.
func (a *Account) hearWindow(m *Moment, r Answer, news window.Counts) {
	k := &a.knowledge
	switch {
	case r.Whole:
		a.clearView(m.Groups)
		for _, q := range r.Groups {
			at := m.Now - q.Age*m.Micro
			a.view.Place(m.Groups, m.Span, m.Now, at, at, q.Counts)
			if s := a.spell; s != nil && at-m.Bucket <= s.began {
				s.before.Place(m.Groups, m.Span, m.Now, at, at, q.Counts)
			}
		}
		a.placeUnsettled(m)
		k.othersHeardLate = false
	case k.answered:
		a.view.Record(m.Groups, m.Span, m.Now, news)
		k.othersHeardLate = k.othersHeardLate ||
			m.Now-a.demand.since > m.Window/datedPart && news.Admitted > a.exchange.capacity/datedCostPart
	}
}

// hearLease takes what was granted.
func (a *Account) hearLease(m *Moment, r Answer, news window.Counts) {
	x, k, d, now := &a.exchange, &a.knowledge, &a.demand, m.Now
	a.leaseEnd = x.sentAt + r.Life*m.Micro/clockError*(clockError-1)
	a.budget += r.Grant
	if x.void {
		a.budget, a.leaseEnd, x.void = 0, min(a.leaseEnd, now), false
	}
	if x.hold+r.Grant == 0 {
		a.chargedUntil = 0
	} else { // leases may live longer since the message was made: see Pace
		a.chargedUntil = max(a.chargedUntil, now+r.Life*m.Micro+m.Window)
	}
	a.ceiling, a.others, k.othersAdmit = x.capacity, r.Others, now+max(m.Pace.Far, m.longest())+m.Window
	taken := r.Live.Admitted + r.Others + x.hold + r.Grant
	// What was leased for a larger capacity, or before the window was made to hold more, need not fit any
	// more.
	excess := taken - min(taken, x.capacity)
	if excess > a.budget { // some of what the account keeps is not covered any more
		a.unsettled.uncharge()
	}
	a.budget -= min(a.budget, excess)
	a.budget -= min(a.budget, d.unchargedCost)
	k.free = x.capacity - min(x.capacity, taken)
	wanted := x.near
	if k.turnAt = 0; r.Next >= 0 {
		k.turnAt, k.free = x.sentAt+r.Next*m.Micro+m.Pace.Trip/8, 0
		if a.chargedUntil > 0 { // a want keeps the charge: see Ledger.Settle
			a.chargedUntil = max(a.chargedUntil, now+(r.Life+r.Next)*m.Micro+m.Window)
		}
	}
	a.keeps = r.Far && (!m.Suppressed || r.Lone)
	switch {
	case r.Far:
		a.kind, a.target, wanted = far, x.farTarget, x.far
	case x.slow:
		a.kind, a.target = slow, x.nearTarget
	default:
		a.kind, a.target = near, x.nearTarget
	}
	a.target = min(a.target, a.budget)
	k.exhaustedUntil = 0
	if d.growAt = 0; !r.Far && now >= d.nearUntil {
		d.nearUntil = now + m.Window/holdoffPart
	}
	if a.kind == far && r.Grant == 0 && x.far > 0 {
		d.growAt = now + growIntervals*m.Interval
	}
	if r.Others > 0 || !r.Whole && news != (window.Counts{}) {
		k.sharedUntil = now + m.Window + m.Bucket
	}
	// Where there are no others and still less than there should be, the ledger has only not seen it yet.
	others := now < k.sharedUntil
	if k.turnAt > 0 {
		k.exhaustedUntil = k.turnAt + m.Pace.Slack
	} else if r.Grant < wanted && a.kind != far && (others || a.view.Counts().Admitted+a.budget >= x.capacity) {
		k.exhaust(now+m.Pace.Slack, now)
	}
	a.admitted, d.since, d.exhaustedAt = 0, now, 0
}

// Due returns when the account should settle next, after an answer: in an interval; if the window is full,
// when there may be room again; or in the second half of a lease that lives long.
func (a *Account) Due(m *Moment) int64 {
	k, sentAt := &a.knowledge, a.exchange.sentAt
	next := sentAt + m.Pace.Interval - m.Interval/4 // the tick that is about an interval after the last
	switch {
	case k.turnAt > 0 && len(a.unsettled.groups) > 0:
		return max(next, min(a.asksAgain(m), sentAt+m.Window/settlePart))
	case k.turnAt > 0:
		return max(next, a.asksAgain(m))
	case a.exchange.keeps && !a.keeps: // others must know of what the account kept
		return next
	case a.kind == far || a.kind == slow && a.budget > 0:
		// Accounts do not all renew at once.
		part := 8 + a.Holder%6
		if a.budget+a.unsettled.charged <= a.capacity/smallPart { // it may go on for as long as it can
			part = 12 + a.Holder%3
		}
		return max(next, sentAt+(a.leaseEnd-sentAt)*int64(part)/16)
	case k.exhaustedUntil > 0 && a.others == 0 && a.budget == 0:
		if k.othersHeardLate { // the account must know the window before it rests for long
			k.wantsWindow = true
			return next
		}
		if a.capacity > 0 && a.view.Counts().Admitted >= a.capacity {
			at, _ := a.view.Fits(m.Groups, m.Span, a.capacity-1)
			at += a.lag(m)
			k.exhaust(max(k.exhaustedUntil, at+m.Pace.Slack), m.Now)
			return max(next, min(at, sentAt+recheckIntervals*m.Interval))
		}
	}
	return next
}
