package bench

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/peer"
	"github.com/trypema/trypema/cmd/trypema/internal/redisserver"
	"github.com/trypema/trypema/cmd/trypema/internal/screen"
)

func TestMain(m *testing.M) {
	// ulule's store ends its cleaner when the garbage collector finds the store, which it need not do before the end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/ulule/limiter/v3/drivers/store/memory.(*cleaner).Run"))
}

// small is a command that takes a fraction of a second.
func small() Command {
	return Command{
		Flags: redisserver.Flags{Provider: "local"},
		Peer:  peer.Ours, Rounds: 1, Strategy: "absolute", Keys: "skewed", KeySpace: 2000, HotFraction: 0.2,
		Rate: 1000, Window: 10 * time.Second, HardLimitFactor: 1.5, Mode: "max",
		WarmUp: ptr(10 * time.Millisecond), Duration: 100 * time.Millisecond, JSON: true,
	}
}

// measured runs the command and reads its JSON into v.
func measured(t *testing.T, c Command, v any) {
	t.Helper()
	var stdout bytes.Buffer
	if err := c.Run(t.Context(), screen.Streams{Out: &stdout, Err: io.Discard}); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(stdout.Bytes(), v); err != nil {
		t.Fatalf("%v in %s", err, stdout.String())
	}
}

// One after the other: what memory a limiter takes shows only while nothing else comes and goes.
func TestEveryPeer(t *testing.T) {
	for _, name := range peer.NamesIn(false) {
		t.Run(name, func(t *testing.T) {
			c := small()
			c.Peer = name
			var r result
			measured(t, c, &r)
			if r.Ops == 0 || r.Ops != r.Allowed+r.Denied {
				t.Errorf("%d calls, %d allowed, %d denied", r.Ops, r.Allowed, r.Denied)
			}
			if r.KeysTouched == 0 || r.P50 <= 0 || r.Max < r.P999 || r.OpsPerSecond <= 0 || *r.BytesPerKey <= 0 || r.AllocsPerOp == nil {
				t.Errorf("unexpected result: %+v", r)
			}
			if r.AdmittedToLimit < 0.99 || r.AdmittedToLimit > 1.2 {
				t.Errorf("admitted ÷ limit is %.3f", r.AdmittedToLimit)
			}
			// The trap works on every algorithm but an exact one.
			if low, high := 1.5, 2.0; name != peer.Ours && (*r.FullestRatio < low || *r.FullestRatio > high) {
				t.Errorf("fullest window is %.2f C, want %v to %v", *r.FullestRatio, low, high)
			}
			if name == peer.Ours && (*r.FullestRatio > 1 || *r.FullestRatio < 0.9) {
				t.Errorf("fullest window is %.2f C, want all of one C", *r.FullestRatio)
			}
			if r.Where != (redisserver.Where{Provider: "local"}) || r.RedisCPU != nil || r.RedisBytesPerKey != nil {
				t.Errorf("a server that is not there: %+v", r)
			}
		})
	}
}

// inRedis makes c a command for the embedded server, with as much work as that can do.
func inRedis(c Command) Command {
	c.Flags = redisserver.Flags{Provider: "redis"}
	c.KeySpace, c.Workers = 200, 8
	return c
}

func TestEveryRedisPeer(t *testing.T) {
	for _, tt := range []struct{ name, client string }{{peer.Ours, "go-redis"}, {peer.Ours, "rueidis"}, {"redis_rate", "go-redis"}} {
		t.Run(tt.name+" by "+tt.client, func(t *testing.T) {
			t.Parallel()
			c := inRedis(small())
			c.Peer = tt.name
			if tt.client == redisserver.Rueidis {
				c.Client = &tt.client
			}
			var r result
			measured(t, c, &r)
			if r.Ops == 0 || r.Ops != r.Allowed+r.Denied || r.LatencySamples*sampleEveryRemote != int64(r.Ops) {
				t.Errorf("%d calls, %d allowed, %d denied, %d timed", r.Ops, r.Allowed, r.Denied, r.LatencySamples)
			}
			if r.Provider != "redis" || r.Client != tt.client || !strings.Contains(r.Server, "not Redis") {
				t.Errorf("where is %+v", r.Where)
			}
			if r.AdmittedToLimit < 0.99 || r.AdmittedToLimit > 1.2 {
				t.Errorf("admitted ÷ limit is %.3f", r.AdmittedToLimit)
			}
			if r.AllocsPerOp != nil || r.BytesPerKey != nil || r.RedisCommands != nil || r.RedisCPU != nil || r.RedisBytesPerKey != nil {
				t.Errorf("it can not have measured that: %+v", r)
			}
			switch {
			case r.FullestRatio == nil: // on a machine that is too slow
			case tt.name == peer.Ours && *r.FullestRatio > 1, tt.name != peer.Ours && *r.FullestRatio < 1.5:
				t.Errorf("fullest window is %.2f C", *r.FullestRatio)
			}
		})
	}
}

