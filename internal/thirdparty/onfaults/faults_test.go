package onfaults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/proxy"
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

func newVictim(t *testing.T, readTimeout time.Duration) *victim {
	s := redisserver.Start(t, redisserver.WithDebug(t)...)
	v := &victim{T: t, server: s, proxy: redisserver.StartProxy(t, s.Addr()), admin: s.Client()}
	v.client = redis.NewClient(&redis.Options{Addr: v.proxy.Addr(), ReadTimeout: readTimeout})
	t.Cleanup(func() { must.Report(t, v.client.Close()) })
	return v
}

func (v *victim) do(args ...any) {
	v.Helper()
	do(v, v.admin, args...)
}

// fault is something that happens to Redis, for some time, and how it ends.
type fault struct {
	name   string
	strike func(v *victim, length time.Duration)
	end    func(v *victim)

	spared  bool // the policy must have nothing to do
	forgets bool // Redis comes back without its keys
	silent  bool // calls have no answer in time, instead of an error at once
}

var faults = []fault{
	{
		name:    "killed and restarted",
		strike:  func(v *victim, _ time.Duration) { v.server.Kill() },
		end:     func(v *victim) { v.server.Restart() },
		forgets: true,
	},
	{
		name:   "stopped",
		strike: func(v *victim, _ time.Duration) { v.server.Pause() },
		end:    func(v *victim) { v.server.Resume() },
		silent: true,
	},
	{
		name:   "CLIENT PAUSE",
		strike: func(v *victim, length time.Duration) { v.do("CLIENT", "PAUSE", length.Milliseconds()) },
		end:    func(*victim) {},
		silent: true,
	},
	{
		name: "DEBUG SLEEP",
		strike: func(v *victim, length time.Duration) {
			go v.admin.Do(context.Background(), "DEBUG", "SLEEP", length.Seconds())
		},
		end:    func(*victim) {},
		silent: true,
	},
	{
		name: "a script that does not end",
		strike: func(v *victim, _ time.Duration) {
			v.do("CONFIG", "SET", "lua-time-limit", "10")
			go v.admin.Eval(context.Background(), "while true do end", nil)
		},
		end: func(v *victim) { v.do("SCRIPT", "KILL") },
	},
	{
		name:   "read-only",
		strike: func(v *victim, _ time.Duration) { v.do("REPLICAOF", "127.0.0.1", "1") },
		end:    func(v *victim) { v.do("REPLICAOF", "NO", "ONE") },
	},
	{
		name:   "out of memory",
		strike: func(v *victim, _ time.Duration) { v.do("CONFIG", "SET", "maxmemory", "1") },
		end:    func(v *victim) { v.do("CONFIG", "SET", "maxmemory", "0") },
	},
	{
		name:   "replies lost",
		strike: func(v *victim, _ time.Duration) { v.proxy.DropReplies(true) },
		end:    func(v *victim) { v.proxy.DropReplies(false) },
		silent: true,
	},
	{
		name:   "black hole",
		strike: func(v *victim, _ time.Duration) { v.proxy.Blackhole(true) },
		end:    func(v *victim) { v.proxy.Blackhole(false) },
		silent: true,
	},
	{
		name:   "slower than the timeout",
		strike: func(v *victim, _ time.Duration) { v.proxy.SetDelay(timeout * 3 / 2) },
		end:    func(v *victim) { v.proxy.SetDelay(0) },
		silent: true,
	},
	{
		name:   "SCRIPT FLUSH",
		strike: func(v *victim, _ time.Duration) { v.do("SCRIPT", "FLUSH") },
		end:    func(*victim) {},
		spared: true,
	},
	{
		name:   "slow",
		strike: func(v *victim, _ time.Duration) { v.proxy.SetDelay(20 * time.Millisecond) },
		end:    func(v *victim) { v.proxy.SetDelay(0) },
		spared: true,
	},
}

