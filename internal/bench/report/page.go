package report

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/trypema/trypema/internal/bench/figure"
	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/cli/screen"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// sheet is a table of a report: its rows have a cell for each head.
type sheet struct {
	Head []string
	Rows [][]string
}

// add adds a row, whose last cells may be left out.
func (s *sheet) add(cells ...string) {
	s.Rows = append(s.Rows, append(cells, make([]string, max(0, len(s.Head)-len(cells)))...))
}

// section is a step as it is shown.
type section struct {
	result
	Sheets  []sheet
	Figures []picture // at once
	More    []picture // with the tables
	Failing []string
}

// Span is how much of a row of six columns the section takes.
func (s section) Span() int {
	n := 0
	for _, f := range s.Figures {
		n += f.span()
	}
	return min(cmp.Or(n, 2), 6)
}

// part is a group as it is shown.
type part struct {
	group
	Sections []section
}

// view is a report as it is shown.
type view struct {
	*document
	When      string
	Overview  []picture // at most one
	Missed    sheet     // those of the promises that were missed
	Parts     []part
	Libraries sheet
	Theme     template.CSS
}

func (d *document) view(figures []picture) view {
	v := view{
		document: d,
		When:     fmt.Sprintf("%s to %s", d.Began.UTC().Format("2006-01-02 15:04"), d.Ended.UTC().Format("15:04 MST")),
		Theme:    template.CSS(figure.Theme), //nolint:gosec // a constant
	}
	promised := d.Promised()
	v.Missed.Head = promised.Head
	for _, row := range promised.Rows {
		if row[3] == missedMark {
			v.Missed.Rows = append(v.Missed.Rows, row)
		}
	}
	for _, f := range figures {
		if f.step == "" {
			v.Overview = append(v.Overview, f)
		}
	}
	for _, g := range groups {
		p := part{group: g}
		for _, r := range d.grouped(g) {
			p.Sections = append(p.Sections, newSection(r, figures))
		}
		if len(p.Sections) > 0 {
			v.Parts = append(v.Parts, p)
		}
	}
	v.Libraries = sheet{Head: []string{"module", "version"}}
	for _, path := range compared {
		if version, ok := d.Machine.Modules[path]; ok {
			v.Libraries.add(path, version)
		}
	}
	return v
}

func newSection(r result, figures []picture) section {
	s := section{result: r, Sheets: r.sheets()}
	for _, f := range figures {
		switch {
		case f.step != r.ID:
		case f.more:
			s.More = append(s.More, f)
		default:
			s.Figures = append(s.Figures, f)
		}
	}
	for _, f := range r.failures() {
		s.Failing = append(s.Failing, f.limiter+": "+strings.TrimPrefix(f.why, f.limiter+": "))
	}
	return s
}

// Partial says what makes the report partial.
func (d *document) Partial() (all []string) {
	if n := d.Expected - d.Done; n > 0 {
		all = append(all, fmt.Sprintf("it was interrupted: %d of %d measurements are missing; "+
			"the same command goes on", n, d.Expected))
	}
	all = append(all, d.Missing...)
	for _, r := range d.Steps {
		if r.Failed != "" {
			all = append(all, r.ID+" failed: "+r.Failed)
		}
	}
	return all
}

// LeftOut lists the limiters that are missing in some comparison, once each.
func (d *document) LeftOut() (all []string) {
	for _, r := range d.Steps {
		if r.Comparison != nil {
			all = append(all, r.Comparison.LeftOut...)
		}
	}
	return unique(all)
}

// sheets are the tables of a step.
func (r *result) sheets() []sheet {
	switch {
	case r.Comparison != nil:
		return []sheet{comparisonSheet(r.Comparison)}
	case r.Accuracy != nil:
		return []sheet{accuracySheet(r.Accuracy), pauseSheet(r.Accuracy)}
	case r.Fullest != nil:
		s := sheet{Head: []string{"", "most in any window ÷ C"}}
		for _, f := range r.Fullest {
			switch {
			case f.Ratio != nil:
				s.add(f.Limiter, hundredths(*f.Ratio))
			case f.Failed == "":
				s.add(f.Limiter, notMeasured)
			default:
				s.add(f.Limiter, "failed")
			}
		}
		return []sheet{s}
	case r.Memory != nil:
		return []sheet{memorySheet(r.Memory)}
	case r.Floors != nil:
		s := sheet{Head: []string{"", "ns"}}
		for _, p := range r.Floors.Parts {
			s.add(p.Part, spread(p.Cost, tenths))
		}
		for _, p := range r.Floors.Reaches {
			s.add("a load at a random place of "+binary(p.Bytes), spread(p.Cost, tenths))
		}
		return []sheet{s}
	}
	return nil
}

func tenths(x float64) string { return fmt.Sprintf("%.1f", x) }