func TestCompareInRedis(t *testing.T) {
	t.Parallel()
	c := inRedis(small())
	c.Compare, c.Rounds, c.Duration = "redis-cell,redis_rate,trypema,xtime-syncmap", 2, 200*time.Millisecond
	c.Client = ptr("rueidis")
	var stdout, stderr bytes.Buffer
	if err := c.Run(t.Context(), screen.Streams{Out: &stdout, Err: &stderr}); err != nil {
		t.Fatal(err)
	}
	if want := "trypema: left out: " + peer.ErrMissing.Error() + "\n"; stderr.String() != want {
		t.Errorf("stderr is %q, want %q", &stderr, want)
	}
	var r comparison
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, &stdout)
	}
	var got []string
	for _, x := range r.Limiters {
		got = append(got, x.Limiter+" "+x.Provider+" "+x.Client)
		if (x.Server == "") != (x.Provider == "local") {
			t.Errorf("%s: server %q", x.Limiter, x.Server)
		}
	}
	if want := []string{"redis_rate redis go-redis", "trypema redis rueidis", "xtime-syncmap local "}; !slices.Equal(got, want) {
		t.Errorf("limiters %q, want %q", got, want)
	}

	c.JSON = false
	stdout.Reset()
	if err := c.Run(t.Context(), screen.Streams{Out: &stdout, Err: io.Discard}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"local xtime-syncmap", "redis: embedded", "trypema by rueidis; other limiters in Redis by go-redis"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &stdout)
		}
	}
}

func TestCostOf(t *testing.T) {
	known := func(ops uint64, us time.Duration) run {
		return run{ops: ops, server: &redisserver.Work{Commands: us * time.Microsecond, CPU: 2 * us * time.Microsecond}}
	}
	if c := costOf(known(10, 20), known(30, 60)); *c.RedisCommands != 2000 || *c.RedisCPU != 4000 {
		t.Errorf("%vns, %vns, want 2000 and 4000", *c.RedisCommands, *c.RedisCPU)
	}
	if c := costOf(known(10, 20), run{ops: 30}); c != (redisCost{}) {
		t.Errorf("a cost that is not known: %+v", c)
	}
}

func TestFullestWindowOfSuppressed(t *testing.T) {
	t.Parallel()
	p := planFor(t, 10, true)
	n, err := p.fullestWindow(t.Context(), peer.Ours, func(float64) {})
	if err != nil || *n < trapCapacity || *n > trapCapacity*3/2 {
		t.Errorf("%v in the fullest window, %v", n, err)
	}
}

