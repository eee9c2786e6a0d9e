package onfaults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// slotOf returns where a Cluster has a key.
func slotOf(name string) int {
	at := rueidis.Completed{}.SetSlot(name)
	return int(at.Slot())
}

// together returns keys that a Cluster has in one slot.
func together(k rig.Kind, prefix string, w time.Duration, slot, n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprint(i); slotOf(k.RedisKey(prefix, key, w)) == slot {
			keys = append(keys, key)
		}
	}
	return keys
}

// A slot moves to and fro between the nodes of a Cluster while its keys are in use, and nodes forget the
// scripts: callers notice nothing. No call is decided by the policy or is an error, no window holds more than
// the limit, and what was admitted is counted, all of it and once. With several limits, too, whose keys are
// on two nodes for a moment.
func TestSlotsMove(t *testing.T) {
	cluster := redisserver.StartCluster(t)
	for i, kind := range both {
		for j, adapter := range rig.Adapters {
			if !explore.Long() && i != j {
				continue
			}
			t.Run(fmt.Sprintf("%v, %s", kind, adapter.Name), func(t *testing.T) {
				t.Parallel()
				repeat(t, func(t *testing.T) {
					slotsMove(t, cluster, 1000*(1+2*i+j), kind, func() redislimit.Conn { return adapter.Dial(t, cluster.Addrs()) })
				})
			})
		}
	}
}

func slotsMove(
	t *testing.T, cluster *redisserver.Cluster, slot int, kind rig.Kind, dial func() redislimit.Conn,
) {
	const n = 4
	o := patient(t)
	// One fleet is judged by what any window holds. In the windows of the other nothing expires, so they hold
	// all there was.
	short := rig.NewFleet(t,
		rig.Load{Kind: kind, Window: window, Rate: perSec / 4, Times: 3, Keys: make([]string, n)}, o, dial(),
		dial())
	day := rig.NewFleet(t, day(kind, make([]string, n)...), o, dial(), dial())
	short.Keys, day.Keys = together(kind, short.Prefix, window, slot, n), together(kind, day.Prefix,
		day.Window, slot, n)
	limits := several(t, short.Instances[0], together(kind, short.Prefix, window, slot, n+1)[n])
	short.Start()
	day.Start()
	most, rng := 6, rand.New(rand.NewPCG(explore.Seed(t), 0))
	if explore.Long() {
		most = 100
	}
	moves := 0
	for ; moves < most; moves++ {
		owner, err := cluster.Owner(t.Context(), slot)
		must.OK(t, err)
		to := cluster.Nodes[rng.IntN(len(cluster.Nodes))]
		if to == owner {
			continue
		}
		if moves%2 == 1 {
			do(t, to.Client(), "SCRIPT", "FLUSH")
		}
		if err := cluster.Move(t.Context(), slot, to, func() { time.Sleep(time.Duration(rng.Int64N(int64(30 * time.Millisecond)))) }); err != nil {
			t.Fatal(err)
		}
	}
	short.Used("of a key", .9)
	short.Stop()
	day.Stop()

	short.Summary(fmt.Sprintf("%d moves", moves))
	day.Summary("of a day")
	t.Logf("several limits: %s", limits())
	short.Bound("of a key", short.Capacity())
	for _, f := range []*rig.Fleet{short, day} {
		if n := len(f.Of(rig.Fellback)); n > 0 {
			t.Errorf("%d calls decided by the policy", n)
		}
	}
	owner, err := cluster.Owner(t.Context(), slot)
	must.OK(t, err)
	if kind.Hybrid {
		settled(day, owner.Client())
		return
	}
	for _, key := range day.Keys {
		n := len(day.Of(func(c rig.Call) bool { return c.Allowed && c.Key == key }))
		h, err := rig.ReadHeader(t.Context(), owner.Client(), kind, day.Name(key))
		if err != nil || h.Counted != uint64(n) {
			t.Errorf("%q: Redis has counted %d, %d were admitted; %v", key, h.Counted, n, err)
		}
	}
}

