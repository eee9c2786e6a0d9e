package demo

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
)

// The conditions under which the smoothness of Suppressed is promised, and what is promised then (G6 of the
// design).
const (
	smoothFactor   = 1.5 // the hard limit factor it is stated for
	smoothLoad     = 1.1 // from this multiple of the limit …
	smoothMaxLoad  = 100 // … up to this one
	smoothWindows  = 2   // the first is for settling
	rateWindows    = 4   // an average needs more of them: a cold start echoes in the second
	tightTolerance = 0.03
	tightMaxLoad   = 20
	wideTolerance  = 0.05 // above tightMaxLoad, and for instances that settle now and then
	pauseMinLimit  = 50   // per second; below, chance alone makes pauses
	longestPause   = 500 * time.Millisecond
	mostUntimely   = 0.01 // part of the calls; with more, the load was not the one that was asked for

	// What chance adds, so that a limiter which keeps its promise fails less than once in a million runs. The
	// number of admissions varies no more than that of a Poisson process, which is five standard deviations
	// from its mean once in 1.7 million times. A pause grows by as much as such a process, at the slowest
	// pace that the law aims for, pauses once in ten million times.
	noiseSigmas = 5
	slowestPace = 0.3  // of the limit
	noisePause  = 16.2 // ln(10⁷), in means of the time between two admissions
)

// finding is what became of one guarantee on one route.
type finding struct {
	Guarantee string   `json:"guarantee"`
	Route     string   `json:"route"`
	Verdict   verdict  `json:"verdict"`
	Measured  float64  `json:"measured"`
	AtLeast   *float64 `json:"at_least,omitempty"`
	AtMost    *float64 `json:"at_most,omitempty"`
	Unit      string   `json:"unit"`
	Note      string   `json:"note,omitempty"`
}

type verdict string

const (
	held      verdict = "held"
	broken    verdict = "broken"
	notJudged verdict = "not judged"
)

// judge sets the verdict by the bounds.
func (f finding) judge() finding {
	f.Verdict = held
	if (f.AtLeast != nil && f.Measured < *f.AtLeast) || (f.AtMost != nil && f.Measured > *f.AtMost) {
		f.Verdict = broken
	}
	return f
}

// String is the finding in one line, but for its note.
func (f finding) String() string {
	s := f.Route + " " + f.Guarantee
	switch f.Verdict {
	case notJudged:
		return s + ": not judged"
	case broken:
		s += " broken"
	}
	s += fmt.Sprintf(": %s %s, ", number(f.Measured), f.Unit)
	if f.AtLeast != nil {
		return s + fmt.Sprintf("allowed %s to %s", number(*f.AtLeast), number(*f.AtMost))
	}
	return s + "at most " + number(*f.AtMost)
}

