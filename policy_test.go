package trypema_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// perMinute is a policy of one limit.
func perMinute(name string, n float64) trypema.Policy {
	return trypema.Policy{Name: name,
		Limits: []trypema.Limit{{Name: "minute", Rate: trypema.PerMinute(n), Window: time.Minute}}}
}

func newPolicies(t testing.TB, list ...trypema.Policy) *trypema.Policies {
	t.Helper()
	p := fixture.Policies(t, newLocal(t, trypema.Options{}), list...)
	return p
}

// What is wrong is said, and changes nothing.
func TestWrongPolicies(t *testing.T) {
	policy := func(change func(*trypema.Policy)) []trypema.Policy {
		p := perMinute("api", 10)
		change(&p)
		return []trypema.Policy{perMinute("other", 1), p}
	}
	limit := func(change func(*trypema.Limit)) []trypema.Policy {
		return policy(func(p *trypema.Policy) { change(&p.Limits[0]) })
	}
	for _, wrong := range []struct {
		list []trypema.Policy
		kind error
		want string
	}{
		{nil, trypema.ErrInvalidOptions, `trypema: there are no policies; there must be at least 1`},
		{policy(func(p *trypema.Policy) { p.Name = "" }), trypema.ErrInvalidOptions,
			`trypema: the name of a policy is empty; it must have from 1 to 64 bytes`},
		{policy(func(p *trypema.Policy) { p.Name = strings.Repeat("n", 65) }), trypema.ErrInvalidOptions,
			`trypema: policy "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn": the name has 65 bytes; it must have from 1 to 64`},
		{policy(func(p *trypema.Policy) { p.Name = "a:b" }), trypema.ErrInvalidOptions,
			`trypema: policy "a:b": the name is "a:b"; it must have no colon`},
		{policy(func(p *trypema.Policy) { p.Group = strings.Repeat("n", 65) }), trypema.ErrInvalidOptions,
			`trypema: policy "api": the group has 65 bytes; it must have from 1 to 64`},
		{policy(func(p *trypema.Policy) { p.Group = "a:b" }), trypema.ErrInvalidOptions,
			`trypema: policy "api": the group is "a:b"; it must have no colon`},
		{policy(func(p *trypema.Policy) { p.Name = "other" }), trypema.ErrInvalidOptions,
			`trypema: two policies have the name "other"; each must have its own`},
		{policy(func(p *trypema.Policy) { p.Strategy = 2 }), trypema.ErrInvalidOptions,
			`trypema: policy "api": strategy is Strategy(2); it must be StrategyAbsolute or StrategySuppressed`},
		{policy(func(p *trypema.Policy) { p.Limits = nil }), trypema.ErrInvalidOptions,
			`trypema: policy "api": 0 limits; there must be from 1 to 8`},
		{policy(func(p *trypema.Policy) { p.Cost = 11 }), trypema.ErrInvalidOptions,
			`trypema: policy "api": cost is 11; it must be at most 10, which is all that limit "minute" can hold`},
		{limit(func(l *trypema.Limit) { l.Rate = 0 }), trypema.ErrInvalidRate,
			`trypema: policy "api": limit "minute": rate is 0/s; it must be above 0`},
		{limit(func(l *trypema.Limit) { l.Rate = trypema.Rate(math.NaN()) }), trypema.ErrInvalidRate,
			`trypema: policy "api": limit "minute": rate is NaN; it must be a number of events per second above 0`},
		{limit(func(l *trypema.Limit) { l.Window = -1 }), trypema.ErrInvalidOptions,
			`trypema: policy "api": limit "minute": Window is -1ns; it must be from 1ms to 876000h0m0s`},
	} {
		p := newPolicies(t, perMinute("api", 3))
		if d, err := p.Allow(t.Context(), "api", "k"); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		err := p.Swap(wrong.list...)
		if err == nil || err.Error() != wrong.want || !errors.Is(err, wrong.kind) {
			t.Errorf("%v, want\n%s", err, wrong.want)
		}
		if _, again := trypema.NewPolicies(newLocal(t, trypema.Options{}), wrong.list...); again == nil ||
			again.Error() != wrong.want {
			t.Errorf("NewPolicies: %v, want\n%s", again, wrong.want)
		}
		if d, err := p.Allow(t.Context(), "api", "k"); err != nil || !d.Allowed || d.Limit != 3 ||
			d.Remaining != 1 || !slices.Equal(p.Names(), []string{"api"}) {
			t.Errorf("after %q: %+v, %v, %q", wrong.want, d, err, p.Names())
		}
	}
}

