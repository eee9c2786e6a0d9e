package onfaults

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// The clock of Redis is set, as by somebody, or by a failover to another machine. No call is an error, waits,
// or is decided by the policy. Set back, by however much, it lets no window hold more than the limit, and
// keys that wait for it do so for a window at most. Set forward, it ends windows before their time: one over
// the step holds at most twice the limit, and one that begins later the limit.
func TestClock(t *testing.T) {
	t.Parallel()
	bridge := rig.NewBridge(t, dialPatiently(t, redisserver.Start(t).Addr()))
	window := time.Second
	steps := []time.Duration{window / 2, window + time.Millisecond, 20 * 365 * 24 * time.Hour}
	if explore.Long() {
		steps = append(steps, time.Millisecond, 10*time.Millisecond, window-time.Millisecond, window,
			5*window, time.Hour)
	}
	for i, kind := range both {
		for j, step := range steps {
			for k, step := range []time.Duration{step, -step} {
				if !explore.Long() && (i+j+k)%2 == 1 {
					continue // each step befalls one provider forward, and the other one back
				}
				t.Run(fmt.Sprintf("%v, %v", kind, step), func(t *testing.T) {
					repeat(t, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { clock(t, bridge, kind, window, step) })
					})
				})
			}
		}
	}
}

func clock(t *testing.T, bridge *rig.Bridge, kind rig.Kind, window, step time.Duration) {
	var ahead atomic.Int64 // of the clock of the bubble, in µs
	stepped := rig.Far{Conn: rig.Clocked{
		Conn: bridge, Time: func() int64 { return time.Now().UnixMicro() + ahead.Load() },
	}, Delay: time.Millisecond}
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 3, Callers: 2}, patient(t),
		[]redislimit.Conn{stepped, stepped}...)
	f.Start()
	time.Sleep(window * 3 / 2)
	ahead.Store(step.Microseconds())
	set := time.Now()
	time.Sleep(window * 9 / 2)
	f.Stop()

	f.Summary("step")
	if longest := f.Longest(); longest > 100*time.Millisecond {
		t.Errorf("a call took %v", longest)
	}
	bound := f.Capacity()
	if step > 0 {
		bound *= 2
	}
	f.Bound("over the step", bound)
	f.Bound("after the step", f.Capacity(), rig.Since(set.Add(10*time.Millisecond)))
	if most := f.Most(rig.Since(set.Add(2*window + window/5))); most < f.Capacity()*9/10 {
		t.Errorf("%d of %d used after the step", most, f.Capacity())
	}
}

// A key that is full when the clock is set back is free again a window later, although nothing but denials
// has come since: with one limit and with several. Hybrid, which knows when the window would have had room,
// does not look before, so there it is two.
func TestFullWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	bridge := rig.NewBridge(t, dialPatiently(t, redisserver.Start(t).Addr()))
	for _, kind := range kinds {
		for _, several := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, several limits: %v", kind, several), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var back atomic.Int64
					o := patient(t)
					o.HardLimitFactor = 1
					p := kind.Open(t, rig.Clocked{Conn: bridge, Time: func() int64 { return time.Now().UnixMicro() - back.Load() }}, o)
					window, strategy := 10*time.Second, trypema.StrategyAbsolute
					if kind.Suppressed {
						strategy = trypema.StrategySuppressed
					}
					rate := trypema.Per(10, window)
					l := rig.Strategy(p, kind.Suppressed)
					allow := func() (trypema.Decision, error) { return l.Allow(t.Context(), "k", rate) }
					if several {
						m := fixture.Bind(t, p, strategy, trypema.Limit{Rate: rate, Window: window},
							trypema.Limit{Rate: trypema.Unlimited, Window: 2 * window})
						allow = func() (trypema.Decision, error) { return m.Allow(t.Context(), "k") }
					}
					for range 10 {
						if d, err := allow(); err != nil || !d.Allowed {
							t.Fatalf("%+v, %v", d, err)
						}
					}
					time.Sleep(window / 2)
					back.Store(time.Hour.Microseconds())
					for set := time.Now(); ; time.Sleep(window / 10) {
						d, err := allow()
						if err != nil {
							t.Fatal(err)
						}
						if d.Allowed {
							break
						}
						longest := window + 2*time.Second // to call again, and to settle
						if kind.Hybrid {
							longest += window
						}
						if time.Since(set) > longest {
							t.Fatalf("it is still full %v later: %+v", time.Since(set), d)
						}
					}
				})
			})
		}
	}
}
