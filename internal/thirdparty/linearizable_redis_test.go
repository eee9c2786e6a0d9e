package thirdparty

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// This file proves of the Redis provider what linearizable_test.go proves of Local, by the same rules, on a
// real server: callers of two providers, each with a client of its own, share the keys, as two processes do.
// So what a script decides and records is one step between providers, and within one each caller of those who
// share a round trip gets the answer to its own call.

// A script reads the server's clock, in whole microseconds, which may be slewed against that of the process.
var onRedis = subjects(redisproto.MaxCapacity, redisproto.Most, 50*time.Millisecond)

// historyOnRedis lets the traffic loose on a provider for each Conn, with keys that are theirs alone.
func (s subject) historyOnRedis(t *testing.T, traffic traffic, conns []redislimit.Conn) []porcupine.Operation {
	t.Helper()
	providers := make([]*redislimit.Provider, len(conns))
	for i, c := range conns {
		p, err := redislimit.New(c, redislimit.Options{
			Options: s.options(), Prefix: fmt.Sprintf("h%d", traffic.seed), Timeout: rig.Patience, OnFailure: redislimit.FailClosed,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }() //nolint:gocritic // they are few
		providers[i] = p
	}
	return traffic.record(func(caller int) target {
		return s.target(t, providers[caller%len(providers)], traffic, wrapper{})
	})
}

func dial(t *testing.T, a rig.Adapter, s *redisserver.Server) redislimit.Conn {
	return a.Dial(t, []string{s.Addr()})
}

func TestRedisIsLinearizable(t *testing.T) {
	server := redisserver.Start(t)
	for i, client := range rig.Adapters {
		conns := []redislimit.Conn{dial(t, client, server), dial(t, client, server)}
		histories := []int{2, 1}[i]
		for _, s := range onRedis {
			t.Run(client.Name+"/"+s.name, func(t *testing.T) {
				s.judge(t, histories, func(traffic traffic) []porcupine.Operation { return s.historyOnRedis(t, traffic, conns) })
			})
		}
	}
}

// A Conn that breaks its word is found out: one that has the scripts look first and record then, and those
// that mix up the answers to calls that share a round trip.
func TestBrokenConnsAreRejected(t *testing.T) {
	server := redisserver.Start(t)
	good := []redislimit.Conn{dial(t, rig.Adapters[0], server), dial(t, rig.Adapters[0], server)}
	for name, of := range map[string]func(redislimit.Conn) redislimit.Conn{
		"torn":        func(c redislimit.Conn) redislimit.Conn { return tornConn{c} },
		"mixed calls": func(c redislimit.Conn) redislimit.Conn { return mixedCalls{c} },
		"mixed keys":  func(c redislimit.Conn) redislimit.Conn { return mixedKeys{c} },
	} {
		t.Run(name, func(t *testing.T) {
			bad := []redislimit.Conn{of(good[0]), of(good[1])}
			s := onRedis[0]
			s.reject(t, 100, func(traffic traffic) []porcupine.Operation {
				if name == "mixed keys" {
					traffic.keys = 3
				}
				return s.historyOnRedis(t, traffic, bad)
			})
		})
	}
}

// decides reports whether a script is that of Absolute.
func decides(script string) bool { return redisproto.NameOf(script) == "absolute.lua" }

// tornConn has a script tell how many of a run fit, and another record them.
type tornConn struct{ redislimit.Conn }

func (c tornConn) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	if !decides(script) || len(keys) != 1 || len(keys[0]) != 1 || len(args[0]) > 5 || args[0][len(args[0])-1] == "0" {
		c.Conn.Run(ctx, script, sha1, keys, args, answer)
		return
	}
	run := append(slices.Clone(args[0]), "1", "1")[:5]
	capacity, cost, count := number(run[2]), number(run[3]), number(run[4])
	ask := append(slices.Clone(run[:4]), "0")
	c.Conn.Run(ctx, script, sha1, keys, [][]string{ask}, func(_ int, reply []any, err error) {
		if err != nil {
			answer(0, reply, err)
			return
		}
		have := reply[0].(int64)
		fit := min(count, max(0, capacity-have)/cost)
		told := []any{have, fit}
		if fit < count {
			told = append(told, reply[2], reply[3])
		}
		if fit == 0 {
			answer(0, told, nil)
			return
		}
		record := append(slices.Clone(run[:2]), strconv.FormatInt(redisproto.MaxCapacity, 10), run[3],
			strconv.FormatInt(fit, 10))
		c.Conn.Run(ctx, script, sha1, keys, [][]string{record}, func(_ int, _ []any, err error) { answer(0, told, err) })
	})
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// mixedCalls gives two runs of calls, which one script has answered, the answers of each other.
type mixedCalls struct{ redislimit.Conn }

func (c mixedCalls) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	c.Conn.Run(ctx, script, sha1, keys, args, func(i int, reply []any, err error) {
		if decides(script) && err == nil && len(reply) == 4 && reply[1] == reply[3] {
			reply = []any{reply[2], reply[3], reply[0], reply[1]}
		}
		answer(i, reply, err)
	})
}

// mixedKeys gives two keys, which one exchange has answered, the answers of each other.
type mixedKeys struct{ redislimit.Conn }

func (c mixedKeys) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	c.Conn.Run(ctx, script, sha1, keys, args, func(i int, reply []any, err error) {
		if decides(script) && err == nil && len(keys[i]) == 2 && len(reply)%2 == 0 {
			half := len(reply) / 2
			reply = slices.Concat(reply[half:], reply[:half])
		}
		answer(i, reply, err)
	})
}
