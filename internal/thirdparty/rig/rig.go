// Package rig is what tests on real Redis servers have in common: the clients, the providers on top of them,
// and fleets of instances under load.
package rig

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	redigo "github.com/gomodule/redigo/redis"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/valkey-io/valkey-go"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/redigoconn"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/rueidisconn"
	"github.com/trypema/trypema/valkeyconn"
)

// Topologies are what a client may be connected to.
var Topologies = []struct {
	Name  string
	Start func(t testing.TB) (addrs []string)
}{
	{"redis", func(t testing.TB) []string { return []string{redisserver.Start(t).Addr()} }},
	{"cluster", func(t testing.TB) []string { return redisserver.StartCluster(t).Addrs() }},
	{"miniredis", func(t testing.TB) []string { return []string{miniredis.RunT(t).Addr()} }},
}

// Adapter is how it may be.
type Adapter struct {
	Name string
	Dial func(t testing.TB, addrs []string) redislimit.Conn
}

// Adapters are those that differ in how they reach Redis.
var Adapters = []Adapter{
	{"go-redis", func(t testing.TB, addrs []string) redislimit.Conn { return goredisconn.New(GoRedis(t, addrs)) }},
	{"rueidis", func(t testing.TB, addrs []string) redislimit.Conn {
		return Rueidis(t, rueidis.ClientOption{InitAddress: addrs, ConnWriteTimeout: Patience, Dialer: net.Dialer{Timeout: Patience}})
	}},
}

// OtherAdapters are for the tests of adapters; others need not run with each. redigo does not support
// Cluster.
var OtherAdapters = []Adapter{
	{"valkey-go", func(t testing.TB, addrs []string) redislimit.Conn {
		c, err := valkey.NewClient(valkey.ClientOption{
			InitAddress: addrs, ConnWriteTimeout: Patience, Dialer: net.Dialer{Timeout: Patience}, DisableCache: true,
		})
		must.OK(t, err)
		t.Cleanup(c.Close)
		return valkeyconn.New(c)
	}},
	{"redigo", func(t testing.TB, addrs []string) redislimit.Conn {
		return redigoconn.New(Closing(t, &redigo.Pool{MaxIdle: 16,
			DialContext: func(ctx context.Context) (redigo.Conn, error) {
				return redigo.DialContext(ctx, "tcp", addrs[0])
			}}))
	}},
}

// GoRedis returns a client as its users have it, but that it waits for the answers of a busy machine.
func GoRedis(t testing.TB, addrs []string) redis.UniversalClient {
	return Closing(t, redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, DialTimeout: Patience, ReadTimeout: Patience, WriteTimeout: Patience}))
}

// Closing closes a client when t ends.
func Closing[C io.Closer](t testing.TB, c C) C {
	t.Cleanup(func() { must.Report(t, c.Close()) })
	return c
}

// Rueidis returns a connection by another client as its users have it.
func Rueidis(t testing.TB, o rueidis.ClientOption) redislimit.Conn {
	t.Helper()
	o.DisableCache = true
	c, err := rueidis.NewClient(o)
	must.OK(t, err)
	t.Cleanup(c.Close)
	return rueidisconn.New(c)
}

var prefixes atomic.Int64

// Unique returns a word that no other call has returned.
func Unique(word string) string { return fmt.Sprint(word, prefixes.Add(1)) }

// Open returns a provider with keys of its own, unless o has a Prefix.
func Open(t testing.TB, c redislimit.Conn, o redislimit.Options) *redislimit.Provider {
	t.Helper()
	o.Prefix = cmp.Or(o.Prefix, Unique("test"))
	p, err := redislimit.New(c, o)
	must.OK(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			if o.Timeout >= Patience {
				t.Error(err)
			}
			t.Log(err) // of a client that has not given up yet what got lost
		}
	})
	return p
}

// OpenHybrid is Open for the Hybrid provider.
func OpenHybrid(t testing.TB, c redislimit.Conn, o hybridlimit.Options) *hybridlimit.Provider {
	t.Helper()
	o.Prefix = cmp.Or(o.Prefix, Unique("test"))
	return fixture.Hybrid(t, c, o)
}

// Strategy returns one of the limiters of a provider.
func Strategy(p trypema.Provider, suppressed bool) trypema.Limiter {
	if suppressed {
		return p.Suppressed()
	}
	return p.Absolute()
}

// Patient is for tests in which no call may be decided by the policy, however busy the machine is.
func Patient(t testing.TB, o trypema.Options) redislimit.Options {
	return redislimit.Options{Options: o, Timeout: Patience, OnFailure: redislimit.FailClosed,
		OnChange: func(h redislimit.Health) { t.Errorf("a change: %+v", h) }}
}

// Kind is a provider and a strategy of it.
type Kind struct{ Hybrid, Suppressed bool }

// String returns the names of both.
func (k Kind) String() string {
	return map[bool]string{false: "Redis", true: "Hybrid"}[k.Hybrid] + " " + map[bool]string{false: "Absolute", true: "Suppressed"}[k.Suppressed]
}

// Open returns the provider.
func (k Kind) Open(t testing.TB, c redislimit.Conn, o redislimit.Options) trypema.Provider {
	t.Helper()
	if k.Hybrid {
		return OpenHybrid(t, c, hybridlimit.Options{Options: o})
	}
	return Open(t, c, o)
}

// RedisKey returns the name that the provider gives a key in Redis.
func (k Kind) RedisKey(prefix, key string, window time.Duration) string {
	kind := map[Kind]string{{}: "a", {Suppressed: true}: "s", {Hybrid: true}: "ha", {Hybrid: true, Suppressed: true}: "hs"}[k]
	return fmt.Sprintf("{%s:%s}:%s:%v", prefix, key, kind, window)
}
