package table

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/table/entries"
	"github.com/trypema/trypema/internal/window"
)

// state is a state that notices if it is lost, or mixed up with another.
type state struct {
	last     int64
	value    uint64
	added    uint64
	declined uint64 // of those
}

var testKind = Kind[state, struct{}]{
	Last: func(s *state) int64 { return s.last },
	Free: func(_ *struct{}, s *state) { *s = state{} },
	Move: func(_, _ *struct{}, _ *state) {},
	Add:  func(s *state, last int64, n uint64) { s.last = max(s.last, last); s.added += n },
	Enter: func(_ *struct{}, s *state, w cells.Window, added window.Counts) {
		s.last = max(s.last, w.Last())
		s.added += added.Observed()
		s.declined += added.Declined
	},
	Span: window.Span{Window: 1000, Bucket: 10},
	Kept: 1001,
}

func newTable(t testing.TB, idle time.Duration, bound int) *Table[state, struct{}] {
	start := time.Now()
	table := New(testKind, idle, bound, func() int64 { return int64(time.Since(start)) })
	t.Cleanup(table.Close)
	return table
}

// called returns the key "hot", if it is the hot key of a shard, and has it called at now.
func called(sh *Shard[state, struct{}], now int64) *Hot {
	f := sh.Hot("hot")
	if f != nil {
		sh.Called(f, now)
	}
	return f
}

func name(i int) string {
	if i%5 == 0 {
		return fmt.Sprint("a name that does not fit into an entry", i)
	}
	return fmt.Sprint(i)
}

func (t *Table[S, M]) remove(key string) {
	hash := t.Hash(key)
	sh := t.Shard(hash)
	sh.Lock()
	defer sh.Unlock()
	if h := sh.Find(hash, key); h != None {
		sh.Remove(h)
	}
}

func TestAgreesWithMap(t *testing.T) {
	for _, max := range []int{0, 1, 7, 300} {
		seed := explore.Seed(t)
		rng := rand.New(rand.NewPCG(seed, 0))
		table := newTable(t, math.MaxInt64, max)
		values := map[string]uint64{}
		var order []string // by last use, oldest first
		use := func(key string) {
			if i := slices.Index(order, key); i >= 0 {
				order = slices.Delete(order, i, i+1)
			}
			order = append(order, key)
		}
		keys := 20_000
		if max > 0 {
			keys = 2 * max
		}
		for now := range int64(explore.Size(20_000, 200_000)) {
			// The number of keys swells and shrinks.
			key, n := name(rng.IntN(keys)), rng.IntN(100)
			if n < 30+40*int(now/5_000%2) {
				table.remove(key)
				delete(values, key)
				if i := slices.Index(order, key); max > 0 && i >= 0 {
					order = slices.Delete(order, i, i+1)
				}
				if now%1000 == 0 {
					for i := range table.shards {
						table.shards[i].sweep(now)
					}
				}
				continue
			}
			sh, h := table.Acquire(table.Hash(key), key, now)
			s := sh.State(h)
			if s.value != values[key] {
				t.Fatalf("seed %d, bound %d: key %q holds %d, want %d", seed, max, key, s.value, values[key])
			}
			s.value = rng.Uint64()
			sh.Unlock()
			values[key] = s.value
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
			hash := table.Hash(key)
			sh := table.Shard(hash)
			if h := sh.Find(hash, key); h == None || sh.State(h).value != value {
				t.Fatalf("seed %d, bound %d: key %q lost", seed, max, key)
			}
		}
	}
}

