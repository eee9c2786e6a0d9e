// Package window is the arithmetic of one key: which recorded events are still in the sliding window, how
// many they are, when there will be room again, and how much to suppress. It takes the time as an argument,
// holds no lock and does no I/O. Instants and durations are int64 in one unit that the caller chooses; a
// nanosecond for Local.
//
// # Groups
//
// Events closer together than a bucket B share a group. A group is anchored at its first event, takes events
// for less than B from there, and expires, whole, at the instant when its last event is a window W old. So an
// event is counted for at least W and for less than W + B, which is what makes the bound exact:
//
//	Let an admission happen at t. Every event admitted in (t−W, t] belongs to a group whose last event is younger than
//	W, so it is counted, and the admission left the count at no more than the capacity. Any half-open interval of
//	length W ends, at the latest, with its last admission t, and holds nothing else that was admitted than what lies
//	in (t−W, t]. So no interval of length W holds more than the capacity.
//
// Anchors are at least B apart, so a window never holds more than W/B + 2 groups.
//
// # Running counts
//
// A group stores how much had been recorded up to its end, since ever, modulo 2⁶⁴, and the window how much of
// that is gone. The sum over any run of groups is one subtraction, the oldest groups leave by one assignment,
// and both "when is there room for n" and "how many came since t" are a binary search. Nothing costs more
// with a finer bucket than the logarithm of the number of groups.
package window

import (
	"iter"
	"math"
	"math/bits"
)

// Span is what the windows of one limiter have in common.
type Span struct {
	Window int64 // W: how long an event counts
	Bucket int64 // B: how long a group takes events
}

// Counts is a number of admitted and of declined events, weighted by their cost.
type Counts struct{ Admitted, Declined uint64 }

// Observed is the sum of both. It does not wrap: see maxObserved.
func (c Counts) Observed() uint64 { return c.Admitted + c.Declined }

func (c Counts) minus(d Counts) Counts {
	return Counts{c.Admitted - d.Admitted, c.Declined - d.Declined}
}

// Plus returns the sum of both numbers.
func (c Counts) Plus(d Counts) Counts {
	return Counts{c.Admitted + d.Admitted, c.Declined + d.Declined}
}

// SumOf is the sum of two costs, or the largest cost if that is less.
func SumOf(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	return sum | -carry
}

// maxObserved is where declined events are no longer counted. With capacities of at most that, sums stay
// below 2⁶⁴.
const maxObserved = math.MaxInt64

// Window holds the live events of one key. The zero value is empty. It contains no pointer; its closed
// groups, if it has any, are in the Groups that every method must be given.
type Window struct {
	now         int64  // the latest instant at which anything changed: time does not run back behind it
	first, last int64  // first and last event of the newest group
	upto        Counts // running counts up to now
	gone        Counts // the part of upto that has expired
	closed             // the groups before the newest
}

// First returns the instant of the first event of the newest group.
func (w *Window) First() int64 { return w.first }

// Last returns the instant of the last recorded event, 0 if there was none.
func (w *Window) Last() int64 { return w.last }

// Now returns the latest instant at which anything changed.
func (w *Window) Now() int64 { return w.now }

// Counts returns what the window holds. Call Advance first.
func (w *Window) Counts() Counts { return w.upto.minus(w.gone) }

// Running returns what was ever recorded, modulo 2⁶⁴.
func (w *Window) Running() Counts { return w.upto }

// All returns the groups that the window holds, the oldest first: the last event of each, and its counts.
func (w *Window) All(g *Groups) iter.Seq2[int64, Counts] {
	return func(yield func(int64, Counts) bool) {
		if w.empty() {
			return
		}
		for i := range int(w.n) + 1 {
			before, end := w.bounds(g, i)
			last := w.last
			if i < int(w.n) {
				last = w.closedAt(g, i).last
			}
			if !yield(last, end.minus(before)) {
				return
			}
		}
	}
}

func (w *Window) empty() bool { return w.upto == w.gone }

// Advance forgets what has expired at now, and returns the instant to go on with: now, or that of the last
// change if the clock stepped back behind it, because what has expired can not come back. Amortised O(1).
//
// It writes only when something expires: callers that are denied leave the cache line of the window to each
// other.
func (w *Window) Advance(g *Groups, s Span, now int64) int64 {
	now = max(now, w.now)
	if now-w.oldest() >= s.Window {
		w.expire(g, s, now)
	}
	return now
}

func (w *Window) expire(g *Groups, s Span, now int64) {
	if w.empty() {
		return
	}
	w.now = now
	if now-w.last >= s.Window {
		w.Clear(g)
		return
	}
	k := 1 // mostly one group expires at a time, and that is one look
	if w.n > 1 && now-w.closedAt(g, 1).last >= s.Window {
		k = w.search(g, func(c group) bool { return now-c.last < s.Window })
	}
	w.gone = w.closedAt(g, k-1).upto
	w.drop(g, k)
	if w.empty() { // what is left was settled to nothing
		w.Clear(g)
	}
}

