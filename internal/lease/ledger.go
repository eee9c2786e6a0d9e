package lease

import "github.com/trypema/trypema/internal/window"

// Ledger is the ledger of one key, in Go. It does what settle.lua does in Redis; TestLedger of
// internal/thirdparty/onredis holds the two equal. The zero value is empty. Times are in µs.
//
// Its invariant: it grants no more than the capacity of the message, less what the window holds and what is
// on lease to all holders. Nothing guards it: one goroutine at a time may use it.
type Ledger struct {
	groups  window.Groups
	window  window.Window
	holders map[uint64]*holder

	pacedUntil int64 // when all that was granted in turns is due, or when a holder wanted something last
}

// holder is what the ledger knows of one holder.
type holder struct {
	seq    uint64
	used   window.Counts // settled, in all
	amount uint64        // on lease
	kept   uint64        // of that, what it had admitted and not settled when it was heard last
	until  int64         // when the lease ends

	want    uint64 // cost of a call that waits, in units: see rivals
	granted uint64 // what it was granted while calls waited
}

// Settle takes the message of a holder at now, and answers.
func (l *Ledger) Settle(s window.Span, now, farLife int64, a Message) Answer {
	h := l.holders[a.Holder]
	if h == nil {
		h = &holder{used: a.Base}
	}
	if a.Seq <= h.seq {
		return Answer{Stale: true}
	}
	now = l.advance(s, now, a.Holder)
	t := l.rivals(s, now, &a, h)
	if l.holders == nil {
		l.holders = make(map[uint64]*holder)
	}
	l.holders[a.Holder] = h
	h.seq = a.Seq
	out := Answer{Before: l.window.Running(), Now: now, Next: -1}
	unused := h.amount - min(h.amount, a.Hold)
	done := excess(h.used, a.Base)
	h.used = a.Base
	for _, g := range a.Groups {
		h.used = h.used.Plus(g.Counts)
		c := excess(g.Counts, done)
		done = excess(done, g.Counts)
		unused -= min(unused, c.Admitted)
		if g.Age < s.Window {
			l.window.Place(&l.groups, s, now, now-g.Age-g.Span, now-g.Age, c)
		}
	}
	out.After = l.window.Running()
	for other, o := range l.holders {
		if other != a.Holder {
			if out.Others += o.amount; a.Count {
				out.Kept += o.kept
			}
		}
	}
	out.Live = l.window.Counts()
	taken := out.Live.Admitted + out.Others + a.Hold
	until := now
	t.me.granted -= min(t.me.granted, unused)
	if len(t.others) > 0 {
		out.Grant, out.Next = l.hand(s, now, &a, &t, a.Capacity-min(a.Capacity, taken))
		out.Life = a.NearLife + min(out.Next, s.Window/settlePart)
		until += a.NearLife + out.Next // it wants something until it asks again
	} else {
		out.Grant, out.Life, out.Far, out.Lone = a.grant(room{
			taken: taken, others: out.Others,
			alone: len(l.holders) == 1, window: s.Window, farLife: farLife,
		})
		if t.me.want > 0 {
			until += s.Window + s.Window/settlePart
		}
		t.me.granted += out.Grant
	}
	if a.Lone && a.Kept > 0 {
		h.used.Declined = 0 // Redis has one place for that and for what the holder keeps
	}
	until = max(until, now+out.Life)
	if a.Hold > 0 {
		until = max(until, now+a.HoldLife)
	}
	h.amount, h.kept, h.until = a.Hold+out.Grant, a.Kept, until
	h.take(&a, &t)
	if h.want > 0 {
		l.pacedUntil = max(l.pacedUntil, now)
	}
	if out.Whole = a.Whole; a.Whole {
		out.Groups = groupsOf(&l.window, &l.groups, now)
	}
	return out
}

// advance forgets what has expired, leases included, but for that of one holder.
func (l *Ledger) advance(s window.Span, now int64, but uint64) int64 {
	now = l.window.Advance(&l.groups, s, now)
	for id, h := range l.holders {
		if id != but && now >= h.until+s.Window {
			delete(l.holders, id)
		}
	}
	return now
}

// Live returns what the window holds at now, and what is on lease.
func (l *Ledger) Live(s window.Span, now int64) (c window.Counts, leased uint64) {
	l.advance(s, now, 0)
	for _, h := range l.holders {
		leased += h.amount
	}
	return l.window.Counts(), leased
}

// Set makes what the window holds equal to total, as trypema.Limiter.Set does. What is on lease stays
// charged.
func (l *Ledger) Set(s window.Span, now int64, total uint64, keep window.Keep, replace bool) {
	w, g := &l.window, &l.groups
	now = w.Advance(g, s, now)
	have := w.Counts().Observed()
	switch {
	case total == 0:
		w.Clear(g)
	case replace || have == 0:
		w.Replace(g, s, now, total)
	default:
		w.Resize(g, s, total, keep)
	}
}

