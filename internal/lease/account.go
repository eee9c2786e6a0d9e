package lease

import (
	"math"
	"slices"

	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/window"
)

// Terms are what the accounts of one limiter have in common. Instants and durations are in one unit that the caller
// chooses; a nanosecond for the Hybrid provider.
type Terms struct {
	window.Span
	Micro    int64 // a microsecond, in which messages count
	Interval int64 // of settling
}

// Account is the holder's side of one key: what it knows of the window, what it has on lease, and what it has not settled.
// Its invariant: budget is what may be admitted until end, and the ledger charges at least that, and all that was admitted
// and not settled.
type Account struct {
	// What every call needs comes first, in few cache lines.

	budget   uint64 // of the lease
	end      int64
	ceiling  uint64 // the capacity that it was granted for
	capacity uint64 // that was asked with last
	touched  int64  // when the key was asked for last
	used     uint64 // admitted since the last answer
	heard    bool   // there was an answer
	distant  bool   // the lease is one far from the limit
	slow     bool   // or a slow one near it
	open     bool   // the newest of pending takes events; it began at began
	loaded   bool   // Suppressed must know what others observe
	asking   bool   // a message is under way
	began    int64
	pending  []own  // its own events that are not settled, the oldest first
	others   uint64 // on lease to others
	target   uint64 // what the budget is to be
	soon     uint64 // what is enough for an interval
	spare    uint64 // of the capacity, what was left for all
	full     int64  // until then there is nothing to be had, as the ledger has refused a part of what was wanted
	told     int64  // the first instant, of those ahead, at which a caller was told to come again
	sent     int    // groups of pending in the message under way

	// view is the window as far as it is known: what the ledger said, what others have settled since, recorded when it was
	// heard of, and all of its own. It judges waiting times, and the suppression factor.
	view window.Window

	Holder  uint64
	seq     uint64
	slot    uint64
	base    window.Counts // its own events that are settled
	spell   *spell        // while a policy decides, and for a window after that; or nil
	known   window.Counts // running counts of the ledger
	live    window.Counts // what the window held by the last answer
	drift   int           // answers in a row that the view did not agree with
	resync  bool          // the view is to be made anew
	lost    bool          // the last message has no answer
	vague   bool          // much of what the view has of others may be older than it says
	ended   bool          // what the message under way brings is no good
	lent    int64         // until then the ledger may charge something to it
	trip    int64         // how long the last answer took; the view may have an event as much later
	using   int64         // until then the window may hold what others admit from their leases
	mixed   int64         // until then there are events of others in the window
	late    int64         // how much later than it was, at most, the ledger holds an event
	lateFor int64         // as long as that event is in the window

	// The message under way, or the last one.
	sentAt     int64
	hold       uint64
	near       uint64
	far        uint64
	asked      uint64 // capacity
	nearLife   int64  // µs
	want       Want
	asksSlowly bool // with a slow life

	next *Held // the call that is recorded next

	// The ledger's clock at an instant of this one, or later; 0 before the first answer.
	ledgerTime int64 // µs
	ledgerAt   int64

	// Demand.
	grantedAt int64     // since when used is counted
	emptyAt   int64     // when the budget did not suffice first since then, or 0
	missed    uint64    // the most that a call cost for which it was not, and which has not waited
	owed      uint64    // admitted by a policy since the last message, of which the ledger does not know when it grants
	demand    float64   // cost per unit of time
	targets   [2]uint64 // near the limit, and far from it
}

// own is a group of events that the ledger has not acknowledged.
type own struct {
	first, last int64
	window.Counts
	holds   []*Held // some of them, whose cost may change
	inSpell bool
}

// Verdict is the answer to one call by an account, if it has one.
type Verdict struct {
	window.Verdict
	Ask bool  // it has none: the ledger must be asked
	Due int64 // when the account should settle, if that is before it is due; or 0
}

// Mode says what a verdict is for.
type Mode uint8

// The modes: Peek asks whether a call would be admitted, in the time that it takes to ask the ledger; Try whether it is by what there
// is on lease; Record is Try, and records what came of it.
const (
	Peek Mode = iota
	Try
	Record
)

// Held is an admitted call whose cost may change.
type Held struct {
	life   int64 // until its expiry, or 0
	at     int64 // when it was admitted, by the clock of the account
	from   int64 // when it is recorded: then, or earlier, so that it leaves the window at its expiry
	ledger int64 // when the ledger has it recorded, in µs; 0 until it is settled
	gone   bool  // the ledger will never have it: it was not recorded, or had left the window before it was settled

	spell    *spell // in which it was admitted, or nil
	byPolicy bool   // it is among what the policy of that spell decided
}

