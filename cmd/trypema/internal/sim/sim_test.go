package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

// command parses a command line of trypema sim.
func command(t *testing.T, args string) *Command {
	t.Helper()
	c := new(Command)
	parser, err := kong.New(c, flags.Mappers()...)
	if err == nil {
		_, err = parser.Parse(strings.Fields(args))
	}
	must.OK(t, err)
	return c
}

// simulate runs a command line, and returns its report.
func simulate(t *testing.T, args string) report {
	t.Helper()
	s, err := command(t, args).resolve()
	must.OK(t, err)
	w := newWorld(s)
	w.run(t.Context(), func(float64) {})
	r := w.report()
	waiting := w.meter.abandoned
	for _, i := range w.instances {
		for _, k := range i.accounts {
			if k != nil {
				waiting += uint64(len(k.waiting))
			}
		}
	}
	if r.Undecided != waiting || r.Admitted == 0 {
		t.Errorf("%d of %d calls are undecided, but %d wait; %d were admitted", r.Undecided, r.Offered,
			waiting, r.Admitted)
	}
	return r
}

// seeded are the flags of a run that "make test" always repeats; it ends sooner than after 60s if nothing
// happens late in it.
func seeded(t *testing.T, args string) string {
	t.Helper()
	args += fmt.Sprintf(" --seed %d", explore.Seed(t)%(1<<31))
	switch late := strings.Contains(args, "-at 2"); {
	case explore.Long() || strings.Contains(args, "--window") || strings.Contains(args, "-for 15s"):
	case late:
		args += " --duration 40s"
	default:
		args += " --duration 25s"
	}
	return args
}

// smooth matches the runs in which Suppressed must be as smooth over eight instances as in one: nothing
// breaks.
var smooth = regexp.MustCompile(`^--strategy suppressed --load [\d.]+$`)