// Whatever happens to Redis: no call is an error or waits for its end, the policy decides in the meantime and
// as it says, and Redis is asked again by itself once it can be. No window holds more than the limit, unless
// Redis forgets; then twice that.
func TestFaults(t *testing.T) {
	policies := []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailClosed, redislimit.FailOpen}
	for i, kind := range both {
		for j, fault := range faults {
			for k, policy := range policies {
				if !explore.Long() && (i+j)%3 != k {
					continue
				}
				t.Run(fmt.Sprintf("%v %s %v", kind, fault.name, policy), func(t *testing.T) {
					t.Parallel()
					repeat(t, func(t *testing.T) {
						readTimeout := time.Second
						if fault.spared {
							readTimeout = rig.Patience
						}
						newVictim(t, readTimeout).suffer(kind, fault, policy)
					})
				})
			}
		}
	}
}

// outcome is what a call came to.
type outcome struct {
	anywindow.Admission
	allowed, fallback bool
}

// diary is what became of the calls of a victim, and what it was told of Redis.
type diary struct {
	mu      sync.Mutex
	log     []outcome
	changes []redislimit.Health
}

func (d *diary) changed(h redislimit.Health) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes = append(d.changes, h)
}

// call makes a call.
func (d *diary) call(v *victim, l trypema.Limiter, rate trypema.Rate) outcome {
	before := time.Now()
	got, err := l.Allow(context.Background(), "k", rate)
	o := outcome{anywindow.Admission{From: before, To: time.Now(), Cost: 1}, got.Allowed, got.Fallback}
	if took := o.To.Sub(before); err != nil || took > rig.Patience {
		v.Errorf("%+v, %v, after %v", got, err, took)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, o)
	return o
}

// since returns how many calls the policy has decided since an instant, how many of them it has admitted, and
// whether Redis is known to be, or to have been, gone.
func (d *diary) since(t time.Time) (fallbacks, admitted int, gone bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.log {
		if o.fallback && !o.From.Before(t) {
			fallbacks++
			if o.allowed {
				admitted++
			}
		}
	}
	return fallbacks, admitted, slices.ContainsFunc(d.changes, func(h redislimit.Health) bool { return !h.Available })
}

// told returns whether Redis is available, by the last that was told of it.
func (d *diary) told() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.changes) == 0 || d.changes[len(d.changes)-1].Available
}

func (v *victim) suffer(kind rig.Kind, fault fault, policy redislimit.FailurePolicy) {
	const capacity = 40
	timeout := timeout
	if fault.spared {
		timeout = rig.Patience // so that no call waits in vain because the machine is busy
	}
	var d diary
	p := kind.Open(v, goredisconn.New(v.client), redislimit.Options{
		Options: trypema.Options{Window: window}, Timeout: timeout, OnFailure: policy, RetryInterval: 50 * time.Millisecond, OnChange: d.changed,
	})
	call := func() outcome { return d.call(v, p.Absolute(), trypema.Per(capacity, window)) }
	decides := func() error { // by Redis
		if call().fallback {
			return errors.New("Redis is not asked")
		}
		if !d.told() {
			return errors.New("it is not told that Redis is back")
		}
		return nil
	}
	rig.Wait(v, decides)
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					call()
				}
			}
		})
	}
	time.Sleep(window / 4)
	struck := time.Now()
	// For longer than a window, so that nothing is known to be full any more, and until a few calls have had
	// no answer; and if a busy machine has not made those by then, again.
	first := window * 3 / 2
	if fault.silent {
		first = max(first, 4*timeout)
	}
	var fallbacks, open int
	for length := first; ; length *= 4 {
		fault.strike(v, length)
		time.Sleep(length)
		var gone bool
		fallbacks, open, gone = d.since(struck)
		fault.end(v)
		if fault.spared || fallbacks >= 5 && gone || length > rig.Patience {
			break
		}
	}
	rig.Wait(v, decides)
	time.Sleep(window)
	close(stop)
	callers.Wait()

	var all []anywindow.Admission
	for _, o := range d.log {
		if o.allowed {
			all = append(all, o.Admission)
		}
	}
	most := anywindow.Most(all, window)
	v.Logf("%d calls, %d of them decided by the policy until the end, %d of those admitted; at most %d of %d in a window; changes: %v",
		len(d.log), fallbacks, open, most, capacity, d.changes)
	if (fallbacks == 0) != fault.spared || (len(d.changes) == 0) != fault.spared {
		v.Errorf("%d fallbacks, changes: %v", fallbacks, d.changes)
	}
	if policy == redislimit.FailOpen && open != fallbacks || policy == redislimit.FailClosed && open != 0 {
		v.Errorf("%d of %d admitted by %v", open, fallbacks, policy)
	}
	// Redis that forgets admits once more, but FailLocal of the Redis provider has a say then.
	bound := uint64(capacity)
	if fault.forgets && (kind.Hybrid || policy == redislimit.FailClosed) {
		bound *= 2
	}
	if most > bound && policy != redislimit.FailOpen {
		v.Errorf("%d admitted in a window, want at most %d", most, bound)
	}
}

