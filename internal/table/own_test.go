package table

import (
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/window"
)

// lend opens the window of a key that is locked.
func lend(sh *Shard[state, struct{}], h Handle, t Terms) {
	sh.State(h)
	if w := sh.Window(h); sh.Lends(&t) {
		w.Clear()
		sh.Lend(h, t)
	}
}

// Callers take from the windows of keys while others ask for the states, and while keys come, go, move and
// are evicted: nothing is lost, nothing counted twice, and no key takes what is another's.
func TestWindowsUnderStress(t *testing.T) {
	for _, test := range []struct {
		bound    int
		declines bool
	}{{0, false}, {40, false}, {0, true}} {
		var freed atomic.Uint64
		kind, bound := testKind, test.bound
		kind.Declines = test.declines
		kind.Span, kind.Kept = window.Span{Window: 1e12, Bucket: 1e10}, 1001e9
		kind.Free = func(_ *struct{}, s *state) { freed.Add(s.added); *s = state{} }
		start := time.Now()
		table := New(kind, math.MaxInt64, bound, func() int64 { return int64(time.Since(start)) })
		const callers, calls, keys = 4, 5000, 64
		var wg sync.WaitGroup
		var admitted, taken atomic.Uint64
		for c := range uint64(callers) {
			rng := rand.New(rand.NewPCG(c, 1))
			wg.Go(func() {
				for range calls {
					k := rng.IntN(keys)
					key, capacity, most := strings.Repeat("k", 1+k), uint64(1000+k), uint64(1000+k)
					terms := Terms{End: math.MaxInt64, Capacity: capacity, Limit: 40, Base: 7}
					if test.declines {
						capacity, most = uint64(20+k), terms.Limit
						terms.Capacity, terms.Base = capacity, 0
					}
					hash, now := table.Hash(key), int64(time.Since(start))
					place := table.Look(hash)
					have, ok := uint64(0), false
					if test.declines {
						var v window.Verdict
						law := window.NewLaw(table.LawSpan(), capacity, 1.5)
						ok = place.Suppress(&v, key, law, now, 1, rng.Float64())
						have = v.Now
					} else {
						have, ok = place.Take(key, capacity, now, 1)
					}
					if ok {
						if have > most {
							t.Errorf("%d of %d", have, most)
						}
						admitted.Add(1)
						taken.Add(1)
						continue
					}
					sh, h := table.Acquire(hash, key, now)
					sh.State(h).added++
					admitted.Add(1)
					switch rng.IntN(20) {
					case 0:
						sh.Remove(h)
					case 1: // it stays closed
					default:
						lend(sh, h, terms)
					}
					sh.Unlock()
				}
			})
		}
		var churn sync.WaitGroup
		done := make(chan struct{})
		churn.Go(func() { // so that indexes grow, and shards compact
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				for j := range 2000 {
					sh, _ := table.Acquire(table.Hash(name(j)), name(j), int64(time.Since(start)))
					sh.Unlock()
				}
				for j := range 2000 {
					table.remove(name(j))
				}
				for s := range table.shards {
					table.shards[s].sweep(0)
				}
			}
		})
		wg.Wait()
		close(done)
		churn.Wait()
		table.Close()
		if freed.Load() != admitted.Load() {
			t.Errorf("bound %d: %d counted, %d admitted", bound, freed.Load(), admitted.Load())
		}
		if taken.Load() < admitted.Load()/4 {
			t.Errorf("bound %d: windows admitted %d of %d", bound, taken.Load(), admitted.Load())
		}
	}
}

