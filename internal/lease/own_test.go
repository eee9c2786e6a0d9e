package lease_test

import (
	"sort"
	"testing"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// TestWindowOfKey: callers use all of the window of a key, whatever the clock of the instance is. They admit
// what the account would have, within a bucket, and the account knows of all of it afterwards.
func TestWindowOfKey(t *testing.T) {
	for _, clock := range []int64{-500, 0, 500} {
		var admitted [2]int
		for with, lends := range []bool{false, true} {
			w := newWorld(1, 1, 1000, false)
			w.pace.Far, w.pace.Brief, w.lends = 5*w.terms.Window, 5*w.terms.Window, lends
			a := w.accounts[0]
			a.fast = clock
			for w.now = 1000; w.now < 20*w.terms.Window; w.now += 500 {
				w.call(0, 1)
				w.settle(func() int64 { return 100 })
			}
			if most := w.most(); most > 1000 || most < 990 {
				t.Errorf("clock %d, lends %v: %d admitted in a window of at most 1000", clock, lends, most)
			}
			if part := float64(w.taken) / float64(len(w.admitted)); lends != (part > .5) {
				t.Errorf("clock %d, lends %v: the window of the key admitted %.2f of all", clock, lends, part)
			}
			admitted[with] = len(w.admitted)
			// A message that settles has all that the ledger has not, and the window holds.
			w.network, w.now = nil, w.now+10
			a.Lost()
			a.MustTell()
			answer := w.ledger.Settle(w.terms.Span, w.now, 1, a.Message(w.at(a), 0, lease.Nothing))
			recent := uint64(0)
			for _, c := range w.admitted {
				if c.To.UnixMicro() > w.now-w.terms.Window {
					recent += c.Cost
				}
			}
			if have := answer.Live.Admitted; have < recent || have > recent+60 {
				t.Errorf("clock %d, lends %v: the ledger has %d, and %d were admitted", clock, lends, have, recent)
			}
		}
		if least := admitted[0] * 98 / 100; admitted[1] < least {
			t.Errorf("clock %d: %d admitted with the window of the key, %d without", clock, admitted[1], admitted[0])
		}
	}
}

// TestWindowOfKeyInBursts: what was admitted at one instant leaves the window of a key not sooner than it is
// a window old, by whatever clock.
func TestWindowOfKeyInBursts(t *testing.T) {
	for _, clock := range []int64{-500, 0, 500} {
		w := newWorld(1, 1, 1000, false)
		w.pace.Far, w.pace.Brief, w.lends = 50*w.terms.Window, 50*w.terms.Window, true
		w.accounts[0].fast = clock
		settle := func() { w.settle(func() int64 { return 100 }) }
		for w.now = 1000; len(w.admitted) < 100 || w.now < 2*w.terms.Window; w.now += 500 {
			if len(w.admitted) < 100 {
				w.call(0, 1)
			}
			settle()
		}
		for range 5 {
			for w.accounts[0].Leased() < 900 { // it has the rest
				w.call(0, 1)
				w.now += 10
				settle()
			}
			for range 900 {
				w.call(0, 1)
			}
			for at := w.now; w.now < at+w.terms.Window+2000; w.now += 50 {
				if w.now > at+w.terms.Window-400 { // a fast clock shows a window by then
					for w.call(0, 1).Allowed {
					}
				}
				settle()
			}
			w.now += w.terms.Window
		}
		if most := w.most(); most > 1000 {
			t.Errorf("clock %d: %d admitted in a window of at most 1000", clock, most)
		}
		if w.taken < 1000 {
			t.Errorf("clock %d: the window of the key admitted %d", clock, w.taken)
		}
	}
}

// TestSuppressedWindowOfKey: under Suppressed, callers of a holder that is alone decide all calls in the
// window of the key, whatever the clock of the instance is. The factor is always that of all that happened in
// a window, give or take some buckets. The ledger hears of what was admitted and of what was declined.
func TestSuppressedWindowOfKey(t *testing.T) {
	for _, clock := range []int64{-500, 0, 500} {
		for _, capacity := range []uint64{1, 20, 1000} {
			for _, load := range []float64{.3, 1.2, 3, 60} {
				if load > 3 && capacity > 100 {
					continue // it takes long
				}
				w := newWorld(1, 1, capacity, true)
				w.pace.Far, w.pace.Brief, w.lends = 5*w.terms.Window, w.terms.Window, true
				a := w.accounts[0]
				a.fast = clock
				calls, outside, all := 0, 0, observed{}
				w.judged = func(v *lease.Decision) {
					low, high := all.factors(w)
					if calls++; v.Factor < low || v.Factor > high {
						outside++
						t.Logf("at %d, %v: factor %.4f, want %.4f to %.4f", w.now, v.Allowed, v.Factor, low, high)
					}
					c := window.Counts{Declined: 1}
					if v.Allowed {
						c = window.Counts{Admitted: 1}
					}
					all.add(w.now, c)
				}
				mean, next := float64(w.terms.Window)/float64(capacity)/load, 1000.0
				for w.now = 1000; w.now < 6*w.terms.Window; w.now += 100 {
					for ; next < float64(w.now); next += w.rng.ExpFloat64() * mean {
						w.call(0, 1)
					}
					if w.now%(5*w.terms.Window/2) == 0 { // Usage is asked for
						a.MustTell()
						a.due = 0
					}
					w.settle(func() int64 { return 100 })
				}
				if outside > 0 {
					t.Errorf("clock %d, capacity %d, load %v: %d of %d factors are not those of the window",
						clock, capacity, load, outside, calls)
				}
				if most := w.most(); most > w.bound() {
					t.Errorf("clock %d, capacity %d, load %v: %d admitted in a window of at most %d",
						clock, capacity, load, most, w.bound())
				}
				if part := float64(w.taken) / float64(calls); part < .4 && calls > 300 {
					t.Errorf("clock %d, capacity %d, load %v: the window of the key decided %.2f of all",
						clock, capacity, load, part)
				}
				w.network, w.now = nil, w.now+10
				a.Lost()
				a.MustTell()
				answer := w.ledger.Settle(w.terms.Span, w.now, 1, a.Message(w.at(a), 0, lease.Nothing))
				recent, most := all.since(w.now-w.terms.Window), all.since(w.now-w.terms.Window-60_000)
				have := answer.Live
				if have.Admitted < recent.Admitted || have.Declined < recent.Declined ||
					have.Admitted > most.Admitted || have.Declined > most.Declined {
					t.Errorf("clock %d, capacity %d, load %v: the ledger has %+v, and there was %+v",
						clock, capacity, load, have, recent)
				}
			}
		}
	}
}

// observed is what happened to a key, one by one.
type observed []event

type event struct {
	at  int64
	all window.Counts // until then, with it
}

// add appends what happens now.
func (o *observed) add(now int64, c window.Counts) {
	if n := len(*o); n > 0 {
		c = c.Plus((*o)[n-1].all)
	}
	*o = append(*o, event{now, c})
}

// since returns what happened after an instant.
func (o observed) since(at int64) (c window.Counts) {
	if len(o) > 0 {
		c = o[len(o)-1].all
	}
	if i := sort.Search(len(o), func(i int) bool { return o[i].at > at }); i > 0 {
		before := o[i-1].all
		c.Admitted -= before.Admitted
		c.Declined -= before.Declined
	}
	return c
}

// factors returns the least and the largest factor of a call. In the account and in the window of its key, an
// event counts up to three buckets longer, and a thousandth of a window; by a clock that is fast, a
// thousandth shorter. The recent part has a cell more.
func (o observed) factors(w *world) (low, high float64) {
	span := w.terms.Span
	grid, _ := cells.New(w.terms.Kept(), span.Bucket)
	coarse, fine := window.NewLaw(grid.Span(), w.capacity, hardFactor), window.NewLaw(span, w.capacity, hardFactor)
	at := func(l *window.Law, longer int64) float64 {
		return l.Factor(o.since(w.now-span.Window-longer), o.since(w.now-span.Recent()-longer-longer/3).Observed(), 1)
	}
	return at(coarse, -span.Window/1000), at(fine, 3*span.Bucket+span.Window/500)
}
