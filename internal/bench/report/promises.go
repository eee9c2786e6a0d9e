package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/cli/screen"
)

// promise is a number that the design sets a mark for.
type promise struct {
	What  string
	Asked string

	atLeast, atMost float64 // one of them; 0 for none
	values          []float64
	write           func(float64) string
}

// Got is what was measured: the median, with the least and the greatest.
func (p promise) Got() string {
	if len(p.values) == 0 {
		return notMeasured
	}
	return spread(p.values, p.write)
}

// Verdict says whether the mark was reached.
func (p promise) Verdict() string {
	switch {
	case len(p.values) == 0:
		return ""
	case p.atLeast > 0 && measure.Median(p.values) < p.atLeast, p.atLeast == 0 && measure.Median(p.values) > p.atMost:
		return missedMark
	}
	return "✓"
}

const missedMark = "missed"

// notMeasured stands where a number is missing.
const notMeasured = "not measured"

// Promised is a sheet of all of them.
func (d *document) Promised() sheet {
	s := sheet{Head: []string{"", "asked for", "measured", ""}}
	for _, p := range d.promises() {
		s.add(p.What, p.Asked, p.Got(), p.Verdict())
	}
	return s
}

func times(x float64) string { return fmt.Sprintf("%.3g ×", x) }

// promises are all rows of the design's table, in its order.
func (d *document) promises() (all []promise) {
	const ours, syncmap = "trypema", "xtime-syncmap"
	names := map[string]string{
		syncmap: "x/time/rate in a sync.Map", "governor": "governor", "rust-trypema": "Trypema in Rust",
		"redis-cell": "redis-cell by go-redis", "redis_rate": "redis_rate by the same client", "trypema-local": "Local",
	}
	faster := func(step, what, limiter, peer string, mark float64) {
		all = append(all, promise{
			What:  fmt.Sprintf("%s ÷ %s", what, names[peer]),
			Asked: fmt.Sprintf("≥ %g ×", mark), atLeast: mark, write: times,
			values: perRound(d.row(step, "", limiter), d.row(step, "", peer), calls),
		})
	}
	faster("hot-over", "hot key over its limit", ours, syncmap, 4)
	faster("hot-over", "hot key over its limit", ours, "governor", 2)
	faster("hot-over", "hot key over its limit", ours, "rust-trypema", 2)
	faster("hot-under", "hot key under its limit", ours, syncmap, 2)
	faster("hot-under", "hot key under its limit", ours, "governor", 1.5)
	faster("uniform-100k", "100,000 keys", ours, syncmap, 3)
	faster("uniform-100k", "100,000 keys", ours, "governor", 1.5)
	faster("uniform-100k", "100,000 keys", ours, "rust-trypema", 1.5)

	slower := func(step, what, large, small, asked string, mark float64) {
		all = append(all, promise{
			What: what, Asked: asked, atMost: mark, write: times,
			values: perRound(d.row(step, small, ours), d.row(step, large, ours), calls),
		})
	}
	slower("growth", "time of a call, 1,000,000 keys ÷ 1,000 keys", "1000000", "1000", "≤ 3 ×", 3)
	slower("buckets", "time of a call, 1,000 buckets ÷ 1 bucket", "1000", "1", "≤ 2 ×, whatever is finer", 2)

	all = append(all, promise{
		What:  "bytes for a key that is seldom called, of 1,000,000",
		Asked: "≤ 160", atMost: 160, write: whole, values: d.footprint("memory-1m", ours).BytesPerKey,
	}, promise{
		What:  "allocations for a call to a known key",
		Asked: "0", atMost: 0.005, write: hundredths, values: d.footprint("memory-1k", ours).AllocsPerOp,
	})
	collection := promise{
		What:  "what 1,000,000 keys add to a garbage collection ÷ what they add with x/time/rate",
		Asked: "nothing: ≤ 0.02 ×", atMost: 0.02, write: times,
	}
	alone, others := d.footprint("memory-1m", "").Collection, d.footprint("memory-1m", syncmap).Collection
	if with := d.footprint("memory-1m", ours).Collection; len(alone) > 0 && len(with) > 0 && len(others) > 0 {
		base := measure.Median(alone)
		adds := max(0, measure.Median(with)-base) / (measure.Median(others) - base)
		collection.values = []float64{adds}
	}
	all = append(all, collection)

	faster("redis-hot", "Redis: hot key, 256 callers", ours, "redis-cell", 10)
	faster("redis-10k", "Redis: 10,000 keys, 256 callers", ours, "redis_rate", 1.5)
	cost := promise{
		What:  "Redis: time of the server for a decision, a lone caller ÷ redis_rate",
		Asked: "≤ 1.1 ×", atMost: 1.1, write: times,
	}
	if a, b := d.row("redis-alone", "", ours), d.row("redis-alone", "", "redis_rate"); a != nil && b != nil &&
		a.RedisCommands != nil && b.RedisCommands != nil {
		cost.values = []float64{*a.RedisCommands / *b.RedisCommands}
	}
	all = append(all, cost)
	for _, step := range []struct{ id, what string }{
		{"hybrid-hot", "Hybrid: hot key"}, {"hybrid-100k", "Hybrid: 100,000 keys"},
	} {
		faster(step.id, step.what, "trypema-hybrid", "trypema-local", 0.8)
		x := d.row(step.id, "", "trypema-hybrid")
		all = append(all, promise{
			What: step.what + ", 99.9th percentile", Asked: "≤ 10 µs", atMost: 10_000, write: nanoseconds,
			values: x.PerRound(func(r measure.Round) float64 { return float64(r.P999) }),
		}, promise{
			What: step.what + ", maximum", Asked: "≤ 5 ms", atMost: 5e6, write: nanoseconds,
			values: x.PerRound(func(r measure.Round) float64 { return float64(r.Max) }),
		})
	}
	all = append(all, promise{
		What:  "Hybrid, Suppressed: 10,000 keys at a limit of 1/s",
		Asked: "≥ 1,000,000/s", atLeast: 1e6, write: screen.PerSecond,
		values: d.row("hybrid-suppressed-10k", "", "trypema-hybrid").PerRound(calls),
	})
	return append(all, d.exactness()...)
}

