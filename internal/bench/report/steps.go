package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/cli/store"
)

// effort is how much is measured, and how well.
type effort struct {
	Name   string        `json:"name"`
	Rounds int           `json:"rounds"`
	Each   time.Duration `json:"round_ns"`
	Times  int           `json:"repeated_measurements"` // of memory, and of what is not measured in rounds
	Passes int           `json:"passes"`                // over what the design sets marks for

	hybrid int  // rounds of Hybrid, which take a window each, as what it does depends on where in a window it is
	matrix bool // all key spaces and rates on Redis, and what is only for comparison
	huge   bool // ten million keys, too

	// of accuracy: the limit's window, how many are looked at, and the highest load where a server is asked
	window  time.Duration
	windows int
	remote  float64
}

// The efforts, from the least on.
var (
	quick = effort{
		Name: "quick", Rounds: 6, Each: 50 * time.Millisecond, Times: 1, Passes: 2,
		hybrid: 3, window: time.Second, windows: 3, remote: 10,
	}
	standard = effort{
		Name: "standard", Rounds: 10, Each: 200 * time.Millisecond, Times: 3, Passes: 2,
		hybrid: 5, matrix: true, window: 2 * time.Second, windows: 5, remote: 100,
	}
	full = effort{
		Name: "full", Rounds: 15, Each: 300 * time.Millisecond, Times: 5, Passes: 2,
		hybrid: 8, matrix: true, huge: true, window: 10 * time.Second, windows: 5, remote: 100,
	}
	efforts = []effort{quick, standard, full}
)

// step is one measurement, after which a report can be interrupted without loss. Exactly one kind of result
// comes of it.
type step struct {
	ID    string
	Title string
	About string // what it shows
	needs string // the provider whose server it needs, or empty

	lines []line // command lines of bench measure, which take turns where there are several
	kind  kind
	pass  int // from 1 on; what a later one measures is added to what the first one did

	took time.Duration // about as long as it takes
}

type line struct {
	label string
	args  string
	few   bool // rounds, a third of them, as one of many lines
}

type kind int

const (
	turns kind = iota
	accuracy
	fullest
	memory
	floors
)

// The limiters of each kind of measurement, in the order in which they are shown.
const (
	inProcess = "trypema,xtime-syncmap,xtime-xsync,go-limiter,throttled,ulule,httprate,slidingwindow," +
		"tollbooth,governor,rust-trypema"
	fewer    = "trypema,xtime-syncmap,go-limiter,governor,rust-trypema"
	scaling  = "trypema,xtime-syncmap,governor"
	onServer = "trypema,redis_rate,redis-cell,rust-trypema-redis"
	leasing  = "trypema-local,trypema-hybrid,rust-trypema-hybrid"

	onlyGo      = "trypema,xtime-syncmap"
	besideLocal = "trypema-local,trypema-hybrid"
)

