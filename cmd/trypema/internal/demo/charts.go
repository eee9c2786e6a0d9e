package demo

import (
	"bytes"
	"image/color"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/trypema/trypema/cmd/trypema/internal/figure"
)

// charts are the pictures of a lane, as SVG whose colours are those of the page.
type charts struct {
	Rates   string `json:"rates"`
	State   string `json:"state"`
	Latency string `json:"latency"`
}

// The colours of what is shown, and what the page calls them: vgsvg writes the former.
var (
	offeredColour  = figure.Grey
	admittedColour = figure.Colours[0]
	declinedColour = figure.Colours[1]
	hardColour     = figure.Colours[3]
	roomColour     = figure.Colours[2]

	themes = []struct{ written, named string }{
		{"#9A9A9A", "var(--grey)"}, {"#DDDDDD", "var(--line)"}, {"#0072B2", "var(--admitted)"},
		{"#D55E00", "var(--declined)"}, {"#CC79A7", "var(--hard)"}, {"#009E73", "var(--room)"},
	}
)

// curve is a line of a chart: a value of each sample, or of the mean of some up to it; NaN is nothing.
type curve struct {
	colour color.Color
	width  float64
	dashes []vg.Length
	value  func(one, mean sample) float64
}

var (
	dashed = []vg.Length{vg.Points(5), vg.Points(3)}
	dotted = []vg.Length{vg.Points(2), vg.Points(3)}

	rateCurves = []curve{
		{offeredColour, 1.4, nil, func(_, m sample) float64 { return m.perSecond(m.admitted + m.declined) }},
		{declinedColour, 1.4, nil, func(_, m sample) float64 { return m.perSecond(m.declined) }},
		{admittedColour, 0.9, dashed, func(s, _ sample) float64 { return s.limit }},
		{hardColour, 0.9, dotted, func(s, _ sample) float64 { return s.hard }},
		{admittedColour, 1.8, nil, func(_, m sample) float64 { return m.perSecond(m.admitted) }},
	}
	stateCurves = []curve{
		{roomColour, 1.4, nil, func(s, _ sample) float64 { return s.room }},
		{declinedColour, 1.4, nil, func(s, _ sample) float64 { return s.factor }},
	}
	latencyCurves = []curve{
		{declinedColour, 1.4, nil, func(s, _ sample) float64 { return powerOf(s.p99) }},
		{admittedColour, 1.4, nil, func(s, _ sample) float64 { return powerOf(s.p50) }},
	}
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
	rates := drawn(series, rateCurves)
	rates.Y.Min, rates.Y.Max = 0, max(rates.Y.Max*1.05, k.Limit*1.2)

	state := drawn(series, stateCurves)
	state.Y.Min, state.Y.Max = 0, 1
	state.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 0.5}, {Value: 1, Label: "1"}}

	slow := drawn(series, latencyCurves)
	slow.Y.Min, slow.Y.Max = 2, 9
	slow.Y.Tick.Marker = plot.ConstantTicks{{Value: 3, Label: "1µs"}, {Value: 6, Label: "1ms"}, {Value: 9, Label: "1s"}}

	return charts{Rates: svg(rates, 330, 120), State: svg(state, 165, 72), Latency: svg(slow, 165, 72)}
}

func drawn(series []sample, curves []curve) *plot.Plot {
	p := figure.Blank("", "")
	figure.Grid(p)
	for _, c := range curves {
		var points plotter.XYs
		for i := rateOver - 1; i < len(series); i++ {
			if y := c.value(series[i], mean(series[:i+1])); !math.IsNaN(y) {
				points = append(points, plotter.XY{X: -float64(len(series)-1-i) * tick.Seconds(), Y: y})
			}
		}
		if len(points) == 0 {
			continue
		}
		if l, err := plotter.NewLine(points); err == nil {
			l.Color, l.Width, l.Dashes = c.colour, vg.Points(c.width), c.dashes
			p.Add(l)
		}
	}
	p.X.Min, p.X.Max = -shown.Seconds(), 0
	p.X.Tick.Marker = plot.ConstantTicks{{Value: -30, Label: "30s ago"}, {Value: -20}, {Value: -10}, {Value: 0, Label: "now"}}
	return p
}

func svg(p *plot.Plot, width, height float64) string {
	text, err := figure.SVG(vg.Points(width), vg.Points(height), []*plot.Plot{p})
	if err != nil {
		return "" // not while it writes to memory
	}
	for _, t := range themes {
		text = bytes.ReplaceAll(text, []byte(t.written), []byte(t.named))
	}
	return string(text)
}
