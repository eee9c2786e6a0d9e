package lease

import (
	"cmp"
	"math"
	"slices"

	"github.com/trypema/trypema/internal/window"
)

// Turns divide a window that is full between the holders whose calls wait for room.
//
// A message says what one of the waiting calls costs. The holder wants that much until a later message says
// otherwise or the lease ends, so a holder that has died soon wants nothing. If no holder but the asker wants
// something, the asker gets what it always gets. Otherwise it gets what falls to it by the following rules,
// and the rest stays free until the others ask for it:
//
//   - The ledger counts what it has granted to each holder. In thought it hands out what is free, the cost of
//     one call at a time, to the holder with the lowest count. Each holder but the asker gets that once.
//   - A holder that begins to want something begins with the lowest count of those that do. A count is behind
//     the highest by two fair shares at most.
//   - All holders together get at most five quarters of the limit. At once they get a sixteenth of the capacity,
//     or a few calls of each if that is less; or what is due until the asker comes again, if that is more.
//     Without this rule, what one burst has used is free at one instant a window later, the first asker takes
//     it, and so on in every window.
//
// The answer says when the next turn of the asker comes if the others go on to want the same.
//
// The bound does not depend on any of this: an asker never gets more than is free.

const (
	turnPace      = 1.25 // of the limit: what is handed out in turns at most
	burstPart     = 16   // of the capacity, as a divisor: what is handed out in turns at once
	deficitShares = 2    // fair shares that a count is behind at most
	leastDeficit  = 2    // or this cost, if that is more
	longestTurn   = 4    // windows: what the next turn is said to be away at most
	maxWant       = 1<<15 - 1
)

// rival is a holder that wants something.
type rival struct {
	id      uint64
	granted uint64
	want    uint64
}

// before reports whether it is the turn of r before that of o.
func (r rival) before(o rival) bool {
	return r.granted < o.granted || r.granted == o.granted && r.id < o.id
}

// turn is the state of the turns when an asker comes.
type turn struct {
	me     rival
	others []rival // in the order of their turns
	amount uint64  // that the asker may get
}

// wantUnit is the unit in which Redis keeps what a holder wants.
func (a *Message) wantUnit() uint64 { return a.Capacity/maxWant + 1 }

// rivals returns the state of the turns at now, before the message of h changes it.
func (l *Ledger) rivals(s window.Span, now int64, a *Message, h *holder) (t turn) {
	if !a.Keeps {
		return t // it only gives back, or it suppresses
	}
	t.me = rival{a.Holder, h.granted, min(a.Waiting, a.Capacity)}
	if t.me.want == 0 && now-l.pacedUntil >= 2*s.Window {
		return t // no holder has wanted anything for long
	}
	for id, o := range l.holders {
		if id != a.Holder && o.want > 0 && now < o.until {
			t.others = append(t.others, rival{id, o.granted, min(o.want*a.wantUnit(), max(a.Capacity, 1))})
		}
	}
	if len(t.others) == 0 {
		return t
	}
	slices.SortFunc(t.others, func(x, y rival) int {
		return cmp.Or(cmp.Compare(x.granted, y.granted), cmp.Compare(x.id, y.id))
	})
	if h.want == 0 || now >= h.until {
		t.me.granted = max(t.me.granted, t.others[0].granted)
	}
	least := max(t.me.granted, t.others[len(t.others)-1].granted)
	least -= min(least, max(leastDeficit, deficitShares*a.Capacity/uint64(len(t.others)+1)))
	t.me.granted = max(t.me.granted, least)
	for i := range t.others {
		t.others[i].granted = max(t.others[i].granted, least)
	}
	t.amount = max(a.Near, min(a.Need, a.Capacity))
	return t
}

// take notes what the message of h wants, and what it was granted. Redis has one place for that and for what
// h keeps.
func (h *holder) take(a *Message, t *turn) {
	h.want, h.granted = 0, 0
	if a.Keeps && a.Kept == 0 && (t.me.want > 0 || len(t.others) > 0) {
		h.want = (t.me.want + a.wantUnit() - 1) / a.wantUnit()
		h.granted = min(t.me.granted, maxCount)
	}
}

// hand hands out what is free in turns. It returns what the asker gets, and when its next turn comes.
func (l *Ledger) hand(s window.Span, now int64, a *Message, t *turn, free uint64) (mine uint64, next int64) {
	n, each := uint64(len(t.others)+1), max(t.me.want, 1)
	least, most := each, each
	for _, o := range t.others {
		least, most = min(least, o.want), max(most, o.want)
	}
	per := float64(s.Window) / float64(float64(max(a.Capacity, 1))*turnPace)
	soon := math.Floor(float64(a.NearLife/2) / per) // what is due until the asker asks again
	burst := min(float64(a.Capacity/burstPart), float64(2*n)*float64(least))
	burst = max(float64(most), burst, min(soon, float64(a.Capacity)))
	paced := float64(max(l.pacedUntil, now) - now)
	if paced > float64(s.Window) { // the clock has stepped back
		paced = 0
	}
	pool := min(free, uint64(max(0, math.Floor(burst-paced/per))))
	for i, left := 0, t.amount; pool > 0 && left > 0; {
		if i < len(t.others) && t.others[i].before(t.me) {
			pool -= min(pool, t.others[i].want)
			i++
			continue
		}
		calls := min((left-1)/each+1, pool/each)
		if i < len(t.others) {
			o := t.others[i]
			until := (o.granted-t.me.granted)/each + 1 // calls until it is the turn of o
			if (o.granted-t.me.granted)%each == 0 && o.id < t.me.id {
				until--
			}
			calls = min(calls, until)
		}
		if calls == 0 {
			break // what there is stays free until there is enough for a call
		}
		cost := calls * each
		mine, pool, left, t.me.granted = mine+cost, pool-cost, left-min(left, cost), t.me.granted+cost
	}
	mine = min(mine, t.amount)
	paced += math.Ceil(float64(mine) * per)
	l.pacedUntil = now + int64(paced)

	// What must be handed out before the asker gets as much as is worth a message.
	worth := max(1, min(a.Capacity/(burstPart*n), t.amount, 2*least))
	calls := max(1, worth/each)
	last := t.me.granted + (calls-1)*each // the count with which it gets the last of it
	cost := float64(calls * each)
	for _, o := range t.others {
		if o.granted <= last {
			times := (last-o.granted)/o.want + 1
			if (last-o.granted)%o.want == 0 && o.id > t.me.id {
				times--
			}
			cost += float64(times * o.want)
		}
	}
	wait := max(1, paced+math.Ceil((cost-burst)*per), l.room(s, now, cost, float64(free-mine), float64(a.Capacity)))
	return mine, int64(min(wait, float64(longestTurn*s.Window)))
}

// room returns when so much has been handed out, of a capacity of which a part is free, if all that is handed
// out is used at once. What others have on lease they have used of late, or else they would have settled it.
func (l *Ledger) room(s window.Span, now int64, cost, free, capacity float64) float64 {
	width := float64(s.Window)
	windows := math.Floor((cost - 1) / max(capacity, 1))
	at := float64(windows * width)
	cost -= float64(windows*capacity) + free
	leased := capacity - free
	for last, c := range l.window.All(&l.groups) {
		if cost <= 0 {
			break
		}
		if cost, leased = cost-float64(c.Admitted), leased-float64(c.Admitted); cost <= 0 {
			return at + float64(last+s.Window-now)
		}
	}
	if cost <= 0 {
		return at
	}
	return at + width - float64(width/settlePart*float64(1-cost/max(leased, cost)))
}
