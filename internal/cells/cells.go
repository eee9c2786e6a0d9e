package cells

import (
	"math"

	"github.com/trypema/trypema/internal/table/slab"
	"github.com/trypema/trypema/internal/window"
)

// State is the window of a key, 80 bytes without a pointer. The zero value is empty.
//
// Its invariants: a cell that does not count is 0; the sum of all cells is the total; first is the beginning
// of the newest cell, and last is not before it; and the newest cell and those of the window before it have
// places of their own in the ring.
//
// While the cells are not narrow, the newest one may lack events: few more were admitted, which are in the
// total. So most calls leave the block alone, which lies elsewhere in memory. Whoever reads the block gets it
// from rows, which flushes. That happens before another cell begins, as expire reads it: nextIn is 0 then.
type State struct {
	Lock  uint32 // for whoever keeps the state: package cells leaves it alone
	at    uint8  // where in the ring the newest cell is
	width width
	few   uint16 // admitted events: all while the cells are narrow, else those that the newest cell lacks
	first int64  // the beginning of the newest cell
	last  int64  // the last event

	// While the cells are narrow, the admitted events of each, and nothing is declined. Else the block with
	// the cells, the admitted and the declined events in all, and the last answer of Fits.
	cells [Cells / perWord]uint64
}

const (
	perWord    = 16 // narrow cells
	mostNarrow = 15 // in one of them
)

const (
	blockIn = iota // indexes in State.cells of what is there if the cells are not narrow
	admittedIn
	declinedIn
	nextIn  // when the oldest events expire, or 0 if that is not known
	limitIn // 1 + the limit that Fits was asked for last, if nextIn is not 0
	atIn
	leftIn
)

// maxObserved is where declined events are no longer counted.
const maxObserved = math.MaxInt64

// Window is a state with all that its methods need. It must not be used by two goroutines at once.
type Window struct {
	*State
	Declines bool // events may be declined
	Grid     *Grid
	Memory   *Memory
}

// Last returns the instant of the last recorded event.
func (s *State) Last() int64 { return s.last }

// Counts returns what the window holds. Call Advance first.
func (s *State) Counts() window.Counts {
	if s.width == narrow {
		return window.Counts{Admitted: uint64(s.few)}
	}
	return window.Counts{Admitted: s.cells[admittedIn], Declined: s.cells[declinedIn]}
}

// Wide reports whether the cells are not narrow.
func (s *State) Wide() bool { return s.width != narrow }

func (s *State) admitted() uint64 {
	if s.width == narrow {
		return uint64(s.few)
	}
	return s.cells[admittedIn]
}

// count changes the sums.
func (s *State) count(c window.Counts) {
	if s.width == narrow {
		s.few += uint16(c.Admitted)
		return
	}
	s.cells[admittedIn] += c.Admitted
	s.cells[declinedIn] += c.Declined
	s.cells[nextIn] = 0
}

func (s *State) empty() bool { return s.Counts() == (window.Counts{}) }

// rows returns the admitted and the declined events of each cell. Where none can be declined, the second row
// has no words.
func (w *Window) rows() (admitted, declined row) {
	if w.width == narrow {
		return row{w.cells[:], w.width.log()}, row{}
	}
	w.flush()
	log, n, block := w.width.log(), w.width.words(), w.block()
	if w.Declines {
		declined = row{block[n : 2*n], log}
	}
	return row{block[:n], log}, declined
}

// class is that of the block of cells of a width.
func (w *Window) class(width width) uint8 {
	if w.Declines {
		return slab.Class(2 * width.words())
	}
	return slab.Class(width.words())
}

func (w *Window) block() []uint64 {
	return w.Memory.Block(slab.Ref(w.cells[blockIn]), w.class(w.width))
}

// place returns where in the ring the cell is that lies so many cells before the newest.
func (s *State) place(before int64) int {
	i := int(s.at) - int(before)
	if i < 0 {
		i += Cells
	}
	return i
}

