package window

import "math"

// Law is the suppression law at one capacity: how much to decline, given what the window holds.
//
// It aims at a rate of admissions and declines with the probability that turns the perceived load into that
// aim. In units of the limit, with x = admitted ÷ capacity, the aim is
//
//	1 + refill × (1 − x)    up to a full window: the limit, and a little more while there is room
//	(H − x) ÷ (H − 1)       beyond it: a brake that reaches 0 at the hard capacity
//
// so its fixed point is a full window. It aims at a rate and not at filling the window, because a window that
// is filled at once empties at once one window later: a burst would come back as an echo. The brake has a
// floor short of the hard capacity, so that after a burst admissions become sparse but do not pause.
//
// A window that has observed less than calm × capacity is not loaded: everything passes, bursts included.
type Law struct {
	Capacity uint64 // C
	Hard     uint64 // floor(C × HardFactor), never passed

	hardFactor float64
	slope      float64 // of the brake: 1 ÷ (H − 1)
	scale      float64 // from the load of the recent part to that of a window
}

const (
	calm   = 0.8 // share of the capacity below which an unloaded window takes everything
	refill = 0.8 // how much faster than the limit an empty window fills under load
	floor  = 0.3 // the least aim, held until the brake is below a quarter of it
	sigmas = 2   // how far a recent count may be from its mean by chance
)

const recentShare = 10 // parts of a window, of which the newest is the recent one

// Recent is the length of the part of a window whose load is taken for the present load.
func (s Span) Recent() int64 { return max(s.Window/recentShare, 1) }

// NewLaw returns the law for windows of a capacity, and a factor of at least 1.
func NewLaw(s Span, capacity uint64, factor float64) *Law {
	l := Law{
		hardFactor: factor,
		slope:      1 / (factor - 1),
		// The groups that reach into the recent part may have begun one bucket before it.
		scale: float64(s.Window) / float64(s.Recent()+s.Bucket),
	}
	l = l.At(capacity)
	return &l
}

// At returns the law for windows of another capacity. It divides nothing.
func (l Law) At(capacity uint64) Law {
	l.Capacity, l.Hard = capacity, math.MaxInt64
	if hard := float64(capacity) * l.hardFactor; hard < math.MaxInt64 {
		l.Hard = max(capacity, uint64(hard))
	}
	return l
}

// Factor returns the probability with which to decline a call of cost n, from what the window holds and what
// was observed in its recent part. It is 1 when the call would pass the hard capacity. It does not fall when
// any argument grows.
func (l *Law) Factor(c Counts, recent, n uint64) float64 {
	if !l.fits(c, n) {
		return 1
	}
	if aim, load := l.aim(c), l.load(c, recent); aim < load {
		return 1 - aim/load
	}
	return 0
}

// Sure returns the factor if that does not depend on what was observed in the recent part: of a window that
// is not loaded, and of a call that would pass the hard capacity.
func (l *Law) Sure(c Counts, n uint64) (factor float64, ok bool) {
	if !l.fits(c, n) {
		return 1, true
	}
	return 0, float64(c.Observed()) < calm*float64(l.Capacity)
}

// Calm reports whether the factor is 0.
func (l *Law) Calm(c Counts, recent, n uint64) bool {
	return l.fits(c, n) && l.aim(c) >= l.load(c, recent)
}

func (l *Law) fits(c Counts, n uint64) bool { return c.Admitted <= l.Hard && n <= l.Hard-c.Admitted }

// aim returns the admissions per window to aim at. It falls as the window fills. With H = 1 there is nothing
// between a full window and the hard capacity: the aim is unbounded, as under Absolute.
func (l *Law) aim(c Counts) float64 {
	capacity, admitted := float64(l.Capacity), float64(c.Admitted)
	if float64(c.Observed()) < calm*capacity || l.hardFactor == 1 {
		return math.Inf(1)
	}
	if admitted < capacity {
		return capacity + refill*(capacity-admitted)
	}
	brake := (l.hardFactor*capacity - admitted) * l.slope
	return max(brake, min(floor*capacity, 4*brake))
}

// load returns the perceived load per window: that of the whole window, unless what was observed in its
// recent part is more, or less, than chance explains. So a step in the load is met before the window has seen
// all of it, and the noise of a few events is not.
func (l *Law) load(c Counts, recent uint64) float64 {
	observed, r := float64(c.Observed()), float64(recent)
	if r*l.scale > observed {
		return max(observed, (r-sigmas*math.Sqrt(r))*l.scale)
	}
	return min(observed, (r+sigmas*math.Sqrt(r+1)+1)*l.scale)
}

// Factor returns the suppression factor for a call of cost n at now, which must come from Advance.
func (w *Window) Factor(g *Groups, s Span, l *Law, now int64, n uint64) float64 {
	c := w.Counts()
	if factor, ok := l.Sure(c, n); ok {
		return factor
	}
	return l.Factor(c, w.Since(g, now-s.Recent()), n)
}

// Since returns the observed events of the groups whose last event came after t.
func (w *Window) Since(g *Groups, t int64) uint64 { return w.After(g, t).Observed() }

// After returns the events of the groups whose last event came after t.
func (w *Window) After(g *Groups, t int64) Counts {
	if w.empty() || w.last <= t {
		return Counts{}
	}
	before, _ := w.bounds(g, w.searchBack(g, func(c group) bool { return c.last > t }))
	return w.upto.minus(before)
}

// Calms reports the first instant at which a call of cost n is certain to be admitted, if nothing else
// happens, and how many admitted events are left then. The factor must be above 0 now, and n at most the
// capacity.
//
// The factor only falls while nothing happens, and changes only when a group expires or leaves the recent
// part: the answer is one of those instants.
func (w *Window) Calms(g *Groups, s Span, l *Law, n uint64) (at int64, admitted uint64) {
	// What the newest group holds may be too much, whatever expires before it.
	if w.n > 0 {
		if c := w.closedAt(g, int(w.n)-1); !l.Calm(w.upto.minus(c.upto), 0, n) {
			return w.last + s.Window, 0
		}
	}
	// Which expiry brings calm at the latest? The recent part holds between nothing and all that is left.
	k := w.search(g, func(c group) bool {
		left := w.upto.minus(c.upto)
		return l.Calm(left, 0, n) && (l.Calm(left, left.Observed(), n) ||
			l.Calm(left, w.Since(g, c.last+s.Window-s.Recent()), n))
	})
	before, _ := w.bounds(g, k)
	at, admitted = w.last+s.Window, 0
	if k < int(w.n) {
		c := w.closedAt(g, k)
		at, admitted = c.last+s.Window, w.upto.Admitted-c.upto.Admitted
	}
	// Before that expiry only the recent load can fall. Does that suffice?
	left := w.upto.minus(before)
	if !l.Calm(left, 0, n) {
		return at, admitted
	}
	j := w.search(g, func(c group) bool {
		return l.Calm(left, w.upto.minus(c.upto).Observed(), n)
	})
	quiet := w.last
	if j < int(w.n) {
		quiet = w.closedAt(g, j).last
	}
	if quiet += s.Recent(); quiet < at {
		return quiet, left.Admitted
	}
	return at, admitted
}