// A set that the provider refuses is none.
func TestPoliciesOfAProviderThatRefuses(t *testing.T) {
	refused := errors.New("refused")
	provider := &refusing{newLocal(t, trypema.Options{}), nil}
	p := fixture.Policies(t, provider, perMinute("api", 3))
	provider.err = refused
	if err := p.Swap(perMinute("other", 3)); !errors.Is(err, refused) {
		t.Error(err)
	}
	if _, ok := p.Get("api"); !ok {
		t.Error("the policy is gone")
	}
	if _, err := trypema.NewPolicies(provider, perMinute("api", 3)); !errors.Is(err, refused) {
		t.Error(err)
	}
	if _, err := trypema.NewPolicies(nil, perMinute("api", 3)); !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
}

type refusing struct {
	trypema.Binder
	err error
}

func (r *refusing) Bind(s trypema.Strategy, limits ...trypema.Limit) (*trypema.Bound, error) {
	if r.err != nil {
		return nil, r.err
	}
	return r.Binder.Bind(s, limits...)
}

// A policy that is not there admits nothing, by any verb.
func TestUnknownPolicy(t *testing.T) {
	p := newPolicies(t, perMinute("api", 10))
	for name, call := range map[string]func(policy string) (trypema.Decision, error){
		"Allow":  func(policy string) (trypema.Decision, error) { return p.Allow(t.Context(), policy, "k") },
		"AllowN": func(policy string) (trypema.Decision, error) { return p.AllowN(t.Context(), policy, "k", 1) },
		"Peek":   func(policy string) (trypema.Decision, error) { return p.Peek(t.Context(), policy, "k", 1) },
		"Reserve": func(policy string) (trypema.Decision, error) {
			r, err := p.Reserve(t.Context(), policy, "k", 1, 0)
			if r == nil {
				return trypema.Decision{}, err
			}
			return r.Decision, err
		},
		"All": func(policy string) (trypema.Decision, error) {
			return trypema.All(t.Context(), p.Ask("api", "k", 1), p.Ask(policy, "other", 1))
		},
		"Usage": func(policy string) (trypema.Decision, error) {
			used, err := p.Usage(t.Context(), policy, "k")
			return trypema.Decision{Allowed: used != nil}, err
		},
		"Delete": func(policy string) (trypema.Decision, error) {
			err := p.Delete(t.Context(), policy, "k")
			return trypema.Decision{Allowed: err == nil}, err
		},
	} {
		for _, policy := range []string{"", "API", "api:", "web"} {
			d, err := call(policy)
			if !errors.Is(err, trypema.ErrUnknownPolicy) || d.Allowed {
				t.Errorf("%s by %q: %+v, %v", name, policy, d, err)
			}
		}
		if d, err := call("api"); err != nil || !d.Allowed {
			t.Errorf("%s by one that is there: %+v, %v", name, d, err)
		}
	}
}

// Policies do not share counts, whatever the keys are; nor with the other limiters of the provider.
func TestPoliciesCountApart(t *testing.T) {
	provider := newLocal(t, trypema.Options{Window: time.Minute})
	p := fixture.Policies(t, provider, perMinute("a", 10), perMinute("aa", 10))
	for i, call := range []struct{ policy, key string }{{"a", "k"}, {"aa", "k"}, {"a", "a:k"}, {"aa", ""},
		{"a", ""}, {"a", "aa:k"}} {
		if d, err := p.Allow(t.Context(), call.policy, call.key); err != nil || d.Remaining != 9 {
			t.Errorf("%d: %+v, %v", i, d, err)
		}
	}
	for _, key := range []string{"k", "a", ""} {
		if u, err := provider.Absolute().Usage(t.Context(), key, 1); err != nil || u.Total != 0 {
			t.Errorf("%q of the provider: %+v, %v", key, u, err)
		}
	}
}