// in returns what a cell holds.
func (w *Window) in(i int) window.Counts {
	if w.width == narrow {
		return window.Counts{Admitted: w.cells[i/perWord] >> (i % perWord * 4) & 15}
	}
	a, d := w.rows()
	c := window.Counts{Admitted: a.get(i)}
	if d.words != nil {
		c.Declined = d.get(i)
	}
	return c
}

// Advance forgets what has expired at now, and returns the instant to go on with: now, or that of the last
// event if the clock stepped back behind it.
func (w *Window) Advance(now int64) int64 {
	now = max(now, w.last)
	if now-w.first >= w.Grid.bucket {
		w.expire(now)
	}
	return now
}

func (w *Window) expire(now int64) {
	if w.width != narrow && now < int64(w.cells[nextIn]) || w.empty() {
		return
	}
	if now-w.last >= w.Grid.window { // the older cells ended before that event
		w.Clear()
		w.forget(now)
		return
	}
	steps := int(w.Grid.steps(w.first, now))
	from := w.place(w.Grid.number)
	if w.width == narrow {
		w.few -= uint16(w.drop(from, steps))
		return
	}
	a, d := w.rows()
	gone := window.Counts{Admitted: a.sum(from, steps, true)}
	if d.words != nil {
		gone.Declined = d.sum(from, steps, true)
	}
	w.count(window.Counts{Admitted: -gone.Admitted, Declined: -gone.Declined})
	if c := w.Counts(); w.width != narrow && c.Admitted < 8 && c.Declined == 0 {
		w.widen(narrow)
	}
}

// forget makes a window with narrow cells empty at now. A call whose clock was read before must not be
// recorded before that.
func (s *State) forget(now int64) {
	s.few, s.cells = 0, [Cells / perWord]uint64{}
	s.first, s.last = now, now
}

// drop clears so many narrow cells from one on, and returns what they held.
func (s *State) drop(i, n int) (gone uint64) {
	left, word, low := uint(n), uint(i)/perWord, uint(i)%perWord
	for left > 0 {
		here := min(left, perWord-low)
		mask := ^uint64(0) >> ((64 - here*4) & 63) << (low * 4 & 63)
		at := &s.cells[word%(Cells/perWord)]
		if x := *at & mask; x != 0 {
			gone += fold4(x)
			*at ^= x
		}
		left -= here
		if word, low = word+1, 0; word == Cells/perWord {
			word = 0
		}
	}
	return gone
}

// Clear forgets everything, and gives the memory back.
func (w *Window) Clear() {
	if w.width != narrow {
		w.Memory.Free(slab.Ref(w.cells[blockIn]), w.class(w.width))
	}
	w.width, w.few, w.cells = narrow, 0, [Cells / perWord]uint64{}
}

// widen gives the cells another width, in which all must fit.
func (w *Window) widen(to width) {
	var all [Cells]window.Counts
	for i := range all {
		all[i] = w.in(i)
	}
	counts := w.Counts()
	w.Clear()
	if to != narrow {
		w.width = to
		w.cells[blockIn] = uint64(w.Memory.Alloc(w.class(to)))
		clear(w.block())
	}
	w.count(counts)
	a, d := w.rows()
	for i, c := range &all {
		a.change(i, c.Admitted)
		if d.words != nil {
			d.change(i, c.Declined)
		}
	}
}

// Move takes what the window has in its memory to another one.
func (w *Window) Move(to *Memory) {
	if w.width != narrow {
		class := w.class(w.width)
		r := to.Alloc(class)
		copy(to.Block(r, class), w.block())
		w.Memory.Free(slab.Ref(w.cells[blockIn]), class)
		w.cells[blockIn] = uint64(r)
	}
	w.Memory = to
}

// add adds events to a cell.
func (w *Window) add(i int, c window.Counts) {
	if need := widthOf(w.in(i).Plus(c)); need > w.width {
		w.widen(need)
	}
	w.change(i, c)
}

