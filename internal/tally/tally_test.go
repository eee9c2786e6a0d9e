package tally

import (
	"fmt"
	"maps"
	"math"
	"sync"
	"testing"
	"time"
	"unsafe"
)

func TestStripeIsOneCacheLine(t *testing.T) {
	if size := unsafe.Sizeof(stripe{}); size != 64 {
		t.Errorf("%d bytes", size)
	}
}

func TestCountIsExact(t *testing.T) {
	tally := New()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 10_000 {
				tally.Count(Cell(i % 5))
			}
		})
	}
	wg.Wait()
	c := tally.Read(true)
	got := []uint64{c.Allowed, c.Suppressed, c.Errors, c.Fallbacks, c.Waited}
	if fmt.Sprint(got) != "[32000 32000 32000 32000 32000]" || c.Rejected != 0 {
		t.Errorf("%+v", c)
	}
	if c = tally.Read(false); c.Rejected != 32000 || c.Suppressed != 0 {
		t.Errorf("%+v", c)
	}
}

// What samples stand for adds up to all calls; also of those that come at regular distances, which every
// 1024th call might miss.
func TestSamplesStandForAll(t *testing.T) {
	const calls, step = 1 << 20, 16
	tally := New()
	var sum [step]uint64
	for i := range calls {
		sum[i%step] += tally.Count(Denied)
	}
	for i, n := range sum {
		if math.Abs(float64(n)/(calls/step)-1) > .15 {
			t.Errorf("of each %d calls, those numbered %d: samples stand for %d, want about %d", step, i, n,
				calls/step)
		}
	}
}

func TestLatencyBuckets(t *testing.T) {
	for took, bucket := range map[time.Duration]int{-1: 0, 0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 1023: 10, 1024: 11,
		time.Hour: Buckets - 1} {
		tally := New()
		tally.Took(took)
		c := tally.Read(false)
		if c.Latency[bucket] != 1 || c.LatencySum != max(took, 0) {
			t.Errorf("%v: %+v", took, c)
		}
	}
}

// No key is said to have been denied more often than it was, and the most frequent ones are all there.
func TestTopIsALowerBound(t *testing.T) {
	var top top
	top.init()
	truth := map[string]uint64{}
	for i := range 200_000 {
		key := fmt.Sprint("rare ", i%10_000)
		if i%2 == 0 {
			key = fmt.Sprint("often ", i%40)
		}
		truth[key]++
		top.add(key, 1, top.halved)
	}
	got := top.denied(top.halved)
	for key, n := range got {
		if n > truth[key] {
			t.Errorf("%q: %d of %d", key, n, truth[key])
		}
	}
	for key := range Ranked(got, 20) {
		if truth[key] != 5000 {
			t.Errorf("%q is among the first 20", key)
		}
	}
	if len(maps.Collect(Ranked(got, 1000))) > Most {
		t.Error("more keys than places")
	}
}

func TestTopHalves(t *testing.T) {
	for after, want := range map[time.Duration]uint64{59 * time.Second: 100, time.Minute: 50, 3 * time.Minute: 12} {
		var top top
		top.init()
		start := top.halved
		top.add("a", 100, start.Add(30*time.Second))
		if got := top.denied(start.Add(after))["a"]; got != want {
			t.Errorf("%d after %v, want %d", got, after, want)
		}
	}
}

func TestTopKeepsNoLongKeys(t *testing.T) {
	var top top
	top.init()
	top.add(string(make([]byte, 1<<20)), 1, top.halved)
	for key := range top.denied(top.halved) {
		if len(key) != MaxKeyLen {
			t.Errorf("%d bytes of a key", len(key))
		}
	}
}

func TestTopDoesNotAllocate(t *testing.T) {
	var top top
	top.init()
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("key %04d", i)
	}
	i := 0
	add := func() { top.add(keys[i%len(keys)], 1, top.halved); i++ }
	for range 1000 {
		add()
	}
	if n := testing.AllocsPerRun(1000, add); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
