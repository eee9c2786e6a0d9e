package hybridlimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// A key whose window cannot be read is started again: no verb of Redis and Hybrid is an error by it, several
// limits and reservations
// included, no call is decided by the failure policy, and the observer is told.
func TestUnreadableWindowsStartAgain(t *testing.T) {
	limits := []trypema.Limit{
		{Rate: trypema.PerMinute(100), Window: time.Minute},
		{Rate: trypema.PerHour(100), Window: time.Hour},
	}
	for _, hybrid := range []bool{false, true} {
		for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
			t.Run(fmt.Sprint("hybrid ", hybrid, " ", s), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					var meters trypema.Meters
					o := redislimit.Options{Options: trypema.Options{Window: time.Minute, Observer: &meters}}
					kind := s.String()[:1]
					var p strategies
					if hybrid {
						p, kind = open(t, f, hybridlimit.Options{Options: o}), "h"+kind
					} else {
						r, err := redislimit.New(f, o)
						if err != nil {
							t.Fatal(err)
						}
						defer r.Close() //nolint:errcheck // it has nothing under way
						p = r
					}
					l := p.Absolute()
					if s == trypema.StrategySuppressed {
						l = p.Suppressed()
					}
					m, err := p.Bind(s, limits...)
					if err != nil {
						t.Fatal(err)
					}
					rate := limits[0].Rate
					spoiled := uint64(0)
					for _, verb := range []struct {
						name string
						call func(key string) (trypema.Decision, error)
					}{
						{"Allow", func(key string) (trypema.Decision, error) {
							return l.Allow(ctx, key, rate)
						}},
						{"Peek", func(key string) (trypema.Decision, error) {
							return l.Peek(ctx, key, rate, 1)
						}},
						{"Usage", func(key string) (trypema.Decision, error) {
							u, err := l.Usage(ctx, key, rate)
							return trypema.Decision{Allowed: u.Total == 0}, err
						}},
						{"Set", func(key string) (trypema.Decision, error) {
							r, err := l.Set(ctx, key, trypema.Less(1), 5, trypema.Replace)
							return trypema.Decision{Allowed: r.Matched}, err
						}},
						{"Delete", func(key string) (trypema.Decision, error) {
							return trypema.Decision{Allowed: true}, l.Delete(ctx, key)
						}},
						{"several: Allow", func(key string) (trypema.Decision, error) {
							return m.Allow(ctx, key)
						}},
						{"several: Peek", func(key string) (trypema.Decision, error) {
							return m.Peek(ctx, key, 1)
						}},
						{"several: Usage", func(key string) (trypema.Decision, error) {
							_, err := m.Usage(ctx, key)
							return trypema.Decision{Allowed: true}, err
						}},
						{"several: Delete", func(key string) (trypema.Decision, error) {
							return trypema.Decision{Allowed: true}, m.Delete(ctx, key)
						}},
						{"Reserve", func(key string) (trypema.Decision, error) {
							r, err := m.Reserve(ctx, key, 3, 0)
							if err != nil {
								return trypema.Decision{}, err
							}
							f.Spoil("{trypema:" + key + "}:" + kind + ":1h0m0s")
							spoiled++
							return r.Decision, r.Commit(ctx, 1)
						}},
					} {
						f.Spoil("{trypema:" + verb.name + "}:" + kind + ":1m0s")
						spoiled++
						if d, err := verb.call(verb.name); err != nil || !d.Allowed || d.Fallback {
							t.Errorf("%s: %+v, %v", verb.name, d, err)
						}
						d, err := l.AllowN(ctx, verb.name, rate, 10)
						if err != nil || !d.Allowed || d.Fallback {
							t.Errorf("after %s: %+v, %v", verb.name, d, err)
						}
					}
					time.Sleep(time.Minute) // until all is settled
					for _, meter := range meters.All() {
						if got := meter.Read().Unreadable; got != spoiled {
							t.Errorf("%s: %d were unreadable, want %d", meter.Strategy, got, spoiled)
						}
					}
				})
			})
		}
	}
}
