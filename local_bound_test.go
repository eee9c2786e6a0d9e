package trypema_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/limittest"
)

// The suite that every provider passes.
func TestMulti(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		t.Run(map[bool]string{false: "Absolute", true: "Suppressed"}[suppressed], func(t *testing.T) {
			limittest.RunBind(t, limittest.Subject{Suppressed: suppressed, In: synctest.Test, EmptyKey: true},
				func(t *testing.T, o trypema.Options) trypema.Provider { return newLocal(t, o) })
		})
	}
}

// The options of the provider say how fine the windows of its limits are.
func TestMultiSharesTheWindowOfTheProvider(t *testing.T) {
	ctx := context.Background()
	l := newLocal(t, trypema.Options{Window: time.Second})
	m, err := l.Bind(trypema.StrategyAbsolute,
		trypema.Limit{Rate: trypema.PerSecond(10), Window: time.Second},
		trypema.Limit{Rate: trypema.PerMinute(60), Window: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.AllowN(ctx, "k", 4); err != nil {
		t.Fatal(err)
	}
	for _, of := range []struct {
		limiter trypema.Limiter
		want    uint64
	}{{l.Absolute(), 4}, {l.Suppressed(), 0}} {
		if u, _ := of.limiter.Usage(ctx, "k", trypema.PerSecond(10)); u.Total != of.want {
			t.Errorf("%+v, want a total of %d", u, of.want)
		}
	}
	if n := l.Len(); n != 2 {
		t.Errorf("%d keys, want one for each window", n)
	}
	l.Close()
	if _, err := m.Allow(ctx, "k"); !errors.Is(err, trypema.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	late, err := l.Bind(trypema.StrategyAbsolute, trypema.Limit{Rate: 1, Window: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Allow(ctx, "k"); !errors.Is(err, trypema.ErrClosed) {
		t.Errorf("made after Close: %v", err)
	}
}

// A call that Suppressed declines is observed, so it makes the wait longer; the RetryAfter that comes with it
// says so.
func TestMultiWaitsForWhatItDeclines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l := newLocal(t, trypema.Options{HardLimitFactor: 1})
		m, err := l.Bind(trypema.StrategySuppressed, trypema.Limit{Rate: 1, Window: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := m.Allow(ctx, "k"); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		time.Sleep(time.Nanosecond)
		d, err := m.Allow(ctx, "k")
		if err != nil || d.Allowed {
			t.Fatal(d, err)
		}
		time.Sleep(d.RetryAfter - 1)
		if d, err := m.Peek(ctx, "k", 1); err != nil || d.Allowed {
			t.Errorf("an instant before its RetryAfter: %+v, %v", d, err)
		}
		time.Sleep(time.Nanosecond)
		if d, err := m.Allow(ctx, "k"); err != nil || !d.Allowed {
			t.Errorf("after its RetryAfter: %+v, %v", d, err)
		}
	})
}

// A call that waits for a reservation is told when that expires, which is less than a bucket late; with
// nothing else in the window, exactly.
func TestRetryAfterAReservation(t *testing.T) {
	for _, w := range []time.Duration{time.Second, time.Minute, 24 * time.Hour} {
		for _, bucket := range []time.Duration{time.Millisecond, w / 100, w} {
			for _, others := range []uint64{0, 10} {
				synctest.Test(t, func(t *testing.T) {
					l := newLocal(t, trypema.Options{Window: w, Bucket: bucket})
					m, err := l.Bind(trypema.StrategyAbsolute,
						trypema.Limit{Rate: trypema.Per(100, w), Window: w})
					if err != nil {
						t.Fatal(err)
					}
					if others > 0 {
						if d, err := m.AllowN(t.Context(), "k", others); err != nil || !d.Allowed {
							t.Fatal(d, err)
						}
					}
					expiry := w / 7
					if r, err := m.Reserve(t.Context(), "k", 90, expiry); err != nil || !r.Allowed {
						t.Fatal(r, err)
					}
					d, err := m.AllowN(t.Context(), "k", 50)
					if err != nil || d.Allowed {
						t.Fatal(d, err)
					}
					late := d.RetryAfter - expiry
					if late < 0 || late >= bucket || late > expiry/8 && bucket < w ||
						others == 0 && late > 0 && bucket < w {
						t.Errorf("window %v, bucket %v, %d used by others: %v after the expiry of %v", w,
							bucket, others, late, expiry)
					}
					time.Sleep(d.RetryAfter - 1)
					if d, err := m.Peek(t.Context(), "k", 50); err != nil || d.Allowed {
						t.Errorf("an instant before: %+v, %v", d, err)
					}
					time.Sleep(time.Nanosecond)
					if d, err := m.AllowN(t.Context(), "k", 50); err != nil || !d.Allowed {
						t.Errorf("after its RetryAfter: %+v, %v", d, err)
					}
				})
			}
		}
	}
}

// Limiters that share windows, given in other orders, with room for a few keys only, while keys are deleted
// and reservations settled: nobody waits in a circle, nothing wraps, and what is left when all has expired is
// nothing.
func TestMultiUnderStress(t *testing.T) {
	ctx := context.Background()
	l := newLocal(t, trypema.Options{Window: 20 * time.Millisecond, MaxKeys: 8})
	windows := []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}
	var all sync.WaitGroup
	for g := range 8 {
		rng := rand.New(rand.NewPCG(uint64(g), 5))
		var limits []trypema.Limit
		for _, i := range rng.Perm(3)[:1+g%3] {
			limits = append(limits, trypema.Limit{Rate: trypema.Per(1000, windows[i]), Window: windows[i]})
		}
		m, err := l.Bind(trypema.StrategyAbsolute, limits...)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for range explore.Size(1_000, 200_000) {
				key := string(rune('a' + rng.IntN(20)))
				switch rng.IntN(20) {
				case 0:
					_ = m.Delete(ctx, key)
				case 1:
					if r, err := m.Reserve(ctx, key, 1+rng.Uint64N(20), 0); err == nil && r.Allowed {
						_ = r.Commit(ctx, rng.Uint64N(40))
					}
				case 2:
					_, _ = l.Absolute().AllowN(ctx, key, trypema.Per(1000, 20*time.Millisecond), 3)
				default:
					if d, err := m.AllowN(ctx, key, 1+rng.Uint64N(5)); err != nil || d.Remaining > d.Limit {
						t.Errorf("%+v, %v", d, err)
						return
					}
				}
				if all, err := m.Usage(ctx, key); err != nil || all[0].Total > 10_000 {
					t.Errorf("%+v, %v", all, err)
					return
				}
			}
		})
	}
	all.Wait()
	if n := l.Len(); n > 3*8 {
		t.Errorf("%d keys in three windows of at most 8", n)
	}
}

// What Suppressed declines by several limits joins the newest group, and has to expire before the same call
// is certain to pass.
func TestMultiWaitsForWhatItDeclined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		local := newLocal(t, trypema.Options{Window: time.Second, Bucket: time.Second, HardLimitFactor: 1})
		m, err := local.Bind(trypema.StrategySuppressed,
			trypema.Limit{Rate: trypema.PerSecond(10), Window: time.Second},
			trypema.Limit{Rate: trypema.PerSecond(5), Window: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := m.AllowN(ctx, "k", 10); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		time.Sleep(300 * time.Millisecond)
		d, err := m.Allow(ctx, "k")
		if err != nil || d.Allowed || d.RetryAfter != 2*time.Second || d.RefusedBy != "2s" {
			t.Errorf("%+v, %v; want to wait for 2s", d, err)
		}
		time.Sleep(d.RetryAfter - 1)
		if d, err := m.Peek(ctx, "k", 1); err != nil || d.Allowed {
			t.Errorf("right before its RetryAfter: %+v, %v", d, err)
		}
		time.Sleep(time.Nanosecond)
		if d, err := m.Peek(ctx, "k", 1); err != nil || !d.Allowed {
			t.Errorf("after its RetryAfter: %+v, %v", d, err)
		}
	})
}

