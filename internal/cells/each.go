package cells

// Each calls f for each cell that holds admitted events and that begins at since or later, the oldest first:
// with its first instant, the last one at which an event of it may have happened, and how many there are.
// Call Advance first.
func (w *Window) Each(since int64, f func(first, last int64, admitted uint64)) {
	for before := w.Grid.number; before >= 0; before-- {
		first := w.first - before*w.Grid.bucket
		if first < since {
			continue
		}
		n := w.in(w.place(before)).Admitted
		switch {
		case n == 0:
		case before == 0:
			f(first, w.last, n)
		default:
			f(first, first+w.Grid.bucket-1, n)
		}
	}
}

// Newest returns the beginning of the newest cell, and how many admitted events that holds.
func (w *Window) Newest() (first int64, admitted uint64) {
	return w.first, w.in(int(w.at)).Admitted
}

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
