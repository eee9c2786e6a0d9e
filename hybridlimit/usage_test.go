package hybridlimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

// Usage counts what other instances keep in their own windows, within the longest life of a lease, and what
// this instance has admitted at once.
func TestUsageOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		o := hybridlimit.Options{Options: redislimit.Options{Options: trypema.Options{Window: time.Hour}}}
		one, other := open(t, f, o).Absolute(), open(t, f, o).Absolute()
		rate := trypema.PerHour(10_000)
		for range 200 { // they keep it for an hour
			for _, l := range []trypema.Limiter{one, other} {
				if d, err := l.Allow(ctx, "k", rate); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		name := redisproto.NewNames("trypema", "ha", time.Hour).Of("k")
		if live, leased := f.Live(name, time.Hour, 36*time.Second); live.Admitted > 100 || leased < 300 {
			t.Errorf("%+v settled, %d on lease: nothing is kept", live, leased)
		}
		if u, err := one.Usage(ctx, "k", rate); err != nil || u.Total < 340 || u.Total > 400 {
			t.Errorf("%+v, %v", u, err)
		}
		time.Sleep(time.Minute)
		for i, l := range []trypema.Limiter{one, other} {
			if u, err := l.Usage(ctx, "k", rate); err != nil || u.Total != 400 || u.Remaining != 9600 {
				t.Errorf("instance %d: %+v, %v", i, u, err)
			}
		}
	})
}

// What another instance keeps in a window of its own is in the usage, also if this one has no lease.
func TestUsageKnowsWhatOthersKeep(t *testing.T) {
	const calls = 50
	for _, suppressed := range []bool{false, true} {
		t.Run(name(suppressed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				o := hybridlimit.Options{}
				o.Window = time.Minute
				one, other := strategy(open(t, f, o), suppressed), strategy(open(t, f, o), suppressed)
				rate := trypema.Per(1000, time.Minute)
				for range calls { // its lease is renewed meanwhile
					if d, err := one.Allow(ctx, "k", rate); err != nil || !d.Allowed {
						t.Fatal(d, err)
					}
					time.Sleep(time.Second)
				}
				for i := range 2 {
					u, err := other.Usage(ctx, "k", rate)
					if err != nil || u.Total < calls/2 || u.Total > calls {
						t.Errorf("usage %d: %+v, %v", i, u, err)
					}
				}
			})
		})
	}
}

// Peek answers as AllowN would on this instance. Set does not see what others keep, and they go on with it.
func TestPeekAndSetBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		o := hybridlimit.Options{}
		o.Window = time.Minute
		one, other := open(t, f, o).Absolute(), open(t, f, o).Absolute()
		rate := trypema.Per(100, time.Minute)
		for n := uint64(1); n <= 100; n += 3 {
			key := fmt.Sprint(n)
			if d, err := other.AllowN(ctx, key, rate, 60); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
			p, err := one.Peek(ctx, key, rate, n)
			d, allowErr := one.AllowN(ctx, key, rate, n)
			if err != nil || allowErr != nil || p.Allowed != d.Allowed || d.Allowed && n > 40 {
				t.Errorf("%d beside 60 of 100: Peek %+v, %v; AllowN %+v, %v", n, p, err, d, allowErr)
			}
		}
		for range 50 { // its lease is renewed meanwhile
			if d, err := other.Allow(ctx, "set", rate); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
			time.Sleep(time.Second)
		}
		if s, err := one.Set(ctx, "set", trypema.Less(1), 10, trypema.Replace); err != nil || !s.Matched || s.Previous != 0 {
			t.Errorf("Set beside 50 that are kept: %+v, %v", s, err)
		}
		if u, err := one.Usage(ctx, "set", rate); err != nil || u.Total < 10+25 || u.Total > 10+50 {
			t.Errorf("after it: %+v, %v", u, err)
		}
		if d, err := other.Allow(ctx, "set", rate); err != nil || !d.Allowed {
			t.Errorf("the other, after it: %+v, %v", d, err)
		}
	})
}