// The terms of a window hold to the instant and to the call.
func TestTerms(t *testing.T) {
	table := newTable(t, math.MaxInt64, 0)
	key := "k"
	hash := table.Hash(key)
	take := func(capacity uint64, now int64, n uint64) (uint64, bool) {
		place := table.Look(hash)
		return place.Take(key, capacity, now, n)
	}
	if _, ok := take(100, 1, 1); ok {
		t.Fatal("a key that is not there admits a call")
	}
	sh, h := table.Acquire(hash, key, 1)
	sh.Unlock()
	if _, ok := take(100, 1, 1); ok {
		t.Fatal("a window that was not opened admits a call")
	}
	sh.Lock()
	lend(sh, h, Terms{End: 5000, Capacity: 100, Limit: 10, Base: 20})
	sh.Unlock()
	for _, test := range []struct {
		capacity uint64
		now      int64
		n        uint64
		have     uint64
		ok       bool
	}{
		{100, 10, 4, 24, true},
		{101, 10, 1, 0, false},   // another capacity
		{100, 10, 7, 0, false},   // one too many
		{100, 10, 6, 30, true},   // all of it
		{100, 10, 1, 0, false},   // it is full
		{100, 1009, 1, 0, false}, // the events still count
		{100, 1010, 1, 0, false}, // they have left the window of the limit, and not this one
		{100, 1011, 1, 21, true},
		{100, 4999, 1, 21, true},
		{100, 5000, 1, 0, false}, // it is over
	} {
		if have, ok := take(test.capacity, test.now, test.n); ok != test.ok || ok && have != test.have {
			t.Errorf("%+v: %d, %v", test, have, ok)
		}
	}
	sh.Lock()
	if s := sh.State(h); s.added != 12 || s.last != 4999 {
		t.Errorf("%+v was entered", s)
	}
	sh.Unlock()
	if _, ok := take(100, 100, 1); ok {
		t.Error("a window admits a call after its state was asked for")
	}
	// Another key with this hash takes nothing.
	sh.Lock()
	lend(sh, h, Terms{End: 5000, Capacity: 100, Limit: 10})
	sh.Unlock()
	place := table.Look(hash)
	if _, ok := place.Take("q", 100, 1, 1); ok {
		t.Error("a key takes what is another's")
	}
	table.remove(key)
	if _, ok := place.Take(key, 100, 1, 1); ok {
		t.Error("a key that was removed admits a call")
	}
}

// Under Suppressed a window decides by the law and by its limit, and the state hears of what was declined.
func TestSuppressedTerms(t *testing.T) {
	kind := testKind
	kind.Declines = true
	start := time.Now()
	table := New(kind, math.MaxInt64, 0, func() int64 { return int64(time.Since(start)) })
	defer table.Close()
	key := "k"
	hash := table.Hash(key)
	suppress := func(v *window.Verdict, capacity uint64, now int64, n uint64, dice float64) bool {
		place := table.Look(hash)
		return place.Suppress(v, key, window.NewLaw(table.LawSpan(), capacity, 1.5), now, n, dice)
	}
	sh, h := table.Acquire(hash, key, 1)
	lend(sh, h, Terms{End: 5000, Capacity: 20, Limit: 25})
	sh.Unlock()
	for _, test := range []struct {
		capacity      uint64
		now           int64
		n             uint64
		dice          float64
		ok, allowed   bool
		have          uint64
		least, factor float64
	}{
		{20, 10, 16, 0, true, true, 16, 0, 0},
		{21, 10, 1, 0, false, false, 0, 0, 0},      // another capacity
		{20, 10, 1, .1, true, false, 16, .5, .99},  // over the limit in the recent part
		{20, 10, 8, .999, true, true, 24, .5, .99}, // by good luck
		{20, 10, 2, .999, false, false, 0, 0, 0},   // there is less on lease
		{20, 10, 1, .999, true, true, 25, .5, .99},
		{20, 10, 1, .999, false, false, 0, 0, 0}, // the law would admit 30
		{20, 10, 6, .999, true, false, 25, 1, 1}, // and no more
		{20, 10, 21, .999, true, false, 25, 1, 1},
		{20, 10, mostCost + 1, 0, false, false, 0, 0, 0},
		{20, 1009, 1, .999, false, false, 0, 0, 0}, // its events still count
		{20, 1010, 1, 0, false, false, 0, 0, 0},    // they have left the window of the limit, and not this one
		{20, 1011, 1, 0, true, true, 1, 0, 0},
		{20, 5000, 1, 0, false, false, 0, 0, 0}, // it is over
	} {
		var v window.Verdict
		ok := suppress(&v, test.capacity, test.now, test.n, test.dice)
		if ok != test.ok || ok && (v.Allowed != test.allowed || v.Now != test.have ||
			v.Factor < test.least || v.Factor > test.factor || v.Allowed != (v.Wait == 0)) {
			t.Errorf("%+v: %+v, %v", test, v, ok)
		}
	}
	sh.Lock()
	if s := sh.State(h); s.added != 16+1+8+1+6+21+1 || s.declined != 1+6+21 || s.last != 1011 {
		t.Errorf("%+v was entered", s)
	}
	sh.Unlock()
	if suppress(new(window.Verdict), 20, 1012, 1, .9) {
		t.Error("a window decides a call after its state was asked for")
	}
}