// exactness is what is promised of every provider's admissions.
func (d *document) exactness() (all []promise) {
	for _, of := range []struct {
		what, windows, accuracy, limiter string
		near                             float64
	}{
		{"Local", "windows", "accuracy", "trypema", 0.98},
		{"Redis", "windows-redis", "accuracy-redis", "trypema", 0.98},
		{"Hybrid", "windows-redis", "accuracy-hybrid", "trypema-hybrid", 0.95},
	} {
		bound := promise{What: of.what + ": most in any window ÷ C", Asked: "≤ 1", atMost: 1, write: hundredths}
		if r := d.step(of.windows); r != nil {
			for _, f := range r.Fullest {
				if f.Limiter == of.limiter && f.Ratio != nil {
					bound.values = append(bound.values, *f.Ratio)
				}
			}
		}
		near := promise{
			What:  of.what + ": admitted ÷ by an exact log, 0.5 to 2 times the limit",
			Asked: "≥ " + percent(of.near), atLeast: of.near, write: percent,
		}
		if a := d.accuracy(of.accuracy, of.limiter); a != nil {
			least := math.Inf(1)
			for _, l := range a.Loads {
				bound.values = append(bound.values, float64(l.Fullest)/float64(a.Capacity))
				if l.Load >= 0.5 && l.Load <= 2 && l.Exact > 0 {
					least = min(least, float64(l.Admitted)/float64(l.Exact))
				}
			}
			near.values = []float64{least}
		}
		if len(bound.values) > 0 {
			bound.values = []float64{slices.Max(bound.values)}
		}
		all = append(all, bound, near)
	}
	return all
}

// accuracy is that of a limiter; nil if it was not measured or has failed.
func (d *document) accuracy(step, limiter string) *measure.Accuracy {
	r := d.step(step)
	if r == nil {
		return nil
	}
	for i, a := range r.Accuracy {
		if a.Limiter == limiter && a.Failed == "" {
			return &r.Accuracy[i]
		}
	}
	return nil
}

// footprint is that of a limiter, empty if it was not measured.
func (d *document) footprint(step, limiter string) measure.Footprint {
	if r := d.step(step); r != nil {
		for _, f := range r.Memory {
			if f.Limiter == limiter {
				return f
			}
		}
	}
	return measure.Footprint{}
}

func calls(r measure.Round) float64 { return r.OpsPerSecond }

// perRound is what a limiter has of something ÷ what another has, in each round that both have measured.
func perRound(a, b *measure.Compared, of func(measure.Round) float64) (ratios []float64) {
	x, y := a.PerRound(of), b.PerRound(of)
	for i := range min(len(x), len(y)) {
		ratios = append(ratios, x[i]/y[i])
	}
	return ratios
}

func whole(x float64) string      { return fmt.Sprintf("%.0f", x) }
func hundredths(x float64) string { return fmt.Sprintf("%.2f", x) }
func percent(x float64) string    { return strings.TrimSuffix(fmt.Sprintf("%.1f", 100*x), ".0") + " %" }
