package onfaults

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/anywindow"
	"github.com/trypema/trypema/internal/proxy"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// victim is a server behind a proxy, and a client of it that is set up like that of most users.
type victim struct {
	*testing.T
	server *redisserver.Server
	proxy  *proxy.Proxy
	client *redis.Client
	admin  *redis.Client // not by way of the proxy
}

func newVictim(t *testing.T) *victim {
	s := redisserver.Start(t, redisserver.WithDebug(t)...)
	v := &victim{T: t, server: s, proxy: redisserver.StartProxy(t, s.Addr()), admin: s.Client()}
	v.client = redis.NewClient(&redis.Options{Addr: v.proxy.Addr(), ReadTimeout: time.Second})
	t.Cleanup(func() {
		if err := v.client.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v *victim) do(args ...any) {
	v.Helper()
	do(v, v.admin, args...)
}

// outage is how long a fault lasts: for longer than a window, so that nothing is known to be full any more.
const outage = 2 * time.Second

// faults are what happens to Redis, and how it ends.
var faults = []struct {
	name   string
	strike func(v *victim)
	end    func(v *victim)

	spared  bool // the policy must have nothing to do
	forgets bool // Redis comes back without its keys
}{
	{"killed and restarted", func(v *victim) { v.server.Kill() }, func(v *victim) { v.server.Restart() }, false, true},
	{"stopped", func(v *victim) { v.server.Pause() }, func(v *victim) { v.server.Resume() }, false, false},
	{"CLIENT PAUSE", func(v *victim) { v.do("CLIENT", "PAUSE", outage.Milliseconds()) }, func(*victim) {}, false, false},
	{"DEBUG SLEEP", func(v *victim) { go v.admin.Do(context.Background(), "DEBUG", "SLEEP", outage.Seconds()) }, func(*victim) {}, false, false},
	{"a script that does not end", func(v *victim) {
		v.do("CONFIG", "SET", "lua-time-limit", "10")
		go v.admin.Eval(context.Background(), "while true do end", nil)
	}, func(v *victim) { v.do("SCRIPT", "KILL") }, false, false},
	{"read-only", func(v *victim) { v.do("REPLICAOF", "127.0.0.1", "1") }, func(v *victim) { v.do("REPLICAOF", "NO", "ONE") }, false, false},
	{"out of memory", func(v *victim) { v.do("CONFIG", "SET", "maxmemory", "1") }, func(v *victim) { v.do("CONFIG", "SET", "maxmemory", "0") }, false, false},
	{"replies lost", func(v *victim) { v.proxy.DropReplies(true) }, func(v *victim) { v.proxy.DropReplies(false) }, false, false},
	{"black hole", func(v *victim) { v.proxy.Blackhole(true) }, func(v *victim) { v.proxy.Blackhole(false) }, false, false},
	{"slower than the timeout", func(v *victim) { v.proxy.SetDelay(300 * time.Millisecond) }, func(v *victim) { v.proxy.SetDelay(0) }, false, false},
	{"SCRIPT FLUSH", func(v *victim) { v.do("SCRIPT", "FLUSH") }, func(*victim) {}, true, false},
	{"slow", func(v *victim) { v.proxy.SetDelay(20 * time.Millisecond) }, func(v *victim) { v.proxy.SetDelay(0) }, true, false},
}

// Whatever happens to Redis: no call outlives its timeout or is an error, the policy decides in the meantime and as it says,
// and Redis is asked again by itself once it can be. No window holds more than the limit, unless Redis forgets; then twice that.
func TestFaults(t *testing.T) {
	for _, kind := range both {
		for _, fault := range faults {
			for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen, redislimit.FailClosed} {
				if policy != redislimit.FailLocal && (testing.Short() || kind.Hybrid && policy == redislimit.FailOpen && !*long) {
					continue
				}
				t.Run(fmt.Sprintf("%v %s %v", kind, fault.name, policy), func(t *testing.T) {
					t.Parallel()
					repeat(t, func(t *testing.T) {
						newVictim(t).suffer(kind, fault.strike, fault.end, fault.spared, fault.forgets, policy)
					})
				})
			}
		}
	}
}

func (v *victim) suffer(kind rig.Kind, strike, end func(*victim), spared, forgets bool, policy redislimit.FailurePolicy) {
	const capacity = 100
	timeout := timeout
	if spared {
		timeout = 10 * time.Second // so that nobody waits in vain because the machine is busy
	}
	var mu sync.Mutex
	var changes []redislimit.Health
	p := kind.Open(v, goredisconn.New(v.client), redislimit.Options{
		Options: trypema.Options{Window: window}, Timeout: timeout, OnFailure: policy, RetryInterval: 50 * time.Millisecond,
		OnChange: func(h redislimit.Health) {
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, h)
		},
	})
	l := p.Absolute()

	// What each call came to.
	type outcome struct {
		anywindow.Admission
		allowed, fallback bool
	}
	var log []outcome
	call := func() outcome {
		before := time.Now()
		d, err := l.Allow(context.Background(), "k", trypema.Per(capacity, window))
		o := outcome{anywindow.Admission{From: before, To: time.Now(), Cost: 1}, d.Allowed, d.Fallback}
		if took := o.To.Sub(before); err != nil || took > timeout+rig.Slack {
			v.Errorf("%+v, %v, after %v", d, err, took)
		}
		mu.Lock()
		defer mu.Unlock()
		log = append(log, o)
		return o
	}
	for began := time.Now(); call().fallback; { // on a machine that is busy with starting servers
		if time.Since(began) > 15*time.Second {
			v.Fatal("a fallback before anything has happened")
		}
	}
	mu.Lock()
	log, changes = nil, nil
	mu.Unlock()
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					call()
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	struck := time.Now()
	strike(v)
	time.Sleep(outage)
	end(v)
	ended := time.Now()
	recovered := false
	for time.Since(ended) < 15*time.Second && !recovered {
		time.Sleep(10 * time.Millisecond)
		recovered = !call().fallback
	}
	time.Sleep(window + 300*time.Millisecond) // and stays so
	close(stop)
	callers.Wait()

	mu.Lock()
	defer mu.Unlock()
	var all []anywindow.Admission
	fallbacks, open := 0, 0
	for _, o := range log {
		if o.fallback && o.From.Before(ended) {
			fallbacks++
			if o.allowed {
				open++
			}
			if !o.To.After(struck) {
				v.Errorf("a fallback %v before anything had happened", struck.Sub(o.To))
			}
		}
		if o.allowed {
			all = append(all, o.Admission)
		}
	}
	most := anywindow.Most(all, window)
	v.Logf("%d calls, %d of them decided by the policy until the end, %d of those admitted; at most %d of %d in a window; changes: %v",
		len(log), fallbacks, open, most, capacity, changes)
	if !recovered {
		v.Error("Redis is not asked again")
	}
	if (fallbacks == 0) != spared {
		v.Errorf("%d fallbacks", fallbacks)
	}
	if spared && len(changes) > 0 || !spared && (len(changes) < 2 || changes[0].Available || !changes[len(changes)-1].Available) {
		v.Errorf("changes: %v", changes)
	}
	switch policy {
	case redislimit.FailOpen:
		if open != fallbacks {
			v.Errorf("%d of %d admitted", open, fallbacks)
		}
	case redislimit.FailClosed:
		if open != 0 {
			v.Errorf("%d of %d admitted", open, fallbacks)
		}
	}
	// Redis that forgets admits anew, but FailLocal of the Redis provider has a say then.
	bound := uint64(capacity)
	if forgets && (kind.Hybrid || policy == redislimit.FailClosed) {
		bound *= 2
	}
	if most > bound && policy != redislimit.FailOpen {
		v.Errorf("%d admitted in a window, want at most %d", most, bound)
	}
}

