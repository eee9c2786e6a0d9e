package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/redislimit"
)

const (
	window      = time.Second // so that everything that is kept leaves many times
	hardFactor  = 1.5
	instances   = 3  // of Hybrid
	connections = 12 // of each client
	timeout     = 400 * time.Millisecond
)

// lane is one of the six limiters, its callers, and what became of the calls.
type lane struct {
	provider, strategy string
	limiters           []trypema.Limiter // by instance
	churn              float64           // new keys per second
	watches            []*watch
	hot                *watch // one of them, of the key that always wants more

	offered, allowed, errors, fresh atomic.Int64
	used                            atomic.Int64 // of the hot key, since the last sample

	mu        sync.Mutex // guards the below
	latencies *hdrhistogram.Histogram
	fallbacks int
	strange   []time.Time // when there were some, in steps of some ms, so that an outage does not fill the memory
	err       error       // the first
}

func (l *lane) String() string { return l.provider + " " + l.strategy }

// fleet is all lanes, and what they are made of.
type fleet struct {
	lanes  []*lane
	meters trypema.Meters
	local  *trypema.Local
	closes []func() error
}

// newFleet returns the six lanes, three of whose clients reach Redis at addr.
func newFleet(addr string, churn float64) (*fleet, error) {
	f := new(fleet)
	o := trypema.Options{Window: window, HardLimitFactor: hardFactor, Observer: &f.meters}
	var err error
	if f.local, err = trypema.NewLocal(o); err != nil {
		return f, err
	}
	f.closes = append(f.closes, f.local.Close)
	f.add("local", churn/4, f.local)

	conn := func() *goredisconn.Conn {
		client := redis.NewClient(&redis.Options{
			Addr: addr, DisableIdentity: true,
			// As many connections from the beginning on as there may be: what a fault makes a pool grow by is
			// not ours to judge.
			PoolSize: connections, MinIdleConns: connections, ConnMaxIdleTime: -1,
		})
		f.closes = append([]func() error{client.Close}, f.closes...) // closed after those who use it
		return goredisconn.New(client)
	}
	ro := redislimit.Options{Options: o, Prefix: "soak", Timeout: timeout, RetryInterval: 100 * time.Millisecond}
	remote, err := redislimit.New(conn(), ro)
	if err != nil {
		return f, err
	}
	f.closes = append(f.closes, remote.Close)
	f.add("redis", churn/8, remote)

	// several instances pass the limit at the edges of an outage with FailLocal, one does not
	ro.OnFailure = redislimit.FailClosed
	var hybrids []trypema.Provider
	for range instances {
		p, err := hybridlimit.New(conn(), hybridlimit.Options{Options: ro})
		if err != nil {
			return f, err
		}
		f.closes = append(f.closes, p.Close)
		hybrids = append(hybrids, p)
	}
	f.add("hybrid", churn/8, hybrids...)
	return f, nil
}

func (f *fleet) add(name string, churn float64, all ...trypema.Provider) {
	a := &lane{provider: name, strategy: "absolute", churn: churn, latencies: histogram()}
	s := &lane{provider: name, strategy: "suppressed", churn: churn, latencies: histogram()}
	for _, p := range all {
		a.limiters = append(a.limiters, p.Absolute())
		s.limiters = append(s.limiters, p.Suppressed())
	}
	f.lanes = append(f.lanes, a, s)
}

func histogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute), 2) }

// close closes all, the last first, and returns how long it took.
func (f *fleet) close() (took time.Duration, err error) {
	began := time.Now()
	for _, end := range slices.Backward(f.closes) {
		err = errors.Join(err, end())
	}
	return time.Since(began), err
}

// meter is how a lane is observed.
func (f *fleet) meter(l *lane) trypema.Stats {
	for _, m := range f.meters.All() {
		if m.Provider == l.provider && m.Strategy == l.strategy {
			return m.Read()
		}
	}
	return trypema.Stats{}
}

// watch is a key of the lane that is judged, with so many events to a window.
func (l *lane) watch(key string, capacity float64) *watch {
	w := &watch{key: key, window: window, bound: uint64(capacity)}
	if l.strategy == "suppressed" {
		w.bound = uint64(capacity * hardFactor)
	}
	l.watches = append(l.watches, w)
	return w
}

