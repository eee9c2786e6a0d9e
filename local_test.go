package trypema_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/limittest"
)

func TestLocalConforms(t *testing.T) {
	for name, suppressed := range map[string]bool{"Absolute": false, "Suppressed": true} {
		t.Run(name, func(t *testing.T) {
			limittest.Run(t, limittest.Subject{
				New: func(t *testing.T, o trypema.Options) trypema.Limiter {
					if suppressed {
						return newLocal(t, o).Suppressed()
					}
					return newLocal(t, o).Absolute()
				},
				Suppressed: suppressed,
				In:         synctest.Test,
				EmptyKey:   true,
			})
		})
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		code = leaks()
	}
	os.Exit(code)
}

// leaks reports goroutines that outlive the tests.
func leaks() int {
	var stacks []byte
	for range 50 {
		buf := make([]byte, 1<<20)
		stacks = buf[:runtime.Stack(buf, true)]
		others := 0
		for _, stack := range bytes.Split(stacks, []byte("\n\n")) {
			if bytes.Contains(stack, []byte("trypema")) && !bytes.Contains(stack, []byte("TestMain")) {
				others++
			}
		}
		if others == 0 {
			return 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("goroutines leaked:\n%s\n", stacks)
	return 1
}

func each(l *trypema.Local) map[string]trypema.Limiter {
	return map[string]trypema.Limiter{"Absolute": l.Absolute(), "Suppressed": l.Suppressed()}
}

func TestStrategiesShareNothing(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	ctx := t.Context()
	l.Absolute().AllowN(ctx, "k", 10, 40)
	l.Suppressed().AllowN(ctx, "k", 10, 2)
	a, _ := l.Absolute().Usage(ctx, "k", 10)
	s, _ := l.Suppressed().Usage(ctx, "k", 10)
	if a.Total != 40 || s.Total != 2 {
		t.Errorf("totals %d and %d, want 40 and 2", a.Total, s.Total)
	}
}

func TestCloseIsFinalAndIdempotent(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	ctx := t.Context()
	limiters := each(l)
	for _, limiter := range limiters {
		limiter.Allow(ctx, "k", 10)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, limiter := range limiters {
		_, allow := limiter.Allow(ctx, "k", 10)
		_, allowN := limiter.AllowN(ctx, "k", 10, 2)
		_, peek := limiter.Peek(ctx, "k", 10, 1)
		_, usage := limiter.Usage(ctx, "k", 10)
		_, set := limiter.Set(ctx, "k", trypema.Always(), 1, trypema.Replace)
		for verb, err := range map[string]error{
			"Allow": allow, "AllowN": allowN, "Peek": peek, "Usage": usage, "Set": set,
			"Delete": limiter.Delete(ctx, "k"),
		} {
			if !errors.Is(err, trypema.ErrClosed) {
				t.Errorf("%s %s after Close: %v", name, verb, err)
			}
		}
	}
	if l.Len() != 0 {
		t.Errorf("%d keys after Close", l.Len())
	}
}

// Close comes in the middle of calls: each is answered, or is ErrClosed.
func TestCloseUnderLoad(t *testing.T) {
	for range 20 {
		l := newLocal(t, trypema.Options{Window: time.Millisecond})
		var wg sync.WaitGroup
		for c := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					for _, limiter := range each(l) {
						if _, err := limiter.Allow(t.Context(), fmt.Sprint(c, i%100), 1e6); err != nil {
							if !errors.Is(err, trypema.ErrClosed) {
								t.Error(err)
							}
							return
						}
					}
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		l.Close()
		wg.Wait()
	}
}

func TestIdleKeysLeaveNotTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := trypema.Options{Window: time.Minute, Bucket: 10 * time.Second}
		l := newLocal(t, o)
		const keys = 1000
		for _, limiter := range each(l) {
			for i := range keys {
				limiter.Allow(t.Context(), fmt.Sprint(i), 1)
			}
		}
		time.Sleep(o.Window + o.Bucket - 1)
		synctest.Wait()
		if l.Len() != 2*keys {
			t.Fatalf("%d of %d keys left before W + B", 2*keys-l.Len(), 2*keys)
		}
		time.Sleep(2 * (o.Window + o.Bucket))
		synctest.Wait()
		if l.Len() != 0 {
			t.Fatalf("%d idle keys are still there", l.Len())
		}
	})
}

// A hot key is used without the lock, where the sweep does not see it.
func TestHotKeyIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, trypema.Options{Window: 100 * time.Millisecond, Bucket: 100 * time.Millisecond})
		limiter := l.Absolute()
		for range 100 {
			for range 40 {
				limiter.Allow(t.Context(), "hot", 1000)
			}
			time.Sleep(99 * time.Millisecond)
			synctest.Wait()
			if l.Len() != 1 {
				t.Fatal("a key in use was removed")
			}
		}
	})
}