// A wrong password, or no server at all, is trouble that the policy deals with, and says what it is.
func TestNoAccess(t *testing.T) {
	locked := redisserver.Start(t)
	must.OK(t, locked.Client().ConfigSet(t.Context(), "requirepass", "secret").Err())
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must.OK(t, err)
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
			causes := make(chan error, 5)
			p := rig.Open(t, goredisconn.New(c), redislimit.Options{
				OnFailure: redislimit.FailClosed, Timeout: rig.Patience,
				OnChange: func(h redislimit.Health) { causes <- h.Err },
			})
			for range 5 {
				if d, err := p.Suppressed().Allow(t.Context(), "k", 1); err != nil || d.Allowed ||
					!d.Fallback || d.Outcome != trypema.OutcomeSuppressed {
					t.Fatalf("%+v, %v", d, err)
				}
			}
			// Who calls may be answered before OnChange is told.
			if cause := <-causes; cause == nil || !strings.Contains(strings.ToUpper(cause.Error()), test.says) ||
				strings.Contains(cause.Error(), "guess") {
				t.Errorf("the cause is %v, want one that says %q", cause, test.says)
			}
		})
	}
}

// Redis is gone for three windows: what is admitted meanwhile is what the policy states, and what the Hybrid
// provider has admitted is counted when Redis is back, once. That Hybrid holds the limit over all instances
// that share it, and not only twice that, when they all notice the outage at once, is shown in virtual time
// (TestOutage of hybridlimit).
func TestRedisGone(t *testing.T) {
	for i, kind := range both {
		for j, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailClosed} {
			for k, instances := range []int{1, 3} {
				if !explore.Long() && (i+j+k)%2 == 0 {
					continue
				}
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
	conns := func() []redislimit.Conn {
		return []redislimit.Conn{dial(t, server.Addr()), dial(t, server.Addr()), dial(t, server.Addr())}
	}
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 4},
		hasty(policy, instances), conns()...)
	var long *rig.Fleet // to see that all is counted, and once
	if kind.Hybrid {
		long = rig.NewFleet(t, day(kind, "k"), hasty(policy, instances), conns()...)
		long.Start()
	}
	f.Start()
	f.Used("before", .9)
	server.Pause()
	paused := time.Now()
	time.Sleep(3 * window)
	seen(f, paused)
	server.Resume()
	resumed := time.Now()
	back(f)
	f.Used("afterwards", .9, rig.Since(resumed.Add(window)))
	f.Stop()
	f.Summary("gone")
	bound := f.Capacity()
	switch {
	case policy == redislimit.FailClosed:
	case instances == 1:
		bound *= 3
		for i := range f.Instances {
			f.Bound(fmt.Sprint("by instance ", i), f.Capacity(), rig.By(i))
		}
	default: // at the edges, what Redis has admitted and what the instances have
		bound *= 2
	}
	f.Bound("of all", bound)
	if long != nil {
		back(long)
		long.Stop()
		settled(long, server.Client())
	}
}
