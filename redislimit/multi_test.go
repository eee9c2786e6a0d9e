package redislimit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

func TestMulti(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		t.Run(map[bool]string{false: "Absolute", true: "Suppressed"}[suppressed], func(t *testing.T) {
			servers := map[trypema.Provider]*fakeredis.Server{}
			on := func(t *testing.T, f *fakeredis.Server, o trypema.Options) trypema.Provider {
				p := open(t, f, redislimit.Options{Options: o, OnFailure: redislimit.FailClosed})
				servers[p] = f
				return p
			}
			limittest.RunBind(t, limittest.Subject{
				Suppressed: suppressed, In: synctest.Test, Resolution: time.Microsecond,
				Join: func(t *testing.T, p trypema.Provider) trypema.Provider {
					return on(t, servers[p], trypema.Options{})
				},
			}, func(t *testing.T, o trypema.Options) trypema.Provider { return on(t, fakeredis.New(), o) })
		})
	}
}

// Without Redis, limits whose shares are equal are told apart: Limit is the capacity of the limit that
// refuses, or of an admitted call that of the one with the least room; with every verb, and in whatever order
// the limits were given.
func TestSharesThatAreEqual(t *testing.T) {
	minute := trypema.Limit{Name: "minute", Rate: trypema.PerMinute(10), Window: time.Minute}
	hour := trypema.Limit{Name: "hour", Rate: trypema.PerHour(11), Window: time.Hour}
	for _, limits := range [][]trypema.Limit{{minute, hour}, {hour, minute}} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			f.Fault = func(string) ([]any, error) { return nil, errors.New("LOADING") }
			// The share of each limit is 2.
			p := open(t, f, redislimit.Options{Instances: 4})
			m := fixture.Bind(t, p, trypema.StrategyAbsolute, limits...)
			ctx := context.Background()
			expect := func(what string, d trypema.Decision, err error, limit, remaining uint64, by string) {
				t.Helper()
				asWanted := d.Limit == limit && d.Remaining == remaining && d.RefusedBy == by
				if err != nil || !d.Fallback || d.Allowed != (by == "") || !asWanted {
					t.Errorf("%s: %+v, %v, want limit %d, remaining %d, refused by %q",
						what, d, err, limit, remaining, by)
				}
			}
			d, err := m.Allow(ctx, "k")
			expect("the first call", d, err, 10, 1, "")
			time.Sleep(time.Minute)
			d, err = m.Peek(ctx, "k", 1)
			expect("a look a minute later", d, err, 11, 1, "")
			d, err = m.Allow(ctx, "k")
			expect("the second call", d, err, 11, 0, "")
			d, err = m.Allow(ctx, "k")
			expect("the third call", d, err, 11, 0, "hour")
			d, err = m.Peek(ctx, "k", 1)
			expect("another look", d, err, 11, 0, "hour")
			r, err := m.Reserve(ctx, "k", 1, 0)
			expect("a reservation", r.Decision, err, 11, 0, "hour")
			d, err = m.AllowN(ctx, "another", 3)
			expect("more than a share", d, err, 10, 2, "minute")
		})
	}
}
