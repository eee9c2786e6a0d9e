package report

import (
	"cmp"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/trypema/trypema/internal/bench/figure"
	"github.com/trypema/trypema/internal/bench/measure"
)

// Pictures are as wide as a third of a page, or as a half, so that their letters are seen as large as they
// are drawn.
const (
	narrow = 10 * vg.Centimeter
	wide   = 16 * vg.Centimeter
	low    = 6 * vg.Centimeter
)

// picture is what a step came to, drawn.
type picture struct {
	ID      string
	step    string // empty for the one of all steps
	Title   string
	Named   bool // its title is not that of its step
	Caption string
	Wide    bool
	more    bool // shown with the tables
	svg     []byte
}

// File is the name of its file.
func (f picture) File() string { return f.ID + ".svg" }

// SVG is the picture for a page.
func (f picture) SVG() template.HTML {
	return template.HTML(f.svg) //nolint:gosec // it is made here, of numbers and names of ours
}

// span is how much of a row of six columns it takes.
func (f picture) span() int {
	if f.Wide {
		return 3
	}
	return 2
}

// colourOf makes ours stand out.
func colourOf(limiter string) color.Color {
	if ours(limiter) {
		return figure.Colours[0]
	}
	return figure.Grey
}

// album collects pictures, until one of them fails.
type album struct {
	all []picture
	err error
}

// add draws a picture of one plot or of several. There is none where there is nothing to see.
func (a *album) add(f picture, height vg.Length, plots [][]*plot.Plot) {
	if len(plots) == 0 || plots[0][0] == nil || a.err != nil {
		return
	}
	width := narrow
	if f.Wide {
		width = wide
	}
	f.svg, a.err = figure.SVG(width, height, plots...)
	a.all = append(a.all, f)
}

func one(p *plot.Plot) [][]*plot.Plot { return [][]*plot.Plot{{p}} }

// figures draws all there is to see.
func (d *document) figures() ([]picture, error) {
	a := new(album)
	o := d.overview()
	a.add(picture{
		ID: "overview", Title: "Decisions per second of Trypema ÷ those of each other limiter", Wide: true,
		Caption: "A point is one other limiter. Right of the line Trypema is faster. " +
			"The name is that of the fastest other one.",
	}, (2.2+0.75*vg.Length(len(o)))*vg.Centimeter, one(overviewPlot(o)))
	for i := range d.Steps {
		r := titled(d.Steps[i])
		f := picture{ID: r.ID, step: r.ID, Title: r.Title}
		switch {
		case r.Floors != nil:
			f.Title = "How long memory takes"
			f.Caption = "A load that depends on the one before, at random places of so much memory."
			a.add(f, low, one(reachPlot(r.Floors)))
		case r.Fullest != nil:
			f.Caption = "Above 1 a window has more than the limit. What could not be measured is left out."
			bars := fullestBars(r.Fullest)
			a.add(f, barsHeight(bars), one(barPlot("most in any window ÷ limit", bars, hundredths, 1)))
		case r.Memory != nil:
			d.addMemory(a, &r)
		case r.Accuracy != nil:
			d.addAccuracy(a, f, r.Accuracy)
		case r.Comparison == nil:
		case r.ID == "growth" || r.ID == "buckets" || r.ID == "processors":
			a.add(f, low, one(scalingPlot(&r)))
		case strings.HasSuffix(r.ID, "-grid"):
			f.Wide, f.more, f.Caption = true, true, "Calls per second, by the limit of a key."
			a.add(f, low, gridPlots(r.Comparison))
		default:
			bars := speedBars(r.Comparison)
			a.add(f, barsHeight(bars), one(barPlot("calls per second", bars, figure.Short, 0)))
			if r.ID == "tail" || strings.HasPrefix(r.ID, "redis-") || strings.HasPrefix(r.ID, "hybrid-") {
				l := picture{
					ID: r.ID + "-latency", step: r.ID, Title: "Latency", more: r.ID != "tail",
					Caption: "How long the slowest of so many calls took.",
				}
				plots := latencyPlots(r.Comparison)
				l.Wide = len(plots) > 1
				a.add(l, heightOf(plots), plots)
			}
		}
	}
	a.add(picture{
		ID: "step", step: "accuracy-suppressed", Title: "Absolute and Suppressed of Trypema",
		Caption: "The same calls, half of the limit at first and ten times the limit from one instant on.",
	}, low, one(d.strategiesPlot()))
	for i := range a.all {
		f := &a.all[i]
		r := d.step(f.step)
		f.Named = r == nil || f.Title != titled(*r).Title
	}
	return a.all, a.err
}

