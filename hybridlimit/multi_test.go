package hybridlimit_test

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

func TestMulti(t *testing.T) {
	for _, delay := range []time.Duration{0, 2 * time.Millisecond} {
		for _, suppressed := range []bool{false, true} {
			if !explore.Long() && suppressed != (delay > 0) {
				continue
			}
			t.Run(name(suppressed)+", "+delay.String()+" away", func(t *testing.T) {
				servers := map[trypema.Provider]*fakeredis.Server{}
				on := func(t *testing.T, f *fakeredis.Server, o trypema.Options) trypema.Provider {
					p := open(t, f,
						hybridlimit.Options{Options: redislimit.Options{Options: o, OnFailure: redislimit.FailClosed}})
					servers[p] = f
					return p
				}
				subject := limittest.Subject{
					Suppressed: suppressed,
					Join: func(t *testing.T, p trypema.Provider) trypema.Provider {
						return on(t, servers[p], trypema.Options{})
					},
					In:         synctest.Test,
					Resolution: time.Microsecond,
					Jitter:     delay,
					// two intervals and a bucket of the longest window, and a few trips
					Lag: 2*100*time.Millisecond + 300*time.Millisecond + 12*time.Millisecond,
					Use: .97,
				}
				limittest.RunBind(t, subject, func(t *testing.T, o trypema.Options) trypema.Provider {
					f := fakeredis.New()
					f.Delay = delay
					return on(t, f, o)
				})
			})
		}
	}
}

// Several instances with two limits, under three times what the tighter allows, some of it reserved and given
// back: what calls have cost in the end is within both limits in any window, and not far below the one that
// is tighter in the long run.
func TestMultiFleet(t *testing.T) {
	minutes := 2
	if explore.Long() {
		minutes = 4
	}
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = time.Millisecond
		limits := []trypema.Limit{
			{Name: "burst", Rate: trypema.Per(100, 10*time.Second), Window: 10 * time.Second},
			{Name: "minute", Rate: trypema.PerMinute(300), Window: time.Minute},
		}
		type admission struct {
			at   time.Time
			cost uint64
		}
		var mu sync.Mutex
		var log []*admission
		refused := map[string]int{}
		var all sync.WaitGroup
		for i := range 4 {
			p := open(t, f, hybridlimit.Options{})
			m, err := p.Bind(trypema.StrategyAbsolute, limits...)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			all.Go(func() {
				for end := time.Now().Add(time.Duration(minutes) * time.Minute); time.Now().Before(end); {
					time.Sleep(time.Duration(rng.ExpFloat64() * float64(4*time.Second) / 15))
					r, err := m.Reserve(ctx, "k", 2, 0)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					refused[r.RefusedBy]++
					mu.Unlock()
					if !r.Allowed {
						continue
					}
					a := &admission{time.Now(), 2}
					mu.Lock()
					log = append(log, a)
					mu.Unlock()
					after, cost := time.Duration(rng.Int64N(int64(2*time.Second))), rng.Uint64N(3)
					all.Go(func() {
						time.Sleep(after)
						if err := r.Commit(ctx, cost); err != nil {
							t.Error(err)
						}
						mu.Lock()
						a.cost = cost
						mu.Unlock()
					})
				}
			})
		}
		all.Wait()
		slices.SortFunc(log, func(a, b *admission) int { return a.at.Compare(b.at) })
		most := func(w time.Duration) (most uint64) {
			for i, first := range log {
				var sum uint64
				for _, a := range log[i:] {
					if a.at.Sub(first.at) >= w {
						break
					}
					sum += a.cost
				}
				most = max(most, sum)
			}
			return most
		}
		var total uint64
		for _, a := range log {
			total += a.cost
		}
		short, long := most(10*time.Second), most(time.Minute)
		t.Logf("at most %d of 100 in 10s, and %d of 300 in a minute; %d of %d in all; refused by %v", short,
			long, total, 300*minutes, refused)
		if short > 100 || long > 300 {
			t.Errorf("at most %d of 100 in 10s, and %d of 300 in a minute", short, long)
		}
		if total < uint64(250*minutes) {
			t.Errorf("%d of %d used in all", total, 300*minutes)
		}
		if refused["burst"] == 0 || refused["minute"] == 0 {
			t.Errorf("refused by %v, want both", refused)
		}
	})
}

