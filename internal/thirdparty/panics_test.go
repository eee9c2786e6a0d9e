package thirdparty

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
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
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/redigoconn"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/rueidisconn"
	"github.com/trypema/trypema/valkeyconn"
)

// This file is the adapters' part of a table: what panics, and where. internal/guard has the rest.

// A client that is nil, or a nil pointer, is refused by New of the providers.
func TestNoClient(t *testing.T) {
	for name, c := range map[string]redislimit.Conn{
		"goredisconn.New(nil)":          goredisconn.New(nil),
		"a nil *redis.Client":           goredisconn.New((*redis.Client)(nil)),
		"a nil *redis.ClusterClient":    goredisconn.New((*redis.ClusterClient)(nil)),
		"a nil *redis.Ring":             goredisconn.New((*redis.Ring)(nil)),
		"a nil pointer to a wrapper":    goredisconn.New((*wrappedGoRedis)(nil)),
		"an empty goredisconn.Conn":     new(goredisconn.Conn),
		"rueidisconn.New(nil)":          rueidisconn.New(nil),
		"a nil pointer to another":      rueidisconn.New((*wrappedRueidis)(nil)),
		"an empty rueidisconn.Conn":     new(rueidisconn.Conn),
		"valkeyconn.New(nil)":           valkeyconn.New(nil),
		"a nil pointer to a third":      valkeyconn.New((*wrappedValkey)(nil)),
		"an empty valkeyconn.Conn":      new(valkeyconn.Conn),
		"redigoconn.New(nil)":           redigoconn.New(nil),
		"a pool that cannot dial":       redigoconn.New(&redigo.Pool{}),
		"an empty redigoconn.Conn":      new(redigoconn.Conn),
		"a nil *goredisconn.Conn":       (*goredisconn.Conn)(nil),
		"a nil *redigoconn.Conn":        (*redigoconn.Conn)(nil),
		"a nil *valkeyconn.Conn":        (*valkeyconn.Conn)(nil),
		"a nil *rueidisconn.Conn":       (*rueidisconn.Conn)(nil),
		"no Conn":                       nil,
		"one that will have no servers": checked{},
	} {
		_, err := redislimit.New(c, redislimit.Options{})
		_, err2 := hybridlimit.New(c, hybridlimit.Options{})
		if !errors.Is(err, trypema.ErrInvalidOptions) || !errors.Is(err2, trypema.ErrInvalidOptions) {
			t.Errorf("%s: redislimit.New: %v, hybridlimit.New: %v", name, err, err2)
		}
		if c == nil || strings.HasPrefix(name, "a nil *") && strings.HasSuffix(name, "Conn") || c == (checked{}) {
			continue
		}
		// And to who uses it all the same it is an error.
		_ = c.OneServer()
		for _, o := range exchange(t.Context(), t, c, count, manyKeys(3)) {
			if o.err == nil {
				t.Errorf("%s: %v", name, o.reply)
			}
		}
	}
}

type (
	wrappedGoRedis struct{ redis.ClusterClient }
	wrappedRueidis struct{ rueidis.Client }
	wrappedValkey  struct{ valkey.Client }
)

// checked is a Conn that knows that it will not work.
type checked struct{ redislimit.Conn }

func (checked) Check() error { return errors.New("there are no servers") }

