package measure

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strconv"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
)

// printable is a result for people, and for programs that read lines; its JSON is for programs that read
// documents.
type printable interface {
	table(io.Writer) error
	csv(io.Writer) error
}

// conditions are what every number of a result depends on.
type conditions struct {
	store.Where
	Strategy    string  `json:"strategy"`
	Keys        string  `json:"keys"`
	KeySpace    int     `json:"key_space"`
	HotFraction float64 `json:"hot_fraction"`
	Fresh       bool    `json:"fresh_keys"`
	Many        int     `json:"calls_at_a_time"`
	Rate        float64 `json:"rate_per_second"`
	Window      float64 `json:"window_ms"`
	Bucket      float64 `json:"bucket_ms"`
	Workers     int     `json:"workers"`
	Procs       int     `json:"procs"`
	Mode        string  `json:"mode"`
	Asked       float64 `json:"asked_ops_per_second"` // 0 in max mode
	Burst       int     `json:"burst"`
	WarmUp      float64 `json:"warm_up_ms"`
	Duration    float64 `json:"duration_ms"`
}

func (c *Command) conditions(p plan) conditions {
	return conditions{
		Where:       p.limit.Server.Where(p.limit.Server.Provider(), p.limit.Options.Window),
		Strategy:    c.Strategy,
		Keys:        c.Keys,
		KeySpace:    c.KeySpace,
		HotFraction: p.work.hot,
		Fresh:       p.fresh,
		Many:        p.many,
		Rate:        c.Rate,
		Window:      screen.Milliseconds(p.limit.Options.Window),
		Bucket:      screen.Milliseconds(p.limit.Options.Bucket),
		Workers:     len(p.work.sequences),
		Procs:       cmp.Or(p.procs, runtime.GOMAXPROCS(0)),
		Mode:        c.Mode,
		Asked:       p.qps,
		Burst:       p.burst,
		WarmUp:      screen.Milliseconds(p.warmUp),
		Duration:    screen.Milliseconds(c.Duration),
	}
}

// String is the conditions for a person.
func (c conditions) String() string {
	keys := screen.Count(uint64(c.KeySpace))
	s := map[string]string{
		"hot":     "all calls to one of " + keys + " keys",
		"uniform": "calls to " + keys + " keys, evenly",
		"skewed":  fmt.Sprintf("%.4g%% of calls to one key, the rest to %s", 100*c.HotFraction, keys),
	}[c.Keys]
	if c.Fresh {
		s += ", just written"
	}
	if c.Many > 1 {
		s += fmt.Sprintf(", %d at a time", c.Many)
	}
	limit := fmt.Sprintf("limit %.6g/s in %gs", c.Rate, c.Window/1000)
	if pace := c.Pace(); pace != "" {
		limit += ", " + pace
	}
	s += fmt.Sprintf(";\n%s; %d workers, after %gs to warm up", limit, c.Workers, c.WarmUp/1000)
	if c.Asked > 0 {
		s += fmt.Sprintf("\n%s asked for, in bursts of %d", screen.PerSecond(c.Asked), c.Burst)
	}
	if c.Server != "" {
		s += ";\n" + c.Where.String()
	}
	return s
}

// footnotes say how the numbers were taken that are in every table.
func (c conditions) footnotes(w io.Writer) {
	timed := fmt.Sprintf("one call in %d is timed, and one clock read with it", sampleEvery)
	switch c.Provider {
	case store.Redis:
		timed = fmt.Sprintf("one call to Redis in %d is timed; one in %d of those that need no server",
			sampleEveryRemote, sampleEvery)
	case store.Hybrid:
		timed = fmt.Sprintf("one call in %d is timed; of those that wait for Redis, one in %d", sampleEvery,
			sampleEveryRemote)
	}
	if c.Many > 1 {
		timed += fmt.Sprintf(";\n   of those made %d at a time, all of them together", c.Many)
	}
	if c.Asked > 0 {
		timed = "every call, from the instant it was due; a worker that wakes up late is part of it"
	}
	fmt.Fprintf(w, " ¹ %s\n", timed)
	fmt.Fprintf(w, " ² ÷ the most that an exact limiter could have admitted of these calls\n")
}

