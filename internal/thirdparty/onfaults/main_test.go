package onfaults

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// The faults are real, so time is, too. A machine may be as slow as it likes: what is judged holds at any
// speed, such as the bound, or is waited for. How long a call takes at most, and how soon all is well again,
// is judged in virtual time: by TestOutage and TestMultiOutage of redislimit and hybridlimit, and TestHybrid
// of onmodel. "make test" has each fault once, with one of the policies; where tests explore, each happens
// five times, under every policy, to more calls.

// atOnce is how many tests run beside each other: they mostly wait, so more than there are processors.
const atOnce = "8"

func TestMain(m *testing.M) {
	// unless the command line says otherwise, which is read later
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	// What rueidis has asleep after a slot has moved ends by itself, seconds after its client is closed.
	leak.Main(m, "github.com/redis/rueidis.(*clusterClient).redirectOrNew.func1",
		"github.com/redis/rueidis.(*call).LazyDo.func1")
}

// repeat runs a test once, or several times where tests explore.
func repeat(t *testing.T, test func(t *testing.T)) {
	for i := range explore.Runs(1, 5) {
		if i == 0 {
			test(t)
		} else {
			t.Run(fmt.Sprint("again ", i), test) // with other seeds, and what it has started ends
		}
	}
}

// A key has 40 calls in half a second, or 200 in one. timeout is that of calls, after which the policy
// decides: long enough for a busy machine.
var window, perSec = 500 * time.Millisecond, 80.

func init() {
	if explore.Long() {
		window, perSec = time.Second, 200
	}
}

const timeout = 500 * time.Millisecond

// hasty are the options of instances that soon notice that Redis is gone, and that it is back.
func hasty(policy redislimit.FailurePolicy, instances int) redislimit.Options {
	return redislimit.Options{Timeout: timeout, OnFailure: policy, Instances: instances, RetryInterval: 50 * time.Millisecond}
}

// patient are the options of instances that nothing happens to.
func patient(t testing.TB) redislimit.Options { return rig.Patient(t, trypema.Options{}) }

// dial returns a connection to one server, by a client that is set up like that of most users.
func dial(t testing.TB, addr string) redislimit.Conn {
	return goredisconn.New(rig.Closing(t, redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: time.Second})))
}

// dialPatiently returns a connection to a server that nothing happens to.
func dialPatiently(t testing.TB, addr string) redislimit.Conn {
	return rig.Adapters[0].Dial(t, []string{addr})
}

// do has a server do something, or fails.
func do(t testing.TB, c redis.UniversalClient, args ...any) {
	t.Helper()
	if err := c.Do(context.Background(), args...).Err(); err != nil {
		t.Errorf("%v: %v", args, err)
	}
}

// both are the providers, in the strategy that states the bound.
var both = []rig.Kind{{}, {Hybrid: true}}

// back waits until each instance decides by Redis again, for a key that nobody else calls.
func back(f *rig.Fleet) {
	f.Helper()
	for i, p := range f.Instances {
		rig.Wait(f.TB, func() error {
			d, err := p.Absolute().Allow(context.Background(), rig.Unique("probe"), 1000)
			if err != nil || d.Fallback {
				return fmt.Errorf("instance %d does not ask Redis again: %+v, %w", i, d, err)
			}
			return nil
		})
	}
}

// seen waits until the policy has decided some calls since an instant.
func seen(f *rig.Fleet, since time.Time) {
	f.Helper()
	rig.Wait(f.TB, func() error {
		if n := len(f.Of(func(c rig.Call) bool { return c.Fallback && c.From.After(since) })); n < 5 {
			return fmt.Errorf("the policy has decided %d calls", n)
		}
		return nil
	})
}

// day is a load of windows so long that nothing ages out: they hold all that was admitted.
func day(kind rig.Kind, keys ...string) rig.Load {
	return rig.Load{Kind: kind, Window: 24 * time.Hour, Rate: 400. / 86400, Times: 40 * 86400 / 400, Keys: keys}
}

// settled closes the instances of a Hybrid fleet of that load, and fails unless Redis has counted what they
// have admitted, each call once.
func settled(f *rig.Fleet, c redis.Cmdable) {
	f.Helper()
	for _, p := range f.Instances {
		if err := p.Close(); err != nil {
			f.Error(err)
		}
	}
	for _, key := range f.Keys {
		mine := len(f.Of(func(c rig.Call) bool { return c.Allowed && c.Key == key }))
		h, err := rig.ReadHeader(context.Background(), c, f.Kind, f.Name(key))
		f.Logf("%q: %d were admitted, Redis has counted %d", key, mine, h.Counted)
		if err != nil || h.Counted != uint64(mine) || h.Leased > 0 {
			f.Errorf("%q: Redis has counted %d, and has %d on lease; %d were admitted; %v", key, h.Counted,
				h.Leased, mine, err)
		}
	}
}
