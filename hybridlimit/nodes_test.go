package hybridlimit_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// nodes is a connection to several servers. The first letter of a key says on which one it is.
type nodes struct {
	mu      sync.Mutex
	servers map[byte]*fakeredis.Server
	silent  map[byte]bool // answers nothing
	moved   map[byte]byte // whose keys are elsewhere
	asked   map[byte]int  // exchanges
}

func newNodes() *nodes {
	n := &nodes{servers: map[byte]*fakeredis.Server{}, silent: map[byte]bool{}, moved: map[byte]byte{}, asked: map[byte]int{}}
	for _, name := range []byte("abcd") {
		n.servers[name] = fakeredis.New()
		n.servers[name].Delay = time.Millisecond
	}
	return n
}

func (n *nodes) of(key string) byte {
	_, key, _ = strings.Cut(key, ":")
	name := key[0]
	if to := n.moved[name]; to != 0 {
		name = to
	}
	return name
}

func (n *nodes) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// exchanges returns how many there were with a server.
func (n *nodes) exchanges(name byte) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[name]
}

// OneServer implements redislimit.Conn.
func (*nodes) OneServer() bool { return false }

// Node implements redislimit.NodeConn.
func (n *nodes) Node(key string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return "server " + string(n.of(key))
}

// Run implements redislimit.Conn.
func (n *nodes) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	n.mu.Lock()
	which := make(map[byte][]int)
	for i := range keys {
		name := n.of(keys[i][0])
		which[name] = append(which[name], i)
	}
	var all sync.WaitGroup
	for name, of := range which {
		n.asked[name]++
		silent, server := n.silent[name], n.servers[name]
		all.Go(func() {
			if silent {
				<-ctx.Done()
				for _, i := range of {
					answer(i, nil, ctx.Err())
				}
				return
			}
			var mine, its [][]string
			for _, i := range of {
				mine, its = append(mine, keys[i]), append(its, args[i])
			}
			server.Run(ctx, source, sha1, mine, its, func(i int, reply []any, err error) { answer(of[i], reply, err) })
		})
	}
	n.mu.Unlock()
	all.Wait()
}

// One server of several answers nothing any more: it costs its keys no more than a few timeouts, and the keys
// of the others nothing. It is asked once in a RetryInterval. Its keys go on when it answers again, and when
// they are on another server, and OnChange hears of all that.
func TestOneServerOfSeveral(t *testing.T) {
	for _, provider := range []string{"Redis", "Hybrid"} {
		for _, suppressed := range []bool{false, true} {
			for _, failover := range []bool{false, true} {
				// each two of the three meet
				if (provider == "Hybrid") != (suppressed != failover) && !explore.Long() {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, failover %v", provider, name(suppressed), failover), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { oneServer(t, provider, suppressed, failover) })
				})
			}
		}
	}
}

func oneServer(t *testing.T, provider string, suppressed, failover bool) {
	const rate, timeout = 50, 100 * time.Millisecond
	conn := newNodes()
	var mu sync.Mutex
	var changes []redislimit.Health
	o := redislimit.Options{OnFailure: redislimit.FailClosed, Timeout: timeout, OnChange: func(h redislimit.Health) {
		mu.Lock()
		defer mu.Unlock()
		changes = append(changes, h)
	}}
	o.Window = 2 * time.Second
	var p interface {
		Absolute() trypema.Limiter
		Suppressed() trypema.Limiter
		Close() error
	}
	var err error
	if provider == "Redis" {
		p, err = redislimit.New(conn, o)
	} else {
		p, err = hybridlimit.New(conn, hybridlimit.Options{Options: o})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	l := p.Absolute()
	if suppressed {
		l = p.Suppressed()
	}
	type count struct{ calls, allowed, fallback, waited int }
	// run has each of six keys called for some time, and returns what became of that, by the server that has
	// them at first.
	run := func(d time.Duration) map[string]*count {
		all := map[string]*count{}
		var callers sync.WaitGroup
		for _, server := range []string{"a", "b", "c"} {
			c := new(count)
			all[server] = c
			for _, key := range []string{server + "1", server + "2"} {
				callers.Go(func() {
					for end := time.Now().Add(d); time.Now().Before(end); {
						time.Sleep(40 * time.Millisecond)
						began := time.Now()
						d, err := l.Allow(ctx, key, rate)
						if err != nil {
							t.Error(err)
						}
						mu.Lock()
						c.calls++
						if d.Allowed {
							c.allowed++
						}
						if d.Fallback {
							c.fallback++
						}
						if time.Since(began) > timeout/2 {
							c.waited++
						}
						mu.Unlock()
					}
				})
			}
		}
		callers.Wait()
		return all
	}
	well := func(when string, all map[string]*count, servers ...string) {
		t.Helper()
		for _, server := range servers {
			if c := all[server]; c.fallback+c.waited > 0 || c.allowed < c.calls*9/10 {
				t.Errorf("%s: server %s: %+v", when, server, *c)
			}
		}
	}
	told := func(when string, want ...bool) {
		t.Helper()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		good := len(changes) == len(want)
		for i := range min(len(changes), len(want)) {
			good = good && changes[i].Available == want[i] && (want[i] || strings.Contains(changes[i].Err.Error(), "server a"))
		}
		if !good {
			t.Errorf("%s: OnChange heard %+v, want %v", when, changes, want)
		}
	}

	well("at first", run(3*time.Second), "a", "b", "c")
	conn.change(func() { conn.silent['a'] = true })
	asked := conn.exchanges('a')
	run(3 * time.Second) // until leases have ended
	told("gone", false)
	without := run(10 * time.Second)
	well("without a", without, "b", "c")
	if a := without["a"]; a.waited > 0 || a.fallback < a.calls {
		t.Errorf("server a, which is gone: %+v", *a)
	}
	if n := conn.exchanges('a') - asked; n > 13*2+8 {
		t.Errorf("the server that is gone was asked %d times in 13s", n)
	}

	if failover {
		conn.change(func() { conn.moved['a'] = 'd' })
	} else {
		conn.change(func() { conn.silent['a'] = false })
	}
	run(2 * time.Second)
	well("again", run(5*time.Second), "a", "b", "c")
	if failover {
		told("elsewhere", false)
		time.Sleep(time.Minute) // until its old server is forgotten
		run(2 * time.Second)
	}
	told("back", false, true)
}
