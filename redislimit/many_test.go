package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/batches"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// TestAllowManySharesARoundTrip: all calls enter the exchange together, so they take the time of one round
// trip, and as many exchanges as 256 keys in each make.
func TestAllowManySharesARoundTrip(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			f.Delay = 20 * time.Millisecond
			p := open(t, f, redislimit.Options{OnFailure: redislimit.FailClosed})
			for name, decide := range batches.Of(t, p, s, 10) {
				for _, of := range []struct{ keys, each, runs int }{{1, 100, 1}, {200, 3, 1}, {1000, 1, 4}} {
					var calls []trypema.Call
					for i := range of.keys * of.each {
						calls = append(calls, trypema.Call{Key: fmt.Sprint(name, of.keys, i%of.keys), Cost: 1})
					}
					runs, began := f.Runs, time.Now()
					got, err := decide(t.Context(), calls)
					if err != nil || len(got) != len(calls) {
						t.Fatal(len(got), err)
					}
					took := time.Since(began)
					synctest.Wait()
					if took != f.Delay || f.Runs-runs != of.runs {
						t.Errorf("%v, %s: %d keys in %d exchanges and %v, want %d and %v", s, name, of.keys,
							f.Runs-runs, took, of.runs, f.Delay)
					}
					if allowed := 10; of.each > allowed && s == trypema.StrategyAbsolute {
						for i, d := range got {
							if d.Allowed != (i < allowed) {
								t.Errorf("%s: call %d for the key: %+v", name, i, d)
							}
						}
					}
				}
			}
		})
	}
}

// TestAllowManyInTrouble: calls get the decisions of the failure policy, each after Timeout together; those
// whose context ends get an error, and the exchange is as before.
func TestAllowManyInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		p := open(t, f, redislimit.Options{Timeout: 100 * time.Millisecond})
		for name, decide := range batches.Of(t, p, trypema.StrategyAbsolute, 10) {
			var calls []trypema.Call
			for i := range 50 {
				calls = append(calls, trypema.Call{Key: fmt.Sprint(name, i%4), Cost: 1})
			}
			f.TakeAway()
			began := time.Now()
			got, err := decide(t.Context(), calls)
			if err != nil || len(got) != len(calls) || time.Since(began) > 100*time.Millisecond {
				t.Fatalf("%s: %d decisions, %v after %v", name, len(got), err, time.Since(began))
			}
			for i, d := range got {
				if !d.Fallback || d.Allowed != (i/4 < 10) {
					t.Errorf("%s: call %d: %+v", name, i, d)
				}
			}
			f.Restore()
			time.Sleep(time.Minute)
			synctest.Wait()
			f.Delay = 50 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			got, err = decide(ctx, calls)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || len(got) != 0 {
				t.Errorf("%s: %d decisions, %v", name, len(got), err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			f.Delay = 0
			if got, err = decide(t.Context(), calls); err != nil || len(got) != len(calls) || got[0].Fallback {
				t.Errorf("%s: %d decisions, %v: %+v", name, len(got), err, got[0])
			}
		}
	})
}

// TestAllowManyCounts: an Observer counts each call once.
func TestAllowManyCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var meters trypema.Meters
		o := redislimit.Options{}
		o.Observer = &meters
		p := open(t, fakeredis.New(), o)
		calls := make([]trypema.Call, 12)
		for i := range calls {
			calls[i] = trypema.Call{Key: "k", Cost: 1}
		}
		for name, decide := range batches.Of(t, p, trypema.StrategyAbsolute, 10) {
			for i := range calls {
				calls[i].Key = name
			}
			if _, err := decide(t.Context(), calls); err != nil {
				t.Fatal(err)
			}
			if _, err := decide(t.Context(), []trypema.Call{{Key: "k"}}); !errors.Is(err, trypema.ErrInvalidCost) {
				t.Error(err)
			}
		}
		for _, m := range meters.All() {
			if s := m.Read(); m.Strategy == "absolute" && (s.Allowed != 40 || s.Rejected != 8 || s.Errors != 4) {
				t.Errorf("%+v", s.Counters)
			}
		}
	})
}
