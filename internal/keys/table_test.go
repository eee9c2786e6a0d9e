package keys

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/table/entries"
	"github.com/trypema/trypema/internal/window"
)

// options are those of a table with cells, or with groups.
func options(idle time.Duration, bound int, fine bool) Options {
	bucket := max(int64(idle)/50, 2)
	if fine {
		bucket = max(int64(idle)/1000, 2)
	}
	start := time.Now()
	return Options{
		Span:  window.Span{Window: int64(idle) - bucket, Bucket: bucket},
		Bound: bound, Clock: func() int64 { return int64(time.Since(start)) },
	}
}

func newTable(t testing.TB, o Options) *Table {
	table := New(o)
	t.Cleanup(table.Close)
	return table
}

// both runs a test on tables of both kinds of windows.
func both(t *testing.T, test func(t *testing.T, fine bool)) {
	for _, fine := range []bool{false, true} {
		t.Run(fmt.Sprintf("groups=%v", fine), func(t *testing.T) { test(t, fine) })
	}
}

func name(i int) string {
	if i%5 == 0 {
		return fmt.Sprint("a name that does not fit into an entry, however wide that is: ", i)
	}
	return fmt.Sprint(i)
}

func (t *Table) acquire(key string, now int64) *Held {
	var hd Held
	t.Look(&hd, t.Hash(key))
	hd.Acquire(key, now)
	return &hd
}

// put makes a key hold a number.
func (t *Table) put(key string, now int64, n uint64) {
	hd := t.acquire(key, now)
	hd.Replace(hd.Advance(now), n)
	hd.Unlock()
}

// get returns what a key holds, and whether it is there.
func (t *Table) get(key string, now int64) (uint64, bool) {
	var hd Held
	t.Look(&hd, t.Hash(key))
	found := hd.Find(key)
	hd.Advance(now)
	n := hd.Counts().Admitted
	hd.Unlock()
	return n, found
}

func TestAgreesWithMap(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		for _, max := range []int{0, 1, 7, 300} {
			seed := explore.Seed(t)
			rng := rand.New(rand.NewPCG(seed, 0))
			table := newTable(t, options(time.Hour, max, fine))
			values := map[string]uint64{}
			var order []string // by last use, oldest first
			use := func(key string) {
				if i := slices.Index(order, key); i >= 0 {
					order = slices.Delete(order, i, i+1)
				}
				order = append(order, key)
			}
			keys := 8_000
			if max > 0 {
				keys = 2 * max
			}
			for now := range int64(explore.Size(4000, 200_000)) {
				// The number of keys swells and shrinks.
				key, n := name(rng.IntN(keys)), rng.IntN(100)
				if n < 30+40*int(now/2_000%2) {
					table.Remove(table.Hash(key), key)
					delete(values, key)
					if i := slices.Index(order, key); max > 0 && i >= 0 {
						order = slices.Delete(order, i, i+1)
					}
					if now%1000 == 0 {
						for i := range table.shards {
							table.Visit(i)
						}
					}
					continue
				}
				hd := table.acquire(key, now)
				hd.Advance(now)
				if got := hd.Counts().Admitted; got != values[key] {
					t.Fatalf("seed %d, bound %d: key %q holds %d, want %d", seed, max, key, got, values[key])
				}
				// Now and then it is a number that makes the cells wide.
				values[key] = rng.Uint64N(1<<rng.IntN(40)) + 1
				hd.Replace(now, values[key])
				hd.Unlock()
				if max > 0 {
					if use(key); len(order) > max {
						delete(values, order[0])
						order = order[1:]
					}
				}
				if table.Len() != len(values) {
					t.Fatalf("seed %d, bound %d: %d keys, want %d", seed, max, table.Len(), len(values))
				}
			}
			for key, value := range values {
				if got, found := table.get(key, 1e6); !found || got != value {
					t.Fatalf("seed %d, bound %d: key %q holds %d (%v), want %d", seed, max, key, got, found, value)
				}
			}
		}
	})
}

