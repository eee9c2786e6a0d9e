// Package batches calls AllowMany in each way that a provider has. Only tests use it.
package batches

import (
	"context"
	"testing"
	"time"

	"github.com/trypema/trypema"
)

// Of is AllowMany on a limiter, a limit, several limits and a policy, of n in a window.
func Of(t testing.TB, p trypema.Provider, s trypema.Strategy, n uint64) map[string]func(
	ctx context.Context, calls []trypema.Call,
) ([]trypema.Decision, error) {
	t.Helper()
	limiter := p.Absolute()
	if s == trypema.StrategySuppressed {
		limiter = p.Suppressed()
	}
	one, err := p.Bind(s, trypema.AtMost(n, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.Bind(s, trypema.AtMost(n, time.Minute), trypema.AtMost(2*n, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	policies, err := trypema.NewPolicies(p, trypema.Policy{
		Name: "p", Strategy: s, Limits: []trypema.Limit{trypema.AtMost(n, time.Minute)},
	})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := policies.Use("p")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(ctx context.Context, calls []trypema.Call) ([]trypema.Decision, error){
		"policy": func(ctx context.Context, calls []trypema.Call) ([]trypema.Decision, error) {
			return policy.AllowMany(ctx, calls, nil)
		},
		"limiter": func(ctx context.Context, calls []trypema.Call) ([]trypema.Decision, error) {
			return trypema.AllowMany(ctx, limiter, trypema.Per(float64(n), limiter.Window()), calls, nil)
		},
		"one limit": func(ctx context.Context, calls []trypema.Call) ([]trypema.Decision, error) {
			return one.AllowMany(ctx, calls, nil)
		},
		"two limits": func(ctx context.Context, calls []trypema.Call) ([]trypema.Decision, error) {
			return two.AllowMany(ctx, calls, nil)
		},
	}
}
