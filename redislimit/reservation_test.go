package redislimit_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/redislimit"
)

// What is reserved while Redis does not answer expires where the failure policy has it, and what was reserved
// before expires there, too: this instance knows what it has admitted, for as long as that counts.
func TestReservationsWithoutRedis(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprint(s, ", reserved before: ", before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					p := open(t, f, redislimit.Options{OnFailure: redislimit.FailLocal})
					m := fixture.Bind(t, p, s, trypema.Limit{Rate: trypema.PerMinute(1000), Window: time.Minute})
					reserve := func() *trypema.Reservation {
						r, err := m.Reserve(t.Context(), "k", 600, 10*time.Second)
						if err != nil || !r.Allowed {
							t.Fatal(r, err)
						}
						return r
					}
					fits := func(n uint64) bool {
						d, err := m.Peek(t.Context(), "k", n)
						if err != nil || !d.Fallback {
							t.Fatal(d, err)
						}
						return d.Allowed || s == trypema.StrategySuppressed && d.SuppressionFactor < 1
					}
					if before {
						reserve()
						f.TakeAway()
						time.Sleep(time.Second)
					} else {
						f.TakeAway()
						reserve()
					}
					if s == trypema.StrategyAbsolute && fits(500) {
						t.Error("500 of the 400 that are not reserved")
					}
					time.Sleep(11 * time.Second)
					if !fits(1000) {
						t.Error("it has expired, and still counts")
					}
					r := reserve()
					time.Sleep(11 * time.Second)
					must.OK(t, r.Commit(t.Context(), 300))
					if s == trypema.StrategyAbsolute && (fits(701) || !fits(700)) {
						t.Error("committed late at 300 of 1000, which do not count exactly")
					}
					f.Restore()
				})
			})
		}
	}
}

// Reservations of one key that are made at once share round trips, as other calls do, whatever their
// expiries.
func TestReservationsShareRoundTrips(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			f.Delay = 10 * time.Millisecond
			p := open(t, f, redislimit.Options{OnFailure: redislimit.FailClosed})
			m := fixture.Bind(t, p, s,
				trypema.Limit{Rate: trypema.PerMinute(1000), Window: time.Minute},
				trypema.Limit{Rate: trypema.Per(1000, 30*time.Second), Window: 30 * time.Second})
			began, done := time.Now(), make(chan bool, 200)
			for i := range cap(done) {
				go func() {
					r, err := m.Reserve(t.Context(), "k", 2, time.Duration(1+i%3)*time.Second)
					done <- err == nil && r.Allowed
				}()
			}
			for range cap(done) {
				if !<-done {
					t.Fatal("not reserved")
				}
			}
			if took := time.Since(began); took > 3*f.Delay {
				t.Errorf("%v: %d reservations took %v, of round trips of %v", s, cap(done), took, f.Delay)
			}
			time.Sleep(time.Second/2 + time.Until(began))     // half a second beyond each expiry
			for _, left := range []uint64{400, 266, 132, 0} { // of which a third expires each second
				if u, err := m.Usage(t.Context(), "k"); err != nil || u[0].Total != left || u[1].Total != left {
					t.Errorf("%v: %+v, %v, want %d", s, u, err, left)
				}
				time.Sleep(time.Second)
			}
		})
	}
}

// What is given back is given back in what this instance remembers, too. While Redis is unavailable,
// FailLocal gives back where it counts, FailOpen counts nothing, and FailClosed reports the error.
func TestGiveBackWithoutRedis(t *testing.T) {
	for _, tt := range []struct {
		policy redislimit.FailurePolicy
		fails  bool
		left   uint64 // after the outage began, and 1 more was given back
	}{
		{redislimit.FailLocal, false, 5}, {redislimit.FailOpen, false, 9}, {redislimit.FailClosed, true, 0},
	} {
		t.Run(tt.policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				p := open(t, f, redislimit.Options{OnFailure: tt.policy})
				m := fixture.Bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(10, time.Minute))
				giveBack := func(n uint64) error {
					return m.Keeper().(interface {
						GiveBack(ctx context.Context, key string, n uint64) error
					}).GiveBack(t.Context(), "k", n)
				}
				if d, err := m.AllowN(t.Context(), "k", 10); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
				must.OK(t, giveBack(4))
				if d, err := m.Peek(t.Context(), "k", 4); err != nil || !d.Allowed || d.Fallback {
					t.Errorf("4 of 10 were given back: %+v, %v", d, err)
				}
				f.TakeAway()
				if err := giveBack(1); (err != nil) != tt.fails {
					t.Errorf("without Redis: %v, want an error: %v", err, tt.fails)
				}
				if d, err := m.Peek(t.Context(), "k", 1); err != nil || d.Remaining != tt.left {
					t.Errorf("without Redis: %+v, %v, want %d left", d, err, tt.left)
				}
				f.Restore()
			})
		})
	}
}
