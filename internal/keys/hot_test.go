package keys

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/window"
)

// hotAt is Hot for a call at now.
func (t *Table) hotAt(hash uint64, key string, now int64) *Hot {
	f := t.Hot(hash, key)
	if f != nil {
		t.Called(f, now)
	}
	return f
}

// heat makes "hot" the hot key.
func (t *Table) heat(capacity uint64, now int64) *Hot {
	const key = "hot"
	hd := t.acquire(key, now)
	var v window.Verdict
	hd.Absolute(&v, capacity, now, 1, true)
	hd.openFor(capacity, nil, now, 1<<40, 1)
	hd.Unlock()
	return t.hotAt(t.Hash(key), key, now)
}

// Callers add to a hot key while others take it back, remove another, and evict: nothing is lost and nothing
// counted twice, also when more is asked for than fits.
func TestHotKeyUnderStress(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		for _, bound := range []int{0, 3} {
			for _, capacity := range []uint64{math.MaxInt64, 1000} {
				table := newTable(t, options(time.Hour, bound, fine))
				const callers, calls = 4, 10_000
				var wg sync.WaitGroup
				var admitted [callers]uint64
				for c := range callers {
					wg.Go(func() {
						hash := table.Hash("hot")
						for i := range calls {
							n := uint64(1 + i%5/4)
							if f := table.hotAt(hash, "hot", table.clock()); f != nil {
								if a, _, _, _ := f.Take(capacity, table.clock(), n, true); a == Admitted {
									admitted[c] += n
									continue
								} else if a == Denied && capacity > 1000 {
									t.Error("denied without a limit")
								}
							}
							now := table.clock()
							hd := table.acquire("hot", now)
							var v window.Verdict
							hd.Absolute(&v, capacity, now, n, true)
							if v.Allowed {
								admitted[c] += n
							}
							hd.openFor(capacity, nil, now, 1<<40, 1)
							hd.Unlock()
							if i%50 == 0 {
								table.get("hot", now)
							}
							if bound > 0 && i%10 == 0 { // among as many as there may be, so that hot stays the newest
								hd := table.acquire(strings.Repeat("x", c%2+1), 0)
								hd.Unlock()
							}
						}
					})
				}
				wg.Wait()
				var want uint64
				for _, n := range admitted {
					want += n
				}
				if got, _ := table.get("hot", table.clock()); got != want || got > capacity {
					t.Errorf("bound %d, capacity %d: %d counted, %d admitted", bound, capacity, got, want)
				}
			}
		}
	})
}

// What is added to a hot key expires no sooner than a window after the last call, and less than a cell later.
func TestHotKeyExpires(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		o := options(51*time.Second, 0, fine)
		now := int64(0)
		o.Clock = func() int64 { return now }
		table := newTable(t, o)
		table.sweep.Close() // the clock is only read by the test
		rng := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			began := now
			table.heat(1000, now)
			now += rng.Int64N(o.Span.Bucket)
			last := now
			f := table.hotAt(table.Hash("hot"), "hot", now)
			if a, have, _, _ := f.Take(1000, now, 999, true); a != Admitted || have != 1000 {
				t.Fatalf("%v, %d", a, have)
			}
			now += rng.Int64N(2 * o.Span.Bucket)
			if a, _, _, _ := f.Take(1000, now, 1, true); a == Admitted {
				t.Fatal("more was admitted than fits")
			}
			hd := table.acquire("hot", now)
			var v window.Verdict
			hd.Absolute(&v, 1000, now, 1000, true)
			hd.Unlock()
			if at := now + v.Wait; v.Allowed || at < last+o.Span.Window || at >= began+o.Span.Bucket+o.Span.Window {
				t.Fatalf("from %d to %d, looked at %d: %+v", began, last, now, v)
			}
			now += 2 * o.Span.Window
		}
	})
}

// A key that is only called without the lock is not the one that was used the longest ago.
func TestHotKeyIsNotEvicted(t *testing.T) {
	o := options(time.Hour, 10, false)
	now := int64(0)
	o.Clock = func() int64 { return now }
	table := newTable(t, o)
	table.sweep.Close() // the clock is only read by the test
	hash := table.Hash("hot")
	locked := 0
	for i := range 100 {
		now += grain
		if f := table.hotAt(hash, "hot", now); f != nil {
			f.Take(1000, now, 1, true)
		} else {
			locked++
			table.heat(1000, now)
		}
		table.put(name(i), now, 1)
	}
	if got, found := table.get("hot", now); !found || got != 100 || locked > 15 {
		t.Errorf("%d calls counted (%v), %d of them under the lock", got, found, locked)
	}
	if table.Len() != 10 {
		t.Errorf("%d keys, want 10", table.Len())
	}
}

