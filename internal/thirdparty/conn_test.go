package thirdparty

import (
	"context"
	"crypto/sha1" // as Redis names scripts
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/valkey-io/valkey-go"

	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/proxy"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redigoconn"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/rueidisconn"
	"github.com/trypema/trypema/valkeyconn"
)

// This file proves that the adapters keep the word of redislimit.Conn, with real servers: every key is
// answered exactly once, with what the script said or why it did not, whatever happens to the server or on
// the way; nothing that may have arrived is sent again; and a node that is slow or gone holds back nobody
// else's answers. It also proves that the providers load a script that servers have lost, once for all runs.

var (
	_ redislimit.NodeConn = (*goredisconn.Conn)(nil)
	_ redislimit.NodeConn = (*rueidisconn.Conn)(nil)
	_ redislimit.NodeConn = (*valkeyconn.Conn)(nil)
	_ redislimit.Conn     = (*redigoconn.Conn)(nil)
)

// site is some servers, each behind a proxy.
type site struct {
	kind    string // "single", "cluster" or "ring"
	nodes   []*redisserver.Server
	cluster *redisserver.Cluster    // if it is one
	proxies map[string]*proxy.Proxy // by the address of the server
	admin   redis.UniversalClient   // which does not go through them
}

func newSite(t *testing.T, kind string) *site {
	s := &site{kind: kind, proxies: make(map[string]*proxy.Proxy)}
	switch kind {
	case "single":
		s.nodes = []*redisserver.Server{redisserver.Start(t)}
	case "cluster":
		s.cluster = redisserver.StartCluster(t)
		s.nodes = s.cluster.Nodes
	case "ring":
		s.nodes = []*redisserver.Server{redisserver.Start(t), redisserver.Start(t)}
	}
	for _, n := range s.nodes {
		s.proxies[n.Addr()] = redisserver.StartProxy(t, n.Addr())
	}
	s.admin = s.goredis(t, func(_ context.Context, _, addr string) (net.Conn, error) { return net.Dial("tcp", addr) })
	return s
}

func (s *site) addrs() (addrs []string) {
	for _, n := range s.nodes {
		addrs = append(addrs, n.Addr())
	}
	return addrs
}

// dial connects to a server, by way of its proxy.
func (s *site) dial(_ context.Context, _, addr string) (net.Conn, error) {
	p, ok := s.proxies[addr]
	if !ok {
		return nil, fmt.Errorf("%s is no server of this site", addr)
	}
	return net.Dial("tcp", p.Addr())
}

// goredis returns a client with the retries that are the default. It waits for answers for longer than any
// test takes.
func (s *site) goredis(
	t *testing.T, dial func(ctx context.Context, network, addr string) (net.Conn, error),
) redis.UniversalClient {
	var c redis.UniversalClient
	switch s.kind {
	case "single":
		c = redis.NewClient(&redis.Options{
			Addr: s.nodes[0].Addr(), Dialer: dial, ContextTimeoutEnabled: true, DialerRetries: 1, ReadTimeout: rig.Patience,
		})
	case "cluster":
		c = redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: s.addrs(), Dialer: dial, ContextTimeoutEnabled: true, DialerRetries: 1, ReadTimeout: rig.Patience,
		})
	case "ring":
		addrs := make(map[string]string)
		for _, addr := range s.addrs() {
			addrs[addr] = addr
		}
		c = redis.NewRing(&redis.RingOptions{
			Addrs: addrs, Dialer: dial, ContextTimeoutEnabled: true, DialerRetries: 1, ReadTimeout: rig.Patience,
		})
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// reset has the servers forget everything, scripts and statistics included.
func (s *site) reset(t *testing.T) {
	s.eachNode(t, func(c *redis.Client) error {
		return errors.Join(c.FlushAll(t.Context()).Err(), c.ScriptFlush(t.Context()).Err(),
			c.ConfigResetStat(t.Context()).Err())
	})
}

func (s *site) eachNode(t *testing.T, do func(*redis.Client) error) {
	t.Helper()
	for _, n := range s.nodes {
		must.OK(t, do(n.Client()))
	}
}

