package onredis

import (
	"sync"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/limittest"
)

// The suite, on every topology, by every adapter. All wait at once.
func TestConformance(t *testing.T) {
	var all sync.WaitGroup // t.Parallel would let only as many wait as there are processors
	for _, topology := range topologies {
		all.Go(func() {
			t.Run(topology.name, func(t *testing.T) {
				addrs := topology.start(t)
				var suites sync.WaitGroup
				for _, adapter := range adapters {
					if topology.name == "miniredis" && adapter.name == "rueidis" {
						continue // it is slow, and one client shows enough
					}
					conn := adapter.dial(t, addrs)
					for _, suppressed := range []bool{false, true} {
						name := adapter.name + map[bool]string{false: " Absolute", true: " Suppressed"}[suppressed]
						suites.Go(func() {
							t.Run(name, func(t *testing.T) {
								limittest.Run(t, limittest.Subject{
									New: func(t *testing.T, o trypema.Options) trypema.Limiter {
										return strategy(open(t, conn, patient(t, o)), suppressed)
									},
									Suppressed: suppressed,
									Window:     2 * time.Second,
									Resolution: time.Microsecond,
									Jitter:     50 * time.Millisecond,
									Use:        .95, // of calls that take time to travel, and to be scheduled
								})
							})
						})
					}
				}
				suites.Wait()
			})
		})
	}
	all.Wait()
}
