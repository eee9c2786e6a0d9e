package hybridlimit_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// second are options with a window of that length, and FailClosed.
var second = hybridlimit.Options{Options: redislimit.Options{Options: trypema.Options{Window: time.Second}, OnFailure: redislimit.FailClosed}}

func allows(t *testing.T, l trypema.Limiter, rate trypema.Rate, n uint64) bool {
	t.Helper()
	d, err := l.AllowN(ctx, "k", rate, n)
	if err != nil {
		t.Fatal(err)
	}
	return d.Allowed
}

func reserves(t *testing.T, p *hybridlimit.Provider, rate trypema.Rate, n uint64) *trypema.Reservation {
	t.Helper()
	m, err := p.Bind(trypema.StrategyAbsolute, trypema.Limit{Rate: rate, Window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Reserve(ctx, "k", n, 0)
	if err != nil || !r.Allowed {
		t.Fatal(r, err)
	}
	return r
}

// A call that one limit declines is counted by all of them, also by those that have nothing on lease: it is
// in the ledger after Close.
func TestDeclinedCountsEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		p := open(t, f, second)
		m, err := p.Bind(trypema.StrategySuppressed, trypema.Limit{Rate: 1, Window: time.Second},
			trypema.Limit{Rate: 10, Window: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if !allows(t, p.Suppressed(), 1, 1) {
			t.Fatal("the first was declined")
		}
		if d, err := m.AllowN(ctx, "k", 1); err != nil || d.Allowed {
			t.Fatal(d, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if live, _ := f.Live("{trypema:k}:hs:3s", 3*time.Second, 30*time.Millisecond); live.Declined != 1 {
			t.Errorf("the longer window holds %+v, want 1 declined", live)
		}
	})
}

// A lowered rate acts on what is in the window, also once what is on lease was settled at it.
func TestLoweredRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, fakeredis.New(), second)
		l := p.Absolute()
		if !allows(t, l, 100, 1) || allows(t, l, 1, 1) {
			t.Fatal("want one, and no second at the lower rate")
		}
		if err := p.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if allows(t, l, 1, 1) {
			t.Error("a second call passed a limit of 1")
		}
	})
}

// An instance that keeps a window gives back what it has on lease soon after its rate was lowered, although
// it would renew the lease much later: another one gets it.
func TestLoweredRateOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = time.Millisecond
		const window = 10 * time.Second
		o := hybridlimit.Options{Options: redislimit.Options{Options: trypema.Options{Window: window}}}
		keeps, other := open(t, f, o), open(t, f, o)
		for range 150 { // far from the limit, so the lease lives for 20 s
			if !allows(t, keeps.Absolute(), 1000, 1) {
				t.Fatal("denied far from the limit")
			}
			time.Sleep(window / 50)
		}
		const lowered = 6
		if !allows(t, keeps.Absolute(), lowered, 1) {
			t.Fatal("denied at the lower rate, which leaves room")
		}
		began := time.Now()
		for !allows(t, other.Absolute(), lowered, 1) {
			if time.Sleep(window / 200); time.Since(began) > window {
				t.Fatal("the other instance got nothing in a window")
			}
		}
		if took := time.Since(began); took > window/5 {
			t.Errorf("the other instance got something after %v", took)
		}
	})
}

// After a Commit above the estimate, the instance that has made it admits no more than the window has room
// for; what it had on lease beyond that goes back with Close.
func TestCommitTakesFromTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		p := open(t, f, second)
		l := p.Absolute()
		if !allows(t, l, 5, 1) {
			t.Fatal("the first was denied")
		}
		if err := reserves(t, p, 5, 1).Commit(ctx, 4); err != nil {
			t.Fatal(err)
		}
		if d, err := l.Peek(ctx, "k", 5, 1); err != nil || d.Allowed {
			t.Error(d, err)
		}
		if allows(t, l, 5, 1) {
			t.Error("6 were admitted, of 5")
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if _, leased := f.Live("{trypema:k}:ha:1s", time.Second, 10*time.Millisecond); leased > 0 {
			t.Errorf("%d on lease after Close", leased)
		}
	})
}

// A refund is entered wherever the ledger has the call, also in a group of later events of others.
func TestRefundAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		a, b := open(t, f, second), open(t, f, second)
		allows(t, a.Absolute(), 1000, 1)
		time.Sleep(50 * time.Millisecond)
		r := reserves(t, a, 1000, 8) // from the lease
		time.Sleep(50 * time.Millisecond)
		allows(t, b.Absolute(), 1000, 1)
		if err := b.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if err := r.Refund(ctx); err != nil {
			t.Fatal(err)
		}
		if u, err := a.Absolute().Usage(ctx, "k", 1000); err != nil || u.Total != 2 {
			t.Errorf("%+v, %v, want 2", u, err)
		}
	})
}