// A customer who goes from one plan to another goes on with what has been used, if the plans are of one
// group.
func TestPoliciesOfAGroup(t *testing.T) {
	free, pro, other := perMinute("free", 10), perMinute("pro", 100), perMinute("other", 100)
	free.Group, pro.Group = "plans", "plans"
	suppressed := perMinute("suppressed", 100)
	suppressed.Group, suppressed.Strategy = "plans", trypema.StrategySuppressed
	p := newPolicies(t, free, pro, other, suppressed)
	for _, call := range []struct {
		policy    string
		n         uint64
		allowed   bool
		remaining uint64
	}{{"free", 10, true, 0}, {"pro", 50, true, 40}, {"free", 1, false, 0}, {"pro", 40, true, 0},
		{"other", 1, true, 99}, {"suppressed", 1, true, 99}} {
		if d, err := p.AllowN(t.Context(), call.policy, "k", call.n); err != nil ||
			d.Allowed != call.allowed || d.Remaining != call.remaining {
			t.Errorf("%+v: %+v, %v", call, d, err)
		}
	}
	if got, _ := p.Get("other"); got.Group != "other" {
		t.Errorf("%+v", got)
	}
}

func TestCostOfAPolicy(t *testing.T) {
	policy := perMinute("report", 20)
	policy.Cost = 5
	p := newPolicies(t, policy)
	remaining := func(d trypema.Decision, err error) uint64 {
		t.Helper()
		if err != nil || !d.Allowed {
			t.Fatalf("%+v, %v", d, err)
		}
		return d.Remaining
	}
	if n := remaining(p.Allow(t.Context(), "report", "k")); n != 15 {
		t.Errorf("Allow left %d", n)
	}
	if n := remaining(p.AllowN(t.Context(), "report", "k", 12)); n != 3 {
		t.Errorf("AllowN left %d", n)
	}
	if d, err := p.Peek(t.Context(), "report", "k", 0); err != nil || d.Allowed {
		t.Errorf("Peek of 0 found room for a call that costs 5: %+v, %v", d, err)
	}
	if n := remaining(p.Peek(t.Context(), "report", "k", 3)); n != 3 {
		t.Errorf("Peek left %d", n)
	}
	if _, err := p.AllowN(t.Context(), "report", "k", 0); !errors.Is(err, trypema.ErrInvalidCost) {
		t.Errorf("AllowN of 0: %v", err)
	}
	if _, err := p.Reserve(t.Context(), "report", "k", 0, 0); !errors.Is(err, trypema.ErrInvalidCost) {
		t.Errorf("Reserve of 0: %v", err)
	}
}

// What Swap keeps, and what begins anew.
func TestSwapKeepsUsage(t *testing.T) {
	limits := func(of ...trypema.Limit) trypema.Policy { return trypema.Policy{Name: "api", Limits: of} }
	second := func(n float64) trypema.Limit { return trypema.Limit{Rate: trypema.PerSecond(n), Window: time.Second} }
	minute := func(n float64) trypema.Limit { return trypema.Limit{Rate: trypema.PerMinute(n), Window: time.Minute} }
	suppressed := limits(minute(100))
	suppressed.Strategy = trypema.StrategySuppressed
	for _, to := range []struct {
		name string
		set  []trypema.Policy
		want []uint64 // in use
		fits bool     // one more call
	}{
		{"a higher rate", []trypema.Policy{limits(minute(100))}, []uint64{10}, true},
		{"a lower rate", []trypema.Policy{limits(minute(5))}, []uint64{10}, false},
		{"a limit more, and another order", []trypema.Policy{limits(second(5), minute(11))}, []uint64{0, 10}, true},
		{"another window", []trypema.Policy{limits(second(5))}, []uint64{0}, true},
		{"another strategy", []trypema.Policy{suppressed}, []uint64{0}, true},
		{"another place", []trypema.Policy{perMinute("web", 1), limits(minute(5))}, []uint64{10}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPolicies(t, limits(minute(10)))
			if d, err := p.AllowN(t.Context(), "api", "k", 10); err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
			must.OK(t, p.Swap(to.set...))
			used, err := p.Usage(t.Context(), "api", "k")
			must.OK(t, err)
			var totals []uint64
			for _, u := range used {
				totals = append(totals, u.Total)
			}
			d, err := p.Peek(t.Context(), "api", "k", 0)
			if err != nil || !slices.Equal(totals, to.want) || d.Allowed != to.fits {
				t.Errorf("%s: in use %d, want %d; %+v, %v", to.name, totals, to.want, d, err)
			}
		})
	}
}