func heightOf(plots [][]*plot.Plot) vg.Length {
	if len(plots) < 2 {
		return low
	}
	return vg.Length(len(plots)) * 3.6 * vg.Centimeter
}

func (d *document) addAccuracy(a *album, f picture, all []measure.Accuracy) {
	f.Caption = "What is admitted, by what is offered, both ÷ the limit. The grey line is as it should be."
	plots := offeredPlots(all)
	if f.Wide = len(plots) > 1; f.Wide {
		f.Caption += " Blue is Trypema, orange the other limiter."
	}
	a.add(f, heightOf(plots), plots)
	steps := stepPlots(all)
	a.add(picture{
		ID: f.ID + "-step", step: f.step, Title: "After a step to ten times the limit",
		Caption: "Admitted in each twentieth of a window ÷ limit, by windows. The line is the limit.",
		Wide:    len(all) > 2, more: f.ID != "accuracy",
	}, max(4.2*vg.Centimeter, heightOf(steps)*vg.Length(min(1, len(steps)-1))), steps)
}

// addMemory adds the pictures of memory, which are those of 100,000 keys.
func (d *document) addMemory(a *album, r *result) {
	if r.ID != "memory-100k" {
		return
	}
	for _, of := range []struct {
		id, title, caption, unit string
		values                   func(measure.Footprint) []float64
	}{
		{
			"memory", "Memory for a key",
			"All that a limiter holds, without the strings of the caller; those in Rust copy them.", "bytes",
			func(f measure.Footprint) []float64 { return f.BytesPerKey },
		},
		{
			"collection", "A garbage collection",
			"How long it takes with all keys in place; \"harness\" is that of the keys' strings alone.", "ms",
			func(f measure.Footprint) []float64 { return f.Collection },
		},
		{
			"pause", "The pause of a garbage collection", "How long it stops everything.", "µs",
			func(f measure.Footprint) []float64 { return f.Pause },
		},
	} {
		var bars []bar
		for _, f := range r.Memory {
			if values := of.values(f); f.Failed == "" && len(values) > 0 && measure.Median(values) > 0 {
				bars = append(bars, newBar(cmp.Or(f.Limiter, "harness"), f.Limiter, values))
			}
		}
		p := picture{ID: of.id, step: r.ID, Title: of.title, Caption: of.caption}
		a.add(p, barsHeight(bars), one(barPlot(of.unit, bars, figure.Short, 0)))
	}
}

// bar is one of a limiter: a value, and the least and the greatest of those that it is the median of.
type bar struct {
	name             string
	value, low, high float64
	colour           color.Color
}

func newBar(name, limiter string, values []float64) bar {
	b := bar{name: name, value: measure.Median(values), colour: colourOf(limiter)}
	b.low, b.high = slices.Min(values), slices.Max(values)
	return b
}

func barsHeight(bars []bar) vg.Length { return (1.5 + 0.53*vg.Length(len(bars))) * vg.Centimeter }

func speedBars(c *measure.Comparison) (bars []bar) {
	for _, x := range c.Limiters {
		if rounds := x.PerRound(calls); x.Failed == "" && len(rounds) > 0 {
			bars = append(bars, newBar(c.Label(x), x.Limiter, rounds))
		} else if x.Failed != "" {
			bars = append(bars, bar{name: c.Label(x) + " (failed)", colour: figure.Grey})
		}
	}
	return bars
}

// fullestBars are orange where a limiter was above its limit.
func fullestBars(all []measure.Fullest) (bars []bar) {
	for _, f := range all {
		if f.Ratio == nil || f.Failed != "" {
			continue
		}
		b := newBar(f.Limiter, f.Limiter, []float64{*f.Ratio})
		if *f.Ratio > 1 {
			b.colour = figure.Colours[1]
		}
		bars = append(bars, b)
	}
	return bars
}

