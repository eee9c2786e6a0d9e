package onmodel

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/thirdparty/previous"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// Instances of the Redis provider with any buckets and hard limit factors, and of the version before this
// one, share keys on a real server: no call is an error, and every answer is that of the naive twin in all
// its fields, where the bucket is that of whoever calls. The version before settles some reservations
// otherwise, so there are none beside it.
func TestRedisMixed(t *testing.T) {
	clock, conn := rig.NewClock(rig.Adapters[0].Dial(t, []string{redisserver.Start(t).Addr()}))
	versions := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		s, prefix := drawStrategy(rt), rig.Unique("mixed")
		windows := []time.Duration{10 * time.Second, 100 * time.Second, 1000 * time.Second}
		window := rapid.SampledFrom(windows).Draw(rt, "window")
		subject := Subject{
			Strategy: s, Unit: time.Microsecond, Step: time.Microsecond,
			Capacities: []uint64{1, 5, 20, 20, 100, 1e6}, Costs: []uint64{1, 3, 7, 1e7},
			Advance: func(d time.Duration) { clock.Advance(d.Microseconds()) },
		}
		var bucketOfOld time.Duration // of all that are of the version before, which cannot have two on a key
		for range rapid.IntRange(2, 4).Draw(rt, "instances") {
			o := trypema.Options{Window: window}
			buckets := []time.Duration{time.Millisecond, window / 100, window / 7, window}
			o.Bucket = rapid.SampledFrom(buckets).Draw(rt, "bucket")
			o.HardLimitFactor = rapid.SampledFrom([]float64{1, 1.5, 1.1, 4}).Draw(rt, "hard limit factor")
			c, version := redislimit.Conn(conn), "this"
			if rapid.IntRange(0, 2).Draw(rt, "version") == 0 {
				c, version, subject.Unreserved = previous.Conn{Conn: conn}, "previous", true
				if bucketOfOld == 0 {
					bucketOfOld = o.Bucket
				}
				o.Bucket = bucketOfOld
			}
			versions[version]++
			p, err := redislimit.New(c, redislimit.Options{
				Options: o, Prefix: prefix, Timeout: 10 * time.Second, OnFailure: redislimit.FailClosed,
				OnChange: func(h redislimit.Health) { rt.Errorf("a change: %+v", h) },
			})
			if err != nil {
				rt.Fatal(err)
			}
			rt.Cleanup(func() { _ = p.Close() }) // it has nothing under way
			l := rig.Strategy(p, s == trypema.StrategySuppressed)
			subject.Peers = append(subject.Peers, Peer{l, p.Bind, o, version != "this"})
		}
		m := New(subject)
		m.use(0)
		m.Run(rt)
	})
	if versions["this"] == 0 || versions["previous"] == 0 {
		t.Errorf("instances: %v", versions)
	}
}

// Instances of the version before with two buckets write windows that they cannot read themselves. One of
// this version that shares them has no error, and all together admit no more than the hard capacity.
func TestRedisAfterBrokenWindows(t *testing.T) {
	clock, conn := rig.NewClock(rig.Adapters[0].Dial(t, []string{redisserver.Start(t).Addr()}))
	first := explore.Seed(t)
	broken := 0
	for seed := first; seed != first+uint64(explore.Runs(20, 1000)); seed++ {
		broken += amongBroken(t, clock, conn, seed)
	}
	if broken == 0 {
		t.Error("the version before read all windows")
	}
}

// amongBroken makes a run, and returns how many calls of the version before were errors.
func amongBroken(t *testing.T, clock *rig.Clock, conn redislimit.Conn, seed uint64) (broken int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	const window, capacity = 100 * time.Second, 60
	rate := trypema.Per(capacity, window)
	strategy, bound := trypema.StrategyAbsolute, uint64(capacity)
	if rng.IntN(2) == 0 {
		strategy, bound = trypema.StrategySuppressed, capacity*3/2
	}
	prefix := rig.Unique("broken")
	type instance struct {
		one     trypema.Limiter
		several *trypema.Bound
		old     bool
	}
	var all []instance
	for i, bucket := range []time.Duration{time.Millisecond, window, window / 100, window / 10} {
		c, old := redislimit.Conn(conn), i < 2 //nolint:unconvert // another type follows
		if old {
			c = previous.Conn{Conn: conn}
		}
		p := rig.Open(t, c, redislimit.Options{
			Options: trypema.Options{Window: window, Bucket: bucket}, Prefix: prefix,
			Timeout: 10 * time.Second, OnFailure: redislimit.FailClosed,
		})
		m := fixture.Bind(t, p, strategy, trypema.Limit{Rate: rate, Window: window})
		all = append(all, instance{rig.Strategy(p, strategy == trypema.StrategySuppressed), m, old})
	}
	var log []anywindow.Admission
	for step := range 400 {
		clock.Advance(rng.Int64N(2 * window.Microseconds() / capacity))
		by := all[rng.IntN(len(all))]
		if step < 150 && !by.old || step > 250 && by.old { // the others are not there yet, or have gone
			continue
		}
		n := 1 + rng.Uint64N(3)
		var d trypema.Decision
		var err error
		if rng.IntN(2) == 0 {
			d, err = by.one.AllowN(context.Background(), "k", rate, n)
		} else {
			d, err = by.several.AllowN(context.Background(), "k", n)
		}
		if err != nil && by.old {
			broken++
		} else if err != nil {
			t.Fatalf("seed %d, step %d: %v", seed, step, err)
		}
		if d.Allowed {
			at := time.UnixMicro(clock.Now())
			log = append(log, anywindow.Admission{From: at, To: at, Cost: n})
		}
	}
	if most := anywindow.Most(log, window); most > bound {
		t.Errorf("seed %d: %d admitted in a window, of at most %d", seed, most, bound)
	}
	return broken
}
