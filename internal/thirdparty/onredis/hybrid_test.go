package onredis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/anywindow"
	"github.com/trypema/trypema/internal/proxy"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/redislimit"
)

func openHybrid(t testing.TB, c redislimit.Conn, o hybridlimit.Options) *hybridlimit.Provider {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = prefix()
	}
	p, err := hybridlimit.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil && !t.Failed() {
			t.Log(err) // with Redis gone
		}
	})
	return p
}

const (
	fleetWindow = 2 * time.Second
	fleetRate   = 500 // per second
	fleetCap    = 1000
)

// fleet is some instances in this process, each with a client of its own, and what became of the calls.
type fleet struct {
	testing.TB
	instances []*hybridlimit.Provider
	limiters  []trypema.Limiter
	began     time.Time

	mu        sync.Mutex
	log       []anywindow.Admission
	by        []int         // the instance of each
	calls     []time.Time   // all
	longest   time.Duration // of a call
	fallbacks int
}

func newFleet(t testing.TB, addr string, n int, suppressed bool, o redislimit.Options) *fleet {
	f := &fleet{TB: t}
	o.Window, o.Prefix = fleetWindow, prefix()
	for range n {
		p := openHybrid(t, goredisconn.New(goRedis(t, []string{addr})), hybridlimit.Options{Options: o})
		f.instances = append(f.instances, p)
		if suppressed {
			f.limiters = append(f.limiters, p.Suppressed())
		} else {
			f.limiters = append(f.limiters, p.Absolute())
		}
	}
	return f
}

// offer makes calls as Poisson processes; the first instance gets its share of them, unless that is 0.
func (f *fleet) offer(load, first float64, duration time.Duration) {
	f.began = time.Now()
	var all sync.WaitGroup
	for i, l := range f.limiters {
		share := 1 / float64(len(f.limiters))
		if first > 0 {
			share = (1 - first) / float64(len(f.limiters)-1)
			if i == 0 {
				share = first
			}
		}
		all.Go(func() {
			for next, end := f.began, f.began.Add(duration); ; {
				next = next.Add(time.Duration(rand.ExpFloat64() / (fleetRate * load * share) * 1e9))
				if next.After(end) {
					return
				}
				time.Sleep(time.Until(next))
				before := time.Now()
				d, err := l.Allow(context.Background(), "k", fleetRate)
				after := time.Now()
				if err != nil && !errors.Is(err, trypema.ErrClosed) {
					f.Error(err)
				}
				f.mu.Lock()
				f.calls = append(f.calls, before)
				f.longest = max(f.longest, after.Sub(before))
				if d.Fallback {
					f.fallbacks++
				}
				if d.Allowed {
					f.log, f.by = append(f.log, anywindow.Admission{From: before, To: after, Cost: 1}), append(f.by, i)
				}
				f.mu.Unlock()
			}
		})
	}
	all.Wait()
}

// admitted returns how many calls were in a time since the beginning, and how many an exact log of events had admitted of the
// same calls.
func (f *fleet) admitted(from, to time.Duration) (n, exact int) {
	for _, a := range f.log {
		if at := a.To.Sub(f.began); at >= from && at < to {
			n++
		}
	}
	calls := slices.SortedFunc(slices.Values(f.calls), time.Time.Compare)
	var log []time.Time
	for _, at := range calls {
		for len(log) > 0 && at.Sub(log[0]) >= fleetWindow {
			log = log[1:]
		}
		if len(log) < fleetCap {
			log = append(log, at)
			if since := at.Sub(f.began); since >= from && since < to {
				exact++
			}
		}
	}
	return n, exact
}

// useSince returns the most that was admitted in a window since some time after the beginning. What was admitted in a burst is
// admitted in one again, so it matters where a window begins.
func (f *fleet) useSince(from time.Duration) uint64 {
	var log []anywindow.Admission
	for _, a := range f.log {
		if a.From.Sub(f.began) >= from {
			log = append(log, a)
		}
	}
	return anywindow.Most(log, fleetWindow)
}

