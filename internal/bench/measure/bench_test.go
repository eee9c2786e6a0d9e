package measure

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/bench/leak"
	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

// small is a command that makes few calls, in one window: what comes of it does not depend on the speed of
// the machine.
func small() Command {
	return Command{
		Flags: store.Flags{Provider: "local"},
		Peer:  peer.Ours, Rounds: 1, Strategy: "absolute", Keys: "skewed", KeySpace: 2000, HotFraction: 0.2,
		Many: 1, Workers: 2,
		Rate: perHour(5), Window: time.Hour, HardLimitFactor: 1.5, Mode: "max",
		WarmUp: ptr(time.Duration(0)), Duration: shortestRound, JSON: true,
		adjust: func(p *plan) { p.traps, p.counted, p.settles = 0, 1000, 2*shortestRound },
	}
}

// perHour is a rate per second that allows so many calls in an hour.
func perHour(capacity float64) float64 { return (capacity + 0.5) / time.Hour.Seconds() }

// measured runs the command and reads its JSON into v.
func measured(t *testing.T, c Command, v any) {
	t.Helper()
	var stdout bytes.Buffer
	err := c.Run(t.Context(), screen.Streams{Out: &stdout, Err: io.Discard})
	var missing *peer.MissingError
	if errors.As(err, &missing) {
		t.Skip(missing)
	}
	must.OK(t, err)
	if err := json.Unmarshal(stdout.Bytes(), v); err != nil {
		t.Fatalf("%v in %s", err, stdout.String())
	}
}

func isRust(name string) bool { return name == "governor" || peer.InWholeSeconds(name) }

// One after the other: what memory a limiter takes shows only while nothing else comes and goes.
func TestEveryPeer(t *testing.T) {
	for _, name := range peer.NamesIn(store.Local) {
		t.Run(name, func(t *testing.T) {
			c := small()
			c.Peer = name
			if peer.InWholeSeconds(name) {
				c.Window, c.Rate = 10*time.Second, 1000
			}
			if explore.Long() {
				c.adjust = nil // with the traps, which take their time
			}
			var r result
			measured(t, c, &r)
			if r.Ops == 0 || r.Ops != r.Allowed+r.Denied {
				t.Errorf("%d calls, %d allowed, %d denied", r.Ops, r.Allowed, r.Denied)
			}
			if r.KeysTouched == 0 || r.P50 <= 0 || r.Max < r.P999 || r.OpsPerSecond <= 0 ||
				*r.BytesPerKey <= 0 || (r.AllocsPerOp == nil) != isRust(name) {
				t.Errorf("unexpected result: %+v", r)
			}
			// A window of another library may end while it is called, as those that begin with the hour.
			if most := 2.0; r.AdmittedToLimit < 0.99 || r.AdmittedToLimit > most ||
				name == peer.Ours && r.AdmittedToLimit != 1 {
				t.Errorf("admitted ÷ limit is %.3f", r.AdmittedToLimit)
			}
			if r.FullestRatio != nil {
				checkTrapped(t, name, *r.FullestRatio)
			}
			if r.Where != store.Here || r.RedisCPU != nil || r.RedisBytesPerKey != nil {
				t.Errorf("a server that is not there: %+v", r)
			}
		})
	}
}

// checkTrapped looks at the fullest window of a limiter that was trapped. The trap works on every algorithm
// but an exact one.
func checkTrapped(t *testing.T, name string, ratio float64) {
	t.Helper()
	low, high := 1.5, 2.0
	switch {
	case name == peer.Ours:
		low, high = 0.9, 1
	// it has no fixed windows, and its buckets are only a tenth as long as the burst takes at worst
	case peer.InWholeSeconds(name):
		low = 1
	}
	if ratio < low || ratio > high {
		t.Errorf("%s: fullest window is %.2f C, want %v to %v", name, ratio, low, high)
	}
}

