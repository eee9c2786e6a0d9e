package onredis

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/rueidisconn"
)

func TestMain(m *testing.M) {
	if isChild() {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// topologies are what a client may be connected to.
var topologies = []struct {
	name  string
	start func(t testing.TB) (addrs []string)
}{
	{"redis", func(t testing.TB) []string { return []string{redisserver.Start(t).Addr()} }},
	{"cluster", func(t testing.TB) []string { return redisserver.StartCluster(t).Addrs() }},
	{"miniredis", func(t testing.TB) []string { return []string{miniredis.RunT(t).Addr()} }},
}

// adapters are how it may be.
var adapters = []struct {
	name string
	dial func(t testing.TB, addrs []string) redislimit.Conn
}{
	{"go-redis", func(t testing.TB, addrs []string) redislimit.Conn { return goredisconn.New(goRedis(t, addrs)) }},
	{"rueidis", func(t testing.TB, addrs []string) redislimit.Conn {
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, DisableCache: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return rueidisconn.New(c)
	}},
}

// goRedis returns a client as its users have it.
func goRedis(t testing.TB, addrs []string) redis.UniversalClient {
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

var prefixes atomic.Int64

func prefix() string { return fmt.Sprintf("test%d", prefixes.Add(1)) }

// open returns a provider with keys of its own.
func open(t testing.TB, c redislimit.Conn, o redislimit.Options) *redislimit.Provider {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = prefix()
	}
	p, err := redislimit.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// patient is for tests in which no call may be decided by the policy, however busy the machine is.
func patient(t testing.TB, o trypema.Options) redislimit.Options {
	return redislimit.Options{Options: o, Timeout: 10 * time.Second, OnFailure: redislimit.FailClosed,
		OnChange: func(h redislimit.Health) { t.Errorf("a change: %+v", h) }}
}

// redisKey returns the name that a provider gives a key.
func redisKey(prefix, key string, suppressed bool, window time.Duration) string {
	return fmt.Sprintf("{%s:%s}:%s:%v", prefix, key, map[bool]string{false: "a", true: "s"}[suppressed], window)
}

func strategy(p *redislimit.Provider, suppressed bool) trypema.Limiter {
	if suppressed {
		return p.Suppressed()
	}
	return p.Absolute()
}