// barPlot draws bars, the first one on top, with a line at a value that matters if it is not 0.
func barPlot(unit string, bars []bar, write func(float64) string, line float64) *plot.Plot {
	if len(bars) == 0 {
		return nil
	}
	p := figure.Gridded(unit, "")
	var names []string
	most := line
	for i := range bars {
		b := bars[len(bars)-1-i]
		names = append(names, b.name)
		chart, err := plotter.NewBarChart(plotter.Values{b.value}, vg.Points(11))
		if err != nil {
			return nil
		}
		chart.Horizontal, chart.XMin, chart.LineStyle.Width = true, float64(i), 0
		chart.Color = b.colour
		p.Add(chart)
		most = max(most, b.high)
		if b.low < b.high {
			addLine(p, plotter.XYs{{X: b.low, Y: float64(i)}, {X: b.high, Y: float64(i)}}, color.Black, 1)
		}
	}
	if line > 0 {
		all := plotter.XYs{{X: line, Y: -0.5}, {X: line, Y: float64(len(bars)) - 0.5}}
		addLine(p, all, color.Black, 1, vg.Points(4), vg.Points(3))
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, most*1.05
	if most == 0 {
		p.X.Max = 1
	}
	p.X.Tick.Marker = labelled{write}
	return p
}

// addLine draws a line so many points wide.
func addLine(p *plot.Plot, points plotter.XYs, colour color.Color, width float64, dashes ...vg.Length) {
	if line, err := plotter.NewLine(points); err == nil {
		line.Color, line.Width, line.Dashes = colour, vg.Points(width), dashes
		p.Add(line)
	}
}

// faster is how much faster Trypema is than others in a step.
type faster struct {
	title  string
	others []other
	next   other // the fastest of them
}

// other is another limiter, and how many times as fast Trypema is.
type other struct {
	name  string
	ratio float64
}

func (f faster) String() string {
	return fmt.Sprintf("%s (%s %s)", lower(f.title), ratio(f.next.ratio), f.next.name)
}

// overview compares Trypema in every step with the others of its kind.
func (d *document) overview() (all []faster) {
	for _, g := range groups {
		for _, r := range d.grouped(g) {
			if r.Comparison == nil || !g.Open || strings.HasSuffix(r.ID, "-grid") {
				continue
			}
			limiter := "trypema"
			if strings.HasPrefix(r.ID, "hybrid-") {
				limiter = "trypema-hybrid"
			}
			us := d.row(r.ID, "", limiter)
			if us == nil {
				continue
			}
			f := faster{title: r.Title}
			for _, x := range r.Comparison.Limiters {
				if !ours(x.Limiter) && x.Failed == "" && x.OpsPerSecond > 0 {
					f.others = append(f.others, other{x.Limiter, us.OpsPerSecond / x.OpsPerSecond})
				}
			}
			if len(f.others) > 0 {
				f.next = slices.MinFunc(f.others, func(a, b other) int { return cmp.Compare(a.ratio, b.ratio) })
				all = append(all, f)
			}
		}
	}
	return all
}

func overviewPlot(all []faster) *plot.Plot {
	if len(all) == 0 {
		return nil
	}
	p := figure.Gridded("calls per second of Trypema ÷ those of the other", "")
	least, most := 0.5, 2.0
	var names []string
	for i := range all {
		f, y := all[len(all)-1-i], float64(i)
		names = append(names, f.title)
		for _, side := range []struct {
			colour color.Color
			wins   bool
		}{{figure.Colours[0], true}, {figure.Colours[1], false}} {
			var points plotter.XYs
			for _, x := range f.others {
				least, most = min(least, x.ratio), max(most, x.ratio)
				if (x.ratio >= 1) == side.wins {
					points = append(points, plotter.XY{X: x.ratio, Y: y})
				}
			}
			if dots, err := plotter.NewScatter(points); err == nil && len(points) > 0 {
				dots.Color, dots.Shape, dots.Radius = side.colour, draw.CircleGlyph{}, vg.Points(3.5)
				p.Add(dots)
			}
		}
		name := called{at: plotter.XY{X: f.next.ratio, Y: y}, name: f.next.name, style: p.X.Tick.Label}
		name.style.XAlign, name.style.YAlign = text.XRight, text.YCenter
		p.Add(name)
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(all))-0.5
	p.X.Min, p.X.Max = least/10, most*1.5 // with room for names
	figure.Logarithmic(&p.X, func(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) + " ×" })
	return p
}