// A client that panics answers each key with an error, on whatever goroutine it does.
func TestClientsThatPanic(t *testing.T) {
	single := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialerRetries: 1})
	ring := redis.NewRing(&redis.RingOptions{
		Addrs:         map[string]string{"a": "127.0.0.1:1", "b": "127.0.0.1:2", "c": "127.0.0.1:3"},
		DialerRetries: 1,
		HeartbeatFn:   func(context.Context, *redis.Client) bool { return true },
	})
	single.AddHook(goRedisHook{})
	ring.AddHook(goRedisHook{})
	defer func() { _ = single.Close() }()
	defer func() { _ = ring.Close() }()
	server := miniredis.RunT(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server.Addr()}, DisableCache: true, ForceSingleClient: true,
	})
	must.OK(t, err)
	defer client.Close()
	valkeyClient, err := valkey.NewClient(valkey.ClientOption{
		InitAddress: []string{server.Addr()}, DisableCache: true, ForceSingleClient: true,
	})
	must.OK(t, err)
	defer valkeyClient.Close()
	pool := &redigo.Pool{Dial: func() (redigo.Conn, error) { panic("broken") }}
	lender := &redigo.Pool{Dial: func() (redigo.Conn, error) { return brokenRedigo{}, nil }}
	for name, conn := range map[string]redislimit.Conn{
		"go-redis, one server": goredisconn.New(single),
		"go-redis, a ring":     goredisconn.New(ring),
		"rueidis, one server":  rueidisconn.New(brokenRueidis{client, rueidis.ClientModeStandalone}),
		"rueidis, a cluster":   rueidisconn.New(brokenRueidis{client, rueidis.ClientModeCluster}),
		"valkey, one server":   valkeyconn.New(brokenValkey{valkeyClient, valkey.ClientModeStandalone}),
		"valkey, a cluster":    valkeyconn.New(brokenValkey{valkeyClient, valkey.ClientModeCluster}),
		"redigo, its pool":     redigoconn.New(pool),
		"redigo, a connection": redigoconn.New(lender),
	} {
		for _, n := range []int{1, 300} {
			for i, o := range exchange(t.Context(), t, conn, count, manyKeys(n)) {
				if !strings.Contains(fmt.Sprint(o.err), "the client panicked: broken") {
					t.Errorf("%s, %d keys: key %d: %v, %v", name, n, i, o.reply, o.err)
					break
				}
			}
		}
		// With a provider, each call is decided by the policy.
		o := redislimit.Options{OnFailure: redislimit.FailClosed, Timeout: time.Minute}
		p, err := redislimit.New(conn, o)
		must.OK(t, err)
		for i := range 10 {
			d, err := p.Absolute().Allow(t.Context(), fmt.Sprint(i), 100)
			if err != nil || d.Allowed || !d.Fallback {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
		}
		must.Report(t, p.Close())
	}
}

// goRedisHook is a hook of go-redis that panics.
type goRedisHook struct{}

func (goRedisHook) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

func (goRedisHook) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(context.Context, redis.Cmder) error { panic("broken") }
}

func (goRedisHook) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(context.Context, []redis.Cmder) error { panic("broken") }
}

// brokenRueidis is a client of rueidis that panics.
type brokenRueidis struct {
	rueidis.Client
	mode rueidis.ClientMode
}

func (b brokenRueidis) Mode() rueidis.ClientMode { return b.mode }

func (brokenRueidis) Do(context.Context, rueidis.Completed) rueidis.RedisResult { panic("broken") }

func (brokenRueidis) DoMulti(context.Context, ...rueidis.Completed) []rueidis.RedisResult {
	panic("broken")
}

// brokenValkey is a client of valkey-go that panics.
type brokenValkey struct {
	valkey.Client
	mode valkey.ClientMode
}

func (b brokenValkey) Mode() valkey.ClientMode { return b.mode }

func (brokenValkey) Do(context.Context, valkey.Completed) valkey.ValkeyResult { panic("broken") }

func (brokenValkey) DoMulti(context.Context, ...valkey.Completed) []valkey.ValkeyResult {
	panic("broken")
}

// brokenRedigo is a connection of redigo that panics.
type brokenRedigo struct{ redigo.Conn }

func (brokenRedigo) Send(string, ...any) error      { panic("broken") }
func (brokenRedigo) Do(string, ...any) (any, error) { return nil, nil }
func (brokenRedigo) Err() error                     { return errors.New("broken") }
func (brokenRedigo) Close() error                   { return nil }