// A wrong password, or no server at all, is trouble that the policy deals with, and says what it is.
func TestNoAccess(t *testing.T) {
	locked := redisserver.Start(t)
	if err := locked.Client().ConfigSet(t.Context(), "requirepass", "secret").Err(); err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for _, test := range []struct {
		name, addr, password, says string
	}{
		{"no password", locked.Addr(), "", "AUTH"},
		{"wrong password", locked.Addr(), "guess", "WRONGPASS"},
		{"no server", closed.Addr().String(), "", "REFUSED"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := redis.NewClient(&redis.Options{Addr: test.addr, Password: test.password})
			defer func() { _ = c.Close() }()
			var mu sync.Mutex
			var cause error
			p := rig.Open(t, goredisconn.New(c), redislimit.Options{OnFailure: redislimit.FailClosed, Timeout: time.Second, OnChange: func(h redislimit.Health) {
				mu.Lock()
				defer mu.Unlock()
				cause = h.Err
			}})
			for range 5 {
				if d, err := p.Suppressed().Allow(t.Context(), "k", 1); err != nil || d.Allowed || !d.Fallback || d.Outcome != trypema.OutcomeSuppressed {
					t.Fatalf("%+v, %v", d, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if cause == nil || !strings.Contains(strings.ToUpper(cause.Error()), test.says) || strings.Contains(cause.Error(), "guess") {
				t.Errorf("the cause is %v, want one that says %q", cause, test.says)
			}
		})
	}
}

// Redis is gone for three windows: what is admitted meanwhile is what the policy states, and what the Hybrid provider has admitted
// is counted when Redis is back, once, unless it has aged out by then.
func TestRedisGone(t *testing.T) {
	for _, kind := range both {
		for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailClosed} {
			for _, instances := range []int{1, 3} {
				t.Run(fmt.Sprintf("%v, %v, Instances: %d", kind, policy, instances), func(t *testing.T) {
					t.Parallel()
					repeat(t, func(t *testing.T) { gone(t, kind, policy, instances) })
				})
			}
		}
	}
}

func gone(t *testing.T, kind rig.Kind, policy redislimit.FailurePolicy, instances int) {
	server := redisserver.Start(t)
	conns := []redislimit.Conn{dial(t, server.Addr()), dial(t, server.Addr()), dial(t, server.Addr())}
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 4}, hasty(policy, instances), conns...)
	f.Start()
	time.Sleep(2 * window)
	paused := time.Now()
	server.Pause()
	time.Sleep(3 * window)
	server.Resume()
	resumed := time.Now()
	back(f)
	time.Sleep(4 * window)
	f.Stop()
	f.Summary(timeout, "gone")
	bound := f.Capacity()
	switch {
	case policy == redislimit.FailClosed:
	case instances == 1:
		bound *= 3
		for i := range f.Instances {
			f.Bound(fmt.Sprint("by instance ", i), f.Capacity(), rig.By(i))
		}
	case !kind.Hybrid: // at the edges, what Redis has admitted and what the instances have
		bound *= 2
	}
	f.Bound("of all", bound)
	if len(f.Of(rig.Fellback)) == 0 {
		t.Error("no fallbacks")
	}
	f.Use("afterwards", .9, rig.Since(resumed.Add(2*window)))
	if kind.Hybrid {
		settled(f, server.Client(), func(c rig.Call) bool { return c.To.After(paused.Add(-window)) && c.From.Before(resumed) })
	}
}

// settled closes the instances of the Hybrid provider, and fails unless Redis has counted what they have admitted, each call
// once, but for calls that may have aged out before it was told of them.
func settled(f *rig.Fleet, c redis.Cmdable, old func(rig.Call) bool) {
	f.Helper()
	for _, p := range f.Instances {
		if err := p.Close(); err != nil {
			f.Error(err)
		}
	}
	for _, key := range f.Keys {
		mine := f.Of(func(c rig.Call) bool { return c.Allowed && c.Key == key })
		least := len(mine)
		for _, c := range mine {
			if old != nil && old(c) {
				least--
			}
		}
		h, err := rig.ReadHeader(context.Background(), c, f.Kind, f.Name(key))
		f.Logf("%q: %d were admitted, Redis has counted %d", key, len(mine), h.Counted)
		if n := int(h.Counted); err != nil || n > len(mine) || n < least || h.Leased > 0 {
			f.Errorf("%q: Redis has counted %d, and has %d on lease; want %d to %d; %v", key, n, h.Leased, least, len(mine), err)
		}
	}
}