func TestEntrySize(t *testing.T) {
	if got := unsafe.Sizeof(entry{}); got != 128 {
		t.Errorf("an entry is %d bytes", got)
	}
	if got := len(entry{}.text) - int(fineText); got != 23 {
		t.Errorf("with groups, an entry has %d bytes for a key", got)
	}
	if got := unsafe.Offsetof(entry{}.text) + fineText - unsafe.Sizeof(window.Window{}); got != stateHead {
		t.Errorf("a window with groups is at %d, want %d", got, stateHead)
	}
	if got := unsafe.Offsetof(shard{}.queue); got != 64 {
		t.Errorf("what callers write is at %d, in the cache line of what they all read", got)
	}
	if got := unsafe.Offsetof(shard{}.Mutex); got != 128 {
		t.Errorf("the lock of a shard is at %d, in the cache line of those who wait", got)
	}
	// Pages must begin at a cache line, for entries to be two of them.
	for size := 1; size < entries.PageLen; size *= 2 {
		page := make([]entry, size)
		if at := uintptr(unsafe.Pointer(&page[0])) % 128; at != 0 {
			t.Errorf("a page of %d entries begins %d bytes after a pair of cache lines", size, at)
		}
	}
}

// What lies in pages must be nothing to the garbage collector.
func TestEntriesHoldNoPointers(t *testing.T) {
	var check func(path string, typ reflect.Type)
	check = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Struct:
			for i := range typ.NumField() {
				check(path+"."+typ.Field(i).Name, typ.Field(i).Type)
			}
		case reflect.Array:
			check(path+"[]", typ.Elem())
		case reflect.Bool, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16,
			reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		default:
			t.Errorf("%s is a %v", path, typ)
		}
	}
	check("entry", reflect.TypeFor[entry]())
	check("groups", reflect.TypeFor[window.Window]())
}

func TestIdleKeysLeave(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		synctest.Test(t, func(t *testing.T) {
			const idle = 10 * time.Second
			table := newTable(t, options(idle, 0, fine))
			start := time.Now()
			add := func(key string) { table.put(key, int64(time.Since(start)), 1) }
			const n = 5000
			for i := range n {
				add(name(i))
			}
			time.Sleep(idle - time.Nanosecond)
			synctest.Wait()
			if table.Len() != n {
				t.Fatalf("%d of %d keys left too early", n-table.Len(), n)
			}
			add("young")
			time.Sleep(2*idle + time.Second)
			synctest.Wait()
			if table.Len() != 0 {
				t.Fatalf("%d keys are still there after twice the idle time", table.Len())
			}
			for i := range table.shards {
				if table.shards[i].index.Load().Pages() != 0 {
					t.Fatal("an empty shard holds memory")
				}
			}
			// The timer rests now. It must come back.
			time.Sleep(time.Hour)
			add("again")
			time.Sleep(3 * idle)
			synctest.Wait()
			if table.Len() != 0 {
				t.Fatal("the sweep did not come back")
			}
		})
	})
}

// Keys that leave pay for their memory: what stays moves together.
func TestCompact(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		for _, max := range []int{0, 100_000} {
			o := options(time.Hour, max, fine)
			now := int64(0)
			o.Clock = func() int64 { return now }
			table := newTable(t, o)
			table.sweep.Close() // the clock is only read by the test
			for i := range 9_000 {
				at := now
				if i%100 == 0 {
					at += int64(5 * time.Minute)
				}
				table.put(name(i), at, uint64(i+1)*uint64(i+1))
			}
			now = int64(time.Hour)
			for i := range table.shards {
				table.Visit(i)
			}
			size := 0
			for i := range table.shards {
				for page := range table.shards[i].index.Load().Pages() {
					size += entries.LengthOf(page)
				}
			}
			if table.Len() != 90 || size > 64*entries.PageLen {
				t.Errorf("%d keys in %d entries", table.Len(), size)
			}
			for i := 0; i < 9_000; i += 100 {
				if n, found := table.get(name(i), now); !found || n != uint64(i+1)*uint64(i+1) {
					t.Fatalf("key %q holds %d (%v)", name(i), n, found)
				}
			}
		}
	})
}

// A flood of new keys removes what it leaves behind, without the timer.
func TestFloodIsBounded(t *testing.T) {
	table := newTable(t, options(time.Hour, 0, false))
	const alive = 4_000
	most := 0
	for i := range int64(10 * alive) {
		table.put(name(int(i)), i*int64(time.Hour)/alive, 1)
		most = max(most, table.Len())
	}
	if most > 2*alive {
		t.Errorf("%d keys held, %d were not idle", most, alive)
	}
}

