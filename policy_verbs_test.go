package trypema_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// TestPolicyVerbs: every verb of a policy's Bound decides, lets pass in shadow, and counts as Allow does.
func TestPolicyVerbs(t *testing.T) {
	var other *trypema.Bound
	many := func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
		all, err := b.AllowMany(ctx, []trypema.Call{{Key: key, Cost: 1}}, nil)
		if err != nil {
			return trypema.Decision{}, err
		}
		return all[0], nil
	}
	reserve := func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
		r, err := b.Reserve(ctx, key, 1, time.Minute)
		if err != nil {
			return trypema.Decision{}, err
		}
		if r.Allowed {
			err = r.Commit(ctx, 1)
		}
		return r.Decision, err
	}
	type verb func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error)
	for name, call := range map[string]verb{
		"Allow": func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
			return b.Allow(ctx, key)
		},
		"AllowN": func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
			return b.AllowN(ctx, key, 1)
		},
		"AllowMany": many,
		"Wait": func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
			return b.Wait(ctx, key)
		},
		"WaitN": func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
			return b.WaitN(ctx, key, 1)
		},
		"Peek": func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
			return b.Peek(ctx, key, 1)
		},
		"Reserve": reserve,
		"All of one": func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
			return trypema.All(ctx, b.Ask(key, 1))
		},
		"All of two": func(ctx context.Context, b *trypema.Bound, key string) (trypema.Decision, error) {
			return trypema.All(ctx, other.Ask(key, 1), b.Ask(key, 1))
		},
	} {
		for _, shadow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, shadow %v", name, shadow), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					other = bind(t, newLocal(t, trypema.Options{}), trypema.StrategyAbsolute,
						trypema.AtMost(100, time.Minute))
					var meters trypema.Meters
					l := newLocal(t, trypema.Options{Observer: &meters})
					p := fixture.Policies(t, l, trypema.Policy{
						Name: "api", Limits: []trypema.Limit{trypema.AtMost(2, time.Minute)}, Shadow: shadow,
					})
					p.Observe(&meters)
					b, err := p.Use("api")
					must.OK(t, err)
					peeks := name == "Peek"
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					for i := range 5 {
						d, err := call(ctx, b, "ada")
						if errors.Is(err, trypema.ErrWouldExceedDeadline) {
							err = nil
						}
						fits := i < 2 || peeks
						if err != nil || d.Allowed != (fits || shadow) || d.Shadowed != (!fits && shadow) ||
							(d.RefusedBy == "") != fits {
							t.Errorf("call %d: %+v, %v", i, d, err)
						}
					}
					allowed, denied := uint64(2), uint64(3)
					if peeks {
						allowed, denied = 0, 0
					}
					counted := 0
					for _, m := range meters.All() {
						s := m.Read()
						if m.Strategy != "absolute" {
							continue
						}
						counted++
						if s.Allowed != allowed || s.Rejected != denied || s.Errors != 0 {
							t.Errorf("%s counted %d allowed, %d denied, %d errors; want %d, %d, 0", m.Provider,
								s.Allowed, s.Rejected, s.Errors, allowed, denied)
						}
					}
					if counted != 2 {
						t.Errorf("%d meters, want those of the provider and the policy", counted)
					}
				})
			})
		}
	}
}

// TestAllInShadow: a policy in shadow has no say in All, and records what it would have admitted. It is not
// asked about calls that the others refuse.
func TestAllInShadow(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	tight := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(3, time.Minute).Named("tight"))
	p := fixture.Policies(t, l,
		trypema.Policy{Name: "trial", Shadow: true,
			Limits: []trypema.Limit{trypema.AtMost(2, time.Minute).Named("trial")}},
		trypema.Policy{Name: "block", Shadow: true,
			Limits: []trypema.Limit{trypema.AtMost(0, time.Minute).Named("block")}})
	trial, err := p.Use("trial")
	must.OK(t, err)
	block, err := p.Use("block")
	must.OK(t, err)
	for i, want := range []trypema.Decision{
		{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: 3, Remaining: 2, RemainingAfterWaiting: 2},
		{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: 3, Remaining: 1, RemainingAfterWaiting: 1},
		{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: 3, Shadowed: true, RefusedBy: "trial"},
		{Limit: 3, RefusedBy: "tight", RemainingAfterWaiting: 2},
	} {
		d, err := trypema.All(t.Context(), trial.Ask("k", 1), tight.Ask("k", 1))
		if d.RetryAfter > 0 && d.Allowed {
			t.Errorf("call %d is allowed, and has to wait %v", i, d.RetryAfter)
		}
		d.RetryAfter, d.RemainingAfterWaiting, want.RemainingAfterWaiting = 0, 0, 0
		if err != nil || d != want {
			t.Errorf("call %d: %+v, %v, want\n%+v", i, d, err, want)
		}
	}
	if u, err := trial.Usage(t.Context(), "k"); err != nil || u[0].Total != 2 {
		t.Errorf("%+v, %v", u, err)
	}
	d, err := trypema.All(t.Context(), block.Ask("j", 1), tight.Ask("j", 1))
	if err != nil || !d.Allowed || !d.Shadowed {
		t.Errorf("%+v, %v", d, err)
	}
	d, err = trypema.All(t.Context(), block.Ask("j", 1), trial.Ask("j", 1))
	if err != nil || !d.Allowed || !d.Shadowed {
		t.Errorf("only shadows: %+v, %v", d, err)
	}
}

