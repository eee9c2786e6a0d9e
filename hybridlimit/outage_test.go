package hybridlimit_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
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

// multiOutage is three instances with two limits, from which Redis is taken away twice.
type multiOutage struct {
	*testing.T
	redis  *fakeredis.Server
	policy redislimit.FailurePolicy
	limits []trypema.Limit
	all    []*trypema.Bound

	mu        sync.Mutex
	admitted  [][]anywindow.Admission // by each instance
	fallbacks int
	refused   map[string]int
}

const (
	outageTimeout  = 100 * time.Millisecond
	outageInterval = 200 * time.Millisecond
	outageLength   = 6500 * time.Millisecond
)

var outageBegins = []time.Duration{5500 * time.Millisecond, 16 * time.Second}

// gone reports whether Redis is, and has been for so long that everybody must have noticed, and what was on
// lease near the limit has ended; back likewise.
func gone(since time.Duration) bool { return in(since, 10*outageTimeout, outageLength) }
func back(since time.Duration) bool {
	return !in(since, 0, outageLength+outageInterval+2*outageTimeout+time.Second)
}

func in(since, from, to time.Duration) bool {
	for _, begin := range outageBegins {
		if since >= begin+from && since < begin+to {
			return true
		}
	}
	return false
}

func (o *multiOutage) call(i int, rng *rand.Rand, began time.Time) {
	l := o.all[i]
	before, after := time.Now(), time.Now()
	var d trypema.Decision
	var err error
	cost := uint64(1)
	if reserves := rng.IntN(4) == 0; reserves {
		var r *trypema.Reservation
		cost = 2
		if r, err = l.Reserve(ctx, "k", 3, 0); err == nil {
			d, after = r.Decision, time.Now()
			if d.Allowed {
				if e := r.Commit(ctx, cost); e != nil {
					if !errors.Is(e, redislimit.ErrUnavailable) {
						o.Errorf("Commit: %v", e)
					}
					cost = 3 // nothing was given back
				}
			}
		}
	} else {
		d, err = l.Allow(ctx, "k")
		after = time.Now()
	}
	if took := after.Sub(before); err != nil || took > 2*outageTimeout {
		o.Errorf("%+v, %v, after %v", d, err, took)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if d.Allowed {
		o.admitted[i] = append(o.admitted[i], anywindow.Admission{From: before, To: after, Cost: cost})
	} else if !d.Fallback || o.policy == redislimit.FailLocal {
		o.refused[d.RefusedBy]++
	}
	if d.Fallback {
		o.fallbacks++
	}
	since := before.Sub(began)
	switch {
	case d.Fallback && since < outageBegins[0]:
		o.Errorf("a fallback after %v, before anything has happened: %+v", since, d)
	case d.Fallback && back(since) && o.policy != redislimit.FailLocal: // which has its say for a window
		o.Errorf("a fallback after %v, when Redis is back: %+v", since, d)
	case !d.Fallback && d.Allowed && gone(since): // what is known to be full is denied without Redis
		o.Errorf("no fallback after %v: %+v", since, d)
	case d.Fallback && o.policy != redislimit.FailLocal && d.Allowed != (o.policy == redislimit.FailOpen):
		o.Errorf("%+v by %v", d, o.policy)
	case d.Limit != 50 && d.Limit != 120, d.Remaining > d.Limit, !d.Allowed && d.RetryAfter <= 0:
		o.Errorf("%+v", d)
	}
}

// Redis goes and comes back under several limits: no call waits for longer than the timeout, the policy
// decides meanwhile and holds each of the limits as it says, and Redis is asked again by itself.
func TestMultiOutage(t *testing.T) {
	for provider, open := range map[string]func(t *testing.T, f *fakeredis.Server, o redislimit.Options) trypema.Binder{
		"redis": func(t *testing.T, f *fakeredis.Server, o redislimit.Options) trypema.Binder {
			p, err := redislimit.New(f, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			return p
		},
		"hybrid": func(t *testing.T, f *fakeredis.Server, o redislimit.Options) trypema.Binder {
			return open(t, f, hybridlimit.Options{Options: o})
		},
	} {
		for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
			for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen, redislimit.FailClosed} {
				for _, instances := range []int{1, 3} {
					if policy != redislimit.FailLocal && instances > 1 {
						continue
					}
					// Suppressed is as Absolute, and the other policies are as with the other provider.
					of := map[redislimit.FailurePolicy]string{redislimit.FailOpen: "redis", redislimit.FailClosed: "hybrid"}
					if !explore.Long() && (s == trypema.StrategySuppressed && (instances == 1 || provider == "redis") ||
						policy != redislimit.FailLocal && provider != of[policy]) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%v/%v/%d", provider, s, policy, instances), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							f := fakeredis.New()
							f.Delay = time.Millisecond
							o := &multiOutage{T: t, redis: f, policy: policy, refused: map[string]int{}, limits: []trypema.Limit{
								{Name: "burst", Rate: trypema.Per(50, 1250*time.Millisecond), Window: 1250 * time.Millisecond},
								{Name: "long", Rate: trypema.Per(120, 5*time.Second), Window: 5 * time.Second},
							}}
							for range 3 {
								m, err := open(t, f, redislimit.Options{
									Options: trypema.Options{HardLimitFactor: 1.2}, Timeout: outageTimeout, OnFailure: policy, Instances: instances, RetryInterval: outageInterval,
								}).Bind(s, o.limits...)
								if err != nil {
									t.Fatal(err)
								}
								o.all = append(o.all, m)
							}
							o.run(s, instances)
						})
					})
				}
			}
		}
	}
}