// calls returns how often a command, or a command|subcommand, came to the servers since the reset.
func (s *site) calls(t *testing.T, command string) (n int) {
	t.Helper()
	line := regexp.MustCompile(`(?m)^cmdstat_` + regexp.QuoteMeta(command) + `:calls=(\d+)`)
	s.eachNode(t, func(c *redis.Client) error {
		info, err := c.Info(t.Context(), "commandstats").Result()
		if m := line.FindStringSubmatch(info); m != nil {
			calls, _ := strconv.Atoi(m[1])
			n += calls
		}
		return err
	})
	return n
}

// counts returns what the keys hold.
func (s *site) counts(t *testing.T, keys []string) []int {
	t.Helper()
	counts := make([]int, len(keys))
	for i, key := range keys {
		var err error
		if counts[i], err = s.admin.Get(t.Context(), key).Int(); err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
	}
	return counts
}

// places returns the address of the server that has each key, or "" if none has.
func (s *site) places(t *testing.T, keys []string) []string {
	t.Helper()
	places := make([]string, len(keys))
	for _, n := range s.nodes {
		pipe := n.Client().Pipeline()
		for _, key := range keys {
			pipe.Exists(t.Context(), key)
		}
		found, _ := pipe.Exec(t.Context()) // a key of another node of a Cluster is an error of its own: MOVED
		for i, c := range found {
			if c.(*redis.IntCmd).Val() == 1 {
				places[i] = n.Addr()
			}
		}
	}
	return places
}

// slot returns the slot of a key, of 16384.
func slot(key string) int {
	at := rueidis.Completed{}.SetSlot(key)
	return int(at.Slot())
}

// adapters make a Conn with a client of its own.
var adapters = []struct {
	name  string
	kinds []string
	conn  func(*testing.T, *site) redislimit.Conn
}{
	{"goredisconn", []string{"single", "cluster", "ring"}, func(t *testing.T, s *site) redislimit.Conn {
		return goredisconn.New(s.goredis(t, s.dial))
	}},
	{"rueidisconn", []string{"single", "cluster"}, func(t *testing.T, s *site) redislimit.Conn {
		c, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress:       s.addrs(),
			PipelineMultiplex: 2, // four connections, on any machine
			ConnWriteTimeout:  rig.Patience,
			DialCtxFn: func(ctx context.Context, addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return s.dial(ctx, "tcp", addr)
			},
		})
		must.OK(t, err)
		t.Cleanup(c.Close)
		return rueidisconn.New(c)
	}},
	{"valkeyconn", []string{"single", "cluster"}, func(t *testing.T, s *site) redislimit.Conn {
		c, err := valkey.NewClient(valkey.ClientOption{
			InitAddress:       s.addrs(),
			PipelineMultiplex: 2, // four connections, on any machine
			ConnWriteTimeout:  rig.Patience,
			DialCtxFn: func(ctx context.Context, addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return s.dial(ctx, "tcp", addr)
			},
		})
		must.OK(t, err)
		t.Cleanup(c.Close)
		return valkeyconn.New(c)
	}},
	{"redigoconn", []string{"single"}, func(t *testing.T, s *site) redislimit.Conn {
		pool := &redigo.Pool{MaxIdle: 4, DialContext: func(ctx context.Context) (redigo.Conn, error) {
			return redigo.DialContext(ctx, "tcp", s.nodes[0].Addr(), redigo.DialContextFunc(s.dial))
		}}
		t.Cleanup(func() { _ = pool.Close() })
		return redigoconn.New(pool)
	}},
}

// brief are the properties that "make test" shows of valkeyconn, whose client is a fork of that of
// rueidisconn.
var brief = []string{"Node", "Replies", "Errors", "NoScript", "EndedContext", "ContextEnds", "SlowNode"}

// outcome is what was answered for one key.
type outcome struct {
	reply []any
	err   error
}

