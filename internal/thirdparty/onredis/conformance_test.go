package onredis

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

// conformers are the providers that run the suite, on the topologies that they are worth it on.
var conformers = []struct {
	name    string
	on      []string
	options func(s *limittest.Subject)
	open    func(t *testing.T, c redislimit.Conn, o trypema.Options) limittest.MultiProvider
}{
	{"", []string{"redis", "cluster", "miniredis"}, func(*limittest.Subject) {}, func(t *testing.T, c redislimit.Conn, o trypema.Options) limittest.MultiProvider {
		return rig.Open(t, c, rig.Patient(t, o))
	}},
	// Room is noticed when an instance settles, so RetryAfter may be later than the truth by two intervals and a few round trips.
	{"hybrid ", []string{"redis", "cluster"}, func(s *limittest.Subject) { s.Lag = 60 * time.Millisecond }, func(t *testing.T, c redislimit.Conn, o trypema.Options) limittest.MultiProvider {
		return rig.OpenHybrid(t, c, hybridlimit.Options{Options: rig.Patient(t, o)})
	}},
}

// severalOn says where the suite also runs with several limits: once by each client, once on each kind of server. All that differs
// between the others is looked at with one limit, and there are only so many processors.
func severalOn(topology, adapter string) bool {
	return topology == "redis" && adapter == "go-redis" || topology == "cluster" && adapter == "rueidis"
}

// The suite, on every topology, by every adapter, for both providers. All wait at once.
func TestConformance(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup // t.Parallel would let only as many wait as there are processors
	for _, topology := range rig.Topologies {
		all.Go(func() {
			t.Run(topology.Name, func(t *testing.T) {
				addrs := topology.Start(t)
				var suites sync.WaitGroup
				for _, adapter := range rig.Adapters {
					if topology.Name == "miniredis" && adapter.Name == "rueidis" {
						continue // it is slow, and one client shows enough
					}
					conn := adapter.Dial(t, addrs)
					for _, conformer := range conformers {
						if !slices.Contains(conformer.on, topology.Name) {
							continue
						}
						for _, suppressed := range []bool{false, true} {
							name := conformer.name + adapter.Name + map[bool]string{false: " Absolute", true: " Suppressed"}[suppressed]
							subject := limittest.Subject{
								New: func(t *testing.T, o trypema.Options) trypema.Limiter {
									p := conformer.open(t, conn, o)
									if suppressed {
										return p.Suppressed()
									}
									return p.Absolute()
								},
								Suppressed: suppressed,
								Window:     2 * time.Second,
								Resolution: time.Microsecond,
								Jitter:     50 * time.Millisecond,
								Use:        .95, // of calls that take time to travel, and to be scheduled
							}
							conformer.options(&subject)
							suites.Go(func() { t.Run(name, func(t *testing.T) { limittest.Run(t, subject) }) })
							if !severalOn(topology.Name, adapter.Name) {
								continue
							}
							suites.Go(func() {
								t.Run(name+" multi", func(t *testing.T) {
									limittest.RunMulti(t, subject, func(t *testing.T, o trypema.Options) limittest.MultiProvider {
										return conformer.open(t, conn, o)
									})
								})
							})
						}
					}
				}
				suites.Wait()
			})
		})
	}
	all.Wait()
}
