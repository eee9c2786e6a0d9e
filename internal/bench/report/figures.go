package report

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/trypema/trypema/internal/bench/figure"
	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/cli/screen"
)

// picture is what a step came to, drawn.
type picture struct {
	id      string
	step    string
	title   string
	caption string
	svg     []byte
}

func newPicture(id, step, title, caption string) picture {
	return picture{id: id, step: step, title: title, caption: caption}
}

func (f picture) file() string { return f.id + ".svg" }

// colourOf makes ours stand out.
func colourOf(limiter string) color.Color {
	if ours(limiter) {
		return figure.Colours[0]
	}
	return figure.Grey
}

// figures draws all there is to see.
func (d *document) figures() (all []picture, err error) {
	add := func(f picture, p *plot.Plot, height vg.Length) {
		if p == nil || err != nil {
			return
		}
		f.svg, err = figure.SVG(figure.Width, height, []*plot.Plot{p})
		all = append(all, f)
	}
	for i := range d.Steps {
		r := &d.Steps[i]
		switch {
		case r.Floors != nil:
			add(newPicture(r.ID, r.ID, "How long memory takes", "A load that depends on the one before, at random places of so much memory."), reachPlot(r.Floors), figure.Tall)
		case r.Accuracy != nil:
			add(newPicture(r.ID, r.ID, r.Title, "The line at an angle is what comes in; at 1 it should turn. What is above the limit is admitted beyond it, what is below it is lost."), offeredPlot(r.Accuracy), figure.Tall)
			if len(r.Accuracy) > 0 && err == nil {
				f := newPicture(r.ID+"-step", r.ID, "After a step to ten times the limit",
					stepCaption(r.Accuracy))
				f.svg, err = stepPlots(r.Accuracy)
				all = append(all, f)
			}
		case r.Comparison == nil:
		case r.ID == "growth" || r.ID == "buckets" || r.ID == "processors":
			add(newPicture(r.ID, r.ID, r.Title, r.About), scalingPlot(r), figure.Tall)
		case strings.HasSuffix(r.ID, "-grid"):
			add(newPicture(r.ID, r.ID, r.Title, r.About), gridPlot(r.Comparison), figure.Tall)
		default:
			rows := vg.Length(len(r.Comparison.Limiters))
			add(newPicture(r.ID, r.ID, r.Title, "Calls per second: the median of rounds, from the least to the greatest."), barPlot(r.Comparison), (2.2+0.62*rows)*vg.Centimeter)
			if r.ID == "tail" || strings.HasPrefix(r.ID, "redis-") || strings.HasPrefix(r.ID, "hybrid-") {
				add(newPicture(r.ID+"-latency", r.ID, "Latency: "+r.Title, "How long calls took, by how many took longer."), latencyPlot(r.Comparison), figure.Tall)
			}
		}
	}
	add(newPicture("step", "accuracy-suppressed", "Absolute and Suppressed", "The same calls, half of the limit at first and ten times the limit from one instant on."), d.strategiesPlot(), figure.Tall)
	add(newPicture("memory", "memory-100k", "Memory for a key", "All that a limiter holds, without the strings of the caller; those in Rust copy them."),
		d.memoryPlot("bytes", func(f measure.Footprint) []float64 { return f.BytesPerKey }, true), figure.Tall)
	add(newPicture("collection", "memory-100k", "A garbage collection", "How long it takes with all keys in place; \"harness\" is that of the keys' strings alone."),
		d.memoryPlot("ms", func(f measure.Footprint) []float64 { return f.Collection }, true), figure.Tall)
	add(newPicture("pause", "memory-100k", "The pause of a garbage collection", "How long it stops everything."),
		d.memoryPlot("µs", func(f measure.Footprint) []float64 { return f.Pause }, false), figure.Tall)
	return all, err
}