// called is the name of a point, at its left, and the part beside it of the line at 1, which leaves the name
// free.
type called struct {
	at    plotter.XY
	name  string
	style text.Style
}

func (n called) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	right := x(n.at.X) - vg.Points(7)
	c.FillText(n.style, vg.Point{X: right, Y: y(n.at.Y)}, n.name)
	line, low, high := x(1), y(n.at.Y-0.5), y(n.at.Y+0.5)
	style := draw.LineStyle{Color: color.Black, Width: vg.Points(1.2)}
	if line < right-n.style.Width(n.name)-vg.Points(2) || line > right+vg.Points(2) {
		c.StrokeLine2(style, line, low, line, high)
		return
	}
	half := n.style.Height(n.name) / 2
	c.StrokeLine2(style, line, low, line, y(n.at.Y)-half)
	c.StrokeLine2(style, line, y(n.at.Y)+half, line, high)
}

// labelled are the usual ticks with labels of one's own.
type labelled struct{ write func(float64) string }

func (l labelled) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = l.write(ticks[i].Value)
		}
	}
	return ticks
}

// series are the points of lines, in the order in which these were met.
type series struct {
	names  []string
	points map[string]plotter.XYs
}

func (s *series) add(name string, x, y float64) {
	if _, known := s.points[name]; !known {
		s.names = append(s.names, name)
	}
	if s.points == nil {
		s.points = make(map[string]plotter.XYs)
	}
	s.points[name] = append(s.points[name], plotter.XY{X: x, Y: y})
}

// draw adds a line for each name, with a point at each value.
func (s *series) draw(p *plot.Plot) {
	for i, name := range s.names {
		line, dots, err := plotter.NewLinePoints(s.points[name])
		if err != nil { // a number that is none
			continue
		}
		colour := figure.Colours[i%len(figure.Colours)]
		line.Color, line.Width = colour, vg.Points(1.2)
		dots.Color, dots.Shape, dots.Radius = colour, draw.CircleGlyph{}, vg.Points(1.8)
		if ours(name) {
			line.Width = vg.Points(2.4)
		}
		if i >= len(figure.Colours)/2 {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(2)}
		}
		p.Add(line, dots)
		p.Legend.Add(name, line)
	}
}

// abreast is how many small pictures stand side by side.
const abreast = 4

// panels draws a small picture for each of the others, with ours in it (blue), all on the same scale. Where
// there are few lines one picture has them all. The plot that it is given has what each of them shows.
func panels(s series, few int, blank func() *plot.Plot, finish func(*plot.Plot)) [][]*plot.Plot {
	if len(s.names) == 0 {
		return nil
	}
	if len(s.names) <= few {
		p := blank()
		s.draw(p)
		finish(p)
		return one(p)
	}
	var plots []*plot.Plot
	for _, name := range s.names {
		if ours(name) {
			continue
		}
		p := blank()
		p.Title.Text = name
		for _, n := range s.names {
			if n == name || ours(n) {
				addLine(p, s.points[n], figure.Colours[0], 1.8)
			}
		}
		addLine(p, s.points[name], figure.Colours[1], 1.8)
		plots = append(plots, p)
	}
	x0, x1, y0, y1 := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, p := range plots {
		x0, x1, y0, y1 = min(x0, p.X.Min), max(x1, p.X.Max), min(y0, p.Y.Min), max(y1, p.Y.Max)
	}
	for _, p := range plots {
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = x0, x1, y0, y1
		finish(p)
	}
	return tiled(plots)
}