// What is promised of leases holds in virtual time. Where tests explore, calls and network differ in each
// run, and some runs have more instances, calls or keys.
func TestPromises(t *testing.T) {
	const none = -1
	type row struct {
		args                   string
		use                    float64 // at least
		leastOfExact, mostThan float64 // admitted ÷ that of the reference
		waited                 float64 // at most, settled
	}
	tests := []row{
		{"--load 10", .95, .95, 1.05, .01},
		{"--load 10 --skew 0.9", .95, .95, 1.05, .01},
		{"--load 10 --rate 0.5", .8, none, none, none},
		{"--load 0.95", none, .95, 1.05, .02},
		{"--load 1.05", none, .95, 1.05, .05},
		{"--load 2", .95, .95, 1.05, .02},
		{"--load 0.95 --rate 1000", none, .98, 1.02, .001},
		{"--load 10 --shape step", none, .95, 1.05, .05},
		{"--load 10 --shape spike", none, .95, 1.05, .05},
		{"--load 10 --shape on-off", none, .95, 1.05, .01},

		{"--load 10 --loss 0.3", none, none, none, none},
		{"--load 10 --jitter 20ms", none, none, none, none},
		{"--load 10 --die-at 25s", .9, .9, 1.05, .01},
		{"--load 10 --die-at 500ms", .9, .9, 1.05, .01},
		{"--load 10 --outage-at 500ms --outage-for 1s", none, none, none, none},
		{"--load 10 --pause-at 25s --pause-for 3s", .95, .95, 1.05, none},
		{"--load 10 --pause-at 500ms --pause-for 15s", .9, .9, 1.05, none},
		{"--load 10 --outage-at 20s --outage-for 3s", none, none, none, none},
		{"--load 1.05 --outage-at 20s --outage-for 15s", none, none, none, none},
		{"--load 10 --loss 0.05 --die-at 25s --pause-at 12s --pause-for 1s --outage-at 30s --outage-for 5s",
			none, none, none, none},

		{"--load 2 --keys 5 --hot-keys 0.4 --hot-load 0.5 --skew 0.5", none, .95, 1.05, none},

		{"--strategy suppressed --load 1.1", .95, .95, 1.05, .02},
		{"--strategy suppressed --load 2", .95, .95, 1.05, .01},
		{"--strategy suppressed --load 2 --skew 0.9", .95, .95, 1.05, .01},
		{"--strategy suppressed --load 2 --hard-limit-factor 1", .95, none, none, none},
		{"--strategy suppressed --load 2 --loss 0.1 --die-at 25s", none, none, none, none},
		{"--strategy suppressed --load 2 --outage-at 20s --outage-for 5s", none, none, none, none},
	}
	if explore.Long() {
		tests = append(tests, []row{
			{"--load 0.9 --rate 1000 --skew 0.9 --skew-moves 5s", none, .985, 1.02, .01},
			{"--load 10 --window 1s --rate 1000", .95, .95, 1.05, .01},
			{"--load 10 --loss 0.05", none, none, none, none},
			{"--load 10 --instances 32 --rate 200", .95, .95, 1.05, .01},
			{"--load 10 --instances 32 --rate 1000", .95, .95, 1.05, .01},
			{"--load 10 --instances 100 --rate 1000", .95, .95, 1.05, .01},
			{"--load 10 --keys 20 --hot-keys 0.5 --hot-load 0.5 --skew 0.5", none, .95, 1.05, none},

			{"--strategy suppressed --load 5", .95, .95, 1.05, .01},
			{"--strategy suppressed --load 10", .95, .95, 1.05, .01},
			{"--strategy suppressed --load 20", .95, .95, 1.05, .01},
			{"--strategy suppressed --load 20 --skew 0.9", .95, .95, 1.05, .01},
			{"--strategy suppressed --load 10 --hard-limit-factor 1", .95, none, none, none},
			{"--strategy suppressed --load 10 --loss 0.1 --die-at 25s", none, none, none, none},
			{"--strategy suppressed --load 10 --outage-at 20s --outage-for 5s", none, none, none, none},
		}...)
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			r := simulate(t, seeded(t, tt.args))
			t.Logf("use %.3f, ÷ reference %.3f, fullest %.3f, waited %.4f", *r.Use, *r.AdmittedToReference,
				r.FullestRatio, *r.WaitedSettled)
			if !r.OK || !r.Judged || uint64(r.Fullest) > r.Bound {
				t.Errorf("%d in a window, which may hold %d; judged: %v, ok: %v", r.Fullest, r.Bound,
					r.Judged, r.OK)
			}
			if *r.Use < tt.use {
				t.Errorf("use %.3f, want %v", *r.Use, tt.use)
			}
			if x := *r.AdmittedToReference; x < tt.leastOfExact || tt.mostThan > 0 && x > tt.mostThan {
				t.Errorf("%.3f of what the reference admitted, want %v to %v", x, tt.leastOfExact, tt.mostThan)
			}
			if x := *r.WaitedSettled; tt.waited > 0 && x > tt.waited {
				t.Errorf("%.4f of the calls waited, want %v", x, tt.waited)
			}
			if most := int64((r.Settings.Timeout+r.Settings.PauseFor)*1e6) * 1001 / 1000; r.WaitMax > most {
				t.Errorf("a call waited for %v", time.Duration(r.WaitMax))
			}
			if !smooth.MatchString(tt.args) {
				return
			}
			t.Logf("variation %.3f, by chance %.3f, pauses %vms, settled %vms", *r.Variation,
				*r.VariationChance, *r.Pause, *r.PauseSettled)
			if *r.Variation > .45 || *r.PauseSettled > 300 || *r.Pause > 500 {
				t.Errorf("variation %.3f, longest pause %vms, settled %vms", *r.Variation, *r.Pause,
					*r.PauseSettled)
			}
		})
	}
}

