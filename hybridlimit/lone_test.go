package hybridlimit_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/redislimit"
)

func loneOptions(window time.Duration) hybridlimit.Options {
	o := redislimit.Options{Options: trypema.Options{Window: window}, OnFailure: redislimit.FailClosed}
	return hybridlimit.Options{Options: o, SyncInterval: 10 * time.Millisecond}
}

// A lone caller is admitted as long as the window has room, whatever its pace and its costs: what its
// instance has given back is there for it.
func TestLoneCallerGetsAll(t *testing.T) {
	const window, capacity = time.Minute, 100
	// These have found something.
	seeds := []uint64{2421641295143893501, 8770928376319792088, 15051820313132381433}
	first := explore.Seed(t)
	for i := range uint64(explore.Runs(100, 30_000)) {
		seeds = append(seeds, first+i)
	}
	for _, seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			f := fakeredis.New()
			f.Delay = time.Duration(rng.Int64N(int64(8 * time.Millisecond)))
			p := open(t, f, loneOptions(window))
			rate := trypema.Per(capacity, window)
			near, far := trypema.Limit{Rate: rate, Window: window}, trypema.Limit{Rate: trypema.Unlimited, Window: 2 * window}
			m, err := p.Bind(trypema.StrategyAbsolute, near, far)
			if err != nil {
				t.Fatal(err)
			}
			several, most := rng.IntN(2) == 0, []uint64{1, 1, 3, 20}[rng.IntN(4)]
			// It pauses now and then, or after calls that have waited, as it does on a machine that is busy.
			often, late := []int{1, 8, 1000}[rng.IntN(3)], time.Millisecond*[]time.Duration{1, 30}[rng.IntN(2)]
			waited := false
			for used := uint64(0); ; {
				if waited || rng.IntN(often) == 0 {
					time.Sleep(time.Duration(rng.Int64N(int64(late))))
				}
				began := time.Now()
				n := 1 + rng.Uint64N(most)
				if used += n; used > capacity {
					return
				}
				var d trypema.Decision
				if several {
					d, err = m.AllowN(ctx, "k", n)
				} else {
					d, err = p.Absolute().AllowN(ctx, "k", rate, n)
				}
				waited = time.Since(began) > 0
				if err != nil || !d.Allowed || d.Remaining != capacity-used {
					t.Fatalf("seed %d, a cost of %d, %d before: %+v, %v", seed, n, used-n, d, err)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// What a call of several limits was granted by one of them is there when it comes for it, however late: while
// it waits for another, or for a processor, nothing goes back.
func TestLateCallerFindsItsLease(t *testing.T) {
	const window, capacity = time.Minute, 100
	for _, cost := range []uint64{1, 20} {
		for _, late := range []time.Duration{1, 15, 120, 1000} {
			late *= time.Millisecond
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = time.Millisecond
				p := open(t, f, loneOptions(window))
				for range 40 { // until the limit is near
					d, err := p.Absolute().Allow(ctx, "k", trypema.Per(capacity, window))
					if err != nil || !d.Allowed {
						t.Fatal(d, err)
					}
					time.Sleep(25 * time.Millisecond)
				}
				for range 5 {
					if !hybridlimit.ComeLate(p, "k", capacity, cost, late) {
						t.Errorf("a call of %d that comes %v late finds no lease", cost, late)
					}
				}
			})
		}
	}
}

// A lone caller is admitted when it was told to come again, although its instance gives its lease
// back meanwhile: Redis has the room later, as it may keep events together.
func TestLoneCallerComesAgain(t *testing.T) {
	const window, capacity = 10 * time.Second, 40
	// These have found something.
	seeds := []uint64{9611885522719813901, 8416227851642466425, 5433681334401570525}
	first := explore.Seed(t)
	for i := range uint64(explore.Runs(10, 1000)) {
		seeds = append(seeds, first+i)
	}
	for _, suppressed := range []bool{false, true} {
		for _, seed := range seeds {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 0))
				o := loneOptions(window)
				o.SyncInterval, o.HardLimitFactor = 50*time.Millisecond, 1
				l := strategy(open(t, fakeredis.New(), o), suppressed)
				for round := range 30 {
					n, d := uint64(0), trypema.Decision{Allowed: true}
					for d.Allowed || rng.IntN(4) > 0 {
						n = 1 + rng.Uint64N(4)
						if rng.IntN(8) == 0 {
							n = 1 + rng.Uint64N(capacity)
						}
						var err error
						if d, err = l.AllowN(ctx, "k", 4, n); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Duration(rng.Int64N(int64(window / 100))))
					}
					n = 1 + rng.Uint64N(capacity)
					d, err := l.Peek(ctx, "k", 4, n)
					must.OK(t, err)
					time.Sleep(d.RetryAfter)
					if got, err := l.AllowN(ctx, "k", 4, n); err != nil || !got.Allowed {
						t.Fatalf("seed %d, round %d: %d denied when told: %+v, then %+v, %v", seed, round, n, d, got, err)
					}
				}
			})
		}
	}
}
