package redislimit_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// What was decided is counted, by each policy while Redis is away, and so is each outage. The Local of
// FailLocal is not observed.
func TestObserver(t *testing.T) {
	for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen,
		redislimit.FailClosed} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = 3 * time.Millisecond
				meters := new(trypema.Meters)
				o := redislimit.Options{OnFailure: policy}
				o.Observer, o.Name = meters, "api"
				p := open(t, f, o)
				if n := len(meters.All()); n != 2 {
					t.Fatalf("%d meters, want one for each strategy", n)
				}
				for i, l := range []trypema.Limiter{p.Absolute(), p.Suppressed()} {
					var mu sync.Mutex
					var want trypema.Counters
					calls := func() {
						var wg sync.WaitGroup
						for c := range 8 {
							wg.Go(func() {
								for j := range 50 {
									// 0 is an error
									d, err := l.AllowN(t.Context(), fmt.Sprint("k", j%3), 20, uint64((c+j)%10))
									l.Peek(t.Context(), "k0", 20, 1)
									mu.Lock()
									switch {
									case err != nil:
										want.Errors++
									case d.Allowed:
										want.Allowed++
									case d.Outcome == trypema.OutcomeRejected:
										want.Rejected++
									default:
										want.Suppressed++
									}
									if d.Fallback {
										want.Fallbacks++
									}
									mu.Unlock()
								}
							})
						}
						wg.Wait()
					}
					calls()
					meter := meters.All()[i]
					if s := meter.Read(); s.RedisErr != nil || s.Latency[22] < 100 { // 2 to 4 ms
						t.Errorf("%v, %v", s.RedisErr, s.Latency)
					}
					before := meter.Read().Outages
					f.TakeAway()
					calls()
					if s := meter.Read(); s.RedisErr == nil || s.Outages != before+1 {
						t.Errorf("while Redis is gone: %d outages, %v", s.Outages, s.RedisErr)
					}
					f.Restore()
					for meter.Read().RedisErr != nil {
						l.Peek(t.Context(), "k0", 20, 1)
						time.Sleep(100 * time.Millisecond)
					}
					calls()
					s := meter.Read()
					n := uint64(0)
					for _, b := range s.Latency {
						n += b
					}
					if n != s.Allowed+s.Rejected+s.Suppressed {
						t.Errorf("%d measured, want all", n)
					}
					got := s.Counters
					got.Latency, got.LatencySum, got.Outages = want.Latency, 0, 0
					if got != want || want.Fallbacks == 0 || want.Errors == 0 {
						t.Errorf("%s: %+v, want %+v", meter.Strategy, got, want)
					}
					if meter.Provider != "redis" || meter.Policy != "api" {
						t.Errorf("%s %s", meter.Provider, meter.Policy)
					}
				}
				f.TakeAway()
				for range 5 {
					p.Absolute().Allow(t.Context(), "k", 1)
				}
				f.Restore()
				allowed := meters.All()[0].Read().Allowed
				p.Close()
				if s := meters.All()[0].Read(); s.Allowed != allowed || s.RedisErr != nil || s.ActiveKeys != 0 {
					t.Errorf("after Close: %+v", s)
				}
			})
		})
	}
}

type captured []trypema.Meter

func (c *captured) Observe(m trypema.Meter) { *c = append(*c, m) }

// A provider that is dropped is collected, though its meters live.
func TestObserverKeepsNoProvider(t *testing.T) {
	var meters captured
	func() {
		o := redislimit.Options{OnChange: func(redislimit.Health) {}}
		o.Observer = &meters
		p, err := redislimit.New(fakeredis.New(), o)
		if err != nil {
			t.Fatal(err)
		}
		p.Absolute().Allow(t.Context(), "k", 10)
		if meters[0].Read().Ended {
			t.Error("it has ended while it is in use")
		}
		runtime.KeepAlive(p)
	}()
	for !meters[0].Read().Ended { // the time-out of the tests ends this
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if s := meters[0].Read(); s.Allowed != 1 {
		t.Errorf("%d allowed, want 1", s.Allowed)
	}
}
