package demo

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
)

// report is the result of a run. Its JSON is for programs, its table for people.
type report struct {
	Command     string        `json:"command"`
	Settings    settings      `json:"settings"`
	Elapsed     float64       `json:"elapsed_ms"`
	Interrupted bool          `json:"interrupted"`
	Routes      []routeReport `json:"routes"`
	Guarantees  []finding     `json:"guarantees"`
	Warnings    []string      `json:"warnings"`
	OK          bool          `json:"ok"`
}

type settings struct {
	store.Where
	Rate            float64 `json:"rate_per_second"`
	Load            float64 `json:"load_ratio"`
	Window          float64 `json:"window_ms"`
	Bucket          float64 `json:"bucket_ms"`
	HardLimitFactor float64 `json:"hard_limit_factor"`
	Duration        float64 `json:"duration_ms"`
	Clients         int     `json:"clients_per_route"`
}

type routeReport struct {
	Route             string  `json:"route"`
	Strategy          string  `json:"strategy"`
	Capacity          uint64  `json:"capacity"`
	AnyWindowBound    uint64  `json:"any_window_bound"`
	LargestAnyWindow  uint64  `json:"largest_any_window"`
	Asked             float64 `json:"asked_per_second"`
	OfferedRate       float64 `json:"offered_per_second"`
	AdmittedRate      float64 `json:"admitted_per_second"`
	DeclinedRate      float64 `json:"declined_per_second"`
	AdmittedToLimit   float64 `json:"admitted_to_limit_ratio"`
	Offered           uint64  `json:"offered"`
	Admitted          uint64  `json:"admitted"`
	Declined          uint64  `json:"declined"`
	Fallback          uint64  `json:"fallback"` // of all decisions: made without the server that should have
	Errors            uint64  `json:"errors"`   // calls that the limiter answered with an error
	Failed            uint64  `json:"failed"`
	Skipped           uint64  `json:"skipped"`
	Late              uint64  `json:"late"` // made more than 50ms after they were due
	LongestPause      float64 `json:"longest_pause_ms"`
	Stalled           float64 `json:"stalled_ms"`
	SettledRate       float64 `json:"settled_admitted_per_second"`
	SettledLoadFactor float64 `json:"settled_load_ratio"`
	latency.Percentiles
}

// keptUp is the part of the load that was asked for which the clients must have offered, to be silent about
// it.
const keptUp = 0.98

// report sums up a run that has ended.
func (t *traffic) report() report {
	s := t.setup
	out := report{
		Command: "demo",
		Settings: settings{
			Where:           s.where,
			Rate:            float64(s.rate),
			Load:            s.load,
			Window:          screen.Milliseconds(s.options.Window),
			Bucket:          screen.Milliseconds(s.options.Bucket),
			HardLimitFactor: s.options.HardLimitFactor,
			Duration:        screen.Milliseconds(s.duration),
			Clients:         s.clients,
		},
		Elapsed:     screen.Milliseconds(t.took),
		Interrupted: t.took < s.duration,
		Warnings:    []string{},
		OK:          true,
	}
	for _, r := range t.routes {
		m := r.meter.read()
		out.Routes = append(out.Routes, t.routeReport(r, m))
		out.Guarantees = append(out.Guarantees, findings(s, r, m)...)
		if due := r.sent.due(); float64(r.sent.skipped) > (1-keptUp)*float64(due) {
			out.Warnings = append(out.Warnings, fmt.Sprintf(
				"%s: the clients offered %s of the %s asked for",
				r.path, screen.PerSecond(float64(due-r.sent.skipped)/t.took.Seconds()), screen.PerSecond(s.offered())))
		}
		if r.sent.untimely() > mostUntimely {
			out.Warnings = append(out.Warnings, r.path+": "+r.sent.excuse())
		}
		if r.sent.failed > 0 {
			out.Warnings = append(out.Warnings,
				fmt.Sprintf("%s: %d requests failed, the first with: %v", r.path, r.sent.failed, r.sent.firstFail))
		}
	}
	for _, f := range out.Guarantees {
		out.OK = out.OK && f.Verdict != broken
	}
	return out
}