// result is all there is to say about one limiter.
type result struct {
	Limiter string `json:"limiter"`
	conditions

	Elapsed      float64 `json:"elapsed_ms"`
	Ops          uint64  `json:"ops"`
	OpsPerSecond float64 `json:"ops_per_second"`
	Allowed      uint64  `json:"allowed"`
	Denied       uint64  `json:"denied"`
	Skipped      uint64  `json:"skipped"`
	latency.Percentiles
	LatencySamples int64 `json:"latency_samples"`

	KeysTouched     int     `json:"keys_touched"`
	KeysExpected    int     `json:"keys_expected"`
	KeysHeld        *int    `json:"keys_held"` // null where the limiter does not tell
	AdmittedToLimit float64 `json:"admitted_to_limit_ratio"`

	// null where it could not be measured
	Settled      *uint64  `json:"settled"` // admitted in a run apart, and found in Redis after that
	Fullest      *uint64  `json:"largest_any_window"`
	FullestRatio *float64 `json:"largest_any_window_to_capacity_ratio"`
	AllocsPerOp  *float64 `json:"allocations_per_op"`
	BytesPerKey  *float64 `json:"memory_per_key_bytes"`
	redisCost
	RedisBytesPerKey *float64 `json:"redis_memory_per_key_bytes"`
}

// redisCost is what a decision costs the server, by its own count; null where that is not known.
type redisCost struct {
	RedisCommands *float64 `json:"redis_commands_ns_per_op"`
	RedisCPU      *float64 `json:"redis_cpu_ns_per_op"`
}

const costMethod = "by INFO: commands by the clock, the processor for all that it did meanwhile"

// costOf is the cost of a decision over all of the runs.
func costOf(runs ...run) redisCost {
	var work store.Work
	ops := 0.0
	for _, r := range runs {
		if r.server == nil {
			return redisCost{}
		}
		work = work.Add(*r.server)
		ops += float64(r.ops)
	}
	return redisCost{ptr(float64(work.Commands) / ops), ptr(float64(work.CPU) / ops)}
}

func newResult(name string, c conditions, r run, f footprint, fullest *uint64) *result {
	out := &result{
		Limiter:         name,
		conditions:      c,
		Elapsed:         screen.Milliseconds(r.elapsed),
		Ops:             r.ops,
		OpsPerSecond:    r.opsPerSecond(),
		Allowed:         r.allowed,
		Denied:          r.denied,
		Skipped:         r.skipped,
		Percentiles:     r.latency.Percentiles(),
		LatencySamples:  r.latency.Count(),
		KeysTouched:     r.touched,
		KeysExpected:    r.expected,
		KeysHeld:        r.held,
		AdmittedToLimit: r.admittedToLimit,
		Fullest:         fullest,
		AllocsPerOp:     f.allocsPerOp,
		BytesPerKey:     f.bytesPerKey,

		redisCost:        costOf(r),
		RedisBytesPerKey: f.redisBytesPerKey,
	}
	if fullest != nil {
		out.FullestRatio = ptr(float64(*fullest) / trapCapacity)
	}
	return out
}

func (r run) opsPerSecond() float64 { return float64(r.ops) / r.elapsed.Seconds() }

// label is the limiter with what distinguishes it.
func (c conditions) label(name string, where store.Where) string {
	switch {
	case peer.IsOurs(name):
		return name + " " + c.Strategy
	case where.Provider == store.Local && c.Server != "":
		return where.Provider + " " + name
	}
	return name
}

// Label is the limiter of a row with what distinguishes it.
func (c *Comparison) Label(x Compared) string { return c.label(x.Limiter, x.Where) }

// number writes x, if it could be measured.
func number(x *float64, write func(float64) string) string {
	if x == nil {
		return "not measured"
	}
	return write(*x)
}

func decimals(n int) func(float64) string {
	return func(x float64) string { return strconv.FormatFloat(x, 'f', n, 64) }
}

func nanoseconds(x float64) string { return screen.Nanoseconds(int64(x)) }

