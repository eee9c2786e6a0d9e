package hybridlimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

// A key far from its limit is decided by its window in the table, for a limiter and for a Bound of one limit.
// What remains, and what Redis hears at last, is as if the account had decided.
func TestWindowsOfKeys(t *testing.T) {
	for _, bound := range []bool{false, true} {
		t.Run(fmt.Sprint("bound ", bound), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t, fakeredis.New(), hybridlimit.Options{})
				l := p.Absolute()
				allow := func() (trypema.Decision, error) { return l.Allow(ctx, "k", 100) }
				if bound {
					b := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(1000, 10*time.Second))
					allow = func() (trypema.Decision, error) { return b.Allow(ctx, "k") }
				}
				calls := uint64(0)
				for range 30 {
					calls++
					if d, err := allow(); err != nil || !d.Allowed || d.Limit != 1000 || d.Remaining != 1000-calls {
						t.Fatalf("call %d: %+v, %v", calls, d, err)
					}
					time.Sleep(20 * time.Millisecond)
				}
				if !hybridlimit.TakeNow(p, "k", 1000) {
					t.Error("the window of the key is not open")
				}
				calls++
				if hybridlimit.TakeNow(p, "k", 999) || hybridlimit.TakeNow(p, "q", 1000) {
					t.Error("the window of the key admits a call that is not for it")
				}
				if d, err := l.Peek(ctx, "k", 100, 1); err != nil || d.Remaining != 1000-calls {
					t.Errorf("a look after %d calls: %+v, %v", calls, d, err)
				}
				if hybridlimit.TakeNow(p, "k", 1000) {
					t.Error("the window of the key is open beside the account")
				}
				if u, err := l.Usage(ctx, "k", 100); err != nil || u.Total != calls {
					t.Errorf("after %d calls: %+v, %v", calls, u, err)
				}
			})
		})
	}
}