// A policy that was away goes on with what it had, as far as that is still in its window.
func TestSwapAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPolicies(t, perMinute("api", 10))
		call := func(n uint64) bool {
			t.Helper()
			d, err := p.AllowN(t.Context(), "api", "k", n)
			must.OK(t, err)
			return d.Allowed
		}
		swap := func(name string) {
			t.Helper()
			must.OK(t, p.Swap(perMinute(name, 10)))
		}
		if !call(10) {
			t.Error("no room at first")
		}
		swap("web")
		time.Sleep(30 * time.Second)
		swap("api")
		if call(1) {
			t.Error("room, although all was used half a minute ago")
		}
		time.Sleep(31 * time.Second)
		if !call(10) {
			t.Error("no room after the window")
		}
	})
}

// A reservation is settled where it was made.
func TestReservationAcrossSwap(t *testing.T) {
	p := newPolicies(t, perMinute("api", 100))
	r, err := p.Reserve(t.Context(), "api", "k", 50, time.Minute)
	if err != nil || !r.Allowed {
		t.Fatal(r, err)
	}
	must.OK(t, p.Swap(perMinute("api", 200)))
	must.OK(t, r.Commit(t.Context(), 7))
	if used, err := p.Usage(t.Context(), "api", "k"); err != nil || used[0].Total != 7 {
		t.Errorf("%+v, %v", used, err)
	}
}

// What a caller does with a policy that was given, or got, is no matter of the set.
func TestPoliciesAreCopied(t *testing.T) {
	mine := perMinute("api", 10)
	p := newPolicies(t, mine)
	mine.Limits[0].Rate = trypema.Unlimited
	got, ok := p.Get("api")
	if !ok || got.Limits[0].Rate != trypema.PerMinute(10) || got.Cost != 1 {
		t.Errorf("%+v", got)
	}
	got.Limits[0].Rate = trypema.Unlimited
	p.Names()[0] = "web"
	if again, _ := p.Get("api"); again.Limits[0].Rate != trypema.PerMinute(10) || p.Names()[0] != "api" {
		t.Errorf("%+v, %q", again, p.Names())
	}
}

// Many callers, while the rate goes up and down: all that is admitted is counted, and is not more than the
// higher rate allows.
func TestSwapUnderLoad(t *testing.T) {
	const low, high = 400, 1000
	p := newPolicies(t, perMinute("web", 1), perMinute("api", low))
	var done atomic.Bool
	var admitted atomic.Uint64
	call := func() {
		d, err := p.Allow(context.Background(), "api", "k")
		if err != nil || d.Limit != low && d.Limit != high {
			t.Errorf("%+v, %v", d, err)
		}
		if d.Allowed {
			admitted.Add(1)
		}
	}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for !done.Load() {
				call()
			}
		})
	}
	for i := range 2000 {
		must.Report(t, p.Swap(perMinute("web", 1), perMinute("api", []float64{high, low}[i%2])))
		if err := p.Swap(); err == nil {
			t.Error("an empty set is in use")
		}
		if names := p.Names(); !slices.Equal(names, []string{"web", "api"}) {
			t.Errorf("%q", names)
		}
	}
	done.Store(true)
	callers.Wait()
	must.Report(t, p.Swap(perMinute("api", high)))
	for range high {
		call()
	}
	used, err := p.Usage(t.Context(), "api", "k")
	if err != nil || admitted.Load() != high || used[0].Total != high {
		t.Errorf("admitted %d, in use %+v, %v; want %d", admitted.Load(), used, err, high)
	}
}

