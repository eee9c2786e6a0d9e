package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// rule is something that must hold, and what was measured.
type rule struct {
	Name    string  `json:"rule"`
	Where   string  `json:"where"`
	Value   float64 `json:"measured"`
	Must    string  `json:"must_be"`
	Bound   float64 `json:"bound"`
	Verdict verdict `json:"verdict"`
	Note    string  `json:"note,omitempty"`
}

type verdict string

const (
	pass      verdict = "PASS"
	fail      verdict = "FAIL"
	notJudged verdict = "-"
)

// judge makes a rule of a measured value, which must be ≤, ≥ or = a bound.
func judge(name, where string, value float64, must string, bound float64) rule {
	r := rule{Name: name, Where: where, Value: value, Must: must, Bound: bound, Verdict: fail}
	if must == "≤" && value <= bound || must == "≥" && value >= bound || must == "=" && value == bound {
		r.Verdict = pass
	}
	return r
}

// tooShort is a rule on which a run says nothing.
func tooShort(name, where string) rule {
	return rule{Name: name, Where: where, Verdict: notJudged, Note: "too short a run"}
}

// parts returns the median of a series between two tenths and four, and in its last three, leaving out the
// first, in which things begin; NaN is no value. ok is whether both have enough values to say anything.
func parts(series []float64) (early, late float64, ok bool) {
	n := len(series)
	first, last := values(series[n/10:4*n/10]), values(series[n-3*n/10:])
	if len(first) < 5 || len(last) < 5 {
		return 0, 0, false
	}
	return median(first), median(last), true
}

func values(series []float64) []float64 { return slices.DeleteFunc(slices.Clone(series), math.IsNaN) }

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func mean(all []float64) (x float64) {
	for _, one := range all {
		x += one / float64(len(all))
	}
	return x
}

// flat is the rule that a series ends at most at a factor of where it was early, and some more, so that what
// is next to nothing may double.
func flat(name, where string, series []float64, factor, more float64) rule {
	early, late, ok := parts(series)
	if !ok {
		return tooShort(name, where)
	}
	r := judge(name, where, late, "≤", factor*early+more)
	r.Note = fmt.Sprintf("%.4g early", early)
	return r
}

// period is a time in which something was wrong.
type period struct {
	what     string
	from, to time.Time
	strange  bool // it explains fallbacks
}

// recovery is how long after a fault its consequences may be seen.
const recovery = 3 * time.Second

func (p period) excuses(from, to time.Time) bool {
	return from.Before(p.to.Add(recovery)) && !to.Before(p.from)
}

// excused reports whether there was anything wrong in a time.
func excused(periods []period, from, to time.Time) bool {
	return slices.ContainsFunc(periods, func(p period) bool { return p.excuses(from, to) })
}

// unexplained counts the fallbacks at instants that no period explains.
func unexplained(at []time.Time, periods []period) (n int) {
	for _, t := range at {
		if !slices.ContainsFunc(periods, func(p period) bool { return p.strange && p.excuses(t, t.Add(timeout)) }) {
			n++
		}
	}
	return n
}

// steady judges what must not grow.
func steady(samples []sample, lanes []*lane) (rules []rule) {
	of := func(f func(sample) float64) (series []float64) {
		for _, s := range samples {
			x := math.NaN()
			if !s.Excused {
				x = f(s)
			}
			series = append(series, x)
		}
		return series
	}
	for _, quantity := range []struct {
		name, where  string
		factor, more float64
		of           func(sample) float64
	}{
		{"heap after a collection, MB", "this process", 1.1, 1, func(s sample) float64 { return s.Heap }},
		{"resident memory, MB", "this process", 1.2, 8, func(s sample) float64 { return s.RSS }},
		{"goroutines", "this process", 1.1, 4, func(s sample) float64 { return s.Goroutines }},
		{"keys held", "Local", 1.1, 200, func(s sample) float64 { return s.LocalKeys }},
		{"keys held", "Hybrid, three instances", 1.1, 200, func(s sample) float64 { return s.HybridKeys }},
		{"memory, MB", "Redis", 1.1, 1, func(s sample) float64 { return s.RedisMB }},
		{"keys", "Redis", 1.1, 200, func(s sample) float64 { return s.RedisKeys }},
	} {
		rules = append(rules,
			flat(quantity.name, quantity.where, of(quantity.of), quantity.factor, quantity.more))
	}
	for i, l := range lanes {
		rules = append(rules,
			flat("median latency, µs", l.String(), of(func(s sample) float64 { return s.Lanes[i].P50 }), 2, 2),
			flat("p99.9 of latency, µs", l.String(), of(func(s sample) float64 { return s.Lanes[i].P999 }), 2, 1000))
		hot := values(of(func(s sample) float64 { return s.Lanes[i].Hot }))
		use := tooShort("use of the hot key", l.String())
		if len(hot) >= 10 {
			use = judge(use.Name, use.Where, mean(hot), "≥", 0.95)
		}
		rules = append(rules, use)
	}
	return rules
}

// bound judges what was admitted in any window of any judged key: of each lane, the fullest.
func bound(lanes []*lane) (rules []rule) {
	for _, l := range lanes {
		var worst rule
		for _, w := range l.watches {
			most, _ := w.fullest()
			r := judge("most in any window", l.String(), float64(most), "≤", float64(w.bound))
			r.Note = w.key
			if worst.Name == "" || r.Verdict == fail ||
				worst.Verdict != fail && r.Value/r.Bound > worst.Value/worst.Bound {
				worst = r
			}
		}
		rules = append(rules, worst)
	}
	return rules
}

func failed(rules []rule) bool {
	return slices.ContainsFunc(rules, func(r rule) bool { return r.Verdict == fail })
}

// table writes the rules for people.
func table(w io.Writer, rules []rule) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "rule\twhere\tmeasured\tbound\t\t")
	for _, r := range rules {
		value, limit := fmt.Sprintf("%.6g", r.Value), fmt.Sprintf("%s %.6g", r.Must, r.Bound)
		if r.Verdict == notJudged {
			value, limit = "", ""
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Where, value, limit, r.Verdict, r.Note)
	}
	return t.Flush()
}
