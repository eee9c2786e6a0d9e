package replay

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
)

// plot is a picture with two axes, as SVG. Its colors are those of the page that it is in.
type plot struct {
	strings.Builder
	width, height float64
	high          float64 // value at the upper edge
	right         float64 // margin
}

// The margins of pictures, and their sizes: narrow is for pages, where text of 12 units is to be read on a
// phone, wide is for documents.
const (
	left, top, bottom            = 44.0, 14.0, 24.0
	narrowWidth, wideWidth       = 340.0, 680.0
	narrowHeight, wideHeight     = 190.0, 220.0
	textHeight, signWidth, inset = 14.0, 7.0, 6.0
)

func newPlot(title string, wide bool, high, right float64) *plot {
	p := &plot{width: narrowWidth, height: narrowHeight, high: high, right: right}
	if wide {
		p.width, p.height = wideWidth, wideHeight
	}
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="%s" viewBox="0 0 %g %g">`,
		template.HTMLEscapeString(title), p.width, p.height)
	return p
}

func (p *plot) x(part float64) float64 { return left + (p.width-left-p.right)*part }
func (p *plot) y(value float64) float64 {
	return top + (p.height-top-bottom)*(1-min(value/p.high, 1))
}

// level draws a line of the grid at a value, with its label.
func (p *plot) level(value float64, label string) {
	fmt.Fprintf(p, `<path class="grid" d="M%.1f %.1fH%.1f"/>`, left, p.y(value), p.width-p.right)
	p.text(left-inset, p.y(value)+4, "end", label)
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
	p.text(p.x(part), p.height-inset, anchor, label)
}

func (p *plot) text(x, y float64, anchor, text string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, template.HTMLEscapeString(text))
}

// steps draws values as steps of equal width. An area is filled down to the axis.
func (p *plot) steps(class string, values []float64, area bool) {
	fmt.Fprintf(p, `<path class="%s" d="`, class)
	n := float64(len(values))
	for i, v := range values {
		verb := byte('L')
		if i == 0 {
			verb = 'M'
		}
		if i == 0 || v != values[i-1] {
			fmt.Fprintf(p, "%c%.1f %.1f", verb, p.x(float64(i)/n), p.y(v))
		}
		if i == len(values)-1 || v != values[i+1] {
			fmt.Fprintf(p, "H%.1f", p.x(float64(i+1)/n))
		}
	}
	if area {
		fmt.Fprintf(p, "V%.1fH%.1fZ", p.y(0), left)
	}
	p.WriteString(`"/>`)
}

func (p *plot) html() template.HTML {
	p.WriteString("</svg>")
	return template.HTML(p.String()) //nolint:gosec // it is made of numbers and of escaped text
}

// callsPlot is the calls over time: those that a rule would have admitted, and above them those that it would
// have denied.
func (r *Report) callsPlot(rule int, wide bool) template.HTML {
	offered, admitted := r.series.values(r.series.offered), r.series.values(r.series.admitted[rule])
	high := 0.0
	for _, n := range offered {
		high = max(high, n)
	}
	step := max(1, stepOf(high))
	p := newPlot("calls in each "+spanText(r.series.slot()), wide, step*math.Ceil(high/step), 10)
	for v := 0.0; v <= p.high; v += step {
		p.level(v, screen.Count(uint64(v)))
	}
	last := r.series.start + int64(len(offered))*int64(r.series.slot())
	p.foot(0, r.instant(r.series.start))
	if wide {
		p.foot(.5, r.instant((r.series.start+last)/2))
	}
	p.foot(1, r.instant(last))
	p.steps("denied", offered, true)
	p.steps("admitted", admitted, true)
	return p.html()
}

// instant writes a time of the log for an axis.
func (r *Report) instant(at int64) string {
	layout := "15:04:05"
	switch span := r.To.Sub(r.From); {
	case span >= 60*24*time.Hour:
		layout = "2 Jan 2006"
	case span >= 24*time.Hour:
		layout = "2 Jan 15:04"
	case span >= 10*time.Minute:
		layout = "15:04"
	}
	return time.Unix(0, at).UTC().Format(layout)
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

// drawn are the windows whose busiest keys are drawn.
var drawn = []struct {
	window time.Duration
	class  string
}{{time.Second, "second"}, {time.Minute, "minute"}, {time.Hour, "hour"}}

// keysPlot is the most calls that a key made in a window, by the share of the keys that made no more: the
// share grows by a nine from one mark to the next, as those who choose a limit ask for it.
func (r *Report) keysPlot(wide bool) template.HTML {
	keys := r.busiest[0].len()
	if keys == 0 {
		return ""
	}
	const points = 240
	nines := max(math.Log10(float64(keys)), .5)
	at := func(all spread, x float64) float64 { // as a power of ten
		i := int((1 - math.Pow(10, -x)) * float64(all.len()))
		return math.Log10(float64(max(all.at(min(i, all.len()-1)), 1)))
	}
	most := 0.0
	for i := range r.Suggestions {
		most = max(most, at(r.busiest[i], nines))
	}
	p := newPlot("most calls of a key, by the share of the keys", wide, max(1, most+.1), 62)
	for power := 0.0; power <= p.high; power++ {
		p.level(power, screen.Count(uint64(math.Pow(10, power))))
	}
	for x := 0.0; x <= nines; x++ {
		if part := x / nines; part < .9 || x == 0 {
			p.foot(part, shareText(1-math.Pow(10, -x)))
		}
	}
	p.foot(1, "all keys")
	if asked := -math.Log10(1 - r.suggest/100); asked < nines {
		fmt.Fprintf(p, `<path class="asked" d="M%.1f %.1fV%.1f"/>`, p.x(asked/nines), p.y(p.high), p.y(0))
	}
	lowest := math.Inf(1) // label, so that none is written over another
	for d := len(drawn) - 1; d >= 0; d-- {
		i := slices.Index(suggested[:], drawn[d].window)
		if i >= len(r.Suggestions) {
			continue
		}
		values := make([]float64, points)
		for j := range values {
			values[j] = at(r.busiest[i], nines*float64(j)/points)
		}
		values[points-1] = at(r.busiest[i], nines)
		p.steps(drawn[d].class, values, false)
		y := p.y(values[points-1]) + 4
		if !math.IsInf(lowest, 1) {
			y = max(y, lowest+textHeight)
		}
		lowest = y
		p.text(p.width-p.right+inset, y, "start", "1 "+drawn[d].class)
	}
	return p.html()
}

// shareText writes 0.999 as 99.9 %.
func shareText(share float64) string { return fmt.Sprintf("%.6g %%", 100*share) }

// spanText writes a length of time by its largest unit, as people do.
func spanText(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch n := float64(d) / float64(unit.length); {
		case n == 1:
			return unit.name
		case n >= 1.5:
			return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0") + " " + unit.name + "s"
		}
	}
	return d.String()
}