// The same in virtual time, for many windows: in none of them, wherever it begins, is more than the higher
// rate allows.
func TestSwapInAnyWindow(t *testing.T) {
	seed := explore.Seed(t)
	synctest.Test(t, func(t *testing.T) {
		const low, high = 20, 50
		p := newPolicies(t, perMinute("api", high))
		var mu sync.Mutex
		var admitted []time.Time
		var all sync.WaitGroup
		for caller := range uint64(8) {
			rng := rand.New(rand.NewPCG(seed, caller))
			all.Go(func() {
				for range 3000 {
					time.Sleep(time.Duration(rng.ExpFloat64() * float64(time.Second)))
					if caller == 0 {
						must.Report(t, p.Swap(perMinute("api", []float64{low, high}[rng.IntN(2)])))
						continue
					}
					mu.Lock()
					d, err := p.Allow(context.Background(), "api", "k")
					must.Report(t, err)
					if d.Allowed {
						admitted = append(admitted, time.Now())
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(admitted) < 50*low {
			t.Errorf("only %d calls admitted", len(admitted))
		}
		for i := high; i < len(admitted); i++ {
			if span := admitted[i].Sub(admitted[i-high]); span < time.Minute {
				t.Errorf("%d admitted within %v", high+1, span)
			}
		}
	})
}

func TestPoliciesAllocateTheKeyOnly(t *testing.T) {
	p := newPolicies(t, perMinute("api", 1e6), perMinute("web", 1))
	ctx := context.Background()
	key := strings.Repeat("k", 40)
	n := testing.AllocsPerRun(2000, func() {
		p.Allow(ctx, "api", key) //nolint:errcheck // it cannot fail
	})
	if n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// Beside a policy is the MultiLimiter that it asks, with a key that is there already.
func BenchmarkPolicies(b *testing.B) {
	ctx := context.Background()
	const key = "user:0123456789"
	for _, at := range []struct {
		name string
		rate float64
	}{{"over", 100}, {"under", 1e12}} {
		b.Run(at.name+"/multi", func(b *testing.B) {
			m, err := newLocal(b, trypema.Options{}).Bind(trypema.StrategyAbsolute, threeLimits(at.rate)...)
			must.OK(b, err)
			b.ReportAllocs()
			for b.Loop() {
				m.Allow(ctx, "api:"+key) //nolint:errcheck // it can not fail
			}
		})
		b.Run(at.name+"/policy", func(b *testing.B) {
			p := newPolicies(b, trypema.Policy{Name: "api", Limits: threeLimits(at.rate)})
			b.ReportAllocs()
			for b.Loop() {
				p.Allow(ctx, "api", key) //nolint:errcheck // it can not fail
			}
		})
	}
}

// A policy is counted by its name, over Swaps, on top of what its provider counts.
func TestPoliciesObserved(t *testing.T) {
	ctx := context.Background()
	var meters trypema.Meters
	limits := newLocal(t, trypema.Options{Observer: &meters, Name: "all"})
	hourly := func(name string, n float64) trypema.Policy {
		return trypema.Policy{Name: name, Limits: []trypema.Limit{{Rate: trypema.PerHour(n), Window: time.Hour}}}
	}
	plans := fixture.Policies(t, limits, hourly("free", 2), hourly("pro", 3))
	plans.Observe(&meters)
	call := func(policy string, n int) {
		for range n {
			if _, err := plans.Allow(ctx, policy, "k"); err != nil {
				t.Fatal(err)
			}
		}
	}
	call("free", 3)
	call("pro", 3)
	must.OK(t, plans.Swap(hourly("free", 4), hourly("new", 1)))
	call("free", 3)
	if r, err := plans.Reserve(ctx, "new", "k", 1, 0); err != nil || !r.Allowed {
		t.Fatal(r, err)
	}
	if _, err := plans.AllowN(ctx, "new", "k", 0); err == nil {
		t.Fatal("a cost of 0 was taken")
	}
	got := map[string]trypema.Counters{}
	for _, m := range meters.All() {
		if m.Strategy == "absolute" {
			got[m.Provider+" "+m.Policy] = m.Read().Counters
		}
	}
	for name, want := range map[string]trypema.Counters{
		"policies free": {Allowed: 4, Rejected: 2},
		"policies pro":  {Allowed: 3},
		"policies new":  {Allowed: 1, Errors: 1},
	} {
		if got[name] != want {
			t.Errorf("%s: %+v, want %+v", name, got[name], want)
		}
	}
	if all := got["local all"]; all.Allowed != 8 || all.Rejected != 2 || all.Errors != 1 {
		t.Errorf("the provider: %+v", all)
	}
	for _, m := range meters.All() {
		if m.Provider != "policies" || m.Policy != "free" {
			continue
		}
		for key, n := range m.TopLimited(5) {
			if key != "k" || n != 2 {
				t.Errorf("limited: %q %d times", key, n)
			}
		}
	}
}