// What a policy has admitted can not be admitted once more from what is on lease.
func TestFallbackUsesUpTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		o := second
		o.Window, o.OnFailure = 10*time.Second, redislimit.FailLocal // its lease outlives the message that is lost
		l := open(t, f, o).Absolute()
		if _, err := l.Peek(ctx, "k", 5, 1); err != nil {
			t.Fatal(err)
		}
		f.TakeAway()
		defer f.Restore()
		if !allows(t, l, 5, 50) {
			t.Fatal("50 of 50 were denied")
		}
		if allows(t, l, 5, 1) {
			t.Error("51 were admitted, of 50")
		}
	})
}

// Nor from what is granted by an answer that comes after the policy has decided.
func TestFallbackUsesUpWhatIsGrantedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = 11 * time.Millisecond
		o := second
		o.OnFailure, o.Timeout = redislimit.FailLocal, 10*time.Millisecond
		l := open(t, f, o).Absolute()
		if !allows(t, l, 1, 1) {
			t.Fatal("1 of 1 was denied")
		}
		time.Sleep(2 * time.Millisecond) // the answer is here, and its lease lives still
		if allows(t, l, 1, 1) {
			t.Error("2 were admitted, of 1")
		}
	})
}

// Verbs that no policy answers return within Timeout, whatever the client does; and they find out by
// themselves that Redis is back.
func TestVerbsWithoutAPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		p := open(t, f, second)
		l := p.Absolute()
		verbs := map[string]func() error{
			"Usage":  func() error { _, err := l.Usage(ctx, "k", 10); return err },
			"Set":    func() error { _, err := l.Set(ctx, "k", trypema.Always(), 1, trypema.Replace); return err },
			"Delete": func() error { return l.Delete(ctx, "k") },
		}
		f.TakeAway()
		for range 3 {
			for name, verb := range verbs {
				began := time.Now()
				if err := verb(); !errors.Is(err, redislimit.ErrUnavailable) ||
					time.Since(began) > 250*time.Millisecond {
					t.Errorf("%s: %v, after %v", name, err, time.Since(began))
				}
			}
		}
		f.Restore()
		time.Sleep(2 * time.Second)
		for name, verb := range verbs {
			if err := verb(); err != nil {
				t.Errorf("%s, once Redis is back: %v", name, err)
			}
		}
	})
}

// While Redis is taken for gone no call waits, also where there is something on lease still that is not
// enough.
func TestNoWaitWithALeaseThatIsTooSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		l := open(t, f, second).Absolute()
		allows(t, l, 1000, 1)
		f.Fault = func(string) ([]any, error) { return nil, errExpected }
		defer func() { f.Fault = nil }()
		before := f.Runs
		for range 10 {
			if allows(t, l, 1000, 900) {
				t.Error("more was admitted than was on lease")
			}
		}
		if n := f.Runs - before; n > 10 {
			t.Errorf("%d exchanges for 10 calls", n)
		}
	})
}

// With EmptyReject, a call has what it costs at its RetryAfter, however much that is; one that never fits is
// told so.
func TestEmptyRejectLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := second
		o.OnEmpty = hybridlimit.EmptyReject
		l := open(t, fakeredis.New(), o).Absolute()
		d, err := l.AllowN(ctx, "k", 1000, 1001)
		if err != nil || d.RetryAfter != trypema.Never {
			t.Error(d, err)
		}
		if d, err = l.AllowN(ctx, "k", 1000, 1000); err != nil || d.Allowed {
			t.Fatal(d, err)
		}
		time.Sleep(d.RetryAfter)
		if !allows(t, l, 1000, 1000) {
			t.Errorf("it was denied after %v", d.RetryAfter)
		}
	})
}

// Answers that come after Timeout are none: once that is known, no call waits for them. Those that come
// before it are.
func TestLateIsGone(t *testing.T) {
	for _, delay := range []time.Duration{200 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				l := open(t, f, second).Absolute()
				f.Delay = delay
				var waited, fellBack atomic.Int64
				var all sync.WaitGroup
				for i := range 400 {
					time.Sleep(10 * time.Millisecond)
					all.Go(func() {
						began := time.Now()
						key := "k0"
						if delay > 250*time.Millisecond { // so no lease serves that a late answer has brought
							key = fmt.Sprint("k", i)
						}
						d, err := l.Allow(ctx, key, 20)
						if err != nil {
							t.Error(err)
						}
						if i > 200 && time.Since(began) > 0 {
							waited.Add(1)
						}
						if i > 200 && d.Fallback {
							fellBack.Add(1)
						}
					})
				}
				all.Wait()
				time.Sleep(10 * time.Second) // the key rests: Usage does not have to wait for a message under way
				_, err := l.Usage(ctx, "k0", 20)
				if late := delay > 250*time.Millisecond; late != errors.Is(err, redislimit.ErrUnavailable) {
					t.Errorf("Usage: %v", err)
				}
				time.Sleep(time.Second)
				t.Logf("%d of 200 calls waited, %d were decided by the policy", waited.Load(), fellBack.Load())
				if gone := delay > 250*time.Millisecond; gone != (fellBack.Load() > 30) ||
					gone && waited.Load() > 0 {
					t.Errorf("%d of 200 calls waited, %d were decided by the policy", waited.Load(),
						fellBack.Load())
				}
			})
		})
	}
}
