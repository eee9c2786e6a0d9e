package sim

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
)

// report is the result of a run. Its JSON is for programs, its table for people. What is said of the settled
// part, which is all but the first window, is null where a run was interrupted before.
type report struct {
	Command     string   `json:"command"`
	Settings    settings `json:"settings"`
	Elapsed     float64  `json:"elapsed_virtual_ms"`
	Interrupted bool     `json:"interrupted"`

	Offered   uint64 `json:"offered"`
	Admitted  uint64 `json:"admitted"`
	Declined  uint64 `json:"declined"`
	Undecided uint64 `json:"undecided"` // their instance was killed, or the run ended
	Fallback  uint64 `json:"fallback"`  // of all decisions: made without Redis

	Load                *float64 `json:"settled_load_ratio"`
	Use                 *float64 `json:"settled_admitted_to_limit_ratio"`
	Reference           string   `json:"reference"`
	AdmittedToReference *float64 `json:"admitted_to_reference_ratio"`

	Capacity     uint64  `json:"capacity"`
	Bound        uint64  `json:"any_window_bound"`
	Fullest      int     `json:"largest_any_window"`
	FullestRatio float64 `json:"largest_any_window_to_capacity_ratio"`
	Judged       bool    `json:"any_window_judged"`

	Waited        float64  `json:"waited_ratio"`
	WaitedSettled *float64 `json:"settled_waited_ratio"`
	WaitP99       int64    `json:"wait_p99_ns"`
	WaitMax       int64    `json:"wait_max_ns"`

	Exchanges              *float64 `json:"settled_exchanges_per_instance_per_interval"`
	Settlements            *float64 `json:"settled_key_settlements_per_second"`
	SettlementsPerInstance *float64 `json:"settled_key_settlements_per_instance_per_second"`

	SettlementsPerCall *float64 `json:"settled_key_settlements_per_call"`

	LeastShare *float64 `json:"settled_least_admitted_of_an_instance_to_even_share_ratio"` // null unless calls are even
	MostShare  *float64 `json:"settled_most_admitted_of_an_instance_to_even_share_ratio"`
	FirstCalls *float64 `json:"settled_calls_to_first_instance_share"`
	FirstShare *float64 `json:"settled_admitted_by_first_instance_share"`

	// Suppressed only.
	Variation       *float64 `json:"settled_variation_per_100ms,omitempty"`
	VariationChance *float64 `json:"settled_variation_per_100ms_by_chance,omitempty"`
	Pause           *float64 `json:"longest_pause_ms,omitempty"`
	PauseSettled    *float64 `json:"settled_longest_pause_ms,omitempty"`

	Nodes *nodes `json:"nodes"`
	OK    bool   `json:"ok"`

	settleCost time.Duration
}

type settings struct {
	Instances    int      `json:"instances"`
	Keys         int      `json:"keys"`
	Strategy     string   `json:"strategy"`
	Rate         float64  `json:"rate_per_second"`
	Window       float64  `json:"window_ms"`
	Bucket       float64  `json:"bucket_ms"`
	HardFactor   float64  `json:"hard_limit_factor"`
	SyncInterval float64  `json:"sync_interval_ms"`
	Load         float64  `json:"load_ratio"`
	HotKeys      int      `json:"hot_keys"`
	HotLoad      float64  `json:"hot_load_ratio"`
	Shape        string   `json:"shape"`
	Skew         *float64 `json:"skew"`
	SkewMoves    float64  `json:"skew_moves_ms"`
	Delay        float64  `json:"delay_ms"`
	Jitter       float64  `json:"jitter_ms"`
	Timeout      float64  `json:"timeout_ms"`
	Loss         float64  `json:"loss"`
	OutageAt     float64  `json:"outage_at_ms"`
	OutageFor    float64  `json:"outage_for_ms"`
	Policy       string   `json:"policy"`
	DieAt        float64  `json:"die_at_ms"`
	PauseAt      float64  `json:"pause_at_ms"`
	PauseFor     float64  `json:"pause_for_ms"`
	Duration     float64  `json:"duration_ms"`
	Seed         uint64   `json:"seed"`
}