// admit adds admitted events to the newest cell: it is add, as fast as it can be for most calls.
func (w *Window) admit(n uint64) {
	if w.width == narrow {
		word, shift := &w.cells[w.at/perWord%(Cells/perWord)], w.at%perWord*4
		if n <= mostNarrow && *word>>shift&mostNarrow+n <= mostNarrow {
			*word += n << shift
			w.few += uint16(n)
			return
		}
	} else if n <= math.MaxUint16-uint64(w.few) {
		w.few += uint16(n)
		w.cells[admittedIn] += n
		w.cells[nextIn] = 0
		return
	}
	w.add(int(w.at), window.Counts{Admitted: n})
}

// flush adds to the newest cell what it lacks.
func (w *Window) flush() {
	if n := uint64(w.few); n > 0 && w.width != narrow {
		w.few = 0
		w.cells[admittedIn] -= n
		w.add(int(w.at), window.Counts{Admitted: n})
	}
}

// change adds to a cell in which the sum fits. To take some back, it is modulo 2⁶⁴.
func (w *Window) change(i int, c window.Counts) {
	a, d := w.rows()
	a.change(i, c.Admitted)
	if d.words != nil {
		d.change(i, c.Declined)
	}
	w.count(c)
}

// open makes the cell of an instant, which is not before the newest cell, the newest.
func (w *Window) open(at int64) {
	if w.empty() {
		w.first, w.last = at, at
		return
	}
	if steps := w.Grid.steps(w.first, at); steps > 0 {
		w.at = uint8((int64(w.at) + steps) % Cells)
		w.first += steps * w.Grid.bucket
	}
	w.last = max(w.last, at)
}

// room is how many events can still be counted as declined.
func (w *Window) room() uint64 { return maxObserved - min(w.Counts().Observed(), maxObserved) }

// Record adds events at now, which must come from Advance. It does not judge. Declined events beyond
// maxObserved are not counted.
func (w *Window) Record(now int64, c window.Counts) {
	c.Declined = min(c.Declined, w.room())
	if c == (window.Counts{}) {
		return
	}
	w.open(now)
	w.add(int(w.at), c)
}

// Place records events of the past. now must come from Advance. Events that are a window old are not
// recorded.
func (w *Window) Place(now, at int64, c window.Counts) {
	at = min(at, now)
	c.Declined = min(c.Declined, w.room())
	if c == (window.Counts{}) || now-at >= w.Grid.window {
		return
	}
	if at >= w.first || w.empty() {
		w.open(at)
		w.add(int(w.at), c)
		return
	}
	w.add(w.before(at), c)
}

// before returns where the cell is of an instant before the newest cell, and less than a window before now.
func (w *Window) before(at int64) int { return w.place(w.Grid.steps(at, w.first-1) + 1) }

// Commit makes a call that was recorded at from with a cost of was count as one of cost is that was admitted
// at an instant, at now. What was recorded less than a window ago is taken back, as far as it is there, and
// the new cost is placed, unless it is a window old by now. It returns how much was taken back, and how much
// was added. Call Advance first.
//
// A call that was deleted is not told from others of its cell.
func (w *Window) Commit(now, from, at int64, was, is uint64) (removed, added uint64) {
	i, there := 0, !w.empty() && from <= w.last && now-from < w.Grid.window
	if there {
		i = int(w.at)
		if from < w.first {
			i = w.before(from)
		}
		removed = min(was, w.in(i).Admitted)
		w.change(i, window.Counts{Admitted: -removed})
	}
	if now-at < w.Grid.window {
		added = min(is, w.room())
	}
	if there && from == at {
		w.add(i, window.Counts{Admitted: added})
	} else {
		w.Place(now, at, window.Counts{Admitted: added})
	}
	if w.empty() {
		w.Clear()
	}
	return removed, added
}

