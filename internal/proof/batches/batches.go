// Package batches calls AllowMany in each way that a provider has. Only tests use it.
package batches

import (
	"context"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
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
	one := fixture.Bind(t, p, s, trypema.AtMost(n, time.Minute))
	two := fixture.Bind(t, p, s, trypema.AtMost(n, time.Minute), trypema.AtMost(2*n, time.Hour))
	policy, err := fixture.Policies(t, p, trypema.Policy{
		Name: "p", Strategy: s, Limits: []trypema.Limit{trypema.AtMost(n, time.Minute)},
	}).Use("p")
	must.OK(t, err)
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
