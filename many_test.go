package trypema_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// single hides that a limiter decides many calls at once.
type single struct{ trypema.Limiter }

// Many calls at once are answered as the same calls one after the other, whatever their keys, costs and
// order, on a limiter and on a limit that was bound, in a group too.
func TestAllowManyIsThatOfEach(t *testing.T) {
	seed := explore.Seed(t)
	for name, suppressed := range map[string]bool{"Absolute": false, "Suppressed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trypema.Options{Window: time.Second, HardLimitFactor: 1.5}
				var locals [4]*trypema.Local
				for i := range locals {
					locals[i] = newLocal(t, o)
					locals[i].SetDice(func() float64 { return .5 })
				}
				strategy := trypema.StrategyAbsolute
				limiter := func(i int) trypema.Limiter { return locals[i].Absolute() }
				if suppressed {
					strategy = trypema.StrategySuppressed
					limiter = func(i int) trypema.Limiter { return locals[i].Suppressed() }
				}
				limit := trypema.AtMost(20, time.Second)
				bound, err := locals[2].Bind(strategy, limit)
				must.OK(t, err)
				policies := fixture.Policies(t, locals[3], trypema.Policy{
					Name: "p", Strategy: strategy, Limits: []trypema.Limit{limit},
				})
				use, err := policies.Use("p")
				must.OK(t, err)
				rng := rand.New(rand.NewPCG(seed, 0))
				for range 300 {
					calls := make([]trypema.Call, rng.IntN(40))
					for i := range calls {
						key := fmt.Sprint(rng.IntN(30))
						if rng.IntN(4) == 0 {
							key = "often"
						}
						calls[i] = trypema.Call{Key: key, Cost: uint64(1 + rng.IntN(30)*rng.IntN(2))}
					}
					want, err := trypema.AllowMany(t.Context(), single{limiter(0)}, 20, calls, nil)
					if err != nil || len(want) != len(calls) {
						t.Fatal(len(want), err)
					}
					for name, many := range map[string]func() ([]trypema.Decision, error){
						"limiter": func() ([]trypema.Decision, error) {
							return trypema.AllowMany(t.Context(), limiter(1), 20, calls, nil)
						},
						"bound": func() ([]trypema.Decision, error) {
							return bound.AllowMany(t.Context(), calls, nil)
						},
						"policy": func() ([]trypema.Decision, error) { return use.AllowMany(t.Context(), calls, nil) },
					} {
						got, err := many()
						if err != nil || len(got) != len(want) {
							t.Fatalf("%s: %d decisions, %v, want %d", name, len(got), err, len(want))
						}
						for i := range got {
							got[i].RefusedBy = "" // which a limiter does not say
							if got[i] != want[i] {
								t.Fatalf("%s, seed %d, call %d of %d, %+v:\n got %+v\nwant %+v", name, seed, i,
									len(calls), calls[i], got[i], want[i])
							}
						}
					}
					for i := range locals { // hot keys take the instant at which they are looked at
						if _, err := limiter(i).Usage(t.Context(), "often", 20); err != nil {
							t.Fatal(err)
						}
					}
					if _, err := use.Usage(t.Context(), "often"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
				}
			})
		})
	}
}

// Wrong input decides nothing, and says which call it is. Decisions are appended.
func TestAllowManyRefusesWhatIsWrong(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	bound := fixture.Bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(10, time.Second))
	calls := []trypema.Call{{Key: "k", Cost: 1}, {Key: "k"}}
	before := []trypema.Decision{{Limit: 99}}
	for name, many := range map[string]func(r trypema.Rate, calls []trypema.Call) ([]trypema.Decision, error){
		"Absolute": func(r trypema.Rate, calls []trypema.Call) ([]trypema.Decision, error) {
			return trypema.AllowMany(t.Context(), l.Absolute(), r, calls, before)
		},
		"Suppressed": func(r trypema.Rate, calls []trypema.Call) ([]trypema.Decision, error) {
			return trypema.AllowMany(t.Context(), l.Suppressed(), r, calls, before)
		},
		"one by one": func(r trypema.Rate, calls []trypema.Call) ([]trypema.Decision, error) {
			return trypema.AllowMany(t.Context(), single{l.Absolute()}, r, calls, before)
		},
		"bound": func(_ trypema.Rate, calls []trypema.Call) ([]trypema.Decision, error) {
			return bound.AllowMany(t.Context(), calls, before)
		},
	} {
		got, err := many(10, calls)
		if !errors.Is(err, trypema.ErrInvalidCost) || !strings.Contains(err.Error(), "call 1: cost is 0") ||
			len(got) != 1 {
			t.Errorf("%s: %d decisions, %v", name, len(got), err)
		}
		if name == "bound" { // it has its rate
			continue
		}
		if got, err := many(-1, calls[:1]); !errors.Is(err, trypema.ErrInvalidRate) || len(got) != 1 {
			t.Errorf("%s: %d decisions, %v", name, len(got), err)
		}
	}
	if l.Len() != 0 {
		t.Error("something was decided")
	}
	if _, err := trypema.AllowMany(t.Context(), nil, 1, calls[:1], nil); !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Errorf("a nil limiter: %v", err)
	}
	got, err := bound.AllowMany(t.Context(), calls[:1], before)
	if err != nil || len(got) != 2 || got[0].Limit != 99 || !got[1].Allowed {
		t.Errorf("%+v, %v", got, err)
	}
	l.Close()
	if _, err := bound.AllowMany(t.Context(), calls[:1], nil); !errors.Is(err, trypema.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAllowManyAllocatesNothing(t *testing.T) {
	l := newLocal(t, trypema.Options{Window: time.Hour}) // so that no key is made hot again and again
	bound := fixture.Bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(1e9, time.Hour))
	var calls []trypema.Call
	for _, key := range keys(100) {
		calls = append(calls, trypema.Call{Key: key, Cost: 1})
	}
	decisions := make([]trypema.Decision, 0, len(calls))
	ctx := context.Background()
	for name, many := range map[string]func() ([]trypema.Decision, error){
		"Absolute": func() ([]trypema.Decision, error) {
			return trypema.AllowMany(ctx, l.Absolute(), trypema.Unlimited, calls, decisions)
		},
		"Suppressed": func() ([]trypema.Decision, error) {
			return trypema.AllowMany(ctx, l.Suppressed(), trypema.Unlimited, calls, decisions)
		},
		"bound": func() ([]trypema.Decision, error) { return bound.AllowMany(ctx, calls, decisions) },
	} {
		call := func() {
			if got, err := many(); err != nil || len(got) != len(calls) {
				t.Fatal(len(got), err)
			}
		}
		for range 200 {
			call()
		}
		if n := testing.AllocsPerRun(100, call); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// A key of a policy, which is written with its group, is made on the stack.
func TestPolicyKeysAreNotAllocated(t *testing.T) {
	p := fixture.Policies(t, newLocal(t, trypema.Options{}),
		trypema.Policy{Name: "free", Limits: []trypema.Limit{trypema.AtMost(1e12, time.Hour)}})
	if n := testing.AllocsPerRun(1000, func() { _, _ = p.Allow(t.Context(), "free", "ada") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
