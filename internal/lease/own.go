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

// leastLent is how much room there must be for callers in the window of a key, so that to fill it in is worth
// it.
const leastLent = 4

// Lend returns on what terms callers may use the window of the key without the account. It reports false if
// they may not: the lease is none that keeps a window, or calls must be noted one by one.
//
// It must follow the decision of a call that was recorded, so that the last event is not before any that the
// window forgets; and the decision has the account settle soon or not. If it does, callers may
// use all that is left. Otherwise the call that makes the lease low must come to the account.
func (a *Account) Lend(m *Moment, settles bool) (t table.Terms, ok bool) {
	u, low := &a.unsettled, a.lowBudget(m.Now)
	if settles {
		low = 0
	}
	if a.copied.unused >= mostUnused { // the account is asked for at most calls
		a.copied.unused--
		return t, false
	}
	switch {
	case a.kind != far || !a.keeps || !a.Fresh(m.Now) || a.capacity < a.ceiling || a.budget < low+leastLent:
		return t, false
	case a.spell != nil || a.rests || a.knowledge.turnAt != 0 || !a.waits.judged || a.demand.surplus > 0 && a.tight():
		return t, false
	case u.sent > 0 || !u.allCharged() || u.expires() || a.view.Counts().Admitted > u.charged || m.Suppressed:
		// There is something that leaves the window at other instants than that of the key.
		return t, false
	}
	t = table.Terms{
		End: a.leaseEnd, Capacity: a.capacity, Limit: a.budget + u.charged - low, Base: a.others,
	}
	if at := a.demand.growAt; at > m.Now { // the lease may be low from then on
		t.End = min(t.End, at)
	}
	return t, true
}

// Fill makes w the window of the key.
func (a *Account) Fill(m *Moment, w *cells.Window) {
	w.Clear()
	for i := range a.unsettled.groups {
		g := &a.unsettled.groups[i]
		w.Place(m.Now, g.last, g.Counts)
	}
	a.copied.since, a.copied.had = w.Newest()
	if a.copied.unused++; a.copied.unused == mostUnused {
		a.copied.unused += unusedFor
	}
}

// copied is what the account knows of the window of its key: the cell that was the newest when it was filled
// in, and what that held.
type copied struct {
	since  int64
	had    uint64
	unused uint8 // how often it was filled in, one after the other, and hardly used
}

const (
	// A window that was filled in mostUnused times and hardly used is not filled in at the next unusedFor
	// calls: they have several capacities, say, or look at the key in between.
	mostUnused = 4
	unusedFor  = 32
)

// Enter enters what callers have added to the window of the key since it was filled in.
func (a *Account) Enter(m *Moment, w *cells.Window, added uint64) {
	if m.Now = w.Last(); added >= leastLent {
		a.copied.unused = 0
	}
	a.advance(m)
	now, u, live := m.Now, &a.unsettled, uint64(0)
	a.calledAt = max(a.calledAt, now)
	w.Each(a.copied.since, func(first, last int64, n uint64) {
		if first == a.copied.since {
			n -= min(n, a.copied.had)
		}
		if n == 0 {
			return
		}
		live += n
		if n > a.budget { // some groups became one, which leaves the window later than they did
			a.leaseEnd = min(a.leaseEnd, now)
		}
		a.budget -= min(n, a.budget)
		u.charged += n
		c := window.Counts{Admitted: n}
		if now-last >= m.Window { // it has left the view
			u.push(ownGroup{first: first, last: last, Counts: c, charged: true})
			u.open = false
			return
		}
		first, last = max(first, a.view.Last()), max(last, a.view.Last())
		a.view.RecordGroup(m.Groups, m.Span, first, last, c)
		if u.open && u.openAt >= a.view.First() {
			g := &u.groups[len(u.groups)-1]
			g.last, g.Admitted = max(g.last, last), g.Admitted+n
			return
		}
		u.push(ownGroup{first: first, last: last, Counts: c, charged: true})
		u.open, u.openAt = true, first
	})
	a.admitted += added
	u.settled.Admitted += added - live
}