func comparisonSheet(c *measure.Comparison) sheet {
	cases, server := false, false
	for _, x := range c.Limiters {
		cases = cases || x.Case != ""
		server = server || x.RedisCommands != nil
	}
	speed := sheet{Head: []string{"", "calls per second", "÷ first", "p50", "p99", "p99.9", "max", "admitted ÷ limit"}}
	if server {
		speed.Head = append(speed.Head, "Redis, for a decision")
	}
	if cases {
		speed.Head[0] = "case"
		speed.Head = append(speed.Head[:1], append([]string{"limiter"}, speed.Head[1:]...)...)
	}
	for _, x := range c.Limiters {
		row := []string{c.Label(x)}
		if cases {
			row = []string{x.Case, x.Limiter}
		}
		if x.Failed != "" {
			row = append(row, "failed")
		} else {
			after := func(of func(measure.Round) int64) string {
				return spread(x.PerRound(func(r measure.Round) float64 { return float64(of(r)) }), nanoseconds)
			}
			row = append(row,
				spread(x.PerRound(calls), figure.Short),
				spread(x.PerRound(func(r measure.Round) float64 { return r.Ratio }), hundredths),
				after(func(r measure.Round) int64 { return r.P50 }),
				after(func(r measure.Round) int64 { return r.P99 }),
				after(func(r measure.Round) int64 { return r.P999 }),
				after(func(r measure.Round) int64 { return r.Max }),
				fmt.Sprintf("%.3f", x.AdmittedToLimit))
			if server && x.RedisCommands != nil {
				row = append(row, nanoseconds(*x.RedisCommands))
			}
		}
		speed.add(row...)
	}
	return speed
}

// accuracySheet is what was admitted of each load, as a part of the limit.
func accuracySheet(all []measure.Accuracy) sheet {
	s := sheet{Head: []string{"admitted ÷ limit, at"}}
	for _, a := range all {
		if len(a.Loads) > len(s.Head)-1 {
			s.Head = s.Head[:1]
			for _, l := range a.Loads {
				s.Head = append(s.Head, fmt.Sprintf("%g ×", l.Load))
			}
		}
	}
	for _, a := range all {
		row := []string{title(a)}
		for _, l := range a.Loads {
			row = append(row, fmt.Sprintf("%s (%s – %s)", hundredths(l.AdmittedToLimit),
				hundredths(l.LeastToLimit), hundredths(l.MostToLimit)))
		}
		if a.Failed != "" {
			row = append(row, "failed")
		}
		s.add(row...)
	}
	return s
}

// pauseSheet is what else can be said of the admissions.
func pauseSheet(all []measure.Accuracy) sheet {
	s := sheet{Head: []string{"", "most in any window ÷ C", "÷ an exact log at 0.95 ×", "at 1.05 ×",
		"longest pause at 2 ×", "at 10 ×", "after the step to 10 ×"}}
	for _, a := range all {
		if a.Failed != "" {
			s.add(title(a), "failed")
			continue
		}
		most := uint64(0)
		at := make(map[float64]measure.Load)
		for _, l := range a.Loads {
			most = max(most, l.Fullest)
			at[l.Load] = l
		}
		exact := func(load float64) string {
			if l := at[load]; l.Exact > 0 {
				return fmt.Sprintf("%.3f", float64(l.Admitted)/float64(l.Exact))
			}
			return ""
		}
		pause := func(ms float64) string { return screen.Nanoseconds(int64(ms * 1e6)) }
		s.add(title(a), hundredths(float64(most)/float64(a.Capacity)), exact(0.95), exact(1.05),
			pause(at[2].Pause), pause(at[10].Pause), pause(a.Step.Pause))
	}
	return s
}

func memorySheet(all []measure.Footprint) sheet {
	s := sheet{Head: []string{"", "bytes for a key", "allocations for a call", "garbage collection, ms",
		"its pause, µs"}}
	for _, f := range all {
		if f.Failed != "" {
			s.add(f.Limiter, "failed")
			continue
		}
		s.add(cmp.Or(f.Limiter, "harness alone"), spread(f.BytesPerKey, whole), spread(f.AllocsPerOp, hundredths),
			spread(f.Collection, tenths), spread(f.Pause, whole))
	}
	return s
}

// pages are the report as one file that a browser shows, and as a table in Markdown. What is folded in one is
// folded in the other, too.
func (d *document) pages(figures []picture) (page, table []byte, err error) {
	var html, markdown bytes.Buffer
	v := d.view(figures)
	err = errors.Join(pageTemplate.Execute(&html, v), tableTemplate.Execute(&markdown, v))
	return html.Bytes(), markdown.Bytes(), err
}

// Seconds is how long the step took.
func (s section) Seconds() float64 { return s.Took / 1000 }

// Ours reports whether a row is one of Trypema's in Go.
func (sheet) Ours(row []string) bool { return slices.ContainsFunc(row[:min(2, len(row))], ours) }