// Commit makes a call that was recorded at from count is, and not was, from when it was admitted on. It takes
// what commit.lua takes, one by one: see Commit of package window.
func (l *Ledger) Commit(s window.Span, now, from, at int64, was, is uint64) (removed, added uint64) {
	return l.window.Commit(&l.groups, s, l.window.Advance(&l.groups, s, now), from, at, was, is)
}

// excess is by how much numbers exceed others.
func excess(a, b window.Counts) window.Counts {
	return window.Counts{
		Admitted: a.Admitted - min(a.Admitted, b.Admitted),
		Declined: a.Declined - min(a.Declined, b.Declined),
	}
}

func groupsOf(w *window.Window, g *window.Groups, now int64) (out []Group) {
	for last, c := range w.All(g) {
		out = append(out, Group{now - last, 0, c})
	}
	return out
}

// room is what a grant depends on beside the message.
type room struct {
	taken   uint64 // settled, on lease to others, or held by the holder itself
	others  uint64 // on lease to others
	alone   bool   // the ledger knows no other holder
	window  int64
	farLife int64 // the longest life of a lease far from the limit
}

// A key whose holders keep windows is far from its limit while more is left than its reserve: the startPart
// of its capacity, as a divisor, but no more than startCost; or the largePart of it, if that is more. What
// holders have goes on until all but the goOnPart of the reserve is taken: others may want what they can do
// without.
//
// A window lease near the limit is a few calls more than what its window holds. Of a large capacity that is
// enough for seconds, and a message in every interval would be for nothing. Of a small one it is less than
// what chance brings in an interval, so calls would wait: see reserve.
const (
	startPart = 20
	startCost = 50
	largePart = 125
	goOnPart  = 3
	newPart   = 4 // for holders whose demand is not known: until that part of the capacity is taken
)

// reserve is how much of a capacity is left when a key is near its limit. From 1000 on it is a smaller part:
// eight instances that use 0.95 of 10,000 in 10 s then send about a third of the messages. With less in
// reserve, more calls wait at 1000, or less than 0.97 of the limit is used where the load moves.
func reserve(capacity uint64) uint64 {
	return max(capacity/largePart, min(capacity/startPart, startCost))
}

// atStake is the part of what a window holds, as a divisor, that a window lease keeps from others at most if
// its holder falls silent: the larger it is, the shorter it lives.
const atStake = 16

// grant returns how much is leased to a holder, for how long, and whether that is far from the limit, or even
// a window lease that only a holder without others may have.
func (a *Message) grant(r room) (amount uint64, life int64, far, lone bool) {
	free := a.Capacity - min(a.Capacity, r.taken)
	need := uint64(0)
	if a.Need <= free+a.Hold-min(a.Hold, a.Kept) { // or they get nothing by it
		need = min(a.Need, free)
	}
	if lone = a.Lone && r.alone; a.Keeps || lone {
		if amount, life, far = a.keep(r, free, need); far {
			return amount, life, true, lone
		}
	} else {
		// A quarter is far from the limit. It is half of what is left of that, so that no lease brings the
		// limit near by itself.
		calm := a.Capacity / 4
		calm -= min(calm, r.taken)
		if amount = max(min(a.Far, (calm+1)/2), need); calm > 0 && amount <= calm {
			return amount, r.farLife, true, false
		}
	}
	share := free
	if r.others > 0 {
		share = (free + 1) / 2
	}
	return max(min(a.Near, share), need), a.NearLife, false, false
}

// keep returns what is leased to a holder that keeps a window, and for how long, if the key is far from its
// limit. Who is alone gets three quarters of what is free, then all of it. What is small lives for as long as
// leases do.
func (a *Message) keep(r room, free, need uint64) (amount uint64, life int64, far bool) {
	calm := a.Capacity - reserve(a.Capacity)
	calm -= min(calm, r.taken)
	if a.New { // others may be, too, and none knows what it needs
		calm = a.Capacity/newPart - min(a.Capacity/newPart, r.taken)
	}
	share := (calm + 1) / 2
	if r.alone {
		calm, share = free, free
		if a.Hold == 0 {
			share = free - free/4
		}
	}
	if amount = min(a.Far, share); amount < need && need <= calm {
		amount = need
	}
	all := a.Hold + amount
	most := a.Capacity - reserve(a.Capacity)/goOnPart
	if !r.alone && (r.taken > most || amount < need || all < a.FarLeast) || all == 0 {
		return 0, 0, false
	}
	return amount, windowLife(all, a.Capacity, r.window, r.farLife, a.Brief), true
}

// windowLife returns how long a window lease of so much of a capacity lives.
func windowLife(all, capacity uint64, window, far, brief int64) int64 {
	if all <= capacity/smallPart {
		return far
	}
	life := int64(min(float64(window)*float64(capacity)/float64(atStake*all), float64(far)))
	return max(life, min(brief, far))
}