// Hold makes the call that is recorded next one whose cost may change. With a life it leaves the window after
// that. Release must follow.
func (a *Account) Hold(life int64) *Held {
	a.next = &Held{life: life, gone: true}
	return a.next
}

// Release ends what Hold began, whether a call was recorded or not.
func (a *Account) Release() { a.next = nil }

// Expires reports whether the call leaves the window before others that were admitted with it, so that the
// ledger has to know soon.
func (h *Held) Expires() bool { return h.from < h.at }

// Locate returns when the ledger has a held call recorded, and when it was admitted, by the ledger's clock in
// µs; the first is 0 if the ledger has never had it. It is not known as long as the call is not settled.
func (a *Account) Locate(t *Terms, h *Held) (from, at int64, known bool) {
	switch {
	case a.ledgerTime == 0 || h.ledger == 0 && !h.gone:
		return 0, 0, false
	case h.from == h.at:
		return h.ledger, h.ledger, true
	}
	return h.ledger, a.ledgerTime - (a.ledgerAt-h.at)/t.Micro, true
}

// Commit enters that the ledger has taken back so much of what a held call of cost was counted, and added so
// much, to make it is.
func (a *Account) Commit(g *window.Groups, t *Terms, now int64, h *Held, was, is, removed, added uint64) {
	now = a.view.Advance(g, t.Span, now)
	if r, more := a.view.Settle(g, t.Span, now, h.from, h.at, was, is); r != removed || more != added {
		a.resync = true // it was deleted meanwhile, or one of the two has forgotten it sooner
	}
	change := func(n uint64) uint64 { return n + added - min(n+added, removed) }
	a.live.Admitted, a.known.Admitted = change(a.live.Admitted), change(a.known.Admitted)
	a.inSpell(h, func(w *window.Window) {
		w.Settle(g, t.Span, w.Advance(g, t.Span, now), h.from, h.at, was, is)
	})
	a.full, a.told = 0, 0
	if added > removed { // what it takes from others, it takes from this lease first
		taken := min(a.view.Counts().Admitted+a.others, a.ceiling)
		a.budget = min(a.budget, a.ceiling-taken)
		a.spare = min(a.spare, a.ceiling-taken-a.budget)
	}
}

// CommitLater enters the true cost of a held call that has an expiry, where the ledger cannot be asked: it is
// settled with what else is admitted here. The estimate counts until its expiry.
func (a *Account) CommitLater(g *window.Groups, t *Terms, now int64, h *Held, is uint64) {
	c := window.Counts{Admitted: is}
	if now = a.view.Advance(g, t.Span, now); is == 0 || now-h.at >= t.Window {
		return
	}
	a.view.Place(g, t.Span, now, h.at, h.at, c)
	a.inSpell(h, func(w *window.Window) { w.Place(g, t.Span, w.Advance(g, t.Span, now), h.at, h.at, c) })
	a.push(own{first: h.at, last: h.at, Counts: c, inSpell: a.spell != nil && h.spell == a.spell})
	a.open = false
}

// lowPart is the part of the target at which a lease is low, as a divisor.
const lowPart = 3

// coldPart is the part of the capacity that is wanted far from the limit, when the demand is not known, as a divisor.
const coldPart = 16

// driftAnswers is how many answers in a row the view must not agree with to be made anew. What is heard of late explains one
// or two.
const driftAnswers = 3

// most is where counting ends, in a window and in a message: that of package remote. largeBase is from where on an account begins to
// count what it has settled anew.
const (
	most      = 1 << 51
	largeBase = 1 << 50
)

// outdatedPart is the part of a window, as a divisor, after which it matters when others did what is heard of
// them at once, and vaguePart the part of the capacity from which on.
const (
	outdatedPart = 32
	vaguePart    = 16
)

// maxPending bounds the groups that are not settled; of more, neighbours are taken together.
const maxPending = 16

// Last returns the instant of the last event or call.
func (a *Account) Last() int64 { return max(a.view.Last(), a.touched) }

// Clear gives back the memory of the view.
func (a *Account) Clear(g *window.Groups) {
	a.view.Clear(g)
	a.endSpell(g)
}

