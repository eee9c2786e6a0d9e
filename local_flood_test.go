package trypema_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
)

// New keys without end, thousands in a window: the keys held stay within those of two windows and a bit, or
// MaxKeys, and so does memory; and a key that is in use meanwhile has its limit, no more and no less.
func TestFloodOfKeys(t *testing.T) {
	const window, tick = time.Second, 10 * time.Millisecond
	each, ticks := 50, 300
	if explore.Long() {
		each, ticks = 100, 800
	}
	for _, test := range []struct {
		maxKeys, most int
	}{{0, 220 * each}, {500, 500}} {
		for _, suppressed := range []bool{false, true} {
			t.Run(fmt.Sprintf("MaxKeys %d, suppressed %v", test.maxKeys, suppressed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLocal(t, trypema.Options{Window: window, MaxKeys: test.maxKeys, HardLimitFactor: 1})
					limiter, began := l.Absolute(), time.Now()
					if suppressed {
						limiter = l.Suppressed()
					}
					var log []anywindow.Admission
					var early uint64
					most := 0
					for i := range ticks {
						for j := range each {
							if _, err := limiter.Allow(t.Context(), fmt.Sprint(i*each+j), 10); err != nil {
								t.Fatal(err)
							}
						}
						for range 2 { // twice its limit
							if d, err := limiter.Allow(t.Context(), "victim", 100); err != nil {
								t.Fatal(err)
							} else if d.Allowed {
								log = append(log,
									anywindow.Admission{From: time.Now(), To: time.Now(), Cost: 1})
							}
						}
						most = max(most, l.Len())
						if i == 200 {
							early = heap()
						}
						time.Sleep(tick)
						synctest.Wait()
					}
					if late := heap(); late > early+early/2+1<<20 {
						t.Errorf("%d bytes after two windows, %d after %d", early, late, ticks/100)
					}
					if most > test.most {
						t.Errorf("%d keys held, want at most %d", most, test.most)
					}
					full, windows := anywindow.Most(log, window), time.Since(began).Seconds()
					t.Logf("at most %d keys held; the victim: at most %d of 100 in a window, %d in %.0f windows",
						most, full, len(log), windows)
					if full != 100 || float64(len(log)) < 95*windows {
						t.Errorf("a key in use: %d of 100 admitted in a window, %d in %.0f windows", full,
							len(log), windows)
					}
					time.Sleep(20 * window)
					synctest.Wait()
					if n := l.Len(); n > 0 {
						t.Errorf("%d keys are left", n)
					}
				})
			})
		}
	}
}

// Thousands of callers of one key at once: the capacity is admitted, to the last, and nothing is left of
// them.
func TestCrowdOnOneKey(t *testing.T) {
	const callers, capacity = 3000, 1234
	l := newLocal(t, trypema.Options{Window: time.Hour, HardLimitFactor: 1})
	rate := trypema.Per(capacity, time.Hour)
	multi, err := l.Bind(trypema.StrategyAbsolute, trypema.Limit{Rate: rate, Window: time.Hour},
		trypema.Limit{Rate: 1e6, Window: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for name, allow := range map[string]func(context.Context) (trypema.Decision, error){
		"Absolute": func(ctx context.Context) (trypema.Decision, error) {
			return l.Absolute().Allow(ctx, "k", rate)
		},
		"Suppressed": func(ctx context.Context) (trypema.Decision, error) {
			return l.Suppressed().Allow(ctx, "k", rate)
		},
		"several": func(ctx context.Context) (trypema.Decision, error) { return multi.Allow(ctx, "several") },
	} {
		before, goroutines := heap(), runtime.NumGoroutine()
		var admitted atomic.Int64
		var all sync.WaitGroup
		start := make(chan struct{})
		for range callers {
			all.Go(func() {
				<-start
				for range 2 {
					d, err := allow(t.Context())
					if err != nil {
						t.Error(err)
					}
					if d.Allowed {
						admitted.Add(1)
					}
				}
			})
		}
		close(start)
		all.Wait()
		if n := admitted.Load(); n != capacity {
			t.Errorf("%s: %d admitted, want %d", name, n, capacity)
		}
		// The runtime keeps the goroutines that have ended for others.
		if after := heap(); after > before+10<<20 || runtime.NumGoroutine() > goroutines+2 {
			t.Errorf("%s: %d bytes before, %d after; %d goroutines before, %d after", name, before, after,
				goroutines, runtime.NumGoroutine())
		}
	}
}

// Keys of a megabyte work, and take their memory along when they go.
func TestHugeKeys(t *testing.T) {
	const n = 10
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, trypema.Options{Window: time.Second})
		before := heap()
		key := func(i int) string { return strings.Repeat("x", 1<<20) + fmt.Sprint(i) }
		for round := range 2 {
			for i := range n {
				for name, limiter := range each(l) {
					if d, err := limiter.Allow(t.Context(), key(i), 2); err != nil || !d.Allowed ||
						d.Remaining != uint64(1-round) {
						t.Errorf("%s, key %d: %+v, %v", name, i, d, err)
					}
				}
			}
		}
		if held := heap() - before; held > 3*2*n<<20 {
			t.Errorf("%d keys of a megabyte for two strategies hold %d bytes", n, held)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if left := heap(); left > before+1<<20 || l.Len() > 0 {
			t.Errorf("%d keys and %d bytes are left", l.Len(), left-before)
		}
	})
}