// call makes a call to some instance, and notes what became of it.
func (l *lane) call(rng *rand.Rand, w *watch, key string, capacity float64, n uint64) {
	limiter := l.limiters[rng.IntN(len(l.limiters))]
	from := time.Now()
	d, err := limiter.AllowN(context.Background(), key, trypema.Per(capacity, window), n)
	to := time.Now()
	l.offered.Add(1)
	if d.Allowed {
		l.allowed.Add(1)
		if w != nil {
			w.add(from, to, n)
			if w == l.hot {
				l.used.Add(int64(n))
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.latencies.RecordValue(min(int64(to.Sub(from)), int64(time.Minute)))
	if d.Fallback {
		l.fallbacks++
		if n := len(l.strange); n == 0 || from.Sub(l.strange[n-1]) > 50*time.Millisecond {
			l.strange = append(l.strange, from)
		}
	}
	if err != nil {
		l.errors.Add(1)
		l.err = err
	}
}

const hotCapacity = 400

// start starts callers of all kinds, which end with the context. It returns when all keys to watch are known.
func (l *lane) start(ctx context.Context, all *sync.WaitGroup) {
	caller := func(seed uint64, f func(*rand.Rand)) {
		all.Go(func() { f(rand.New(rand.NewPCG(seed, 0))) })
	}
	l.hot = l.watch("hot", hotCapacity)
	steady, ends := l.watch("poisson", 200), l.watch("bursts", 100)
	onOff, first := l.watch("on-off", 100), l.watch("zipf:0", 40)
	for i := range uint64(2) { // always twice its limit
		caller(i, func(rng *rand.Rand) {
			pace(ctx, func(time.Time) float64 { return hotCapacity }, nil, func() { l.call(rng, l.hot, "hot", hotCapacity, 1) })
		})
	}
	caller(2, func(rng *rand.Rand) { // near its limit, with a mean cost of 2
		pace(ctx, func(time.Time) float64 { return 110 }, rng, func() { l.call(rng, steady, "poisson", 200, 1+rng.Uint64N(3)) })
	})
	for i := range uint64(4) { // at the end of each second, and at the beginning of the next
		caller(3+i, func(rng *rand.Rand) {
			for {
				at := time.Now().Truncate(window).Add(window)
				for _, at := range []time.Time{at.Add(-2 * time.Millisecond), at.Add(2 * time.Millisecond)} {
					if !sleep(ctx, time.Until(at)) {
						return
					}
					for range 40 {
						l.call(rng, ends, "bursts", 100, 1)
					}
				}
			}
		})
	}
	caller(7, func(rng *rand.Rand) {
		on := func(now time.Time) float64 { return 300 * float64(now.Unix()/3%2) }
		pace(ctx, on, rng, func() { l.call(rng, onOff, "on-off", 100, 1) })
	})
	caller(8, func(rng *rand.Rand) {
		zipf := rand.NewZipf(rng, 1.2, 1, 9999)
		pace(ctx, func(time.Time) float64 { return 300 }, rng, func() {
			if n := zipf.Uint64(); n == 0 {
				l.call(rng, first, "zipf:0", 40, 1)
			} else {
				l.call(rng, nil, fmt.Sprint("zipf:", n), 40, 1)
			}
		})
	})
	for i := range uint64(2) {
		caller(9+i, func(rng *rand.Rand) {
			pace(ctx, func(time.Time) float64 { return l.churn / 2 }, nil, func() {
				l.call(rng, nil, fmt.Sprint("new:", l.fresh.Add(1)), 10, 1)
			})
		})
	}
}

// pace calls f so often per second, evenly, or by chance if there is a rng. Calls that come late are made up
// for; those of more than a second are not.
func pace(ctx context.Context, perSecond func(time.Time) float64, rng *rand.Rand, f func()) {
	next := time.Now()
	for {
		rate := perSecond(next)
		if rate <= 0 {
			next = next.Add(10 * time.Millisecond)
		} else {
			gap := 1 / rate
			if rng != nil {
				gap *= rng.ExpFloat64()
			}
			next = next.Add(time.Duration(math.Min(gap, 1) * float64(time.Second)))
		}
		if behind := time.Since(next); behind > time.Second {
			next = next.Add(behind)
		}
		// A timer for each call would cost more than most calls.
		if ahead := time.Until(next); ahead > 2*time.Millisecond {
			if !sleep(ctx, ahead) {
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		if rate > 0 {
			f()
		}
	}
}

// sleep reports whether the context is still there after d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
