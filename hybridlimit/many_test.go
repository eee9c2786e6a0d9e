package hybridlimit_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/batches"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// TestAllowManyWaitsTogether: calls for any number of cold keys wait for Redis together, those of one key for
// one lease, also near its limit. Calls for warm keys do not wait.
func TestAllowManyWaitsTogether(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		for _, n := range []uint64{10, 1000} {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = 20 * time.Millisecond
				o := hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailClosed}}
				p := open(t, f, o)
				for name, decide := range batches.Of(t, p, s, n) {
					// A lease for the first call of a key is too small for all that its limit admits.
					const keys = 200
					times := 10
					if s == trypema.StrategySuppressed {
						times = 7 // more may be declined
					}
					var calls []trypema.Call
					for i := range times * keys {
						calls = append(calls, trypema.Call{Key: fmt.Sprint(name, i%keys), Cost: 1})
					}
					synctest.Wait()
					runs, began := f.Runs, time.Now()
					got, err := decide(t.Context(), calls)
					if err != nil || len(got) != len(calls) {
						t.Fatal(len(got), err)
					}
					took := time.Since(began)
					synctest.Wait()
					runs = f.Runs - runs
					t.Logf("%v, %s of %d: %d exchanges, %v", s, name, n, runs, took)
					if took > 2*f.Delay || runs > 16 {
						t.Errorf("%d keys took %d exchanges and %v, of %v each", keys, runs, took, f.Delay)
					}
					for i, d := range got {
						if !d.Allowed || d.Fallback {
							t.Fatalf("%v, %s of %d: call %d: %+v", s, name, n, i, d)
						}
					}
					began = time.Now()
					got, err = decide(t.Context(), calls[:keys])
					if err != nil || len(got) != keys || n == 1000 && time.Since(began) > 0 {
						t.Errorf("warm: %d decisions, %v after %v", len(got), err, time.Since(began))
					}
				}
			})
		}
	}
}

// TestAllowManyStopsAtAnError: the decisions before the first error are returned, and nothing is left behind.
func TestAllowManyStopsAtAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		p := open(t, f, hybridlimit.Options{})
		for name, decide := range batches.Of(t, p, trypema.StrategyAbsolute, 1000) {
			warm := []trypema.Call{{Key: name + "warm", Cost: 1}}
			if got, err := decide(t.Context(), warm); err != nil || !got[0].Allowed {
				t.Fatal(got, err)
			}
			synctest.Wait()
			f.Delay = 50 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			calls := []trypema.Call{warm[0], {Key: name + "cold", Cost: 1}, warm[0], {Key: name + "cold", Cost: 1}}
			got, err := decide(ctx, calls)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || len(got) != 1 || !got[0].Allowed {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
			time.Sleep(time.Second)
			if got, err = decide(t.Context(), calls); err != nil || len(got) != len(calls) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
			synctest.Wait()
			f.Delay = 0
		}
	})
}

// TestAllowManyCounts: an Observer counts each call once, also those that wait.
func TestAllowManyCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var meters trypema.Meters
		o := hybridlimit.Options{}
		o.Observer = &meters
		p := open(t, fakeredis.New(), o)
		calls := make([]trypema.Call, 12)
		for name, decide := range batches.Of(t, p, trypema.StrategyAbsolute, 10) {
			for i := range calls {
				calls[i] = trypema.Call{Key: name, Cost: 1}
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

// brokenContext panics when it is asked for its end.
type brokenContext struct{ context.Context }

func (brokenContext) Done() <-chan struct{} { panic("broken") }

// A context that panics, or none, is an error of AllowMany: calls that wait do so on goroutines of ours,
// where a caller cannot recover it.
func TestAllowManyWithABrokenContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = 20 * time.Millisecond
		p := open(t, f, hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailClosed}})
		for name, decide := range batches.Of(t, p, trypema.StrategyAbsolute, 1000) {
			for i, ctx := range []context.Context{nil, brokenContext{t.Context()}} {
				key := fmt.Sprint(name, i)
				calls := []trypema.Call{{Key: key + " warm", Cost: 1}, {Key: key, Cost: 1}, {Key: key, Cost: 1}}
				if _, err := decide(t.Context(), calls[:1]); err != nil {
					t.Fatal(err)
				}
				got, err := decide(ctx, calls)
				if len(got) != 1 || !got[0].Allowed || err == nil || !strings.Contains(err.Error(), "panicked") {
					t.Errorf("%s, %T: %+v, %v", name, ctx, got, err)
				}
				if got, err := decide(t.Context(), calls); err != nil || len(got) != 3 || !got[2].Allowed {
					t.Errorf("%s, %T, afterwards: %+v, %v", name, ctx, got, err)
				}
			}
		}
	})
}

// A call that waits is decided by the dice that it had before. A second throw would decline it once more with
// the same probability, for it may wait only because the first has admitted it.
func TestAllowManyThrowsOnce(t *testing.T) {
	first, later := hybridlimit.DiceOfMany("a", "b", "c")
	if len(first) != 3 || !maps.Equal(first, later) {
		t.Errorf("thrown %v, and later %v", first, later)
	}
}