// Eight instances with a large limit settle seldom until it is nearly used up. A small one, of which each has
// little to spare, they settle in every interval before that.
func TestSettlementsNearTheLimit(t *testing.T) {
	for _, tt := range []struct {
		args        string
		least, most float64
	}{
		{"--load 0.8 --rate 1000", 0, 4},
		{"--load 0.9 --rate 1000", 0, 10},
		{"--load 0.95 --rate 1000", 0, 90},
		{"--load 0.95 --rate 1000 --skew 0.9", 0, 40},
		{"--load 0.95 --rate 100", 110, 160},
	} {
		if n := *simulate(t, seeded(t, tt.args)).Settlements; n < tt.least || n > tt.most {
			t.Errorf("%s: %.0f settlements a second, want %v to %v", tt.args, n, tt.least, tt.most)
		}
	}
}

// An instance that is seldom asked for a key does not settle it all the time: once to get a lease, and once
// to give it back.
func TestSeldomAsked(t *testing.T) {
	for _, args := range []string{"--load 0.5 --rate 0.5", "--load 0.5 --rate 5", "--load 2 --rate 0.5",
		"--load 2 --rate 5"} {
		r := simulate(t, seeded(t, args))
		if n := *r.SettlementsPerCall; n > 2.5 {
			t.Errorf("%s: %.1f settlements for a call", args, n)
		}
	}
}

// An instance that had six tenths of a limit is killed, and its calls go to the others. Within two windows
// they admit what a log of every event would: a lease that large does not live for long, and nothing is left
// of the life of a smaller one that it was before.
func TestKilledHolder(t *testing.T) {
	const parts = 20
	loads := []float64{2}
	if explore.Long() {
		loads = []float64{1, 2, 10}
	}
	for _, window := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		for _, load := range loads {
			t.Run(fmt.Sprint(window, load), func(t *testing.T) {
				for seed := range explore.Runs(2, 100) {
					args := fmt.Sprintf("--window %v --rate %g --load 0.8 --skew 0.75 --seed %d", window,
						1000/window.Seconds(), explore.Seed(t)%(1<<31)+uint64(seed))
					s, err := command(t, args).resolve()
					if err != nil {
						t.Fatal(err)
					}
					w := newWorld(s)
					until := func(at time.Duration) {
						w.duration = at
						w.run(t.Context(), func(float64) {})
					}
					until(5 * window)
					w.instances[0].kill()
					w.instances, w.skew = w.instances[1:], -1
					w.keys[0].load, w.keys[0].peak = load, load*w.Rate/1e9
					admitted, exact := make([]uint64, 3*parts+1), make([]uint64, 3*parts+1)
					back := -1
					for i := range admitted {
						until(5*window + time.Duration(i)*window/parts)
						admitted[i], exact[i] = w.meter.all.admitted, w.meter.all.reference
						if from := i - parts; back < 0 && from >= 0 &&
							float64(admitted[i]-admitted[from]) >= .95*float64(exact[i]-exact[from]) {
							back = from
						}
					}
					t.Logf("seed %d: back after %.2f windows", s.Seed, float64(back)/parts)
					if back < 0 || back > parts*3/2 || uint64(w.meter.fullest) > s.bound {
						t.Errorf("%s: back after %d parts of a window; %d in a window of %d", args, back,
							w.meter.fullest, s.bound)
					}
				}
			})
		}
	}
}

func TestSeedDecidesAll(t *testing.T) {
	const args = "--load 1.2 --rate 30 --keys 3 --loss 0.02 --die-at 21s --jitter 3ms --duration 30s --seed "
	a, b, c := simulate(t, args+"7"), simulate(t, args+"7"), simulate(t, args+"8")
	if !reflect.DeepEqual(a, b) {
		t.Errorf("two runs with one seed differ:\n%+v\n%+v", a, b)
	}
	if a.Offered == c.Offered {
		t.Error("another seed made as many calls")
	}
}

// The calls are the same whatever the network does to them, or there would be nothing to compare.
func TestCallsDoNotDependOnTheNetwork(t *testing.T) {
	a := simulate(t, "--load 1.2 --rate 30 --keys 3 --duration 30s")
	b := simulate(t, "--load 1.2 --rate 30 --keys 3 --duration 30s --loss 0.1 --delay 7ms --instances 8")
	if a.Offered != b.Offered || *a.FirstCalls != *b.FirstCalls {
		t.Errorf("%d calls, %v of them to the first instance, and %d, %v", a.Offered, *a.FirstCalls,
			b.Offered, *b.FirstCalls)
	}
}