// number writes x with one decimal where it has any.
func number(x float64) string {
	if x == math.Trunc(x) {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}

// findings judges every guarantee of a route.
func findings(s setup, r *route, m reading) []finding {
	all := []finding{bound(s, r, m), sums(r, m)}
	if r.strategy == "suppressed" {
		all = append(all, settledRate(s, r, m), pause(s, r, m))
	}
	return all
}

// bound is G1: what any window admits.
func bound(s setup, r *route, m reading) finding {
	most := float64(r.bound)
	return finding{
		Guarantee: "G1 bound",
		Route:     r.path,
		Measured:  float64(m.fullest),
		AtMost:    &most,
		Unit:      fmt.Sprintf("in the fullest window of %v", s.options.Window),
		Note:      withoutServer(m),
	}.judge()
}

// withoutServer says how much was decided by the failure policy; empty when nothing was.
func withoutServer(m reading) string {
	if m.fallback == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d decisions were made without Redis", m.fallback, m.total.offered())
}

// sums is no guarantee of the limiter but of this measurement: every decision reached the client who asked,
// and every answer was a decision. A request that failed on its way may have been decided or not.
func sums(r *route, m reading) finding {
	above := func(a, b uint64) uint64 { return a - min(a, b) }
	invented := above(r.sent.admitted, m.total.admitted) + above(r.sent.declined, m.total.declined)
	lost := above(m.total.admitted, r.sent.admitted) + above(m.total.declined, r.sent.declined)
	none := 0.0
	f := finding{
		Guarantee: "sums",
		Route:     r.path,
		Measured:  float64(invented + above(lost, r.sent.failed) + m.failed),
		AtMost:    &none,
		Unit:      "decisions or answers without counterpart",
	}
	if m.firstFail != nil {
		f.Note = m.firstFail.Error()
	}
	return f.judge()
}

// settledRate is a part of G6: what Suppressed admits per second after the first window.
func settledRate(s setup, r *route, m reading) finding {
	f := finding{Guarantee: "G6 settled rate", Route: r.path, Unit: "per second"}
	f.Measured = m.settledRate()
	if f.Note = s.notSmooth(r, m, rateWindows); f.Note != "" {
		f.Verdict = notJudged
		return f
	}
	promised := tightTolerance
	if s.settledLoad(m) > tightMaxLoad || s.where.Provider == store.Hybrid {
		promised = wideTolerance
	}
	limit := s.limit()
	seconds := m.settledTook.Seconds()
	noise := noiseSigmas / math.Sqrt(limit*seconds)
	// While the machine stood still nobody could be admitted. What was due then comes later, and is bounded
	// as ever.
	running := 1 - m.stalled.Seconds()/seconds
	least, most := limit*running*(1-promised-noise), limit*(1+promised+noise)
	f.AtLeast, f.AtMost = &least, &most
	f.Note = fmt.Sprintf("limit %s ± %.0f%% promised ± %.1f%% for Poisson noise (%dσ)",
		screen.PerSecond(limit), 100*promised, 100*noise, noiseSigmas)
	if m.stalled > 0 {
		f.Note += fmt.Sprintf("; less for %s without any call", screen.Duration(m.stalled))
	}
	return f.judge()
}

// pause is a part of G6: how long Suppressed turned everyone away.
func pause(s setup, r *route, m reading) finding {
	f := finding{
		Guarantee: "G6 longest pause",
		Route:     r.path,
		Measured:  screen.Milliseconds(m.longestPause),
		Unit:      "ms without an admission",
	}
	f.Note = s.notSmooth(r, m, smoothWindows)
	if f.Note == "" && s.limit() < pauseMinLimit {
		f.Note = fmt.Sprintf("stated from %d/s", pauseMinLimit)
	}
	if f.Note != "" {
		f.Verdict = notJudged
		return f
	}
	noise := time.Duration(noisePause / (slowestPace * s.limit()) * float64(time.Second))
	most := math.Round(screen.Milliseconds(longestPause + noise))
	f.AtMost = &most
	f.Note = fmt.Sprintf("at most %v promised, and %s for chance", longestPause, screen.Duration(noise))
	return f.judge()
}

// settledRate is what was admitted per second after the first window; 0 when nothing came so late.
func (m reading) settledRate() float64 {
	if m.settledTook <= 0 {
		return 0
	}
	return float64(m.settled.admitted) / m.settledTook.Seconds()
}

// settledLoad is the load that was really offered after the first window, as a multiple of the limit.
func (s setup) settledLoad(m reading) float64 {
	if m.settledTook <= 0 {
		return 0
	}
	return float64(m.settled.offered()) / m.settledTook.Seconds() / s.limit()
}

// notSmooth says why G6 does not apply to what was measured; empty when it does.
func (s setup) notSmooth(r *route, m reading, windows time.Duration) string {
	load := s.settledLoad(m)
	switch {
	case m.fallback > 0:
		return "stated while Redis answers; " + withoutServer(m)
	case s.options.HardLimitFactor != smoothFactor:
		return fmt.Sprintf("stated for a hard limit factor of %v", smoothFactor)
	case m.elapsed < windows*s.options.Window:
		return fmt.Sprintf("needs at least %d windows of load", windows)
	case load < smoothLoad:
		return fmt.Sprintf("stated from %v× the limit, offered was %.2f×", smoothLoad, load)
	case load > smoothMaxLoad:
		return fmt.Sprintf("stated up to %v× the limit, offered was %.0f×", smoothMaxLoad, load)
	case r.sent.untimely() > mostUntimely:
		return r.sent.excuse()
	}
	return ""
}

// excuse says that the load was not the one that was asked for.
func (s sent) excuse() string {
	return fmt.Sprintf("%.0f%% of the calls came more than %v late, or never: the machine is too busy, "+
		"or --clients are too few", 100*s.untimely(), tooLate)
}