// exchange is one Run.
func exchange(
	ctx context.Context, t *testing.T, c redislimit.Conn, script string, keys []string, args ...[]string,
) []outcome {
	t.Helper()
	return exchangeAndTell(ctx, t, c, script, keys, func(int) {}, args...)
}

// exchangeAndTell is one Run, and a second one with the script of what was refused for want of it. It tells
// of each answer when it comes.
func exchangeAndTell(
	ctx context.Context, t *testing.T, c redislimit.Conn, script string, keys []string, tell func(i int),
	args ...[]string,
) []outcome {
	t.Helper()
	if args == nil {
		args = make([][]string, len(keys))
	}
	outcomes := make([]outcome, len(keys))
	var mu sync.Mutex // guards refused
	var refused []int
	all := make([]int, len(keys))
	for i := range all {
		all[i] = i
	}
	run(ctx, t, c, script, nameOf(script), all, keys, args, func(i int, o outcome) {
		if o.err != nil && strings.HasPrefix(o.err.Error(), "NOSCRIPT") {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, i)
			return
		}
		outcomes[i] = o
		tell(i)
	})
	run(ctx, t, c, script, "", refused, keys, args, func(i int, o outcome) {
		outcomes[i] = o
		tell(i)
	})
	return outcomes
}

// nameOf returns the name of a script in Redis.
func nameOf(script string) string {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}

// run is one Run with some of the keys.
func run(
	ctx context.Context, t *testing.T, c redislimit.Conn, script, sha1 string, which []int, keys []string,
	args [][]string, answer func(i int, o outcome),
) {
	t.Helper()
	times := make([]atomic.Int32, len(which))
	var returned atomic.Bool
	alone, of := make([][]string, len(which)), make([][]string, len(which))
	for n, i := range which {
		alone[n], of[n] = []string{keys[i]}, args[i]
	}
	c.Run(ctx, script, sha1, alone, of, func(n int, reply []any, err error) {
		if returned.Load() {
			t.Errorf("key %q is answered after Run has returned", keys[which[n]])
		}
		if times[n].Add(1) == 1 {
			answer(which[n], outcome{reply, err})
		}
	})
	returned.Store(true)
	for n := range times {
		if got := times[n].Load(); got != 1 {
			t.Errorf("key %q is answered %d times", keys[which[n]], got)
		}
	}
}

// many is so many keys that each node has some.
const many = 100

// manyKeys returns so many keys.
func manyKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("key %d", i)
	}
	return keys
}

// same is n times x.
func same[T any](n int, x T) []T { return slices.Repeat([]T{x}, n) }

// count is a script that can be seen to have run.
const count = `return {redis.call('INCR', KEYS[1])}`

func TestConn(t *testing.T) {
	for _, kind := range []string{"single", "cluster", "ring"} {
		t.Run(kind, func(t *testing.T) {
			s := newSite(t, kind)
			for _, a := range adapters {
				for _, property := range []struct {
					name  string
					kinds []string // all, if there are none
					holds func(*testing.T, *site, redislimit.Conn)
				}{
					{"Node", nil, node},
					{"Replies", nil, replies},
					{"Errors", nil, errorsArePassed},
					{"OneError", nil, oneError},
					{"NoScript", nil, noScript},
					{"LostScript", nil, lostScript},
					{"EndedContext", nil, endedContext},
					{"ContextEnds", nil, contextEnds},
					{"LostReplies", nil, lostReplies},
					{"DeadServer", []string{"single", "cluster"}, deadServer},
					{"SlowNode", []string{"cluster", "ring"}, slowNode},
					{"MovedSlot", []string{"cluster"}, movedSlot},
				} {
					if !slices.Contains(a.kinds, kind) ||
						a.name == "valkeyconn" && !explore.Long() && !slices.Contains(brief, property.name) ||
						property.kinds != nil && !slices.Contains(property.kinds, kind) {
						continue
					}
					t.Run(a.name+"/"+property.name, func(t *testing.T) {
						s.reset(t)
						property.holds(t, s, a.conn(t, s))
					})
				}
			}
		})
	}
}

