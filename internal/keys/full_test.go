package keys

import (
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/window"
)

// withoutHotKeys lets no key become hot: another one is, in each shard.
func withoutHotKeys(t *Table) *Table {
	for i := range t.shards {
		f := &Hot{Closes: math.MaxInt64}
		f.since.Store(math.MaxInt64) // so no other key takes its place
		t.shards[i].open.Store(f)
	}
	return t
}

// judged judges a call under the lock.
func (t *Table) judged(key string, capacity uint64, now int64, n uint64) (v window.Verdict) {
	var hd Held
	t.Look(&hd, t.Hash(key))
	if have, ok := hd.Take(key, capacity, now, n); ok {
		return window.Verdict{Allowed: true, Now: have, Then: have}
	}
	hd.Acquire(key, now)
	newest := hd.Newest()
	hd.Absolute(&v, capacity, now, n, true)
	if v.Allowed {
		hd.Asked(newest, capacity, nil, now)
	} else {
		hd.Denied(newest, capacity, now, n)
	}
	hd.Unlock()
	return v
}

// fill denies calls for a key, which must have no room, until callers without a lock know that.
func (t *Table) fill(tb testing.TB, key string, now int64) *Full {
	tb.Helper()
	const capacity = 10
	for range worthFull {
		if v := t.judged(key, capacity, now, 1); v.Allowed {
			tb.Fatalf("%q has room: %+v", key, v)
		}
	}
	f := t.Full(t.Hash(key), key)
	if f == nil {
		tb.Fatalf("%q is full, and callers are not told", key)
	}
	return f
}

// sharing returns keys of one shard that have one place for a Full.
func (t *Table) sharing(n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		if hash := t.Hash(name(i)); hash>>t.shift == 0 && hash%(1<<fullBits) == 0 {
			keys = append(keys, name(i))
		}
	}
	return keys
}

// What callers without a lock say is what a twin says that always locks, whatever is done to the key.
func TestFullAgreesWithTheLock(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
		o := options(100*time.Second, 0, fine)
		o.Clock = func() int64 { return 0 }
		table, twin := withoutHotKeys(newTable(t, o)), withoutHotKeys(newTable(t, o))
		table.sweep.Close() // the clock stands still
		twin.sweep.Close()
		keys := []string{"a", "b", strings.Repeat("long", 20)}
		now, known := int64(0), 0
		change := func(key string, f func(hd *Held, now int64)) {
			for _, t := range []*Table{table, twin} {
				hd := t.acquire(key, now)
				f(hd, hd.Advance(now))
				hd.Unlock()
			}
		}
		calls := explore.Size(30_000, 2_000_000)
		for range calls {
			switch rng.IntN(40) {
			case 0:
				now += rng.Int64N(2 * o.Span.Window)
			case 1, 2:
				now += rng.Int64N(o.Span.Window / 20)
			default:
				now += rng.Int64N(3) * o.Span.Window / 10_000
			}
			key := keys[rng.IntN(len(keys))]
			switch rng.IntN(100) {
			case 0:
				change(key, func(hd *Held, _ int64) { hd.Clear() })
			case 1:
				change(key, func(hd *Held, now int64) { hd.Replace(now, 9) })
			case 2:
				at := now - rng.Int64N(o.Span.Window)
				change(key, func(hd *Held, now int64) { hd.Place(now, at, window.Counts{Admitted: 2}) })
			case 3:
				table.Remove(table.Hash(key), key)
				twin.Remove(twin.Hash(key), key)
			}
			capacity, n := 10*uint64(1+rng.IntN(8)/7), uint64(1+rng.IntN(8)/6)
			want := twin.judged(key, capacity, now, n)
			if f := table.Full(table.Hash(key), key); f != nil {
				if a, have, at, then := f.Deny(capacity, now, n); a != Unknown {
					known++
					is := window.Verdict{Now: have, Then: then, Wait: at - now}
					if a != Denied || is != want {
						t.Fatalf("at %d, %q, cost %d of %d: %v %+v, want %+v", now, key, n, capacity, a, is, want)
					}
					continue
				}
			}
			if is := table.judged(key, capacity, now, n); is != want {
				t.Fatalf("at %d, %q, cost %d of %d: %+v, want %+v", now, key, n, capacity, is, want)
			}
		}
		if t.Logf("%d denials without a lock", known); known < calls/50 {
			t.Errorf("only %d", known)
		}
	})
}

// Callers without a lock deny a call only while it has no room: a key is emptied here, and the next call for
// it is admitted.
func TestFullIsTakenBack(t *testing.T) {
	both(t, func(t *testing.T, fine bool) {
		table := withoutHotKeys(newTable(t, options(time.Hour, 0, fine)))
		const capacity, callers, rounds = 20, 2, 100
		hash := table.Hash("key")
		var full, stop atomic.Bool
		var denied atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for !stop.Load() {
					now := table.clock()
					if f := table.Full(hash, "key"); f != nil {
						now := table.clock()
						if a, _, _, _ := f.Deny(capacity, now, 1); a == Denied && f.Stands() {
							denied.Add(1)
							runtime.Gosched()
							continue
						}
					}
					if !table.judged("key", capacity, now, 1).Allowed {
						full.Store(true)
					}
				}
			})
		}
		for range rounds {
			for !full.Load() || table.Full(hash, "key") == nil {
				runtime.Gosched()
			}
			hd := table.acquire("key", table.clock())
			if n := hd.Counts().Admitted; n != capacity {
				t.Errorf("%d are admitted, want %d", n, capacity)
			}
			hd.Clear()
			if table.Full(hash, "key") != nil {
				t.Error("the key is empty, and callers deny")
			}
			full.Store(false)
			hd.Unlock()
		}
		stop.Store(true)
		wg.Wait()
		if denied.Load() == 0 {
			t.Error("nothing was denied without a lock")
		}
	})
}