// Clear forgets everything and gives the memory back.
func (w *Window) Clear(g *Groups) {
	w.gone = w.upto
	w.release(g)
}

// Record adds events at now, which must come from Advance. It does not judge. Declined events beyond
// maxObserved are not counted.
func (w *Window) Record(g *Groups, s Span, now int64, c Counts) { w.RecordGroup(g, s, now, now, c) }

// RecordGroup records events of which the first happened at first, and the last at last, which is not before
// the last event of the window. They are together with its newest group if all of both are within a bucket.
func (w *Window) RecordGroup(g *Groups, s Span, first, last int64, c Counts) {
	c.Declined = min(c.Declined, maxObserved-min(w.Counts().Observed(), maxObserved))
	if c == (Counts{}) {
		return
	}
	if w.empty() {
		w.first = first
	} else if last-w.first >= s.Bucket && last > w.last { // no two groups end at one instant
		w.close(g, s, last)
		w.first = first
	}
	w.now, w.last = max(w.now, last), last
	w.upto = w.upto.Plus(c)
}

// Backdate returns the instant at which to record an event that happens at an instant, so that it leaves the
// window after a life. A life of 0 is that of any event: a window.
func (s Span) Backdate(at, life int64) int64 {
	if life <= 0 || life >= s.Window {
		return at
	}
	return at - (s.Window - life)
}

// grain is how much longer than necessary an event of the past may count, beside that it may join a group: a
// bucket, or an eighth of what is left of its life if that is less.
func (s Span) grain(now, at int64) int64 {
	if now-at < s.Bucket {
		return s.Bucket
	}
	return min(s.Bucket, max(1, (at+s.Window-now)/8))
}

// Place records events of the past, of which the first happened at first, and the last at last. now must come
// from Advance. Events that are a window old are not recorded. O(groups since).
//
// They join the newest group, if it had begun by then, or the first group that ends at last or later, if it
// ends less than a bucket later. Otherwise they are a group of their own, which takes other events that are
// as old. So an event leaves the window no sooner than it is a window old, and less than a bucket later, and
// Settle finds it.
func (w *Window) Place(g *Groups, s Span, now, first, last int64, c Counts) {
	first, last = min(first, now), min(last, now)
	c.Declined = min(c.Declined, maxObserved-min(w.Counts().Observed(), maxObserved))
	if c == (Counts{}) || now-last >= s.Window {
		return
	}
	w.now = now
	grain := s.grain(now, last)
	if w.empty() || last > w.last {
		w.RecordGroup(g, Span{s.Window, grain}, first, last, c)
		return
	}
	if last >= w.first && w.last-last < s.Bucket {
		w.upto = w.upto.Plus(c)
		return
	}
	i := w.search(g, func(c group) bool { return c.last >= last })
	end := w.first - 1 // of the new group, at most: no event of a later group is before that
	if i < int(w.n) {
		after := w.closedAt(g, i).last
		if after-last < s.Bucket {
			w.change(g, i, c)
			return
		}
		end = after - s.Bucket
	}
	before, _ := w.bounds(g, i)
	w.insert(g, s, i, group{max(last, min(last+grain-1, end)), before})
	w.change(g, i, c)
}

// change adds to the counts of group i. Admitted events are modulo 2⁶⁴, to take some back. O(groups since).
func (w *Window) change(g *Groups, i int, c Counts) {
	w.upto = w.upto.Plus(c)
	if i == int(w.n) {
		return
	}
	w.fit(g, Counts{w.Counts().Admitted, c.Declined})
	for ; i < int(w.n); i++ {
		e := w.closedAt(g, i)
		e.upto = e.upto.Plus(c)
		w.pack(w.at(g, i), e)
	}
}

// Commit makes a call that was recorded at from with a cost of was count as one of cost is that was admitted
// at an instant, at now. What was recorded less than a window ago is taken back, as far as it is there, and
// the new cost is placed, unless it is a window old by now. It returns how much was taken back, and how much
// was added. Call Advance first. O(groups since).
//
// A call that was deleted is not told from others that were recorded less than a bucket later. Beside groups
// of a longer bucket, the group that is found may be an earlier one than its own, or the call is taken for
// deleted. Then the old cost counts for longer than it must, never shorter.
func (w *Window) Commit(g *Groups, s Span, now, from, at int64, was, is uint64) (removed, added uint64) {
	i, there := w.find(g, s, now, from)
	if there {
		before, end := w.bounds(g, i)
		removed = min(was, end.Admitted-before.Admitted)
	}
	if now-at < s.Window {
		added = min(is, maxObserved-min(w.Counts().Observed()-removed, maxObserved))
	}
	switch {
	case !there:
		w.Place(g, s, now, at, at, Counts{Admitted: added})
	case from == at:
		w.change(g, i, Counts{Admitted: added - removed})
	default:
		w.change(g, i, Counts{Admitted: -removed})
		if w.empty() {
			w.Clear(g)
		}
		w.Place(g, s, now, at, at, Counts{Admitted: added})
	}
	if w.empty() {
		w.Clear(g)
	}
	return removed, added
}

