// Package model has the naive twins of packages window and cells: lists that only ever grow, and loops over
// all of them. They are slow and obviously right, and judge the real ones in tests.
package model

import (
	"math"
	"slices"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/window"
)

type group struct {
	first, last int64
	window.Counts
	closed bool // another group has followed it
	gone   bool // nothing was left when it was looked at
}

// Twin is the history of one key.
type Twin struct {
	window.Span      // that of whoever asks next
	Splits      bool // two groups may end at one instant, as in the version before
	groups      []group
	now         int64 // of the call that is being judged
	changed     int64 // when anything was recorded or expired last
}

// advance keeps time from running back behind a change.
func (t *Twin) advance(now int64) int64 {
	t.now = max(t.changed, now)
	if len(t.live(t.now)) != len(t.live(t.changed)) {
		t.changed = t.now
	}
	t.forget()
	return t.now
}

// forget makes gone what is left when that was settled to nothing.
func (t *Twin) forget() {
	if t.sum(t.now) == (window.Counts{}) {
		for i := range t.groups {
			t.groups[i].gone = true
		}
	}
}

// live returns the groups that have not expired at an instant.
func (t *Twin) live(at int64) []group {
	var live []group
	for _, g := range t.groups {
		if at-g.last < t.Window && !g.gone {
			live = append(live, g)
		}
	}
	return live
}

func (t *Twin) sum(at int64) (sum window.Counts) {
	for _, g := range t.live(at) {
		sum = sum.Plus(g.Counts)
	}
	return sum
}

func (t *Twin) room() uint64 { return math.MaxInt64 - min(math.MaxInt64, t.sum(t.now).Observed()) }

// recent sums what was observed in the live groups that reach into the recent part of the window.
func (t *Twin) recent(at int64) (observed uint64) {
	for _, g := range t.live(at) {
		if at-g.last < t.Recent() {
			observed += g.Observed()
		}
	}
	return observed
}

func (t *Twin) record(c window.Counts) {
	c.Declined = min(c.Declined, t.room())
	if c == (window.Counts{}) {
		return
	}
	t.changed = t.now
	if len(t.live(t.now)) > 0 {
		newest := &t.groups[len(t.groups)-1]
		if !newest.closed && (t.now-newest.first < t.Bucket || t.now == newest.last && !t.Splits) {
			newest.last, newest.Counts = t.now, newest.Plus(c)
			return
		}
		newest.closed = true
	}
	t.groups = append(t.groups, group{first: t.now, last: t.now, Counts: c})
}

// edges are the instants at which anything changes by itself.
func (t *Twin) edges() (all []int64) {
	for _, g := range t.groups {
		all = append(all, g.last+t.Window, g.last+t.Recent())
	}
	return all
}

// Absolute is window.Window.Absolute.
func (t *Twin) Absolute(capacity uint64, now int64, n uint64, record bool) window.Verdict {
	return absolute(t, capacity, now, n, record)
}

// Suppressed is window.Window.Suppressed.
func (t *Twin) Suppressed(l *window.Law, now int64, n uint64, dice float64, record bool) window.Verdict {
	return suppressed(t, l, now, n, dice, record)
}

// Record enters events that others have judged.
func (t *Twin) Record(now int64, c window.Counts) {
	t.advance(now)
	t.record(c)
}

// Counts returns what is live.
func (t *Twin) Counts(now int64) window.Counts {
	t.advance(now)
	return t.sum(t.now)
}

// Last returns the instant of the last recorded event.
func (t *Twin) Last() int64 {
	if len(t.groups) == 0 {
		return 0
	}
	return t.groups[len(t.groups)-1].last
}

// Place is window.Window.Place, for events at one instant.
func (t *Twin) Place(now, at int64, c window.Counts) {
	t.advance(now)
	t.place(at, c)
}

func (t *Twin) place(at int64, c window.Counts) {
	at = min(at, t.now)
	live := t.live(t.now)
	c.Declined = min(c.Declined, t.room())
	if c == (window.Counts{}) || t.now-at >= t.Window {
		return
	}
	t.changed = t.now
	grain := t.Bucket
	if t.now-at >= t.Bucket {
		grain = min(grain, max(1, (at+t.Window-t.now)/8))
	}
	alone := group{first: at, last: at, Counts: c}
	if len(live) == 0 {
		t.groups = append(t.groups, alone)
		return
	}
	dead := len(t.groups) - len(live) // they are all before the live ones
	begins := func(newest *group) int64 {
		if newest.closed { // others were behind it
			return newest.last - t.Bucket
		}
		return newest.first
	}
	for i := range live {
		g := &t.groups[dead+i]
		newest := i == len(live)-1
		if !newest {
			// The newest group takes what seems to come after its beginning. If it was cut, it may seem to
			// have begun before the end of the group before.
			if n := &t.groups[len(t.groups)-1]; at > g.last || at >= begins(n) && n.last-at < t.Bucket {
				continue
			}
		}
		first := begins(g)
		switch {
		case at > g.last && (g.closed || at-first >= grain):
			g.closed = true
			t.groups = append(t.groups, alone)
		case at > g.last, (at >= first || !newest) && g.last-at < t.Bucket:
			g.last, g.Counts = max(g.last, at), g.Plus(c)
		default:
			alone.closed = true
			end := g.last - t.Bucket
			if newest {
				end = first - 1
			}
			alone.last = max(at, min(at+grain-1, end))
			t.groups = slices.Insert(t.groups, dead+i, alone)
		}
		return
	}
}