func (t *traffic) routeReport(r *route, m reading) routeReport {
	s := t.setup
	perSecond := func(n uint64) float64 { return float64(n) / t.took.Seconds() }
	return routeReport{
		Route:             r.path,
		Strategy:          r.strategy,
		Capacity:          s.capacity,
		AnyWindowBound:    r.bound,
		LargestAnyWindow:  m.fullest,
		Asked:             s.offered(),
		OfferedRate:       perSecond(m.total.offered()),
		AdmittedRate:      perSecond(m.total.admitted),
		DeclinedRate:      perSecond(m.total.declined),
		AdmittedToLimit:   perSecond(m.total.admitted) / s.limit(),
		Offered:           m.total.offered(),
		Admitted:          m.total.admitted,
		Declined:          m.total.declined,
		Fallback:          m.fallback,
		Errors:            m.failed,
		Failed:            r.sent.failed,
		Skipped:           r.sent.skipped,
		Late:              r.sent.late,
		LongestPause:      screen.Milliseconds(m.longestPause),
		Stalled:           screen.Milliseconds(m.stalled),
		SettledRate:       m.settledRate(),
		SettledLoadFactor: s.settledLoad(m),
		Percentiles:       m.latency,
	}
}

// broken returns an error for each guarantee that was broken.
func (r report) broken() error {
	var errs []error
	for _, f := range r.Guarantees {
		if f.Verdict == broken {
			text := f.String()
			if f.Note != "" {
				text += " (" + f.Note + ")"
			}
			errs = append(errs, errors.New(text))
		}
	}
	return errors.Join(errs...)
}

// table writes the report for a person.
func (r report) table(w io.Writer) error {
	after := fmt.Sprintf("after %.1fs", r.Elapsed/1000)
	if r.Interrupted {
		after += fmt.Sprintf(" of %gs", r.Settings.Duration/1000)
	}
	head := []string{after}
	rows := [][]string{
		{"offered"}, {"admitted"}, {"declined"}, {"admitted, settled"},
		{"most in any window"}, {"longest pause"},
		{"decision p50"}, {"decision p99"}, {"decision p99.9"}, {"decision max"},
	}
	remote := r.Settings.Server != ""
	if remote {
		fmt.Fprintln(w, r.Settings.Where)
		if pace := r.Settings.Pace(); pace != "" {
			fmt.Fprintln(w, pace)
		}
		rows = append(rows, []string{"fallback, errors"})
	}
	limit := float64(r.Routes[0].Capacity) / (r.Settings.Window / 1000)
	against := func(perSecond float64) string {
		return fmt.Sprintf("%s  %.2f× limit", screen.PerSecond(perSecond), perSecond/limit)
	}
	for _, x := range r.Routes {
		head = append(head, x.Route)
		cells := []string{
			against(x.OfferedRate), against(x.AdmittedRate), against(x.DeclinedRate), against(x.SettledRate),
			fmt.Sprintf("%d of %d", x.LargestAnyWindow, x.AnyWindowBound),
			screen.Duration(time.Duration(math.Round(x.LongestPause)) * time.Millisecond),
			screen.Nanoseconds(x.P50), screen.Nanoseconds(x.P99), screen.Nanoseconds(x.P999), screen.Nanoseconds(x.Max),
		}
		if remote {
			cells = append(cells, screen.Count(x.Fallback)+", "+screen.Count(x.Errors))
		}
		for i, cell := range cells {
			rows[i] = append(rows[i], cell)
		}
	}
	if err := screen.Table(w, head, rows); err != nil {
		return err
	}
	for _, f := range r.Guarantees {
		mark := map[verdict]string{held: "✓", broken: "✗", notJudged: "·"}[f.Verdict]
		fmt.Fprint(w, screen.Fold(" "+mark+" ", f.String()))
		if f.Note != "" {
			fmt.Fprint(w, screen.Fold("     ", f.Note))
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprint(w, screen.Fold(" ! ", warning))
	}
	return nil
}