// Open describes a window that is not empty to those who want to add events to its newest cell and Join their
// sum later: until when that is as good as to Record each, and when the oldest cell expires and how many
// admitted events go with it. If the newest is the oldest, expires is 0. Call Advance first.
func (w *Window) Open() (closes, expires int64, oldest uint64) {
	closes = w.first + w.Grid.bucket
	a, _ := w.rows()
	n := w.Grid.number
	if k := int64(a.zeros(w.place(n), int(n))); k < n {
		expires, oldest = w.expiry(n-k), a.get(w.place(n-k))
	}
	if expires >= w.last+w.Grid.window {
		return closes, 0, 0
	}
	return closes, expires, oldest
}

// expiry is when the cell expires that is so many before the newest.
func (w *Window) expiry(before int64) int64 {
	return w.first - (before-1)*w.Grid.bucket + w.Grid.life
}

// Join adds events, the last of them at an instant within the newest cell.
func (w *Window) Join(last int64, c window.Counts) {
	w.last = max(w.last, last)
	c.Declined = min(c.Declined, w.room())
	w.add(int(w.at), c)
}

// Fits reports when the admitted events will be at most limit, if nothing else happens, and how many are left
// then. They must be more than limit now.
//
// Of cells that are not narrow it remembers the answer until something changes, and when the next events
// expire, so that Advance does not look for them at each call: callers of a key that is over its limit ask
// the same again and again.
func (w *Window) Fits(limit uint64) (at int64, admitted uint64) {
	if w.width == narrow || w.Declines { // which expire by themselves
		at, admitted, _ = w.fits(limit)
		return at, admitted
	}
	if w.cells[nextIn] == 0 || w.cells[limitIn] != limit+1 {
		at, left, next := w.fits(limit)
		w.cells[nextIn], w.cells[limitIn], w.cells[atIn], w.cells[leftIn] = uint64(next), limit+1, uint64(at), left
	}
	return int64(w.cells[atIn]), w.cells[leftIn]
}

// fits is Fits, and reports when the oldest admitted events expire.
func (w *Window) fits(limit uint64) (at int64, admitted uint64, next int64) {
	a, _ := w.rows()
	end := w.last + w.Grid.window
	admitted, next = w.admitted(), end
	for before := w.Grid.number; before > 0; before-- {
		before -= int64(a.zeros(w.place(before), int(before)))
		if before == 0 {
			break
		}
		if at = w.expiry(before); at >= end {
			break
		}
		next = min(next, at)
		if admitted -= a.get(w.place(before)); admitted <= limit {
			return at, admitted, next
		}
	}
	return end, 0, next
}

// Replace makes the window one cell of total admitted events at now, which must come from Advance. The total
// must not be 0.
func (w *Window) Replace(now int64, total uint64) {
	w.Clear()
	w.Record(now, window.Counts{Admitted: total})
}

// Resize makes the observed total equal to total: it drops events from the side that is not kept, or adds
// admitted ones to the cell at the side that is. A cell that is cut to kept of its count events keeps
// floor(declined × kept / count) declined ones. The window must not be empty, total not 0.
func (w *Window) Resize(total uint64, keep window.Keep) {
	have := w.Counts().Observed()
	n := int(w.Grid.number)
	for k := range n + 1 {
		before := k // the newest first
		if (keep == window.Newest) == (total < have) {
			before = n - k
		}
		i := w.place(int64(before))
		c := w.in(i)
		switch {
		case c == (window.Counts{}):
			continue
		case total >= have:
			w.add(i, window.Counts{Admitted: total - have})
			return
		}
		drop := min(have-total, c.Observed())
		kept := c.Observed() - drop
		declined := window.MulDiv(c.Declined, kept, c.Observed())
		w.change(i, window.Counts{Admitted: kept - declined - c.Admitted, Declined: declined - c.Declined})
		if have -= drop; have == total {
			return
		}
	}
}

// Set makes the state equal to another one, but for its lock.
func (s *State) Set(o *State) {
	s.at, s.width, s.few, s.first, s.last, s.cells = o.at, o.width, o.few, o.first, o.last, o.cells
}

// Reset makes the state empty, but for its lock. It must have been cleared.
func (s *State) Reset() { s.Set(new(State)) }

// First is the beginning of the newest cell.
func (s *State) First() int64 { return s.first }
