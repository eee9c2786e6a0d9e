package trypema_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/trypema/trypema"
)

// A Local does not keep windows of lengths that no limiter has any more. It does as long as there is a
// limiter, and as long as there are counts: whoever has a limiter with such a window again, finds them.
func TestWindowsGo(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			l, err := trypema.NewLocal(trypema.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			limiter := func(w time.Duration) *trypema.Bound {
				m, err := l.Bind(s, trypema.Limit{Rate: trypema.Per(1000, w), Window: w})
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			allow := func(m *trypema.Bound, n uint64) {
				if d, err := m.AllowN(t.Context(), "k", n); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
			}
			both, err := l.Bind(s, trypema.Limit{Rate: trypema.Per(1000, 3*time.Hour), Window: 3 * time.Hour},
				trypema.Limit{Rate: trypema.Per(1000, 2*time.Hour), Window: 2 * time.Hour})
			if err != nil || l.Windows() != 2 {
				t.Fatalf("%v, %d lengths of windows, want 2", err, l.Windows())
			}
			runtime.KeepAlive(both)
			policies := func() *trypema.Policies { // whose limiters are made from others
				w := 7 * time.Minute
				p, err := trypema.NewPolicies(l, trypema.Policy{
					Name: "p", Strategy: s, Limits: []trypema.Limit{{Rate: trypema.Per(1000, w), Window: w}},
				})
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			of := policies()
			used, dropped := limiter(time.Minute), time.Hour
			allow(limiter(dropped), 3)
			const lengths = 300
			for i := range lengths {
				allow(limiter(100*time.Millisecond+time.Duration(i)), 1)
			}
			if n := l.Windows(); n < lengths/2 {
				t.Fatalf("%d lengths of windows, of %d", n, lengths)
			}
			left := 0
			for i := range 500 {
				time.Sleep(200 * time.Millisecond)
				runtime.GC()
				limiter(2*time.Minute + time.Duration(i)) // which looks for what can go
				if left = l.Windows(); left < 11 {
					break
				}
			}
			if left < 4 || left >= 11 { // those that are used, that with counts, and the newest
				t.Errorf("%d lengths of windows are left", left)
			}
			if d, err := of.AllowN(t.Context(), "p", "k", 4); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
			if u, err := policies().Usage(t.Context(), "p", "k"); err != nil || u[0].Total != 4 {
				t.Errorf("of policies: %+v, %v, want 4 in use", u, err)
			}
			runtime.KeepAlive(of)
			allow(used, 5)
			for w, want := range map[time.Duration]uint64{time.Minute: 5, dropped: 3} {
				if u, err := limiter(w).Usage(t.Context(), "k"); err != nil || u[0].Total != want {
					t.Errorf("of a window of %v: %+v, %v, want %d in use", w, u, err, want)
				}
			}
			runtime.KeepAlive(used)
		})
	}
}
