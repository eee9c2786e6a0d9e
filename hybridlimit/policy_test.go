package hybridlimit_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// Two instances whose policies are swapped at instants of their own, Redis and Hybrid: in no window is more
// admitted than the higher rate allows, and what was used stays used.
func TestPoliciesAreSwappedUnderLoad(t *testing.T) {
	const low, high = 40, 100
	policy := func(n float64) trypema.Policy {
		return trypema.Policy{Name: "api", Limits: []trypema.Limit{
			{Name: "window", Rate: trypema.Per(n, 10*time.Second), Window: 10 * time.Second},
			{Name: "hour", Rate: trypema.Unlimited, Window: time.Hour},
		}}
	}
	for name, provider := range map[string]func(t *testing.T, f *fakeredis.Server) trypema.Binder{
		"Redis": func(t *testing.T, f *fakeredis.Server) trypema.Binder {
			p, err := redislimit.New(f, redislimit.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			return p
		},
		"Hybrid": func(t *testing.T, f *fakeredis.Server) trypema.Binder {
			return open(t, f, hybridlimit.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			seed := explore.Seed(t)
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = time.Millisecond
				var mu sync.Mutex
				var admitted []time.Time
				var all sync.WaitGroup
				var last *trypema.Policies
				for instance := range uint64(2) {
					p, err := trypema.NewPolicies(provider(t, f), policy(high))
					if err != nil {
						t.Fatal(err)
					}
					last = p
					for caller := range uint64(4) {
						rng := rand.New(rand.NewPCG(seed, 4*instance+caller))
						all.Go(func() {
							for range map[bool]int{false: 500, true: 1000}[explore.Long()] {
								time.Sleep(time.Duration(rng.ExpFloat64() * float64(200*time.Millisecond)))
								if caller == 0 {
									if err := p.Swap(policy([]float64{low, high}[rng.IntN(2)])); err != nil {
										t.Error(err)
									}
									continue
								}
								asked := time.Now()
								d, err := p.Allow(context.Background(), "api", "k")
								if err != nil {
									t.Error(err)
								}
								if d.Allowed {
									mu.Lock()
									admitted = append(admitted, asked)
									mu.Unlock()
								}
							}
						})
					}
				}
				all.Wait()
				if len(admitted) < 10*low {
					t.Errorf("only %d calls admitted", len(admitted))
				}
				const trip = 4 * time.Millisecond // a call is admitted within it, after it was made
				for i := high; i < len(admitted); i++ {
					if span := admitted[i].Sub(admitted[i-high]); span < 10*time.Second-trip {
						t.Errorf("%d admitted within %v", high+1, span)
					}
				}
				time.Sleep(time.Minute) // until all is settled; what is far from its limit settles seldom
				used, err := last.Usage(context.Background(), "api", "k")
				if err != nil || used[1].Total != uint64(len(admitted)) {
					t.Errorf("admitted %d, in use %+v, %v", len(admitted), used, err)
				}
			})
		})
	}
}
