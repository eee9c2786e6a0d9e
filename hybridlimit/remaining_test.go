package hybridlimit_test

import (
	"testing"
	"testing/synctest"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// What remains after a call that FailLocal admits is without the cost of the call, as it is with Redis.
func TestRemainingWithoutRedis(t *testing.T) {
	limit := trypema.AtMost(10, fleetWindow)
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		for _, bound := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Fault = func(string) ([]any, error) { return nil, errExpected }
				p := open(t, f, hybridlimit.Options{Options: redislimit.Options{
					Options: trypema.Options{Window: fleetWindow, HardLimitFactor: 1}, OnFailure: redislimit.FailLocal,
				}})
				b, err := p.Bind(s, limit)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range []uint64{7, 4, 1} {
					var d trypema.Decision
					if bound {
						d, err = b.AllowN(ctx, "k", 3)
					} else {
						d, err = strategy(p, s == trypema.StrategySuppressed).AllowN(ctx, "k", limit.Rate, 3)
					}
					if err != nil || !d.Fallback || !d.Allowed || d.Remaining != want {
						t.Errorf("%v, bound %v: %+v, %v, want %d remaining", s, bound, d, err, want)
					}
				}
			})
		}
	}
}