// find returns the group of an event that was recorded at an instant, and whether it is there, at now.
func (w *Window) find(g *Groups, s Span, now, at int64) (i int, there bool) {
	if w.empty() || at > w.last || now-at >= s.Window { // then its group may have expired, and others may be near
		return 0, false
	}
	i = w.search(g, func(c group) bool { return c.last >= at })
	last := w.last
	if i < int(w.n) {
		last = w.closedAt(g, i).last
	}
	return i, last-at < s.Bucket // or none so early is in this group: the event was deleted
}

// Open describes a window that is not empty to those who want to add events to its newest group and Join
// their sum later: until when that is as good as to Record each, and, unless the newest group is the oldest
// too, when the oldest expires and how many admitted events go with it.
func (w *Window) Open(g *Groups, s Span) (closes, expires int64, oldest uint64) {
	closes = w.first + s.Bucket
	if w.n == 0 {
		return closes, 0, 0
	}
	expires = w.oldest() + s.Window
	return min(closes, expires), expires, w.closedAt(g, 0).upto.Admitted - w.gone.Admitted
}

// Join adds admitted events, the last of them at an instant before closing, to the newest group.
func (w *Window) Join(last int64, admitted uint64) {
	w.now = max(w.now, last)
	w.last = max(w.last, last)
	w.upto.Admitted += admitted
}

// Fits reports when the admitted events will be at most limit, if nothing else happens, and how many are left
// then. They must be more than limit now.
func (w *Window) Fits(g *Groups, s Span, limit uint64) (at int64, admitted uint64) {
	need := w.Counts().Admitted - limit
	i := w.search(g, func(c group) bool { return c.upto.Admitted-w.gone.Admitted >= need })
	if i == int(w.n) {
		return w.last + s.Window, 0
	}
	c := w.closedAt(g, i)
	return c.last + s.Window, w.upto.Admitted - c.upto.Admitted
}

// Keep says which events Resize keeps.
type Keep uint8

// The sides: Newest drops the oldest events and adds to the newest, Oldest the reverse.
const (
	Newest Keep = iota
	Oldest
)

// Replace makes the window one group of total admitted events at now, which must come from Advance. The total
// must not be 0.
func (w *Window) Replace(g *Groups, s Span, now int64, total uint64) {
	w.Clear(g)
	w.Record(g, s, now, Counts{Admitted: total})
}

// Resize makes the observed total equal to total: it drops events from the side that is not kept, or adds
// admitted ones to the group at the side that is. A group that is cut to kept of its count events keeps
// floor(declined × kept / count) declined ones. The window must not be empty, total not 0.
func (w *Window) Resize(g *Groups, s Span, total uint64, keep Keep) {
	have := w.Counts().Observed()
	switch {
	case total >= have && keep == Newest:
		w.upto.Admitted += total - have
	case total >= have:
		w.fit(g, Counts{Admitted: total})
		w.gone.Admitted -= total - have
	case keep == Newest:
		w.dropOldest(g, have-total)
	default:
		w.dropNewest(g, s, total)
	}
}

func (w *Window) dropOldest(g *Groups, drop uint64) {
	// The first group that ends with more than drop is the first that stays, perhaps cut.
	i := w.search(g, func(c group) bool { return c.upto.minus(w.gone).Observed() > drop })
	before, end := w.bounds(g, i)
	kept := cut(end.minus(before), end.minus(w.gone).Observed()-drop)
	w.gone = end.minus(kept)
	if i == int(w.n) {
		w.release(g)
		return
	}
	w.drop(g, i)
}

func (w *Window) dropNewest(g *Groups, s Span, total uint64) {
	// The first group that ends with total or more is the last that stays, perhaps cut.
	i := w.search(g, func(c group) bool { return c.upto.minus(w.gone).Observed() >= total })
	before, end := w.bounds(g, i)
	kept := cut(end.minus(before), total-before.minus(w.gone).Observed())
	if i < int(w.n) {
		w.last = w.closedAt(g, i).last
		w.first = w.last - s.Bucket // it was closed, and stays so
	}
	w.upto = Counts{before.Admitted + kept.Admitted, before.Declined + kept.Declined}
	if i == 0 {
		w.release(g)
		return
	}
	w.truncate(i)
}

// bounds returns the running counts before and at the end of group i; group n is the newest.
func (w *Window) bounds(g *Groups, i int) (before, end Counts) {
	before, end = w.gone, w.upto
	if i > 0 {
		before = w.closedAt(g, i-1).upto
	}
	if i < int(w.n) {
		end = w.closedAt(g, i).upto
	}
	return before, end
}

// cut reduces a group to kept of its events.
func cut(c Counts, kept uint64) Counts {
	declined := MulDiv(c.Declined, kept, c.Observed())
	return Counts{kept - declined, declined}
}

// MulDiv returns floor(a × b / c) without overflow, for a ≤ c.
func MulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	q, _ := bits.Div64(hi, lo, c)
	return q
}