// A key that was hot is as old as its last call, however late it is taken back.
func TestHotKeyAges(t *testing.T) {
	o := options(time.Hour, 3, false)
	now := int64(0)
	o.Clock = func() int64 { return now }
	table := newTable(t, o)
	table.sweep.Close() // the clock is only read by the test
	acquire := func(key string, at int64) {
		now = at * grain
		hd := table.acquire(key, now)
		hd.Unlock()
	}
	acquire("first", 0)
	now = grain
	table.heat(10, now)
	table.hotAt(table.Hash("hot"), "hot", 2*grain).Take(10, 2*grain, 1, true)
	acquire("second", 3)
	acquire("first", 4)
	acquire("third", 5)
	for key, there := range map[string]bool{"first": true, "hot": false, "second": true, "third": true} {
		if _, got := table.get(key, now); got != there {
			t.Errorf("%q is there: %v, want %v", key, got, there)
		}
	}
}

// What was added to a hot key counts when it is judged idle.
func TestHotKeyIsNotIdle(t *testing.T) {
	o := options(1000, 0, false)
	now := int64(0)
	o.Clock = func() int64 { return now }
	table := newTable(t, o)
	table.sweep.Close() // the clock is only read by the test
	table.heat(10, 0)
	now = 9
	if a, _, _, _ := table.hotAt(table.Hash("hot"), "hot", 9).Take(10, 9, 1, true); a != Admitted {
		t.Fatal(a)
	}
	visit := func(at int64) {
		now = at
		for i := range table.shards {
			table.Visit(i)
		}
	}
	// The key was not looked at since: that counts as an event at the end of the cell.
	end := o.Span.Bucket - 1
	if visit(end + 999); table.Len() != 1 {
		t.Error("removed one instant before it was idle for long enough")
	}
	if visit(end + 1000); table.Len() != 0 {
		t.Error("not removed when it was idle for long enough")
	}
}

// The key that is called most is the hot one, and stays so while others are called less.
func TestHottestKeyIsHot(t *testing.T) {
	o := options(100*time.Second, 0, false)
	now := int64(1)
	o.Clock = func() int64 { return now }
	table := newTable(t, o)
	table.sweep.Close() // the clock is only read by the test
	var shared []string // keys of one shard
	for i := 0; len(shared) < 3; i++ {
		if key := name(i); table.Hash(key)>>table.shift == 0 {
			shared = append(shared, key)
		}
	}
	call := func(key string) {
		now += int64(50 * time.Microsecond)
		if f := table.hotAt(table.Hash(key), key, now); f != nil {
			if a, _, _, _ := f.Take(math.MaxInt64, now, 1, true); a != Unknown {
				return
			}
		}
		hd := table.acquire(key, now)
		var v window.Verdict
		newest := hd.Newest()
		hd.Absolute(&v, math.MaxInt64, now, 1, true)
		hd.Asked(newest, math.MaxInt64, nil, now)
		hd.Unlock()
	}
	rng := rand.New(rand.NewPCG(3, 4))
	hot := func(most string) (share int) {
		for range 4000 {
			key := most
			if rng.IntN(10) < 2 {
				key = shared[rng.IntN(3)]
			}
			call(key)
			if f := table.shards[0].open.Load(); f != nil && f.key == most {
				share++
			}
		}
		return share
	}
	hot(shared[0])
	if n := hot(shared[0]); n < 3900 {
		t.Errorf("the key that is called most was hot for %d of 4000 calls", n)
	}
	hot(shared[1]) // it takes a moment
	if n := hot(shared[1]); n < 3900 {
		t.Errorf("another key is called most, and was hot for %d of 4000 calls", n)
	}
}

// Additions beyond what fits are no admissions, and are not counted.
func TestHotKeyCountsWhatFits(t *testing.T) {
	table := newTable(t, options(time.Hour, 0, false))
	f := table.heat(10, 0)
	f.word.Add(8) // nine are admitted, and two callers have seen that one fits
	for _, want := range []bool{true, false} {
		if word, ok := f.add(); ok != want {
			t.Errorf("addition %d, of %d that fit: %v, want %v", word, f.room, ok, want)
		}
	}
	if n, _ := table.get("hot", 0); n != 10 {
		t.Errorf("%d are counted, want 10", n)
	}
}