// steps are all that an effort measures.
func (e effort) steps() []step {
	some := func(all, quick string) string {
		if e.matrix {
			return all
		}
		return quick
	}
	numbers := func(all ...int) []int {
		if e.matrix {
			return all
		}
		return slices.Delete(all, 1, 2)
	}
	s := []step{
		{ID: "floors", Title: "The parts of a decision", kind: floors,
			About: "The parts of any decision, and how long memory takes to answer, on this machine.",
			lines: []line{{args: "--keys uniform --key-space 100000"}}},
		{ID: "hot-over", Title: "One key, far over its limit",
			About: "An attack, or a client that retries without waiting: nearly all calls are denied.",
			lines: []line{{args: "--keys hot --key-space 1000 --warm-up 200ms --compare " + inProcess}}},
		{ID: "hot-under", Title: "One key, under its limit",
			About: "All calls are admitted, by all processors at once, on one counter.",
			lines: []line{{args: "--keys hot --key-space 1000 --rate 1e8 --warm-up 200ms --compare " + inProcess}}},
		{ID: "uniform-100k", Title: "100,000 keys",
			About: "Nothing of a key is in a cache when it is called; with Trypema every call also closes " +
				"one group and forgets another.",
			lines: []line{{args: "--keys uniform --key-space 100000 --compare " + some(inProcess, fewer)}}},
		{ID: "uniform-1m", Title: "A million keys",
			About: "More than fits into any cache.",
			lines: []line{{args: "--keys uniform --key-space 1000000 --compare " + some(inProcess, onlyGo)}}},
		{ID: "skewed", Title: "100,000 keys, skewed",
			About: "The canonical workload: a fifth of the calls go to one key, the rest to 100,000.",
			lines: []line{{args: "--compare " + some(inProcess, fewer)}}},
		{ID: "suppressed-hot", Title: "Suppressed: one key, far over its limit",
			About: "The strategy that declines a fraction, of both libraries that have it.",
			lines: []line{{args: "--strategy suppressed --keys hot --key-space 1000 --warm-up 200ms " +
				"--compare trypema,rust-trypema"}}},
		{ID: "tail", Title: "Latency at a given load, in bursts",
			About: "100,000 calls a second in bursts of 50, of which each counts from the instant when it " +
				"was due: being late because others were slow counts.",
			lines: []line{{args: "--mode target --qps 100000 --burst 50 --compare " + some(inProcess, fewer)}}},
		{ID: "growth", Title: "The number of keys",
			About: "Nanoseconds for a call to one of more and more keys.",
			lines: scaled(numbers(1000, 10_000, 100_000, 1_000_000), some(scaling, onlyGo),
				func(n int) string { return fmt.Sprintf("--keys uniform --key-space %d --rate 1e5", n) })},
		{ID: "buckets", Title: "Buckets in a window",
			About: "Nanoseconds for a call to one of 1,000 keys, with finer and finer buckets.",
			lines: scaled(numbers(1, 10, 100, 1000), onlyGo, func(n int) string {
				return fmt.Sprint("--keys uniform --key-space 1000 --rate 1e5 --window 1s --bucket ", time.Second/time.Duration(n))
			})},
		{ID: "processors", Title: "Processors",
			About: "Calls per second of all callers together, to one key over its limit, " +
				"with more and more processors.",
			lines: scaled(processors(), scaling, func(n int) string {
				return fmt.Sprint("--keys hot --key-space 1000 --warm-up 200ms --procs ", n)
			})},
		{ID: "memory-1k", Title: "Memory, 1,000 keys", kind: memory,
			lines: []line{{args: "--keys uniform --key-space 1000 --compare " + inProcess}}},
		{ID: "memory-100k", Title: "Memory, 100,000 keys", kind: memory,
			lines: []line{{args: "--keys uniform --key-space 100000 --compare " + inProcess}}},
		{ID: "memory-1m", Title: "Memory, a million keys", kind: memory,
			lines: []line{{args: "--keys uniform --key-space 1000000 --compare " +
				some(inProcess, scaling)}}},
		{ID: "windows", Title: "The fullest window", kind: fullest,
			About: "A call as a window opens, one shortly before it ends, then twice the capacity at once: " +
				"what came through in the fullest window, wherever it starts.",
			lines: []line{{args: "--keys hot --window 1s --compare " + inProcess}}},
		{ID: "accuracy", Title: "Offered and admitted", kind: accuracy,
			lines: []line{{args: e.accuracyArgs("absolute") + " --compare " + inProcess}}},
		{ID: "accuracy-suppressed", Title: "Offered and admitted, Suppressed", kind: accuracy,
			lines: []line{{args: e.accuracyArgs("suppressed") + " --compare trypema,rust-trypema"}}},
	}
	if e.matrix {
		s = append(s,
			step{ID: "seldom-100k", Title: "100,000 keys, one group in a window",
				About: "The same for keys that are called less than once in a bucket; other limiters have no buckets.",
				lines: []line{{args: "--keys uniform --key-space 100000 --bucket 10s --compare " + fewer}}},
			step{ID: "suppressed-100k", Title: "Suppressed: 100,000 keys",
				lines: []line{{args: "--strategy suppressed --keys uniform --key-space 100000 --compare " +
					"trypema,rust-trypema"}}})
	}
	if e.huge {
		s = append(s,
			step{ID: "uniform-10m", Title: "Ten million keys",
				lines: []line{{args: "--keys uniform --key-space 10000000 --compare trypema,xtime-syncmap"}}},
			step{ID: "memory-10m", Title: "Memory, ten million keys", kind: memory,
				lines: []line{{args: "--keys uniform --key-space 10000000 --compare trypema,xtime-syncmap"}}})
	}
	s = append(s,
		step{ID: "redis-hot", Title: "Redis: one key, 256 callers", needs: store.Redis,
			About: "Server, clients and callers share this machine.",
			lines: []line{{args: "--provider redis --window 1s --keys hot --key-space 1 --compare " + onServer}}},
		step{ID: "redis-10k", Title: "Redis: 10,000 keys, 256 callers", needs: store.Redis,
			lines: []line{{args: "--provider redis --window 1s --keys uniform --key-space 10000 --compare " + onServer}}},
		step{ID: "redis-alone", Title: "Redis: a lone caller", needs: store.Redis,
			About: "What a decision costs the server when nothing is shared, and what a caller waits.",
			lines: []line{{args: "--provider redis --window 1s --keys hot --key-space 1 --rate 1e6 --workers 1 " +
				"--compare " + onServer}}},
		step{ID: "hybrid-hot", Title: "Hybrid: one key", needs: store.Hybrid,
			About: "Beside Local, which needs no server.",
			lines: []line{{args: "--provider hybrid --window 1s --keys hot --key-space 1 --compare " +
				some(leasing, besideLocal)}}},
		step{ID: "hybrid-100k", Title: "Hybrid: 100,000 keys", needs: store.Hybrid,
			About: "Beside Local, which needs no server. Leases of keys that have rested since the round before " +
				"are renewed first: in six seconds before a round is timed, or within it if the report is quick.",
			lines: []line{{args: "--provider hybrid --window 1s --keys uniform --key-space 100000 " +
				some("--warm-up 6s --compare "+leasing, "--compare "+besideLocal)}}},
		step{ID: "hybrid-suppressed-10k", Title: "Hybrid, Suppressed: 10,000 keys", needs: store.Hybrid,
			About: "Each key has a limit of 1/s.",
			lines: []line{{args: "--provider hybrid --strategy suppressed --window 1s --keys uniform --key-space 10000 " +
				"--rate 1 --compare trypema-hybrid,rust-trypema-hybrid"}}},
		step{ID: "windows-redis", Title: "The fullest window, Redis", kind: fullest, needs: store.Redis,
			lines: []line{{args: "--provider redis --window 1s --keys hot --compare " + onServer +
				",trypema-hybrid,rust-trypema-hybrid"}}},
		step{ID: "accuracy-redis", Title: "Offered and admitted, Redis", kind: accuracy, needs: store.Redis,
			lines: []line{{args: "--provider redis " + e.accuracyArgs("absolute") + " --compare " + onServer}}},
		step{ID: "accuracy-hybrid", Title: "Offered and admitted, Hybrid", kind: accuracy, needs: store.Hybrid,
			lines: []line{{args: "--provider hybrid " + e.accuracyArgs("absolute") +
				" --compare trypema-hybrid,rust-trypema-hybrid"}}},
		step{ID: "accuracy-hybrid-suppressed", Title: "Offered and admitted, Hybrid under Suppressed",
			kind: accuracy, needs: store.Hybrid,
			lines: []line{{args: "--provider hybrid " + e.accuracyArgs("suppressed") +
				" --compare trypema-hybrid,rust-trypema-hybrid"}}},
	)
	if e.matrix {
		s = append(s, e.grid(store.Redis, onServer), e.grid(store.Hybrid, "trypema-hybrid,rust-trypema-hybrid"))
	}
	for i := range s {
		s[i].pass = 1
	}
	for pass := 2; pass <= e.Passes; pass++ {
		s = append(s, e.again(s, pass)...)
	}
	for i := range s {
		s[i].took = e.duration(s[i])
	}
	return s
}

