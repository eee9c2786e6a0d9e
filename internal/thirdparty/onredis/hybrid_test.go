package onredis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/anywindow"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

const (
	fleetWindow = 2 * time.Second
	fleetRate   = 500 // per second
	fleetCap    = 1000
)

// fleet returns some instances in this process, each with a client of its own.
func fleet(t testing.TB, addr string, n int, load rig.Load) *rig.Fleet {
	conns := make([]redislimit.Conn, n)
	for i := range conns {
		conns[i] = goredisconn.New(rig.GoRedis(t, []string{addr}))
	}
	load.Hybrid, load.Window, load.Rate = true, fleetWindow, fleetRate
	return rig.NewFleet(t, load, redislimit.Options{Timeout: 5 * time.Second}, conns...)
}

// admitted returns how many calls were admitted in a time since the beginning, and how many an exact log of events had admitted
// of the same calls.
func admitted(f *rig.Fleet, from, to time.Duration) (n, exact int) {
	calls := f.Calls()
	slices.SortFunc(calls, func(a, b rig.Call) int { return a.From.Compare(b.From) })
	var log []time.Time
	for _, c := range calls {
		if at := c.To.Sub(f.Began); c.Allowed && at >= from && at < to {
			n++
		}
		for len(log) > 0 && c.From.Sub(log[0]) >= fleetWindow {
			log = log[1:]
		}
		if len(log) < fleetCap {
			log = append(log, c.From)
			if since := c.From.Sub(f.Began); since >= from && since < to {
				exact++
			}
		}
	}
	return n, exact
}

// Eight instances never pass the limit together, from cold on, and admit what an exact log does, however load is spread.
func TestHybridEightInstances(t *testing.T) {
	server := redisserver.Start(t)
	var all sync.WaitGroup
	for _, test := range []struct {
		load, first float64
		suppressed  bool
	}{
		{10, 0, false}, {10, .9, false}, {.95, 0, false}, {1.05, 0, false}, {2, 0, false}, {2, 0, true}, {10, 0, true},
	} {
		all.Go(func() {
			t.Run(fmt.Sprintf("load %v, first %v, suppressed %v", test.load, test.first, test.suppressed), func(t *testing.T) {
				f := fleet(t, server.Addr(), 8, rig.Load{Kind: rig.Kind{Suppressed: test.suppressed}, Times: test.load, First: test.first})
				const windows = 6
				f.Offer(windows * fleetWindow)
				most, bound := f.Most(), uint64(fleetCap)
				if test.suppressed {
					bound = fleetCap * 3 / 2
				}
				n, exact := admitted(f, fleetWindow, windows*fleetWindow)
				t.Logf("%d admitted, an exact log admits %d; at most %d of %d in a window, certainly; the longest of %d calls took %v",
					n, exact, most, bound, len(f.Calls()), f.Longest())
				if most > bound {
					t.Errorf("%d admitted in a window of at most %d", most, bound)
				}
				if fallbacks := len(f.Of(rig.Fellback)); fallbacks > 0 {
					t.Errorf("%d fallbacks", fallbacks)
				}
				if use := float64(n) / float64(exact); use < .95 || use > 1.05 {
					t.Errorf("%.3f of what an exact log admits", use)
				}
			})
		})
	}
	all.Wait()
}

