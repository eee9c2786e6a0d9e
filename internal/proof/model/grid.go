package model

import (
	"math"
	"slices"

	"github.com/trypema/trypema/internal/window"
)

// Grid is the naive twin of package cells: a list of cells, and loops over all of it.
type Grid struct {
	Window, Cell int64 // how long an event counts, and a cell is
	cells        []cell
	origin       int64 // the beginning of cell 0
	newest       int64 // the number of the newest cell
	last         int64 // the last event
	now          int64 // of the call that is being judged
}

type cell struct {
	number int64
	window.Counts
}

// after is how long a cell is counted after its end.
func (t *Grid) after(part int64) int64 { return (part + t.Cell - 1) / t.Cell * t.Cell }

func (t *Grid) numberOf(at int64) int64 {
	n := (at - t.origin) / t.Cell
	if at < t.origin+n*t.Cell {
		n--
	}
	return n
}

func (t *Grid) end(c cell) int64 { return t.origin + (c.number+1)*t.Cell }

func (t *Grid) live(at int64) (live []cell) {
	for _, c := range t.cells {
		if at-t.last < t.Window && (c.number == t.newest || at < t.end(c)+t.after(t.Window)) {
			live = append(live, c)
		}
	}
	return live
}

func (t *Grid) sum(at int64) (sum window.Counts) {
	for _, c := range t.live(at) {
		sum = sum.Plus(c.Counts)
	}
	return sum
}

// recent sums what was observed in the cells that reach into the recent part of the window.
func (t *Grid) recent(at int64) (observed uint64) {
	part := t.after(window.Span{Window: t.Window}.Recent())
	for _, c := range t.live(at) {
		if at-t.last < part && (c.number == t.newest || at < t.end(c)+part) {
			observed += c.Observed()
		}
	}
	return observed
}

// advance forgets what has expired for good, even if the clock steps back.
func (t *Grid) advance(now int64) int64 {
	t.now = max(now, t.last)
	had := slices.ContainsFunc(t.cells, func(c cell) bool { return c.Counts != window.Counts{} })
	t.cells = t.live(t.now)
	if had && t.now-t.last >= t.Window {
		t.last = t.now // or a call whose clock was read before could be recorded before what has expired
	}
	return t.now
}

// at returns the cell of an instant, which is there from now on.
func (t *Grid) at(at int64) *cell {
	if t.sum(t.now) == (window.Counts{}) {
		t.cells, t.origin, t.newest, t.last = nil, at, 0, at
	}
	number := t.numberOf(at)
	if number >= t.newest {
		t.newest, t.last = number, max(t.last, at)
	}
	i, found := slices.BinarySearchFunc(t.cells, number, func(c cell, n int64) int { return int(c.number - n) })
	if !found {
		t.cells = slices.Insert(t.cells, i, cell{number: number})
	}
	return &t.cells[i]
}

func (t *Grid) record(at int64, c window.Counts) {
	c.Declined = min(c.Declined, t.room())
	if c == (window.Counts{}) || t.now-at >= t.Window {
		return
	}
	x := t.at(at)
	x.Counts = x.Plus(c)
}

func (t *Grid) room() uint64 { return math.MaxInt64 - min(math.MaxInt64, t.sum(t.now).Observed()) }

// edges are the instants at which anything changes by itself.
func (t *Grid) edges() []int64 {
	part := t.after(window.Span{Window: t.Window}.Recent())
	all := []int64{t.last + part, t.last + t.Window}
	for _, c := range t.cells {
		all = append(all, t.end(c)+part, t.end(c)+t.after(t.Window))
	}
	return all
}

// Absolute is cells.Window.Absolute.
func (t *Grid) Absolute(capacity uint64, now int64, n uint64, record bool) window.Verdict {
	return absolute(t, capacity, now, n, record)
}

// Suppressed is cells.Window.Suppressed.
func (t *Grid) Suppressed(l *window.Law, now int64, n uint64, dice float64, record bool) window.Verdict {
	return suppressed(t, l, now, n, dice, record)
}

// Record enters events that others have judged.
func (t *Grid) Record(now int64, c window.Counts) {
	t.advance(now)
	t.record(t.now, c)
}

// Counts returns what is live.
func (t *Grid) Counts(now int64) window.Counts {
	t.advance(now)
	return t.sum(t.now)
}

// Last returns the instant of the last recorded event.
func (t *Grid) Last() int64 { return t.last }

// Clone returns a copy.
func (t *Grid) Clone() *Grid {
	c := *t
	c.cells = slices.Clone(t.cells)
	return &c
}

// Touch makes the last event of the newest cell one at an instant.
func (t *Grid) Touch(at int64) { t.last = max(t.last, min(at, t.origin+(t.newest+1)*t.Cell-1)) }

// Place is cells.Window.Place.
func (t *Grid) Place(now, at int64, c window.Counts) {
	t.advance(now)
	t.record(min(at, t.now), c)
}

// Commit is cells.Window.Commit.
func (t *Grid) Commit(now, from, at int64, was, is uint64) (removed, added uint64) {
	t.advance(now)
	there := t.sum(t.now) != (window.Counts{}) && from <= t.last && t.now-from < t.Window
	var in *cell
	if there {
		for i := range t.cells {
			if t.cells[i].number == t.numberOf(from) {
				in = &t.cells[i]
				removed = min(was, in.Admitted)
				in.Admitted -= removed
			}
		}
	}
	if t.now-at < t.Window {
		added = min(is, t.room())
	}
	switch {
	case there && from == at && in != nil: // the cell may be empty now, but it is there
		in.Admitted += added
	default:
		t.record(min(at, t.now), window.Counts{Admitted: added})
	}
	return removed, added
}

// Delete forgets everything.
func (t *Grid) Delete() { *t = Grid{Window: t.Window, Cell: t.Cell} }

// Replace makes the history one cell of total events now.
func (t *Grid) Replace(now int64, total uint64) {
	t.advance(now)
	t.cells = nil
	t.record(t.now, window.Counts{Admitted: total})
}

// Resize makes the live total equal to total, which is not 0, by changing the cells from one side.
func (t *Grid) Resize(now int64, total uint64, keep window.Keep) {
	t.advance(now)
	t.cells = slices.DeleteFunc(t.cells, func(c cell) bool { return c.Observed() == 0 })
	if keep == window.Newest {
		slices.Reverse(t.cells)
	}
	// From here on the cells to keep come first.
	for i := range t.cells {
		total -= shrink(&t.cells[i].Counts, total)
	}
	t.cells[0].Admitted += total
	if keep == window.Newest {
		slices.Reverse(t.cells)
	}
}