func barPlot(c *measure.Comparison) *plot.Plot {
	p := figure.Blank("calls per second", "")
	figure.Grid(p)
	var names []string
	most := 0.0
	for i := range c.Limiters {
		x := c.Limiters[len(c.Limiters)-1-i] // the first one on top
		name := c.Label(x)
		if x.Failed != "" {
			name += " (failed)"
		}
		names = append(names, name)
		bar, err := plotter.NewBarChart(plotter.Values{x.OpsPerSecond}, vg.Points(11))
		if err != nil {
			return nil
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width = true, float64(i), 0
		bar.Color = colourOf(x.Limiter)
		p.Add(bar)
		if rounds := opsOf(x); len(rounds) > 0 {
			low, high := slices.Min(rounds), slices.Max(rounds)
			most = max(most, high)
			whisker, err := plotter.NewLine(plotter.XYs{{X: low, Y: float64(i)}, {X: high, Y: float64(i)}})
			if err == nil {
				whisker.Width = vg.Points(1)
				p.Add(whisker)
			}
		}
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, max(1, most*1.05)
	p.X.Tick.Marker = labelled{figure.Short}
	return p
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

func opsOf(x measure.Compared) (ops []float64) {
	for _, r := range x.ByRound {
		ops = append(ops, r.OpsPerSecond)
	}
	return ops
}

// curves draws a line for each limiter, with its name.
type curves struct {
	*plot.Plot
	n int
}

func (c *curves) add(name string, points plotter.XYs) {
	if len(points) == 0 {
		return
	}
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil { // a number that is none
		return
	}
	colour := figure.Colours[c.n%len(figure.Colours)]
	line.Color, line.Width = colour, vg.Points(1.2)
	dots.Color, dots.Shape, dots.Radius = colour, draw.CircleGlyph{}, vg.Points(1.8)
	if ours(name) {
		line.Width = vg.Points(2.4)
	}
	if c.n >= len(figure.Colours)/2 {
		line.Dashes = []vg.Length{vg.Points(5), vg.Points(2)}
	}
	c.Add(line, dots)
	c.Legend.Add(name, line)
	c.n++
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

// draw adds a line for each; it reports whether there were any.
func (c *curves) draw(s series) bool {
	for _, name := range s.names {
		c.add(name, s.points[name])
	}
	return len(s.names) > 0
}

func latencyPlot(c *measure.Comparison) *plot.Plot {
	p := &curves{Plot: figure.Blank("calls that took longer", "")}
	figure.Grid(p.Plot)
	p.X.Tick.Marker = plot.TickerFunc(func(_, high float64) (ticks []plot.Tick) {
		for e := 0.0; e <= high+0.01; e++ {
			ticks = append(ticks, plot.Tick{Value: e, Label: "one in " + figure.Short(math.Pow(10, e))})
		}
		return ticks
	})
	low := math.Inf(1)
	for _, x := range c.Limiters {
		var points plotter.XYs
		for _, q := range x.Curve {
			if q.Quantile < 1 && q.Latency > 0 {
				points = append(points, plotter.XY{X: -math.Log10(1 - q.Quantile), Y: float64(q.Latency)})
				low = min(low, float64(q.Latency))
			}
		}
		p.add(c.Label(x), points)
	}
	if math.IsInf(low, 1) {
		return nil
	}
	figure.Logarithmic(&p.Y, nanoseconds)
	p.X.Min = 0
	return p.Plot
}

func offeredPlot(all []measure.Accuracy) *plot.Plot {
	p := &curves{Plot: figure.Blank("offered ÷ limit", "admitted ÷ limit")}
	figure.Grid(p.Plot)
	var ideal plotter.XYs
	for x := 0.1; x < 100; x *= 1.05 { // a line on this scale is none on a logarithmic one
		ideal = append(ideal, plotter.XY{X: x, Y: min(x, 1)})
	}
	line, err := plotter.NewLine(ideal)
	if err != nil {
		return nil
	}
	line.Color, line.Width = figure.Grey, vg.Points(4)
	p.Add(line)
	p.Legend.Add("as it should be", line)
	for _, a := range all {
		var points plotter.XYs
		for _, l := range a.Loads {
			points = append(points, plotter.XY{X: l.OfferedToLimit, Y: l.AdmittedToLimit})
		}
		slices.SortFunc(points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
		p.add(title(a), points)
	}
	figure.Logarithmic(&p.X, func(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) })
	p.Y.Min, p.Y.Max = 0, max(1.45, p.Y.Max)
	p.Legend.Left = false
	p.Legend.Top = false
	return p.Plot
}

func title(a measure.Accuracy) string {
	if a.Strategy == "suppressed" {
		return a.Limiter + " suppressed"
	}
	return a.Limiter
}

func stepCaption(all []measure.Accuracy) string {
	var parts []string
	for _, a := range all {
		if a.Failed == "" {
			parts = append(parts, fmt.Sprintf("%s %s", title(a), screen.Duration(milliseconds(a.Step.Pause))))
		}
	}
	return "Admitted in each twentieth of a window; the line is the limit. The longest time without an admission after the step: " + strings.Join(parts, ", ") + "."
}

// stepPlots are small pictures, one for each limiter, on the same scale.
func stepPlots(all []measure.Accuracy) ([]byte, error) {
	const columns = 3
	var rows [][]*plot.Plot
	n := 0
	for _, a := range all {
		if a.Failed != "" {
			continue
		}
		if n%columns == 0 {
			rows = append(rows, make([]*plot.Plot, columns))
		}
		rows[n/columns][n%columns] = stepPlot(a)
		n++
	}
	if n == 0 {
		return nil, nil
	}
	for i := n; i%columns > 0; i++ { // Align wants them all
		p := plot.New()
		p.HideAxes()
		p.BackgroundColor = nil
		rows[i/columns][i%columns] = p
	}
	return figure.SVG(figure.Width, vg.Length(len(rows))*4.2*vg.Centimeter, rows...)
}

// stepTop is how much of a step is shown: all that can come in, which is ten times the limit, and what is a
// bit more by chance.
const stepTop = 12

func stepPlot(a measure.Accuracy) *plot.Plot {
	p := figure.Blank("", "")
	p.Title.Text = title(a)
	p.X.Tick.Label.Font.Size, p.Y.Tick.Label.Font.Size = vg.Points(7), vg.Points(7)
	perBin := float64(a.Capacity) * a.Step.Bin / a.Window
	for i, n := range a.Step.Admitted {
		y := min(float64(n)/perBin, stepTop)
		bin := float64(i) * a.Step.Bin / a.Window
		box, err := plotter.NewPolygon(plotter.XYs{{X: bin, Y: 0}, {X: bin, Y: y}, {X: bin + a.Step.Bin/a.Window, Y: y}, {X: bin + a.Step.Bin/a.Window, Y: 0}})
		if err != nil || n == 0 {
			continue
		}
		box.Color, box.Width = colourOf(a.Limiter), 0
		p.Add(box)
	}
	end := float64(len(a.Step.Admitted)) * a.Step.Bin / a.Window
	if line, err := plotter.NewLine(plotter.XYs{{X: 0, Y: 1}, {X: end, Y: 1}}); err == nil {
		line.Color, line.Width = figure.Colours[1], vg.Points(1)
		p.Add(line)
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, end, 0, stepTop
	p.X.Label.Text, p.Y.Label.Text = "windows", "÷ limit"
	p.X.Label.TextStyle.Font.Size, p.Y.Label.TextStyle.Font.Size = vg.Points(7), vg.Points(7)
	return p
}

// strategiesPlot shows a step to ten times the limit under both strategies of ours; nil if either was not
// measured.
func (d *document) strategiesPlot() *plot.Plot {
	p := &curves{Plot: figure.Blank("windows", "admitted ÷ limit")}
	figure.Grid(p.Plot)
	var s series
	for _, strategy := range []string{"absolute", "suppressed"} {
		id := map[string]string{"absolute": "accuracy", "suppressed": "accuracy-suppressed"}[strategy]
		r := d.step(id)
		if r == nil {
			return nil
		}
		i := slices.IndexFunc(r.Accuracy, func(a measure.Accuracy) bool { return a.Limiter == "trypema" && a.Failed == "" })
		if i < 0 {
			return nil
		}
		line := r.Accuracy[i].Step
		for at, n := range line.Admitted {
			s.add(strategy, (float64(at)+0.5)*line.Bin/r.Accuracy[i].Window,
				float64(n)/(float64(r.Accuracy[i].Capacity)*line.Bin/r.Accuracy[i].Window))
		}
	}
	if !p.draw(s) {
		return nil
	}
	p.Y.Min = 0
	return p.Plot
}

// scalingPlot shows what a limiter does as something grows that the labels of the cases say.
func scalingPlot(r *result) *plot.Plot {
	y := "ns for a call"
	if r.ID == "processors" {
		y = "calls per second"
	}
	p := &curves{Plot: figure.Blank(strings.ToLower(r.Title), y)}
	figure.Grid(p.Plot)
	var s series
	for _, x := range r.Comparison.Limiters {
		at, err := strconv.ParseFloat(x.Case, 64)
		if err != nil || x.Failed != "" || x.OpsPerSecond == 0 {
			continue
		}
		value := 1e9 * float64(r.Comparison.Workers) / x.OpsPerSecond
		if r.ID == "processors" {
			value = x.OpsPerSecond
		}
		s.add(x.Limiter, at, value)
	}
	if !p.draw(s) {
		return nil
	}
	p.Y.Min = 0
	if r.ID == "processors" {
		p.X.Tick.Marker = plot.ConstantTicks(casesTicks(r.Comparison))
		p.Y.Tick.Marker = labelled{figure.Short}
	} else {
		figure.Logarithmic(&p.X, figure.Short)
	}
	return p.Plot
}

func casesTicks(c *measure.Comparison) (ticks []plot.Tick) {
	for _, x := range c.Limiters {
		if at, err := strconv.ParseFloat(x.Case, 64); err == nil {
			ticks = append(ticks, plot.Tick{Value: at, Label: x.Case})
		}
	}
	return ticks
}

// gridPlot shows calls per second by rate, a line for each limiter and key space.
func gridPlot(c *measure.Comparison) *plot.Plot {
	p := &curves{Plot: figure.Blank("limit of a key, per second", "calls per second")}
	figure.Grid(p.Plot)
	var s series
	for _, x := range c.Limiters {
		keys, rate, _ := strings.Cut(x.Case, ", ")
		at, err := strconv.ParseFloat(strings.TrimSuffix(rate, "/s"), 64)
		if err != nil || x.Failed != "" || x.OpsPerSecond == 0 {
			continue
		}
		s.add(x.Limiter+", "+keys, at, x.OpsPerSecond)
	}
	if !p.draw(s) {
		return nil
	}
	figure.Logarithmic(&p.X, figure.Short)
	figure.Logarithmic(&p.Y, figure.Short)
	return p.Plot
}

func reachPlot(f *measure.Floors) *plot.Plot {
	p := &curves{Plot: figure.Blank("memory", "ns for a load")}
	figure.Grid(p.Plot)
	var points plotter.XYs
	for _, r := range f.Reaches {
		points = append(points, plotter.XY{X: float64(r.Bytes), Y: measure.Median(r.Cost)})
	}
	if len(points) == 0 {
		return nil
	}
	p.add("one load after the other", points)
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.TickerFunc(func(_, high float64) (ticks []plot.Tick) {
		for x := 16 << 10; float64(x) <= high*1.01; x *= 4 { // from the least on
			ticks = append(ticks, plot.Tick{Value: float64(x), Label: binary(x)})
		}
		return ticks
	})
	p.Y.Min = 0
	return p.Plot
}

// binary writes a number of bytes that is a power of two.
func binary(bytes int) string {
	if bytes >= 1<<20 {
		return fmt.Sprint(bytes>>20, " MiB")
	}
	return fmt.Sprint(bytes>>10, " KiB")
}

// memoryPlot shows something of the footprints by the number of keys.
func (d *document) memoryPlot(unit string, of func(measure.Footprint) []float64, logY bool) *plot.Plot {
	p := &curves{Plot: figure.Blank("keys", unit)}
	figure.Grid(p.Plot)
	var s series
	for _, r := range d.Steps {
		for _, f := range r.Memory {
			values := of(f)
			if f.Failed != "" || len(values) == 0 || measure.Median(values) <= 0 {
				continue
			}
			s.add(cmp.Or(f.Limiter, "harness"), float64(f.Keys), measure.Median(values))
		}
	}
	slices.SortStableFunc(s.names, func(a, b string) int { // the harness last
		return cmp.Compare(strings.Count(a, "harness"), strings.Count(b, "harness"))
	})
	if !p.draw(s) {
		return nil
	}
	figure.Logarithmic(&p.X, figure.Short)
	if logY {
		figure.Logarithmic(&p.Y, figure.Short)
	}
	return p.Plot
}
