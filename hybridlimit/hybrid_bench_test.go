package hybridlimit_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// Beside each row of Hybrid is the same of Local, whose cost is the measure. The server is the fake, which
// shares the processor; a real one is for make bench.
func BenchmarkHybrid(b *testing.B) {
	for _, bench := range []struct {
		name     string
		keys     int
		rate     trypema.Rate
		suppress bool
		share    func(admitted float64) bool
	}{
		{"hot-over", 1, 100, false, func(a float64) bool { return a < .1 }},
		{"hot-under", 1, trypema.Unlimited, false, func(a float64) bool { return a == 1 }},
		{"uniform-100k", 100_000, 1000, false, func(a float64) bool { return a > .9 }},
		{"suppressed-hot-over", 1, 100, true, func(a float64) bool { return a < .1 }},
		{"suppressed-uniform-10k-over", 10_000, 1, true, func(a float64) bool { return a < .3 }},
	} {
		o := trypema.Options{Window: time.Second}
		for _, provider := range []struct {
			name string
			open func() (absolute, suppressed trypema.Limiter)
		}{
			{"local", func() (a, s trypema.Limiter) {
				l, err := trypema.NewLocal(o)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { _ = l.Close() })
				return l.Absolute(), l.Suppressed()
			}},
			{"hybrid", func() (a, s trypema.Limiter) {
				p := open(b, fakeredis.New(),
					hybridlimit.Options{Options: redislimit.Options{Options: o, Timeout: 3 * time.Second}})
				return p.Absolute(), p.Suppressed()
			}},
		} {
			b.Run(bench.name+"/"+provider.name, func(b *testing.B) {
				limiter, suppressed := provider.open()
				if bench.suppress {
					limiter = suppressed
				}
				names := make([]string, bench.keys)
				for i := range names {
					names[i] = fmt.Sprint("user:", i)
					limiter.Allow(ctx, names[i], bench.rate) //nolint:errcheck // it makes the key known
				}
				for i, start := uint64(0), time.Now(); time.Since(start) < 1200*time.Millisecond; i++ {
					limiter.Allow(ctx, names[i%uint64(len(names))], bench.rate) //nolint:errcheck // it warms up
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
						d, err := limiter.Allow(ctx, names[i>>32*uint64(len(names))>>32], bench.rate)
						if err != nil || d.Fallback {
							b.Error(d, err)
						}
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
			})
		}
	}
}