// Under Suppressed no more is admitted than the hard capacity, by many callers at once, and nothing that was
// counted is lost.
func TestHotKeySuppressed(t *testing.T) {
	o := options(time.Hour, 0, false)
	o.Suppressed = true
	table := newTable(t, o)
	law := window.NewLaw(table.Span(), 1000, 1.5)
	const callers, calls = 4, 10_000
	var wg sync.WaitGroup
	var counts [callers]window.Counts
	for c := range callers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 9))
			hash := table.Hash("hot")
			for i := range calls {
				n := uint64(1 + i%5/4)
				dice := rng.Float64()
				if i%2 == 0 {
					dice = 1 - 0x1p-53 // a lucky one
				}
				var v window.Verdict
				now := table.clock()
				if f := table.hotAt(hash, "hot", now); f == nil || !f.Suppress(&v, 1000, now, n, dice) {
					v = window.Verdict{}
					hd := table.acquire("hot", now)
					hd.Suppressed(&v, law, now, n, dice, true)
					hd.openFor(1000, law, hd.last(), 1<<40, 1)
					hd.Unlock()
				}
				if v.Allowed {
					counts[c].Admitted += n
				} else {
					counts[c].Declined += n
				}
				if i%50 == 0 {
					table.get("hot", now)
				}
			}
		})
	}
	wg.Wait()
	var want window.Counts
	for _, c := range counts {
		want = want.Plus(c)
	}
	hd := table.acquire("hot", table.clock())
	defer hd.Unlock()
	if got := hd.Counts(); got != want || got.Admitted > 1500 || got.Admitted < 1490 {
		t.Errorf("%+v counted, want %+v, and about 1500 admitted", got, want)
	}
}

// TestHotKeySuppressedAtItsBound: callers that were all judged before any of them is recorded do not pass the
// hard capacity together.
func TestHotKeySuppressedAtItsBound(t *testing.T) {
	o := options(time.Hour, 0, false)
	o.Suppressed = true
	table := newTable(t, o)
	const capacity, hard, callers = 10, 15, 4
	law := window.NewLaw(table.Span(), capacity, 1.5)
	const lucky = 1 - 0x1p-53
	for round := range 5000 {
		key := fmt.Sprint("hot ", round)
		hash, now := table.Hash(key), table.clock()
		hd := table.acquire(key, now)
		var v window.Verdict
		hd.Suppressed(&v, law, now, 1, lucky, true)
		hd.openFor(capacity, law, hd.last(), 1<<40, 1)
		hd.Unlock()
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range hard {
					var v window.Verdict
					if f := table.hotAt(hash, key, now); f != nil && f.Suppress(&v, capacity, now, 1, lucky) && v.Allowed {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := admitted.Load() + 1; n > hard {
			t.Fatalf("round %d: %d are admitted, at most %d may be", round, n, hard)
		}
		hd = table.acquire(key, now) // which takes it back
		hd.Unlock()
	}
}

// TestHintOfMoreEvents: what a call has found that saw more events is not taken for the earliest answer.
func TestHintOfMoreEvents(t *testing.T) {
	o := options(time.Hour, 0, false)
	o.Suppressed = true
	o.Clock = func() int64 { return o.Span.Window / 2 }
	table := newTable(t, o)
	table.sweep.Close() // the clock stands still
	law := window.NewLaw(table.Span(), 10, 1.5)
	now := o.Clock()
	hd := table.acquire("hot", now)
	hd.Record(1, window.Counts{Admitted: 9})
	hd.Record(hd.Advance(now), window.Counts{Admitted: 4})
	hd.openFor(10, law, now, 1<<40, 1)
	hd.Unlock()
	f := table.hotAt(table.Hash("hot"), "hot", now)
	for of := range uint64(3) {
		var v window.Verdict
		f.hint.Store(packHint(int(o.Span.Window/o.Span.Bucket), window.Counts{Declined: 100 * of, Admitted: of}))
		if !f.Suppress(&v, 10, now, 1, 0) || v.Allowed {
			t.Fatalf("it is not declined: %+v", v)
		}
		at, _, hint := f.outlook.Calms(&f.law, f.parts(f.word.Load()), f.Closes-1, 1, -1, false)
		if early := of == 0; (v.Wait == at-now) == early {
			t.Errorf("a hint of %d events: the wait is %d, want %d", 100*of, v.Wait, at-now)
		}
		if got, _ := unpackHint(packHint(hint, window.Counts{Declined: 1 << 30})); got != 0 {
			t.Errorf("a hint of too many events is %d", got)
		}
	}
}
