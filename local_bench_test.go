package trypema_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/trypema/trypema"
)

func newLocal(tb testing.TB, o trypema.Options) *trypema.Local {
	tb.Helper()
	l, err := trypema.NewLocal(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

func keys(n int) []string {
	k := make([]string, n)
	for i := range k {
		k[i] = "user:" + strconv.Itoa(i)
	}
	return k
}

// Each benchmark asserts its premise: what it says was admitted was.
func BenchmarkLocal(b *testing.B) {
	for _, bench := range []struct {
		name     string
		keys     int
		rate     trypema.Rate
		suppress bool
		share    func(admitted float64) bool
		observed bool
	}{
		{"hot-over", 1, 100, false, func(a float64) bool { return a < .1 }, false},
		{"hot-over-observed", 1, 100, false, func(a float64) bool { return a < .1 }, true},
		{"hot-under", 1, trypema.Unlimited, false, func(a float64) bool { return a == 1 }, false},
		{"hot-under-observed", 1, trypema.Unlimited, false, func(a float64) bool { return a == 1 }, true},
		{"uniform-100k", 100_000, 1000, false, func(a float64) bool { return a > .5 }, false},
		{"uniform-1k", 1000, 1000, false, func(a float64) bool { return a > .01 }, false},
		{"uniform-1M", 1_000_000, 1000, false, func(a float64) bool { return a == 1 }, false},
		{"suppressed-hot-over", 1, 100, true, func(a float64) bool { return a < .1 }, false},
		{"suppressed-uniform-100k", 100_000, 1000, true, func(a float64) bool { return a > .5 }, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			o := trypema.Options{Window: time.Second}
			if bench.observed {
				o.Observer = new(trypema.Meters)
			}
			local := newLocal(b, o)
			limiter := local.Absolute()
			if bench.suppress {
				limiter = local.Suppressed()
			}
			ctx := context.Background()
			names := keys(bench.keys)
			for _, k := range names {
				limiter.Allow(ctx, k, bench.rate)
			}
			// Each key has reached the state in which it stays when a window is over.
			for i, start := uint64(0), time.Now(); time.Since(start) < 1200*time.Millisecond; i++ {
				limiter.Allow(ctx, names[i%uint64(len(names))], bench.rate)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var admitted, calls int64
			counts := make(chan [2]int64, 1024)
			b.RunParallel(func(pb *testing.PB) {
				var a, n int64
				i := rand.Uint64()
				for pb.Next() {
					i = i*6364136223846793005 + 1442695040888963407
					d, _ := limiter.Allow(ctx, names[i>>32*uint64(len(names))>>32], bench.rate)
					if d.Allowed {
						a++
					}
					n++
				}
				counts <- [2]int64{a, n}
			})
			b.StopTimer()
			for len(counts) > 0 {
				c := <-counts
				admitted, calls = admitted+c[0], calls+c[1]
			}
			if b.Elapsed() > 100*time.Millisecond && !bench.share(float64(admitted)/float64(calls)) {
				b.Errorf("%d of %d admitted", admitted, calls)
			}
			if local.Len() != bench.keys {
				b.Errorf("%d keys, want %d", local.Len(), bench.keys)
			}
		})
	}
}

// Sixteen calls at a time, for 100,000 keys. A call is one key.
func BenchmarkAllowMany(b *testing.B) {
	const n, many = 100_000, 16
	local := newLocal(b, trypema.Options{Window: time.Second})
	names := keys(n)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var calls [many]trypema.Call
		decisions := make([]trypema.Decision, 0, many)
		i := rand.Uint64()
		filled := 0
		for pb.Next() {
			i = i*6364136223846793005 + 1442695040888963407
			calls[filled] = trypema.Call{Key: names[i>>32*n>>32], Cost: 1}
			if filled++; filled < many {
				continue
			}
			filled = 0
			got, err := trypema.AllowMany(b.Context(), local.Absolute(), 1000, calls[:], decisions)
			if err != nil || len(got) != many {
				b.Error(len(got), err)
			}
		}
	})
}

// BenchmarkBind compares a limit that was bound with the same limit given to each call, in turns of a
// thousand calls each, and prints the median of the ratios: at most 1.05 on a machine that has nothing else
// to do.
func BenchmarkBind(b *testing.B) {
	for name, n := range map[string]int{"hot": 1, "uniform-100k": 100_000} {
		b.Run(name, func(b *testing.B) {
			const each = 1000
			ctx := context.Background()
			local := newLocal(b, trypema.Options{Window: time.Second})
			bound, err := local.Bind(trypema.StrategyAbsolute, trypema.AtMost(1e12, time.Second))
			if err != nil {
				b.Fatal(err)
			}
			limiter, names := local.Absolute(), keys(n)
			rand.Shuffle(n, func(i, j int) { names[i], names[j] = names[j], names[i] })
			denied := 0
			byRate := func(key string) {
				if d, err := limiter.Allow(ctx, key, 1e12); err != nil || !d.Allowed {
					denied++
				}
			}
			byBound := func(key string) {
				if d, err := bound.Allow(ctx, key); err != nil || !d.Allowed {
					denied++
				}
			}
			next := 0
			turn := func(call func(key string)) time.Duration {
				began := time.Now()
				for range each {
					call(names[next])
					if next++; next == n {
						next = 0
					}
				}
				return time.Since(began)
			}
			for began := time.Now(); time.Since(began) < 1200*time.Millisecond; {
				turn(byRate)
			}
			var took [2]time.Duration
			var ratios []float64
			for i := 0; b.Loop(); i++ {
				var now [2]time.Duration
				if i%2 == 0 {
					now[0], now[1] = turn(byRate), turn(byBound)
				} else {
					now[1], now[0] = turn(byBound), turn(byRate)
				}
				took[0], took[1] = took[0]+now[0], took[1]+now[1]
				ratios = append(ratios, float64(now[1])/float64(now[0]))
			}
			slices.Sort(ratios)
			b.ReportMetric(float64(took[0])/float64(b.N*each), "rate-ns/call")
			b.ReportMetric(float64(took[1])/float64(b.N*each), "bound-ns/call")
			b.ReportMetric(ratios[len(ratios)/2], "bound/rate")
			b.ReportMetric(0, "ns/op")
			if denied > 0 || local.Len() != n {
				b.Errorf("%d denied, %d keys", denied, local.Len())
			}
		})
	}
}