// TestShadowDoesNotKeepWaiting: calls that wait by a policy in shadow pass as fast as the provider answers,
// and are not told that their turn comes too late.
func TestShadowDoesNotKeepWaiting(t *testing.T) {
	for _, strategy := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		synctest.Test(t, func(t *testing.T) {
			slow := &slowBinder{newLocal(t, trypema.Options{})}
			p := fixture.Policies(t, slow, trypema.Policy{
				Name: "api", Strategy: strategy, Shadow: true,
				Limits: []trypema.Limit{trypema.AtMost(1, time.Minute)},
			})
			done := make(chan error)
			for range 5 {
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					d, err := p.Wait(ctx, "api", "k")
					if err == nil && !d.Allowed {
						err = errors.New("denied without an error")
					}
					done <- err
				}()
			}
			for range 5 {
				if err := <-done; err != nil {
					t.Errorf("%v: %v", strategy, err)
				}
			}
		})
	}
}

// TestWaitTooLateIsADenial: with ErrWouldExceedDeadline comes the decision that Allow would have returned,
// whose RetryAfter is when the turn comes.
func TestWaitTooLateIsADenial(t *testing.T) {
	hour := trypema.AtMost(100, time.Hour).Named("hour")
	for name, test := range map[string]struct {
		strategy trypema.Strategy
		limits   []trypema.Limit
		ahead    int // in the line
		least    time.Duration
	}{
		"first": {trypema.StrategyAbsolute, []trypema.Limit{trypema.AtMost(2, time.Minute)}, 0,
			time.Minute},
		"in the line": {trypema.StrategyAbsolute, []trypema.Limit{trypema.AtMost(2, time.Minute)}, 1,
			time.Minute},
		"windows away": {trypema.StrategyAbsolute, []trypema.Limit{trypema.AtMost(2, time.Minute)}, 5,
			3 * time.Minute},
		"several, first": {trypema.StrategyAbsolute,
			[]trypema.Limit{trypema.AtMost(2, time.Minute), hour}, 0, time.Minute},
		"several, far": {trypema.StrategyAbsolute,
			[]trypema.Limit{trypema.AtMost(2, time.Minute), hour}, 5, 2 * time.Minute},
		"Suppressed, a crowd": {trypema.StrategySuppressed, []trypema.Limit{trypema.AtMost(2, time.Minute)}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := bind(t, newLocal(t, trypema.Options{}), test.strategy, test.limits...)
				long, stop := context.WithCancel(t.Context())
				defer stop()
				for i := range 3 { // under Suppressed, 3 is the hard capacity
					if i < 2 || test.strategy == trypema.StrategySuppressed {
						if _, err := b.Allow(t.Context(), "k"); err != nil {
							t.Fatal(err)
						}
					}
				}
				for range test.ahead {
					go b.Wait(long, "k") //nolint:errcheck // it is stopped
					synctest.Wait()
				}
				denied, err := b.Allow(t.Context(), "k")
				if err != nil || denied.Allowed {
					t.Fatalf("%+v, %v", denied, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				d, err := b.Wait(ctx, "k")
				if !errors.Is(err, trypema.ErrWouldExceedDeadline) || d.RetryAfter < test.least ||
					d.RetryAfter <= time.Second {
					t.Errorf("%+v, %v", d, err)
				}
				got := []any{d.Allowed, d.Outcome, d.Limit, d.Remaining, d.RefusedBy}
				want := []any{false, denied.Outcome, denied.Limit, denied.Remaining, denied.RefusedBy}
				if !slices.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
				stop()
				synctest.Wait()
			})
		})
	}
}

// slowBinder is a provider that takes a second for each call.
type slowBinder struct{ trypema.Binder }

type slowKeeper struct{ trypema.Keeper }

func (k slowKeeper) AllowN(ctx context.Context, key string, n uint64) (trypema.Decision, error) {
	time.Sleep(time.Second)
	return k.Keeper.AllowN(ctx, key, n)
}

func (s *slowBinder) Bind(of trypema.Strategy, limits ...trypema.Limit) (*trypema.Bound, error) {
	return trypema.NewBound(of, limits, func(limits []trypema.Limit) (trypema.Keeper, error) {
		b, err := s.Binder.Bind(of, limits...)
		if err != nil {
			return nil, err
		}
		return slowKeeper{b.Keeper()}, nil
	})
}

