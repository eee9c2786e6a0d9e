//go:build !race

package trypema_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/trypema/trypema"
)

// A call costs at most so many times what a yardstick costs in the same moment: a clock read, a look into a
// sync.Map and a counter under a lock. The factor is generous, and the best of many short rounds counts, so a
// busy machine does not fail this; a change that makes each call wait or allocate does.
func TestCallCostsLittle(t *testing.T) {
	const rounds, calls = 60, 2000
	type counter struct {
		sync.Mutex
		n uint64
	}
	ctx := context.Background()
	names := keys(500)
	var yard sync.Map
	for _, key := range names {
		yard.Store(key, new(counter))
	}
	began := time.Now()
	yardstick := func(key string) {
		c, _ := yard.Load(key)
		c.(*counter).Lock()
		c.(*counter).n += uint64(time.Since(began))
		c.(*counter).Unlock()
	}
	took := func(call func(key string)) time.Duration {
		began := time.Now()
		for i := range calls {
			call(names[i*7%len(names)])
		}
		return time.Since(began)
	}
	l := newLocal(t, trypema.Options{HardLimitFactor: 1.5})
	for name, limiter := range each(l) {
		for what, rate := range map[string]trypema.Rate{"under": 1e6, "over": 1} {
			call := func(key string) { _, _ = limiter.Allow(ctx, key, rate) }
			best, yard := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			for range rounds {
				yard, best = min(yard, took(yardstick)), min(best, took(call))
			}
			ratio := float64(best) / float64(yard)
			t.Logf("%s, keys %s their limit: %.2f times the yardstick of %v a call", name, what, ratio, yard/calls)
			most := 5.
			if name == "Suppressed" && what == "over" {
				most = 20 // it also searches for the waiting time
			}
			if ratio > most {
				t.Errorf("%s, keys %s their limit: %.2f times the yardstick, want at most %v", name, what, ratio, most)
			}
		}
	}
}