// marked are the limiters that the design sets a mark for, by step.
var marked = map[string]string{
	"hot-over": "trypema,xtime-syncmap,governor,rust-trypema", "hot-under": "trypema,xtime-syncmap,governor",
	"uniform-100k": "trypema,xtime-syncmap,governor,rust-trypema", "growth": onlyGo,
	"redis-hot": "trypema,redis-cell", "redis-10k": "trypema,redis_rate", "redis-alone": "trypema,redis_rate",
	"hybrid-hot": besideLocal, "hybrid-100k": besideLocal,
}

// again are the steps of another pass: a machine that is shared has moods that last longer than a step. A
// quick report has no time for the longest of them.
func (e effort) again(steps []step, pass int) (again []step) {
	for _, s := range steps {
		limiters, ok := marked[s.ID]
		if !ok || s.pass > 1 || !e.matrix && (s.ID == "growth" || s.ID == "hybrid-100k") {
			continue
		}
		lines := s.lines
		s.pass, s.lines = pass, nil
		for _, l := range lines {
			flags, _, _ := strings.Cut(l.args, compare)
			s.lines = append(s.lines, line{label: l.label, args: flags + compare + limiters})
		}
		again = append(again, s)
	}
	return again
}

// accuracyArgs make a limit of 100/s.
func (e effort) accuracyArgs(strategy string) string {
	return fmt.Sprintf("--strategy %s --keys hot --key-space 1 --rate 100 --window %v", strategy, e.window)
}