// With a bound, keys that are removed again and again leave nothing behind.
func TestOrderIsBounded(t *testing.T) {
	table := newTable(t, options(time.Hour, 1000, false))
	for i := range 20_000 {
		table.put("k", int64(i), 1)
		table.Remove(table.Hash("k"), "k")
		table.put(name(i%10), int64(i), 1)
		if i%10 == 9 {
			table.Remove(table.Hash(name(3)), name(3))
		}
	}
	for i := range table.shards {
		if n := len(table.shards[i].order); n > 100 {
			t.Errorf("%d turns in a shard, of 10 keys", n)
		}
	}
}

func TestDroppedTableIsCollected(t *testing.T) {
	w := func() weak.Pointer[Table] {
		table := New(options(time.Hour, 0, false))
		table.put("k", 1, 1)
		return weak.Make(table)
	}()
	for range 10 {
		if runtime.GC(); w.Value() == nil {
			return
		}
	}
	t.Error("the timer keeps a dropped table alive")
}

func TestCloseWaitsForTheSweep(t *testing.T) {
	for range 200 {
		o := options(100, 0, false)
		o.Clock = func() int64 { return 1 }
		table := New(o)
		table.sweep.Tick = time.Microsecond
		for i := range 10 {
			table.put(name(i), 1, 1)
			time.Sleep(time.Microsecond)
		}
		table.Close()
		table.Close()
		if table.Len() != 0 {
			t.Fatalf("%d keys after Close", table.Len())
		}
	}
}

// pairs returns keys of which each two have a hash that an index does not tell apart.
func pairs(t *testing.T, table *Table, n int) [][2]string {
	t.Helper()
	type place struct{ shard, tag uint32 }
	// An index of few keys uses 12 bits of the hash in a slot, and the bits from 16 on for the place.
	first := map[place]int{}
	var found [][2]string
	for i := 0; len(found) < n && i < 4_000_000; i++ {
		key := strconv.Itoa(i)
		hash := table.Hash(key)
		at := place{uint32(hash >> table.shift), uint32(hash)&0xfff | uint32(hash>>16)<<12}
		if other, ok := first[at]; ok {
			found = append(found, [2]string{strconv.Itoa(other), key})
		} else {
			first[at] = i
		}
	}
	if len(found) < n {
		t.Skip("none of so many keys have such hashes, which happens once in a million runs")
	}
	return found
}

func TestKeysOfEqualHashAreApart(t *testing.T) {
	table := newTable(t, options(time.Hour, 0, false))
	for _, pair := range pairs(t, table, 1) {
		for i, key := range pair {
			table.put(key, 1, uint64(i+1))
		}
		for i, key := range pair {
			if n, found := table.get(key, 1); !found || n != uint64(i+1) {
				t.Errorf("%q of %q holds %d (%v), want %d", key, pair, n, found, i+1)
			}
		}
		table.Remove(table.Hash(pair[0]), pair[0])
		if _, found := table.get(pair[0], 1); found {
			t.Errorf("%q was removed, and is there", pair[0])
		}
		if n, _ := table.get(pair[1], 1); n != 2 {
			t.Errorf("%q holds %d, want 2", pair[1], n)
		}
	}
}

// Whoever finds an entry locked sleeps until its owner unlocks it, and is not forgotten, however many wait
// for however many entries.
func TestWaitersAreWoken(t *testing.T) {
	table := newTable(t, options(time.Hour, 0, false))
	const callers, keys = 64, 3
	for key := range keys {
		table.put(name(key), 1, 1)
	}
	var counted [keys]uint64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range 200 {
				key := (c + i) % keys
				hd := table.acquire(name(key), 1)
				counted[key]++
				if i%8 == 0 {
					runtime.Gosched() // the owner is interrupted
				}
				hd.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("somebody still waits after a minute")
	}
	if n := counted[0] + counted[1] + counted[2]; n != callers*200 {
		t.Errorf("%d calls were alone, of %d", n, callers*200)
	}
}

