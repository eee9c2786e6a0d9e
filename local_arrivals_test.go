package trypema_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/arrivals"
	"github.com/trypema/trypema/internal/proof/explore"
)

// Whatever pattern calls come in, no window holds more than the capacity, under Suppressed not more than the
// hard capacity, however lucky the callers are. A search over patterns looks for one that does. It does find
// windows that are full: so it had found one that is too full.
func TestNoArrivalsPassTheLimit(t *testing.T) {
	const window = 100 * time.Millisecond
	for _, suppressed := range []bool{false, true} {
		for _, space := range []arrivals.Space{
			{Window: window, Bucket: 10 * time.Millisecond, Capacity: 8, Calls: 24},
			{Window: window, Bucket: 40 * time.Millisecond, Capacity: 60, Calls: 24}, // with hot keys
			{Window: window, Bucket: window, Capacity: 5, Calls: 12},
		} {
			name := fmt.Sprintf("suppressed %v, C=%d, B=%v", suppressed, space.Capacity, space.Bucket)
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					local := newLocal(t, trypema.Options{Window: window, Bucket: space.Bucket, HardLimitFactor: 1.5})
					local.SetDice(func() float64 { return 1 - 0x1p-53 })
					limiter, bound := local.Absolute(), space.Capacity
					if suppressed {
						limiter, bound = local.Suppressed(), space.Capacity*3/2
					}
					tried := 0
					attack(t, space, arrivals.Tries(100), bound, func(s arrivals.Schedule) uint64 {
						tried++
						key := fmt.Sprint(tried) // among the keys of other schedules
						return anywindow.Most(s.Run(false, func(c arrivals.Call) (bool, time.Duration) {
							return answer(limiter.AllowN(t.Context(), key,
								trypema.Per(float64(space.Capacity), window), c.Cost))
						}), window)
					})
				})
			})
		}
	}
}

// With several limits none is passed, and each can be reached.
func TestNoArrivalsPassOneOfSeveralLimits(t *testing.T) {
	short := arrivals.Space{Window: 100 * time.Millisecond, Bucket: 10 * time.Millisecond, Capacity: 5, Calls: 24}
	long := arrivals.Space{Window: 300 * time.Millisecond, Bucket: 30 * time.Millisecond, Capacity: 8, Calls: 24}
	limits := []trypema.Limit{
		{Rate: trypema.Per(float64(short.Capacity), short.Window), Window: short.Window},
		{Rate: trypema.Per(float64(long.Capacity), long.Window), Window: long.Window},
	}
	for i, space := range []arrivals.Space{short, long} {
		for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
			t.Run(fmt.Sprintf("%v, %v", s, limits[i].Label()), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					local := newLocal(t,
						trypema.Options{Window: time.Second, Bucket: 100 * time.Millisecond, HardLimitFactor: 1})
					multi, err := local.Bind(s, limits...)
					if err != nil {
						t.Fatal(err)
					}
					tried := 0
					attack(t, space, arrivals.Tries(60), space.Capacity, func(s arrivals.Schedule) uint64 {
						tried++
						key := fmt.Sprint(tried)
						return anywindow.Most(s.Run(false, func(c arrivals.Call) (bool, time.Duration) {
							return answer(multi.AllowN(t.Context(), key, c.Cost))
						}), space.Window)
					})
				})
			})
		}
	}
}

// All schedules of a few calls at the edges of window and bucket: of three, or of four where tests explore.
func TestNoShortScheduleAtEdgesPassesTheLimit(t *testing.T) {
	const window, bucket, capacity = 100 * time.Millisecond, 10 * time.Millisecond, 2
	gaps := []time.Duration{0, bucket - 1, bucket, window - bucket, window - bucket + 1}
	calls := 3
	if explore.Long() {
		calls = 4
	}
	synctest.Test(t, func(t *testing.T) {
		limiter := newLocal(t, trypema.Options{Window: window, Bucket: bucket}).Absolute()
		tried := 0
		for s := range arrivals.All(calls, gaps, []uint64{1, 2}) {
			tried++
			key := fmt.Sprint(tried)
			if most := anywindow.Most(s.Run(false, func(c arrivals.Call) (bool, time.Duration) {
				return answer(limiter.AllowN(t.Context(), key, trypema.Per(capacity, window), c.Cost))
			}), window); most > capacity {
				t.Fatalf("%d admitted in a window of at most %d: %v", most, capacity, s)
			}
		}
		t.Logf("%d schedules", tried)
	})
}

// attack searches for a schedule that passes a bound, and wants one that reaches it.
func attack(t *testing.T, space arrivals.Space, tries int, bound uint64, trial func(arrivals.Schedule) uint64) {
	t.Helper()
	seed := explore.Seed(t)
	best, most := space.Search(seed, tries, trial)
	t.Logf("at most %d of %d in a window, %d schedules", most, bound, tries)
	if most != bound {
		t.Errorf("at most %d in a window, want %d: %v", most, bound, best)
	}
}

func answer(d trypema.Decision, err error) (bool, time.Duration) {
	if err != nil {
		panic(err)
	}
	return d.Allowed, d.RetryAfter
}
