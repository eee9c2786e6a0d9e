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
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

// TestCold: two callers make one call after the other for many keys, of which this instance has none on lease
// at first. A call that waits takes thousands of times as long as another. So as long as most calls wait, the
// callers come back to each key only after seconds. By then its lease must not have ended, or all calls wait
// for ever.
func TestCold(t *testing.T) {
	for _, test := range []struct {
		strategy trypema.Strategy
		rate     trypema.Rate
		window   time.Duration
		keys     int
		delay    time.Duration // there and back
		warm     time.Duration // by then hardly a call waits
		long     bool          // only where tests explore
	}{
		{trypema.StrategyAbsolute, 1000, 10 * time.Second, 2000, 10 * time.Millisecond, 20 * time.Second, true},
		{trypema.StrategyAbsolute, 1000, time.Second, 2000, 10 * time.Millisecond, 20 * time.Second, false},
		{trypema.StrategyAbsolute, 1, 10 * time.Second, 300, 6 * time.Millisecond, 10 * time.Second, true},
		{trypema.StrategySuppressed, 1, 10 * time.Second, 300, 6 * time.Millisecond, 10 * time.Second, true},
		{trypema.StrategySuppressed, 1, time.Second, 200, 5 * time.Millisecond, 3 * time.Second, false},
		{trypema.StrategyAbsolute, 1, 10 * time.Second, 300, 6 * time.Millisecond, 3 * time.Second, false},
		{trypema.StrategySuppressed, 1000, 10 * time.Second, 2000, 10 * time.Millisecond, 20 * time.Second, true},
	} {
		if test.long && !explore.Long() {
			continue
		}
		t.Run(fmt.Sprint(test.strategy, test.rate, test.window, test.warm), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = test.delay
				o := hybridlimit.Options{}
				o.Window = test.window
				l := strategy(open(t, f, o), test.strategy == trypema.StrategySuppressed)
				names := make([]string, test.keys)
				for i := range names {
					names[i] = fmt.Sprint(i)
				}
				var callers sync.WaitGroup
				var calls, waited [2]int
				began := time.Now()
				for i := range calls {
					callers.Go(func() {
						rng := rand.New(rand.NewPCG(1, uint64(i)))
						for n := 0; ; n++ {
							if n%4 == 0 {
								time.Sleep(time.Millisecond)
							}
							at := time.Now()
							switch d, err := l.Allow(ctx, names[rng.IntN(test.keys)], test.rate); {
							case err != nil || d.Fallback:
								t.Error(d, err)
							case time.Since(began) > test.warm+2*time.Second:
								return
							case time.Since(began) > test.warm:
								if calls[i]++; time.Since(at) > 0 {
									waited[i]++
								}
							}
						}
					})
				}
				callers.Wait()
				all, late := calls[0]+calls[1], waited[0]+waited[1]
				t.Logf("after %v, %d of %d calls waited", test.warm, late, all)
				if late > all/50 {
					t.Errorf("after %v, %d of %d calls waited", test.warm, late, all)
				}
			})
		})
	}
}