// tiled puts plots into rows. What is left of the last one is filled with nothing.
func tiled(plots []*plot.Plot) (rows [][]*plot.Plot) {
	for i := 0; i < len(plots); i += abreast {
		row := slices.Clone(plots[i:min(i+abreast, len(plots))])
		for len(row) < min(abreast, len(plots)) {
			p := plot.New()
			p.HideAxes()
			p.BackgroundColor = nil
			row = append(row, p)
		}
		rows = append(rows, row)
	}
	return rows
}

func latencyPlots(c *measure.Comparison) [][]*plot.Plot {
	var s series
	for _, x := range c.Limiters {
		for _, q := range x.Curve {
			if q.Quantile < 1 && q.Latency > 0 {
				s.add(c.Label(x), -math.Log10(1-q.Quantile), float64(q.Latency))
			}
		}
	}
	return panels(s, 4, func() *plot.Plot { return figure.Gridded("", "") }, func(p *plot.Plot) {
		p.X.Tick.Marker = plot.TickerFunc(func(_, high float64) (ticks []plot.Tick) {
			for e := 0.0; e <= high+0.01; e++ {
				ticks = append(ticks, plot.Tick{Value: e, Label: figure.Short(math.Pow(10, e))})
			}
			return ticks
		})
		figure.Logarithmic(&p.Y, nanoseconds)
		p.X.Min = 0
	})
}

func offeredPlots(all []measure.Accuracy) [][]*plot.Plot {
	var s series
	for _, a := range all {
		loads := slices.Clone(a.Loads)
		slices.SortFunc(loads, func(a, b measure.Load) int {
			return cmp.Compare(a.OfferedToLimit, b.OfferedToLimit)
		})
		for _, l := range loads {
			s.add(title(a), l.OfferedToLimit, l.AdmittedToLimit)
		}
	}
	return panels(s, 4, func() *plot.Plot {
		p := figure.Gridded("", "")
		var ideal plotter.XYs
		for x := 0.1; x < 100; x *= 1.05 { // a line on this scale is none on a logarithmic one
			ideal = append(ideal, plotter.XY{X: x, Y: min(x, 1)})
		}
		addLine(p, ideal, figure.Grey, 4)
		return p
	}, func(p *plot.Plot) {
		figure.Logarithmic(&p.X, func(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) })
		p.Y.Min, p.Y.Max = 0, max(1.45, p.Y.Max)
		p.Legend.Left = false
		p.Legend.Top = false
	})
}

func title(a measure.Accuracy) string {
	if a.Strategy == "suppressed" {
		return a.Limiter + " suppressed"
	}
	return a.Limiter
}

// stepPlots are small pictures, one for each limiter, on the same scale.
func stepPlots(all []measure.Accuracy) [][]*plot.Plot {
	var plots []*plot.Plot
	for _, a := range all {
		if a.Failed == "" {
			plots = append(plots, stepPlot(a))
		}
	}
	return tiled(plots)
}

// stepTop is how much of a step is shown: all that can come in, which is ten times the limit, and what is a
// bit more by chance.
const stepTop = 12

func stepPlot(a measure.Accuracy) *plot.Plot {
	p := figure.Blank("", "")
	p.Title.Text = title(a)
	perBin := float64(a.Capacity) * a.Step.Bin / a.Window
	for i, n := range a.Step.Admitted {
		y := min(float64(n)/perBin, stepTop)
		bin := float64(i) * a.Step.Bin / a.Window
		box, err := plotter.NewPolygon(plotter.XYs{{X: bin, Y: 0}, {X: bin, Y: y},
			{X: bin + a.Step.Bin/a.Window, Y: y}, {X: bin + a.Step.Bin/a.Window, Y: 0}})
		if err != nil || n == 0 {
			continue
		}
		box.Color, box.Width = colourOf(a.Limiter), 0
		p.Add(box)
	}
	end := float64(len(a.Step.Admitted)) * a.Step.Bin / a.Window
	addLine(p, plotter.XYs{{X: 0, Y: 1}, {X: end, Y: 1}}, figure.Colours[1], 1)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, end, 0, stepTop
	return p
}

