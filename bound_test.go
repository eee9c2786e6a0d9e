package trypema_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// TestAtMostIsExact: the capacity of AtMost is the number that it was given.
func TestAtMostIsExact(t *testing.T) {
	windows := []time.Duration{
		time.Millisecond, 7 * time.Millisecond, 100 * time.Millisecond, 333333333, time.Second, 3 * time.Second,
		time.Minute, 7 * time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour, 36500 * 24 * time.Hour,
	}
	for _, w := range windows {
		for _, n := range []uint64{1, 2, 3, 5, 7, 10, 49, 99, 100, 333, 1000, 65537, 1e6 + 3, 1e9 + 7,
			1e12 + 39, 1e15 - 1, 1e15} {
			if c, err := trypema.AtMost(n, w).Capacity(); c != n || err != nil {
				t.Errorf("AtMost(%d, %v) has a capacity of %d, %v", n, w, c, err)
			}
		}
		const large = math.MaxInt64
		if c, err := trypema.AtMost(large, w).Capacity(); err != nil || c < large-10_000 {
			t.Errorf("AtMost(%d, %v) has a capacity of %d, %v", uint64(large), w, c, err)
		}
	}
}

// TestLimitText: a limit and a rate survive being text.
func TestLimitText(t *testing.T) {
	for _, l := range []trypema.Limit{
		trypema.AtMost(100, time.Minute), trypema.AtMost(5, 15*time.Minute).Named("login"),
		trypema.AtMost(0, time.Hour),
		trypema.NoLimit, trypema.NoLimit.Named("all"), {Rate: trypema.Unlimited, Window: time.Hour},
		{Rate: trypema.PerSecond(.55), Window: 10 * time.Second}, trypema.AtMost(1e15, 36500*24*time.Hour),
		trypema.AtMost(3, 1500*time.Millisecond).Named("a=b"), trypema.AtMost(7, 36*time.Hour),
	} {
		text, err := json.Marshal(l)
		if err != nil {
			t.Error(l, err)
			continue
		}
		var read trypema.Limit
		if err := json.Unmarshal(text, &read); err != nil || read != l {
			t.Errorf("%v as %s is %v, %v", l, text, read, err)
		}
	}
	for _, s := range []string{
		"", "100", "100/", "/m", "-1/m", "1e3/m", "100/0s", "100/-1m", "100/year", "1/2/3", "x=", "0.5/m",
		"\xff=1/m", " =1/m", "100/1us",
		"unlimited", "unlimited/", "99999999999999999999/s", "NaN/s",
	} {
		l := trypema.AtMost(1, time.Second)
		if err := l.UnmarshalText([]byte(s)); !errors.Is(err, trypema.ErrInvalidOptions) &&
			!errors.Is(err, trypema.ErrInvalidRate) ||
			l != trypema.AtMost(1, time.Second) {
			t.Errorf("%q is %v, %v", s, l, err)
		}
	}
	for _, r := range []trypema.Rate{
		1, .5, 100, trypema.PerMinute(5), trypema.PerHour(1000), trypema.PerDay(3), trypema.PerDay(.001),
		math.Pi, 1e-9, 1e20, trypema.Unlimited,
	} {
		var read trypema.Rate
		if err := read.UnmarshalText([]byte(r.String())); err != nil || math.Abs(float64(read/r)-1) > 1e-12 {
			t.Errorf("%v is %v, %v", r, read, err)
		}
	}
	for _, s := range []string{"", "0/s", "-1/s", "NaN/s", "Inf/s", "1e400/s", "1/0s", "1"} {
		if r, err := trypema.ParseRate(s); !errors.Is(err, trypema.ErrInvalidRate) {
			t.Errorf("%q is %v, %v", s, r, err)
		}
	}
}

