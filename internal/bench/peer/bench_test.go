package peer

import (
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/store"
)

// BenchmarkPeers is every limiter under the workloads that the design sets marks for, each warmed up for a
// window. For ratios that survive a noisy machine use bench measure --compare, which lets the limiters take
// turns.
func BenchmarkPeers(b *testing.B) {
	for _, workload := range []struct {
		name  string
		rate  float64
		keys  int
		share func(admitted float64) bool // the premise
	}{
		{"hot-over", 1000, 1, func(a float64) bool { return a < 0.1 }},
		{"hot-under", 1e8, 1, func(a float64) bool { return a == 1 }},
		{"uniform-100k", 1000, 100_000, func(a float64) bool { return a == 1 }},
	} {
		keys := make([]string, workload.keys)
		for i := range keys {
			keys[i] = "user:" + strconv.Itoa(i)
		}
		for _, name := range NamesIn(store.Local) {
			b.Run(workload.name+"/"+name, func(b *testing.B) {
				l, err := Open(b.Context(), name, Limit{
					Capacity: uint64(workload.rate),
					Rate:     workload.rate,
					Options:  trypema.Options{Window: time.Second, Bucket: 10 * time.Millisecond},
				})
				if err != nil {
					b.Fatal(err)
				}
				defer func() {
					if err := l.Close(); err != nil {
						b.Error(err)
					}
				}()
				for i, start := 0, time.Now(); time.Since(start) < 1200*time.Millisecond; i++ {
					if _, err := l.Allow(keys[i%len(keys)]); err != nil {
						b.Fatal(err)
					}
				}
				var admitted atomic.Int64
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					n := int64(0)
					for i := rand.Uint64(); pb.Next(); {
						i = i*6364136223846793005 + 1442695040888963407
						if ok, err := l.Allow(keys[i>>32*uint64(len(keys))>>32]); err == nil && ok {
							n++
						}
					}
					admitted.Add(n)
				})
				b.StopTimer()
				share := float64(admitted.Load()) / float64(b.N)
				switch {
				case b.Elapsed() < 100*time.Millisecond || workload.share(share):
				case name == Ours:
					b.Errorf("%.3f of the calls were admitted", share)
				default: // go-limiter denies everything at a rate as high as that of hot-under
					b.Skipf("no result: %.3f of the calls were admitted", share)
				}
			})
		}
	}
}
