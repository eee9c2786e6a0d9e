package cells

import (
	"sort"

	"github.com/trypema/trypema/internal/window"
)

// Outlook is what becomes of a window under Suppressed while only its newest cell changes: for a key that is
// open to callers without a lock.
type Outlook struct {
	Counts window.Counts // what the window holds
	Recent uint64        // what was observed in the recent part of it

	window, bucket, recent int64 // of the grid; the last as a time
	edges                  []edge
}

// edge is an instant at which a cell begins, and what has left by then.
type edge struct {
	at   int64
	gone window.Counts // has expired
	old  uint64        // has left the recent part
}

// Outlook describes a window of which the last event was at now, in the newest cell.
func (w *Window) Outlook(now int64) *Outlook {
	g := w.Grid
	o := &Outlook{
		Counts: w.Counts(), Recent: w.Recent(now),
		window: g.window, bucket: g.bucket, recent: g.recent * g.bucket,
		edges: make([]edge, g.number),
	}
	var e edge
	for i := range o.edges {
		e.at = w.first + int64(i+1)*g.bucket
		if before := g.recent - int64(i); before > 0 {
			e.old += w.in(w.place(before)).Observed()
		}
		e.gone = e.gone.Plus(w.in(w.place(g.number - int64(i))))
		o.edges[i] = e
	}
	return o
}

// Calms is that of Window, after events were added to the newest cell, the last of them at an instant. hint
// is what it has returned the last time, or any other number, and is what to pass the next time. It is a
// floor if it was returned for no more events and no higher cost: the answer is not before it then, as
// nothing becomes calm by more events.
//
// Whether the call is certain to pass changes at the edges, and once between two of them, when the newest
// cell leaves the recent part. It does not change back, so the answer is found by looking at the hint and the
// instant before it, or by a search.
func (o *Outlook) Calms(
	l *window.Law, more window.Counts, last int64, n uint64, hint int, floor bool,
) (at int64, admitted uint64, next int) {
	all, recent := o.Counts.Plus(more), o.Recent+more.Observed()
	end, quiet := last+o.window, last+o.recent
	parts := int(o.recent / o.bucket)
	instants := len(o.edges) // the edges, and quiet among them
	if quiet < end {
		instants++
	}
	state := func(k int) (at int64, c window.Counts, of uint64) {
		e := &o.edges[k-min(1, k/parts)] // from quiet on, the edge before
		at = e.at
		switch {
		case k < parts:
			of = recent - e.old
		case k == parts:
			at = quiet
		}
		return at, window.Counts{
			Admitted: all.Admitted - e.gone.Admitted,
			Declined: all.Declined - e.gone.Declined,
		}, of
	}
	calm := func(k int) bool {
		if k >= instants {
			return true
		}
		at, c, of := state(k)
		return at >= end || l.Calm(c, of, n)
	}
	if hint < 0 || hint > instants || !calm(hint) || hint > 0 && !floor && calm(hint-1) {
		hint = sort.Search(instants, calm)
	}
	if hint < instants {
		if at, c, _ := state(hint); at < end {
			return at, c.Admitted, hint
		}
	}
	return end, 0, hint
}
