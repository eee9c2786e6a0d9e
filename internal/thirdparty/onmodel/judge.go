package onmodel

import (
	"math"
	"slices"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// life is how long a lease lives, at most, and is kept by an instance that nobody asks: far from its limit,
// when there is so much to do, or answers take so long, that keys settle once in a window, or if it is one of
// a few calls, for 60 intervals.
func (f *Fleet) life(w time.Duration) time.Duration {
	return 5*time.Second + 8*w + 20*f.Options.Timeout + 3*70*f.Options.SyncInterval
}

// bound is what a window may hold of which the first call was made at an instant or later: the capacity, or
// the highest of those that leases were granted for which somebody may still have, and so much again for each
// time that the server has forgotten these.
func (f *Fleet) bound(w time.Duration, from time.Time) uint64 {
	c, times := f.capacity[w], uint64(1)
	for _, r := range f.rates {
		if r.window == w && r.at.After(from.Add(-f.life(w))) {
			c = max(c, r.was)
		}
	}
	for _, at := range f.forgets {
		if at.After(from.Add(-f.life(w))) {
			times++
		}
	}
	if f.suppressed() {
		c = uint64(float64(c) * f.Options.HardLimitFactor)
	}
	return c * times
}

// checkBound judges what was admitted, by all or, where each decides alone, by each.
func (f *Fleet) checkBound(p place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.record(p)
	since := r.seen.Add(-p.window)
	r.judged = slices.DeleteFunc(r.judged, func(e *event) bool { return e.to.Before(since) })
	r.seen = time.Now()
	bound := f.bound(p.window, since)
	judge := func(whose string, pick func(*event) bool) {
		var log []anywindow.Admission
		for _, e := range r.judged {
			if e.charged > 0 && pick(e) {
				log = append(log, anywindow.Admission{From: e.from, To: e.to, Cost: e.charged})
			}
		}
		if len(log) == 0 {
			return
		}
		most := anywindow.Most(log, p.window)
		f.Figures.Bounds++
		f.Figures.Share = max(f.Figures.Share, float64(most)/float64(bound))
		if most == bound {
			f.Figures.Full++
		}
		if most > bound {
			f.fault("%s: %d of %q in a window of %v, of at most %d", whose, most, p.key, p.window, bound)
		}
	}
	switch f.Options.OnFailure {
	case redislimit.FailClosed:
		judge("all", func(*event) bool { return true })
	case redislimit.FailLocal:
		for _, m := range slices.Concat(f.members, f.dead) {
			judge(m.name, func(e *event) bool { return e.by == m })
		}
		if f.Options.Instances >= f.named && !f.apart {
			judge("the policy", func(e *event) bool { return e.fallback })
		}
	}
}

// lag is how late a lone instance may notice that there is room.
func (f *Fleet) lag(w time.Duration) time.Duration {
	interval := f.Options.SyncInterval
	if w > f.Options.Window {
		interval *= 3
	}
	return f.Options.BucketOf(w) + w/clockError + 2*max(interval, time.Millisecond) + 10*time.Millisecond
}

// checkTwins judges the answer of a lone instance by the twins, under the lock.
func (f *Fleet) checkTwins(verb string, c call, windows []time.Duration, d trypema.Decision) {
	var remaining []uint64
	least := uint64(math.MaxUint64)
	most, known, all := 0., true, true
	wait := int64(0)
	excused, edge := false, false
	for _, w := range windows {
		p, capacity := place{c.key, w}, f.capacity[w]
		r := f.record(p)
		f.refresh(p, r)
		known = known && !r.loose && f.Options.BucketOf(w) <= w/4 && f.Options.BucketOf(w)%time.Microsecond == 0
		law := window.NewLaw(r.twin.Span, capacity, f.Options.HardLimitFactor)
		var v window.Verdict
		if f.suppressed() {
			v = r.twin.Suppressed(law, f.now(), c.cost, math.Nextafter(1, 0), false)
			most = max(most, v.Factor)
			if v.Allowed {
				v.Wait = 0
			}
		} else {
			v = r.twin.Absolute(capacity, f.now(), c.cost, false)
		}
		all, wait = all && v.Allowed, max(wait, v.Wait)
		// What there may be in the ledger still.
		held, bound := uint64(0), capacity
		if f.suppressed() {
			bound = law.Hard
		}
		for _, e := range r.events {
			// Where groups were taken together, an event may be taken for one as late as its settlement.
			least, most := e.counts()
			if age := time.Since(e.to); age < most+f.lag(w) || e.crowd && age < 3*w {
				held += e.admitted.high
				edge = edge || age >= least
			}
		}
		excused = excused || held+c.cost > bound
		if d.Allowed && !c.peek {
			held += c.cost
		}
		least = min(least, window.Room(capacity, held))
		if !c.peek {
			switch {
			case d.Allowed:
				r.twin.Place(f.now(), r.twin.Backdate(f.now(), int64(c.expiry)),
					window.Counts{Admitted: c.cost})
			case f.suppressed():
				r.twin.Record(f.now(), window.Counts{Declined: c.cost})
			}
		}
		remaining = append(remaining, window.Room(capacity, r.twin.Counts(f.now()).Admitted))
	}
	if !known {
		return
	}
	f.Figures.Twins++
	switch {
	case d.Allowed && !all:
		f.fault("%s of %q, cost %d: %+v, and the twin denies", verb, c.key, c.cost, d)
	case !d.Allowed && all && most == 0 && !excused && (!edge || !f.suppressed()): // what has just expired may count
		f.fault("%s of %q, cost %d: %+v, and the twin has admitted it for %v", verb, c.key, c.cost, d,
			f.lag(windows[0]))
	case !slices.Contains(remaining, d.Remaining) && (!edge || d.Remaining < least || d.Remaining > slices.Max(remaining)):
		f.fault("%s of %q, cost %d: %+v, and of the twins %v remain", verb, c.key, c.cost, d, remaining)
	case d.Allowed && !edge && d.SuppressionFactor != most:
		f.fault("%s of %q, cost %d: %+v, and the factor is %v", verb, c.key, c.cost, d, most)
	case !d.Allowed && !f.suppressed() && wait > 0 && len(windows) == 1 &&
		(int64(d.RetryAfter) < wait || wait != window.Never && int64(d.RetryAfter) > wait+int64(f.lag(windows[0]))):
		f.fault("%s of %q, cost %d: %+v, and the twin says %v", verb, c.key, c.cost, d, time.Duration(wait))
	}
}

// refresh begins a twin anew, once nothing is left of what it does not know.
func (f *Fleet) refresh(p place, r *record) {
	if r.loose && !slices.ContainsFunc(r.events, func(e *event) bool { return time.Since(e.to) < 3*p.window }) {
		r.loose = false
		r.twin.Delete()
	}
}