// The bound is judged by the admissions themselves: instances that each have a ledger to themselves break it.
func TestBrokenBoundIsFound(t *testing.T) {
	s, err := command(t, "--load 10 --rate 20 --policy local --loss 1 --seed 1").resolve()
	must.OK(t, err)
	s.bound = 180
	w := newWorld(s)
	w.run(t.Context(), func(float64) {})
	if r := w.report(); !r.OK || r.Judged || r.broken() != nil {
		t.Errorf("without Redis nothing is promised: %+v", r)
	}
	s.Loss, s.Policy = 0, policyClosed
	w = newWorld(s)
	w.run(t.Context(), func(float64) {})
	if r := w.report(); r.OK || r.broken() == nil {
		t.Errorf("a bound of %d was broken, and it is not said: %d", s.bound, r.Fullest)
	}
}

func TestShape(t *testing.T) {
	const w, d = 10 * time.Second, 60 * time.Second
	tests := []struct {
		name string
		at   time.Duration
		want float64
	}{
		{steady, 0, 4}, {steady, d - 1, 4},
		{step, 0, .5}, {step, d/3 - 1, .5}, {step, d / 3, 4}, {step, d - 1, 4},
		{spike, 0, .5}, {spike, d/2 - 1, .5}, {spike, d / 2, 4}, {spike, d/2 + w/2 - 1, 4}, {spike, d/2 + w/2, .5},
		{onOff, 0, 4}, {onOff, w - 1, 4}, {onOff, w, 0}, {onOff, 2*w - 1, 0}, {onOff, 2 * w, 4},
	}
	for _, tt := range tests {
		if got := newShape(tt.name, w, d).at(int64(tt.at), 4); got != tt.want {
			t.Errorf("%s at %v: %v, want %v", tt.name, tt.at, got, tt.want)
		}
	}
}

func TestEventsComeInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	var h events
	var last event
	held := 0
	for range 20_000 {
		if held > 0 && rng.IntN(2) == 0 {
			e := h.pop()
			held--
			if e.before(&last) {
				t.Fatalf("%+v after %+v", e, last)
			}
			last = e
			continue
		}
		h.push(event{at: last.at + rng.Int64N(50)})
		held++
	}
}

func TestRecent(t *testing.T) {
	var r recent
	for now := range int64(100) {
		if got, want := r.count(now, 10), int(min(now, 9)); got != want {
			t.Fatalf("%d instants in the window that ends at %d, want %d", got, now, want)
		}
		r.add(now)
	}
}

// document is what a program reads.
type document struct {
	Interrupted bool     `json:"interrupted"`
	Elapsed     float64  `json:"elapsed_virtual_ms"`
	Use         *float64 `json:"settled_admitted_to_limit_ratio"`
	Fullest     int      `json:"largest_any_window"`
	OK          bool     `json:"ok"`
	Settings    struct {
		SyncInterval float64 `json:"sync_interval_ms"`
	} `json:"settings"`
	Nodes *struct {
		Cost        float64 `json:"assumed_settle_cost_ns"`
		Keys        float64 `json:"keys"`
		Settlements float64 `json:"key_settlements_per_second"`
		Nodes       float64 `json:"nodes"`
	} `json:"nodes"`
	Runs []document `json:"runs"`
}

func printed(ctx context.Context, t *testing.T, args string) (d document, text string) {
	t.Helper()
	var out, progress bytes.Buffer
	must.OK(t, command(t, args).Run(ctx, screen.Streams{Out: &out, Err: &progress}))
	if strings.Contains(args, "--json") {
		if err := json.Unmarshal(out.Bytes(), &d); err != nil {
			t.Fatalf("%v in %s", err, out.String())
		}
	}
	return d, out.String()
}