// TestFullestWindow springs the traps in virtual time, in which nothing is late.
func TestFullestWindow(t *testing.T) {
	for _, name := range peer.NamesIn(store.Local) {
		t.Run(name, func(t *testing.T) {
			for real, why := range map[bool]string{
				isRust(name):         "it runs in another process",
				name == "ulule":      "its cleaner ends when the garbage collector says so",
				name == "go-limiter": "it reads the clock of the runtime",
			} {
				if real {
					t.Skip(why + ", so its time is real: TRYPEMA_EXPLORE=1 springs the trap in TestEveryPeer")
				}
			}
			synctest.Test(t, func(t *testing.T) {
				n, err := planFor(t, 10, false).fullestWindow(t.Context(), name, 1, func(float64) {})
				if err != nil || n == nil {
					t.Fatalf("%v, %v", n, err)
				}
				checkTrapped(t, name, float64(*n)/trapCapacity)
			})
		})
	}
}

func TestFullestWindowOfSuppressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := planFor(t, 10, true).fullestWindow(t.Context(), peer.Ours, traps, func(float64) {})
		if err != nil || *n < trapCapacity || *n > trapCapacity*3/2 {
			t.Errorf("%v in the fullest window, %v", n, err)
		}
	})
}

// inRedis makes c a command for the embedded server.
func inRedis(c Command) Command { return remote(c, "redis") }

func remote(c Command, provider string) Command {
	c.Flags = store.Flags{Provider: provider}
	c.KeySpace, c.Workers = 8, 2
	return c
}

func TestEveryRedisPeer(t *testing.T) {
	for _, tt := range []struct{ name, client string }{{peer.Ours, "go-redis"}, {peer.Ours, "rueidis"},
		{"redis_rate", "go-redis"}} {
		t.Run(tt.name+" by "+tt.client, func(t *testing.T) {
			t.Parallel()
			c := inRedis(small())
			c.Peer = tt.name
			if tt.client == store.Rueidis {
				c.Client = &tt.client
			}
			if explore.Long() {
				c.adjust = nil // with the traps, which take their time
			}
			var r result
			measured(t, c, &r)
			if r.Ops == 0 || r.Ops != r.Allowed+r.Denied || r.LatencySamples*sampleEveryRemote != int64(r.Ops) {
				t.Errorf("%d calls, %d allowed, %d denied, %d timed", r.Ops, r.Allowed, r.Denied,
					r.LatencySamples)
			}
			if r.Provider != "redis" || r.Client != tt.client || !strings.Contains(r.Server, "a stand-in") {
				t.Errorf("where is %+v", r.Where)
			}
			if r.AdmittedToLimit < 0.99 || r.AdmittedToLimit > 1.2 {
				t.Errorf("admitted ÷ limit is %.3f", r.AdmittedToLimit)
			}
			if r.AllocsPerOp != nil || r.BytesPerKey != nil || r.RedisCommands != nil || r.RedisCPU != nil ||
				r.RedisBytesPerKey != nil {
				t.Errorf("it can not have measured that: %+v", r)
			}
			switch {
			case r.FullestRatio == nil: // where callers never came in time
			case tt.name == peer.Ours && *r.FullestRatio > 1, tt.name != peer.Ours && *r.FullestRatio < 1.5:
				t.Errorf("fullest window is %.2f C", *r.FullestRatio)
			}
		})
	}
}

// TestHybrid: how much of the limit is used depends on how long calls take, as leases end; what is above it
// never does.
func TestHybrid(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Command)
		check  func(result) bool
	}{
		{"one instance", func(*Command) {},
			func(r result) bool { return r.Instances == 1 && r.SyncInterval == 100 && r.AdmittedToLimit <= 1 }},
		{"two by rueidis, often", func(c *Command) {
			c.Instances, c.Client, c.SyncInterval = ptr(2), ptr("rueidis"), ptr(5*time.Millisecond)
		}, func(r result) bool {
			return r.Instances == 2 && r.Client == "rueidis" && r.SyncInterval == 5 && r.AdmittedToLimit <= 1
		}},
		{"suppressed, at a target", func(c *Command) {
			c.Instances, c.Strategy, c.Mode, c.QPS = ptr(2), "suppressed", "target", ptr(5000.0)
		}, func(r result) bool { return r.AdmittedToLimit <= 1.5 && r.LatencySamples == int64(r.Ops) }},
		{"window shorter than the run", func(c *Command) {
			c.Keys, c.Rate, c.Window, c.Duration = "hot", 1000, 50*time.Millisecond, 200*time.Millisecond
		}, func(r result) bool { return r.Elapsed >= 200 && r.AdmittedToLimit <= 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := remote(small(), "hybrid")
			tt.change(&c)
			if explore.Long() {
				c.adjust = nil // with the traps, which take their time
			}
			var r result
			measured(t, c, &r)
			if r.Ops == 0 || r.Ops != r.Allowed+r.Denied || r.Provider != "hybrid" ||
				!strings.Contains(r.Server, "a stand-in") || !tt.check(r) {
				t.Errorf("unexpected result: %+v", r)
			}
			if r.AdmittedToLimit <= 0 || r.Settled == nil || *r.Settled == 0 {
				t.Errorf("what Redis was told was not compared: %+v", r)
			}
			// nil where callers never came in time
			if r.FullestRatio != nil && (*r.FullestRatio > 1.5 || c.Strategy == "absolute" && *r.FullestRatio > 1) {
				t.Errorf("fullest window is %.2f C", *r.FullestRatio)
			}
		})
	}
}