// A decision by one limit or several allocates nothing, by a hot key or by many.
func TestBoundDoesNotAllocate(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		for _, limits := range [][]trypema.Limit{{trypema.AtMost(1e12, time.Hour)}, threeLimits(1000)} {
			for _, n := range []int{1, 2000} {
				m, err := newLocal(t, trypema.Options{}).Bind(s, limits...)
				if err != nil {
					t.Fatal(err)
				}
				ctx, names, i := context.Background(), keys(n), 0
				call := func() {
					if _, err := m.Allow(ctx, names[i%n]); err != nil {
						t.Fatal(err)
					}
					i++
				}
				for range n {
					call()
				}
				if n := testing.AllocsPerRun(2000, call); n > 0 {
					t.Errorf("%v, %d limits, %d keys: %v allocations", s, len(limits), len(names), n)
				}
			}
		}
	}
}

func threeLimits(perSecond float64) []trypema.Limit {
	return []trypema.Limit{
		{Rate: trypema.PerSecond(perSecond), Window: time.Second},
		{Rate: trypema.PerSecond(perSecond), Window: time.Minute},
		{Rate: trypema.PerSecond(perSecond), Window: time.Hour},
	}
}

// Beside each row of several limits is one call for each of them: what they would cost apart.
func BenchmarkMulti(b *testing.B) {
	for _, bench := range []struct {
		name string
		keys int
		rate float64
	}{{"hot-over", 1, 100}, {"hot-under", 1, 1e12}, {"uniform-100k", 100_000, 1000}} {
		ctx := context.Background()
		names := keys(bench.keys)
		limits := threeLimits(bench.rate)
		run := func(b *testing.B, call func(key string)) {
			for _, k := range names {
				call(k)
			}
			for i, start := uint64(0), time.Now(); time.Since(start) < 500*time.Millisecond; i++ {
				call(names[i%uint64(len(names))])
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := uint64(1); pb.Next(); {
					i = i*6364136223846793005 + 1442695040888963407
					call(names[i>>32*uint64(len(names))>>32])
				}
			})
		}
		b.Run(bench.name+"/apart", func(b *testing.B) {
			var apart []trypema.Limiter
			for _, limit := range limits {
				apart = append(apart, newLocal(b, trypema.Options{Window: limit.Window}).Absolute())
			}
			run(b, func(key string) {
				for i, l := range apart {
					l.Allow(ctx, key, limits[i].Rate) //nolint:errcheck // it can not fail
				}
			})
		})
		b.Run(bench.name+"/together", func(b *testing.B) {
			m, err := newLocal(b, trypema.Options{}).Bind(trypema.StrategyAbsolute, limits...)
			if err != nil {
				b.Fatal(err)
			}
			run(b, func(key string) { m.Allow(ctx, key) }) //nolint:errcheck // it can not fail
		})
	}
}
