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
	charged uint64 // admitted in groups that the lease is charged for
}

// ownGroup is a group of events of this account.
type ownGroup struct {
	first, last int64
	window.Counts
	reserved []*Reserved // calls among them whose cost may change
	inSpell  bool        // they happened in the present spell
	charged  bool        // the lease is charged for them: no message has told of them
	told     bool        // a message told of them, so the ledger may have them already: see merge
	// For so long before they happened, at least, they are recorded: they were reserved until their expiry.
	backdated int64
}

const (
	// maxUnsettled bounds the groups that are to be settled. Beyond it, two of them become one.
	maxUnsettled = 16
	// maxKept bounds the groups of a window that the holder keeps. A window of a hundred buckets fits.
	maxKept = 128
	// maxTold bounds the groups of a message.
	maxTold = 32
	// maxApart is how far apart two groups are that become one, where there are many.
	maxApart = 4
)

// push adds a group.
func (u *unsettled) push(g ownGroup) {
	most := maxUnsettled
	if g.charged && (len(u.groups) == 0 || u.groups[len(u.groups)-1].charged) {
		most = maxKept
	}
	for len(u.groups)-u.sent >= most && u.merge() {
	}
	u.groups = append(u.groups, g)
}

// coarsen makes about maxTold groups of those of a window: neighbours become one, but for reservations. No
// message may be under way.
func (u *unsettled) coarsen() {
	each := (len(u.groups) + maxTold - 1) / maxTold
	if each < 2 {
		return
	}
	n := 0
	for i := range u.groups {
		g := &u.groups[i]
		last := n - 1
		if i%each != 0 && g.backdated == 0 && u.groups[last].backdated == 0 &&
			u.groups[last].inSpell == g.inSpell {
			u.join(&u.groups[last], g)
			continue
		}
		u.groups[n] = *g
		n++
	}
	clear(u.groups[n:])
	u.groups = u.groups[:n]
}

// uncharge has no group be charged any more: a message has told of them, or others are among them for which
// there is no lease. They must be settled.
func (u *unsettled) uncharge() {
	u.open, u.charged = false, 0
	for i := range u.groups {
		u.groups[i].charged = false
	}
}

// allCharged reports whether the lease is charged for all groups.
func (u *unsettled) allCharged() bool {
	return !slices.ContainsFunc(u.groups, func(g ownGroup) bool { return !g.charged })
}

// declined returns what was declined in all groups.
func (u *unsettled) declined() (n uint64) {
	for i := range u.groups {
		n += u.groups[i].Declined
	}
	return n
}

// merge makes one group of two that are not sent, and of which none or both are of the spell. It takes the
// two whose events then seem the least younger than they are. These are neighbours, except for reservations,
// whose groups are not in order of age. It reports whether there are two.
func (u *unsettled) merge() bool {
	u.open = false
	into, from, least := 0, 0, math.Inf(1)
	apart := len(u.groups)
	if apart > 2*maxUnsettled {
		apart = maxApart
	}
	for i := u.sent; i < len(u.groups); i++ {
		for j := i + 1; j < min(len(u.groups), i+apart); j++ {
			p, q := &u.groups[i], &u.groups[j]
			if j > i+1 && (p.told || q.told) {
				continue // the ledger skips those that it has, in their order
			}
			last := max(p.last, q.last)
			cost := float64(p.Observed())*float64(last-p.last) + float64(q.Observed())*float64(last-q.last)
			if cost < least && p.inSpell == q.inSpell {
				into, from, least = j, i, cost
			}
		}
	}
	if into == from {
		return false
	}
	u.join(&u.groups[into], &u.groups[from])
	u.groups = slices.Delete(u.groups, from, from+1)
	return true
}

// join adds the events of group p to group q.
func (u *unsettled) join(q, p *ownGroup) {
	q.first, q.last, q.Counts = min(p.first, q.first), max(p.last, q.last), q.Plus(p.Counts)
	if p.charged != q.charged {
		for _, g := range []*ownGroup{p, q} {
			if g.charged {
				u.charged -= g.Admitted
			}
		}
	}
	q.charged = p.charged && q.charged
	q.told = p.told || q.told
	q.backdated = min(p.backdated, q.backdated)
	q.reserved = append(p.reserved, q.reserved...)
}

// forget takes out groups whose events are so old that they count nowhere any more.
func (u *unsettled) forget(length, now int64) {
	n := 0
	for n < len(u.groups) && now-u.groups[n].last >= length {
		g := &u.groups[n]
		if u.settled = u.settled.Plus(g.Counts); g.charged {
			u.charged -= g.Admitted
		}
		g.lose()
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
			inSpell: a.spell != nil, backdated: now - r.recordedAt, charged: true,
		})
		u.charged += c.Admitted
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
			if g.charged {
				u.charged += c.Admitted
			}
			break
		}
		u.push(ownGroup{first: now, last: now, Counts: c, inSpell: a.spell != nil, charged: true})
		u.charged += c.Admitted
		u.open, u.openAt = true, now
	}
	if r != nil {
		g := &u.groups[len(u.groups)-1]
		g.reserved = append(g.reserved, r)
	}
}
