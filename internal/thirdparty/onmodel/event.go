package onmodel

import (
	"time"

	"github.com/trypema/trypema"
)

// record is what is known of a window of a key.
type record struct {
	events []*event
	judged []*event  // which the bound has to hold
	seen   time.Time // when it was looked at last
	twin   *twin     // of a fleet that is calm
	loose  bool      // the groups of the twin need not be those of the provider any more
}

// span is a number that is not known for certain.
type span struct{ low, high uint64 }

// event is a call that was recorded, from some instant to another.
type event struct {
	at                 place
	from, to           time.Time
	by                 *member
	admitted, declined span
	charged            uint64 // against the bound
	fallback           bool
	synced             bool      // the ledger has it
	late               time.Time // no later than this it was settled, if it is synced
	crowd              bool      // so many calls were not settled that groups may have been taken together
	cut                bool      // it may have been deleted since

	life   time.Duration // of a reservation with an expiry that is not settled: so long it counts for certain; or 0
	unsure bool          // it may be settled after all
}

// counts is how long an event counts for certain, and at most, but for what it may be late.
func (e *event) counts() (least, most time.Duration) {
	least, most = e.at.window, e.at.window
	if e.life > 0 {
		least = e.life
		if !e.unsure && !e.crowd {
			most = e.life
		}
	}
	return least, most
}

// promise is a reservation that can still be settled.
type promise struct {
	*trypema.Reservation
	decision trypema.Decision
	by       *member
	key      string
	events   []*event
	estimate uint64
	expires  time.Time // or zero
}

// clockError is the part of its age, as a divisor, by which an event is taken for younger when it is settled.
const clockError = 1000

// pendingGroups is how many groups an instance holds apart until they are settled.
const pendingGroups = 16

// enter notes an event, under the lock.
func (f *Fleet) enter(e *event) {
	r := f.record(e.at)
	r.events = append(r.events, e)
	if e.charged > 0 {
		r.judged = append(r.judged, e)
	}
	apart, last := 0, time.Time{}
	for _, o := range r.events {
		if o.by == e.by && !o.synced && !o.to.Equal(last) {
			apart, last = apart+1, o.to
		}
	}
	if apart < pendingGroups {
		return
	}
	for _, o := range r.events {
		o.crowd = o.crowd || o.by == e.by && !o.synced
	}
}

// counts are what a window holds for an instance that looks at it from one instant to another: all that it
// must see, and all that may be there. An instance must see what it has recorded itself, and what the ledger
// has.
func (f *Fleet) counts(p place, by *member, from, to time.Time) (admitted, declined span) {
	r := f.record(p)
	for _, e := range r.events {
		least, most := e.counts()
		if (e.synced || e.by == by) && to.Sub(e.from) < least-2*time.Microsecond {
			admitted.low += e.admitted.low
			declined.low += e.declined.low
		}
		if from.Sub(f.latest(p, e, from)) < most {
			admitted.high += e.admitted.high
			declined.high += e.declined.high
		}
	}
	return admitted, declined
}

// latest is the latest instant that the ledger may take an event for.
func (f *Fleet) latest(p place, e *event, now time.Time) time.Time {
	late := 2*time.Microsecond + f.Options.BucketOf(p.window) + p.window/clockError
	switch {
	case f.Calm && !e.crowd:
		return e.to.Add(late)
	case e.synced:
		return e.late.Add(late)
	}
	return now.Add(late)
}

// sync notes that the ledger has all of an instance in a window, under the lock.
func (r *record) sync(by *member, from, to time.Time) {
	for _, e := range r.events {
		if e.by == by && !e.synced && !e.to.After(from) {
			e.synced, e.late = true, to
		}
	}
}

// lost notes that what an instance had not settled in a window may be there or not.
func (r *record) lost(by *member) {
	for _, e := range r.events {
		if e.by == by && !e.synced {
			e.admitted.low, e.declined.low, e.cut = 0, 0, true
		}
	}
}

// doubt notes that anything may have been deleted; the judges begin anew.
func (r *record) doubt() {
	for _, e := range r.events {
		e.admitted.low, e.declined.low, e.cut = 0, 0, true
	}
	r.judged, r.loose = nil, true
}

// expire tells the judges of the bound which reservations have expired. Whoever has them recorded knows it by
// itself.
func (f *Fleet) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.promises {
		if !p.expires.IsZero() && !p.expires.After(time.Now()) {
			f.note(p.key, "the reservation of %q at %v expired", p.key, p.events[0].to.Sub(f.began))
			p.expires = time.Time{}
			for _, e := range p.events {
				if e.life > 0 {
					e.charged = 0
				}
			}
		}
	}
}
