package hybridlimit_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// New keys without end: an instance holds those of a few seconds, or MaxKeys; and a key in use has its limit,
// even if it is asked for so seldom that it is always the one that makes room: what it has used is in Redis.
func TestFloodOfKeys(t *testing.T) {
	const window = time.Second
	for _, test := range []struct {
		maxKeys, most, pause int // the victim is called once in so many ticks
		suppressed           bool
	}{{0, 12_000, 1, false}, {50, 50, 1, false}, {50, 50, 1, true}, {50, 50, 10, false}, {50, 50, 10, true}} {
		t.Run(fmt.Sprintf("MaxKeys %d, once in %d, %s", test.maxKeys, test.pause, name(test.suppressed)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = time.Millisecond
				p := open(t, f, hybridlimit.Options{Options: redislimit.Options{
					Options: trypema.Options{Window: window, MaxKeys: test.maxKeys, HardLimitFactor: 1}, OnFailure: redislimit.FailClosed,
				}})
				limiter := strategy(p, test.suppressed)
				capacity := uint64(100 / test.pause)
				var log []anywindow.Admission
				most, began := 0, time.Now()
				for i := range map[bool]int{false: 200, true: 600}[explore.Long()] {
					var flood sync.WaitGroup
					for j := range 10 {
						flood.Go(func() {
							if _, err := limiter.Allow(ctx, fmt.Sprint(i*10+j), 10); err != nil {
								t.Error(err)
							}
						})
					}
					for range 2 {
						if i%test.pause > 0 {
							break
						}
						from := time.Now()
						if d, err := limiter.Allow(ctx, "victim", trypema.Per(float64(capacity), window)); err != nil || d.Fallback {
							t.Fatal(d, err)
						} else if d.Allowed {
							log = append(log, anywindow.Admission{From: from, To: time.Now(), Cost: 1})
						}
					}
					flood.Wait()
					most = max(most, p.Len())
					time.Sleep(10 * time.Millisecond)
				}
				if most > test.most {
					t.Errorf("%d keys held, want at most %d", most, test.most)
				}
				full, windows := anywindow.Most(log, window), time.Since(began).Seconds()
				t.Logf("at most %d keys held; the victim: at most %d of %d in a window, %d in %.1f windows",
					most, full, capacity, len(log), windows)
				// The two calls of the last tick may come a moment too early.
				if full > capacity || float64(len(log)) < .95*float64(capacity)*windows-2 {
					t.Errorf("a key in use: %d of %d admitted in a window, %d in %.1f windows", full,
						capacity, len(log), windows)
				}
			})
		})
	}
}

// Ten thousand callers of one key at once, at three instances: the capacity is admitted, to the last, in some
// round trips.
func TestCrowdOnOneKey(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const callers, capacity = 10_000, 1234
			f := newFleet(t, 3, capacity, suppressed,
				redislimit.Options{Options: trypema.Options{HardLimitFactor: 1}, OnFailure: redislimit.FailClosed})
			var admitted atomic.Int64
			var all sync.WaitGroup
			began := time.Now()
			for round := range 3 {
				for i := range []int{callers, callers / 10, callers / 10}[round] {
					all.Go(func() {
						d, err := f.limiters[i%3].Allow(ctx, "k", f.rate)
						if err != nil || d.Fallback {
							t.Errorf("%+v, %v", d, err)
						}
						if d.Allowed {
							admitted.Add(1)
						}
					})
				}
				all.Wait()
				if took := time.Since(began); round == 0 && took > 20*time.Millisecond {
					t.Errorf("the first took %v", took)
				}
				time.Sleep(time.Second)
			}
			if n := admitted.Load(); n > capacity || n < capacity*95/100 {
				t.Errorf("suppressed %v: %d admitted, want %d", suppressed, n, capacity)
			}
			synctest.Wait() // for exchanges, which count themselves
			if f.redis.Runs > 400 {
				t.Errorf("suppressed %v: %d round trips", suppressed, f.redis.Runs)
			}
		})
	}
}

// A call that waits for Redis while its key makes room for another is answered all the same, by the first
// answers, and not at the end of the timeout without Redis.
func TestRemovedWhileCallsWait(t *testing.T) {
	for _, maxKeys := range []int{1, 4} {
		for _, suppressed := range []bool{false, true} {
			for bound := range 3 { // limits; 0 is a Limiter
				t.Run(fmt.Sprintf("MaxKeys %d, %s, %d bound", maxKeys, name(suppressed), bound), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { removedWhileCallsWait(t, maxKeys, suppressed, bound) })
				})
			}
		}
	}
}

