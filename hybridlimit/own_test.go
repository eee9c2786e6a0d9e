package hybridlimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

// A key far from its limit is decided by its window in the table, for a limiter and for a Bound of one limit.
// What remains, and what Redis hears at last, is as if the account had decided.
func TestWindowsOfKeys(t *testing.T) {
	for _, bound := range []bool{false, true} {
		t.Run(fmt.Sprint("bound ", bound), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t, fakeredis.New(), hybridlimit.Options{})
				l := p.Absolute()
				allow := func() (trypema.Decision, error) { return l.Allow(ctx, "k", 100) }
				if bound {
					b := bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(1000, 10*time.Second))
					allow = func() (trypema.Decision, error) { return b.Allow(ctx, "k") }
				}
				calls := uint64(0)
				for range 30 {
					calls++
					if d, err := allow(); err != nil || !d.Allowed || d.Limit != 1000 || d.Remaining != 1000-calls {
						t.Fatalf("call %d: %+v, %v", calls, d, err)
					}
					time.Sleep(20 * time.Millisecond)
				}
				if !hybridlimit.TakeNow(p, "k", 1000) {
					t.Error("the window of the key is not open")
				}
				calls++
				if hybridlimit.TakeNow(p, "k", 999) || hybridlimit.TakeNow(p, "q", 1000) {
					t.Error("the window of the key admits a call that is not for it")
				}
				if d, err := l.Peek(ctx, "k", 100, 1); err != nil || d.Remaining != 1000-calls {
					t.Errorf("a look after %d calls: %+v, %v", calls, d, err)
				}
				if hybridlimit.TakeNow(p, "k", 1000) {
					t.Error("the window of the key is open beside the account")
				}
				if u, err := l.Usage(ctx, "k", 100); err != nil || u.Total != calls {
					t.Errorf("after %d calls: %+v, %v", calls, u, err)
				}
			})
		})
	}
}

// Under Suppressed the window of a key decides for an instance that is alone, whatever its load. Redis hears
// of all that was admitted and declined, and another instance that comes declines for the load of both.
func TestSuppressedWindowsOfKeys(t *testing.T) {
	for _, bound := range []bool{false, true} {
		t.Run(fmt.Sprint("bound ", bound), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				p, q := open(t, f, hybridlimit.Options{}), open(t, f, hybridlimit.Options{})
				l := p.Suppressed()
				allow := func() (trypema.Decision, error) { return l.Allow(ctx, "k", 10) }
				if bound {
					b := bind(t, p, trypema.StrategySuppressed, trypema.AtMost(100, 10*time.Second))
					allow = func() (trypema.Decision, error) { return b.Allow(ctx, "k") }
				}
				calls, admitted, byWindow := uint64(0), uint64(0), 0
				count := func(d trypema.Decision) {
					if calls++; d.Allowed {
						admitted++
					}
				}
				for range 480 { // five times the limit, for a window
					d, err := allow()
					if err != nil || d.Limit != 100 || d.Allowed != (d.RetryAfter == 0) {
						t.Fatalf("call %d: %+v, %v", calls, d, err)
					}
					if d.RefusedBy != "" && (!bound || d.Allowed) || bound && !d.Allowed && d.RefusedBy == "" {
						t.Fatalf("call %d: %+v", calls, d)
					}
					count(d)
					if d, ok := hybridlimit.SuppressNow(p, "k", 100); ok {
						count(d)
						byWindow++
					}
					time.Sleep(20 * time.Millisecond)
				}
				if byWindow < 400 {
					t.Errorf("the window of the key was open for %d calls of 480", byWindow)
				}
				if _, ok := hybridlimit.SuppressNow(p, "k", 99); ok {
					t.Error("the window of the key decides a call that is not for it")
				}
				u, err := l.Usage(ctx, "k", 10)
				if err != nil || u.Total != calls || u.Declined != calls-admitted || u.SuppressionFactor < .7 {
					t.Errorf("%d of %d calls admitted: %+v, %v", admitted, calls, u, err)
				}
				if admitted > 150 {
					t.Errorf("%d admitted in a window of at most 150", admitted)
				}
				other, of := 0, 100
				for range of {
					d, err := q.Suppressed().Allow(ctx, "k", 10)
					if err != nil {
						t.Fatal(err)
					}
					if d.Allowed {
						other++
					}
				}
				if other > of/2 {
					t.Errorf("another instance admitted %d of %d calls", other, of)
				}
			})
		})
	}
}