// TestWorkersByDefault: calls of hybrid do not wait, so as many workers as processors are enough, but each
// instance has one.
func TestWorkersByDefault(t *testing.T) {
	processors := runtime.GOMAXPROCS(0)
	for _, tt := range []struct {
		provider        string
		instances, want int
	}{
		{"local", 0, processors}, {"redis", 64, remoteWorkers},
		{"hybrid", 0, processors}, {"hybrid", 64, max(64, processors)},
	} {
		c := small()
		c.Provider = tt.provider
		if tt.instances > 0 {
			c.Instances = &tt.instances
		}
		if c.Workers = 0; c.workers() != tt.want {
			t.Errorf("%+v: %d workers", tt, c.workers())
		}
	}
}

func TestWindowsOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := planFor(t, 10, false).session(peer.Ours, peer.Limiter{}) // with windows of 10s
		for _, x := range []struct {
			pause, active time.Duration
			want          uint64 // of windows so far
		}{
			{0, 10 * time.Second, 1},
			{0, 1, 2},
			{9 * time.Second, time.Second - 1, 2},
			{10 * time.Second, time.Second, 3},
			{time.Hour, 25 * time.Second, 6},
		} {
			time.Sleep(x.pause)
			from := time.Now()
			time.Sleep(x.active)
			if s.active(from); s.windows() != x.want {
				t.Errorf("after %v for %v: %d windows, want %d", x.pause, x.active, s.windows(), x.want)
			}
		}
	})
}

func TestSettlementThatFails(t *testing.T) {
	const allowed, denied = 3000, 1000
	tests := []struct {
		name            string
		flush           error
		admitted, other uint64 // by Redis, for the hot key
		suppressed      bool
		window          time.Duration
		says            string // empty if nothing is wrong
	}{
		{"all settled", nil, allowed, 0, false, time.Hour, ""},
		{"one lost", nil, allowed - 1, 0, false, time.Hour,
			"3000 admitted and 0 declined, but Redis was told of 2999 and 0"},
		{"one twice", nil, allowed + 1, 0, false, time.Hour, "told of 3001 and 0"},
		{"rejected ones are not told", nil, allowed, 1, false, time.Hour, "told of 3000 and 1"},
		{"declined ones are", nil, allowed, denied, true, time.Hour, ""},
		{"a declined one lost", nil, allowed, denied - 1, true, time.Hour, "told of 3000 and 999"},
		{"not within a window", nil, 0, 0, false, time.Nanosecond, ""},
		{"more than the limit", nil, 5001, 0, false, time.Nanosecond,
			"key user:00000000 holds 5001 admitted in Redis, and may hold 5000"},
		{"more than the limit of Suppressed", nil, 7501, 0, true, time.Nanosecond, "and may hold 7500"},
		{"Redis does not answer", errors.New("out of order"), allowed, 0, false, time.Hour, "out of order"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := planFor(t, 5000, tt.suppressed).session(peer.Ours, peer.Limiter{
				Flush: func(context.Context) error { return tt.flush },
				Settled: func(_ context.Context, key string) (admitted, declined uint64, err error) {
					if key == "user:00000000" {
						return tt.admitted, tt.other, nil
					}
					return 0, 0, nil
				},
			})
			s.limit.Options.Window = tt.window
			n, err := s.reconcile(t.Context(), allowed, denied)
			switch {
			case tt.says != "":
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error is %v, want one that says %q", err, tt.says)
				}
			case err != nil || (n != nil) != (tt.window == time.Hour):
				t.Errorf("got %v, %v", n, err)
			}
		})
	}
}