// A Conn says of each key on which server it is, as far as its client can tell, and nothing before the client
// knows.
func node(t *testing.T, s *site, c redislimit.Conn) {
	located, ok := c.(redislimit.NodeConn)
	if !ok {
		return // redigo does not support Cluster
	}
	of := located.Node
	keys := manyKeys(300)
	_, goes := c.(*goredisconn.Conn)
	if name := of(keys[0]); s.kind == "cluster" && goes && name != "" {
		t.Errorf("%q is on %q, before anything was asked", keys[0], name)
	}
	exchange(t.Context(), t, c, count, keys)
	names, place := make(map[string]bool), s.places(t, keys)
	for i, key := range keys {
		name, on := of(key), place[i]
		switch {
		case on == "":
			t.Fatalf("%q is nowhere", key)
		case s.kind == "single":
			if name != "" {
				t.Fatalf("%q is on %q", key, name)
			}
		case goes:
			if name != on {
				t.Fatalf("%q is on %q, want %q", key, name, on)
			}
		default: // neighbouring slots are mostly on one server
			if want := fmt.Sprintf("slots %d to %d", slot(key)/128*128, slot(key)/128*128+127); name != want {
				t.Fatalf("%q is on %q, want %q", key, name, want)
			}
		}
		names[name] = true
	}
	if len(names) < len(s.nodes) {
		t.Errorf("the keys are on %v", names)
	}
}

// Every key is answered with what the script made of it and its arguments.
func replies(t *testing.T, _ *site, c redislimit.Conn) {
	const script = `return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2], #ARGV, -9007199254740992, ''}`
	total := make(map[string]int64)
	for _, n := range []int{1, 2, many, 0, 1} {
		keys := manyKeys(n)
		var args [][]string
		for i := range keys {
			args = append(args, []string{strconv.Itoa(i + 1), keys[i] + "\r\n\x00"})
		}
		for i, o := range exchange(t.Context(), t, c, script, keys, args...) {
			total[keys[i]] += int64(i + 1)
			want := []any{total[keys[i]], args[i][1], int64(2), int64(-9007199254740992), ""}
			if o.err != nil || !reflect.DeepEqual(o.reply, want) {
				t.Fatalf("%d keys, %q: %#v, %v; want %#v", n, keys[i], o.reply, o.err, want)
			}
		}
	}
}

// Errors of the server keep their text; replies of another shape are errors of the adapter.
func errorsArePassed(t *testing.T, _ *site, c redislimit.Conn) {
	for _, row := range []struct{ script, err string }{
		{`return redis.error_reply('ERR of its own')`, `^ERR of its own$`},
		{`return redis.error_reply('CODE and more')`, `^CODE and more$`},
		{`return redis.error_reply('NOSCRIPT says the script')`, `^NOSCRIPT says the script$`},
		{`nonsense`, `^ERR Error compiling script`},
		{`return 1`, `^\w+conn: reply is of type int64, not an array$`},
		{`return 'text'`, `^\w+conn: reply is of type string, not an array$`},
		{`return redis.status_reply('OK')`, `^\w+conn: reply is of type string, not an array$`},
		{`return false`, `^\w+conn: reply is of type <nil>, not an array$`},
		{`return {1, {2}}`, `^\w+conn: element 1 of the reply is of type \[\]interface {}, neither int64 nor string$`},
		{`return {false, 1}`, `^\w+conn: element 0 of the reply is of type <nil>, neither int64 nor string$`},
		{`return {redis.error_reply('CODE')}`, `^\w+conn: element 0 of the reply is of type .*Error, neither int64 nor string$`},
		{`redis.setresp(3) return {double = 1.5}`, `^\w+conn: reply is of type float64, not an array$`},
		{`redis.setresp(3) return {map = {a = 1}}`, `^\w+conn: reply is of type map\[.*\]interface {}, not an array$`},
	} {
		if _, old := c.(*redigoconn.Conn); old && strings.HasPrefix(row.script, "redis.setresp(3)") {
			continue // redigo speaks RESP2, which has neither
		}
		for _, n := range []int{1, 20} {
			for _, o := range exchange(t.Context(), t, c, row.script, manyKeys(n)) {
				if o.err == nil || !regexp.MustCompile(row.err).MatchString(o.err.Error()) {
					t.Fatalf("%d keys, %s: %#v, error %v; want %s", n, row.script, o.reply, o.err, row.err)
				}
			}
		}
	}
}