func TestJSON(t *testing.T) {
	one, _ := printed(t.Context(), t, "--load 2 --rate 20 --keys 2 --json")
	many, _ := printed(t.Context(), t, "--load 2 --rate 20 --keys 2 --json --scale-keys 1e6 --settle-cost 16us")
	if !one.OK || one.Interrupted || one.Use == nil || one.Fullest == 0 || one.Settings.SyncInterval != 50 ||
		one.Elapsed != 60_000 {
		t.Errorf("%+v", one)
	}
	if one.Nodes.Cost != 8000 || one.Nodes.Keys != 2 || many.Nodes.Keys != 1e6 {
		t.Errorf("%+v, %+v", one.Nodes, many.Nodes)
	}
	if got, want := many.Nodes.Settlements, 5e5*one.Nodes.Settlements; got < .999*want || got > 1.001*want {
		t.Errorf("%v settlements for a million keys, want %v", got, want)
	}
	if got, want := many.Nodes.Nodes, many.Nodes.Settlements*16e-6/.5; got < .999*want || got > 1.001*want {
		t.Errorf("%v nodes, want %v", got, want)
	}
	varied, _ := printed(t.Context(), t, "--rate 20 --json --vary load=1,2,3")
	if len(varied.Runs) != 3 || *varied.Runs[2].Use < *varied.Runs[0].Use {
		t.Errorf("%+v", varied)
	}
}

func TestTable(t *testing.T) {
	const everything = "--rate 20 --loss 0.02 --outage-at 20s --outage-for 1s --die-at 22s --pause-at 1s " +
		"--pause-for 2s --keys 4 --hot-keys 0.5 --skew 0.5 --duration 40s --seed 123456789"
	tests := []struct {
		args string
		want []string
	}{
		{"--load 2 --rate 20", []string{"8 instances, with equal load", "load 2× steady", "✓", "an exact log",
			"even share", "an assumption"}},
		{everything, []string{"50% of the calls to the first", "10× for 2 hot keys", "2% of messages lost",
			"no Redis from 20s for 1s", "decided without Redis", "killed at 22s",
			"first instance: of calls"}},
		{everything + " --policy local", []string{"not judged", "policy local"}},
		{"--strategy suppressed --rate 20 --duration 30s",
			[]string{"one window under the same law", "longest pause", "variation"}},
		{"--rate 20 --vary sync-interval=10ms,100ms",
			[]string{"sync-interval", "│ 10ms", "│ 100ms", "8µs for a settlement is assumed"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			_, text := printed(t.Context(), t, tt.args)
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("nothing says %q:\n%s", want, text)
				}
			}
			for line := range strings.Lines(text) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("line of %d columns: %s", n, line)
				}
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, _ := printed(ctx, t, "--json")
	if !d.Interrupted || d.Use != nil || d.Elapsed != 0 {
		t.Errorf("%+v", d)
	}
	_, text := printed(ctx, t, "")
	if !strings.Contains(text, "INTERRUPTED") {
		t.Errorf("nothing says that it is a part:\n%s", text)
	}
	_, text = printed(ctx, t, "--vary load=1,2")
	if !strings.Contains(text, "INTERRUPTED") {
		t.Errorf("nothing says that it is a part:\n%s", text)
	}

	s, err := command(t, "--load 2").resolve()
	must.OK(t, err)
	ctx, cancel = context.WithCancel(t.Context())
	w := newWorld(s)
	w.run(ctx, func(part float64) {
		if part > .5 {
			cancel()
		}
	})
	if r := w.report(); !r.Interrupted || r.Elapsed < 20_000 || r.Elapsed > 59_000 || *r.Use < .9 {
		t.Errorf("interrupted after a half: %+v", r)
	}
}

func TestProgressTellsTheTimeLeft(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.set(.2)
	if out.Len() > 0 {
		t.Errorf("a short run says %q", &out)
	}
	p.began, p.said = p.began.Add(-10*time.Second), p.said.Add(-10*time.Second)
	p.set(.25)
	if got := out.String(); got != "25%, 30s left\n" {
		t.Errorf("%q", got)
	}
}