// Move takes the view to other memory.
func (a *Account) Move(from, to *window.Groups) {
	a.view.Move(from, to)
	if s := a.spell; s != nil {
		s.before.Move(from, to)
		s.own.Move(from, to)
		s.policy.Move(from, to)
	}
}

// record enters its own events at now, which must come from Advance of the view.
func (a *Account) record(g *window.Groups, t *Terms, now int64, c window.Counts) {
	if c.Declined = min(c.Declined, most-min(most, a.view.Counts().Observed())); c == (window.Counts{}) {
		return
	}
	h := a.next
	if c.Admitted == 0 {
		h = nil
	}
	if h != nil {
		h.at, h.from, h.gone, h.spell = now, t.Backdate(now, h.life), false, a.spell
	}
	switch {
	case h != nil && h.Expires():
		a.view.Place(g, t.Span, now, h.from, h.from, c)
		if s := a.spell; s != nil {
			s.own.Place(g, t.Span, s.own.Advance(g, t.Span, now), h.from, h.from, c)
		}
		a.push(own{first: h.from, last: h.from, Counts: c, inSpell: a.spell != nil})
		a.open = false
	default:
		a.view.Record(g, t.Span, now, c)
		if s := a.spell; s != nil {
			s.own.Record(g, t.Span, s.own.Advance(g, t.Span, now), c)
		}
		if a.open && a.began >= a.view.First() {
			p := &a.pending[len(a.pending)-1]
			p.last = now
			p.Admitted += c.Admitted
			p.Declined += c.Declined
			break
		}
		a.push(own{first: now, last: now, Counts: c, inSpell: a.spell != nil})
		a.open, a.began = true, now
	}
	if h != nil {
		p := &a.pending[len(a.pending)-1]
		p.holds = append(p.holds, h)
	}
}

// push adds a group to those that are not settled.
func (a *Account) push(p own) {
	if len(a.pending)-a.sent >= maxPending {
		a.merge()
	}
	a.pending = append(a.pending, p)
}

// merge takes two groups together, but for those in the message under way, and not what was before a spell
// with what was in it: those whose events then seem least younger than they are. Those are neighbours, but for
// groups of calls with an expiry, which are not in order of age.
func (a *Account) merge() {
	a.open = false
	into, from, least := 0, 0, math.Inf(1)
	for i := a.sent; i < len(a.pending); i++ {
		for j := i + 1; j < len(a.pending); j++ {
			p, q := &a.pending[i], &a.pending[j]
			last := max(p.last, q.last)
			cost := float64(p.Observed())*float64(last-p.last) + float64(q.Observed())*float64(last-q.last)
			if cost < least && p.inSpell == q.inSpell {
				into, from, least = j, i, cost
			}
		}
	}
	if into == from {
		return
	}
	p, q := &a.pending[from], &a.pending[into]
	q.first, q.last, q.Counts = min(p.first, q.first), max(p.last, q.last), q.Plus(p.Counts)
	q.holds = append(p.holds, q.holds...)
	a.pending = slices.Delete(a.pending, from, from+1)
}

// spend takes an admitted cost from the budget.
func (a *Account) spend(n uint64) {
	a.budget -= n
	a.used += n
}