// What is wrong with one key is wrong with no other.
func oneError(t *testing.T, s *site, c redislimit.Conn) {
	keys := manyKeys(many)
	const wrong = 7
	must.OK(t, s.admin.LPush(t.Context(), keys[wrong], "not a number").Err())
	for i, o := range exchange(t.Context(), t, c, `local n = redis.pcall('INCR', KEYS[1]) return type(n) == 'table' and n or {n}`, keys) {
		switch {
		case i == wrong:
			if o.err == nil || !regexp.MustCompile(`^WRONGTYPE `).MatchString(o.err.Error()) {
				t.Errorf("%q: %v, %v; want WRONGTYPE", keys[i], o.reply, o.err)
			}
		case o.err != nil || !reflect.DeepEqual(o.reply, []any{int64(1)}):
			t.Errorf("%q: %v, %v", keys[i], o.reply, o.err)
		}
	}
}

// A server that does not know a script executes nothing, and says so. It learns the script by EVAL, which is
// sent only if it is asked for.
func noScript(t *testing.T, s *site, c redislimit.Conn) {
	for _, n := range []int{1, 20} {
		s.reset(t)
		keys, args := manyKeys(n), make([][]string, n)
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		send := func(sha1 string, holds func(outcome) bool) {
			run(t.Context(), t, c, count, sha1, all, keys, args, func(i int, o outcome) {
				if !holds(o) {
					t.Errorf("%q of %d, SHA-1 %q: %v, %v", keys[i], n, sha1, o.reply, o.err)
				}
			})
		}
		send(nameOf(count), func(o outcome) bool {
			return o.err != nil && strings.HasPrefix(o.err.Error(), "NOSCRIPT ")
		})
		if evals, loads := s.calls(t, "eval"), s.calls(t, "script|load"); evals != 0 || loads != 0 {
			t.Errorf("EVAL %d times, SCRIPT LOAD %d times before they were asked for", evals, loads)
		}
		for i, sha1 := range []string{"", nameOf(count)} {
			send(sha1, func(o outcome) bool { return o.err == nil && reflect.DeepEqual(o.reply, []any{int64(i + 1)}) })
		}
		if evals := s.calls(t, "eval"); evals != n {
			t.Errorf("EVAL %d times, want %d", evals, n)
		}
	}
}

// When servers have lost a script, the providers have all calls made once, and each server is sent the script
// a handful of times however many miss it.
func lostScript(t *testing.T, s *site, c redislimit.Conn) {
	keys := manyKeys(10)
	const runs = 100
	server := redisproto.NewServer(c)
	for range 2 {
		s.reset(t)
		began := time.Now()
		var all sync.WaitGroup
		for range runs {
			all.Go(func() {
				redisproto.Run(t.Context(), server, func(*redisproto.Scripts) redisproto.Script {
					return redisproto.Script{Source: count, SHA1: nameOf(count)}
				}, keys, func(keys []string, _ bool) [][]string { return slices.Collect(slices.Chunk(keys, 1)) },
					func(key []string) (keys, args []string) { return key, nil },
					func(key []string, _ []any, err error, _ bool) (again, mend []string) {
						if err != nil {
							t.Errorf("%q: %v", key, err)
						}
						return nil, nil
					}, func(string) redisproto.Windows { return redisproto.Windows{} })
			})
		}
		all.Wait()
		if got, want := s.counts(t, keys), same(len(keys), runs); !slices.Equal(got, want) {
			t.Errorf("calls made: %v, want %v", got, want)
		}
		// Who has waited for a second brings the script.
		if took := time.Since(began); took > time.Second*9/10 {
			t.Logf("it took %v: how often the script was sent is not judged", took)
		} else if evals := s.calls(t, "eval"); evals < len(s.nodes) || evals > runs/2 {
			t.Errorf("EVAL %d times on %d servers", evals, len(s.nodes))
		}
	}
}

