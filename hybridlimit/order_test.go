package hybridlimit_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// A call of a single limit is decided where the answer comes that it waits for. Calls that come at the same
// instant do not take what it was granted. That holds for a Limiter and for a Bound of one limit.
func TestWhoWaitsIsFirst(t *testing.T) {
	const capacity, others, delay = 3, 20, 10 * time.Millisecond
	limit := trypema.Limit{Rate: trypema.Per(capacity, 10*time.Second), Window: 10 * time.Second}
	for _, bound := range []bool{false, true} {
		for round := range 5 {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = delay
				p := open(t, f, hybridlimit.Options{Options: redislimit.Options{
					Options: trypema.Options{Window: limit.Window}, OnFailure: redislimit.FailClosed,
				}})
				b, err := p.Bind(trypema.StrategyAbsolute, limit)
				if err != nil {
					t.Fatal(err)
				}
				key := fmt.Sprint(round)
				allow := func() (admitted int64) {
					var d trypema.Decision
					var err error
					if bound {
						d, err = b.Allow(ctx, key)
					} else {
						d, err = p.Absolute().Allow(ctx, key, limit.Rate)
					}
					if err != nil || d.Fallback {
						t.Error(d, err)
					}
					if d.Allowed {
						admitted = 1
					}
					return admitted
				}
				var first, late atomic.Int64
				var all sync.WaitGroup
				for range capacity {
					all.Go(func() { first.Add(allow()) })
				}
				for range others {
					all.Go(func() {
						time.Sleep(delay)
						late.Add(allow())
					})
				}
				all.Wait()
				if first.Load() != capacity || late.Load() != 0 {
					t.Errorf("bound %v: %d of %d calls that waited were admitted, and %d later ones", bound,
						first.Load(), capacity, late.Load())
				}
			})
		}
	}
}