func (o *multiOutage) run(s trypema.Strategy, instances int) {
	o.admitted = make([][]anywindow.Admission, len(o.all))
	began := time.Now()
	var all sync.WaitGroup
	for i := range o.all {
		rng := rand.New(rand.NewPCG(uint64(i), 7))
		all.Go(func() {
			for time.Since(began) < outageBegins[1]+2*outageLength {
				time.Sleep(time.Duration(rng.ExpFloat64() * float64(70*time.Millisecond)))
				o.call(i, rng, began)
			}
		})
	}
	for _, at := range outageBegins {
		time.Sleep(at - time.Since(began))
		o.redis.TakeAway()
		time.Sleep(outageLength / 2)
		if _, err := o.all[0].Usage(ctx, "k"); !errors.Is(err, redislimit.ErrUnavailable) {
			o.Errorf("Usage without Redis: %v", err)
		}
		if err := o.all[0].Delete(ctx, "other"); !errors.Is(err, redislimit.ErrUnavailable) {
			o.Errorf("Delete without Redis: %v", err)
		}
		if d, err := o.all[0].Peek(ctx, "other", 1); err != nil || !d.Fallback ||
			d.Allowed != (o.policy != redislimit.FailClosed) {
			o.Errorf("Peek without Redis: %+v, %v", d, err)
		}
		time.Sleep(outageLength - outageLength/2)
		o.redis.Restore()
	}
	all.Wait()

	if o.fallbacks == 0 || o.refused["burst"]+o.refused["long"] == 0 {
		o.Errorf("%d fallbacks, refused by %v", o.fallbacks, o.refused)
	}
	var together, apart []anywindow.Admission // all, and those while Redis was gone
	for _, log := range o.admitted {
		together = append(together, log...)
		for _, a := range log {
			if gone(a.From.Sub(began)) {
				apart = append(apart, a)
			}
		}
	}
	for i, l := range o.limits {
		bound := []uint64{50, 120}[i]
		if s == trypema.StrategySuppressed {
			bound = bound * 12 / 10
		}
		most := anywindow.Most(together, l.Window)
		o.Logf("%s: at most %d of %d in a window, %d while Redis was gone", l.Name, most, bound,
			anywindow.Most(apart, l.Window))
		switch o.policy {
		case redislimit.FailClosed:
			if most > bound {
				o.Errorf("%s: %d of %d in a window", l.Name, most, bound)
			}
		case redislimit.FailLocal:
			for j, log := range o.admitted {
				if most := anywindow.Most(log, l.Window); most > bound {
					o.Errorf("%s: instance %d: %d of %d in a window", l.Name, j, most, bound)
				}
			}
			if most := anywindow.Most(apart, l.Window); instances > 1 && most > bound {
				o.Errorf("%s: %d of %d in a window without Redis", l.Name, most, bound)
			}
		}
	}
}

// Without Redis, instances that share the limit use it again after a window, also if they had large leases:
// what others had on lease counts until a window after it must have ended.
func TestShareAfterLargeLeases(t *testing.T) {
	for _, instances := range []int{2, 4} {
		synctest.Test(t, func(t *testing.T) {
			const capacity = 1000
			o := redislimit.Options{OnFailure: redislimit.FailLocal, Instances: instances}
			f := newFleet(t, instances, capacity, false, o)
			f.offer(.85, 0, 3*fleetWindow) // far from the limit
			f.redis.TakeAway()
			f.offer(1.5, 0, 3*fleetWindow)
			f.redis.Restore()
			use := f.use(4*fleetWindow, 6*fleetWindow)
			t.Logf("%d instances: use %.2f, %.2f and %.2f by window without Redis, %d in a window", instances,
				f.use(3*fleetWindow, 4*fleetWindow), f.use(4*fleetWindow, 5*fleetWindow), f.use(5*fleetWindow, 6*fleetWindow), f.fullest(-1))
			if use < .82 { // of four 0.87, with a standard deviation of 0.008
				t.Errorf("%d instances: use %.2f from a window after Redis has gone", instances, use)
			}
			if most := f.fullest(-1); most > capacity {
				t.Errorf("%d instances: %d in a window of at most %d", instances, most, capacity)
			}
		})
	}
}
