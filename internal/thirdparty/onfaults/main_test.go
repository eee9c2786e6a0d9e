package onfaults

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// long has every fault happen more often, and under every policy.
var long = flag.Bool("long", false, "run for many minutes instead of one or two")

// atOnce is how many tests run beside each other: they mostly wait, so more than there are processors.
const atOnce = "8"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", atOnce); err != nil { // unless the command line says otherwise, which is read later
		panic(err)
	}
	// What rueidis has asleep after a slot has moved ends by itself, seconds after its client is closed.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient).redirectOrNew.func1"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).LazyDo.func1"))
}

// repeat runs a test once, or with -long several times.
func repeat(t *testing.T, test func(t *testing.T)) {
	n := 1
	if *long {
		n = 5
	}
	for range n {
		test(t)
	}
}

const (
	window  = time.Second
	perSec  = 200 // of a key
	timeout = 200 * time.Millisecond
)

// hasty are the options of instances that soon notice that Redis is gone, and that it is back.
func hasty(policy redislimit.FailurePolicy, instances int) redislimit.Options {
	return redislimit.Options{Timeout: timeout, OnFailure: policy, Instances: instances, RetryInterval: 50 * time.Millisecond}
}

// dial returns a connection to one server, by a client that is set up like that of most users.
func dial(t testing.TB, addr string) redislimit.Conn {
	return goredisconn.New(rig.Closing(t, redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: window})))
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

// back waits until an instance decides by Redis again, for a key that nobody else calls.
func back(f *rig.Fleet) {
	f.Helper()
	for i, p := range f.Instances {
		began := time.Now()
		for {
			d, err := p.Absolute().Allow(context.Background(), rig.Unique("probe"), 1000)
			if err == nil && !d.Fallback {
				break
			}
			if time.Since(began) > 20*time.Second {
				f.Errorf("instance %d does not ask Redis again: %+v, %v", i, d, err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}
