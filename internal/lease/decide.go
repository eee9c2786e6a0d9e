package lease

import (
	"math"
	"slices"

	"github.com/trypema/trypema/internal/window"
)

// Decide decides a call by what is on lease, or says that the ledger must be asked. d must be the zero
// Decision.
func (a *Account) Decide(d *Decision, m *Moment, c *Call) {
	a.advance(m)
	if m.Suppressed {
		a.suppressed(d, m, c)
	} else {
		a.absolute(d, m, c)
	}
	if c.bound(m.Terms) < a.ceiling && a.Fresh(m.Now) {
		a.giveUp(d, m)
	}
}

// giveUp has the account settle soon, since its lease is for a larger capacity than that of the call: others
// may get nothing until then. Calls of several capacities do not have it settle more often than in looks.
func (a *Account) giveUp(d *Decision, m *Moment) {
	at := max(m.Now, a.exchange.sentAt+m.Window/lookPart)
	if d.SettleAt == 0 || at < d.SettleAt {
		d.SettleAt = at
	}
}

// advance has the view forget what has expired. Time does not run back there, so m.Now is the view's instant
// from then on. The moment is not copied: a copy waits until what was just written to it has reached the
// cache.
func (a *Account) advance(m *Moment) {
	m.Now = a.view.Advance(m.Groups, m.Span, m.Now)
	a.reclaim(m)
}

// reclaim takes out what has left the holder's own window and was never settled. The lease goes on to be
// charged for it, so as much may be admitted again.
func (a *Account) reclaim(m *Moment) {
	u := &a.unsettled
	if len(u.groups) == 0 || !a.keeps || m.Now-u.groups[0].last < m.ownWindow() || u.sent > 0 || !a.Fresh(m.Now) {
		return
	}
	n := 0
	for n < len(u.groups) && u.groups[n].charged && m.Now-u.groups[n].last >= m.ownWindow() {
		g := &u.groups[n]
		a.budget += g.Admitted
		u.charged -= g.Admitted
		u.settled = u.settled.Plus(g.Counts)
		g.lose()
		n++
	}
	u.groups = slices.Delete(u.groups, 0, n)
	u.open = u.open && len(u.groups) > 0
}

func (a *Account) absolute(d *Decision, m *Moment, c *Call) {
	now, n, capacity, k := m.Now, c.Cost, c.Capacity, &a.knowledge
	a.calledAt, a.capacity = max(a.calledAt, now), capacity
	a.waits.came(m, c)
	have := a.view.Counts().Admitted
	charged, fresh := have, a.Fresh(now)
	if fresh {
		charged = min(have+a.others, math.MaxInt64)
	}
	d.Now, d.Then = min(charged, capacity), min(charged, capacity)
	switch {
	case n > capacity:
		d.Wait, d.Then = window.Never, 0
		d.AskLedger = !k.answered // the caller is told what remains
	case fresh && n <= a.budget && (capacity >= a.ceiling || charged <= capacity && n <= capacity-charged):
		d.Allowed = true
		if c.Mode == Record {
			a.record(m, window.Counts{Admitted: n})
			a.spend(n)
			d.Now = min(d.Now+n, capacity)
			d.Then = d.Now
		}
		a.settleEarly(d, m)
	case fresh && c.Mode == Peek && n <= a.budget+k.free && capacity >= a.ceiling:
		d.Allowed = true
	case a.hasTurn(now, capacity):
		a.awaitTurn(d, m, c)
		d.Then = min(have, capacity-n)
	case fresh && a.holdsAll(capacity):
		a.demand.exhaust(now)
		room, at := a.ownRoom(m, n)
		at += m.Pace.Trip + m.Bucket // by then the ledger has the room, if the lease goes back meanwhile
		if now >= k.promisedRetryAt || at < k.promisedRetryAt {
			k.promisedRetryAt = at
		}
		if d.Wait, d.Then = at-now, min(have-min(have, room-a.budget), capacity-n); a.budget == 0 {
			k.exhaustedUntil = a.unsettled.groups[0].last + m.ownWindow()
		}
		a.waits.denied(m, c, at)
	case (have > capacity || n > capacity-have) && !a.ledgerHadRoom(now, capacity, n):
		// The window is full, unless others have given back some of it.
		at, then := a.view.Fits(m.Groups, m.Span, capacity-n)
		a.demand.exhaust(now)
		at += a.lag(m)
		d.Wait, d.Then = at+m.Pace.Slack+a.together(m)-now, then
		d.SettleAt = min(at, max(now, a.exchange.sentAt+recheckIntervals*m.Interval))
		if now >= k.promisedRetryAt || at+m.Pace.Slack < k.promisedRetryAt {
			k.promisedRetryAt = at + m.Pace.Slack
		}
		a.waits.denied(m, c, now+d.Wait)
	case a.exhausted(now, capacity):
		a.demand.exhaust(now)
		d.Wait, d.Then = k.exhaustedUntil-now, min(have, capacity-n)
		a.waits.denied(m, c, k.exhaustedUntil)
	default:
		a.demand.exhaust(now)
		d.AskLedger = true
	}
}

