package onfaults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/proxy"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// networks are what happens to the way to Redis, and how it ends.
var networks = []struct {
	name       string
	start, end func(p *proxy.Proxy)
}{
	{"split", func(p *proxy.Proxy) { p.Blackhole(true) }, func(p *proxy.Proxy) { p.Blackhole(false) }},
	{"requests held", func(p *proxy.Proxy) { p.Hold(true, false) }, func(p *proxy.Proxy) { p.Hold(false, false) }},
	{"replies held", func(p *proxy.Proxy) { p.Hold(false, true) }, func(p *proxy.Proxy) { p.Hold(false, false) }},
	{"replies lost", func(p *proxy.Proxy) { p.DropReplies(true) }, func(p *proxy.Proxy) { p.DropReplies(false); p.Reset() }},
	{"refused", func(p *proxy.Proxy) { p.Refuse(true) }, func(p *proxy.Proxy) { p.Refuse(false) }},
	{"reset once", func(p *proxy.Proxy) { p.Reset() }, func(*proxy.Proxy) {}},
	{"slow", func(p *proxy.Proxy) { p.SetDelay(40 * time.Millisecond) }, func(p *proxy.Proxy) { p.SetDelay(0) }},
	{"slower than the timeout", func(p *proxy.Proxy) { p.SetDelay(timeout * 3 / 2) }, func(p *proxy.Proxy) { p.SetDelay(0) }},
	{"flapping", nil, nil},
}

// flap has the way to Redis be there and not, in turn and for some time each, and with another fault each
// time, until it is enough. It returns how often that was.
func flap(p *proxy.Proxy, rng *rand.Rand, enough func() bool) (n int) {
	some := func() time.Duration {
		return 50*time.Millisecond + time.Duration(rng.Int64N(int64(150*time.Millisecond)))
	}
	for ; !enough(); n++ {
		fault := networks[rng.IntN(len(networks)-1)]
		fault.start(p)
		time.Sleep(some())
		fault.end(p)
		time.Sleep(some())
	}
	return n
}

// Whatever the network does to four instances, or to one of them: no call is an error or waits for its end;
// with FailClosed no window holds more than the limit, and with FailLocal no instance admits more; those that
// are not cut off go on, and all use the limit again once it is over, by themselves.
func TestNetwork(t *testing.T) {
	for i, kind := range both {
		for j, fault := range networks {
			for k, hit := range []int{4, 1} {
				for _, policy := range []redislimit.FailurePolicy{redislimit.FailClosed, redislimit.FailLocal} {
					// In short, each fault befalls all instances of one provider, and each other one an
					// instance of the other's.
					if !explore.Long() && ((i+j)%2 != k || k == 1 && j%2 == 1 ||
						(policy == redislimit.FailLocal) != (fault.name == "flapping")) {
						continue
					}
					t.Run(fmt.Sprintf("%v, %s, %d of 4, %v", kind, fault.name, hit, policy), func(t *testing.T) {
						t.Parallel()
						repeat(t, func(t *testing.T) {
							network(t, kind, hit, policy, func(p *proxy.Proxy, rng *rand.Rand, enough func() bool) int {
								if fault.start == nil {
									return flap(p, rng, enough)
								}
								fault.start(p)
								for !enough() {
									time.Sleep(20 * time.Millisecond)
								}
								fault.end(p)
								return 1
							})
						})
					})
				}
			}
		}
	}
}

func network(
	t *testing.T, kind rig.Kind, hit int, policy redislimit.FailurePolicy,
	fault func(*proxy.Proxy, *rand.Rand, func() bool) int,
) {
	const instances = 4
	server := redisserver.Start(t)
	way := redisserver.StartProxy(t, server.Addr())
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 4, Callers: 2},
		hasty(policy, 1))
	for i := range instances {
		if i < hit {
			f.Add(hasty(policy, 1), dial(t, way.Addr()))
		} else {
			f.Add(patient(t), dialPatiently(t, server.Addr()))
		}
	}
	f.Start()
	f.Used("before", .9)
	began := time.Now()
	n := fault(way, rand.New(rand.NewPCG(explore.Seed(t), 0)), func() bool {
		switch took := time.Since(began); {
		case took < window*3/2:
			return false
		case hit < instances && took < rig.Patience: // by those that are not cut off, and now and then by the other
			return float64(f.Most(rig.Since(began))) > .8*float64(f.Capacity())
		}
		return true
	})
	ended := time.Now()
	back(f)
	// Of what was admitted by FailLocal, Redis does not know: for a window both have a say.
	f.Used("afterwards", .9, rig.Since(ended.Add(window)))
	f.Stop()

	f.Summary(fmt.Sprintf("%d faults", n))
	if policy == redislimit.FailClosed {
		f.Bound("with FailClosed", f.Capacity())
	}
	for i := range instances {
		f.Bound(fmt.Sprint("by instance ", i), f.Capacity(), rig.By(i))
	}
	if hit < instances && ended.Sub(began) > rig.Patience {
		t.Errorf("those that are not cut off do not use the limit")
	}
	if n := len(f.Of(func(c rig.Call) bool { return c.Fallback && c.Instance >= hit })); n > 0 {
		t.Errorf("%d fallbacks of instances that are not cut off", n)
	}
}