// A Full serves one key until it is out of date; then another key may take its place. It is that of its key
// alone.
func TestFullsShareAPlace(t *testing.T) {
	o := options(time.Hour, 0, false)
	now := int64(0)
	o.Clock = func() int64 { return now }
	table := withoutHotKeys(newTable(t, o))
	table.sweep.Close() // the clock is only read by the test
	shared := table.sharing(2)
	for _, key := range shared {
		table.put(key, now, 10)
	}
	f := table.fill(t, shared[0], now)
	for range worthFull {
		table.judged(shared[1], 10, now, 1)
	}
	if table.Full(table.Hash(shared[0]), shared[0]) != f {
		t.Error("a Full has lost its place")
	}
	if table.Full(table.Hash(shared[0]), shared[1]) != nil {
		t.Error("a key has the Full of another one")
	}
	now = o.Span.Window - 1
	table.put(shared[1], now, 10)
	now++
	table.fill(t, shared[1], now)
	table.put(shared[0], now, 5) // which takes back what is not there
	table.fill(t, shared[1], now)
}

// A key that is only denied without the lock is not the one that was used the longest ago.
func TestFullKeyIsNotEvicted(t *testing.T) {
	o := options(time.Hour, 10, false)
	now := int64(0)
	o.Clock = func() int64 { return now }
	table := withoutHotKeys(newTable(t, o))
	table.sweep.Close() // the clock is only read by the test
	table.put("full", now, 10)
	table.fill(t, "full", now)
	locked := 0
	for i := range 100 {
		now += grain
		if f := table.Full(table.Hash("full"), "full"); f != nil {
			table.CalledFull(f, now)
		} else if locked++; table.judged("full", 10, now, 1).Allowed {
			t.Fatalf("after %d keys it was evicted", i)
		}
		table.put(name(i), now, 1)
	}
	if _, found := table.get("full", now); !found || locked > 60 {
		t.Errorf("found: %v; %d calls under the lock", found, locked)
	}
}

// What a Full knows of the use of its key is not lost when another key takes its place.
func TestDisplacedFullKeyIsNotEvicted(t *testing.T) {
	o := options(time.Hour, 3, false)
	now := int64(0)
	o.Clock = func() int64 { return now }
	table := withoutHotKeys(newTable(t, o))
	table.sweep.Close() // the clock is only read by the test
	shared := table.sharing(2)
	table.put(shared[0], now, 10)
	f := table.fill(t, shared[0], now)
	now = o.Span.Window / 2
	table.put("older", now, 1)
	now = o.Span.Window - 1
	table.CalledFull(f, now)
	table.put(shared[1], now, 10)
	now++
	if table.fill(t, shared[1], now); f.Stands() {
		t.Error("a Full that is out of date has kept its place")
	}
	table.put("new", now, 1)
	if _, found := table.get(shared[0], now); !found {
		t.Error("it was evicted, and another key was used before it")
	}
}

// Callers without a lock are told only what denies such calls as were denied: others would lock the entry all
// the same, and throw it away.
func TestFullIsOfUse(t *testing.T) {
	for _, hot := range []bool{false, true} {
		both(t, func(t *testing.T, fine bool) {
			table := newTable(t, options(time.Hour, 0, fine))
			if !hot {
				withoutHotKeys(table)
			}
			for i := range int64(10) {
				if !table.judged("key", 10, i*table.span.Bucket, 1).Allowed {
					t.Fatal("there is no room")
				}
			}
			now, hash := 10*table.span.Bucket, table.Hash("key")
			call := func(n uint64) {
				if table.judged("key", 10, now, n).Allowed {
					t.Fatal("there is room")
				}
			}
			told := func() bool { return table.Full(hash, "key") != nil || table.Hot(hash, "key") != nil }
			for range 2 * worthIt {
				call(2)
				if told() {
					t.Fatal("a call fits when two cells have expired, and callers are told of one")
				}
			}
			known := false
			for range worthFull {
				call(1)
				known = known || told()
			}
			if !known {
				t.Error("a call fits when a cell has expired, and callers are not told")
			}
		})
	}
}

// The fulls of an emptied shard are given back.
func TestFullsAreGivenBack(t *testing.T) {
	table := withoutHotKeys(newTable(t, options(time.Hour, 0, false)))
	table.put("key", 0, 10)
	table.fill(t, "key", 0)
	table.Remove(table.Hash("key"), "key")
	if table.Full(table.Hash("key"), "key") != nil || table.shard(table.Hash("key")).fulls.Load() != nil {
		t.Error("they are still there")
	}
}
