package lease

import (
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/window"
)

// Account is the holder's side of one key: what it has on lease, what it has not settled, what it knows of
// the window, and how much of it is needed.
//
// Its invariant: the budget is what may be admitted until leaseEnd. The ledger charges at least the budget,
// and all that was admitted and is not settled.
//
// The lock of the key's shard guards all of it. The Turn of a key, which the lock of the Schedule guards, is
// not part of it.
type Account struct {
	// What each call needs comes first, in few cache lines.
	lease
	calledAt  int64     // when the key was last asked for; later, if a caller was told to come again later
	capacity  uint64    // of the last call
	reserved  *Reserved // the call that is recorded next, if its cost may change
	spell     *spell    // while the failure policy decides, and for a window after that; or nil
	unsettled unsettled
	view      window.Window // see knowledge
	knowledge knowledge
	demand    demand
	waits     waits
	copied    copied

	Holder   uint64 // the account's number in the ledger
	exchange exchange
}

// lease is what the ledger has granted.
type lease struct {
	budget   uint64 // cost that may still be admitted
	leaseEnd int64  // 0 before the first answer
	ceiling  uint64 // capacity for which it was granted
	target   uint64 // budget after the last answer, at most what was wanted
	interval uint64 // cost that is enough for an interval
	admitted uint64 // cost since the last answer
	others   uint64 // on lease to others by the last answer
	kind     kind
	keeps    bool // it is a window lease: see reclaim
	rests    bool // it is renewed when the next call comes

	chargedUntil int64 // until then the ledger may charge something to the account
}

// kind is the kind of a lease.
type kind uint8

// A lease near the limit lives for two intervals. A slow one is near the limit, too, but lives longer, since
// its holder has little to do. A far one is far from the limit.
const (
	near kind = iota
	slow
	far
)

// Last returns the instant of the last event or call.
func (a *Account) Last() int64 { return max(a.view.Last(), a.calledAt) }

// Touch notes that the key was asked for at now.
func (a *Account) Touch(now int64) { a.calledAt = max(a.calledAt, now) }

// Fresh reports whether there is a lease: what the ledger said last still holds.
func (a *Account) Fresh(now int64) bool { return now < a.leaseEnd }

// Lapsed reports whether a lease near the limit has just ended because it was not renewed in time.
func (a *Account) Lapsed(now int64) bool {
	ago := now - a.leaseEnd
	return a.knowledge.answered && a.kind == near && ago >= 0 && ago < a.leaseEnd-a.exchange.sentAt
}

// Leased returns what is left of the lease.
func (a *Account) Leased() uint64 { return a.budget }

// Lent reports whether the ledger may charge something to the account. That can be a lease that it does not
// use any more, or has not heard of.
func (a *Account) Lent(now int64) bool { return now < a.chargedUntil }

// Unsettled reports whether there is anything that the ledger does not know.
func (a *Account) Unsettled() bool { return len(a.unsettled.groups) > 0 }

// Idle reports whether the key has not been asked for in so long that its lease should go back, or rest.
func (a *Account) Idle(t *Terms, now int64) bool {
	if a.kind == near {
		return now-a.calledAt > slowIntervals*t.Interval
	}
	// A call that was granted something may be slow to take it. But a reservation settles soon, since this
	// instance may end before the reservation expires; and if the account holds nothing, nothing can be
	// taken.
	sentAt := a.exchange.sentAt
	return a.calledAt <= a.demand.since &&
		(a.budget == 0 && a.unsettled.charged == 0 || a.unsettled.expires() || now-sentAt >= (a.leaseEnd-sentAt)/2)
}

// EndLease ends the lease at now, as the clock has missed some time. What the message under way brings must
// not be used, and the view must be replaced, since they have missed that time, too.
func (a *Account) EndLease(now int64) {
	a.budget, a.leaseEnd = 0, min(a.leaseEnd, now)
	a.knowledge.hopeForRoom()
	a.exchange.void = a.exchange.underWay
	a.knowledge.wantsWindow = true
}

// Clear gives back the memory of the account's windows.
func (a *Account) Clear(g *window.Groups) {
	a.view.Clear(g)
	a.endSpell(g)
}

// Move takes the account's windows to other memory.
func (a *Account) Move(from, to *window.Groups) {
	a.view.Move(from, to)
	if s := a.spell; s != nil {
		s.before.Move(from, to)
		s.own.Move(from, to)
		s.policy.Move(from, to)
	}
}

// Hot describes to callers without the lock what they may take; nil if they may not take anything.
func (a *Account) Hot(m *Moment) *table.Hot {
	if a.spell != nil { // it must see all that is admitted
		return nil
	}
	now := a.view.Now()
	closes, _, _ := a.view.Open(m.Groups, m.Span)
	h := &table.Hot{
		Only:     a.capacity,
		Window:   m.Window,
		Opened:   now,
		Closes:   min(closes, a.leaseEnd, now+table.MaxOpen),
		Last:     a.view.Last(),
		Admitted: min(a.view.Counts().Admitted+a.others, a.capacity),
		Expires:  now, // nothing can be denied
	}
	if at := a.demand.growAt; at > now { // the lease may be low from then on
		h.Closes = min(h.Closes, at)
	}
	switch {
	case a.budget > 0 && a.capacity >= a.ceiling && a.unsettled.open:
		// The last of a budget is taken under the lock: the account settles then.
		left := a.budget - min(a.budget, a.lowBudget(now))
		if left == 0 {
			return nil
		}
		h.Reserve = a.capacity - h.Admitted - min(left, a.capacity-h.Admitted)
	case a.budget == 0 && a.exhausted(now, a.capacity):
		until := a.knowledge.exhaustedUntil
		if a.knowledge.turnAt == 0 && a.capacity > 0 && a.view.Counts().Admitted >= a.capacity {
			// Room that came sooner than a caller was told is taken again. exhaustedUntil is about that room
			// only.
			if at, _ := a.view.Fits(m.Groups, m.Span, a.capacity-1); at >= until {
				return nil
			}
		}
		h.Closes, h.Expires = now, until
		a.calledAt = max(a.calledAt, until) // calls that are denied without the lock are not noted
		h.Oldest = h.Admitted - min(h.Admitted, a.capacity-1)
		h.Reserve = a.capacity - h.Admitted
	default:
		return nil
	}
	return h
}

// Join enters what callers without the lock have taken.
func (a *Account) Join(last int64, n uint64) {
	a.view.Join(last, n)
	g := &a.unsettled.groups[len(a.unsettled.groups)-1]
	g.last = max(g.last, last)
	g.Admitted += n
	if g.charged {
		a.unsettled.charged += n
	}
	a.spend(min(n, a.budget))
	a.calledAt = max(a.calledAt, last)
}

// spend takes an admitted cost from the budget.
func (a *Account) spend(n uint64) {
	a.budget -= n
	a.admitted += n
}

// lowPart is the part of the target at which a lease is low, as a divisor.
const lowPart = 3

// lowBudget is the budget below which the account settles: enough for an interval, or half of the target if
// that is less. A window lease fills up again by itself.
func (a *Account) lowBudget(now int64) uint64 {
	switch {
	case a.kind == far && a.keeps:
		if a.budget+a.unsettled.charged >= a.capacity || now < a.demand.growAt {
			return 0 // it cannot grow
		}
		if cost := a.demand.soon; cost > 0 || a.budget+a.unsettled.charged < fewCalls {
			return cost
		}
		return 1
	case a.target > a.interval:
		return max(a.interval, a.target/lowPart)
	}
	return (a.target + 1) / 2
}
