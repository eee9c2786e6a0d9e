package thirdparty

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/trypema/trypema"
)

// asked is a call by All: how much of each window.
type asked struct{ costs map[string]uint64 }

// TestAllIsLinearizable: calls by All on Local, of several keys in tables that they share, take effect one
// after the other, and each as a whole.
func TestAllIsLinearizable(t *testing.T) {
	first, last := seeds(t, 20)
	for seed := first; seed != last; seed++ {
		withProcessors(t, int(1+seed%3))
		rng := rand.New(rand.NewPCG(seed, 5))
		capacities := map[string]uint64{"tenant": 12 + rng.Uint64N(20), "user": 3 + rng.Uint64N(8)}
		local, err := trypema.NewLocal(trypema.Options{})
		if err != nil {
			t.Fatal(err)
		}
		bounds := make(map[string]*trypema.Bound)
		// Both have an hour of their own strategy, so that they are in two tables; the keys share shards.
		for name, of := range map[string]time.Duration{"tenant": time.Hour, "user": 2 * time.Hour} {
			if bounds[name], err = local.Bind(trypema.StrategyAbsolute, trypema.AtMost(capacities[name], of)); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		var happened []porcupine.Operation
		began := time.Now()
		var all sync.WaitGroup
		for caller := range 6 {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(caller)))
				for range 25 {
					c := asked{costs: map[string]uint64{}}
					var asks []trypema.Ask
					for range 1 + rng.IntN(3) {
						name := []string{"tenant", "user"}[rng.IntN(2)]
						key, n := fmt.Sprint(rng.IntN(3)), 1+rng.Uint64N(2)
						asks = append(asks, bounds[name].Ask(key, n))
						c.costs[name+key] += n
					}
					from := time.Since(began)
					d, err := trypema.All(t.Context(), asks...)
					to := time.Since(began)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					happened = append(happened, porcupine.Operation{
						ClientId: caller, Input: c, Output: d.Allowed, Call: int64(from), Return: int64(to),
					})
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if err := local.Close(); err != nil {
			t.Error(err)
		}
		model := allModel(capacities)
		if result := porcupine.CheckOperationsTimeout(model, happened, time.Minute); result == porcupine.Illegal {
			t.Fatalf("TRYPEMA_SEED=%d: a history is not linearizable, see %s", seed, draw(t, model, happened))
		}
	}
}

// allModel is the specification: each window is a count.
func allModel(capacities map[string]uint64) porcupine.Model {
	type state [6]uint64 // by tenant 0 to 2, user 0 to 2
	place := func(in string) int {
		i := int(in[len(in)-1] - '0')
		if in[0] == 'u' {
			i += 3
		}
		return i
	}
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(s, in, out any) (bool, any) {
			now := s.(state)
			fits := true
			for window, n := range in.(asked).costs {
				i := place(window)
				now[i] += n
				fits = fits && now[i] <= capacities[window[:len(window)-1]]
			}
			if !fits {
				now = s.(state)
			}
			return out.(bool) == fits, now
		},
	}
}