// TestLimitsThatDoNotCount: a limit of 0 denies, NoLimit passes, and neither stores anything.
func TestLimitsThatDoNotCount(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		blocked := bind(t, l, s, trypema.AtMost(10, time.Minute),
			trypema.AtMost(0, time.Hour).Named("banned"), trypema.NoLimit)
		d, err := blocked.Allow(t.Context(), "k")
		if err != nil || d.Allowed || d.RetryAfter != trypema.Never || d.RefusedBy != "banned" || d.Limit != 0 {
			t.Errorf("%v, blocked: %+v, %v", s, d, err)
		}
		free := bind(t, l, s, trypema.NoLimit, trypema.NoLimit)
		if d, err := free.AllowN(t.Context(), "k", 1e9); err != nil || !d.Allowed || d.Remaining != math.MaxInt64 {
			t.Errorf("%v, free: %+v, %v", s, d, err)
		}
		for _, b := range []*trypema.Bound{blocked, free} {
			if _, err := b.AllowN(t.Context(), "k", 0); !errors.Is(err, trypema.ErrInvalidCost) {
				t.Error(err)
			}
			if _, err := b.Peek(t.Context(), "k", 0); err != nil {
				t.Error(err)
			}
			r, err := b.Reserve(t.Context(), "k", 3, time.Second)
			if err != nil || r.Allowed != (b == free) {
				t.Error(r, err)
				continue
			}
			err = r.Commit(t.Context(), 1)
			if (err == nil) != r.Allowed || err != nil && !errors.Is(err, trypema.ErrDenied) {
				t.Error(err)
			}
			if u, err := b.Usage(t.Context(), "k"); err != nil || len(u) != len(b.Limits()) || u[0].Total != 0 {
				t.Error(u, err)
			}
			must.Report(t, b.Delete(t.Context(), "k"))
		}
	}
	if l.Len() != 0 {
		t.Errorf("%d keys are stored", l.Len())
	}
}

// TestUseFollowsSwap: a Bound of a policy is judged by what the policy is now, also while it waits.
func TestUseFollowsSwap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPolicies(t, perMinute("api", 2))
		api, err := p.Use("api")
		must.OK(t, err)
		if _, err := p.Use("none"); !errors.Is(err, trypema.ErrUnknownPolicy) {
			t.Error(err)
		}
		for range 2 {
			if d, err := api.Allow(t.Context(), "k"); err != nil || !d.Allowed {
				t.Error(d, err)
			}
		}
		if d, err := api.Allow(t.Context(), "k"); err != nil || d.Allowed || d.RefusedBy != "minute" {
			t.Error(d, err)
		}
		must.OK(t, p.Swap(perMinute("api", 3)))
		if c, err := api.Limits()[0].Capacity(); c != 3 || err != nil {
			t.Error(c, err)
		}
		began := time.Now()
		for i := range 2 { // the one that the higher limit has room for, and the first of the next window
			if d, err := api.Wait(t.Context(), "k"); err != nil || !d.Allowed {
				t.Error(i, d, err)
			}
		}
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("waited for %v", took)
		}
		must.OK(t, p.Swap(perMinute("other", 3)))
		if _, err := api.Wait(t.Context(), "k"); !errors.Is(err, trypema.ErrUnknownPolicy) {
			t.Error(err)
		}
		if l := api.Limits(); len(l) != 0 {
			t.Error(l)
		}
	})
}

// TestShadowPolicy: what the limits deny passes, is marked, and is counted as denied.
func TestShadowPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shadow := perMinute("api", 2)
		shadow.Shadow = true
		p := newPolicies(t, shadow)
		meters := new(trypema.Meters)
		p.Observe(meters)
		for i := range 5 {
			d, err := p.Allow(t.Context(), "api", "k")
			if err != nil || !d.Allowed || d.Outcome != trypema.OutcomeAllowed || d.Shadowed != (i >= 2) ||
				d.RetryAfter != 0 {
				t.Errorf("call %d: %+v, %v", i, d, err)
			}
		}
		r, err := p.Reserve(t.Context(), "api", "k", 1, 0)
		if err != nil || !r.Allowed || !r.Shadowed {
			t.Fatal(r, err)
		}
		must.Report(t, r.Commit(t.Context(), 1))
		began := time.Now()
		if d, err := p.Wait(t.Context(), "api", "k"); err != nil || !d.Shadowed || time.Since(began) > 0 {
			t.Error(d, err)
		}
		if u, err := p.Usage(t.Context(), "api", "k"); err != nil || u[0].Total != 2 {
			t.Error(u, err)
		}
		for _, m := range meters.All() {
			if s := m.Read(); s.Allowed != 2 || s.Rejected != 5 {
				t.Errorf("counted %+v", s)
			}
		}
	})
}

