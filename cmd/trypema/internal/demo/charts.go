package demo

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// charts are the pictures of a lane, as SVG whose colours are those of the page.
type charts struct {
	Rates   string `json:"rates"`
	State   string `json:"state"`
	Latency string `json:"latency"`
}

// chart is a picture of what was seen of late: the newest sample at the right edge.
type chart struct {
	width, height float64
	low, high     float64 // values at the bottom and at the top
	ticks         []mark  // of the values
	curves        []curve
}

// mark is a line of the grid, with a label or none.
type mark struct {
	at    float64
	label string
}

// curve is a value of each sample, or of the mean of some up to it; NaN is nothing.
type curve struct {
	colour string // of the style sheet
	width  float64
	dashes string
	value  func(one, mean sample) float64
}

const (
	solid  = "none"
	dashed = "5 3"
	dotted = "2 3"
)

var (
	rateCurves = []curve{
		{"grey", 1.4, solid, func(_, m sample) float64 { return m.perSecond(m.admitted + m.declined) }},
		{"declined", 1.4, solid, func(_, m sample) float64 { return m.perSecond(m.declined) }},
		{"admitted", 0.9, dashed, func(s, _ sample) float64 { return s.limit }},
		{"hard", 0.9, dotted, func(s, _ sample) float64 { return s.hard }},
		{"admitted", 1.8, solid, func(_, m sample) float64 { return m.perSecond(m.admitted) }},
	}
	stateCurves = []curve{
		{"room", 1.4, solid, func(s, _ sample) float64 { return s.room }},
		{"declined", 1.4, solid, func(s, _ sample) float64 { return s.factor }},
	}
	latencyCurves = []curve{
		{"declined", 1.4, solid, func(s, _ sample) float64 { return powerOf(s.p99) }},
		{"admitted", 1.4, solid, func(s, _ sample) float64 { return powerOf(s.p50) }},
	}
	agoMarks = []mark{{-30, "30s ago"}, {-20, ""}, {-10, ""}, {0, "now"}}
)

// powerOf is a latency by factors of ten from a nanosecond on; nothing where there was no call.
func powerOf(d time.Duration) float64 {
	if d <= 0 {
		return math.NaN()
	}
	return math.Log10(float64(d))
}

// draw makes the charts of a lane, of what was seen of late.
func draw(series []sample, k knobs) charts {
	rates := chart{width: 330, height: 120, high: k.Limit * 1.2, curves: rateCurves}
	for _, c := range rateCurves {
		for _, p := range c.points(series) {
			rates.high = max(rates.high, p.y*1.05)
		}
	}
	for x, step := 0.0, stepOf(rates.high); x <= rates.high; x += step {
		rates.ticks = append(rates.ticks, mark{x, strconv.FormatFloat(x, 'f', -1, 64)})
	}
	state := chart{width: 165, height: 72, high: 1, ticks: []mark{{0, "0"}, {0.5, ""}, {1, "1"}}, curves: stateCurves}
	slow := chart{width: 165, height: 72, low: 2, high: 9, ticks: []mark{{3, "1µs"}, {6, "1ms"}, {9, "1s"}}, curves: latencyCurves}
	return charts{Rates: rates.svg(series), State: state.svg(series), Latency: slow.svg(series)}
}

// stepOf is a round distance of two to five marks up to high.
func stepOf(high float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(high)))
	switch first := high / unit; {
	case first >= 5:
		return 2 * unit
	case first >= 2:
		return unit
	}
	return unit / 2
}

// point is where a curve goes: a time before now, in s, and a value.
type point struct{ x, y float64 }

func (c curve) points(series []sample) (all []point) {
	for i := rateOver - 1; i < len(series); i++ {
		if y := c.value(series[i], mean(series[:i+1])); !math.IsNaN(y) {
			all = append(all, point{-float64(len(series)-1-i) * tick.Seconds(), y})
		}
	}
	return all
}

// anchorOf keeps the label of a time within the chart.
func anchorOf(m mark) string {
	if m.at == 0 {
		return "end"
	}
	return "start"
}

// svg draws the chart. The labels are to the left of it and below.
func (c chart) svg(series []sample) string {
	const left, right, top, bottom, size = 28, 6, 5, 13, 9
	x := func(ago float64) float64 { return left + (c.width-left-right)*(1+ago/shown.Seconds()) }
	y := func(value float64) float64 {
		part := (min(max(value, c.low), c.high) - c.low) / (c.high - c.low)
		return top + (c.height-top-bottom)*(1-part)
	}
	var out strings.Builder
	fmt.Fprintf(&out,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="%d">`,
		c.width, c.height, size)
	line := func(x1, y1, x2, y2 float64) {
		fmt.Fprintf(&out, `<path style="stroke:var(--line);stroke-width:0.5" d="M%.1f %.1fL%.1f %.1f"/>`, x1,
			y1, x2, y2)
	}
	label := func(x, y float64, anchor, text string) {
		if text != "" {
			fmt.Fprintf(&out, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, text)
		}
	}
	for _, m := range agoMarks {
		line(x(m.at), top, x(m.at), c.height-bottom)
		label(x(m.at), c.height-2, anchorOf(m), m.label)
	}
	for _, m := range c.ticks {
		line(left, y(m.at), c.width-right, y(m.at))
		label(left-3, y(m.at)+size/3, "end", m.label)
	}
	for _, curve := range c.curves {
		points := curve.points(series)
		if len(points) == 0 {
			continue
		}
		fmt.Fprintf(&out,
			`<polyline style="fill:none;stroke:var(--%s);stroke-width:%g;stroke-dasharray:%s" points="`,
			curve.colour, curve.width, curve.dashes)
		for _, p := range points {
			fmt.Fprintf(&out, "%.1f,%.1f ", x(p.x), y(p.y))
		}
		out.WriteString(`"/>`)
	}
	out.WriteString("</svg>")
	return out.String()
}
