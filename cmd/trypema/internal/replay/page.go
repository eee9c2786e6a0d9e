package replay

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"count": screen.Count, "percent": percent,
	"two": func(x float64) string { return fmt.Sprintf("%.2f", x) },
}).Parse(pageText))

// writePage writes the report as one page. A page that is there is replaced when the new one is complete.
func (r *Report) writePage(name string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".replay-*.html")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it has another name by then, or is not wanted
	if err := r.page(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func (r *Report) page(w io.Writer) error {
	return page.Execute(w, struct {
		*Report
		Span        time.Duration
		CallsPlot   template.HTML
		BusiestPlot template.HTML
		Sentence    string
	}{r, r.To.Sub(r.From).Round(time.Second), r.callsPlot(), r.busiestPlot(), r.sentence()})
}

// sentence says what the first rule would have done.
func (r *Report) sentence() string {
	if len(r.Rules) == 0 {
		return ""
	}
	x := r.Rules[0]
	return fmt.Sprintf("A limit of %s would have denied %s of %s calls (%s), of %s of %s keys.", x.Limit,
		screen.Count(x.Denied), screen.Count(r.Calls), percent(x.DeniedShare), screen.Count(x.KeysLimited),
		screen.Count(r.Keys))
}

// plot is a picture with two axes.
type plot struct {
	strings.Builder
	high float64
}

// The picture in units of its own.
const (
	plotWidth, plotHeight = 720.0, 240.0
	left, right           = 56.0, 12.0
	top, bottom           = 12.0, 28.0
)

func newPlot(title string, high float64) *plot {
	p := &plot{high: max(high, 1e-3)}
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="%s" viewBox="0 0 %g %g">`,
		template.HTMLEscapeString(title), plotWidth, plotHeight)
	return p
}

func (p *plot) x(part float64) float64 { return left + (plotWidth-left-right)*part }
func (p *plot) y(value float64) float64 {
	return top + (plotHeight-top-bottom)*(1-min(value/p.high, 1))
}

// level draws a line of the grid at a value, with its label.
func (p *plot) level(value float64, label string) {
	fmt.Fprintf(p, `<path class="grid" d="M%.1f %.1fH%.1f"/><text x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
		left, p.y(value), plotWidth-right, left-6, p.y(value)+4, label)
}

// foot writes a label below the picture.
func (p *plot) foot(part float64, label string) {
	anchor := "middle"
	switch part {
	case 0:
		anchor = "start"
	case 1:
		anchor = "end"
	}
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, p.x(part), plotHeight-8, anchor, label)
}

// steps draws values as steps of equal width.
func (p *plot) steps(class string, values []float64) {
	fmt.Fprintf(p, `<path class="%s" d="`, class)
	for i, v := range values {
		verb := byte('L')
		if i == 0 {
			verb = 'M'
		}
		n := float64(len(values))
		fmt.Fprintf(p, "%c%.1f %.1fH%.1f", verb, p.x(float64(i)/n), p.y(v), p.x(float64(i+1)/n))
	}
	p.WriteString(`"/>`)
}

func (p *plot) html() template.HTML {
	p.WriteString("</svg>")
	return template.HTML(p.String()) //nolint:gosec // it is made of numbers and of escaped text
}

// callsPlot is the calls a second over time: those that were made, and those that the first rules would have
// admitted.
func (r *Report) callsPlot() template.HTML {
	per := float64(r.series.slot) / float64(time.Second)
	rate := func(counts []uint64) (all []float64, high float64) {
		for i := range r.series.offered {
			n := 0.0
			if i < len(counts) {
				n = float64(counts[i]) / per
			}
			all, high = append(all, n), max(high, n)
		}
		return all, high
	}
	offered, high := rate(r.series.offered)
	step := stepOf(high)
	p := newPlot("calls a second over time", step*math.Ceil(high/step))
	for v := 0.0; v <= p.high; v += step {
		p.level(v, fmt.Sprintf("%g", v))
	}
	p.foot(0, r.From.Format("01-02 15:04"))
	p.foot(1, r.To.Format("01-02 15:04"))
	p.steps("offered", offered)
	for i := range min(len(r.series.admitted), 3) {
		admitted, _ := rate(r.series.admitted[i])
		p.steps(fmt.Sprintf("rule%d", i), admitted)
	}
	return p.html()
}

// stepOf is a round distance of four to ten marks up to high.
func stepOf(high float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(max(high, 1e-3))))
	switch first := high / unit; {
	case first >= 4:
		return unit
	case first >= 2:
		return unit / 2
	}
	return unit / 5
}

// busiestPlot is the busiest window of each key, the keys in order: how many would be over a limit is where
// its line crosses.
func (r *Report) busiestPlot() template.HTML {
	i := 2 // a minute
	all := r.busiest[i]
	if len(all) == 0 {
		return ""
	}
	const points = 200
	var values []float64
	for j := range points {
		values = append(values, math.Log10(float64(max(all[j*len(all)/points], 1))))
	}
	values[points-1] = math.Log10(float64(max(all[len(all)-1], 1)))
	p := newPlot("most calls in a minute, by key", math.Ceil(max(values[points-1], 1)))
	for power := 0.0; power <= p.high; power++ {
		p.level(power, screen.Count(uint64(math.Pow(10, power))))
	}
	for _, part := range []float64{0, .25, .5, .75, 1} {
		p.foot(part, fmt.Sprintf("%.0f %%", 100*part))
	}
	p.steps("offered", values)
	return p.html()
}