func TestMaxKeys(t *testing.T) {
	const most = 100
	rate := trypema.Per(10, time.Hour) // no key is idle for long enough to leave by itself
	l := newLocal(t, trypema.Options{MaxKeys: most, HardLimitFactor: 1, Window: time.Hour})
	for name, limiter := range each(l) {
		before := l.Len()
		ctx := t.Context()
		limiter.AllowN(ctx, "kept", rate, 10)
		for i := range 50 * most {
			limiter.Allow(ctx, fmt.Sprint(i), rate)
			if d, _ := limiter.Allow(ctx, "kept", rate); d.Allowed {
				t.Fatalf("%s: the key in use was forgotten", name)
			}
			if n := l.Len() - before; n > most {
				t.Fatalf("%s: %d keys", name, n)
			}
		}
		// Of the others the last ones are there.
		for i := 50*most - 1; i >= 49*most+1; i-- {
			if u, _ := limiter.Usage(ctx, fmt.Sprint(i), rate); u.Total != 1 {
				t.Fatalf("%s: key %d of %d was forgotten", name, i, 50*most)
			}
		}
		if u, _ := limiter.Usage(ctx, fmt.Sprint(49*most), rate); u.Total != 0 {
			t.Errorf("%s: the key that was idle the longest is still there", name)
		}
		// What writes nothing takes nobody's place.
		limiter.Set(ctx, "new", trypema.Greater(0), 5, trypema.Replace)
		limiter.Set(ctx, "new", trypema.Always(), 0, trypema.Replace)
		limiter.Peek(ctx, "new", rate, 1)
		if u, _ := limiter.Usage(ctx, fmt.Sprint(49*most+1), rate); u.Total != 1 {
			t.Errorf("%s: a key was forgotten for nothing", name)
		}
	}
	if n := l.Len(); n != 2*most {
		t.Errorf("%d keys, want %d for each strategy", n, most)
	}
}

func TestMaxKeysUnderConcurrency(t *testing.T) {
	const most = 50
	l := newLocal(t, trypema.Options{MaxKeys: most})
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range explore.Size(2500, 50_000) {
				l.Absolute().Allow(t.Context(), fmt.Sprint(c, i%200), 1)
				if n := l.Len(); n > most+8 {
					t.Errorf("%d keys", n)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := l.Len(); n > most {
		t.Errorf("%d keys", n)
	}
}

// heap returns the bytes in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMillionKeysInBoundedMemory(t *testing.T) {
	n := 50_000 // also under -short: fewer do not fill their pages
	if explore.Long() {
		n = 1_000_000
	}
	for _, strategy := range []string{"Absolute", "Suppressed"} {
		l := newLocal(t, trypema.Options{Window: time.Hour})
		limiter := each(l)[strategy]
		before := heap()
		for i := range n {
			limiter.Allow(t.Context(), fmt.Sprint("user:", i), 1)
		}
		perKey := float64(heap()-before) / float64(n)
		t.Logf("%s: %.0f bytes per key", strategy, perKey)
		if l.Len() != n || perKey > 160 {
			t.Errorf("%s: %d keys, %.0f bytes for each, want %d and at most 160", strategy, l.Len(), perKey, n)
		}
		if l.Close(); heap() > before+1<<20 {
			t.Errorf("%s: memory held after Close", strategy)
		}
	}
}

// Keys that have left have taken their memory along.
func TestIdleKeysGiveMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := trypema.Options{Window: time.Second}
		l := newLocal(t, o)
		before := heap()
		for i := range 25_000 {
			limiter := l.Absolute()
			if i%2 == 0 {
				limiter = l.Suppressed()
			}
			limiter.Allow(t.Context(), fmt.Sprint("user:", i), 100)
		}
		if held := heap() - before; held < 1<<20 {
			t.Fatalf("25,000 keys hold %d bytes", held)
		}
		time.Sleep(20 * o.Window)
		synctest.Wait()
		if l.Len() > 0 {
			t.Errorf("%d idle keys are still there", l.Len())
		}
		if left := heap(); left > before+1<<20 {
			t.Errorf("%d bytes held by no keys", left-before)
		}
	})
}