func (a *Account) suppressed(d *Decision, m *Moment, c *Call) {
	now, n, l, k := m.Now, c.Cost, &c.Law, &a.knowledge
	a.calledAt, a.capacity = max(a.calledAt, now), l.Hard
	fresh := a.Fresh(now)
	a.demand.halfFull = a.view.Counts().Observed() > l.Capacity/2
	if fresh || k.answered && !k.wantsWindow {
		a.view.Suppressed(&d.Verdict, m.Groups, m.Span, l, now, n, c.Dice, false)
	}
	switch {
	case !fresh && (d.Allowed || !k.answered || k.wantsWindow):
		// What is known suffices to decline a call, but not to admit it.
		a.demand.exhaust(now)
		d.Verdict, d.AskLedger = window.Verdict{}, true
		return
	case !d.Allowed:
		if d.Wait != window.Never {
			d.Wait += a.lag(m) + m.Pace.Slack + a.together(m)
		}
	case n <= a.budget && (l.Hard >= a.ceiling || d.Now+a.others+n <= l.Hard):
		if c.Mode == Record {
			a.record(m, window.Counts{Admitted: n})
			a.spend(n)
			d.Now += n
			d.Then = d.Now
		}
		a.settleEarly(d, m)
		return
	case c.Mode == Peek && n <= a.budget+k.free && l.Hard >= a.ceiling:
		return
	case a.holdsAll(l.Hard):
		a.demand.exhaust(now)
		_, at := a.ownRoom(m, n)
		d.Allowed, d.Factor, d.Wait = false, 1, at+m.Pace.Trip+m.Bucket-now
	case a.exhausted(now, l.Hard) && now < k.sharedUntil:
		// Others have the rest up to the hard capacity.
		a.demand.exhaust(now)
		d.Allowed, d.Factor, d.Wait = false, 1, k.exhaustedUntil-now
	default:
		a.demand.exhaust(now)
		d.AskLedger = true
		return
	}
	if c.Mode == Record {
		if (a.budget == 0 || !fresh) && !a.Unsettled() { // it may not be due at all, and what is declined can wait
			d.SettleAt = now + m.Window/2
		}
		a.record(m, window.Counts{Declined: n})
	}
}

// Deny denies a call for which the ledger must be asked, and which does not wait for that, or has waited
// enough. Under Suppressed it records the call as declined if the mode is Record.
func (a *Account) Deny(d *Decision, m *Moment, c *Call) {
	a.advance(m)
	now, capacity := m.Now, c.Capacity
	have := min(a.view.Counts().Admitted, capacity)
	wait := m.Pace.Trip + m.Pace.Slack
	if a.exchange.underWay { // an answer that is late may be as late again
		wait = max(wait, now-a.exchange.sentAt)
	}
	d.Verdict = window.Verdict{Wait: wait, Now: have, Then: min(have, capacity-min(c.Cost, capacity))}
	if d.AskLedger, d.SettleAt = false, now; c.Cost > capacity {
		d.Wait, d.Then = window.Never, 0
	} else if !m.Suppressed {
		a.waits.denied(m, c, now+wait)
	}
	if m.Suppressed {
		d.Factor = 1
		if c.Mode == Record {
			a.record(m, window.Counts{Declined: c.Cost})
		}
	}
	if d.Wait != window.Never {
		a.calledAt = max(a.calledAt, now+d.Wait) // the caller may come again then
	}
}

// Admit records a call that is admitted whatever the window holds.
func (a *Account) Admit(m *Moment, c *Call) {
	a.advance(m)
	a.calledAt, a.capacity = max(a.calledAt, m.Now), c.Capacity
	a.unsettled.uncharge()
	defer a.unsettled.uncharge()
	a.record(m, window.Counts{Admitted: min(c.Cost, maxCount-min(maxCount, a.view.Counts().Admitted))})
}