// several has a caller of several limits of one key, which ends when the function that it returns is called.
func several(t *testing.T, p trypema.Provider, key string) (end func() string) {
	m := fixture.Bind(t, p, trypema.StrategyAbsolute, trypema.Limit{Rate: trypema.Per(40, window), Window: window},
		trypema.Limit{Rate: trypema.Per(60, 2*window), Window: 2 * window})
	stop := make(chan struct{})
	var log []anywindow.Admission
	calls := 0
	var caller sync.WaitGroup
	caller.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			a := anywindow.Admission{From: time.Now(), Cost: 1}
			d, err := m.Allow(context.Background(), key)
			a.To = time.Now()
			if err != nil || d.Fallback {
				t.Errorf("several limits: %+v, %v", d, err)
			}
			if d.Allowed {
				log = append(log, a)
			}
			calls++
		}
	})
	return func() string {
		close(stop)
		caller.Wait()
		one, two := anywindow.Most(log, window), anywindow.Most(log, 2*window)
		if one > 40 || two > 60 {
			t.Errorf("several limits: %d of 40 and %d of 60 admitted in a window", one, two)
		}
		return fmt.Sprintf("%d calls, %d admitted, at most %d of 40 and %d of 60 in a window", calls,
			len(log), one, two)
	}
}

// counted counts the exchanges that have a key of one slot in them.
type counted struct {
	redislimit.NodeConn
	slot  int
	asked atomic.Int64
}

// Run implements redislimit.Conn.
func (c *counted) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	if slices.ContainsFunc(keys, func(of []string) bool { return slotOf(of[0]) == c.slot }) {
		c.asked.Add(1)
	}
	c.NodeConn.Run(ctx, script, sha1, keys, args, answer)
}

// One node of a Cluster is stopped: calls for its keys are decided by the policy, and it is asked now and
// then, not for each of them. Calls for keys of the others are decided by Redis. When it goes on, so do its
// keys.
func TestOneNodeGone(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a Cluster")
	}
	t.Parallel()
	const calls = 400
	cluster := redisserver.StartCluster(t)
	for i, kind := range both {
		for j, adapter := range rig.Adapters {
			if !explore.Long() && i != j {
				continue
			}
			t.Run(fmt.Sprintf("%v, %s", kind, adapter.Name), func(t *testing.T) {
				const slot = 16384/3/2 + 7 // of the first node
				conn := &counted{NodeConn: adapter.Dial(t, cluster.Addrs()).(redislimit.NodeConn), slot: slot}
				prefix := rig.Unique("gone")
				l := rig.Strategy(kind.Open(t, conn, redislimit.Options{
					Options: trypema.Options{Window: window}, Prefix: prefix, Timeout: timeout, OnFailure: redislimit.FailClosed,
				}), kind.Suppressed)
				lost := together(kind, prefix, window, slot, 1)[0]
				others := []string{together(kind, prefix, window, 8000, 1)[0], together(kind, prefix, window, 16000, 1)[0]}
				allow := func(key string) trypema.Decision {
					d, err := l.Allow(t.Context(), key, 100_000)
					must.OK(t, err)
					return d
				}
				asks := func(key string) {
					for began := time.Now(); allow(key).Fallback; time.Sleep(20 * time.Millisecond) {
						if time.Since(began) > time.Minute {
							t.Fatalf("%q is not asked for", key)
						}
					}
				}
				for _, key := range append(others, lost) {
					asks(key)
				}

				cluster.Nodes[0].Pause()
				resume := sync.OnceFunc(cluster.Nodes[0].Resume)
				defer resume()
				// Hybrid has something on lease still.
				for began := time.Now(); !allow(lost).Fallback && time.Since(began) < time.Minute; time.Sleep(20 * time.Millisecond) {
				}
				before := conn.asked.Load()
				fallbacks, wrong := 0, 0
				for range calls {
					if allow(lost).Fallback {
						fallbacks++
					}
					if allow(others[0]).Fallback || allow(others[1]).Fallback {
						wrong++
					}
				}
				asked := conn.asked.Load() - before
				t.Logf("%d of %d calls decided by the policy, and %d of the other nodes'; the node was asked %d times", fallbacks, calls, wrong, asked)
				if fallbacks != calls || wrong > calls/10 || asked > calls/2 {
					t.Errorf("%d of %d calls decided by the policy, and %d of the other nodes'; the node was asked %d times", fallbacks, calls, wrong, asked)
				}

				resume()
				asks(lost)
			})
		}
	}
}