// Eight instances never pass the limit together, from cold on, and admit what an exact log does, however load is spread.
func TestHybridEightInstances(t *testing.T) {
	server := redisserver.Start(t)
	var all sync.WaitGroup
	for _, test := range []struct {
		load, first float64
		suppressed  bool
	}{
		{10, 0, false}, {10, .9, false}, {.95, 0, false}, {1.05, 0, false}, {2, 0, false}, {2, 0, true}, {10, 0, true},
	} {
		all.Go(func() {
			t.Run(fmt.Sprintf("load %v, first %v, suppressed %v", test.load, test.first, test.suppressed), func(t *testing.T) {
				f := newFleet(t, server.Addr(), 8, test.suppressed, redislimit.Options{Timeout: 5 * time.Second})
				const windows = 6
				f.offer(test.load, test.first, windows*fleetWindow)
				most, bound := anywindow.Most(f.log, fleetWindow), uint64(fleetCap)
				if test.suppressed {
					bound = fleetCap * 3 / 2
				}
				n, exact := f.admitted(fleetWindow, windows*fleetWindow)
				t.Logf("%d admitted, an exact log admits %d; at most %d of %d in a window, certainly; the longest of %d calls took %v",
					n, exact, most, bound, len(f.calls), f.longest)
				if most > bound {
					t.Errorf("%d admitted in a window of at most %d", most, bound)
				}
				if f.fallbacks > 0 {
					t.Errorf("%d fallbacks", f.fallbacks)
				}
				if use := float64(n) / float64(exact); use < .95 || use > 1.05 {
					t.Errorf("%.3f of what an exact log admits", use)
				}
			})
		})
	}
	all.Wait()
}