// ledgerHadRoom reports whether the ledger had room for a call in its last answer. If the view has none then,
// it does not know that others have given back what they had reserved, or that the window was set to
// something less.
func (a *Account) ledgerHadRoom(now int64, capacity, n uint64) bool {
	return a.Fresh(now) && capacity >= a.ceiling && n <= a.budget+a.knowledge.free
}

// holdsAll reports whether the account has all of the capacity on lease: then room comes when its own events
// leave the window, and in no other way.
func (a *Account) holdsAll(capacity uint64) bool {
	u := &a.unsettled
	return a.kind == far && a.keeps && capacity >= a.ceiling &&
		a.budget+u.charged >= capacity && u.allCharged()
}

// ownRoom returns when there is room for n of what the account has on lease, and how much that is then.
func (a *Account) ownRoom(m *Moment, n uint64) (room uint64, at int64) {
	room, at = a.budget, m.Now
	for i := range a.unsettled.groups {
		if room >= n {
			break
		}
		g := &a.unsettled.groups[i]
		room, at = room+g.Admitted, max(at, g.last+m.ownWindow())
	}
	return room, at
}

// exhausted reports whether the ledger is known to have nothing to give for calls up to a capacity.
func (a *Account) exhausted(now int64, capacity uint64) bool {
	return now < a.knowledge.exhaustedUntil && capacity <= a.ceiling && a.Fresh(now)
}

// settleEarly has the account settle before the budget is used up. It also does so if much of a tight lease
// is not used any more, since the load has moved to others: they need that before the lease ends.
func (a *Account) settleEarly(d *Decision, m *Moment) {
	now := m.Now
	if a.rests { // until the next message: what a try says of settling is dropped
		d.SettleAt = now
		return
	}
	switch turnAt := a.knowledge.turnAt; {
	case now < turnAt:
		d.SettleAt = min(turnAt, now+m.Window/settlePart)
	case a.budget < a.lowBudget(now):
		d.SettleAt = now
	case a.kind == far && a.demand.surplus > 0 && a.budget > a.demand.surplus:
		d.SettleAt = max(now, a.exchange.sentAt+surplusIntervals*m.Interval)
	}
}

// hasTurn reports whether the next turn of the account is ahead: it gets nothing before that.
func (a *Account) hasTurn(now int64, capacity uint64) bool {
	k := &a.knowledge
	return k.turnAt > 0 && now < k.exhaustedUntil && capacity <= a.ceiling
}

// asksAgain returns when the account settles for its next turn; sooner if that is far away, since others may
// want nothing any more, or have given back some of what they had.
func (a *Account) asksAgain(m *Moment) int64 {
	return min(a.knowledge.turnAt, a.exchange.sentAt+recheckIntervals*m.Interval)
}

// awaitTurn denies a call until the next turn. The account settles then.
func (a *Account) awaitTurn(d *Decision, m *Moment, c *Call) {
	k, now := &a.knowledge, m.Now
	d.Wait, d.SettleAt = k.exhaustedUntil-now, max(now, a.asksAgain(m))
	if now >= k.promisedRetryAt || k.exhaustedUntil < k.promisedRetryAt {
		k.promisedRetryAt = k.exhaustedUntil
	}
	a.demand.exhaust(now)
	a.calledAt = max(a.calledAt, k.exhaustedUntil) // the caller may come again then
	a.waits.denied(m, c, k.exhaustedUntil)
}

// lag is how much later than the view says the ledger may have room: it has heard of every event later, and
// may hold it in one group with later events of others.
func (a *Account) lag(m *Moment) int64 {
	lag := m.Pace.Trip
	if a.unsettled.charged > 0 {
		lag = max(lag, m.ownWindow()-m.Window)
	}
	if m.Now < a.knowledge.settleDelayUntil {
		lag = max(lag, a.knowledge.settleDelay)
	}
	if m.Now < a.knowledge.sharedUntil {
		lag += m.Bucket
	}
	return lag
}

// together is how much later than lag says the ledger may have room for a holder without others: it may hold
// events together that the view has apart. A caller is told that, but the account asks before.
func (a *Account) together(m *Moment) int64 {
	if m.Now < a.knowledge.sharedUntil {
		return 0 // that is in the lag
	}
	return m.Bucket
}
