package onfaults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proxy"
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
	{"slower than the timeout", func(p *proxy.Proxy) { p.SetDelay(300 * time.Millisecond) }, func(p *proxy.Proxy) { p.SetDelay(0) }},
	{"flapping", nil, nil},
}

// flap has the way to Redis be there and not, in turn and for some time each, and with another fault each time. It returns how
// often that was.
func flap(p *proxy.Proxy, rng *rand.Rand, d time.Duration) (n int) {
	some := func() time.Duration {
		return 50*time.Millisecond + time.Duration(rng.Int64N(int64(150*time.Millisecond)))
	}
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		fault := networks[rng.IntN(len(networks)-1)]
		fault.start(p)
		time.Sleep(some())
		fault.end(p)
		time.Sleep(some())
	}
	return n
}

// Whatever the network does to four instances, or to one of them: no call is an error or outlives its timeout; with FailClosed no
// window holds more than the limit, and with FailLocal no instance admits more; those that are not cut off go on, and all use the
// limit again once it is over, by themselves.
func TestNetwork(t *testing.T) {
	for _, kind := range both {
		for _, fault := range networks {
			for _, hit := range []int{4, 1} {
				if hit == 1 && !*long && (fault.name == "slow" || fault.name == "reset once" || testing.Short()) {
					continue
				}
				for _, policy := range []redislimit.FailurePolicy{redislimit.FailClosed, redislimit.FailLocal} {
					if policy == redislimit.FailLocal && !*long && (fault.name != "split" && fault.name != "flapping" || testing.Short()) {
						continue
					}
					t.Run(fmt.Sprintf("%v, %s, %d of 4, %v", kind, fault.name, hit, policy), func(t *testing.T) {
						t.Parallel()
						repeat(t, func(t *testing.T) {
							network(t, kind, hit, policy, func(p *proxy.Proxy, rng *rand.Rand, d time.Duration) int {
								if fault.start == nil {
									return flap(p, rng, d)
								}
								fault.start(p)
								time.Sleep(d)
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

func network(t *testing.T, kind rig.Kind, hit int, policy redislimit.FailurePolicy, fault func(*proxy.Proxy, *rand.Rand, time.Duration) int) {
	const instances = 4
	server := redisserver.Start(t)
	way := redisserver.StartProxy(t, server.Addr())
	conns := make([]redislimit.Conn, instances)
	for i := range conns {
		addr := server.Addr()
		if i < hit {
			addr = way.Addr()
		}
		conns[i] = dial(t, addr)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 4, Callers: 2}, hasty(policy, 1), conns...)
	f.Start()
	time.Sleep(window)
	began := time.Now()
	n := fault(way, rand.New(rand.NewPCG(seed, 0)), 1500*time.Millisecond)
	ended := time.Now()
	back(f)
	// Of what was admitted by FailLocal, Redis does not know: for a window both have a say.
	time.Sleep(3 * window)
	f.Stop()

	f.Summary(timeout, fmt.Sprintf("%d faults", n))
	if policy == redislimit.FailClosed {
		f.Bound("with FailClosed", f.Capacity())
	}
	for i := range instances {
		f.Bound(fmt.Sprint("by instance ", i), f.Capacity(), rig.By(i))
	}
	if hit < instances {
		if policy == redislimit.FailClosed {
			f.Use("meanwhile", .8, rig.Since(began), rig.Until(ended)) // by those that are not cut off, and now and then by the other
		}
		spared := f.Of(rig.By(1, 2, 3))
		fallbacks := 0
		for _, c := range spared {
			if c.Fallback {
				fallbacks++
			}
		}
		if fallbacks > len(spared)/50 { // a busy machine may be too slow for some
			t.Errorf("%d fallbacks in %d calls of instances that are not cut off", fallbacks, len(spared))
		}
	}
	f.Use("afterwards", .9, rig.Since(ended.Add(window)))
}