// wait returns when it is so.
func wait(t *testing.T, so func() bool) {
	t.Helper()
	for start := time.Now(); !so(); time.Sleep(4 * time.Millisecond) {
		if time.Since(start) > rig.Patience {
			t.Fatal("this does not come about")
		}
	}
}

// settle returns when calls for the keys are answered as a matter of course: there are connections to their
// servers, which know the script. The client may choose one of four connections by chance, for each group of
// keys that goes alone. 50 choices leave out none, nor do 500 for the three servers of a Cluster.
func settle(t *testing.T, c redislimit.Conn, keys []string) {
	t.Helper()
	answered := 0
	wait(t, func() bool {
		answered++
		if slices.ContainsFunc(exchange(t.Context(), t, c, count, keys), func(o outcome) bool { return o.err != nil }) {
			answered = 0
		}
		return answered == 50 || answered*groups(c, keys) >= 500
	})
}

// groups returns how many groups the keys go in.
func groups(c redislimit.Conn, keys []string) int {
	located, ok := c.(redislimit.NodeConn)
	if !ok {
		return 1
	}
	all := make(map[string]bool)
	for _, key := range keys {
		all[located.Node(key)] = true
	}
	return len(all)
}

// After the end of ctx, nothing is sent.
func endedContext(t *testing.T, s *site, c redislimit.Conn) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, n := range []int{1, 20} {
		for _, o := range exchange(ctx, t, c, count, manyKeys(n)) {
			if !errors.Is(o.err, context.Canceled) {
				t.Fatal(o.err)
			}
		}
	}
	if n := s.calls(t, "evalsha") + s.calls(t, "eval"); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// The end of ctx is the end of an exchange with servers that do not answer, as long as they do not.
func contextEnds(t *testing.T, s *site, c redislimit.Conn) {
	settle(t, c, manyKeys(20))
	for _, n := range s.nodes {
		n.Pause()
		t.Cleanup(n.Resume)
	}
	for _, n := range []int{1, 20} {
		for _, o := range exchange(within(t, 200*time.Millisecond), t, c, count, manyKeys(n)) {
			if o.err == nil {
				t.Errorf("%d keys: an answer of servers that are stopped", n)
			}
		}
	}
}

// What has arrived is not sent again when the connection breaks before the reply.
func lostReplies(t *testing.T, s *site, c redislimit.Conn) {
	for _, n := range []int{1, 20} {
		keys := manyKeys(n)
		settle(t, c, keys)
		for _, key := range keys {
			s.admin.Del(t.Context(), key)
		}
		for _, p := range s.proxies {
			p.DropReplies(true)
			t.Cleanup(func() { p.DropReplies(false) })
		}
		var run sync.WaitGroup
		run.Go(func() {
			for i, o := range exchange(t.Context(), t, c, count, keys) {
				if o.err == nil {
					t.Errorf("%q was answered", keys[i])
				}
			}
		})
		wait(t, func() bool { return slices.Equal(s.counts(t, keys), same(n, 1)) })
		for _, p := range s.proxies {
			p.DropReplies(false)
			p.Reset()
		}
		run.Wait()
		if got := s.counts(t, keys); !slices.Equal(got, same(n, 1)) {
			t.Errorf("calls made: %v, want 1 each", got)
		}
	}
}

// Without their server keys are answered with an error, others as ever; and with it again, all are.
func deadServer(t *testing.T, s *site, c redislimit.Conn) {
	keys := manyKeys(many)
	slices.SortFunc(keys, func(a, b string) int { return s.node(a) - s.node(b) })
	settle(t, c, keys)
	for _, n := range []int{len(keys), 1} {
		s.nodes[0].Kill()
		for i, o := range exchange(within(t, rig.Patience), t, c, count, keys[:n]) {
			if dead := s.node(keys[i]) == 0; dead != (o.err != nil) {
				t.Errorf("%q: %v, %v; its server is dead: %v", keys[i], o.reply, o.err, dead)
			}
		}
		s.nodes[0].Restart()
		if s.cluster != nil {
			s.cluster.Wait()
		}
		settle(t, c, keys)
	}
}

