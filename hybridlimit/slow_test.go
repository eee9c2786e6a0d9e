package hybridlimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

// With EmptyReject, a caller who comes again at RetryAfter is admitted soon, also when Redis has become far
// slower than leases live: it is told to wait longer each time while the answer is under way, and the next
// lease lives long enough.
func TestEmptyRejectSlow(t *testing.T) {
	for _, window := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second} {
		for _, delay := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond, 240 * time.Millisecond} {
			t.Run(fmt.Sprintf("window %v, %v away", window, delay), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					f.Delay = time.Millisecond
					o := second
					o.Window, o.OnEmpty = window, hybridlimit.EmptyReject
					l := open(t, f, o).Absolute()
					try := func() (tries int, took time.Duration) {
						began := time.Now()
						for ; tries < 1000; tries++ {
							d, err := l.Allow(ctx, "k", 10_000)
							if err != nil || d.Fallback {
								t.Fatal(d, err)
							}
							if d.Allowed {
								break
							}
							time.Sleep(d.RetryAfter)
						}
						return tries, time.Since(began)
					}
					for range 10 {
						try()
						time.Sleep(10 * window)
					}
					time.Sleep(time.Minute)
					synctest.Wait()
					f.Delay = delay
					tries, took := try()
					t.Logf("admitted at the %dth try, after %v", tries+1, took)
					if tries > 10 || took > 6*delay+250*time.Millisecond {
						t.Errorf("admitted at the %dth try, after %v", tries+1, took)
					}
				})
			})
		}
	}
}
