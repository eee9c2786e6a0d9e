package onredis

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

// conformers are the providers that run the suite, on the topologies that they are worth it on.
var conformers = []struct {
	name    string
	on      []string
	options func(s *limittest.Subject)
	open    func(t *testing.T, c redislimit.Conn, o trypema.Options) trypema.Provider
}{
	{"", []string{"redis", "cluster", "miniredis"}, func(*limittest.Subject) {}, func(t *testing.T, c redislimit.Conn, o trypema.Options) trypema.Provider {
		return rig.Open(t, c, rig.Patient(t, o))
	}},
	// Room is noticed when an instance settles, so RetryAfter may be later than the truth by two intervals
	// and a few round trips.
	{"hybrid ", []string{"redis", "cluster"}, func(s *limittest.Subject) { s.Lag, s.Use = 2*100*time.Millisecond+12*time.Millisecond, .97 }, func(t *testing.T, c redislimit.Conn, o trypema.Options) trypema.Provider {
		return rig.OpenHybrid(t, c, hybridlimit.Options{Options: rig.Patient(t, o)})
	}},
}

// brief are the suites that "make test" runs, in their short form: those that share no code with another of
// them but the client, which is for TestConn of thirdparty to prove. On miniredis, TestTwin runs the scripts.
var brief = []string{
	"redis/go-redis Suppressed", "redis/go-redis Absolute multi", "redis/hybrid go-redis Suppressed",
	"cluster/hybrid go-redis Absolute", "cluster/rueidis Absolute",
}

// severalOn says where the suite also runs with several limits: once by each client, once on each kind of
// server. All that differs between the others is looked at with one limit.
func severalOn(topology, adapter string) bool {
	return topology == "redis" && adapter == "go-redis" || topology == "cluster" && adapter == "rueidis"
}

// inBubble is synctest.Test. In "make test" it leaves out the suite of one limit that is bound alone.
// TestMulti of redislimit runs that suite, and TestSeveralLimitsInRuns runs the script with one window.
func inBubble(t *testing.T, test func(*testing.T)) {
	if !explore.Long() && strings.Contains(t.Name(), "_multi/Alone/") {
		return
	}
	synctest.Test(t, test)
}

// The suite in virtual time on real servers, by every client, for both providers.
func TestConformance(t *testing.T) {
	for _, topology := range rig.Topologies {
		if topology.Name == "miniredis" && !explore.Long() {
			continue
		}
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			addrs := topology.Start(t)
			for _, adapter := range slices.Concat(rig.Adapters, rig.OtherAdapters) {
				if topology.Name == "miniredis" && adapter.Name != "go-redis" {
					continue // it is slow, and one client shows enough
				}
				if topology.Name == "cluster" && adapter.Name == "redigo" {
					continue // which redigo does not support
				}
				bridge := rig.NewBridge(t, adapter.Dial(t, addrs))
				for _, conformer := range conformers {
					if !slices.Contains(conformer.on, topology.Name) {
						continue
					}
					for _, suppressed := range []bool{false, true} {
						subject := limittest.Subject{
							New: func(t *testing.T, o trypema.Options) trypema.Limiter {
								return rig.Strategy(conformer.open(t, bridge.Conn(), o), suppressed)
							},
							Suppressed: suppressed,
							In:         inBubble,
							Resolution: time.Microsecond,
						}
						if !explore.Long() {
							subject.Jitter = 1 // which the suite takes for real time, and makes fewer calls
						}
						conformer.options(&subject)
						run := func(name string, suite func(t *testing.T)) {
							if explore.Long() || slices.Contains(brief, topology.Name+"/"+name) {
								t.Run(name, suite)
							}
						}
						name := conformer.name + adapter.Name + map[bool]string{false: " Absolute", true: " Suppressed"}[suppressed]
						run(name, func(t *testing.T) { limittest.Run(t, subject) })
						if severalOn(topology.Name, adapter.Name) {
							run(name+" multi", func(t *testing.T) {
								limittest.RunBind(t, subject, func(t *testing.T, o trypema.Options) trypema.Provider {
									return conformer.open(t, bridge.Conn(), o)
								})
							})
						}
					}
				}
			}
		})
	}
}