// nodes is how many nodes of Redis the traffic of the settled part needs. It is arithmetic: what was
// simulated, multiplied.
type nodes struct {
	SettleCost  float64 `json:"assumed_settle_cost_ns"`
	Use         float64 `json:"assumed_node_use"`
	Keys        float64 `json:"keys"`
	Decisions   float64 `json:"decisions_per_second"`
	Settlements float64 `json:"key_settlements_per_second"`
	Nodes       float64 `json:"nodes"`
	PerMillion  float64 `json:"nodes_per_million_decisions_per_second"`
}

// What admissions are compared with.
const (
	exactLog    = "an exact log"
	oneInstance = "one instance"
)

const nodeUse = 0.5 // of the time of a node

func ptr[T any](v T) *T { return &v }

// report sums up a run that has ended.
func (w *world) report() report {
	m, s := w.meter, w.setup
	m.end(w.now)
	out := report{
		Command:      "sim",
		Settings:     s.settings(),
		Elapsed:      screen.Milliseconds(time.Duration(w.now)),
		Interrupted:  w.now < int64(s.duration),
		Offered:      m.all.offered,
		Admitted:     m.all.admitted,
		Declined:     m.all.declined,
		Undecided:    m.all.offered - m.all.admitted - m.all.declined,
		Fallback:     m.fallback,
		Reference:    exactLog,
		settleCost:   s.SettleCost,
		Capacity:     s.capacity,
		Bound:        s.bound,
		Fullest:      m.fullest,
		FullestRatio: float64(m.fullest) / float64(s.capacity),
		Judged:       m.fallback == 0 || s.Policy == policyClosed,
		WaitP99:      m.waits.Percentiles().P99,
		WaitMax:      m.waits.Percentiles().Max,
	}
	if s.suppressed {
		out.Reference = oneInstance
		out.Pause, out.PauseSettled = ptr(0.0), ptr(0.0)
		for n := range m.keys {
			*out.Pause = max(*out.Pause, screen.Milliseconds(time.Duration(m.keys[n].pause)))
			*out.PauseSettled = max(*out.PauseSettled, screen.Milliseconds(time.Duration(m.keys[n].calm)))
		}
		if v, chance := m.variation(w.now); !math.IsNaN(v) {
			out.Variation, out.VariationChance = &v, &chance
		}
	}
	out.OK = !out.Judged || uint64(out.Fullest) <= out.Bound
	if m.all.offered > 0 {
		out.Waited = float64(m.all.waited) / float64(m.all.offered)
	}
	if m.all.reference > 0 {
		out.AdmittedToReference = ptr(float64(m.all.admitted) / float64(m.all.reference))
	}
	if seconds := time.Duration(w.now - m.from).Seconds(); seconds > 0 {
		w.reportSettled(&out, seconds)
	}
	return out
}

func (w *world) reportSettled(out *report, seconds float64) {
	m, s := w.meter, w.setup
	limit := float64(s.capacity) / s.options.Window.Seconds() * float64(s.Keys) * seconds
	out.Load = ptr(float64(m.late.offered) / limit)
	out.Use = ptr(float64(m.late.admitted) / limit)
	if m.late.offered > 0 {
		out.FirstCalls = ptr(float64(m.late.first) / float64(m.late.offered))
		out.SettlementsPerCall = ptr(float64(m.late.settlements) / float64(m.late.offered))
		out.WaitedSettled = ptr(float64(m.late.waited) / float64(m.late.offered))
	}
	out.Exchanges = ptr(float64(m.late.exchanges) / float64(s.Instances) / (seconds / s.interval.Seconds()))
	settlements := float64(m.late.settlements) / seconds
	out.Settlements = &settlements
	out.SettlementsPerInstance = ptr(settlements / float64(s.Instances))
	if m.late.admitted > 0 {
		even := float64(m.late.admitted) / float64(s.Instances)
		if s.skew < 0 {
			out.LeastShare = ptr(float64(slices.Min(m.by)) / even)
			out.MostShare = ptr(float64(slices.Max(m.by)) / even)
		}
		out.FirstShare = ptr(float64(m.by[0]) / float64(m.late.admitted))
	}
	decisions := float64(m.late.offered) / seconds
	cost := s.SettleCost.Seconds() / nodeUse
	out.Nodes = &nodes{
		SettleCost:  float64(s.SettleCost),
		Use:         nodeUse,
		Keys:        float64(s.Keys) * s.scale,
		Decisions:   decisions * s.scale,
		Settlements: settlements * s.scale,
		Nodes:       settlements * s.scale * cost,
	}
	if decisions > 0 {
		out.Nodes.PerMillion = 1e6 / decisions * settlements * cost
	}
}

