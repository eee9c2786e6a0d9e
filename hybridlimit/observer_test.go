package hybridlimit_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// What was decided is counted, on the way without a lock too, and by each policy while Redis is away.
func TestObserver(t *testing.T) {
	for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen, redislimit.FailClosed} {
		for i := range 2 {
			t.Run(policy.String()+name(i == 1), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					f.Delay = 2 * time.Millisecond
					meters := new(trypema.Meters)
					o := hybridlimit.Options{}
					o.Observer, o.Name, o.OnFailure = meters, "api", policy
					p := open(t, f, o)
					l, meter := strategy(p, i == 1), meters.All()[i]
					var mu sync.Mutex
					var want trypema.Counters
					calls := func(phase string) {
						var wg sync.WaitGroup
						for c := range 4 {
							wg.Go(func() {
								for j := range 500 {
									// 0 is an error
									d, err := l.AllowN(ctx, fmt.Sprint(phase, j%3), 60, uint64((c+j)%4))
									l.Peek(ctx, phase+"0", 60, 0)
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
									time.Sleep(time.Millisecond)
								}
							})
						}
						wg.Wait()
					}
					calls("before ")
					if s := meter.Read(); s.Waited < 1 || s.Waited > 100 || s.Keys != 3 ||
						s.ActiveKeys != 3 || s.SettlingLag > time.Second/10 || s.RedisErr != nil {
						t.Errorf("with Redis: %+v", s)
					}
					f.TakeAway()
					calls("during ")
					time.Sleep(5 * time.Second)
					if s := meter.Read(); s.Outages != 1 || s.RedisErr == nil ||
						s.SettlingLag < 4*time.Second || s.SettlingLag > 7*time.Second {
						t.Errorf("without Redis: %d outages, %v, settling lags %v", s.Outages, s.RedisErr,
							s.SettlingLag)
					}
					f.Restore()
					time.Sleep(15 * time.Second)
					calls("after ")
					if s := meter.Read(); s.RedisErr != nil || s.SettlingLag > time.Second/10 {
						t.Errorf("with Redis again: %v, settling lags %v", s.RedisErr, s.SettlingLag)
					}
					for range 2 {
						s := meter.Read()
						got := s.Counters
						if want.Fallbacks == 0 || want.Allowed == 0 || want.Errors == 0 {
							t.Errorf("%+v, want some of all", want)
						}
						got.Latency, got.LatencySum, got.Outages, got.Waited = want.Latency, 0, 0, 0
						if got != want {
							t.Errorf("%+v, want %+v", got, want)
						}
						p.Close()
					}
					if s := meter.Read(); s.Keys != 0 || s.ActiveKeys != 0 || s.Leased != 0 || s.SettlingLag != 0 {
						t.Errorf("after Close: %+v", s)
					}
				})
			})
		}
	}
}

// What is said to be on lease is what Redis has charged, and nothing once the keys are idle.
func TestObserverKnowsWhatIsOnLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		meters := new(trypema.Meters)
		o := hybridlimit.Options{}
		o.Observer, o.MaxKeys = meters, 10
		p := open(t, f, o)
		for i := range 100 {
			p.Absolute().Allow(ctx, fmt.Sprint("k", i), 1000)
		}
		synctest.Wait()
		if s := meters.All()[0].Read(); s.Leased == 0 || s.Leased > 10*10_000 || s.Keys != 10 {
			t.Errorf("%d on lease by %d keys", s.Leased, s.Keys)
		}
		time.Sleep(10 * time.Minute)
		if s := meters.All()[0].Read(); s.Leased != 0 || s.ActiveKeys != 0 {
			t.Errorf("%d on lease by %d idle keys", s.Leased, s.ActiveKeys)
		}
		// A key that Redis can not use keeps its lease, until it is given up.
		p.Absolute().Allow(ctx, "bad", 1000)
		if s := meters.All()[0].Read(); s.Leased == 0 {
			t.Error("nothing on lease")
		}
		f.Fault = func(string) ([]any, error) { return []any{fakeredis.ErrKey.Error()}, nil }
		p.Absolute().Allow(ctx, "bad", 1000)
		time.Sleep(10 * time.Minute)
		if s := meters.All()[0].Read(); s.Leased != 0 || s.ActiveKeys != 0 {
			t.Errorf("%d on lease by %d keys that Redis can not use", s.Leased, s.ActiveKeys)
		}
	})
}

type captured []trypema.Meter

func (c *captured) Observe(m trypema.Meter) { *c = append(*c, m) }

// A provider that is dropped is collected, though its meters live.
func TestObserverKeepsNoProvider(t *testing.T) {
	var meters captured
	func() {
		o := hybridlimit.Options{}
		o.Observer, o.Window = &meters, 100*time.Millisecond
		p, err := hybridlimit.New(fakeredis.New(), o)
		if err != nil {
			t.Fatal(err)
		}
		p.Absolute().Allow(ctx, "k", 100)
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