// A caller that holds a key takes a second one as soon as it is unlocked, also in a bubble. While two callers
// wait for the first key no time passes there, as one of them waits by a mutex.
func TestHolderOfAKeyTakesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t, options(time.Hour, 0, false))
		table.put("first", 1, 1)
		table.put("second", 1, 1)
		second := table.acquire("second", 1)
		first := table.acquire("first", 1)
		var wg sync.WaitGroup
		wg.Go(func() {
			var hd Held
			table.Look(&hd, table.Hash("second"))
			if found, sure := hd.TryFind("second"); !found || !sure {
				t.Errorf("found %v, sure %v", found, sure)
			}
			hd.Unlock()
			first.Unlock()
		})
		for range 3 {
			wg.Go(func() {
				hd := table.acquire("first", 1)
				hd.Unlock()
			})
		}
		for range 10_000 { // until all wait
			runtime.Gosched()
		}
		second.Unlock()
		wg.Wait()
	})
}

// Sixteen callers add, call, delete, evict, compact and grow at once. What a key holds is what was admitted
// of it since it was removed last, as far as that can be told: no key holds more than its capacity, and one
// that is not removed loses nothing.
func TestAllAtOnce(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		for _, bound := range []int{0, 2000} {
			const callers, capacity = 16, 50_000
			table := newTable(t, options(time.Hour, bound, fine))
			var kept atomic.Uint64
			var wg sync.WaitGroup
			rounds := explore.Size(1500, 40_000)
			for c := range callers {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(c), 1))
					for i := range rounds {
						now := table.clock()
						key := name(rng.IntN(3000))
						switch {
						case i%4 == 0:
							key = "kept"
						case i%7 == 0:
							table.Remove(table.Hash(key), key)
							continue
						case i%500 == 0:
							sh := &table.shards[rng.IntN(len(table.shards))]
							table.Visit(rng.IntN(len(table.shards)))
							sh.Lock()
							table.compact(sh)
							sh.Unlock()
						}
						hash := table.Hash(key)
						if f := table.hotAt(hash, key, now); f != nil {
							if a, have, _, _ := f.Take(capacity, now, 1, true); a == Admitted {
								if have > capacity {
									t.Errorf("%q holds %d, of at most %d", key, have, capacity)
								}
								if key == "kept" {
									kept.Add(1)
								}
								continue
							}
						}
						hd := table.acquire(key, now)
						var v window.Verdict
						newest := hd.Newest()
						hd.Absolute(&v, capacity, now, 1, true)
						hd.Asked(newest, capacity, nil, now)
						hd.Unlock()
						if v.Allowed && key == "kept" {
							kept.Add(1)
						}
						if v.Now > capacity {
							t.Errorf("%q holds %d, of at most %d", key, v.Now, capacity)
						}
					}
				})
			}
			wg.Wait()
			if n, found := table.get("kept", table.clock()); !found || n != kept.Load() {
				t.Errorf("bound %d: %d counted (%v), %d admitted", bound, n, found, kept.Load())
			}
			left := 0
			for i := range table.shards {
				left += table.shards[i].n
			}
			if left != table.Len() || bound > 0 && left > bound {
				t.Errorf("bound %d: %d keys, %d in the shards", bound, table.Len(), left)
			}
		}
	})
}

// Keys of 64 KiB that differ in their last byte are different keys.
func TestLongKeysDifferInTheirLastByte(t *testing.T) {
	table := newTable(t, options(time.Hour, 0, false))
	long := strings.Repeat("x", 1<<16)
	n := explore.Size(64, 255)
	for round := range uint64(2) {
		for i := range n {
			key := long + string([]byte{byte(i)})
			if got, _ := table.get(key, 1); got != round*uint64(i+1) {
				t.Fatalf("key %d holds %d", i, got)
			}
			table.put(key, 1, uint64(i+1))
		}
	}
	if table.Len() != n {
		t.Errorf("%d keys", table.Len())
	}
}

// What the first window of a page holds is nothing to one that gets its entry later.
func TestEntriesAreUsedAgain(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		table := newTable(t, options(time.Hour, 0, fine))
		for i := range 8_000 {
			key := name(i)
			if n, found := table.get(key, int64(i)); found || n != 0 {
				t.Fatalf("a new key holds %d", n)
			}
			table.put(key, int64(i), math.MaxInt64)
			if i >= 10 {
				table.Remove(table.Hash(name(i-10)), name(i-10))
			}
		}
		pages := 0
		for i := range table.shards {
			pages += table.shards[i].index.Load().Pages()
		}
		if pages > len(table.shards) {
			t.Errorf("%d pages for ten keys", pages)
		}
	})
}