// TestBoundIsNil: a Keeper that is nil is refused.
func TestBoundIsNil(t *testing.T) {
	_, err := trypema.NewBound(trypema.StrategyAbsolute, []trypema.Limit{trypema.AtMost(1, time.Second)},
		func([]trypema.Limit) (trypema.Keeper, error) { return nil, nil })
	if !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
	if _, err := trypema.All(context.Background(), trypema.Ask{}); !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
	if _, err := trypema.All(context.Background()); !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
}

// TestInGroup: keys of a group count apart, together with those of a policy of that group, with a keeper that
// knows groups and with one that does not.
func TestInGroup(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	plain := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(10, time.Minute))
	foreign, err := trypema.NewBound(trypema.StrategyAbsolute, plain.Limits(),
		func([]trypema.Limit) (trypema.Keeper, error) { return struct{ trypema.Keeper }{plain.Keeper()}, nil })
	must.OK(t, err)
	p := fixture.Policies(t, l, trypema.Policy{Name: "a", Group: "g", Limits: plain.Limits()})
	if _, err := p.Allow(t.Context(), "a", "k"); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*trypema.Bound{"of Local": plain, "foreign": foreign} {
		in, err := b.InGroup("g")
		must.OK(t, err)
		before, err := in.Usage(t.Context(), "k")
		if err != nil || (before[0].Total == 1) != (b == plain) {
			t.Errorf("%s: %+v, %v", name, before, err)
		}
		if d, err := in.AllowN(t.Context(), "k", 3); err != nil || !d.Allowed {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if d, err := b.Peek(t.Context(), "k", 1); err != nil || d.Remaining != 10 {
			t.Errorf("%s: %+v, %v: the plain key was charged", name, d, err)
		}
		r, err := in.Reserve(t.Context(), "k", 2, time.Second)
		must.OK(t, err)
		must.Report(t, r.Commit(t.Context(), 1))
		if after, err := in.Usage(t.Context(), "k"); err != nil || after[0].Total != before[0].Total+4 {
			t.Errorf("%s: %+v, %v", name, after, err)
		}
		must.Report(t, in.Delete(t.Context(), "k"))
		for _, bad := range []string{"", "a:b", "\xff", " x", string(make([]byte, 65))} {
			if _, err := b.InGroup(bad); !errors.Is(err, trypema.ErrInvalidOptions) {
				t.Errorf("%s: group %q: %v", name, bad, err)
			}
		}
	}
	live, err := p.Use("a")
	must.OK(t, err)
	if _, err := live.InGroup("g"); !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
}

// TestAfterABurst: a caller that always wants more gets room back as it was used. With one limit, that is all
// at once; a second limit with a short window spreads it, so that less than a burst comes at a time.
func TestAfterABurst(t *testing.T) {
	burst, spread := trypema.AtMost(20, 2*time.Second), trypema.AtMost(2, 100*time.Millisecond)
	for _, test := range []struct {
		limits []trypema.Limit
		want   []int // admitted in each 500 ms
	}{
		{[]trypema.Limit{burst}, []int{20, 0, 0, 0, 20, 0, 0, 0}},
		{[]trypema.Limit{burst, spread}, []int{10, 10, 0, 0, 10, 10, 0, 0}},
		{[]trypema.Limit{trypema.AtMost(1, 100*time.Millisecond)}, []int{5, 5, 5, 5, 5, 5, 5, 5}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := bind(t, newLocal(t, trypema.Options{Bucket: time.Millisecond}), trypema.StrategyAbsolute,
				test.limits...)
			var got []int
			for range test.want {
				n := 0
				for range 50 {
					for {
						d, err := b.Allow(t.Context(), "k")
						must.OK(t, err)
						if !d.Allowed {
							break
						}
						n++
					}
					time.Sleep(10 * time.Millisecond)
				}
				got = append(got, n)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v: %v admitted in each half second, want %v", test.limits, got, test.want)
			}
		})
	}
}
