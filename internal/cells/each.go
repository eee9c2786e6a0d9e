package cells

import "github.com/trypema/trypema/internal/window"

// Each calls f for each cell that holds events and that begins at since or later, the oldest first: with its
// first instant, the last one at which an event of it may have happened, and what it holds. Call Advance
// first.
func (w *Window) Each(since int64, f func(first, last int64, c window.Counts)) {
	for before := w.Grid.number; before >= 0; before-- {
		first := w.first - before*w.Grid.bucket
		if first < since {
			continue
		}
		c := w.in(w.place(before))
		switch {
		case c == (window.Counts{}):
		case before == 0:
			f(first, w.last, c)
		default:
			f(first, first+w.Grid.bucket-1, c)
		}
	}
}

// Newest returns the beginning of the newest cell, and what that holds.
func (w *Window) Newest() (first int64, c window.Counts) { return w.first, w.in(int(w.at)) }

// Admit adds n admitted events at now, which must come from Advance, if the window holds no more than limit
// then. It returns how many it holds.
func (w *Window) Admit(limit uint64, now int64, n uint64) (have uint64, ok bool) {
	have = w.admitted()
	if have > limit || n > limit-have {
		return have, false
	}
	w.open(now)
	w.admit(n)
	return have + n, true
}