// A caller that has found a key before it moved, was removed, or was replaced by another looks again.
func TestMovedKeysAreFound(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		table := newTable(t, options(time.Hour, 0, fine))
		var here []string // keys of one shard
		for i := 0; len(here) < 1000; i++ {
			if key := name(i); table.Hash(key)>>table.shift == 0 {
				here = append(here, key)
			}
		}
		for _, key := range here {
			table.put(key, 1, 1)
		}
		stays, goes := here[3], here[4]
		var before [3]Held
		for i, key := range []string{stays, goes, goes} {
			table.Look(&before[i], table.Hash(key))
		}
		for _, key := range here[10:] {
			table.Remove(table.Hash(key), key)
		}
		sh := &table.shards[0]
		sh.Lock()
		table.compact(sh)
		sh.Unlock()
		before[0].Acquire(stays, 1)
		before[0].Record(before[0].Advance(1), window.Counts{Admitted: 1})
		before[0].Unlock()
		if n, found := table.get(stays, 1); !found || n != 2 {
			t.Errorf("a key that has moved holds %d (%v), want 2", n, found)
		}
		table.Remove(table.Hash(goes), goes)
		if before[1].Find(goes) {
			t.Error("a key that was removed is there")
		}
		before[1].Unlock()
		before[2].Acquire(goes, 1)
		if n := before[2].Counts(); n != (window.Counts{}) {
			t.Errorf("a key that was removed holds %+v", n)
		}
		before[2].Unlock()
	})
}

// TestIndexOfBefore: a caller may go on with an index for as long as it likes, while keys are added that have
// their slots in it and their entries in pages that it does not have.
func TestIndexOfBefore(t *testing.T) {
	tab := New(options(time.Minute, 0, false))
	defer tab.Close()
	indexes := make(map[*shard][]*index)
	newer := 0
	for i := range 20_000 {
		key := fmt.Sprint("key ", i)
		hash := tab.Hash(key)
		sh := tab.shard(hash)
		before := sh.index.Load()
		var hd Held
		tab.Look(&hd, hash)
		hd.Acquire(key, 1)
		hd.Unlock()
		if last := indexes[sh]; len(last) == 0 || last[len(last)-1] != before {
			indexes[sh] = append(last, before)
		}
		for _, ix := range indexes[sh] {
			old := Held{t: tab, hash: hash, sh: sh, ix: ix}
			old.h, old.e = ix.Look(hash)
			if h, _ := ix.Probe(hash, entries.Home(hash)); h.Page() >= ix.Pages() {
				newer++
			}
			if !old.Find(key) {
				t.Fatalf("%s is not found", key)
			}
			old.Unlock()
		}
	}
	if newer == 0 {
		t.Error("no slot named a page that an older index does not have: this tells nothing")
	}
}

// TestClockReadBeforeAnExpiry: a call whose clock was read before another call saw the window expire is
// recorded no earlier than that, or it would leave its window too early.
func TestClockReadBeforeAnExpiry(t *testing.T) {
	const w, began = int64(time.Second), 100 * int64(time.Second)
	tab := New(Options{Span: window.Span{Window: w, Bucket: w / 100}, Clock: func() int64 { return began }})
	defer tab.Close()
	take := func(now int64, record bool) bool {
		var hd Held
		var v window.Verdict
		tab.Look(&hd, tab.Hash("k"))
		hd.Acquire("k", now)
		defer hd.Unlock()
		hd.Absolute(&v, 1, now, 1, record)
		return v.Allowed
	}
	for i, step := range []struct {
		now            int64
		record, passes bool
	}{
		{began, true, true},
		{began + w, false, true},          // it sees the first expire
		{began + w - 1000, true, true},    // and so does this one, late
		{began + 2*w - 1000, true, false}, // which counts for a window from then on
		{began + 2*w, true, true},
	} {
		if got := take(step.now, step.record); got != step.passes {
			t.Errorf("step %d: %v, want %v", i, got, step.passes)
		}
	}
}