// Commit is window.Window.Commit.
func (t *Twin) Commit(now, from, at int64, was, is uint64) (removed, added uint64) {
	t.advance(now)
	for i := range t.groups {
		g := &t.groups[i]
		if t.now-g.last >= t.Window || g.gone || from > g.last || t.now-from >= t.Window {
			continue
		}
		if g.last-from >= t.Bucket {
			break
		}
		removed = min(was, g.Admitted)
		g.Admitted -= removed
		if from == at { // the group may be empty now, but it is there
			added = min(is, t.room())
			g.Admitted += added
			is = 0
		}
		t.forget()
		break
	}
	if t.now-at < t.Window && is > 0 {
		added = min(is, t.room())
		t.place(at, window.Counts{Admitted: added})
	}
	return removed, added
}

// Delete forgets everything.
func (t *Twin) Delete() { t.groups, t.changed = nil, 0 }

// Replace makes the history one group of total events now.
func (t *Twin) Replace(now int64, total uint64) {
	t.advance(now)
	t.groups = nil
	t.record(window.Counts{Admitted: total})
}

// Resize makes the live total equal to total, which is not 0, by changing the groups from one side.
func (t *Twin) Resize(now int64, total uint64, keep window.Keep) {
	t.advance(now)
	live := t.live(t.now)
	if t.sum(t.now).Observed() == total {
		return
	}
	if keep == window.Newest {
		slices.Reverse(live)
	}
	// From here on the groups to keep come first.
	var kept []group
	for _, g := range live {
		if total == 0 {
			break
		}
		total -= shrink(&g.Counts, total)
		kept = append(kept, g)
	}
	kept[0].Admitted += total
	if keep == window.Newest {
		slices.Reverse(kept)
	}
	if newest := &kept[len(kept)-1]; newest.closed {
		// It takes no more by this bucket, but may by a longer one.
		newest.first, newest.closed = newest.last-t.Bucket, false
	}
	t.groups = kept
}

// history is what both kinds of twin are judged by.
type history interface {
	advance(now int64) int64
	sum(at int64) window.Counts
	recent(at int64) uint64
	edges() []int64
	Record(now int64, c window.Counts)
}

func absolute(t history, capacity uint64, now int64, n uint64, record bool) window.Verdict {
	now = t.advance(now)
	fits := func(at int64) bool {
		have := t.sum(at).Admitted
		return have <= capacity && n <= capacity-have
	}
	v := window.Verdict{Allowed: fits(now)}
	if v.Allowed && record {
		t.Record(now, window.Counts{Admitted: n})
	}
	return told(t, v, now, fits)
}

func suppressed(t history, l *window.Law, now int64, n uint64, dice float64, record bool) window.Verdict {
	now = t.advance(now)
	v := window.Verdict{Factor: 1}
	if n <= l.Capacity {
		v.Factor = l.Factor(t.sum(now), t.recent(now), n)
	}
	v.Allowed = dice >= v.Factor
	if record && v.Allowed {
		t.Record(now, window.Counts{Admitted: n})
	} else if record {
		t.Record(now, window.Counts{Declined: n})
	}
	return told(t, v, now, func(at int64) bool {
		return n <= l.Capacity && l.Calm(t.sum(at), t.recent(at), n)
	})
}

// told adds what is there now and, if the call was denied, how long it takes until pass holds: it tries every
// instant at which anything changes by itself.
func told(t history, v window.Verdict, now int64, pass func(at int64) bool) window.Verdict {
	v.Now = t.sum(now).Admitted
	v.Then = v.Now
	if v.Allowed {
		return v
	}
	instants := t.edges()
	slices.Sort(instants)
	for _, at := range instants {
		if at > now && pass(at) {
			v.Wait, v.Then = at-now, t.sum(at).Admitted
			return v
		}
	}
	v.Wait, v.Then = window.Never, 0
	return v
}

// shrink makes counts such that they are at most n, with the same part of them declined, and returns how many
// they are.
func shrink(c *window.Counts, n uint64) uint64 {
	have := c.Observed()
	if n >= have {
		return have
	}
	c.Declined = window.MulDiv(c.Declined, n, have)
	c.Admitted = n - c.Declined
	return n
}

// Of is a twin of either kind.
type Of interface {
	Absolute(capacity uint64, now int64, n uint64, record bool) window.Verdict
	Suppressed(l *window.Law, now int64, n uint64, dice float64, record bool) window.Verdict
	Record(now int64, c window.Counts)
	Counts(now int64) window.Counts
	Last() int64
	Place(now, at int64, c window.Counts)
	Commit(now, from, at int64, was, is uint64) (removed, added uint64)
	Delete()
	Replace(now int64, total uint64)
	Resize(now int64, total uint64, keep window.Keep)
}

// OfLocal returns a twin for Local, and what the suppression law of its windows is made with. It has cells,
// or groups if a window has too many buckets.
func OfLocal(s window.Span) (Of, window.Span) {
	grid, ok := cells.New(s.Window, s.Bucket)
	if !ok {
		return &Twin{Span: s}, s
	}
	return &Grid{Window: s.Window, Cell: grid.Bucket()}, grid.Span()
}
