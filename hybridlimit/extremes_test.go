package hybridlimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// However much a process has admitted since it began, each window knows all of what it holds: counts that
// have become too large for Redis begin anew.
func TestCountsWithoutEnd(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		t.Run(name(suppressed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				o := redislimit.Options{Options: trypema.Options{Window: 10 * time.Second, HardLimitFactor: 1}, OnFailure: redislimit.FailClosed}
				p, q := open(t, f, hybridlimit.Options{Options: o}), open(t, f, hybridlimit.Options{Options: o})
				one, other := strategy(p, suppressed), strategy(q, suppressed)
				const large = 1 << 49
				rate := trypema.Per(3*large, o.Window)
				capacity, _ := rate.Capacity(o.Window)
				for i := range 40 {
					admitted := uint64(0)
					for _, n := range []uint64{1, 1, 1, large, large, large - 3} {
						d, err := one.AllowN(ctx, "k", rate, n)
						if err != nil || d.Remaining > d.Limit {
							t.Fatalf("window %d: %+v, %v", i, d, err)
						}
						if d.Allowed {
							admitted += n
						}
						if err := p.Flush(ctx); err != nil {
							t.Fatal(err)
						}
					}
					// A little is lost where counts begin anew: what was on lease.
					u, err := other.Usage(ctx, "k", rate)
					if err != nil || u.Total-u.Declined != admitted || admitted > capacity || admitted < large {
						t.Fatalf("window %d: %+v, %v; %d were admitted", i, u, err, admitted)
					}
					if d, err := other.AllowN(ctx, "k", rate, capacity-admitted+1); err != nil || d.Allowed {
						t.Fatalf("window %d: %+v, %v; there is less room", i, d, err)
					}
					time.Sleep(11 * time.Second) // the window is empty, and the key is still there
				}
			})
		})
	}
}
