package trypema_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/model"
)

// FuzzRate: a capacity is the whole part of rate × window, computed exactly, or the number that it is just
// below by rounding; it never wraps, and what is no rate is an error.
func FuzzRate(f *testing.F) {
	for _, n := range []float64{1, 0.1, 5.5, 1000, 2.999999999999, 1e15, 9007199254740993, 9.3e18, 1e300,
		5e-324, 0, -1, math.Inf(1), math.NaN(), math.MaxFloat64} {
		for _, d := range []time.Duration{time.Millisecond, time.Second, 7 * time.Second, time.Hour,
			876000 * time.Hour, 0, -1} {
			f.Add(n, int64(d), int64(10*time.Second))
		}
	}
	f.Fuzz(func(t *testing.T, n float64, per, w int64) {
		rates := []trypema.Rate{
			trypema.Per(n, time.Duration(per)), trypema.Rate(n), trypema.PerMinute(n), trypema.PerHour(n),
			trypema.PerDay(n),
		}
		for i, r := range rates {
			if i == 0 && per <= 0 && !math.IsNaN(float64(r)) {
				t.Fatalf("%v per %d is the rate %v", n, per, r)
			}
			checkCapacity(t, r, time.Duration(w))
		}
	})
}

func checkCapacity(t *testing.T, r trypema.Rate, w time.Duration) {
	t.Helper()
	got, err := r.Capacity(w)
	if (got == 0) != (err != nil) || err != nil && !errors.Is(err, trypema.ErrInvalidRate) || got > math.MaxInt64 {
		t.Fatalf("%v in %v: %d, %v", float64(r), w, got, err)
	}
	if !(r > 0) || math.IsInf(float64(r), 0) || w <= 0 {
		if err == nil {
			t.Fatalf("%v in %v: a capacity of %d", float64(r), w, got)
		}
		return
	}
	exact := new(big.Rat).SetFloat64(float64(r))
	exact.Mul(exact, big.NewRat(int64(w), int64(time.Second)))
	whole := func(x *big.Rat) uint64 {
		n := new(big.Int).Quo(x.Num(), x.Denom())
		if !n.IsInt64() {
			return math.MaxInt64
		}
		return n.Uint64()
	}
	// The rule is one part in 10¹⁵; the product itself is rounded, too, and so are the seconds of the window.
	scaled := func(parts int64) *big.Rat {
		return new(big.Rat).Mul(exact, big.NewRat(1e16+parts, 1e16))
	}
	least, most := whole(exact), whole(scaled(14))
	if least > 1e14 {
		least = whole(scaled(-5)) // where a float64 has no room for a fraction
	}
	if got < least || got > most {
		t.Fatalf("%v in %v: a capacity of %d, want %d to %d, of %s", float64(r), w, got, least, most,
			exact.FloatString(3))
	}
}

// FuzzKeys: what one key has used is nothing to another, whatever bytes they are and however long.
func FuzzKeys(f *testing.F) {
	long := strings.Repeat("k", 5000)
	for _, pair := range [][2]string{{"", "\x00"}, {"k", "k"}, {"a:b", "a"}, {"\xff\xfe", "\xff"},
		{long, long[1:]}, {long[:24], long[:25]}, {"{k}", "k"}} {
		f.Add(pair[0], pair[1], uint8(3), uint8(5))
	}
	f.Fuzz(func(t *testing.T, one, two string, first, second uint8) {
		ctx := context.Background()
		l := newLocal(t, trypema.Options{HardLimitFactor: 1})
		for name, limiter := range each(l) {
			used := map[string]uint64{}
			use := func(key string, n uint64) {
				d, err := limiter.AllowN(ctx, key, 1000, n)
				if err != nil || !d.Allowed {
					t.Fatalf("%s: %q: %+v, %v", name, key, d, err)
				}
				used[key] += n
			}
			use(one, uint64(first)+1)
			use(two, uint64(second)+1)
			use(one, 1)
			for key, n := range used {
				if u, err := limiter.Usage(ctx, key, 1000); err != nil || u.Total != n {
					t.Fatalf("%s: %q: %+v, %v, want a total of %d", name, key, u, err, n)
				}
			}
			if err := limiter.Delete(ctx, one); err != nil {
				t.Fatal(err)
			}
			delete(used, one)
			if u, err := limiter.Usage(ctx, two, 1000); err != nil || u.Total != used[two] {
				t.Fatalf("%s: %q after another was deleted: %+v, %v, want a total of %d", name, two, u, err,
					used[two])
			}
		}
	})
}

