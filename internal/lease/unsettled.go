package lease

import (
	"math"
	"slices"

	"github.com/trypema/trypema/internal/window"
)

// unsettled is what an account has done and the ledger has not acknowledged. The next message tells all of
// it, with ages.
type unsettled struct {
	groups  []ownGroup // in the order in which they began
	sent    int        // number of the first groups that are in the message under way
	open    bool       // the newest group takes events
	openAt  int64      // when that group began
	settled window.Counts
}

// ownGroup is a group of events of this account.
type ownGroup struct {
	first, last int64
	window.Counts
	reserved []*Reserved // calls among them whose cost may change
	inSpell  bool        // they happened in the present spell
	// For so long before they happened, at least, they are recorded: they were reserved until their expiry.
	backdated int64
}

// maxUnsettled bounds the groups that are not sent. Beyond it, two of them become one.
const maxUnsettled = 16

// push adds a group.
func (u *unsettled) push(g ownGroup) {
	if len(u.groups)-u.sent >= maxUnsettled {
		u.merge()
	}
	u.groups = append(u.groups, g)
}

// merge makes one group of two that are not sent, and of which none or both are of the spell. It takes the
// two whose events then seem the least younger than they are. These are neighbours, except for reservations,
// whose groups are not in order of age.
func (u *unsettled) merge() {
	u.open = false
	into, from, least := 0, 0, math.Inf(1)
	for i := u.sent; i < len(u.groups); i++ {
		for j := i + 1; j < len(u.groups); j++ {
			p, q := &u.groups[i], &u.groups[j]
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
	p, q := &u.groups[from], &u.groups[into]
	q.first, q.last, q.Counts = min(p.first, q.first), max(p.last, q.last), q.Plus(p.Counts)
	q.backdated = min(p.backdated, q.backdated)
	q.reserved = append(p.reserved, q.reserved...)
	u.groups = slices.Delete(u.groups, from, from+1)
}

// forget takes out groups whose events are so old that they count nowhere any more.
func (u *unsettled) forget(length, now int64) {
	n := 0
	for n < len(u.groups) && now-u.groups[n].last >= length {
		u.settled = u.settled.Plus(u.groups[n].Counts)
		u.groups[n].lose()
		n++
	}
	u.groups = slices.Delete(u.groups, 0, n)
}

// acknowledge takes out the groups that were sent. ledgerTime returns when the ledger has a group recorded,
// and false if it had left the window before that.
func (u *unsettled) acknowledge(ledgerTime func(g *ownGroup) (int64, bool)) {
	for i := range u.groups[:u.sent] {
		g := &u.groups[i]
		u.settled = u.settled.Plus(g.Counts)
		at, recorded := ledgerTime(g)
		if !recorded {
			g.lose()
			continue
		}
		for _, r := range g.reserved {
			r.ledgerAt = at
		}
	}
	u.groups = slices.Delete(u.groups, 0, u.sent)
	u.sent = 0
}

// expires reports whether there is a reservation that expires before a window is over.
func (u *unsettled) expires() bool {
	return slices.ContainsFunc(u.groups, func(g ownGroup) bool {
		return slices.ContainsFunc(g.reserved, (*Reserved).Expires)
	})
}

// lose notes that the ledger will never have the calls of a group.
func (g *ownGroup) lose() {
	for _, r := range g.reserved {
		r.absent = true
	}
}

// record enters events of this account at m.Now, which must come from Advance of the view.
func (a *Account) record(m *Moment, c window.Counts) {
	c.Declined = min(c.Declined, maxCount-min(maxCount, a.view.Counts().Observed()))
	if c == (window.Counts{}) {
		return
	}
	r := a.reserved
	if c.Admitted == 0 {
		r = nil
	}
	u, now := &a.unsettled, m.Now
	if r != nil {
		r.admittedAt, r.recordedAt, r.absent, r.spell = now, m.Backdate(now, r.life), false, a.spell
	}
	switch {
	case r != nil && r.Expires():
		a.view.Place(m.Groups, m.Span, now, r.recordedAt, r.recordedAt, c)
		if s := a.spell; s != nil {
			s.own.Place(m.Groups, m.Span, s.own.Advance(m.Groups, m.Span, now), r.recordedAt, r.recordedAt, c)
		}
		u.push(ownGroup{
			first: r.recordedAt, last: r.recordedAt, Counts: c,
			inSpell: a.spell != nil, backdated: now - r.recordedAt,
		})
		u.open = false
	default:
		a.view.Record(m.Groups, m.Span, now, c)
		if s := a.spell; s != nil {
			s.own.Record(m.Groups, m.Span, s.own.Advance(m.Groups, m.Span, now), c)
		}
		if u.open && u.openAt >= a.view.First() {
			g := &u.groups[len(u.groups)-1]
			g.last = now
			g.Admitted += c.Admitted
			g.Declined += c.Declined
			break
		}
		u.push(ownGroup{first: now, last: now, Counts: c, inSpell: a.spell != nil})
		u.open, u.openAt = true, now
	}
	if r != nil {
		g := &u.groups[len(u.groups)-1]
		g.reserved = append(g.reserved, r)
	}
}
