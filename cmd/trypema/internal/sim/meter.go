package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/window"
)

// meter watches a world: what was decided, and what that took. What is said of the settled part is of all but
// the first window.
type meter struct {
	setup
	from    int64 // where the settled part begins
	law     *window.Law
	span    window.Span
	coins   *rand.Rand
	windows window.Groups // of the reference
	keys    []tally

	all, late total
	abandoned uint64 // calls that waited when their instance was killed
	fallback  uint64 // decided without Redis
	waits     latency.Histogram
	by        []uint64 // admissions of the settled part, by instance
	fullest   int
}

// total is what became of a number of calls, and what that took.
type total struct {
	offered, admitted, declined, waited uint64
	reference                           uint64 // what the reference admitted
	first                               uint64 // calls to the first instance
	exchanges, settlements              uint64
}

// tally is what a meter knows of one key.
type tally struct {
	admitted recent
	exact    recent        // an event log that hears of the same calls: the reference of Absolute
	alone    window.Window // one window that hears of the same calls: the reference of Suppressed
	last     int64         // admission; 0 before the first
	pause    int64         // without an admission
	calm     int64         // the same, in the settled part
	bin      int64         // the part of the settled part that has counted so much so far
	count    float64
	sum      float64 // of the counts of earlier bins, and of their squares
	squares  float64
}

// bin is the time over which the smoothness of admissions is judged.
const bin = 100 * time.Millisecond

func newMeter(w *world) *meter {
	return &meter{
		setup: w.setup,
		from:  w.terms.Window,
		law:   w.law,
		span:  w.terms.Span,
		coins: rand.New(rand.NewPCG(uint64(w.Seed), 4)),
		keys:  make([]tally, len(w.keys)),
		waits: latency.NewHistogram(),
		by:    make([]uint64, w.Instances),
	}
}

// offered notes that an instance hears of a call, and asks the reference.
func (m *meter) offered(now int64, i *instance, key int32) {
	k := &m.keys[key]
	admitted := false
	if m.law != nil {
		var v window.Verdict
		k.alone.Suppressed(&v, &m.windows, m.span, m.law, now, 1, m.coins.Float64(), true)
		admitted = v.Allowed
	} else if admitted = k.exact.count(now, m.span.Window) < int(m.capacity); admitted {
		k.exact.add(now)
	}
	m.count(now, func(t *total) {
		t.offered++
		if i.index == 0 {
			t.first++
		}
		if admitted {
			t.reference++
		}
	})
}

func (m *meter) count(now int64, add func(*total)) {
	add(&m.all)
	if now >= m.from {
		add(&m.late)
	}
}

// decided notes what becomes of a call.
func (m *meter) decided(now int64, i *instance, key int32, c call, admitted, fallback bool) {
	m.count(now, func(t *total) {
		if admitted {
			t.admitted++
		} else {
			t.declined++
		}
		if c.waited {
			t.waited++
		}
	})
	if c.waited {
		m.waits.Record(time.Duration(now - c.made))
	}
	if fallback {
		m.fallback++
	}
	if admitted {
		m.admit(now, i, &m.keys[key])
	}
}

func (m *meter) admit(now int64, i *instance, k *tally) {
	n := k.admitted.count(now, m.span.Window) + 1
	k.admitted.add(now)
	m.fullest = max(m.fullest, n)
	k.paused(now, m.from)
	if now < m.from {
		return
	}
	m.by[i.index]++
	if b := (now - m.from) / int64(bin); b != k.bin {
		k.close()
		k.bin = b
	}
	k.count++
}

// paused notes that there was no admission since the last one.
func (k *tally) paused(now, from int64) {
	k.pause = max(k.pause, now-k.last)
	k.calm = max(k.calm, now-max(k.last, from))
	k.last = now
}

// close ends a bin.
func (k *tally) close() {
	k.sum += k.count
	k.squares += k.count * k.count
	k.count = 0
}

// end closes the books.
func (m *meter) end(now int64) {
	for n := range m.keys {
		k := &m.keys[n]
		k.paused(now, m.from)
		if int64(m.bins(now)) > k.bin {
			k.close()
		}
	}
}

// bins is how many whole bins the settled part has.
func (m *meter) bins(now int64) int { return int(max(0, now-m.from) / int64(bin)) }

// variation is the coefficient of variation of the admissions per bin, on average over keys, and what it
// would be by chance alone; NaN when there were none.
func (m *meter) variation(now int64) (measured, chance float64) {
	n := float64(m.bins(now))
	keys := 0.0
	for i := range m.keys {
		k := &m.keys[i]
		if mean := k.sum / n; mean > 0 {
			measured += math.Sqrt(max(0, k.squares/n-mean*mean)) / mean
			chance += 1 / math.Sqrt(mean)
			keys++
		}
	}
	return measured / keys, chance / keys
}

// recent is the instants of one window, the oldest first: a ring.
type recent struct {
	ring  []int64 // its length is a power of two
	first int
	n     int
}

// count returns how many of the instants are younger than a window.
func (r *recent) count(now, window int64) int {
	for r.n > 0 && now-r.ring[r.first] >= window {
		r.first = (r.first + 1) & (len(r.ring) - 1)
		r.n--
	}
	return r.n
}

// add appends an instant, which must not be before the last one.
func (r *recent) add(now int64) {
	if r.n == len(r.ring) {
		ring := make([]int64, max(8, 2*len(r.ring)))
		for i := range r.n {
			ring[i] = r.ring[(r.first+i)&(len(r.ring)-1)]
		}
		r.ring, r.first = ring, 0
	}
	r.ring[(r.first+r.n)&(len(r.ring)-1)] = now
	r.n++
}