// What was admitted is in Redis after a Close under load, exactly.
func TestHybridCloseUnderLoad(t *testing.T) {
	server := redisserver.Start(t)
	for _, suppressed := range []bool{false, true} {
		f := newFleet(t, server.Addr(), 3, suppressed, redislimit.Options{Timeout: 5 * time.Second})
		var all sync.WaitGroup
		all.Go(func() { f.offer(3, 0, time.Second) })
		time.Sleep(600 * time.Millisecond)
		for _, p := range f.instances {
			all.Go(func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		keys, err := server.Client().Keys(t.Context(), "*").Result()
		if err != nil || len(keys) != 1 {
			t.Fatal(keys, err)
		}
		settled, declined, leased := inRedis(t, server, keys[0])
		if int(settled) != len(f.log) || leased != 0 {
			t.Errorf("suppressed %v: %d settled and %d on lease, %d were admitted", suppressed, settled, leased, len(f.log))
		}
		t.Logf("suppressed %v: %d admitted, %d declined, all settled", suppressed, settled, declined)
		server.Client().FlushAll(t.Context())
	}
}

// inRedis reads the header of a window of the Hybrid provider.
func inRedis(t *testing.T, server *redisserver.Server, key string) (admitted, declined, leased uint64) {
	t.Helper()
	b, err := server.Client().Get(t.Context(), key).Bytes()
	if err != nil || len(b) < 120 {
		t.Fatal(len(b), err)
	}
	number := func(at int) (n uint64) {
		for i := 6; i >= 0; i-- {
			n = n<<8 | uint64(b[at+i])
		}
		return n
	}
	return number(22) - number(7), number(29) - number(79), number(104)
}

// Replies are lost, or come late, or nothing passes at all: never above the limit, and back to using it within one window.
func TestHybridBadNetwork(t *testing.T) {
	server := redisserver.Start(t)
	var all sync.WaitGroup
	for _, test := range []struct {
		name       string
		start, end func(*proxy.Proxy)
	}{
		{"replies lost", func(p *proxy.Proxy) { p.DropReplies(true) }, func(p *proxy.Proxy) { p.DropReplies(false); p.Reset() }},
		{"slow", func(p *proxy.Proxy) { p.SetDelay(40 * time.Millisecond) }, func(p *proxy.Proxy) { p.SetDelay(0) }},
		{"black hole", func(p *proxy.Proxy) { p.Blackhole(true) }, func(p *proxy.Proxy) { p.Blackhole(false) }},
		{"cut", func(p *proxy.Proxy) { p.Reset() }, func(p *proxy.Proxy) { p.Reset() }},
	} {
		all.Go(func() {
			t.Run(test.name, func(t *testing.T) {
				proxy := redisserver.StartProxy(t, server.Addr())
				f := newFleet(t, proxy.Addr(), 4, false, redislimit.Options{Timeout: 200 * time.Millisecond, OnFailure: redislimit.FailClosed, RetryInterval: 50 * time.Millisecond})
				const before, during, after = 2 * fleetWindow, fleetWindow, 4 * fleetWindow
				all.Go(func() {
					time.Sleep(before)
					test.start(proxy)
					time.Sleep(during)
					test.end(proxy)
				})
				f.offer(5, 0, before+during+after)
				most := anywindow.Most(f.log, fleetWindow)
				// A client may take its time to notice that a connection is dead.
				use := f.useSince(before + during + 2*fleetWindow)
				t.Logf("%d calls, the longest took %v, %d fallbacks; at most %d in a window, %d afterwards", len(f.calls), f.longest, f.fallbacks, most, use)
				if most > fleetCap {
					t.Errorf("%d admitted in a window", most)
				}
				if f.longest > 700*time.Millisecond {
					t.Errorf("a call took %v", f.longest)
				}
				if use < fleetCap*95/100 {
					t.Errorf("%d of %d admitted afterwards", use, fleetCap)
				}
			})
		})
	}
	all.Wait()
}

// Redis is gone for 5 s: what is admitted meanwhile is what the policy states, and is settled when Redis is back.
func TestHybridRedisGone(t *testing.T) {
	var all sync.WaitGroup
	for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailClosed} {
		for _, instances := range []int{1, 3} {
			all.Go(func() {
				t.Run(fmt.Sprintf("%v, Instances: %d", policy, instances), func(t *testing.T) {
					server := redisserver.Start(t)
					f := newFleet(t, server.Addr(), 3, false, redislimit.Options{Timeout: 150 * time.Millisecond, OnFailure: policy, Instances: instances, RetryInterval: 100 * time.Millisecond})
					const before, during, after = 2 * fleetWindow, 5 * time.Second, 4 * fleetWindow
					all.Go(func() {
						time.Sleep(before)
						server.Pause()
						time.Sleep(during)
						server.Resume()
					})
					f.offer(5, 0, before+during+after)
					most := anywindow.Most(f.log, fleetWindow)
					use := f.useSince(before + during + 2*fleetWindow)
					t.Logf("%d calls, the longest took %v, %d fallbacks; at most %d in a window, %d afterwards", len(f.calls), f.longest, f.fallbacks, most, use)
					bound := uint64(fleetCap)
					if policy == redislimit.FailLocal && instances == 1 {
						bound = 3 * fleetCap
						for i := range f.instances {
							var mine []anywindow.Admission
							for j, a := range f.log {
								if f.by[j] == i {
									mine = append(mine, a)
								}
							}
							if most := anywindow.Most(mine, fleetWindow); most > fleetCap {
								t.Errorf("instance %d admitted %d in a window", i, most)
							}
						}
					}
					if most > bound {
						t.Errorf("%d admitted in a window, want at most %d", most, bound)
					}
					if f.fallbacks == 0 || f.longest > 700*time.Millisecond {
						t.Errorf("%d fallbacks; a call took %v", f.fallbacks, f.longest)
					}
					if use < fleetCap*95/100 {
						t.Errorf("%d of %d admitted afterwards", use, fleetCap)
					}
				})
			})
		}
	}
	all.Wait()
}

// hybridChild is an instance that is another process: it makes calls until its input ends, and prints each admission at once.
func hybridChild(addr string) {
	client := redis.NewClient(&redis.Options{Addr: addr})
	p, err := hybridlimit.New(goredisconn.New(client), hybridlimit.Options{Options: redislimit.Options{
		Options: trypema.Options{Window: fleetWindow}, Prefix: "processes", OnFailure: redislimit.FailClosed, Timeout: time.Second,
	}})
	if err != nil {
		panic(err)
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	for !stop.Load() {
		before := time.Now()
		d, err := p.Absolute().Allow(context.Background(), "k", fleetRate)
		after := time.Now()
		if err != nil {
			panic(err)
		}
		if d.Allowed {
			fmt.Println(before.UnixNano(), after.UnixNano())
		}
		time.Sleep(500 * time.Microsecond)
	}
	if err := errors.Join(p.Close(), client.Close()); err != nil {
		panic(err)
	}
}

// process is a hybridChild under way.
type process struct {
	cmd   *exec.Cmd
	input io.Closer
	read  sync.WaitGroup
}

// Processes that share a limit are killed while they hold leases, or stopped for longer than those live: never above the limit,
// and the others use what is left, all of it within a window.
func TestHybridProcesses(t *testing.T) {
	server := redisserver.Start(t)
	var mu sync.Mutex
	var log []anywindow.Admission
	start := func() *process {
		c := &process{cmd: exec.CommandContext(t.Context(), os.Args[0])}
		c.cmd.Env = append(os.Environ(), childVariable+"="+server.Addr(), hybridVariable+"=1")
		c.cmd.Stderr = os.Stderr
		input, err := c.cmd.StdinPipe()
		output, err2 := c.cmd.StdoutPipe()
		if err := errors.Join(err, err2, c.cmd.Start()); err != nil {
			t.Fatal(err)
		}
		c.input = input
		c.read.Go(func() {
			for lines := bufio.NewScanner(output); lines.Scan(); {
				var before, after int64
				if n, _ := fmt.Sscan(lines.Text(), &before, &after); n == 2 {
					mu.Lock()
					log = append(log, anywindow.Admission{From: time.Unix(0, before), To: time.Unix(0, after), Cost: 1})
					mu.Unlock()
				}
			}
		})
		return c
	}
	end := func(c *process) {
		_ = c.input.Close()
		c.read.Wait()
		_ = c.cmd.Wait()
	}
	signal := func(c *process, s syscall.Signal) {
		if err := c.cmd.Process.Signal(s); err != nil {
			t.Error(err)
		}
	}
	used := func(what string, from time.Time) {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, a := range log {
			if a.To.After(from) && a.To.Before(from.Add(fleetWindow)) {
				n++
			}
		}
		t.Logf("%d of %d admitted in a window, %s", n, fleetCap, what)
		if n < fleetCap*95/100 {
			t.Errorf("%d of %d admitted in a window, %s", n, fleetCap, what)
		}
	}

	all := []*process{start(), start(), start(), start()}
	time.Sleep(2 * fleetWindow)
	used("all at work", time.Now().Add(-fleetWindow))
	signal(all[0], syscall.SIGKILL)
	killed := time.Now()
	end(all[0])
	time.Sleep(2*fleetWindow + 100*time.Millisecond)
	used("a window after one was killed", killed.Add(fleetWindow))
	all[0] = start()
	signal(all[1], syscall.SIGSTOP)
	stopped := time.Now()
	time.Sleep(5 * time.Second)
	used("a window after one was stopped", stopped.Add(fleetWindow))
	signal(all[1], syscall.SIGCONT)
	resumed := time.Now()
	time.Sleep(2*fleetWindow + 100*time.Millisecond)
	used("a window after it went on", resumed.Add(fleetWindow))
	for _, c := range all {
		end(c)
	}
	most := anywindow.Most(log, fleetWindow)
	t.Logf("%d admissions, at most %d in a window, certainly", len(log), most)
	if most > fleetCap {
		t.Errorf("%d admitted in a window of at most %d", most, fleetCap)
	}
}

const hybridVariable = "TRYPEMA_TEST_HYBRID"