func TestEntrySize(t *testing.T) {
	if got := unsafe.Sizeof(entry{}); got != 128 {
		t.Errorf("an entry is %d bytes", got)
	}
	if got := unsafe.Offsetof(Shard[state, struct{}]{}.Mutex); got != 64 {
		t.Errorf("the lock of a shard is at %d, in the cache line of those who do not take it", got)
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
}

func TestIdleKeysLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 10 * time.Second
		table := newTable(t, idle, 0)
		start := time.Now()
		add := func(key string) {
			now := int64(time.Since(start))
			sh, h := table.Acquire(table.Hash(key), key, now)
			sh.State(h).last = now
			sh.Unlock()
		}
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
			if sh := &table.shards[i]; sh.backs != nil || sh.index.Load() != noIndex {
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
}

// Keys that leave pay for their memory: what stays moves together.
func TestCompact(t *testing.T) {
	for _, max := range []int{0, 100_000} {
		table := newTable(t, 1, max)
		table.sweep.Close() // the timer would move keys in the midst of a sweep
		for i := range 25_000 {
			key := name(i)
			sh, h := table.Acquire(table.Hash(key), key, 0)
			*sh.State(h) = state{last: 1e18, value: uint64(i)}
			if i%100 > 0 {
				sh.State(h).last = 1e18 - 1
			}
			sh.Unlock()
		}
		for i := range table.shards {
			table.shards[i].sweep(1e18)
		}
		size := 0
		for i := range table.shards {
			size += int(table.shards[i].end)
		}
		if table.Len() != 250 || size > 64*entries.PageLen {
			t.Errorf("%d keys in %d entries", table.Len(), size)
		}
		for i := 0; i < 25_000; i += 100 {
			sh, h := table.Acquire(table.Hash(name(i)), name(i), 1)
			if sh.State(h).value != uint64(i) {
				t.Fatalf("key %q lost", name(i))
			}
			sh.Unlock()
		}
	}
}

// A flood of new keys removes what it leaves behind, without the timer.
func TestFloodIsBounded(t *testing.T) {
	table := newTable(t, time.Hour, 0)
	const alive = 10_000
	most := 0
	for i := range int64(10 * alive) {
		now, key := i*int64(time.Hour)/alive, name(int(i))
		sh, h := table.Acquire(table.Hash(key), key, now)
		sh.State(h).last = now
		sh.Unlock()
		most = max(most, table.Len())
	}
	if most > 2*alive {
		t.Errorf("%d keys held, %d were not idle", most, alive)
	}
}

func TestDroppedTableIsCollected(t *testing.T) {
	w := func() weak.Pointer[Table[state, struct{}]] {
		start := time.Now()
		table := New(testKind, time.Hour, 0, func() int64 { return int64(time.Since(start)) })
		sh, h := table.Acquire(table.Hash("k"), "k", 1)
		sh.State(h).last = 1
		sh.Unlock()
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
		table := New(testKind, time.Nanosecond, 0, func() int64 { return 1 })
		table.sweep.Tick = time.Microsecond
		for i := range 10 {
			sh, h := table.Acquire(table.Hash(name(i)), name(i), 1)
			sh.State(h).last = 1
			sh.Unlock()
			time.Sleep(time.Microsecond)
		}
		table.Close()
		table.Close()
		if table.Len() != 0 {
			t.Fatalf("%d keys after Close", table.Len())
		}
	}
}

// Callers add to a hot key while others take it back, remove it and evict it: nothing is lost and nothing
// counted twice.
func TestHotKeyUnderStress(t *testing.T) {
	for _, bound := range []int{0, 3} {
		table := newTable(t, math.MaxInt64, bound)
		const callers, calls = 4, 20_000
		var wg sync.WaitGroup
		var admitted [callers]uint64
		for c := range callers {
			wg.Go(func() {
				for i := range calls {
					hash := table.Hash("hot")
					if f := called(table.Shard(hash), int64(i)); f != nil {
						if a, _, _, _ := f.Take(math.MaxInt64, 1, 1, true); a == Admitted {
							admitted[c]++
							continue
						}
					}
					sh, h := table.Acquire(hash, "hot", int64(i))
					sh.State(h).added++
					admitted[c]++
					if sh.Asked(h) || i%7 == 0 {
						sh.Open(h, &Hot{Closes: math.MaxInt64, Window: 1})
					}
					sh.Unlock()
					if i%50 == 0 {
						sh, h := table.Acquire(hash, "hot", int64(i))
						sh.State(h)
						sh.Unlock()
					}
					if bound > 0 && i%10 == 0 { // among as many as there may be, so that hot stays the newest
						key := strings.Repeat("x", c%2+1)
						sh, _ := table.Acquire(table.Hash(key), key, int64(i))
						sh.Unlock()
					}
				}
			})
		}
		wg.Wait()
		var want uint64
		for _, n := range admitted {
			want += n
		}
		hash := table.Hash("hot")
		sh := table.Shard(hash)
		sh.Lock()
		if got := sh.State(sh.Find(hash, "hot")).added; got != want {
			t.Errorf("bound %d: %d counted, %d admitted", bound, got, want)
		}
		sh.Unlock()
	}
}

// A key that is only asked for without the lock is not the one that was used the longest ago.
func TestHotKeyIsNotEvicted(t *testing.T) {
	now := int64(0)
	table := New(testKind, math.MaxInt64, 10, func() int64 { return now })
	hash := table.Hash("hot")
	locked := 0
	for i := range 100 {
		now += askedGrain
		f := called(table.Shard(hash), now)
		if f != nil {
			f.Take(math.MaxInt64, now, 1, true)
		} else {
			locked++
			sh, h := table.Acquire(hash, "hot", now)
			sh.State(h).added++
			sh.Open(h, &Hot{Opened: now, Closes: math.MaxInt64, Window: 1})
			sh.Unlock()
		}
		sh, _ := table.Acquire(table.Hash(name(i)), name(i), now)
		sh.Unlock()
	}
	sh, h := table.Acquire(hash, "hot", math.MaxInt64)
	if got := sh.State(h).added; got != 100 || locked > 15 {
		t.Errorf("%d calls counted, %d of them under the lock", got, locked)
	}
	sh.Unlock()
	if table.Len() != 10 {
		t.Errorf("%d keys, want 10", table.Len())
	}
}

// A key that was hot is as old as its last call, however late it is taken back.
func TestHotKeyAges(t *testing.T) {
	now := int64(0)
	table := New(testKind, math.MaxInt64, 3, func() int64 { return now })
	acquire := func(key string, at int64) (*Shard[state, struct{}], Handle) {
		now = at * askedGrain
		sh, h := table.Acquire(table.Hash(key), key, now)
		sh.Unlock()
		return sh, h
	}
	acquire("first", 0)
	sh, h := acquire("hot", 1)
	sh.Lock()
	sh.Open(h, &Hot{Closes: math.MaxInt64, Window: 1})
	sh.Unlock()
	called(sh, 2*askedGrain).Take(1, 2*askedGrain, 1, true)
	acquire("second", 3)
	acquire("first", 4)
	acquire("third", 5)
	for key, there := range map[string]bool{"first": true, "hot": false, "second": true, "third": true} {
		hash := table.Hash(key)
		if got := table.Shard(hash).Find(hash, key) != None; got != there {
			t.Errorf("%q is there: %v, want %v", key, got, there)
		}
	}
}

func TestKeysOfEqualHashAreApart(t *testing.T) {
	table := newTable(t, math.MaxInt64, 0)
	const hash = 42
	keys := []string{"", "a", "b", "aa", strings.Repeat("x", 100), strings.Repeat("y", 100), strings.Repeat("x", 101)}
	for i, key := range keys {
		sh, h := table.Acquire(hash, key, 0)
		sh.State(h).value += uint64(i + 1)
		sh.Unlock()
	}
	sh := table.Shard(hash)
	for i, key := range keys {
		if got := sh.State(sh.Find(hash, key)).value; got != uint64(i+1) {
			t.Errorf("key %q holds %d, want %d", key, got, i+1)
		}
	}
	sh.Remove(sh.Find(hash, "b"))
	if sh.Find(hash, "b") != None || sh.State(sh.Find(hash, "aa")).value != 4 {
		t.Error("the wrong key was removed")
	}
}

// What a hot key was asked for counts when it is judged idle.
func TestHotKeyIsNotIdle(t *testing.T) {
	table := newTable(t, 10, 0)
	hash := table.Hash("hot")
	sh, h := table.Acquire(hash, "hot", 0)
	sh.Open(h, &Hot{Closes: math.MaxInt64, Window: 1})
	sh.Unlock()
	called(sh, 9).Take(1, 9, 1, true)
	if sh.sweep(18); table.Len() != 1 {
		t.Error("removed 9 after its last event, with an idle time of 10")
	}
	if sh.sweep(19); table.Len() != 0 {
		t.Error("not removed 10 after its last event")
	}
}