// node returns the number of the node that a key is on, unless this is a ring.
func (s *site) node(key string) int {
	if s.cluster == nil {
		return 0
	}
	return slot(key) * len(s.nodes) / 16384
}

// Nobody waits for a node that does not answer but those who ask it and, with rueidis, keys from the 128
// slots in which its slots end: others have their answers while it is stopped.
func slowNode(t *testing.T, s *site, c redislimit.Conn) {
	keys := manyKeys(many)
	settle(t, c, keys)
	slow, quick := make(map[int]bool), make(map[int]bool)
	end, place := 16384/len(s.nodes), s.places(t, keys)
	for i, key := range keys {
		slow[i] = s.node(key) == 0
		if s.cluster == nil {
			slow[i] = place[i] == s.nodes[0].Addr()
		}
		quick[i] = !slow[i] && (s.cluster == nil || slot(key)/128 != end/128)
	}
	var mu sync.Mutex
	answered := make(map[int]bool)
	s.nodes[0].Pause()
	resume := sync.OnceFunc(s.nodes[0].Resume)
	t.Cleanup(resume)
	var run sync.WaitGroup
	run.Go(func() {
		outcomes := exchangeAndTell(within(t, rig.Patience), t, c, count, keys, func(i int) {
			mu.Lock()
			defer mu.Unlock()
			answered[i] = true
		})
		for i, o := range outcomes {
			if o.err != nil {
				t.Errorf("%q: %v", keys[i], o.err)
			}
		}
	})
	n := 0
	wait(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		n = 0
		for i := range keys {
			if quick[i] && !answered[i] {
				return false
			}
			if quick[i] {
				n++
			}
			if slow[i] && answered[i] {
				t.Errorf("%q has an answer of a server that is stopped", keys[i])
			}
		}
		return true
	})
	if n < many/10 || n > many*95/100 { // which half a ring has is a matter of its random ports
		t.Errorf("%d of %d keys were answered meanwhile", n, many)
	}
	resume()
	run.Wait()
}

// Where a slot has gone, its keys are asked for.
func movedSlot(t *testing.T, s *site, c redislimit.Conn) {
	keys := manyKeys(many)
	settle(t, c, keys) // so it knows where the slots are
	s.reset(t)
	moved := slot(keys[0])
	from := s.node(keys[0])
	to := (from + 1) % len(s.nodes)
	assign := func(node int) {
		id, err := s.nodes[node].Client().Do(t.Context(), "CLUSTER", "MYID").Text()
		must.OK(t, err)
		s.eachNode(t, func(c *redis.Client) error {
			return c.Do(t.Context(), "CLUSTER", "SETSLOT", moved, "NODE", id).Err()
		})
	}
	assign(to)
	for _, n := range []int{len(keys), 1} {
		for i, o := range exchange(t.Context(), t, c, count, keys[:n]) {
			if o.err != nil {
				t.Errorf("%q: %v", keys[i], o.err)
			}
		}
	}
	if held := s.nodes[to].Client().Get(t.Context(), keys[0]).Val(); held != "2" {
		t.Errorf("%q is %q where its slot has gone", keys[0], held)
	}
	s.nodes[to].Client().Del(t.Context(), keys[0])
	assign(from)
}

