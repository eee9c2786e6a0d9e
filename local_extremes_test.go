package trypema_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
)

// The shortest and the longest windows, the largest counts, and rates from hardly any to no limit: nothing
// wraps.
func TestExtremes(t *testing.T) {
	const years = 365 * 24 * time.Hour
	for _, window := range []time.Duration{time.Millisecond, time.Second + 1, 30 * 24 * time.Hour, 90 * years,
		100 * years} {
		for _, bucket := range []time.Duration{time.Millisecond, max(time.Millisecond, window/3), window} {
			for _, capacity := range []uint64{1, 2, 1<<53 - 1, 1<<53 + 2, 1 << 62, math.MaxInt64} {
				for _, suppressed := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						extreme(t, trypema.Options{Window: window, Bucket: bucket, HardLimitFactor: 1},
							capacity, suppressed)
					})
				}
			}
		}
	}
}

func extreme(t *testing.T, o trypema.Options, capacity uint64, suppressed bool) {
	ctx := context.Background()
	local := newLocal(t, o)
	l := local.Absolute()
	if suppressed {
		l = local.Suppressed()
	}
	rate := trypema.Per(float64(capacity), o.Window)
	if capacity == math.MaxInt64 {
		rate = trypema.Unlimited
	}
	c, err := rate.Capacity(o.Window)
	if err != nil || math.Abs(float64(c)-float64(capacity)) > float64(capacity)*1e-15 {
		t.Fatalf("%v, %d: a capacity of %d, %v", o.Window, capacity, c, err)
	}
	check := func(n uint64, allowed bool, remaining uint64, wait time.Duration) {
		t.Helper()
		d, err := l.AllowN(ctx, "k", rate, n)
		if err != nil || d.Allowed != allowed || d.Limit != c || d.Remaining != remaining || d.RetryAfter != wait {
			t.Fatalf("%+v, capacity %d, suppressed %v: a cost of %d: %+v, %v; want allowed %v, "+
				"%d remaining, to wait for %v", o, c, suppressed, n, d, err, allowed, remaining, wait)
		}
	}
	check(1, true, c-1, 0)
	if c > 1 {
		check(c-1, true, 0, 0)
	}
	check(1, false, 0, o.Window)
	check(c, false, 0, o.Window)
	check(math.MaxUint64, false, 0, trypema.Never)
	if c < math.MaxUint64 {
		check(c+1, false, 0, trypema.Never)
	}
	u, err := l.Usage(ctx, "k", rate)
	if err != nil || u.Total-u.Declined != c || u.Total > max(c, math.MaxInt64) || u.Remaining != 0 {
		t.Fatalf("%+v, capacity %d: %+v, %v", o, c, u, err)
	}
	r, err := l.Set(ctx, "k", trypema.Less(math.MaxUint64), math.MaxInt64, trypema.KeepNewest)
	if err != nil || !r.Matched || r.Previous != u.Total {
		t.Fatalf("%+v, capacity %d: %+v, %v", o, c, r, err)
	}
	if u, err := l.Usage(ctx, "k", trypema.Unlimited); err != nil || u.Total != math.MaxInt64 {
		t.Fatalf("%+v, capacity %d: %+v, %v", o, c, u, err)
	}
	if o.Window > 24*time.Hour {
		return // cleanup looks once a minute, which takes its time even where time is virtual
	}
	time.Sleep(o.Window - 1)
	if d, err := l.Peek(ctx, "k", rate, 1); err != nil || d.Allowed || d.RetryAfter != 1 {
		t.Fatalf("%+v, capacity %d: %+v, %v", o, c, d, err)
	}
	time.Sleep(time.Nanosecond)
	check(c, true, 0, 0)
}

// A rate at which less than one event fits into the window, and one that is no number, says so.
func TestExtremeRates(t *testing.T) {
	for _, test := range []struct {
		rate   trypema.Rate
		window time.Duration
		want   uint64
	}{
		{1e-9, 100 * 365 * 24 * time.Hour, 3}, {1e-9, 30 * 24 * time.Hour, 0}, {1e-9, time.Millisecond, 0},
		{5e-324, 100 * 365 * 24 * time.Hour, 0},
		{1000, time.Millisecond, 1}, {999, time.Millisecond, 0}, {1e300, time.Millisecond, math.MaxInt64},
		{trypema.Unlimited, time.Millisecond, math.MaxInt64}, {trypema.Rate(math.Inf(1)), time.Second, 0},
		{trypema.Rate(math.NaN()), time.Second, 0}, {-1e-300, time.Second, 0},
		{9.2e18, time.Second, 9_200_000_000_000_000_000},
	} {
		c, err := test.rate.Capacity(test.window)
		if c != test.want || (err == nil) != (test.want > 0) ||
			err != nil && !errors.Is(err, trypema.ErrInvalidRate) {
			t.Errorf("%v in %v: %d, %v; want %d", test.rate, test.window, c, err, test.want)
		}
	}
}