func TestDroppedLocalIsCollected(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	before := heap()
	for range 100 {
		l, err := trypema.NewLocal(trypema.Options{Window: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			l.Absolute().Allow(t.Context(), fmt.Sprint(i), 1)
		}
	}
	if held := int64(heap()) - int64(before); held > 1<<20 {
		t.Errorf("100 dropped providers hold %d bytes", held)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

func TestNoAllocations(t *testing.T) {
	t.Run("observed", func(t *testing.T) { noAllocations(t, trypema.Options{Observer: new(trypema.Meters)}) })
	t.Run("not observed", func(t *testing.T) { noAllocations(t, trypema.Options{}) })
}

func noAllocations(t *testing.T, o trypema.Options) {
	l := newLocal(t, o)
	names := keys(1000)
	for name, limiter := range each(l) {
		for _, test := range []struct {
			what string
			rate trypema.Rate
			keys []string
		}{
			{"one key under its limit", trypema.Unlimited, []string{"a"}},
			{"one key over its limit", 1, []string{"b"}},
			{"many keys", 100, names},
		} {
			i := 0
			call := func() {
				limiter.Allow(t.Context(), test.keys[i%len(test.keys)], test.rate)
				i++
			}
			for range 5000 {
				call()
			}
			if n := testing.AllocsPerRun(10_000, call); n != 0 {
				t.Errorf("%s, %s: %v allocations per call", name, test.what, n)
			}
		}
	}
}

// Sixteen callers at once on one key, for many windows, with readers in between: no window ever holds more
// than C by calls that certainly fell into it. How much is admitted depends on how often the machine lets the
// callers run; more than one window's worth shows that windows slide.
func TestNeverAboveUnderConcurrency(t *testing.T) {
	const capacity, window, callers = 500, 50 * time.Millisecond, 16
	windows := time.Duration(explore.Size(10, 100))
	l := newLocal(t, trypema.Options{Window: window, Bucket: time.Millisecond})
	limiter := l.Absolute()
	rate := trypema.Per(capacity, window)
	type call struct{ before, after time.Duration }
	var calls [callers][]call
	var wg sync.WaitGroup
	start := time.Now()
	for c := range callers {
		wg.Go(func() {
			for i := 0; time.Since(start) < windows*window; i++ {
				before := time.Since(start)
				d, err := limiter.Allow(t.Context(), "k", rate)
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					calls[c] = append(calls[c], call{before, time.Since(start)})
				}
				if i%64 == 0 {
					limiter.Peek(t.Context(), "k", rate, 3)
					limiter.Usage(t.Context(), "k", rate)
				}
				if i%16 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(calls[:]...)
	slices.SortFunc(all, func(a, b call) int { return int(a.before - b.before) })
	for i, first := range all {
		n := 0
		for _, a := range all[i:] {
			if a.before >= first.before+window {
				break
			}
			if a.after < first.before+window {
				n++
			}
		}
		if n > capacity {
			t.Fatalf("%d admitted in the window from %v", n, first.before)
		}
	}
	if len(all) <= capacity {
		t.Errorf("%d admitted in %d windows of %d", len(all), windows, capacity)
	}
}

// Delete and Set race with Allow: a total never wraps, and never passes the limit.
func TestDeleteUnderLoad(t *testing.T) {
	const capacity, callers = 100, 8
	l := newLocal(t, trypema.Options{HardLimitFactor: 1, MaxKeys: 4})
	rate := trypema.Per(capacity, 10*time.Second)
	for name, limiter := range each(l) {
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := range explore.Size(2500, 50_000) {
					key := fmt.Sprint("k", i%3)
					d, err := limiter.Allow(t.Context(), key, rate)
					u, err2 := limiter.Usage(t.Context(), key, rate)
					switch i % 50 {
					case c:
						err = errors.Join(err, limiter.Delete(t.Context(), key))
					case c + 10:
						_, err = limiter.Set(t.Context(), key, trypema.Greater(10), 10, trypema.KeepNewest)
					case c + 20:
						limiter.Allow(t.Context(), fmt.Sprint("other", i), rate)
					}
					if err = errors.Join(err, err2); err != nil || u.Total-u.Declined > capacity ||
						d.Remaining > capacity {
						t.Errorf("%s: %+v, %+v, %v", name, u, d, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// A denial makes no key, so that nobody can fill the table with calls that are never admitted.
func TestDenialMakesNoKey(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	for i := range 100 {
		l.Absolute().AllowN(t.Context(), fmt.Sprint(i), 1, 11)
		l.Absolute().Peek(t.Context(), fmt.Sprint(i), 1, 1)
		l.Absolute().Usage(t.Context(), fmt.Sprint(i), 1)
	}
	if l.Len() != 0 {
		t.Errorf("%d keys of nothing", l.Len())
	}
}

// Keys that stay keep their groups when those that leave let the table shrink.
func TestShrinkingKeepsGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, trypema.Options{Window: 10 * time.Second, Bucket: time.Second})
		limiter := l.Absolute()
		for i := range 20_000 {
			limiter.Allow(t.Context(), fmt.Sprint(i), 1000)
		}
		const stay = 100
		for second := range 25 {
			for i := range stay {
				limiter.AllowN(t.Context(), fmt.Sprint(i), 1000, uint64(second+1))
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if l.Len() != stay {
			t.Fatalf("%d keys, want %d", l.Len(), stay)
		}
		for i := range stay {
			// Of 25 cells, a second long, those that have not ended ten seconds ago are live: 16 + … + 25.
			if u, _ := limiter.Usage(t.Context(), fmt.Sprint(i), 1000); u.Total != 205 {
				t.Fatalf("key %d: %+v, want a Total of 205", i, u)
			}
		}
	})
}
