package lease

import "github.com/trypema/trypema/internal/window"

// knowledge is what an account knows of the window that all instances share, beside its view.
//
// The view is the window as far as it is known: what the ledger said, what others have settled since,
// recorded when the account heard of it, and all events of its own. It judges waiting times and the
// suppression factor. So its invariant is weak: it may hold events of others too late, and may miss some
// until the next answer. The lease holds the limit.
type knowledge struct {
	answered bool   // the ledger has answered
	free     uint64 // of the capacity, neither used nor on lease then

	exhaustedUntil  int64 // until then the ledger has nothing to give: it granted less than was wanted; or 0
	turnAt          int64 // when the next turn of the account comes; or 0, if there are no turns
	promisedRetryAt int64 // the first instant ahead at which a caller was told to come again
	sharedUntil     int64 // until then there are events of others in the window
	othersAdmit     int64 // until then the window may hold what others admit from the leases that they had

	running window.Counts // running counts of the ledger after the last answer
	live    window.Counts // what the window held then

	othersKeep uint64 // admitted by others and not settled, if the last message asked for that

	settleDelay      int64 // how much later than it happened, at most, the ledger holds an event
	settleDelayUntil int64 // that event is in the window until then
	answerDelay      int64 // how long the last answer took: the view may have an event by so much later

	disagreements   int  // answers in a row that the view did not agree with
	othersHeardLate bool // much of what the view has of others may be older than it says
	wantsWindow     bool // the next answer must contain all groups: it will replace the view

	// The ledger's clock at an instant of this one, or later; 0 before the first answer.
	ledgerTime   int64 // µs
	ledgerTimeAt int64
}

const (
	// maxDisagreements is how many answers in a row the view must not agree with to be replaced. Events that
	// are heard of late explain one or two.
	maxDisagreements = 3

	// datedPart is the part of a window, as a divisor, after which it matters when others did what the
	// account hears of. datedCostPart is the part of the capacity from which on.
	datedPart     = 32
	datedCostPart = 16

	// recheckIntervals is after how many intervals an account whose window is full asks again, as long as it
	// is called: a reservation of others may have expired, been committed below the estimate or been deleted.
	recheckIntervals = 60
)

// exhaust notes until when the ledger has nothing to give. That is not beyond what a caller was told, unless
// events of others may have changed it.
func (k *knowledge) exhaust(until, now int64) {
	k.exhaustedUntil = until
	if now < k.promisedRetryAt && now >= k.sharedUntil {
		k.exhaustedUntil = min(until, k.promisedRetryAt)
	}
}

// hopeForRoom forgets that the ledger has nothing to give, and when the next turn of the account comes: there
// may be room that the last answer does not tell of.
func (k *knowledge) hopeForRoom() { k.exhaustedUntil, k.turnAt = 0, 0 }

// dated reports whether the last answer was so long ago that it matters when others did what the next one
// tells.
func (a *Account) dated(m *Moment) bool {
	long := m.Window / datedPart
	return (a.exchange.lost || a.spell != nil || m.Pace.Trip > long) && m.Now-a.demand.since > long
}

// agrees reports whether the view differs from the window by no more than what was heard late explains.
func (a *Account) agrees(live window.Counts) bool {
	have, want := a.view.Counts(), live
	for _, g := range a.unsettled.groups {
		want = want.Plus(g.Counts)
	}
	similar := func(x, y uint64) bool { return max(x, y)-min(x, y) <= max(x, y)/16+8 }
	return similar(have.Admitted, want.Admitted) && similar(have.Observed(), want.Observed())
}

// Live returns what the window held when the account settled last, with what others kept then, if that was
// asked, and with what happened here since.
func (a *Account) Live() (c window.Counts) {
	c = a.knowledge.live
	c.Admitted += a.knowledge.othersKeep
	for _, g := range a.unsettled.groups {
		c = c.Plus(g.Counts)
	}
	return c
}

// Factor returns the suppression factor for a cost of 1.
func (a *Account) Factor(m *Moment, l *window.Law) float64 {
	return a.view.Factor(m.Groups, m.Span, l, a.view.Advance(m.Groups, m.Span, m.Now), 1)
}

// Forget forgets what the window held, after it was set to something else.
func (a *Account) Forget(g *window.Groups, t *Terms) {
	a.knowledge.wantsWindow = true
	a.knowledge.hopeForRoom()
	if a.budget == 0 {
		a.knowledge.answered, a.leaseEnd = false, 0
	}
	a.clearView(g)
	a.placeUnsettled(&Moment{Terms: t, Groups: g, Now: a.view.Now()})
}

// clearView empties the view.
func (a *Account) clearView(g *window.Groups) {
	a.view.Clear(g)
	if a.spell != nil {
		a.spell.before.Clear(g)
	}
}

// placeUnsettled enters what is not settled into the view.
func (a *Account) placeUnsettled(m *Moment) {
	for _, q := range a.unsettled.groups {
		now := max(m.Now, q.last)
		a.view.Place(m.Groups, m.Span, now, q.first, q.last, q.Counts)
		if s := a.spell; s != nil && !q.inSpell {
			s.before.Place(m.Groups, m.Span, now, q.first, q.last, q.Counts)
		}
	}
}