func removedWhileCallsWait(t *testing.T, maxKeys int, suppressed bool, bound int) {
	const callers, delay = 40, 10 * time.Millisecond
	f := fakeredis.New()
	f.Delay = delay
	p := open(t, f, hybridlimit.Options{Options: redislimit.Options{
		Options: trypema.Options{MaxKeys: maxKeys}, OnFailure: redislimit.FailClosed,
	}})
	limits := []trypema.Limit{trypema.AtMost(100, time.Second), trypema.AtMost(1000, 10*time.Second)}
	s := map[bool]trypema.Strategy{true: trypema.StrategySuppressed}[suppressed]
	b, err := p.Bind(s, limits[:max(bound, 1)]...)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			time.Sleep(time.Duration(i) * delay / 20) // most of them find all flights under way
			key, began := fmt.Sprint(i), time.Now()
			var d trypema.Decision
			var err error
			if bound > 0 {
				d, err = b.Allow(ctx, key)
			} else {
				d, err = strategy(p, suppressed).Allow(ctx, key, 10)
			}
			if took := time.Since(began); err != nil || d.Fallback || !d.Allowed || took > 10*delay {
				t.Errorf("key %d: %+v, %v, after %v", i, d, err, took)
			}
		})
	}
	all.Wait()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for i := range callers {
		for _, kind := range []string{"ha", "hs"} {
			for _, w := range []time.Duration{time.Second, 10 * time.Second} {
				live, leased := f.Live(fmt.Sprintf("{trypema:%d}:%s:%v", i, kind, w), w, w/100)
				if leased != 0 || live.Admitted > 1 {
					t.Errorf("key %d, %s, %v: %+v and %d on lease after Close", i, kind, w, live, leased)
				}
			}
		}
	}
}

// A call whose key makes room for another while it waits is declined as often as if it had not.
func TestRemovedIsSuppressed(t *testing.T) {
	for _, bound := range []bool{false, true} { // to two limits; otherwise it is a Limiter
		t.Run(fmt.Sprintf("Bound %v", bound), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = 10 * time.Millisecond
				o := hybridlimit.Options{Options: redislimit.Options{Options: trypema.Options{Window: time.Second}}}
				other := open(t, f, o).Suppressed()
				o.MaxKeys = 1
				p := open(t, f, o)
				b, err := p.Bind(trypema.StrategySuppressed,
					trypema.AtMost(100, time.Second), trypema.AtMost(1e6, time.Minute))
				if err != nil {
					t.Fatal(err)
				}
				allow := func(key string) trypema.Decision {
					call := func() (trypema.Decision, error) { return p.Suppressed().Allow(ctx, key, 100) }
					if bound && key == "k" {
						call = func() (trypema.Decision, error) { return b.Allow(ctx, key) }
					}
					d, err := call()
					if err != nil || d.Fallback {
						t.Error(d, err)
					}
					return d
				}
				var all sync.WaitGroup
				var calls, admitted atomic.Int64
				n := 1500
				if explore.Long() {
					n = 4000
				}
				for i := range n {
					if i%2 == 0 { // the key has several times its limit
						if _, err := other.Allow(ctx, "k", 100); err != nil {
							t.Fatal(err)
						}
					}
					all.Go(func() { allow(fmt.Sprint(i)) }) // which takes the room of k
					if i%10 == 0 {
						all.Go(func() {
							if d := allow("k"); i >= n/4 {
								if calls.Add(1); d.Allowed {
									admitted.Add(1)
								}
							}
						})
					}
					time.Sleep(2 * time.Millisecond)
				}
				all.Wait()
				if n := admitted.Load(); n < calls.Load()/8 || n > calls.Load()/2 {
					t.Errorf("%d of %d calls were admitted", n, calls.Load())
				}
			})
		})
	}
}

// The longest key is a megabyte; one byte more is an error that says so.
func TestHugeKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, fakeredis.New(), hybridlimit.Options{})
		longest := strings.Repeat("x", 1<<20)
		for _, limiter := range []trypema.Limiter{p.Absolute(), p.Suppressed()} {
			if d, err := limiter.Allow(ctx, longest, 10); err != nil || !d.Allowed || d.Fallback {
				t.Errorf("%+v, %v", d, err)
			}
			if d, err := limiter.Allow(ctx, longest+"x", 10); !errors.Is(err, trypema.ErrInvalidKey) ||
				len(err.Error()) > 200 || !strings.Contains(err.Error(), "1048577") || d.Allowed {
				t.Errorf("%+v, %v", d, err)
			}
		}
	})
}