// TestZeroValues: what a program has not made, or made by a literal, is an error that says how to make it.
func TestZeroValues(t *testing.T) {
	ctx := t.Context()
	says := func(what string, kind error, must string, err error) {
		t.Helper()
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), must) {
			t.Errorf("%s: %v, want a %v that says %q", what, err, kind, must)
		}
	}
	invalid := trypema.ErrInvalidOptions
	for name, b := range map[string]*trypema.Bound{"nil Bound": nil, "Bound{}": {}} {
		const must = "it must be made by Bind of a provider, or by Policies.Use"
		_, err := b.Allow(ctx, "k")
		says(name, invalid, must, err)
		_, err = b.AllowN(ctx, "k", 1)
		says(name, invalid, must, err)
		_, err = b.AllowMany(ctx, []trypema.Call{{Key: "k", Cost: 1}}, nil)
		says(name, invalid, must, err)
		_, err = b.Wait(ctx, "k")
		says(name, invalid, must, err)
		_, err = b.WaitN(ctx, "k", 1)
		says(name, invalid, must, err)
		_, err = b.Peek(ctx, "k", 1)
		says(name, invalid, must, err)
		_, err = b.Reserve(ctx, "k", 1, 0)
		says(name, invalid, must, err)
		_, err = b.Usage(ctx, "k")
		says(name, invalid, must, err)
		_, err = b.InGroup("g")
		says(name, invalid, must, err)
		says(name, invalid, must, b.Delete(ctx, "k"))
		_, err = trypema.All(ctx, b.Ask("k", 1))
		says(name, invalid, "Bound.Ask", err)
		if n := len(b.Limits()); n != 0 || b.Keeper() != nil || b.Strategy() != trypema.StrategyAbsolute {
			t.Errorf("%s: %d limits, %v, %v", name, n, b.Keeper(), b.Strategy())
		}
	}
	for name, p := range map[string]*trypema.Policies{"nil Policies": nil, "Policies{}": {}} {
		const must = "they must be made by NewPolicies"
		_, err := p.Allow(ctx, "p", "k")
		says(name, invalid, must, err)
		_, err = p.AllowN(ctx, "p", "k", 1)
		says(name, invalid, must, err)
		_, err = p.Wait(ctx, "p", "k")
		says(name, invalid, must, err)
		_, err = p.WaitN(ctx, "p", "k", 1)
		says(name, invalid, must, err)
		_, err = p.Peek(ctx, "p", "k", 1)
		says(name, invalid, must, err)
		_, err = p.Reserve(ctx, "p", "k", 1, 0)
		says(name, invalid, must, err)
		_, err = p.Usage(ctx, "p", "k")
		says(name, invalid, must, err)
		_, err = p.Use("p")
		says(name, invalid, must, err)
		says(name, invalid, must, p.Delete(ctx, "p", "k"))
		_, err = trypema.All(ctx, p.Ask("p", "k", 1))
		says(name, invalid, must, err)
		says(name, invalid, must, p.Swap(perMinute("p", 1)))
		p.Observe(new(trypema.Meters))
		if _, there := p.Get("p"); there || len(p.Names()) != 0 {
			t.Errorf("%s has policies: %v", name, p.Names())
		}
	}
	for name, l := range map[string]*trypema.Local{"nil Local": nil, "Local{}": {}} {
		const must = "it must be made by NewLocal"
		for _, limiter := range []trypema.Limiter{l.Absolute(), l.Suppressed()} {
			_, err := limiter.Allow(ctx, "k", 1)
			says(name, invalid, must, err)
			_, err = limiter.AllowN(ctx, "k", trypema.Unlimited, 1)
			says(name, invalid, must, err)
			_, err = limiter.Peek(ctx, "k", 1, 0)
			says(name, invalid, must, err)
			_, err = limiter.Usage(ctx, "k", 1)
			says(name, invalid, must, err)
			_, err = limiter.Set(ctx, "k", trypema.Always(), 1, trypema.Replace)
			says(name, invalid, must, err)
			says(name, invalid, must, limiter.Delete(ctx, "k"))
			_, err = trypema.AllowMany(ctx, limiter, 1, []trypema.Call{{Key: "k", Cost: 1}}, nil)
			says(name, invalid, must, err)
		}
		_, err := l.Bind(trypema.StrategyAbsolute, trypema.AtMost(1, time.Minute))
		says(name, invalid, must, err)
		_, err = trypema.NewPolicies(l, perMinute("p", 1))
		says(name, invalid, "must", err)
		if err := l.Close(); err != nil || l.Len() != 0 {
			t.Errorf("%s: Close: %v, %d keys", name, err, l.Len())
		}
	}
	for name, r := range map[string]*trypema.Reservation{"nil Reservation": nil, "Reservation{}": {}} {
		says(name, trypema.ErrDenied, "", r.Commit(ctx, 1))
		says(name, trypema.ErrDenied, "", r.Refund(ctx))
	}
	_, err := trypema.All(ctx, trypema.Ask{})
	says("Ask{}", invalid, "Bound.Ask", err)
	var meters *trypema.Meters
	meters.Observe(trypema.Meter{})
	if n := len(meters.All()); n != 0 {
		t.Errorf("nil Meters have %d", n)
	}
}