func (s setup) settings() settings {
	out := settings{
		Instances:    s.Instances,
		Keys:         s.Keys,
		Strategy:     s.Strategy,
		Rate:         s.Rate,
		Window:       screen.Milliseconds(s.options.Window),
		Bucket:       screen.Milliseconds(s.options.Bucket),
		HardFactor:   s.options.HardLimitFactor,
		SyncInterval: screen.Milliseconds(s.interval),
		Load:         s.Load,
		HotKeys:      s.hotKeys,
		HotLoad:      s.HotLoad,
		SkewMoves:    screen.Milliseconds(s.SkewMoves),
		Shape:        s.shape.name,
		Delay:        screen.Milliseconds(s.Delay),
		Jitter:       screen.Milliseconds(s.Jitter),
		Timeout:      screen.Milliseconds(s.Timeout),
		Loss:         s.Loss,
		OutageAt:     screen.Milliseconds(s.OutageAt),
		OutageFor:    screen.Milliseconds(s.OutageFor),
		Policy:       s.Policy,
		DieAt:        screen.Milliseconds(s.DieAt),
		PauseAt:      screen.Milliseconds(s.PauseAt),
		PauseFor:     screen.Milliseconds(s.PauseFor),
		Duration:     screen.Milliseconds(s.duration),
		Seed:         uint64(s.Seed),
	}
	if s.skew >= 0 {
		out.Skew = &s.skew
	}
	return out
}

// String is the settings for a person; what is as it mostly is goes without saying.
func (s settings) String() string {
	share := "with equal load"
	if s.Skew != nil {
		share = fmt.Sprintf("%.4g%% of the calls to the first", 100**s.Skew)
		if s.SkewMoves > 0 {
			share = fmt.Sprintf("%.4g%% of the calls to one, another every %gs", 100**s.Skew, s.SkewMoves/1000)
		}
	}
	text := fmt.Sprintf("%s: %s, %s\nkeys: %s, each %.6g/s in %gs; load %g× %s", s.Strategy,
		plural(float64(s.Instances), "instance"), share,
		screen.Count(uint64(s.Keys)), s.Rate, s.Window/1000, s.Load, s.Shape)
	if s.HotKeys > 0 {
		text += fmt.Sprintf(", %g× for %s", s.HotLoad, plural(float64(s.HotKeys), "hot key"))
	}
	text += fmt.Sprintf("\nsettling every %gms; to Redis: %gms, and %gms by chance; seed %d", s.SyncInterval,
		s.Delay, s.Jitter, s.Seed)
	var trouble []string
	if s.Loss > 0 {
		trouble = append(trouble, fmt.Sprintf("%.4g%% of messages lost", 100*s.Loss))
	}
	if s.OutageFor > 0 {
		trouble = append(trouble,
			fmt.Sprintf("no Redis from %gs for %gs, policy %s", s.OutageAt/1000, s.OutageFor/1000, s.Policy))
	}
	if s.DieAt > 0 {
		trouble = append(trouble, fmt.Sprintf("the first killed at %gs", s.DieAt/1000))
	}
	if s.PauseFor > 0 {
		trouble = append(trouble,
			fmt.Sprintf("the first paused at %gs for %gs", s.PauseAt/1000, s.PauseFor/1000))
	}
	if len(trouble) > 0 {
		text += ";\n" + strings.Join(trouble, ";\n")
	}
	return text
}

// broken returns an error if the bound was broken.
func (r report) broken() error {
	if r.OK {
		return nil
	}
	return fmt.Errorf("%d admitted in one window of a key, which may hold %d", r.Fullest, r.Bound)
}

// number writes x, if the run came to measure it.
func number(x *float64, format string, scale float64) string {
	if x == nil {
		return "–"
	}
	return fmt.Sprintf(format, *x*scale)
}

func perSecond(x *float64) string {
	if x == nil {
		return "–"
	}
	return screen.PerSecond(*x)
}

// some writes a number of nodes.
func some(x float64) string {
	if x < 100 {
		return fmt.Sprintf("%.2f", x)
	}
	return screen.Count(uint64(math.Ceil(x)))
}

func plural(n float64, word string) string {
	if n != 1 {
		word += "s"
	}
	return screen.Count(uint64(n)) + " " + word
}

