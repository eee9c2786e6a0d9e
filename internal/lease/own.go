package lease

import (
	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/window"
)

// A window lease is a window of the holder's own: as much may be admitted as it holds room for. While nothing
// else happens to the key, callers keep that window without the account, in cells. It is a copy of what the
// account has not settled: see Lend and Fill. Enter enters into the account what callers have added.
//
// # The bound
//
// The copy has all events of the account that are not settled and that its own window still holds, each in
// the cell of an instant that is not before the event. A cell keeps an event for as long as the account does,
// or longer. So the copy always holds at least what the account is charged for, and what the account may
// still admit is what the copy has room for, or more. While the copy is open, callers only add to it, and
// never beyond its limit: budget and charged events together, when it was opened. So all of what they add is
// covered by the lease: invariant (3) of the package holds throughout.
//
// Enter takes out of the account first what had left its window by the last addition, as a call at that
// instant would have. That increases the budget by as much. What the copy holds by then is charged. What has
// left it since it was opened counts as any other event that has left the window of the holder: the ledger
// never hears of it.
//
// # Under Suppressed
//
// Callers decide in the copy by the law, and add what they decline, too. The bound is the one above, and does
// not depend on the law: a call that the law admits and that passes the limit of the copy comes to the
// account, with the same dice. The limit of a holder of all of the hard capacity is that capacity, which the
// law does not pass. So all of its calls are decided in the copy.
//
// For the factor to be that of the account, the copy must also hold what was declined, and all that the view
// holds. So it is lent only to a holder that is alone, and only while the view holds no events of others, and
// none that were settled. In the copy an event counts a thousandth of a window longer than in the view, and
// up to a cell, as in a window of Local. What Enter enters counts up to a cell longer in the view, too. The
// factors and the waits differ by that and by nothing else.
//
// When another holder comes, the view does not know of it before the next message, and that closes the copy.

// leastLent is how much room there must be for callers in the window of a key, so that to fill it in is worth
// it.
const leastLent = 4

// Lend returns on what terms callers may use the window of the key without the account. It reports false if
// they may not: the lease is none that keeps a window, or calls must be noted one by one.
//
// It must follow the decision of a call that was recorded, so that the last event is not before any that the
// window forgets. If that decision has the account settle soon, callers may use all that is left. Otherwise
// the call that makes the lease low must come to the account.
func (a *Account) Lend(m *Moment, c *Call, settles bool) (t table.Terms, ok bool) {
	u, low := &a.unsettled, a.lowBudget(m.Now)
	if settles {
		low = 0
	}
	if a.copied.unused >= mostUnused { // the account is asked for at most calls
		a.copied.unused--
		return t, false
	}
	enough := a.budget >= low+leastLent || m.Suppressed && a.holdsAll(a.capacity)
	switch {
	case a.kind != far || !a.keeps || !a.Fresh(m.Now) || a.capacity < a.ceiling || !enough:
		return t, false
	case a.spell != nil || a.rests || a.knowledge.turnAt != 0 || a.demand.surplus > 0 && a.tight():
		return t, false
	case !m.Suppressed && !a.waits.judged:
		return t, false
	case u.sent > 0 || !u.allCharged() || u.expires() || a.view.Counts().Admitted > u.charged:
		// There is something that leaves the window at other instants than that of the key.
		return t, false
	case m.Suppressed && (a.others > 0 || a.view.Counts().Declined > u.declined()):
		return t, false // the law must know of what others have declined
	}
	t = table.Terms{
		End: a.leaseEnd, Capacity: c.Capacity, Limit: a.budget + u.charged - low, Base: a.others,
	}
	if at := a.demand.growAt; at > m.Now { // the lease may be low from then on
		t.End = min(t.End, at)
	}
	return t, true
}

// Fill makes w the window of the key, for calls like c.
func (a *Account) Fill(m *Moment, c *Call, w *cells.Window) {
	w.Clear()
	for i := range a.unsettled.groups {
		g := &a.unsettled.groups[i]
		w.Place(m.Now, g.last, g.Counts)
	}
	a.copied.since, a.copied.had = w.Newest()
	a.copied.half = c.Capacity / 2
	if a.copied.unused++; a.copied.unused == mostUnused {
		a.copied.unused += unusedFor
	}
}

// copied is what the account knows of the window of its key: the cell that was the newest when it was filled
// in, and what that held.
type copied struct {
	since  int64
	had    window.Counts
	half   uint64 // half of the capacity of the calls that may use it
	unused uint8  // how often it was filled in, one after the other, and hardly used
}

const (
	// A window that was filled in mostUnused times and hardly used is not filled in at the next unusedFor
	// calls: they have several capacities, say, or look at the key in between.
	mostUnused = 4
	unusedFor  = 32
)

// Enter enters what callers have added to the window of the key since it was filled in.
func (a *Account) Enter(m *Moment, w *cells.Window, added window.Counts) {
	if m.Now = w.Last(); added.Observed() >= leastLent {
		a.copied.unused = 0
	}
	a.advance(m)
	now, u, live := m.Now, &a.unsettled, window.Counts{}
	a.calledAt = max(a.calledAt, now)
	w.Each(a.copied.since, func(first, last int64, c window.Counts) {
		if first == a.copied.since {
			c = excess(c, a.copied.had)
		}
		if c == (window.Counts{}) {
			return
		}
		live = live.Plus(c)
		n := c.Admitted
		if n > a.budget { // some groups became one, which leaves the window later than they did
			a.leaseEnd = min(a.leaseEnd, now)
		}
		a.budget -= min(n, a.budget)
		u.charged += n
		if now-last >= m.Window { // it has left the view
			u.push(ownGroup{first: first, last: last, Counts: c, charged: true})
			u.open = false
			return
		}
		first, last = max(first, a.view.Last()), max(last, a.view.Last())
		a.view.RecordGroup(m.Groups, m.Span, first, last, c)
		if u.open && u.openAt >= a.view.First() {
			g := &u.groups[len(u.groups)-1]
			g.last, g.Counts = max(g.last, last), g.Plus(c)
			return
		}
		u.push(ownGroup{first: first, last: last, Counts: c, charged: true})
		u.open, u.openAt = true, first
	})
	a.admitted += added.Admitted
	u.settled = u.settled.Plus(excess(added, live))
	a.demand.halfFull = m.Suppressed && a.view.Counts().Observed() > a.copied.half
}