func TestWrongFlags(t *testing.T) {
	tests := []struct{ args, want string }{
		{"--instances 0", "--instances is 0; it must be from 1 to 1000"},
		{"--instances 1001", "--instances is 1001; it must be from 1 to 1000"},
		{"--keys 0", "--keys is 0; it must be from 1 to 10000"},
		{"--keys 10000 --instances 200", "--keys is 10000; it must be at most 5000 with that many --instances (200)"},
		{"--strategy both", `--strategy is "both"; it must be one of absolute, suppressed`},
		{"--rate 0", "--rate is 0/s; it must be above 0"},
		{"--rate 1e7", "--rate is 1e+07; it must be at most 20000000 events in the --window (10s) of all --keys (1)"},
		{"--window 0s", "--window is 0s; it must be at least 1ms"},
		{"--bucket 0s", "--bucket is 0s; it must be at least 1ms"},
		{"--hard-limit-factor 0.5", "--hard-limit-factor is 0.5; it must be finite and at least 1"},
		{"--sync-interval 0s", "--sync-interval is 0s; it must be from 1ms to --window (10s)"},
		{"--sync-interval 11s", "--sync-interval is 11s; it must be from 1ms to --window (10s)"},
		{"--load 0", "--load is 0; it must be above 0"},
		{"--load NaN", "--load is NaN; it must be above 0"},
		{"--hot-keys 1.5", "--hot-keys is 1.5; it must be from 0 to 1"},
		{"--hot-load -1", "--hot-load is -1; it must be above 0"},
		{"--shape saw", `--shape is "saw"; it must be one of steady, step, spike, on-off`},
		{"--skew 1.1", "--skew is 1.1; it must be from 0 to 1"},
		{"--skew -0.5", "--skew is -0.5; it must be from 0 to 1"},
		{"--skew NaN", "--skew is NaN; it must be from 0 to 1"},
		{"--skew-moves -1s", "--skew-moves is -1s; it must be from 0s to 1000h0m0s"},
		{"--delay -1ms", "--delay is -1ms; it must be from 0s to 1000h0m0s"},
		{"--timeout 0s", "--timeout is 0s; it must be from 1ms to 1000h0m0s"},
		{"--loss 2", "--loss is 2; it must be from 0 to 1"},
		{"--policy open", `--policy is "open"; it must be one of closed, local`},
		{"--settle-cost 0s", "--settle-cost is 0s; it must be above 0s and at most 1s"},
		{"--keys 10 --scale-keys 5", "--scale-keys is 5; it must be from --keys (10) to 1e12"},
		{"--duration 15s", "--duration is 15s; it must be from 2 windows (20s) to 1000h0m0s"},
		{"--keys 10000 --duration 10h",
			"--duration is 10h0m0s; it must be short enough for at most 1e+09 calls; these would be 7.2e+10"},
		{"--seed -1", "--seed is -1; it must be at least 0"},
		{"--vary load", "--vary is load; it must be a flag, = and values with a comma between them; " +
			"the flag one of delay, die-at, hot-keys, instances, keys, load, loss, outage-for, rate, seed, " +
			"shape, skew, sync-interval"},
		{"--vary json=1", "--vary is json=1; it must be a flag, = and values with a comma between them; " +
			"the flag one of delay, die-at, hot-keys, instances, keys, load, loss, outage-for, rate, seed, " +
			"shape, skew, sync-interval"},
		{"--vary load=x", `--vary is "x"; it must be a number`},
		{"--vary load=1,0", "--load is 0; it must be above 0"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var out bytes.Buffer
			err := command(t, tt.args).Run(t.Context(), screen.Streams{Out: &out, Err: &out})
			if err == nil || err.Error() != tt.want || !flags.IsWrong(err) || out.Len() > 0 {
				t.Errorf("got %v\nwant %s\nprinted %q", err, tt.want, &out)
			}
		})
	}
}