// What was admitted is in Redis after a Close under load, exactly.
func TestHybridCloseUnderLoad(t *testing.T) {
	server := redisserver.Start(t)
	for _, suppressed := range []bool{false, true} {
		f := fleet(t, server.Addr(), 3, rig.Load{Kind: rig.Kind{Suppressed: suppressed}, Times: 3})
		var all sync.WaitGroup
		all.Go(func() { f.Offer(time.Second) })
		time.Sleep(600 * time.Millisecond)
		for _, p := range f.Instances {
			all.Go(func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		h, err := rig.ReadHeader(t.Context(), server.Client(), f.Kind, f.Name("k"))
		n := len(f.Of(rig.Admitted))
		if err != nil || int(h.Live()) != n || h.Leased != 0 {
			t.Errorf("suppressed %v: %d settled and %d on lease, %d were admitted; %v", suppressed, h.Live(), h.Leased, n, err)
		}
		t.Logf("suppressed %v: %d admitted, %d declined, all settled", suppressed, h.Live(), h.Declined)
	}
}

// hybridChild is an instance that is another process: it makes calls until its input ends, and prints each admission at once.
func hybridChild(addr string) {
	client := redis.NewClient(&redis.Options{Addr: addr})
	p, err := hybridlimit.New(goredisconn.New(client), hybridlimit.Options{Options: redislimit.Options{
		Options: trypema.Options{Window: fleetWindow}, Prefix: "processes", OnFailure: redislimit.FailClosed, Timeout: time.Second,
	}})
	if err != nil {
		panic(err)
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	for !stop.Load() {
		before := time.Now()
		d, err := p.Absolute().Allow(context.Background(), "k", fleetRate)
		after := time.Now()
		if err != nil {
			panic(err)
		}
		if d.Allowed {
			fmt.Println(before.UnixNano(), after.UnixNano())
		}
		time.Sleep(500 * time.Microsecond)
	}
	if err := errors.Join(p.Close(), client.Close()); err != nil {
		panic(err)
	}
}

// process is a hybridChild under way.
type process struct {
	cmd   *exec.Cmd
	input io.Closer
	read  sync.WaitGroup
}

// Processes that share a limit are killed while they hold leases, or stopped for longer than those live: never above the limit,
// and the others use what is left, all of it within a window.
func TestHybridProcesses(t *testing.T) {
	server := redisserver.Start(t)
	var mu sync.Mutex
	var log []anywindow.Admission
	start := func() *process {
		c := &process{cmd: exec.CommandContext(t.Context(), os.Args[0])}
		c.cmd.Env = append(os.Environ(), childVariable+"="+server.Addr(), hybridVariable+"=1")
		c.cmd.Stderr = os.Stderr
		input, err := c.cmd.StdinPipe()
		output, err2 := c.cmd.StdoutPipe()
		if err := errors.Join(err, err2, c.cmd.Start()); err != nil {
			t.Fatal(err)
		}
		c.input = input
		c.read.Go(func() {
			for lines := bufio.NewScanner(output); lines.Scan(); {
				var before, after int64
				if n, _ := fmt.Sscan(lines.Text(), &before, &after); n == 2 {
					mu.Lock()
					log = append(log, anywindow.Admission{From: time.Unix(0, before), To: time.Unix(0, after), Cost: 1})
					mu.Unlock()
				}
			}
		})
		return c
	}
	end := func(c *process) {
		_ = c.input.Close()
		c.read.Wait()
		_ = c.cmd.Wait()
	}
	signal := func(c *process, s syscall.Signal) {
		if err := c.cmd.Process.Signal(s); err != nil {
			t.Error(err)
		}
	}
	used := func(what string, from time.Time) {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, a := range log {
			if a.To.After(from) && a.To.Before(from.Add(fleetWindow)) {
				n++
			}
		}
		t.Logf("%d of %d admitted in a window, %s", n, fleetCap, what)
		if n < fleetCap*95/100 {
			t.Errorf("%d of %d admitted in a window, %s", n, fleetCap, what)
		}
	}

	all := []*process{start(), start(), start(), start()}
	time.Sleep(2 * fleetWindow)
	used("all at work", time.Now().Add(-fleetWindow))
	signal(all[0], syscall.SIGKILL)
	killed := time.Now()
	end(all[0])
	time.Sleep(2*fleetWindow + 100*time.Millisecond)
	used("a window after one was killed", killed.Add(fleetWindow))
	all[0] = start()
	signal(all[1], syscall.SIGSTOP)
	stopped := time.Now()
	time.Sleep(5 * time.Second)
	used("a window after one was stopped", stopped.Add(fleetWindow))
	signal(all[1], syscall.SIGCONT)
	resumed := time.Now()
	time.Sleep(2*fleetWindow + 100*time.Millisecond)
	used("a window after it went on", resumed.Add(fleetWindow))
	for _, c := range all {
		end(c)
	}
	most := anywindow.Most(log, fleetWindow)
	t.Logf("%d admissions, at most %d in a window, certainly", len(log), most)
	if most > fleetCap {
		t.Errorf("%d admitted in a window of at most %d", most, fleetCap)
	}
}

const hybridVariable = "TRYPEMA_TEST_HYBRID"