func TestEveryKindOfRun(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Command)
		check  func(result) bool
	}{
		{"hot", func(c *Command) { c.Keys = "hot" }, func(r result) bool { return r.KeysTouched == 1 && r.Denied > 0 }},
		{"uniform", func(c *Command) { c.Keys = "uniform" }, func(r result) bool { return r.KeysTouched > 1900 && r.Denied == 0 }},
		{"one key", func(c *Command) { c.KeySpace = 1 }, func(r result) bool { return r.KeysTouched == 1 }},
		{"suppressed", func(c *Command) { c.Strategy, c.Keys, c.Rate = "suppressed", "hot", 100 }, func(r result) bool { return r.Denied > 0 && r.AdmittedToLimit <= 1.5 }},
		{"workers", func(c *Command) { c.Workers = 5 }, func(r result) bool { return r.Workers == 5 }},
		{"window shorter than the run", func(c *Command) { c.Window = 20 * time.Millisecond }, func(r result) bool { return r.AdmittedToLimit <= 1 }},
		{"target", func(c *Command) {
			c.Mode = "target"
			c.QPS, c.Burst = ptr(5000.0), ptr(10)
			c.Duration = 400 * time.Millisecond
		}, func(r result) bool {
			return r.Ops+r.Skipped > 1000 && r.Ops+r.Skipped < 3000 && r.LatencySamples == int64(r.Ops) && r.Asked == 5000
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := small()
			tt.change(&c)
			p, names, err := c.resolve()
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.measure(t.Context(), names[0], p.duration, func(float64) {})
			if err != nil {
				t.Fatal(err)
			}
			r := newResult(names[0], c.conditions(p), got, footprint{}, nil)
			if !tt.check(*r) || r.Ops != r.Allowed+r.Denied {
				t.Errorf("unexpected result: %+v", r)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	c := small()
	c.Compare, c.Rounds, c.Duration = "trypema,ulule,xtime-xsync", 4, 120*time.Millisecond
	var r comparison
	measured(t, c, &r)
	if len(r.Limiters) != 3 || r.Rounds != 4 {
		t.Fatalf("unexpected result: %+v", r)
	}
	for i, name := range []string{"trypema", "ulule", "xtime-xsync"} {
		x := r.Limiters[i]
		if x.Limiter != name || x.OpsPerSecond <= 0 || x.P50 <= 0 || x.AdmittedToLimit < 0.99 {
			t.Errorf("unexpected row: %+v", x)
		}
		if !(x.RatioMin > 0 && x.RatioMin <= x.RatioP25 && x.RatioP25 <= x.Ratio && x.Ratio <= x.RatioP75 && x.RatioP75 <= x.RatioMax) {
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
		redis   bool
		rows    int
		table   []string
		csv     []string
	}{
		{"single", "", false, 1, []string{"trypema absolute", "allowed + denied = calls", "p99.9", "admitted ÷ limit", "bytes per key", "one call in 61"}, []string{"ops_per_second", "latency_p999_ns", "allocations_per_op"}},
		{"compare", "xtime-syncmap,trypema", false, 2, []string{"xtime-syncmap", "trypema absolute", "ratio", "1.00 – 1.00"}, []string{"median_ratio", "min_ratio"}},
		{"single in Redis", "", true, 1, []string{"redis by go-redis: embedded miniredis, not Redis", "Redis, bytes per key", "not measured", "one call to Redis in 7 is timed"}, []string{"server", "redis_cpu_ns_per_op", "redis_memory_per_key_bytes"}},
		{"compare in Redis", "trypema,redis_rate", true, 2, []string{"redis by go-redis: embedded miniredis, not Redis", "redis_rate"}, []string{"provider", "server", "redis_commands_ns_per_op"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := small()
			if tt.redis {
				c = inRedis(c)
			}
			c.Compare, c.JSON = tt.compare, false
			var table, lines bytes.Buffer
			if err := c.Run(t.Context(), screen.Streams{Out: &table, Err: io.Discard}); err != nil {
				t.Fatal(err)
			}
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
			c.CSV = true
			if err := c.Run(t.Context(), screen.Streams{Out: &lines, Err: io.Discard}); err != nil {
				t.Fatal(err)
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
	if err != nil {
		t.Fatal(err)
	}
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
		{"an error", "ulule", 10, false, peer.Limiter{Allow: func(string) (bool, error) { return false, errors.New("out of order") }}, "calls failed: out of order"},
		{"never denies", "ulule", 10, false, peer.Limiter{Allow: always(true)}, "no call was denied"},
		{"denies below the limit", "ulule", 1e12, false, peer.Limiter{Allow: always(false)}, "though no key came near its limit"},
		{"forgets keys", "ulule", 1e12, false, peer.Limiter{Allow: always(true), Len: func() int { return 99 }}, "holds 99 keys"},
		{"ours admits too little", peer.Ours, 10, false, peer.Limiter{Allow: always(false)}, "which permits exactly"},
		{"ours admits too much", peer.Ours, 10, false, peer.Limiter{Allow: everySecond()}, "windows permit"},
		{"ours passes its hard limit", peer.Ours, 10, true, peer.Limiter{Allow: everySecond()}, "above the hard limit factor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := planFor(t, tt.capacity, tt.suppressed).session(tt.peer, tt.limiter)
			_, err := s.drive(t.Context(), 20*time.Millisecond, func(float64) {})
			if err == nil {
				_, err = s.verify()
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want one that says %q", err, tt.says)
			}
		})
	}
}

// everySecond admits every second call, of any key.
func everySecond() func(string) (bool, error) {
	n := 0
	return func(string) (bool, error) { n++; return n%2 == 0, nil }
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
	w := newWorker(peer.Limiter{Allow: func(string) (bool, error) { return true, nil }}, p.work, 0)
	w.base = time.Now()
	if n := testing.AllocsPerRun(1000, func() { w.call(); w.latency.Record(w.clock()) }); n != 0 {
		t.Errorf("%v allocations per call", n)
	}
}