// policies makes some of bytes, most of them nearly right.
func policies(in *model.Tape) (list []trypema.Policy) {
	word := func() string {
		n := int(in.Next())
		if n > 70 {
			return model.Pick(in, "", "free", "paid", "api")
		}
		return in.Text(n)
	}
	for range in.Next() % 4 {
		p := trypema.Policy{Name: word(), Strategy: trypema.Strategy(in.Next() % 4 % 3), Cost: uint64(in.Next() % 8)}
		if in.Next() < 128 {
			p.Group = word()
		}
		if in.Next() < 16 {
			p.Cost = math.MaxUint64
		}
		for range in.Next() % 10 {
			p.Limits = append(p.Limits, trypema.Limit{
				Name: model.Pick(in, "", "", "", "burst", word()),
				Rate: model.Pick(in, trypema.Rate(in.Next()), 100, 0.01, trypema.Unlimited,
					trypema.Rate(math.NaN()), -1, trypema.Rate(math.Inf(1))),
				Window: model.Pick(in, time.Duration(in.Next())*time.Second, time.Minute, time.Hour,
					time.Millisecond, 1, math.MaxInt64, -time.Second),
			})
		}
		list = append(list, p)
	}
	return list
}

// FuzzPolicies: policies are taken or refused whole, by an error that says which is wrong; those that are
// taken admit their first call, and those that are refused change nothing of what was there.
func FuzzPolicies(f *testing.F) {
	f.Add([]byte("\x01\xff\x01\x00\x00\xff\xff\x02\x00\x00\x01\x00\x01\x00\x00\x02\x01"))
	for seed := range uint64(8) {
		f.Add(model.Noise(seed, 100))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			in := model.Tape{Data: data}
			right := trypema.Policy{Name: "right", Limits: []trypema.Limit{{Rate: 10, Window: time.Second}}}
			p := fixture.Policies(t, newLocal(t, trypema.Options{}), right)
			list := policies(&in)
			if err := p.Swap(list...); err != nil {
				checkRefusal(t, list, err)
				list = []trypema.Policy{right}
			}
			var names []string
			for _, want := range list {
				names = append(names, want.Name)
				got, ok := p.Get(want.Name)
				if !ok || got.Strategy != want.Strategy || got.Cost != max(want.Cost, 1) ||
					!slices.Equal(got.Limits, want.Limits) {
					t.Fatalf("%+v, %v, want %+v", got, ok, want)
				}
				key := fmt.Sprint("of ", want.Name) // those of one group share their keys
				if d, err := p.Allow(t.Context(), want.Name, key); err != nil ||
					!d.Allowed && d.Outcome != trypema.OutcomeSuppressed ||
					d.Allowed && d.RetryAfter != 0 {
					t.Fatalf("the first call by %+v: %+v, %v", want, d, err)
				}
				all, err := p.Usage(t.Context(), want.Name, key)
				if err != nil || len(all) != len(want.Limits) ||
					slices.ContainsFunc(all, func(u trypema.Usage) bool { return u.Total != got.Cost }) {
					t.Fatalf("the usage by %+v: %+v, %v", want, all, err)
				}
			}
			if !slices.Equal(p.Names(), names) {
				t.Fatalf("names are %q, want %q", p.Names(), names)
			}
			if _, err := p.Allow(t.Context(), "none:", "k"); !errors.Is(err, trypema.ErrUnknownPolicy) {
				t.Fatal(err)
			}
		})
	})
}

func checkRefusal(t *testing.T, list []trypema.Policy, err error) {
	t.Helper()
	if !errors.Is(err, trypema.ErrInvalidOptions) && !errors.Is(err, trypema.ErrInvalidRate) {
		t.Fatalf("%v, of %+v", err, list)
	}
	text := err.Error()
	named := len(list) == 0 && strings.Contains(text, "there are no policies")
	for _, p := range list {
		named = named || p.Name == "" && strings.Contains(text, "the name of a policy is empty") ||
			strings.Contains(text, fmt.Sprintf("%.32q", p.Name)) ||
			strings.Contains(text, fmt.Sprintf("%q", p.Name))
	}
	if !strings.HasPrefix(text, "trypema: ") || !named ||
		!strings.Contains(text, "must") && !strings.Contains(text, "raise the rate") {
		t.Fatalf("%q, of %+v", text, list)
	}
}