// strategiesPlot shows a step to ten times the limit under both strategies of ours; nil if either was not
// measured.
func (d *document) strategiesPlot() *plot.Plot {
	var s series
	for i, strategy := range []string{"absolute", "suppressed"} {
		a := d.accuracy([]string{"accuracy", "accuracy-suppressed"}[i], "trypema")
		if a == nil {
			return nil
		}
		bin := a.Step.Bin / a.Window
		for at, n := range a.Step.Admitted {
			s.add(strategy, (float64(at)+0.5)*bin, float64(n)/(float64(a.Capacity)*bin))
		}
	}
	p := figure.Gridded("windows", "admitted ÷ limit")
	s.draw(p)
	p.Y.Min = 0
	return p
}

// scalingPlot shows what a limiter does as something grows that the labels of the cases say.
func scalingPlot(r *result) *plot.Plot {
	y := "ns for a call"
	if r.ID == "processors" {
		y = "calls per second"
	}
	p := figure.Gridded(strings.ToLower(r.Title), y)
	var s series
	var ticks plot.ConstantTicks
	for _, x := range r.Comparison.Limiters {
		at, err := strconv.ParseFloat(x.Case, 64)
		if err != nil || x.Failed != "" || x.OpsPerSecond == 0 {
			continue
		}
		ticks = append(ticks, plot.Tick{Value: at, Label: x.Case})
		value := 1e9 * float64(r.Comparison.Workers) / x.OpsPerSecond
		if r.ID == "processors" {
			value = x.OpsPerSecond
		}
		s.add(x.Limiter, at, value)
	}
	if len(s.names) == 0 {
		return nil
	}
	s.draw(p)
	p.Y.Min = 0
	if r.ID == "processors" {
		p.X.Tick.Marker, p.Y.Tick.Marker = ticks, labelled{figure.Short}
	} else {
		figure.Logarithmic(&p.X, figure.Short)
	}
	return p
}

// gridPlots show calls per second by rate, one picture for each key space with a line for each limiter.
func gridPlots(c *measure.Comparison) [][]*plot.Plot {
	var keySpaces []string
	lines := make(map[string]*series)
	for _, x := range c.Limiters {
		keys, rate, _ := strings.Cut(x.Case, ", ")
		at, err := strconv.ParseFloat(strings.TrimSuffix(rate, "/s"), 64)
		if err != nil || x.Failed != "" || x.OpsPerSecond == 0 {
			continue
		}
		if lines[keys] == nil {
			lines[keys] = new(series)
			keySpaces = append(keySpaces, keys)
		}
		lines[keys].add(x.Limiter, at, x.OpsPerSecond)
	}
	var plots []*plot.Plot
	most := 0.0
	for _, keys := range keySpaces {
		p := figure.Gridded("limit per second", "")
		p.Title.Text = keys
		lines[keys].draw(p)
		figure.Logarithmic(&p.X, figure.Short)
		plots = append(plots, p)
		most = max(most, p.Y.Max)
	}
	for i, p := range plots {
		p.Y.Min, p.Y.Max = 0, 1.6*most // with room for the legend
		p.Y.Tick.Marker = labelled{figure.Short}
		if i > 0 {
			p.Legend = plot.NewLegend()
		}
	}
	return tiled(plots)
}

func reachPlot(f *measure.Floors) *plot.Plot {
	if len(f.Reaches) == 0 {
		return nil
	}
	p := figure.Gridded("memory", "ns for a load")
	var s series
	for _, r := range f.Reaches {
		s.add("one load after the other", float64(r.Bytes), measure.Median(r.Cost))
	}
	s.draw(p)
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.TickerFunc(func(_, high float64) (ticks []plot.Tick) {
		for x := 16 << 10; float64(x) <= high*1.01; x *= 4 { // from the least on
			ticks = append(ticks, plot.Tick{Value: float64(x), Label: binary(x)})
		}
		return ticks
	})
	p.Y.Min = 0
	return p
}

// binary writes a number of bytes that is a power of two.
func binary(bytes int) string {
	if bytes >= 1<<20 {
		return fmt.Sprint(bytes>>20, " MiB")
	}
	return fmt.Sprint(bytes>>10, " KiB")
}
