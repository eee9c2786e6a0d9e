package limittest_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/limittest"
)

// metered is a limiter that counts what it denies.
type metered struct {
	trypema.Limiter
	denied *atomic.Int64
}

func (m metered) Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error) {
	return m.AllowN(ctx, key, rate, 1)
}

func (m metered) AllowN(
	ctx context.Context, key string, rate trypema.Rate, n uint64,
) (trypema.Decision, error) {
	d, err := m.Limiter.AllowN(ctx, key, rate, n)
	if err == nil && !d.Allowed {
		m.denied.Add(1)
	}
	return d, err
}

// A limiter of one's own, here one that counts its denials, is tested in virtual time. In a test file of
// yours, the function is TestConformance.
func ExampleRun() {
	testConformance := func(t *testing.T) {
		limittest.Run(t, limittest.Subject{
			New: func(t *testing.T, o trypema.Options) trypema.Limiter {
				limits, err := trypema.NewLocal(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { limits.Close() })
				return metered{limits.Absolute(), new(atomic.Int64)}
			},
			In:       synctest.Test,
			EmptyKey: true,
		})
	}
	run("TestConformance", testConformance)
}

// A provider of one's own that keeps several limits at once.
func ExampleRunBind() {
	testMulti := func(t *testing.T) {
		limittest.RunBind(t, limittest.Subject{In: synctest.Test, EmptyKey: true},
			func(t *testing.T, o trypema.Options) trypema.Provider {
				limits, err := trypema.NewLocal(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { limits.Close() })
				return limits
			})
	}
	run("TestMulti", testMulti)
}
