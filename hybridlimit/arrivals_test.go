package hybridlimit_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/arrivals"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// Whatever pattern calls come in, and to whichever instance each, and though a tenth of the answers get lost,
// no window holds more than the capacity over all instances. A search over patterns looks for one that does,
// and finds windows that are full.
func TestNoArrivalsPassTheLimit(t *testing.T) {
	const window, instances = time.Second, 3
	for _, suppressed := range []bool{false, true} {
		for _, space := range []arrivals.Space{
			{Window: window, Bucket: 100 * time.Millisecond, Capacity: 8, Instances: instances, Calls: 12},
			{Window: window, Bucket: 10 * time.Millisecond, Capacity: 60, Instances: instances, Calls: 12},
		} {
			if suppressed && space.Capacity == 8 && !explore.Long() { // as Absolute
				continue
			}
			t.Run(fmt.Sprintf("%s, C=%d", name(suppressed), space.Capacity), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					seed := explore.Seed(t)
					rng := rand.New(rand.NewPCG(seed, 1))
					var mu sync.Mutex // guards rng
					f := fakeredis.New()
					f.Delay = 2 * time.Millisecond
					lossy := true
					f.Lose = func() bool {
						mu.Lock()
						defer mu.Unlock()
						return lossy && rng.IntN(10) == 0
					}
					var limiters []trypema.Limiter
					for range instances {
						limiters = append(limiters, strategy(open(t, f, hybridlimit.Options{Options: redislimit.Options{
							// With a HardLimitFactor of 1 luck has no say.
							Options: trypema.Options{Window: window, Bucket: space.Bucket, HardLimitFactor: 1}, OnFailure: redislimit.FailClosed, Timeout: 20 * time.Millisecond,
						}}), suppressed))
					}
					tried := 0
					tries := 20
					if space.Capacity > 8 { // which takes longer to fill
						tries = 30
					}
					best, most := space.Search(seed, arrivals.Tries(tries), func(s arrivals.Schedule) uint64 {
						tried++
						key := fmt.Sprint(tried)
						return anywindow.Most(s.Run(true, func(c arrivals.Call) (bool, time.Duration) {
							d, err := limiters[c.Instance].AllowN(ctx, key, trypema.Per(float64(space.Capacity), window), c.Cost)
							if err != nil {
								t.Error(err)
							}
							return d.Allowed, d.RetryAfter
						}), window)
					})
					mu.Lock()
					lossy = false // so that Close can settle
					mu.Unlock()
					synctest.Wait() // for exchanges, which count themselves
					t.Logf("at most %d of %d in a window, %d schedules, %d exchanges", most, space.Capacity,
						tried, f.Runs)
					// Which goroutine of the instances goes first is not the seed's: now and then no schedule
					// uses all.
					if most > space.Capacity || most < space.Capacity*3/4 {
						t.Errorf("at most %d in a window, want %d or little less: %v", most, space.Capacity,
							best)
					}
				})
			})
		}
	}
}
