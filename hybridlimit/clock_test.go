package hybridlimit_test

import (
	"fmt"
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

// A machine that was suspended wakes up with leases that Redis does not charge any more, as its clock did not
// see the time pass. It uses them for an interval at most, until it looks at the clock on the wall. So a
// window holds at most what it had on lease above the limit, and nothing of that once it has looked. One that
// was suspended for less than half a window does not pass the limit at all.
func TestSuspended(t *testing.T) {
	const capacity, window = 800, 10 * time.Second
	times := []time.Duration{time.Second, 4900 * time.Millisecond, 8 * time.Second, time.Hour}
	if explore.Long() {
		times = append(times, 16*time.Second)
	}
	for _, asleep := range times {
		for _, looked := range []bool{false, true} {
			for _, suppressed := range []bool{false, true} {
				if suppressed && looked && !explore.Long() { // as Absolute
					continue
				}
				t.Run(fmt.Sprintf("%s for %v, looked at the wall: %v", name(suppressed), asleep, looked), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := fakeredis.New()
						o := hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailClosed}}
						o.Window, o.HardLimitFactor = window, 1
						var passed time.Duration // while the machine was suspended
						var log []anywindow.Admission
						all := func(l trypema.Limiter, most int) (n int) {
							for n < most {
								d, err := l.Allow(ctx, "k", trypema.Per(capacity, window))
								if err != nil || d.Fallback {
									t.Fatal(d, err)
								}
								if !d.Allowed {
									break
								}
								now := time.Now().Add(passed)
								log = append(log, anywindow.Admission{From: now, To: now, Cost: 1})
								n++
							}
							return n
						}
						sleeper := open(t, f, o)
						l := strategy(sleeper, suppressed)
						for range 20 {
							all(l, 1)
							time.Sleep(50 * time.Millisecond)
						}
						key := map[bool]string{false: "{trypema:k}:ha:10s", true: "{trypema:k}:hs:10s"}[suppressed]
						_, leased := f.Live(key, window, window/100)
						if leased < 10 {
							t.Fatalf("%d on lease", leased)
						}
						f.Step(asleep)
						passed += asleep
						hybridlimit.StepWall(sleeper, asleep)
						bound := uint64(capacity)
						if looked {
							time.Sleep(60 * time.Millisecond)
						} else if asleep >= window/2 {
							bound += leased
						}
						// Another takes all that Redis has to give, and then the sleeper what it has.
						other := all(strategy(open(t, f, o), suppressed), capacity+1)
						mine := all(l, capacity+1)
						most := anywindow.Most(log, window)
						t.Logf("%d on lease; %d by another, %d by the sleeper; at most %d in a window of %d",
							leased, other, mine, most, capacity)
						if most > bound {
							t.Errorf("%d admitted in a window, want at most %d", most, bound)
						}
						// What had expired meanwhile is known again soon.
						time.Sleep(window + window/50)
						if got := all(l, capacity) + all(strategy(open(t, f, o), suppressed), capacity); got < capacity*9/10 {
							t.Errorf("%d admitted a window later", got)
						}
						if most := anywindow.Most(log, window); most > bound {
							t.Errorf("%d admitted in a window, want at most %d", most, bound)
						}
					})
				})
			}
		}
	}
}