func milliseconds(x *float64) string {
	return screen.Nanoseconds(int64(*x * float64(time.Millisecond)))
}

// table writes the report for a person.
func (r report) table(w io.Writer) error {
	fmt.Fprintln(w, r.Settings)
	after := fmt.Sprintf("%gs of virtual time", r.Elapsed/1000)
	if r.Interrupted {
		after = fmt.Sprintf("INTERRUPTED after %.3gs of %gs", r.Elapsed/1000, r.Settings.Duration/1000)
	}
	mark := "✓"
	switch {
	case !r.Judged:
		mark = "not judged"
	case !r.OK:
		mark = "✗ BROKEN"
	}
	rows := [][]string{
		{"offered ÷ limit ¹", number(r.Load, "%.3f", 1)},
		{"admitted ÷ limit (use) ¹", number(r.Use, "%.3f", 1)},
		{"admitted ÷ that of " + r.Reference + " ²", number(r.AdmittedToReference, "%.3f", 1)},
		{"most in any window ÷ C ³",
			fmt.Sprintf("%.4f of %.4g %s", r.FullestRatio, float64(r.Bound)/float64(r.Capacity), mark)},
		{"calls that waited for Redis", fmt.Sprintf("%.3f%%", 100*r.Waited)},
		{"the same, settled ¹", number(r.WaitedSettled, "%.3f%%", 100)},
		{"wait of these p99, longest", screen.Nanoseconds(r.WaitP99) + ", " + screen.Nanoseconds(r.WaitMax)},
		{"exchanges per instance per interval ¹", number(r.Exchanges, "%.2f", 1)},
		{"key settlements ¹", perSecond(r.Settlements)},
		{"the same per instance ¹", perSecond(r.SettlementsPerInstance)},
		{"the same per call ¹", number(r.SettlementsPerCall, "%.3f", 1)},
	}
	if r.Fallback > 0 {
		rows = append(rows, []string{"decided without Redis", screen.Count(r.Fallback)})
	}
	if r.Undecided > 0 {
		rows = append(rows, []string{"never decided ⁴", screen.Count(r.Undecided)})
	}
	switch {
	case r.Settings.Instances == 1:
	case r.Settings.Skew == nil:
		rows = append(rows, []string{"admitted by an instance ÷ even share ¹",
			number(r.LeastShare, "%.3f", 1) + " … " + number(r.MostShare, "%.3f", 1)})
	default:
		rows = append(rows, []string{"first instance: of calls, of admissions ¹",
			number(r.FirstCalls, "%.1f%%", 100) + ", " + number(r.FirstShare, "%.1f%%", 100)})
	}
	if r.Pause != nil {
		rows = append(rows,
			[]string{"variation per 100ms, by chance alone ¹",
				number(r.Variation, "%.3f", 1) + ", " + number(r.VariationChance, "%.3f", 1)},
			[]string{"longest pause, settled ¹", milliseconds(r.Pause) + ", " + milliseconds(r.PauseSettled)},
		)
	}
	if err := screen.Table(w, []string{after, screen.Count(r.Offered) + " calls"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(w, " ¹ without the first window")
	fmt.Fprintln(w, " ²", r.footnote())
	fmt.Fprintln(w, " ³ of any key, over all instances, by the true instants")
	if r.Undecided > 0 {
		fmt.Fprintln(w, " ⁴ their instance was killed, or the run ended")
	}
	if n := r.Nodes; n != nil {
		return n.table(w)
	}
	return nil
}

// footnote says what the reference is.
func (r report) footnote() string {
	if r.Reference == exactLog {
		return "a log of every event, which hears of the same calls"
	}
	return "one window under the same law, which hears of the same calls"
}

func (n *nodes) table(w io.Writer) error {
	err := screen.Table(w, []string{"arithmetic ⁵", plural(n.Keys, "key")}, [][]string{
		{"decisions", screen.PerSecond(n.Decisions)},
		{"key settlements", screen.PerSecond(n.Settlements)},
		{"nodes of Redis", some(n.Nodes)},
		{"nodes for a million decisions a second", some(n.PerMillion)},
	})
	fmt.Fprintf(w,
		" ⁵ by the number of keys, and %v of a node for a settlement (an assumption),\n   each node used to %.0f%%\n",
		time.Duration(n.SettleCost), 100*n.Use)
	return err
}
