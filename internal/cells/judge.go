package cells

import "github.com/trypema/trypema/internal/window"

// Take judges a call of cost n at now, and records it, if it is what most calls are: one that fits, of a
// window whose cells are narrow and stay so. It returns the admitted events from then on, and whether a cell
// has begun. For any other call it reports false, and has forgotten no more than what has expired.
func (s *State) Take(g *Grid, capacity uint64, now int64, n uint64) (have uint64, began, ok bool) {
	if s.width != narrow || n > mostNarrow {
		return 0, false, false
	}
	now = max(now, s.last)
	before, at, steps := s.first, int64(s.at), int64(0)
	have = uint64(s.few)
	if now-before >= g.bucket && have > 0 {
		if now-s.last >= g.window {
			s.forget(now)
			have = 0
		} else {
			steps = g.steps(before, now)
			have -= s.drop(s.place(g.number), int(steps))
			s.few = uint16(have)
		}
	}
	first := before
	switch {
	case have > capacity || n > capacity-have:
		return 0, false, false
	case have == 0:
		first = now
	case steps > 0:
		first += steps * g.bucket
		at = (at + steps) % Cells
	}
	word, shift := &s.cells[at/perWord%(Cells/perWord)], at%perWord*4
	if *word>>shift&mostNarrow+n > mostNarrow {
		return 0, false, false
	}
	*word += n << shift
	have += n
	s.few, s.at, s.first, s.last = uint16(have), uint8(at), first, now
	return have, first != before, true
}

// TakeWide is Take for a window whose cells are not narrow. For a call that does not fit it reports false,
// and has forgotten no more than what has expired.
func (w *Window) TakeWide(capacity uint64, now int64, n uint64) (have uint64, began, ok bool) {
	before := w.first
	have, ok = w.Admit(capacity, w.Advance(now), n)
	return have, w.first != before, ok
}

// Absolute judges a call of cost n at now, and records it if it is admitted and record is set.
func (w *Window) Absolute(v *window.Verdict, capacity uint64, now int64, n uint64, record bool) {
	now = w.Advance(now)
	have := w.admitted()
	v.Now = have
	v.Allowed = have <= capacity && n <= capacity-have
	switch {
	case v.Allowed:
		if record {
			w.open(now)
			w.admit(n)
			v.Now = have + n
		}
		v.Then = v.Now
	case n > capacity:
		v.Wait = window.Never
	default:
		var at int64
		at, v.Then = w.Fits(capacity - n)
		v.Wait = at - now
	}
}

// Suppressed judges a call of cost n at now by a throw of the dice, a number in [0, 1), and records it,
// admitted or declined, if record is set.
func (w *Window) Suppressed(
	v *window.Verdict, l *window.Law, now int64, n uint64, dice float64, record bool,
) {
	now = w.Advance(now)
	w.Throw(v, l, now, n, dice)
	c := window.Counts{Declined: n}
	if v.Allowed {
		c = window.Counts{Admitted: n}
	}
	if record {
		w.Record(now, c)
	}
	w.Tell(v, l, now, n)
}

// Throw is the first half of Suppressed: whether the call passes, at now, which must come from Advance.
func (w *Window) Throw(v *window.Verdict, l *window.Law, now int64, n uint64, dice float64) {
	v.Factor = 1
	if n <= l.Capacity {
		v.Factor = w.Factor(l, now, n)
	}
	v.Allowed = dice >= v.Factor
}

// Tell is the second half: what is there once the call is recorded, and the wait from then on.
func (w *Window) Tell(v *window.Verdict, l *window.Law, now int64, n uint64) {
	v.Now = w.admitted()
	switch {
	case v.Allowed:
		v.Then = v.Now
	case n > l.Capacity:
		v.Wait = window.Never
	default:
		var at int64
		at, v.Then = w.Calms(l, now, n)
		v.Wait = at - now
	}
}

// Factor returns the suppression factor for a call of cost n at now, which must come from Advance.
func (w *Window) Factor(l *window.Law, now int64, n uint64) float64 {
	c := w.Counts()
	if factor, ok := l.Sure(c, n); ok {
		return factor
	}
	return l.Factor(c, w.Recent(now), n)
}

// Recent returns the observed events of the cells that reach into the recent part of the window at now.
func (w *Window) Recent(now int64) (observed uint64) {
	if w.empty() || now-w.last >= w.Grid.recent*w.Grid.bucket {
		return 0
	}
	// The older cells leave that part one by one, whenever a cell begins.
	k := max(0, w.Grid.recent-w.Grid.steps(w.first, now)) + 1
	a, d := w.rows()
	from := w.place(k - 1)
	observed = a.sum(from, int(k), false)
	if d.words != nil {
		observed += d.sum(from, int(k), false)
	}
	return observed
}

// Calms reports the first instant at which a call of cost n is certain to be admitted, if nothing else
// happens, and how many admitted events are left then. The factor must be above 0 now, and n at most the
// capacity.
//
// The factor only falls while nothing happens. It changes only when a cell begins, as another one expires or
// leaves the recent part of the window then, and once between two of them, when the newest cell leaves the
// recent part. So the answer is one of those instants, and is searched for.
func (w *Window) Calms(l *window.Law, now int64, n uint64) (at int64, admitted uint64) {
	g := w.Grid
	end, quiet := w.last+g.window, w.last+g.recent*g.bucket
	all, recent := w.Counts(), w.Recent(now)
	steps := g.steps(w.first, now)
	a, d := w.rows()
	sum := func(before, cells int64) (c window.Counts) {
		if cells > 0 {
			c.Admitted = a.sum(w.place(before), int(cells), false)
			if d.words != nil {
				c.Declined = d.sum(w.place(before), int(cells), false)
			}
		}
		return c
	}
	instants := int(g.number - steps)      // when a cell begins,
	between := int(max(0, g.recent-steps)) // and quiet, after so many of them
	if quiet > now && quiet < end {
		instants++
	} else {
		between = instants
	}
	at, admitted = end, 0
	var done, oldDone int64 // cells whose sums are known
	var gone window.Counts
	var old uint64
	for low, high := 0, instants; low < high; {
		k := int(uint(low+high) >> 1)
		cells, then := int64(k), quiet // so many have expired by then
		if k != between {
			if k < between {
				cells++
			}
			then = w.first + (steps+cells)*g.bucket
		}
		left := gone.Plus(sum(g.number-steps-done, cells-done))
		olds, past, of := oldDone, old, uint64(0)
		if k < between {
			olds = max(0, min(cells, g.recent-steps))
			past += sum(g.recent-steps-oldDone, olds-oldDone).Observed()
			of = recent - past
		}
		c := window.Counts{Admitted: all.Admitted - left.Admitted, Declined: all.Declined - left.Declined}
		switch {
		case then >= end:
			high = k
		case l.Calm(c, of, n):
			at, admitted, high = then, c.Admitted, k
		default:
			low, gone, done, old, oldDone = k+1, left, cells, past, olds
		}
	}
	return at, admitted
}
