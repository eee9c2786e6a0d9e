//go:build !race

package hybridlimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

// TestSeveralLimitsAllocateNothing: a call of several limits allocates nothing if it has its leases. Under
// the race detector less is inlined, so it does.
func TestSeveralLimitsAllocateNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, fakeredis.New(), hybridlimit.Options{})
		b := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(1e9, time.Minute), trypema.AtMost(1e9, time.Hour))
		allow := func() {
			if d, err := b.Allow(ctx, "k"); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
		}
		allow()
		synctest.Wait()
		if n := testing.AllocsPerRun(100, allow); n > 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// TestLookingAllocatesNothing: a call for a key that is looked at between calls does not make its window
// again and again.
func TestLookingAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, fakeredis.New(), hybridlimit.Options{}).Absolute()
		for range 200 {
			for range 20 {
				l.Allow(ctx, "k", 1e5) //nolint:errcheck // looked at below
			}
			time.Sleep(100 * time.Millisecond)
		}
		n := testing.AllocsPerRun(1000, func() {
			l.Peek(ctx, "k", 1e5, 1) //nolint:errcheck // looked at below
			if d, err := l.Allow(ctx, "k", 1e5); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
		})
		if n > 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