// scaled are lines that compare limiters as something grows. The labels are its numbers.
func scaled(numbers []int, limiters string, args func(n int) string) (lines []line) {
	for _, n := range numbers {
		lines = append(lines, line{label: fmt.Sprint(n), args: args(n) + " " + compare + limiters})
	}
	return lines
}

// grid is all key spaces and rates of a provider with a server.
func (e effort) grid(provider, limiters string) step {
	s := step{ID: provider + "-grid", Title: "Keys and rates, " + provider, needs: provider,
		About: "Calls per second for key spaces of 10 to 10,000 and limits of 1/s to 100,000/s."}
	for _, keys := range []int{10, 1000, 10_000} {
		for _, rate := range []int{1, 10, 100, 1000, 10_000, 100_000} {
			s.lines = append(s.lines, line{
				few: true, label: fmt.Sprintf("%d keys, %d/s", keys, rate),
				args: fmt.Sprintf("--provider %s --window 1s --keys uniform --key-space %d --rate %d --compare %s",
					provider, keys, rate, limiters),
			})
		}
	}
	return s
}

const compare = "--compare "

// args are those of a line, as measured with the effort.
func (e effort) args(l line, k kind) []string {
	args := strings.Fields(l.args)
	if k != turns {
		return args
	}
	rounds, each := e.rounds(l)
	if !strings.Contains(l.args, "--warm-up") {
		args = append(args, "--warm-up", l.warmUp().String())
	}
	return append(args, "--rounds", fmt.Sprint(rounds), "--duration", (time.Duration(rounds) * each).String())
}

// rounds is how many there are for a line, and how long each is.
func (e effort) rounds(l line) (n int, each time.Duration) {
	n, each = e.Rounds, e.Each
	if l.hybrid() {
		n, each = e.hybrid, time.Second
	}
	if l.few {
		n = max(2, n/3)
	}
	return n, each
}

func (l line) hybrid() bool { return strings.Contains(l.args, "--provider "+store.Hybrid) }

// warmUp is what a line has that does not say.
func (l line) warmUp() time.Duration {
	if l.hybrid() {
		return 300 * time.Millisecond
	}
	return 1200 * time.Millisecond
}

// limiters is how many a line compares.
func (l line) limiters() int {
	_, names, _ := strings.Cut(l.args, compare)
	return strings.Count(names, ",") + 1
}

// duration is about what a step takes.
func (e effort) duration(s step) (d time.Duration) {
	for _, l := range s.lines {
		n := time.Duration(l.limiters())
		switch s.kind {
		case turns:
			warm := l.warmUp()
			if strings.Contains(l.args, "--warm-up 200ms") {
				warm = 200 * time.Millisecond
			}
			rounds, round := e.rounds(l)
			each := warm + time.Duration(rounds)*(round+10*time.Millisecond)
			switch {
			case strings.Contains(l.args, "10000000"):
				each += 20 * time.Second
			case strings.Contains(l.args, "1000000 "):
				each += 2 * time.Second
			case strings.Contains(l.args, "--warm-up 6s"):
				each = time.Second + time.Duration(rounds)*7*time.Second
			case l.hybrid():
				each = time.Second + time.Duration(rounds)*1400*time.Millisecond
			}
			d += n * each
		case accuracy:
			if e.together(s) {
				n = 1
			}
			d += n * time.Duration(e.windows+1) * e.window
		case fullest:
			d += n * time.Duration(e.Times) * 900 * time.Millisecond
		case memory:
			d += n * time.Duration(e.Times) * 500 * time.Millisecond
		case floors:
			d += time.Duration(e.Times) * 500 * time.Millisecond
		}
	}
	return d
}

// command is a line as the command of bench measure that it is.
func (e effort) command(l line, k kind, server string) (*measure.Command, error) {
	args := e.args(l, k)
	if server != "" && strings.Contains(l.args, "--provider") {
		args = append(args, "--redis", server)
	}
	return measure.Parse(args...)
}
