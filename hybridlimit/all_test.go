package hybridlimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

func bind(t *testing.T, p trypema.Provider, s trypema.Strategy, limits ...trypema.Limit) *trypema.Bound {
	t.Helper()
	b, err := p.Bind(s, limits...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// holds fails unless what is admitted in each window of a key is as much as is wanted.
func holds(t *testing.T, b *trypema.Bound, key string, want uint64) {
	t.Helper()
	all, err := b.Usage(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		if u.Total-u.Declined != want {
			t.Errorf("%s: %d admitted, want %d", key, u.Total-u.Declined, want)
		}
	}
}

// TestAllFromLeases: a call of All waits for all leases that it needs at once, and asks Redis nothing if it
// has them. What is refused leaves nothing behind.
func TestAllFromLeases(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			f.Delay = 20 * time.Millisecond
			p := open(t, f, hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailClosed}})
			// The key of the tenant is in the same table as that of the user.
			tenant := bind(t, p, s, trypema.AtMost(10_000, time.Minute), trypema.AtMost(100_000, time.Hour))
			user := bind(t, p, s, trypema.AtMost(1000, time.Minute).Named("user"))
			ask := func(n uint64) (d trypema.Decision, took time.Duration) {
				began := time.Now()
				d, err := trypema.All(ctx, tenant.Ask("acme", 2*n), user.Ask("ann", n))
				if err != nil {
					t.Fatal(err)
				}
				return d, time.Since(began)
			}
			if d, took := ask(1); !d.Allowed || d.Fallback || took != f.Delay || d.Limit != 1000 || d.Remaining != 999 {
				t.Errorf("cold: %+v after %v, of %v each", d, took, f.Delay)
			}
			synctest.Wait()
			runs := f.Runs
			if runs > 3 {
				t.Errorf("cold: %d exchanges for 3 windows", runs)
			}
			const n = 40
			for range n {
				if d, took := ask(1); !d.Allowed || d.Fallback || took != 0 {
					t.Fatalf("warm: %+v after %v", d, took)
				}
			}
			if f.Runs != runs {
				t.Errorf("warm: %d exchanges", f.Runs-runs)
			}
			d, _ := ask(5000)
			if d.Allowed || d.RefusedBy != "user" || d.RetryAfter != trypema.Never {
				t.Errorf("more than the user may ever: %+v", d)
			}
			holds(t, tenant, "acme", 2*(n+1))
			holds(t, user, "ann", n+1)
		})
	}
}

// TestAllIsAllOrNothing compares random calls by All with what each limit would have to say by an exact list.
// What a key is asked in one window adds up, and the least of the limits counts.
func TestAllIsAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, fakeredis.New(), hybridlimit.Options{})
		type of struct {
			*trypema.Bound
			window time.Duration
			limit  uint64
		}
		var bounds []of
		for _, b := range []of{
			{nil, time.Minute, 60}, {nil, time.Minute, 25}, {nil, time.Hour, 90}, {nil, 5 * time.Minute, 40},
		} {
			b.Bound = bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(b.limit, b.window))
			bounds = append(bounds, b)
		}
		type place struct {
			window time.Duration
			key    string
		}
		rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
		allowed, refused := 0, 0
		for round := range 20 {
			used := make(map[place]uint64)
			for step := range 60 {
				var asks []trypema.Ask
				costs, least := make(map[place]uint64), make(map[place]uint64)
				for range 1 + rng.IntN(6) {
					b, n := bounds[rng.IntN(len(bounds))], 1+rng.Uint64N(3)
					in := place{b.window, fmt.Sprint(round, "-", rng.IntN(3))}
					asks = append(asks, b.Ask(in.key, n))
					costs[in] += n
					if c, ok := least[in]; !ok || b.limit < c {
						least[in] = b.limit
					}
				}
				want := true
				for in, n := range costs {
					want = want && used[in]+n <= least[in]
				}
				d, err := trypema.All(ctx, asks...)
				if err != nil || d.Allowed != want || d.Fallback {
					t.Fatalf("round %d, step %d: %+v, %v, want %v", round, step, d, err, want)
				}
				if !want {
					refused++
					if d.RefusedBy == "" || d.RetryAfter <= 0 {
						t.Fatalf("round %d, step %d: %+v", round, step, d)
					}
					continue
				}
				allowed++
				for in, n := range costs {
					used[in] += n
				}
			}
			for _, b := range bounds {
				for i := range 3 {
					in := place{b.window, fmt.Sprint(round, "-", i)}
					holds(t, b.Bound, in.key, used[in])
				}
			}
		}
		if allowed < 200 || refused < 200 {
			t.Errorf("%d allowed and %d refused: that tells nothing", allowed, refused)
		}
	})
}

// TestAllTellsTheLongestWait: of several limits that refuse, the decision is that of the one which does so
// for the longest time.
func TestAllTellsTheLongestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, fakeredis.New(), hybridlimit.Options{})
		short := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(5, time.Minute).Named("short"))
		long := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(5, time.Hour).Named("long"))
		for i := range 2 {
			asks := []trypema.Ask{short.Ask("k", 5), long.Ask("j", 5)}
			d, err := trypema.All(ctx, asks[i], asks[1-i])
			if err != nil || d.Allowed != (i == 0) {
				t.Fatal(d, err)
			}
			if i == 1 && (d.RefusedBy != "long" || d.RetryAfter < 59*time.Minute) {
				t.Errorf("%+v", d)
			}
		}
	})
}

