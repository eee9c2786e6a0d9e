package lease

import "github.com/trypema/trypema/internal/window"

// Reserved is an admitted call whose cost may change. It is known by its instants: the window has no other
// name for it. The lock of the shard guards it.
type Reserved struct {
	life       int64  // until it expires, or 0
	admittedAt int64  // by the clock of the account
	recordedAt int64  // in the window: then, or so much earlier that it leaves the window when it expires
	ledgerAt   int64  // when the ledger has it recorded, in µs; 0 before it is settled
	absent     bool   // the ledger will never have it: it was not recorded, or settled too late
	spell      *spell // in which it was admitted, or nil
	byPolicy   bool   // the failure policy of that spell admitted it
}

// Reserve makes the call that is recorded next one whose cost may change. With a life it leaves the window
// after that. EndReserve must follow.
func (a *Account) Reserve(life int64) *Reserved {
	a.reserved = &Reserved{life: life, absent: true}
	return a.reserved
}

// EndReserve ends what Reserve began, whether a call was recorded or not.
func (a *Account) EndReserve() { a.reserved = nil }

// Expires reports whether the call leaves the window before others that were admitted with it. The ledger
// must know of it soon, since this instance may end before that.
func (r *Reserved) Expires() bool { return r.recordedAt < r.admittedAt }

// Locate returns when the ledger has a call recorded and when it was admitted, by the ledger's clock in µs.
// The first is 0 if the ledger never had the call. Neither is known before the call is settled.
func (a *Account) Locate(t *Terms, r *Reserved) (recorded, admitted int64, known bool) {
	k := &a.knowledge
	switch {
	case k.ledgerTime == 0 || r.ledgerAt == 0 && !r.absent:
		return 0, 0, false
	case r.recordedAt == r.admittedAt:
		return r.ledgerAt, r.ledgerAt, true
	}
	return r.ledgerAt, k.ledgerTime - t.age(k.ledgerTimeAt, r.admittedAt, 0), true
}

// Change is a commit of a call: it was counted as Was and is to count as Is. For that the ledger has taken
// back Removed and added Added.
type Change struct{ Was, Is, Removed, Added uint64 }

// Commit enters a commit that the ledger has made.
func (a *Account) Commit(m *Moment, r *Reserved, c Change) {
	now := a.view.Advance(m.Groups, m.Span, m.Now)
	removed, added := a.view.Commit(m.Groups, m.Span, now, r.recordedAt, r.admittedAt, c.Was, c.Is)
	if removed != c.Removed || added != c.Added {
		// The key was deleted meanwhile, or one of the two has forgotten the call sooner.
		a.knowledge.wantsWindow = true
	}
	change := func(n uint64) uint64 { return n + c.Added - min(n+c.Added, c.Removed) }
	k := &a.knowledge
	k.live.Admitted, k.running.Admitted = change(k.live.Admitted), change(k.running.Admitted)
	a.inSpell(r, func(w *window.Window) {
		w.Commit(m.Groups, m.Span, w.Advance(m.Groups, m.Span, now), r.recordedAt, r.admittedAt, c.Was, c.Is)
	})
	k.hopeForRoom()
	k.promisedRetryAt = 0
	if c.Added > c.Removed { // what the call takes from others, it takes from this lease first
		taken := min(a.view.Counts().Admitted+a.others, a.ceiling)
		a.budget = min(a.budget, a.ceiling-taken)
		k.free = min(k.free, a.ceiling-taken-a.budget)
	}
}

// CommitLater enters the true cost of a call that expires, where the ledger cannot be asked. It is settled
// with what else is admitted here. The estimate counts until it expires.
func (a *Account) CommitLater(m *Moment, r *Reserved, is uint64) {
	c := window.Counts{Admitted: is}
	now := a.view.Advance(m.Groups, m.Span, m.Now)
	if is == 0 || now-r.admittedAt >= m.Window {
		return
	}
	a.view.Place(m.Groups, m.Span, now, r.admittedAt, r.admittedAt, c)
	a.inSpell(r, func(w *window.Window) {
		w.Place(m.Groups, m.Span, w.Advance(m.Groups, m.Span, now), r.admittedAt, r.admittedAt, c)
	})
	inSpell := a.spell != nil && r.spell == a.spell
	a.unsettled.push(ownGroup{first: r.admittedAt, last: r.admittedAt, Counts: c, inSpell: inSpell})
	a.unsettled.open = false
}
