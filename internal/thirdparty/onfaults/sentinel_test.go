package onfaults

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// watching are the clients that ask Sentinels where the master is.
var watching = []struct {
	name string
	dial func(t testing.TB, sentinels []string) redislimit.Conn
}{
	{"go-redis", func(t testing.TB, sentinels []string) redislimit.Conn {
		return goredisconn.New(rig.Closing(t, redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: redisserver.MasterName, SentinelAddrs: sentinels, ReadTimeout: time.Second,
		})))
	}},
	{"rueidis", func(t testing.TB, sentinels []string) redislimit.Conn {
		return rig.Rueidis(t, rueidis.ClientOption{InitAddress: sentinels, Sentinel: rueidis.SentinelOption{MasterSet: redisserver.MasterName}})
	}},
}

// The master is killed under load, and Sentinels have its replica take over: no call is an error or outlives
// its timeout; in between, FailClosed admits nothing; then the replica decides, by itself. A window over the
// failover holds the limit, and besides at most what the replica was not told of; one that begins later holds
// the limit.
func TestFailover(t *testing.T) {
	for i, kind := range both {
		for j, client := range watching {
			for k, behind := range []bool{false, true} {
				if !explore.Long() && (i != j || i != k) {
					continue
				}
				t.Run(fmt.Sprintf("%v, %s, replica behind: %v", kind, client.name, behind), func(t *testing.T) {
					t.Parallel()
					repeat(t, func(t *testing.T) { failover(t, kind, behind, client.dial) })
				})
			}
		}
	}
}

func failover(
	t *testing.T, kind rig.Kind, behind bool, dial func(t testing.TB, sentinels []string) redislimit.Conn,
) {
	w := redisserver.StartWatched(t)
	conns := []redislimit.Conn{dial(t, w.Addrs()), dial(t, w.Addrs()), dial(t, w.Addrs())}
	const window = 3 * time.Second // longer than a failover takes
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 3},
		hasty(redislimit.FailClosed, 1), conns...)
	f.Start()
	admitted := func() int { return len(f.Of(rig.Admitted)) }
	replicated := func() rig.Header {
		h, err := rig.ReadHeader(t.Context(), w.Replica.Client(), kind, f.Name("k"))
		if err != nil {
			t.Error(err)
		}
		return h
	}
	rig.Wait(t, func() error {
		if n, h := admitted(), replicated(); n < int(f.Capacity()/4) || h.Counted == 0 {
			return fmt.Errorf("%d of %d admitted, of which the replica knows %+v", n, f.Capacity(), h)
		}
		return nil
	})
	if behind {
		do(t, w.Replica.Client(), "CONFIG", "SET", "masterauth", "wrong")
		do(t, w.Replica.Client(), "CLIENT", "KILL", "TYPE", "master")
		rig.Wait(t, func() error {
			if n, h := admitted(), replicated(); n < int(h.Counted+h.Leased)+15 {
				return fmt.Errorf("the replica does not lack enough: %d admitted, %+v", n, h)
			}
			return nil
		})
	}
	killed := time.Now()
	w.Master.Kill()
	h := replicated()
	seen(f, killed)
	w.Promote(t)
	back(f)
	promoted := time.Now()
	f.Used("afterwards", .9, rig.Since(promoted.Add(window/2)))
	f.Stop()

	f.Summary("failover")
	before := len(f.Of(func(c rig.Call) bool { return c.Allowed && c.From.Before(killed) }))
	lost := max(0, before-int(h.Counted+h.Leased))
	t.Logf("%d were admitted before the failover, of which the replica did not know %d; which took %v",
		before, lost, promoted.Sub(killed).Round(time.Millisecond))
	if behind && lost < 10 {
		t.Errorf("the replica only lacked %d", lost)
	}
	if n := len(f.Of(func(c rig.Call) bool { return c.Fallback && c.Allowed })); n > 0 {
		t.Errorf("FailClosed has admitted %d", n)
	}
	f.Bound("before", f.Capacity(), rig.Until(killed))
	if kind.Hybrid { // leases from before are used to their end, and the replica may not know of them
		f.Bound("over the failover", 2*f.Capacity())
	} else {
		f.Bound("over the failover", f.Capacity()+uint64(lost))
	}
	f.Bound("that begins after it", f.Capacity(), rig.Since(promoted))
}