// TestAllOfTwoInstances: two instances with calls for tenants and users pass no limit in any window, with
// answers that get lost, and use the limit of the tenant.
func TestAllOfTwoInstances(t *testing.T) {
	const window, tenants, users, windows = 2 * time.Second, 60, 35, 12
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = 2 * time.Millisecond
		seed := explore.Seed(t)
		var mu sync.Mutex
		losses := rand.New(rand.NewPCG(seed, 99))
		f.Lose = func() bool {
			mu.Lock()
			defer mu.Unlock()
			return losses.IntN(100) == 0
		}
		log := make(map[string][]anywindow.Admission)
		var all sync.WaitGroup
		for i := range 2 {
			o := hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailClosed, Timeout: 100 * time.Millisecond}}
			p, err := hybridlimit.New(f, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() }) // its last answer may get lost
			tenant := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(tenants, window))
			user := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(users, window), trypema.AtMost(10*users, 10*window))
			for caller := range 4 {
				all.Go(func() {
					rng := rand.New(rand.NewPCG(seed, uint64(10*i+caller)))
					for end := time.Now().Add(windows * window); time.Now().Before(end); {
						time.Sleep(time.Duration(rng.ExpFloat64() * float64(window) / 30))
						n, key := 1+rng.Uint64N(2), fmt.Sprint("user", rng.IntN(3))
						from := time.Now()
						d, err := trypema.All(ctx, user.Ask(key, n), tenant.Ask("tenant", n))
						if err != nil {
							t.Error(err)
							return
						}
						if d.Allowed {
							a := anywindow.Admission{From: from, To: time.Now(), Cost: n}
							mu.Lock()
							log[key], log["tenant"] = append(log[key], a), append(log["tenant"], a)
							mu.Unlock()
						}
					}
				})
			}
		}
		all.Wait()
		total := uint64(0)
		for _, a := range log["tenant"] {
			total += a.Cost
		}
		t.Logf("%d of %d in all, %d in a window of %d", total, tenants*windows, anywindow.Most(log["tenant"], window), tenants)
		for key, of := range log {
			most := uint64(users)
			if key == "tenant" {
				most = tenants
			}
			if n := anywindow.Most(of, window); n > most {
				t.Errorf("%s: %d in a window of at most %d", key, n, most)
			}
		}
		if total < tenants*windows*8/10 {
			t.Errorf("%d of %d used", total, tenants*windows)
		}
	})
}

// TestAllWaitsInNoCircle: calls for the same keys in other orders all get an answer, while keys are settled,
// and no limit is passed.
func TestAllWaitsInNoCircle(t *testing.T) {
	o := redislimit.Options{OnFailure: redislimit.FailClosed, Timeout: time.Minute} // the machine may be slow
	p := open(t, fakeredis.New(), hybridlimit.Options{SyncInterval: time.Millisecond, Options: o})
	a := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(1e6, time.Hour))
	b := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(1e6, time.Minute), trypema.AtMost(1e7, time.Hour))
	c := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(1000, 2*time.Hour))
	var all sync.WaitGroup
	var admitted atomic.Int64
	for g := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 200 {
				asks := []trypema.Ask{c.Ask("k", 1)}
				for range 3 {
					asks = append(asks, a.Ask(fmt.Sprint(rng.IntN(99)), 1), b.Ask(fmt.Sprint(rng.IntN(99)), 1))
				}
				rng.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
				d, err := trypema.All(ctx, asks...)
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	all.Go(func() {
		for range 20 {
			if err := p.Flush(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	if n := admitted.Load(); n > 1000 || n < 900 {
		t.Errorf("%d are admitted of a limit of 1000", n)
	}
}

// TestAllWithFewKeys: the bound on the keys holds for those of All.
func TestAllWithFewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var meters trypema.Meters
		o := hybridlimit.Options{}
		o.Observer, o.MaxKeys = &meters, 4
		b := bind(t, open(t, fakeredis.New(), o), trypema.StrategyAbsolute, trypema.AtMost(10, time.Minute))
		for i := range 200 {
			time.Sleep(time.Millisecond)
			d, err := trypema.All(ctx, b.Ask(fmt.Sprint("a", i), 1), b.Ask(fmt.Sprint("b", i), 1), b.Ask("c", 1))
			if err != nil || d.Allowed != (i < 10) || d.Fallback {
				t.Fatal(i, d, err)
			}
			if n := meters.All()[0].Read().Keys; n > 4 {
				t.Fatalf("call %d: %d keys, with a bound of 4", i, n)
			}
		}
	})
}

// TestAllWithoutRedis: without Redis, the failure policy decides all limits of a call together.
func TestAllWithoutRedis(t *testing.T) {
	for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen, redislimit.FailClosed} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			f.TakeAway()
			p, err := hybridlimit.New(f, hybridlimit.Options{Options: redislimit.Options{OnFailure: policy}})
			if err != nil {
				t.Fatal(err)
			}
			tenant := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(100, time.Minute))
			user := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(10, time.Minute))
			admitted := 0
			for i := range 40 {
				d, err := trypema.All(ctx, tenant.Ask("acme", 1), user.Ask(fmt.Sprint("user", i%2), 1))
				if err != nil || !d.Fallback || d.Limit != 10 {
					t.Fatalf("%v: %+v, %v", policy, d, err)
				}
				if d.Allowed {
					admitted++
				}
			}
			want := map[redislimit.FailurePolicy]int{redislimit.FailLocal: 20, redislimit.FailOpen: 40}[policy]
			if admitted != want {
				t.Errorf("%v: %d are admitted, want %d", policy, admitted, want)
			}
			if d, err := trypema.All(ctx, tenant.Ask("acme", 1), user.Ask("other", 11)); err != nil ||
				policy != redislimit.FailOpen && (d.Allowed || d.RetryAfter != trypema.Never) {
				t.Errorf("%v: %+v, %v", policy, d, err)
			}
			f.Restore()
			time.Sleep(time.Minute)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAllOnSeveralServers: a server that does not answer leaves the limits of keys on others as they are.
func TestAllOnSeveralServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNodes()
		p, err := hybridlimit.New(n, hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailOpen}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }() // a server does not answer
		b := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(1000, time.Hour))
		runs, admitted := 0, uint64(0)
		for i := range 5 {
			d, err := trypema.All(ctx, b.Ask("a", 1), b.Ask("b", 1))
			if err != nil || !d.Allowed || d.Fallback {
				t.Fatal(d, err)
			}
			admitted++
			if all := n.exchanges('a') + n.exchanges('b'); i == 0 {
				runs = all
			} else if all != runs {
				t.Errorf("%d exchanges by call %d", all-runs, i)
			}
		}
		n.change(func() { n.silent['a'] = true })
		time.Sleep(10 * time.Minute) // the lease ends
		for range 20 {
			d, err := trypema.All(ctx, b.Ask("a", 100), b.Ask("b", 100))
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				admitted += 100
			}
		}
		if admitted != 905 {
			t.Errorf("%d are admitted of a limit of 1000", admitted)
		}
		holds(t, b, "b", admitted)
	})
}

// TestAllOfOtherProviders: with a limit of another provider or strategy, each call is reserved, and given
// back if another is refused.
func TestAllOfOtherProviders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, err := trypema.NewLocal(trypema.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		p := open(t, fakeredis.New(), hybridlimit.Options{})
		mine := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(10, time.Minute).Named("mine"))
		for i, pair := range [][2]*trypema.Bound{
			{mine, bind(t, local, trypema.StrategyAbsolute, trypema.AtMost(5, time.Minute).Named("other"))},
			{mine, bind(t, p, trypema.StrategySuppressed, trypema.AtMost(1, time.Minute).Named("other"))},
		} {
			one, two := fmt.Sprint("one", i), fmt.Sprint("two", i)
			if d, err := trypema.All(ctx, pair[0].Ask(one, 1), pair[1].Ask(two, 1)); err != nil || !d.Allowed {
				t.Fatalf("pair %d: %+v, %v", i, d, err)
			}
			d, err := trypema.All(ctx, pair[0].Ask(one, 1), pair[1].Ask(two, 10))
			if err != nil || d.Allowed || d.RefusedBy != pair[1].Limits()[0].Label() {
				t.Errorf("pair %d: %+v, %v", i, d, err)
			}
			holds(t, pair[0], one, 1)
			holds(t, pair[1], two, 1)
		}
	})
}

// TestAllErrors: what is wrong, and a context that ends, leave nothing behind. Each call is counted once.
func TestAllErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var meters trypema.Meters
		f := fakeredis.New()
		f.Delay = 50 * time.Millisecond
		o := hybridlimit.Options{}
		o.Observer = &meters
		p := open(t, f, o)
		b := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(10, time.Minute))
		group, err := b.InGroup("g")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trypema.All(ctx, b.Ask("k", 1), b.Ask("", 1)); !errors.Is(err, trypema.ErrInvalidKey) {
			t.Error(err)
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if _, err := trypema.All(short, b.Ask("k", 1), b.Ask("j", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		for range 3 { // the same key in a group is another one
			if d, err := trypema.All(ctx, b.Ask("k", 4), group.Ask("k", 1), b.Ask("j", 1)); err != nil {
				t.Error(d, err)
			}
		}
		holds(t, b, "k", 8)
		holds(t, group, "k", 2)
		holds(t, b, "j", 2)
		if s := meters.All()[0].Read(); s.Allowed != 6 || s.Rejected != 3 || s.Errors != 3 {
			t.Errorf("%+v", s.Counters)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if _, err := trypema.All(ctx, b.Ask("k", 1), b.Ask("j", 1)); !errors.Is(err, trypema.ErrClosed) {
			t.Error(err)
		}
	})
}