// What several limits decide is counted by the meter of their strategy, by all providers.
func TestMultiObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var meters trypema.Meters
		o := trypema.Options{Observer: &meters}
		local, err := trypema.NewLocal(o)
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		redis, err := redislimit.New(fakeredis.New(), redislimit.Options{Options: o})
		if err != nil {
			t.Fatal(err)
		}
		defer redis.Close() //nolint:errcheck // it has nothing under way
		hybrid := open(t, fakeredis.New(), hybridlimit.Options{Options: redislimit.Options{Options: o}})
		for _, p := range []trypema.Binder{local, redis, hybrid} {
			m, err := p.Bind(trypema.StrategyAbsolute,
				trypema.Limit{Rate: trypema.PerSecond(10), Window: time.Second},
				trypema.Limit{Rate: trypema.PerMinute(3), Window: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if _, err := m.Allow(ctx, "k"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := m.Reserve(ctx, "k", 1, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := m.AllowN(ctx, "k", 0); err == nil {
				t.Fatal("a cost of 0 was taken")
			}
			if _, err := m.Peek(ctx, "k", 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range meters.All() {
			s := m.Read()
			if m.Strategy == "suppressed" {
				if s.Allowed+s.Suppressed+s.Errors > 0 {
					t.Errorf("%s suppressed: %+v", m.Provider, s)
				}
				continue
			}
			keys := map[string]int{"local": 2, "hybrid": 2}[m.Provider]
			if s.Allowed != 3 || s.Rejected != 3 || s.Errors != 1 || s.Fallbacks != 0 || s.Keys != keys ||
				(s.Waited == 0) == (m.Provider == "hybrid") {
				t.Errorf("%s: %+v", m.Provider, s)
			}
		}
	})
}

// A provider does not keep windows of lengths that no limiter has any more, once all is settled. It does as
// long as there is a limiter.
func TestWindowsGo(t *testing.T) {
	f := fakeredis.New()
	o := second
	o.SyncInterval = time.Millisecond
	p := open(t, f, o)
	limiter := func(w time.Duration) *trypema.Bound {
		m, err := p.Bind(trypema.StrategyAbsolute, trypema.Limit{Rate: trypema.Per(1000, w), Window: w})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	allow := func(m *trypema.Bound) {
		if d, err := m.Allow(ctx, "k"); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
	}
	policies := func() *trypema.Policies { // whose limiters are made from others
		w := 7 * time.Minute
		of, err := trypema.NewPolicies(p,
			trypema.Policy{Name: "p", Limits: []trypema.Limit{{Rate: trypema.Per(1000, w), Window: w}}})
		if err != nil {
			t.Fatal(err)
		}
		return of
	}
	of := policies()
	used := limiter(time.Minute)
	allow(used)
	const lengths = 50
	for i := range lengths {
		allow(limiter(20*time.Millisecond + time.Duration(i)))
	}
	left := hybridlimit.Windows(p)
	if left < lengths/2 {
		t.Fatalf("%d lengths of windows, of %d", left, lengths)
	}
	for i := 0; left >= 11 && i < 500; i++ {
		time.Sleep(200 * time.Millisecond)
		runtime.GC()
		limiter(2*time.Minute + time.Duration(i)) // which looks for what can go
		left = hybridlimit.Windows(p)
	}
	if left < 3 || left >= 11 { // those that are used, and the newest
		t.Errorf("%d lengths of windows are left", left)
	}
	if d, err := of.Allow(ctx, "p", "k"); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	if n := hybridlimit.Windows(p); n != left {
		t.Errorf("%d lengths of windows, want %d: that of a policy was not there", n, left)
	}
	policies()
	if n := hybridlimit.Windows(p); n != left {
		t.Errorf("%d lengths of windows, want %d: that of a policy was not there", n, left)
	}
	runtime.KeepAlive(of)
	allow(used)
	if u, err := limiter(time.Minute).Usage(ctx, "k"); err != nil || u[0].Total != 2 {
		t.Errorf("%+v, %v, want 2 in use", u, err)
	}
	runtime.KeepAlive(used)
}