func TestCompareProviders(t *testing.T) {
	providers := []string{"hybrid"}
	if explore.Long() {
		providers = append(providers, "redis")
	}
	for _, provider := range providers {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			c := remote(small(), provider)
			c.Instances = ptr(2)
			c.Compare, c.Rounds, c.Duration = "trypema,trypema-local,trypema-redis,trypema-hybrid,redis_rate",
				2, 2*shortestRound
			var r Comparison
			measured(t, c, &r)
			var got []string
			for _, x := range r.Limiters {
				got = append(got,
					fmt.Sprintf("%s %s %d %s %v", x.Limiter, x.Provider, x.Instances, x.Client, x.SyncInterval))
			}
			ours := map[string]string{"redis": "trypema redis 2 go-redis 0",
				"hybrid": "trypema hybrid 2 go-redis 100"}[provider]
			want := []string{ours, "trypema-local local 1  0", "trypema-redis redis 2 go-redis 0",
				"trypema-hybrid hybrid 2 go-redis 100", "redis_rate redis 2 go-redis 0"}
			if !slices.Equal(got, want) {
				t.Errorf("limiters %q, want %q", got, want)
			}
			for _, x := range r.Limiters {
				if x.Ratio <= 0 || x.AdmittedToLimit <= 0 || x.AdmittedToLimit > 1.2 || len(x.ByRound) != 2 {
					t.Errorf("unexpected row: %+v", x)
				}
			}
		})
	}
}