// The end of ctx ends an exchange by redigo also where its pool does not look at ctx: while it dials, or
// waits for a connection that it has lent.
func TestRedigoEndsWithContext(t *testing.T) {
	server := redisserver.Start(t)
	dial := func() (redigo.Conn, error) { return redigo.Dial("tcp", server.Addr()) }
	for name, pool := range map[string]func(hang chan struct{}) *redigo.Pool{
		"a dial that hangs": func(hang chan struct{}) *redigo.Pool {
			return &redigo.Pool{Dial: func() (redigo.Conn, error) { <-hang; return dial() }}
		},
		"a test of a connection that hangs": func(hang chan struct{}) *redigo.Pool {
			pool := &redigo.Pool{MaxIdle: 1, Dial: dial, TestOnBorrow: func(redigo.Conn, time.Time) error { <-hang; return nil }}
			_ = pool.Get().Close()
			return pool
		},
		"a pool with all connections in use": func(hang chan struct{}) *redigo.Pool {
			pool := &redigo.Pool{MaxActive: 1, Wait: true, Dial: dial}
			lent := pool.Get()
			go func() { <-hang; _ = lent.Close() }()
			return pool
		},
	} {
		t.Run(name, func(t *testing.T) {
			hang := make(chan struct{})
			p := pool(hang)
			t.Cleanup(func() { _ = p.Close() })
			c := redigoconn.New(p)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			for _, o := range exchange(ctx, t, c, count, manyKeys(3)) {
				if !errors.Is(o.err, context.Canceled) {
					t.Errorf("%v, %v", o.reply, o.err)
				}
			}
			close(hang)
			wait(t, func() bool { // the connection goes back
				return !slices.ContainsFunc(exchange(t.Context(), t, c, count, manyKeys(3)), func(o outcome) bool { return o.err != nil })
			})
			wait(t, func() bool { return p.ActiveCount() == p.IdleCount() })
		})
	}
}

// After a restart of the server, or when it is made a replica, no connection of the pool is used twice.
func TestRedigoDropsConnections(t *testing.T) {
	server := redisserver.Start(t)
	pool := &redigo.Pool{MaxIdle: 16, Dial: func() (redigo.Conn, error) { return redigo.Dial("tcp", server.Addr()) }}
	t.Cleanup(func() { _ = pool.Close() })
	c := redigoconn.New(pool)
	for _, test := range []struct {
		name       string
		begin, end func()
		err        string
	}{
		{"a restart", func() { server.Kill(); server.Restart() }, func() {}, ""},
		{"a failover", func() { server.Client().ReplicaOf(t.Context(), "127.0.0.1", "1") },
			func() { server.Client().ReplicaOf(t.Context(), "no", "one") }, "READONLY "},
	} {
		var lent []redigo.Conn
		for range 16 {
			conn := pool.Get()
			if _, err := conn.Do("PING"); err != nil {
				t.Fatal(err)
			}
			lent = append(lent, conn)
		}
		for _, conn := range lent {
			_ = conn.Close()
		}
		test.begin()
		o := exchange(t.Context(), t, c, count, []string{"k"})[0]
		if o.err == nil || !strings.Contains(o.err.Error(), test.err) || pool.ActiveCount() != 0 {
			t.Errorf("%s: %v, %v; then the pool has %d connections", test.name, o.reply, o.err, pool.ActiveCount())
		}
		test.end()
		if o := exchange(t.Context(), t, c, count, []string{"k"})[0]; o.err != nil {
			t.Errorf("after %s: %v", test.name, o.err)
		}
	}
}

// redigo does not follow a node of a Cluster that redirects a key. The error is not one that providers take
// for a key that is moving, which they would ask for until the context ends.
func TestRedigoOnCluster(t *testing.T) {
	server := redisserver.Start(t)
	pool := &redigo.Pool{Dial: func() (redigo.Conn, error) { return redigo.Dial("tcp", server.Addr()) }}
	t.Cleanup(func() { _ = pool.Close() })
	for _, said := range []string{"MOVED 1000 127.0.0.1:7001", "ASK 1000 127.0.0.1:7001"} {
		script := fmt.Sprintf("return redis.error_reply('%s')", said)
		o := exchange(t.Context(), t, redigoconn.New(pool), script, []string{"k"})[0]
		want := "redigoconn: the server is a node of a Cluster, which redigo does not support: " + said
		if o.err == nil || o.err.Error() != want {
			t.Errorf("%v, want %q", o.err, want)
		}
	}
}
