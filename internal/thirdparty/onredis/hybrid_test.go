package onredis

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// admitted returns how many calls were admitted in a time since the beginning, and how many an exact log of
// events had admitted of the same calls.
func admitted(f *rig.Fleet, from, to time.Duration) (n, exact int) {
	calls := f.Calls()
	slices.SortFunc(calls, func(a, b rig.Call) int { return a.From.Compare(b.From) })
	var log []time.Time
	for _, c := range calls {
		if at := c.To.Sub(f.Began); c.Allowed && at >= from && at < to {
			n++
		}
		for len(log) > 0 && c.From.Sub(log[0]) >= f.Window {
			log = log[1:]
		}
		if uint64(len(log)) < f.Capacity() {
			log = append(log, c.From)
			if since := c.From.Sub(f.Began); since >= from && since < to {
				exact++
			}
		}
	}
	return n, exact
}

// Eight instances never pass the limit together, from cold on, and admit what an exact log does, however load
// is spread. In virtual time, a millisecond away from the server.
func TestHybridEightInstances(t *testing.T) {
	t.Parallel()
	bridge := rig.NewBridge(t, rig.Adapters[0].Dial(t, []string{redisserver.Start(t).Addr()}))
	for i, test := range []struct {
		load, first float64
		windows     time.Duration
		suppressed  bool
	}{
		{4, .9, 2, false}, {2, 0, 4, true}, {1.05, 0, 5, false},
		{.95, 0, 5, false}, {2, 0, 5, false}, {10, 0, 5, false}, {10, .9, 5, false}, {10, 0, 6, true},
	} {
		if i >= 2 && !explore.Long() {
			break
		}
		t.Run(fmt.Sprintf("load %v, first %v, suppressed %v", test.load, test.first, test.suppressed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := slices.Repeat([]redislimit.Conn{rig.Far{Conn: bridge.Conn(), Delay: time.Millisecond}},
					8)
				f := rig.NewFleet(t, rig.Load{
					Kind: rig.Kind{Hybrid: true, Suppressed: test.suppressed}, Window: 10 * time.Second, Rate: 100, Times: test.load, First: test.first,
				}, rig.Patient(t, trypema.Options{}), conns...)
				f.Offer(test.windows * f.Window)
				most, bound := f.Most(), f.Capacity()
				if test.suppressed {
					bound = bound * 3 / 2
				}
				n, exact := admitted(f, f.Window, test.windows*f.Window)
				t.Logf("%d admitted, an exact log admits %d; at most %d of %d in a window; the longest of %d calls took %v",
					n, exact, most, bound, len(f.Calls()), f.Longest())
				if most > bound {
					t.Errorf("%d admitted in a window of at most %d", most, bound)
				}
				// Both see the same arrivals, so little is left to chance. In 40 runs of six windows the
				// second was 0.976 ± 0.003 of the exact log, the third 0.987 ± 0.006. The bounds are six
				// standard deviations away: a false alarm is rarer than one in a million.
				least := .95
				if test.suppressed {
					least = .94
				}
				if use := float64(n) / float64(exact); use < least || use > 1.05 {
					t.Errorf("%.3f of what an exact log admits", use)
				}
			})
		})
	}
}

// What was admitted is in Redis after a Close under load, exactly. The window is so long that nothing ages
// out, however long it takes.
func TestHybridCloseUnderLoad(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	for _, suppressed := range []bool{false, true} {
		conns := make([]redislimit.Conn, 3)
		for i := range conns {
			conns[i] = rig.Adapters[0].Dial(t, []string{server.Addr()})
		}
		f := rig.NewFleet(t, rig.Load{
			Kind: rig.Kind{Hybrid: true, Suppressed: suppressed}, Window: time.Hour, Rate: 500. / 3600, Times: 3 * 3600,
		}, rig.Patient(t, trypema.Options{}), conns...)
		f.Start()
		rig.Wait(t, func() error {
			if n := len(f.Of(rig.Admitted)); n < 250 {
				return fmt.Errorf("%d admitted", n)
			}
			return nil
		})
		var all sync.WaitGroup
		for _, p := range f.Instances {
			all.Go(func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		f.Stop()
		h, err := rig.ReadHeader(t.Context(), server.Client(), f.Kind, f.Name("k"))
		n := len(f.Of(rig.Admitted))
		if err != nil || int(h.Live()) != n || h.Leased != 0 {
			t.Errorf("suppressed %v: %d settled and %d on lease, %d were admitted; %v", suppressed, h.Live(),
				h.Leased, n, err)
		}
		t.Logf("suppressed %v: %d admitted, %d declined, all settled", suppressed, h.Live(), h.Declined)
	}
}

const (
	fleetWindow = time.Second
	fleetCap    = 100
)

// Processes that share a limit are killed while they hold leases, or stopped for longer than those live:
// never above the limit, and the others use what is left, all of it. How soon is a matter of virtual time
// (TestHybrid of onmodel).
func TestHybridProcesses(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	all := make([]*process, 4)
	for i := range all {
		all[i] = start(t, server, "yes")
	}
	gone := []*process{}
	log := func() (log []anywindow.Admission) {
		for _, p := range slices.Concat(all, gone) {
			admitted, _ := p.calls()
			log = append(log, admitted...)
		}
		return log
	}
	used := func(what string, from time.Time) {
		rig.Wait(t, func() error {
			since := slices.DeleteFunc(log(), func(a anywindow.Admission) bool { return a.From.Before(from) })
			if n := anywindow.Most(since, fleetWindow); n < fleetCap*95/100 {
				return fmt.Errorf("%d of %d admitted in a window, %s", n, fleetCap, what)
			}
			return nil
		})
	}

	used("all at work", time.Now())
	all[0].signal(syscall.SIGKILL)
	killed := time.Now()
	all[0].end()
	used("a window after one was killed", killed.Add(fleetWindow))
	gone = append(gone, all[0])
	all[0] = start(t, server, "yes")
	all[1].signal(syscall.SIGSTOP)
	used("a window after one was stopped", time.Now().Add(fleetWindow))
	all[1].signal(syscall.SIGCONT)
	used("a window after it went on", time.Now().Add(fleetWindow))
	for _, p := range all {
		p.end()
	}
	most := anywindow.Most(log(), fleetWindow)
	t.Logf("%d admissions, at most %d in a window, certainly", len(log()), most)
	if most > fleetCap {
		t.Errorf("%d admitted in a window of at most %d", most, fleetCap)
	}
}