func TestCompareInRedis(t *testing.T) {
	t.Parallel()
	c := inRedis(small())
	c.Compare, c.Rounds, c.Duration = "redis-cell,redis_rate,trypema,xtime-syncmap", 2, 2*shortestRound
	c.Client = ptr("rueidis")
	var stderr bytes.Buffer
	measured, failed, err := c.measure(t.Context(),
		screen.Streams{Name: "bench", Out: io.Discard, Err: &stderr})
	if err != nil || len(failed) > 0 {
		t.Fatal(err, failed)
	}
	leftOut := "bench: left out: redis-cell: the server does not have this module, " +
		"whose command is CL.THROTTLE\n"
	if stderr.String() != leftOut {
		t.Errorf("stderr is %q, want %q", &stderr, leftOut)
	}
	var got []string
	for _, x := range measured.(*Comparison).Limiters {
		got = append(got, x.Limiter+" "+x.Provider+" "+x.Client)
		if (x.Server == "") != (x.Provider == "local") {
			t.Errorf("%s: server %q", x.Limiter, x.Server)
		}
	}
	want := []string{"redis_rate redis go-redis", "trypema redis rueidis", "xtime-syncmap local "}
	if !slices.Equal(got, want) {
		t.Errorf("limiters %q, want %q", got, want)
	}

	var table bytes.Buffer
	must.OK(t, measured.table(&table))
	for _, want := range []string{"local xtime-syncmap", "redis: embedded",
		"trypema by rueidis; other limiters in Redis by go-redis"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &table)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, tt := range []struct {
		x    float64
		want string
	}{{0.8, "0.80"}, {9.987, "9.99"}, {10, "10.0"}, {133.2, "133"}, {1332, "1332"}} {
		if got := ratio(tt.x); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestCostOf(t *testing.T) {
	known := func(ops uint64, us time.Duration) run {
		return run{ops: ops, server: &store.Work{Commands: us * time.Microsecond, CPU: 2 * us * time.Microsecond}}
	}
	if c := costOf(known(10, 20), known(30, 60)); *c.RedisCommands != 2000 || *c.RedisCPU != 4000 {
		t.Errorf("%vns, %vns, want 2000 and 4000", *c.RedisCommands, *c.RedisCPU)
	}
	if c := costOf(known(10, 20), run{ops: 30}); c != (redisCost{}) {
		t.Errorf("a cost that is not known: %+v", c)
	}
}

func TestEveryKindOfRun(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Command)
		check  func(result) bool
	}{
		{"hot", func(c *Command) { c.Keys = "hot" }, func(r result) bool { return r.KeysTouched == 1 && r.Denied > 0 }},
		{"uniform", func(c *Command) { c.Keys, c.KeySpace, c.Rate = "uniform", 10, perHour(1e8) },
			func(r result) bool { return r.KeysTouched == 10 && r.Denied == 0 }},
		{"one key", func(c *Command) { c.KeySpace = 1 }, func(r result) bool { return r.KeysTouched == 1 }},
		{"suppressed", func(c *Command) { c.Strategy, c.Keys = "suppressed", "hot" },
			func(r result) bool { return r.Denied > 0 && r.AdmittedToLimit <= 1.5 }},
		{"workers", func(c *Command) { c.Workers = 5 }, func(r result) bool { return r.Workers == 5 }},
		{"window shorter than the run", func(c *Command) {
			c.Rate, c.Window, c.Duration = 1000, 10*time.Millisecond, 50*time.Millisecond
		}, func(r result) bool { return r.Elapsed >= 50 && r.AdmittedToLimit <= 1 }},
		{"target", func(c *Command) {
			c.Mode, c.Duration = "target", 100*time.Millisecond
			c.QPS, c.Burst = ptr(5000.0), ptr(10)
		}, func(r result) bool {
			// it took longer than it should where the machine is slow
			due, most := float64(r.Ops+r.Skipped), 5*r.Elapsed
			return r.Elapsed >= 100 && due >= 5*100-byChance(10*5*100, 10) && due <= most+byChance(10*most, 10) &&
				r.LatencySamples == int64(r.Ops) && r.Asked == 5000
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := small()
			tt.change(&c)
			p, names, err := c.prepare(t.Context(), time.Second)
			must.OK(t, err)
			got, err := p.measure(t.Context(), names[0], p.duration, func(float64) {})
			must.OK(t, err)
			r := newResult(names[0], c.conditions(p), got, footprint{}, nil)
			if !tt.check(*r) || r.Ops != r.Allowed+r.Denied {
				t.Errorf("unexpected result: %+v", r)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	c := small()
	c.Compare, c.Rounds, c.Duration = "trypema,ulule,xtime-xsync", 4, 4*shortestRound
	var r Comparison
	measured(t, c, &r)
	if len(r.Limiters) != 3 || r.Rounds != 4 {
		t.Fatalf("unexpected result: %+v", r)
	}
	for i, name := range []string{"trypema", "ulule", "xtime-xsync"} {
		x := r.Limiters[i]
		if x.Limiter != name || x.OpsPerSecond <= 0 || x.P50 <= 0 || x.AdmittedToLimit < 0.99 {
			t.Errorf("unexpected row: %+v", x)
		}
		if !(x.RatioMin > 0 && x.RatioMin <= x.RatioP25 && x.RatioP25 <= x.Ratio && x.Ratio <= x.RatioP75 &&
			x.RatioP75 <= x.RatioMax) {
			t.Errorf("the spread is in no order: %+v", x)
		}
	}
	if first := r.Limiters[0]; first.RatioMin != 1 || first.RatioMax != 1 {
		t.Errorf("the ratio of the first to itself is not 1: %+v", first)
	}
}

func TestTableAndCSV(t *testing.T) {
	tests := []struct {
		name    string
		compare string
		home    string
		rows    int
		table   []string
		csv     []string
	}{
		{"single", "", "local", 1,
			[]string{"trypema absolute", "allowed + denied = calls", "p99.9", "admitted ÷ limit",
				"bytes per key", "one call in 61"},
			[]string{"ops_per_second", "latency_p999_ns", "allocations_per_op"}},
		{"compare", "xtime-syncmap,trypema", "local", 2,
			[]string{"xtime-syncmap", "trypema absolute", "ratio", "1.00 – 1.00"},
			[]string{"median_ratio", "min_ratio"}},
		{"single in Redis", "", "redis", 1,
			[]string{"redis by go-redis: embedded miniredis, a stand-in", "Redis, bytes per key",
				"not measured", "one call to Redis in 7 is timed"},
			[]string{"server", "redis_cpu_ns_per_op", "redis_memory_per_key_bytes"}},
		{"single hybrid", "", "hybrid", 1,
			[]string{"hybrid by go-redis: embedded miniredis, a stand-in",
				"limit 1000/s in 10s, settled every 50ms;", "admitted = told to Redis ⁷"},
			[]string{"sync_interval_ms", "instances", "settled"}},
		{"compare hybrid", "trypema-hybrid,trypema-local", "hybrid", 2,
			[]string{"trypema-hybrid absolute", "trypema-local absolute", "p99.9"},
			[]string{"latency_p999_ns", "latency_max_ns"}},
		{"compare in Redis", "trypema,redis_rate", "redis", 2,
			[]string{"redis by go-redis: embedded miniredis, a stand-in", "redis_rate"},
			[]string{"provider", "server", "redis_commands_ns_per_op"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := small()
			if tt.home != "local" {
				c = remote(c, tt.home)
			}
			c.Compare, c.Rate, c.Window = tt.compare, 1000, 10*time.Second
			r, failed, err := c.measure(t.Context(), screen.Streams{Out: io.Discard, Err: io.Discard})
			if err != nil || len(failed) > 0 {
				t.Fatal(err, failed)
			}
			var table, lines bytes.Buffer
			must.OK(t, errors.Join(r.table(&table), r.csv(&lines)))
			for line := range strings.Lines(table.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("a line of %d columns: %s", n, line)
				}
			}
			for _, want := range tt.table {
				if !strings.Contains(table.String(), want) {
					t.Errorf("the table does not say %q:\n%s", want, &table)
				}
			}
			records, err := csv.NewReader(&lines).ReadAll()
			if err != nil || len(records) != 1+tt.rows {
				t.Fatalf("%d records, %v", len(records), err)
			}
			for _, want := range tt.csv {
				if !strings.Contains(strings.Join(records[0], " "), want) {
					t.Errorf("no column %q in %v", want, records[0])
				}
			}
		})
	}
}

// planFor is a plan on a workload of a few keys.
func planFor(t *testing.T, capacity uint64, suppressed bool) plan {
	t.Helper()
	options, err := trypema.Options{}.WithDefaults()
	must.OK(t, err)
	return plan{
		limit: peer.Limit{Capacity: capacity, Rate: float64(capacity) / 10, Suppressed: suppressed, Options: options},
		work:  newWorkload(100, 1, 0.2),
	}
}

func TestPremisesThatFail(t *testing.T) {
	always := func(ok bool) func(string) (bool, error) {
		return func(string) (bool, error) { return ok, nil }
	}
	tests := []struct {
		name       string
		peer       string
		capacity   uint64
		suppressed bool
		limiter    peer.Limiter
		says       string
	}{
		{"an error", "ulule", 10, false,
			peer.Limiter{Allow: func(string) (bool, error) { return false, errors.New("out of order") }},
			"calls failed: out of order"},
		{"never denies", "ulule", 10, false, peer.Limiter{Allow: always(true)}, "no call was denied"},
		{"denies below the limit", "ulule", 1e12, false, peer.Limiter{Allow: always(false)},
			"though no key came near its limit"},
		{"forgets keys", "ulule", 1e12, false,
			peer.Limiter{Allow: always(true), Len: func() int { return 99 }}, "holds 99 keys"},
		{"ours admits too little", peer.Ours, 10, false, peer.Limiter{Allow: always(false)}, "which permits exactly"},
		{"ours admits too much", peer.Ours, 10, false, peer.Limiter{Allow: everySecond()}, "windows permit"},
		{"ours passes its hard limit", peer.Ours, 10, true, peer.Limiter{Allow: everySecond()},
			"above the hard limit factor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := planFor(t, tt.capacity, tt.suppressed).session(tt.peer, tt.limiter)
			for range 20_000 { // enough for any of them, however few calls there is time for
				s.workers[0].call()
			}
			_, err := s.drive(t.Context(), time.Millisecond, func(float64) {})
			if err == nil {
				_, err = s.verify(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want one that says %q", err, tt.says)
			}
		})
	}
}

// TestKeysGoWhileTheyAreCounted: a window that ends meanwhile is no fault of the limiter.
func TestKeysGoWhileTheyAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := planFor(t, 1e12, false).session("ulule", peer.Limiter{
			Allow: func(string) (bool, error) { return true, nil },
			Len:   func() int { time.Sleep(time.Minute); return 99 },
		})
		began := time.Now()
		for range 20_000 {
			s.workers[0].call()
		}
		time.Sleep(time.Second)
		s.active(began)
		if a, err := s.verify(t.Context()); err != nil || *a.held != 99 {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

// everySecond admits every second call, of any key.
func everySecond() func(string) (bool, error) {
	n := 0
	return func(string) (bool, error) { n++; return n%2 == 0, nil }
}

// Keys whose text is just written, and keys of calls that are made some at a time, are those of the sequence.
func TestFreshAndMany(t *testing.T) {
	p := planFor(t, 10, false)
	for _, tt := range []struct {
		fresh bool
		many  int
	}{{true, 1}, {false, 16}, {true, 16}} {
		p.fresh, p.many = tt.fresh, tt.many
		var got []string
		limiter := peer.Limiter{
			Allow: func(key string) (bool, error) { got = append(got, strings.Clone(key)); return len(got)%3 > 0, nil },
			Many: func(keys []string) (allowed int, err error) {
				for _, key := range keys {
					got = append(got, strings.Clone(key))
				}
				return len(keys) - 2, nil
			},
		}
		w := newWorker(limiter, &p, 0)
		for w.calls < 480 {
			w.call()
		}
		for i, key := range got {
			if want := p.work.keys[p.work.sequences[0][i]]; key != want {
				t.Fatalf("%+v: call %d is for %q, want %q", tt, i, key, want)
			}
		}
		if want := uint64(480 * 2 / 3); tt.many == 1 && w.allowed != want || w.calls != 480 || len(got) != 480 ||
			w.allowed+w.denied != 480 || tt.many > 1 && w.denied != 60 {
			t.Errorf("%+v: %d calls, %d allowed, %d denied, for %d keys", tt, w.calls, w.allowed, w.denied, len(got))
		}
	}
}

// With both, ours admits exactly what it permits, and knows no other keys; the run fails otherwise.
func TestFreshAndManyAdmitTheSame(t *testing.T) {
	for _, many := range []int{1, 16} {
		c := small()
		c.Fresh, c.Many = true, many
		var r result
		if measured(t, c, &r); r.AdmittedToLimit != 1 || r.KeysHeld == nil || !r.Fresh || r.Many != many {
			t.Errorf("%+v", r)
		}
	}
}

func TestAdding(t *testing.T) {
	c := small()
	c.Compare, c.KeySpace = "trypema,xtime-syncmap", 3000
	all, err := c.Adding(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, a := range all {
		if a.Failed != "" || a.Keys != 3000 || a.New.Max < a.New.P999 || a.Known.Max <= 0 || a.Seconds <= 0 {
			t.Errorf("%+v", a)
		}
	}
	c.KeySpace = 5
	all, err = c.Adding(t.Context())
	if err != nil || !strings.Contains(all[0].Failed, "5 keys") {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestInterruptedRunIsNoResult(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := small()
	c.Duration = time.Minute
	var stdout bytes.Buffer
	err := c.Run(ctx, screen.Streams{Out: &stdout, Err: io.Discard})
	if !errors.Is(err, errInterrupted) || stdout.Len() > 0 {
		t.Errorf("error %v, output %q", err, &stdout)
	}
}

// TestHarnessAllocatesNothing: what is counted as allocations per call is the limiter's.
func TestHarnessAllocatesNothing(t *testing.T) {
	p := planFor(t, 10, false)
	w := newWorker(peer.Limiter{Allow: func(string) (bool, error) { return true, nil }}, &p, 0)
	w.base = time.Now()
	if n := testing.AllocsPerRun(1000, func() { w.call(); w.latency.Record(w.clock()) }); n != 0 {
		t.Errorf("%v allocations per call", n)
	}
}

// What a round took of processors is at least that of one caller, and at most that of all processors.
func TestProcessorTime(t *testing.T) {
	before, ok := processorTime(0)
	if !ok {
		t.Skip("not known on this system")
	}
	began := time.Now()
	n := 0
	for after := before; after < before+5*time.Millisecond; n++ {
		after, _ = processorTime(0)
	}
	after, _ := processorTime(0)
	if most := time.Since(began) * time.Duration(runtime.NumCPU()); after-before > most+time.Millisecond {
		t.Errorf("%v of processors in %v", after-before, time.Since(began))
	}
	if _, ok := processorTime(1 << 22); ok {
		t.Error("the time of a process that is not there is known")
	}
}
