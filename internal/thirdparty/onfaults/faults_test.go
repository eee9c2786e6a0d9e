package onredis

import (
	"context"
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
	if err := v.admin.Do(context.Background(), args...).Err(); err != nil {
		v.Errorf("%v: %v", args, err)
	}
}

// faults are what happens to Redis, and how it ends.
var faults = []struct {
	name   string
	strike func(v *victim)
	end    func(v *victim)
	spared bool // the policy must have nothing to do
}{
	{"killed and restarted", func(v *victim) { v.server.Kill() }, func(v *victim) { v.server.Restart() }, false},
	{"stopped", func(v *victim) { v.server.Pause() }, func(v *victim) { v.server.Resume() }, false},
	{"CLIENT PAUSE", func(v *victim) { v.do("CLIENT", "PAUSE", 1000) }, func(*victim) {}, false},
	{"DEBUG SLEEP", func(v *victim) { go v.admin.Do(context.Background(), "DEBUG", "SLEEP", "1") }, func(*victim) {}, false},
	{"a script that does not end", func(v *victim) {
		v.do("CONFIG", "SET", "lua-time-limit", "10")
		go v.admin.Eval(context.Background(), "while true do end", nil)
	}, func(v *victim) { v.do("SCRIPT", "KILL") }, false},
	{"read-only", func(v *victim) { v.do("REPLICAOF", "127.0.0.1", "1") }, func(v *victim) { v.do("REPLICAOF", "NO", "ONE") }, false},
	{"out of memory", func(v *victim) { v.do("CONFIG", "SET", "maxmemory", "1") }, func(v *victim) { v.do("CONFIG", "SET", "maxmemory", "0") }, false},
	{"replies lost", func(v *victim) { v.proxy.DropReplies(true) }, func(v *victim) { v.proxy.DropReplies(false) }, false},
	{"black hole", func(v *victim) { v.proxy.Blackhole(true) }, func(v *victim) { v.proxy.Blackhole(false) }, false},
	{"slower than the timeout", func(v *victim) { v.proxy.SetDelay(300 * time.Millisecond) }, func(v *victim) { v.proxy.SetDelay(0) }, false},
	{"SCRIPT FLUSH", func(v *victim) { v.do("SCRIPT", "FLUSH") }, func(*victim) {}, true},
	{"slow", func(v *victim) { v.proxy.SetDelay(20 * time.Millisecond) }, func(v *victim) { v.proxy.SetDelay(0) }, true},
}

// Whatever happens to Redis: no call outlives its timeout or is an error, the policy decides in the meantime and as it says,
// and Redis is asked again by itself once it can be.
func TestFaults(t *testing.T) {
	var all sync.WaitGroup // t.Parallel would let only as many wait as there are processors
	for _, fault := range faults {
		for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen, redislimit.FailClosed} {
			if testing.Short() && policy != redislimit.FailLocal {
				continue
			}
			all.Go(func() {
				t.Run(fault.name+" "+policy.String(), func(t *testing.T) {
					newVictim(t).suffer(fault.strike, fault.end, fault.spared, policy)
				})
			})
		}
		all.Wait()
	}
}

func (v *victim) suffer(strike, end func(*victim), spared bool, policy redislimit.FailurePolicy) {
	const (
		timeout  = 150 * time.Millisecond
		slack    = 250 * time.Millisecond // of a busy machine
		window   = time.Second
		capacity = 100
	)
	var mu sync.Mutex
	var changes []redislimit.Health
	p := open(v, goredisconn.New(v.client), redislimit.Options{
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
		if took := o.To.Sub(before); err != nil || took > timeout+slack {
			v.Errorf("%+v, %v, after %v", d, err, took)
		}
		mu.Lock()
		defer mu.Unlock()
		log = append(log, o)
		return o
	}
	if call().fallback {
		v.Error("a fallback before anything has happened")
	}
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					call()
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	struck := time.Now()
	strike(v)
	time.Sleep(time.Second)
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
	v.Logf("%d calls, %d of them decided by the policy until the end, %d of those admitted; changes: %v", len(log), fallbacks, open, changes)
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
	// A server that forgets admits anew; what one instance admits under FailLocal is bounded even so.
	if policy == redislimit.FailLocal {
		if most := anywindow.Most(all, window); most > uint64(capacity) {
			v.Errorf("%d admitted in a window, the limit is %d", most, capacity)
		}
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
			p := open(t, goredisconn.New(c), redislimit.Options{OnFailure: redislimit.FailClosed, Timeout: time.Second, OnChange: func(h redislimit.Health) {
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

// A key that holds something else is an error for those who ask for it, with every verb, and for nobody else.
func TestForeignKeys(t *testing.T) {
	for _, topology := range topologies {
		t.Run(topology.name, func(t *testing.T) {
			addrs := topology.start(t)
			client := goRedis(t, addrs)
			o := patient(t, trypema.Options{})
			o.Prefix = "foreign"
			p := open(t, goredisconn.New(client), o)
			for _, suppressed := range []bool{false, true} {
				l := strategy(p, suppressed)
				for kind, put := range map[string]func(key string) error{
					"a list":         func(key string) error { return client.RPush(t.Context(), key, "x").Err() },
					"a short string": func(key string) error { return client.Set(t.Context(), key, "hello", 0).Err() },
					"a long string":  func(key string) error { return client.Set(t.Context(), key, strings.Repeat("hello", 100), 0).Err() },
				} {
					if err := put(redisKey("foreign", kind, suppressed, 10*time.Second)); err != nil {
						t.Fatal(err)
					}
					d, err := l.Allow(t.Context(), kind, 1)
					_, usage := l.Usage(t.Context(), kind, 1)
					_, set := l.Set(t.Context(), kind, trypema.Always(), 1, trypema.Replace)
					for verb, err := range map[string]error{"Allow": err, "Usage": usage, "Set": set} {
						if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") && !strings.Contains(err.Error(), "NOTAWINDOW") || !strings.Contains(err.Error(), kind) {
							t.Errorf("%s with %s in the way: %v", verb, kind, err)
						}
					}
					if d.Allowed {
						t.Errorf("admitted with %s in the way", kind)
					}
				}
				if d, err := l.Allow(t.Context(), "mine", 1); err != nil || !d.Allowed {
					t.Errorf("%+v, %v", d, err)
				}
			}
		})
	}
}