// Open describes to callers without the lock what they may take; nil if there is nothing that is worth it.
func (a *Account) Open(g *window.Groups, t *Terms) *table.Hot {
	if a.spell != nil { // which must see all that is admitted
		return nil
	}
	now := a.view.Now()
	closes, _, _ := a.view.Open(g, t.Span)
	h := &table.Hot{
		Only:     a.capacity,
		Window:   t.Window,
		Opened:   now,
		Closes:   min(closes, a.end, now+table.MaxOpen),
		Last:     a.view.Last(),
		Admitted: min(a.view.Counts().Admitted+a.others, a.capacity),
		Expires:  now, // nothing can be denied
	}
	switch {
	case a.budget > 0 && a.capacity >= a.ceiling && a.open:
		// The last of a budget is taken under the lock, where it is seen to that there will be more.
		left := a.budget - min(a.budget, a.lowAt())
		if left == 0 {
			return nil
		}
		h.Reserve = a.capacity - h.Admitted - min(left, a.capacity-h.Admitted)
	case a.budget == 0 && a.refused(now, a.capacity):
		if a.capacity > 0 && a.view.Counts().Admitted >= a.capacity {
			// Room that was there sooner than somebody was told is taken again: full is about that, and no more than that.
			if at, _ := a.view.Fits(g, t.Span, a.capacity-1); at >= a.full {
				return nil
			}
		}
		h.Closes, h.Expires = now, a.full
		a.touched = max(a.touched, a.full) // calls that are denied without the lock are not noted
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
	p := &a.pending[len(a.pending)-1]
	p.last = max(p.last, last)
	p.Admitted += n
	a.spend(min(n, a.budget))
	a.touched = max(a.touched, last)
}

// Fresh reports whether what the ledger said still holds: while there is a lease.
func (a *Account) Fresh(now int64) bool { return a.heard && now < a.end }

// Lapsed reports whether a lease near the limit has just ended, with somebody asking, because it was not renewed in time.
func (a *Account) Lapsed(now int64) bool {
	return a.heard && !a.distant && !a.slow && now >= a.end && now-a.end < a.end-a.sentAt
}

// Absolute judges a call of cost n at now, as the mode says.
func (a *Account) Absolute(v *Verdict, g *window.Groups, t *Terms, p *Pace, capacity uint64, now int64, n uint64, mode Mode) {
	now = a.view.Advance(g, t.Span, now)
	a.touched, a.capacity = max(a.touched, now), capacity
	have := a.view.Counts().Admitted
	charged := have
	if a.Fresh(now) {
		charged = min(have+a.others, math.MaxInt64)
	}
	v.Now, v.Then = min(charged, capacity), min(charged, capacity)
	switch {
	case n > capacity:
		v.Wait, v.Then = window.Never, 0
		v.Ask = !a.heard // what remains is of interest
	case a.Fresh(now) && n <= a.budget && (capacity >= a.ceiling || charged <= capacity && n <= capacity-charged):
		v.Allowed = true
		if mode == Record {
			a.record(g, t, now, window.Counts{Admitted: n})
			a.spend(n)
			v.Now = min(v.Now+n, capacity)
			v.Then = v.Now
		}
		a.low(v, now)
	case a.Fresh(now) && mode == Peek && n <= a.budget+a.spare && capacity >= a.ceiling:
		v.Allowed = true
	case (have > capacity || n > capacity-have) && !a.freed(now, capacity, n):
		// Full, unless others have given back some of it.
		at, then := a.view.Fits(g, t.Span, capacity-n)
		a.refuse(now)
		at += a.lag(t, p, now)
		v.Wait, v.Then, v.Due = at+p.Slack-now, then, min(at, max(now, a.sentAt+recheckIntervals*t.Interval))
		if now >= a.told || at+p.Slack < a.told {
			a.told = at + p.Slack
		}
	case a.refused(now, capacity):
		a.refuse(now)
		v.Wait, v.Then = a.full-now, min(have, capacity-n)
	default:
		a.refuse(now)
		v.Ask = true
	}
}

// freed reports whether the ledger had room for a call when it was asked last. If the view has none, it does
// not know that others have given back what they had reserved, or that the window was set to something less.
func (a *Account) freed(now int64, capacity, n uint64) bool {
	return a.Fresh(now) && capacity >= a.ceiling && n <= a.budget+a.spare
}

// low sees to it that there is more before the budget is used up.
func (a *Account) low(v *Verdict, now int64) {
	if a.budget < a.lowAt() {
		v.Due = now
	}
}

// lag is how much later than the view says the ledger may have room: it has heard of every event later, and may hold it in one
// group with later events of others.
func (a *Account) lag(t *Terms, p *Pace, now int64) int64 {
	lag := p.Trip
	if now < a.lateFor {
		lag = max(lag, a.late)
	}
	if now < a.mixed {
		lag += t.Bucket
	}
	return lag
}

// lowAt is the least that a lease should have: enough for an interval, or half of that where there is no more.
func (a *Account) lowAt() uint64 {
	if a.target > a.soon {
		return max(a.soon, a.target/lowPart)
	}
	return (a.target + 1) / 2
}

// refused reports whether the ledger is known to have nothing to give for calls up to a capacity.
func (a *Account) refused(now int64, capacity uint64) bool {
	return now < a.full && capacity <= a.ceiling && a.Fresh(now)
}

// refuse notes that the budget was not enough for a call.
func (a *Account) refuse(now int64) {
	if a.emptyAt == 0 {
		a.emptyAt = now
	}
}

// Suppressed judges a call of cost n at now by a throw of the dice, as the mode says; Record records it, admitted or declined.
func (a *Account) Suppressed(v *Verdict, g *window.Groups, t *Terms, p *Pace, l *window.Law, now int64, n uint64, dice float64, mode Mode) {
	now = a.view.Advance(g, t.Span, now)
	a.touched, a.capacity = max(a.touched, now), l.Hard
	if !a.Fresh(now) {
		a.refuse(now)
		v.Ask = true
		return
	}
	a.loaded = a.view.Counts().Observed() > l.Capacity/2
	a.view.Suppressed(&v.Verdict, g, t.Span, l, now, n, dice, false)
	switch {
	case !v.Allowed:
		if v.Wait != window.Never {
			v.Wait += a.lag(t, p, now) + p.Slack
		}
	case n <= a.budget && (l.Hard >= a.ceiling || v.Now+a.others+n <= l.Hard):
		if mode == Record {
			a.record(g, t, now, window.Counts{Admitted: n})
			a.spend(n)
			v.Now += n
			v.Then = v.Now
		}
		a.low(v, now)
		return
	case mode == Peek && n <= a.budget+a.spare && l.Hard >= a.ceiling:
		return
	case a.refused(now, l.Hard) && now < a.mixed:
		// Others have the rest up to the hard capacity.
		a.refuse(now)
		v.Allowed, v.Factor, v.Wait = false, 1, a.full-now
	default:
		a.refuse(now)
		v.Ask = true
		return
	}
	if mode == Record {
		if a.budget == 0 && !a.Unsettled() { // or it may not be due at all, and this is soon enough
			v.Due = now + t.Window/2
		}
		a.record(g, t, now, window.Counts{Declined: n})
	}
}

// Deny is the verdict on a call of which the ledger must be asked, if it does not wait, or has waited enough. Under Suppressed,
// which is told by its law, it records the call as declined if record is set.
func (a *Account) Deny(v *Verdict, g *window.Groups, t *Terms, p *Pace, capacity uint64, l *window.Law, now int64, n uint64, record bool) {
	now = a.view.Advance(g, t.Span, now)
	have := min(a.view.Counts().Admitted, capacity)
	wait := p.Trip + p.Slack
	if a.asking { // an answer that is late may be as late again
		wait = max(wait, now-a.sentAt)
	}
	v.Verdict = window.Verdict{Wait: wait, Now: have, Then: min(have, capacity-min(n, capacity))}
	if n > capacity {
		v.Wait, v.Then = window.Never, 0
	}
	if l != nil {
		v.Factor = 1
		if record {
			a.record(g, t, now, window.Counts{Declined: n})
		}
	}
	v.Ask, v.Due = false, now
	if v.Wait != window.Never {
		a.touched = max(a.touched, now+v.Wait) // it is kept for who comes again
	}
}

// Admit records a call that is admitted whatever was before.
func (a *Account) Admit(g *window.Groups, t *Terms, capacity uint64, now int64, n uint64) {
	now = a.view.Advance(g, t.Span, now)
	a.touched, a.capacity = max(a.touched, now), capacity
	a.record(g, t, now, window.Counts{Admitted: min(n, most-min(most, a.view.Counts().Admitted))})
}

// Unsettled reports whether there is anything that the ledger does not know.
func (a *Account) Unsettled() bool { return len(a.pending) > 0 }

// Leased returns what there is on lease.
func (a *Account) Leased() uint64 { return a.budget }

// Miss notes that a call of cost n does not wait for what it asks: it may come again.
func (a *Account) Miss(n uint64) { a.missed = max(a.missed, n) }

// Lent reports whether the ledger may charge something to it: also what it does not use any more, or has not heard of.
func (a *Account) Lent(now int64) bool { return now < a.lent }

// Asking reports whether a message is under way.
func (a *Account) Asking() bool { return a.asking }

// Idle reports whether nobody has asked for the key for so long that its lease should go back.
func (a *Account) Idle(t *Terms, now int64) bool {
	if a.distant || a.slow {
		return a.touched <= a.grantedAt && (a.budget == 0 || a.expires() || now-a.sentAt >= (a.end-a.sentAt)/2)
	}
	return now-a.touched > slowIntervals*t.Interval
}

// expires reports whether a call with an expiry is to be settled: it is settled soon as this instance may end
// before it expires, and what would then stay on lease for a window goes back with it.
func (a *Account) expires() bool {
	return slices.ContainsFunc(a.pending, func(p own) bool { return slices.ContainsFunc(p.holds, (*Held).Expires) })
}

// A holder near the limit with little to do has a lease that lives for slowIntervals, or crowdedIntervals where others hold more
// than a part of the capacity, and more than there is left; and does not renew it before.
const (
	slowDemand       = .5 // of a call in an interval
	slowIntervals    = 20
	cheapIntervals   = 60 // for one that is only a small part of the capacity
	cheapPart        = 256
	crowdedIntervals = 5
	crowdedPart      = 16 // as a divisor
	slowPart         = 16 // of what is left for all, as a divisor: what one of them may have
)

// recheckIntervals is after how many intervals a holder that takes the window for full asks again, as long as
// it is called: what others have reserved may expire, be settled below the estimate, or be deleted.
const recheckIntervals = 60

// slowLife is how long a lease of a slow holder lives.
func (a *Account) slowLife(t *Terms) int64 {
	switch {
	case a.others > a.capacity/crowdedPart && a.spare < a.others:
		return crowdedIntervals * t.Interval
	case a.soon <= a.capacity/cheapPart:
		return cheapIntervals * t.Interval
	}
	return slowIntervals * t.Interval
}

// Want is what a message wants of the ledger.
type Want uint8

// The wants: Nothing gives back what there is, Same keeps it.
const (
	More Want = iota
	Same
	Nothing
)

// Touch notes that somebody asked for the key at now.
func (a *Account) Touch(now int64) { a.touched = max(a.touched, now) }

// Ask returns the message to send at now. More is at least what calls need that wait. No message may be under way.
func (a *Account) Ask(t *Terms, p *Pace, now int64, need uint64, want Want) (m Ask) {
	gone := 0
	for gone < len(a.pending) && now-a.pending[gone].last >= t.Window {
		a.base = a.base.Plus(a.pending[gone].Counts)
		a.pending[gone].lose()
		gone++
	}
	a.pending = slices.Delete(a.pending, 0, gone)
	if now >= a.end || want == Nothing {
		a.budget, a.end = 0, min(a.end, now)
	}
	a.seq++
	m = Ask{Holder: a.Holder, Seq: a.seq, Slot: a.slot, Capacity: a.capacity, Base: a.base}
	m.Whole = !a.heard || a.resync || a.outdated(t, p, now)
	life := p.Near
	if want == More {
		a.size(t, now)
		a.soon = a.enough(a.demand * float64(p.Interval+p.Trip))
		if a.asksSlowly = !a.loaded && a.demand*float64(p.Interval) < slowDemand; a.asksSlowly {
			life = max(life, a.slowLife(t))
		}
		near := a.soon
		if a.asksSlowly {
			near = max(near, min(a.enough(a.demand*float64(life)), a.spare/slowPart))
		}
		a.targets = [2]uint64{
			near,
			max(a.enough(a.demand*float64(p.Far)*5/4), a.capacity/coldPart), // an unknown demand gets a little more
		}
		had := a.budget
		if !a.distant { // what was leased far from the limit is too much near it
			a.budget = min(a.budget, max(a.targets[0], need))
		}
		if a.capacity < a.ceiling { // as is what was leased for a larger one
			a.budget = min(a.budget, a.targets[1])
		}
		if a.budget < had { // the ledger has again what goes back
			a.full = 0
		}
		m.Need = min(max(need, a.missed), a.capacity) // all of it: what there is may be gone by then
		m.Near = max(a.targets[0]-min(a.targets[0], a.budget), m.Need)
		m.Far = max(a.targets[1]-min(a.targets[1], a.budget), m.Need)
	}
	a.missed, a.owed = 0, 0
	if a.spell != nil {
		a.spell.unsent = window.Counts{}
	}
	m.Hold, m.NearLife = a.budget, life/t.Micro
	if m.Hold > 0 || want == More {
		a.lent = max(a.lent, now+max(life, p.Far)+t.Window)
	}
	for _, q := range a.pending {
		m.Groups = append(m.Groups, Group{max(0, now-q.last) / t.Micro, (q.last - q.first) / t.Micro, q.Counts})
	}
	a.open = false
	a.asking, a.sentAt, a.sent = true, now, len(a.pending)
	a.hold, a.near, a.far, a.asked, a.nearLife, a.want = m.Hold, m.Near, m.Far, m.Capacity, m.NearLife, want
	return m
}

// enough returns what is nearly always enough for a demand of so much on average; or, where there is little left for all, what
// is on average.
func (a *Account) enough(mean float64) uint64 {
	sigmas := 2 + 2*min(1, 16*float64(a.spare)/float64(a.capacity+1))
	n := uint64(min(math.Ceil(mean+sigmas*math.Sqrt(mean)), float64(a.capacity)))
	return max(n, 1)
}

// size estimates the demand. Once the budget was not enough, what was used until then tells of it.
func (a *Account) size(t *Terms, now int64) {
	until := now
	if a.emptyAt > 0 {
		until = a.emptyAt
	}
	elapsed := float64(until - a.grantedAt)
	if elapsed <= 0 || a.used == 0 && a.emptyAt > 0 {
		return
	}
	rate := float64(a.used) / max(elapsed, float64(t.Interval)/2)
	// More than chance explains is a surge, and believed at once.
	if expected := a.demand * elapsed; float64(a.used) > expected+2*math.Sqrt(expected+1)+1 {
		a.demand = max(a.demand, rate)
		return
	}
	a.demand += (rate - a.demand) * min(1, elapsed/float64(32*t.Interval))
}

// lose notes that the ledger has no call of a group.
func (p *own) lose() {
	for _, h := range p.holds {
		h.gone = true
	}
}

// outdated reports whether the ledger was heard of last so long ago that it matters when others did what is
// heard of next.
func (a *Account) outdated(t *Terms, p *Pace, now int64) bool {
	most := t.Window / outdatedPart
	return (a.lost || a.spell != nil || p.Trip > most) && now-a.grantedAt > most
}

// Lost notes that the message under way has no answer. The next one says it all again.
func (a *Account) Lost() { a.asking, a.ended, a.sent, a.lost = false, false, 0, true }

// SentAt is when the last message was made.
func (a *Account) SentAt() int64 { return a.sentAt }

// Seq is the number of the last message.
func (a *Account) Seq() uint64 { return a.seq }

// Hear takes the answer to the message under way, which came at now.
func (a *Account) Hear(g *window.Groups, t *Terms, p *Pace, now int64, m Answer) {
	a.asking = false
	if m.Stale {
		a.sent = 0
		return
	}
	a.lost, a.trip = false, min(now-a.sentAt, t.Window/4)
	now = a.view.Advance(g, t.Span, now)
	for _, q := range a.pending[:a.sent] {
		a.base = a.base.Plus(q.Counts)
		age := max(0, a.sentAt-q.last) / t.Micro
		if age >= t.Window/t.Micro {
			q.lose()
			continue
		}
		for _, h := range q.holds {
			h.ledger = m.Now - age
		}
	}
	a.ledgerTime, a.ledgerAt = m.Now, a.sentAt
	if took := now - a.sentAt; a.sent > 0 && (took >= a.late || now >= a.lateFor) {
		a.late, a.lateFor = took, now+t.Window
	}
	a.pending = slices.Delete(a.pending, 0, a.sent)
	a.sent = 0
	if a.base.Admitted >= largeBase || a.base.Declined >= largeBase {
		// A message has no room for more. All that was in one is acknowledged, so a holder that the ledger has not heard of can go on.
		// What this one has on lease stays charged until it has aged out.
		a.Holder, a.base = a.Holder+1<<32, window.Counts{}
	}

	other := excess(m.Before, a.known)
	switch {
	case m.Whole:
		a.clearView(g)
		for _, q := range m.Groups {
			at := now - q.Age*t.Micro
			a.view.Place(g, t.Span, now, at, at, q.Counts)
			if s := a.spell; s != nil && at-t.Bucket <= s.began {
				s.before.Place(g, t.Span, now, at, at, q.Counts)
			}
		}
		a.placePending(g, t, now)
		a.vague = false
	case a.heard:
		a.view.Record(g, t.Span, now, other)
		a.vague = a.vague || now-a.grantedAt > t.Window/outdatedPart && other.Admitted > a.asked/vaguePart
	}
	a.hearSpell(g, t, now)
	a.known, a.live, a.heard, a.slot = m.After, m.Live, true, m.Slot
	if a.drift++; m.Whole || !a.drifted(m) {
		a.drift = 0
	}
	a.resync = a.drift >= driftAnswers || a.ended

	a.end = a.sentAt + m.Life*t.Micro/1000*999
	a.budget += m.Grant
	if a.ended {
		a.budget, a.end, a.ended = 0, min(a.end, now), false
	}
	if a.hold+m.Grant == 0 {
		a.lent = 0
	}
	a.ceiling, a.others, a.using = a.asked, m.Others, now+p.Far+t.Window
	taken := m.Live.Admitted + m.Others + a.hold + m.Grant
	// What was leased for a larger capacity, or before the window was made to hold more, need not fit any more.
	a.budget -= min(a.budget, taken-min(taken, a.asked))
	a.budget -= min(a.budget, a.owed)
	a.spare = a.asked - min(a.asked, taken)
	a.distant = m.Life != a.nearLife
	a.slow = !a.distant && a.asksSlowly
	wanted := a.near
	a.target = a.targets[0]
	if a.distant {
		wanted, a.target = a.far, a.targets[1]
	}
	a.target = min(a.target, a.budget) // there is no more to be had
	a.full = 0
	if m.Others > 0 || !m.Whole && other != (window.Counts{}) {
		a.mixed = now + t.Window + t.Bucket
	}
	// Where there are no others and still less than there should be, the ledger has only not seen it yet.
	if m.Grant < wanted && !a.distant && (now < a.mixed || a.view.Counts().Admitted+a.budget >= a.asked) {
		a.fullUntil(now+p.Slack, now)
	}
	a.used, a.grantedAt, a.emptyAt = 0, now, 0
}

// fullUntil notes until when there is nothing to be had: not beyond what a caller was told, unless others may have changed that.
func (a *Account) fullUntil(at, now int64) {
	a.full = at
	if now < a.told && now >= a.mixed {
		a.full = min(at, a.told)
	}
}

// drifted reports whether the view differs from the window by more than what was heard late explains.
func (a *Account) drifted(m Answer) bool {
	have, want := a.view.Counts(), m.Live
	for _, q := range a.pending {
		want = want.Plus(q.Counts)
	}
	apart := func(x, y uint64) bool { return max(x, y)-min(x, y) > max(x, y)/16+8 }
	return apart(have.Admitted, want.Admitted) || apart(have.Observed(), want.Observed())
}

// Due returns when the account should settle next, after an answer: in an interval, when there may be room again if the window
// is full, or in the second half of a lease that lives long.
func (a *Account) Due(g *window.Groups, t *Terms, p *Pace, now int64) int64 {
	next := a.sentAt + p.Interval - t.Interval/4 // the tick that is about an interval after the last
	switch {
	case a.distant || a.slow && a.budget > 0:
		// While it lives, but not all at once.
		return max(next, a.sentAt+(a.end-a.sentAt)*int64(8+a.Holder%6)/16)
	case a.full > 0 && a.others == 0 && a.budget == 0:
		if a.vague { // before it rests for long
			a.resync = true
			return next
		}
		if a.capacity > 0 && a.view.Counts().Admitted >= a.capacity {
			at, _ := a.view.Fits(g, t.Span, a.capacity-1)
			at += a.lag(t, p, now)
			a.fullUntil(max(a.full, at+p.Slack), now)
			return max(next, min(at, a.sentAt+recheckIntervals*t.Interval))
		}
	}
	return next
}

// Live returns what the window held when it was settled last, with what happened here since.
func (a *Account) Live() (c window.Counts) {
	c = a.live
	for _, q := range a.pending {
		c = c.Plus(q.Counts)
	}
	return c
}

// Factor returns the suppression factor for a cost of 1 at now.
func (a *Account) Factor(g *window.Groups, t *Terms, l *window.Law, now int64) float64 {
	return a.view.Factor(g, t.Span, l, a.view.Advance(g, t.Span, now), 1)
}

// End ends the lease at now, and whatever the message under way brings, as the clock has missed some time; the view, which has missed
// it, too, is to be made anew.
func (a *Account) End(now int64) {
	a.budget, a.end, a.full = 0, min(a.end, now), 0
	a.ended, a.resync = a.asking, true
}

// Forget forgets what the window held, after it was set to something else.
func (a *Account) Forget(g *window.Groups, t *Terms) {
	a.resync = true
	if a.budget == 0 {
		a.heard, a.end, a.full = false, 0, 0
	}
	a.clearView(g)
	a.placePending(g, t, a.view.Now())
}

// clearView empties the view.
func (a *Account) clearView(g *window.Groups) {
	a.view.Clear(g)
	if a.spell != nil {
		a.spell.before.Clear(g)
	}
}

// placePending enters what is not settled into the view.
func (a *Account) placePending(g *window.Groups, t *Terms, now int64) {
	for _, q := range a.pending {
		a.view.Place(g, t.Span, max(now, q.last), q.first, q.last, q.Counts)
		if s := a.spell; s != nil && !q.inSpell {
			s.before.Place(g, t.Span, max(now, q.last), q.first, q.last, q.Counts)
		}
	}
}