func (r *result) table(w io.Writer) error {
	fmt.Fprintln(w, r.conditions)
	ops := screen.PerSecond(r.OpsPerSecond)
	if r.Asked > 0 {
		ops += fmt.Sprintf(", %.1f%% of what was asked for", 100*r.OpsPerSecond/r.Asked)
	}
	rows := [][]string{
		{"calls", ops},
		{"allowed + denied = calls",
			screen.Count(r.Allowed) + " + " + screen.Count(r.Denied) + " = " + screen.Count(r.Ops)},
		{"latency p50 ¹", screen.Nanoseconds(r.P50)},
		{"latency p95", screen.Nanoseconds(r.P95)},
		{"latency p99", screen.Nanoseconds(r.P99)},
		{"latency p99.9", screen.Nanoseconds(r.P999)},
		{"latency max", screen.Nanoseconds(r.Max)},
		{"different keys called, predicted",
			screen.Count(uint64(r.KeysTouched)) + ", " + screen.Count(uint64(r.KeysExpected))},
		{"admitted ÷ limit ²", fmt.Sprintf("%.3f", r.AdmittedToLimit)},
		{"most in any window ÷ C ³", number(r.FullestRatio, decimals(2))},
		{"allocations per call ⁴", number(r.AllocsPerOp, decimals(2))},
		{"bytes per key ⁴", number(r.BytesPerKey, decimals(0))},
	}
	if r.Provider == store.Hybrid {
		settled := "not measured"
		if r.Settled != nil {
			settled = fmt.Sprintf("%s = %s", screen.Count(*r.Settled), screen.Count(*r.Settled))
		}
		rows = append(rows, []string{"admitted = told to Redis ⁷", settled})
	}
	if r.Server != "" {
		rows = append(rows, [][]string{
			{"Redis, commands of a decision ⁵", number(r.RedisCommands, nanoseconds)},
			{"Redis, processor for a decision ⁵", number(r.RedisCPU, nanoseconds)},
			{"Redis, bytes per key ⁶", number(r.RedisBytesPerKey, decimals(0))},
		}...)
	}
	err := screen.Table(w, []string{r.label(r.Limiter, r.Where), fmt.Sprintf("after %.2fs", r.Elapsed/1000)},
		rows)
	r.footnotes(w)
	if r.Skipped > r.Ops/50 {
		fmt.Fprintf(w, " ! the workers could not keep up: %s calls that were due were never made\n",
			screen.Count(r.Skipped))
	}
	fmt.Fprintf(w, " ³ %s\n", trapFor(r.Limiter, r.Server != ""))
	fmt.Fprintf(w, " ⁴ of %s calls for known keys, after as many; %s keys, without the texts\n",
		screen.Count(countedOps), screen.Count(uint64(r.KeySpace)))
	if r.Server != "" {
		fmt.Fprintf(w, " ⁵ %s\n", costMethod)
		fmt.Fprintf(w, " ⁶ growth of used_memory, with its connections; of %s keys or more, in %v\n",
			screen.Count(minRemoteKeys), remoteKeysLast)
	}
	if r.Provider == store.Hybrid {
		fmt.Fprintf(w, " ⁷ in %v apart, of %s keys or fewer, by what Redis then has of each\n",
			settlementTook, screen.Count(maxSettledKeys))
	}
	return err
}

func (r *result) csv(w io.Writer) error { return writeCSV(w, []result{*r}) }

// writeCSV writes a line for each row. The heads are the names that the fields have in JSON.
func writeCSV[T any](w io.Writer, rows []T) error {
	out := csv.NewWriter(w)
	var head []string
	fields := slices.DeleteFunc(reflect.VisibleFields(reflect.TypeFor[T]()), func(f reflect.StructField) bool {
		return f.Anonymous || f.Type.Kind() == reflect.Slice // which are no cells
	})
	for _, f := range fields {
		head = append(head, f.Tag.Get("json"))
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for _, row := range rows {
		var cells []string
		for _, f := range fields {
			v := reflect.ValueOf(row).FieldByIndex(f.Index)
			if v.Kind() == reflect.Pointer {
				if v.IsNil() {
					cells = append(cells, "")
					continue
				}
				v = v.Elem()
			}
			cells = append(cells, fmt.Sprint(v))
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
