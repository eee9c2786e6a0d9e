package report

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/trypema/trypema/cmd/trypema/internal/bench"
	"github.com/trypema/trypema/cmd/trypema/internal/screen"
)

// figure is a picture of what a step came to.
type figure struct {
	id      string
	step    string
	title   string
	caption string
	svg     []byte
}

func picture(id, step, title, caption string) figure {
	return figure{id: id, step: step, title: title, caption: caption}
}

func (f figure) file() string { return f.id + ".svg" }

const (
	width = 18 * vg.Centimeter
	tall  = 9 * vg.Centimeter
)

// colours are told apart by those who see no red or no green, too. Ours is the first.
var colours = []color.Color{
	rgb(0x00, 0x72, 0xb2), rgb(0xd5, 0x5e, 0x00), rgb(0x00, 0x9e, 0x73), rgb(0xcc, 0x79, 0xa7), rgb(0xe6, 0x9f, 0x00),
	rgb(0x56, 0xb4, 0xe9), rgb(0x6a, 0x3d, 0x9a), rgb(0x7f, 0x7f, 0x7f), rgb(0x8c, 0x56, 0x4b), rgb(0x2f, 0x4f, 0x4f), rgb(0xbc, 0xbd, 0x22),
}

func rgb(r, g, b uint8) color.Color { return color.RGBA{r, g, b, 0xff} }

var (
	grey  = rgb(0x9a, 0x9a, 0x9a)
	faint = rgb(0xdd, 0xdd, 0xdd)
)

// colourOf makes ours stand out.
func colourOf(limiter string) color.Color {
	if ours(limiter) {
		return colours[0]
	}
	return grey
}

// figures draws all there is to see.
func (d *document) figures() (all []figure, err error) {
	add := func(f figure, p *plot.Plot, height vg.Length) {
		if p == nil || err != nil {
			return
		}
		f.svg, err = drawn(height, [][]*plot.Plot{{p}})
		all = append(all, f)
	}
	for i := range d.Steps {
		r := &d.Steps[i]
		switch {
		case r.Floors != nil:
			add(picture(r.ID, r.ID, "How long memory takes", "A load that depends on the one before, at random places of so much memory."), reachPlot(r.Floors), tall)
		case r.Accuracy != nil:
			add(picture(r.ID, r.ID, r.Title, "The line at an angle is what comes in; at 1 it should turn. What is above the limit is admitted beyond it, what is below it is lost."), offeredPlot(r.Accuracy), tall)
			if len(r.Accuracy) > 0 && err == nil {
				f := picture(r.ID+"-step", r.ID, "After a step to ten times the limit", stepCaption(r.Accuracy))
				f.svg, err = stepPlots(r.Accuracy)
				all = append(all, f)
			}
		case r.Comparison == nil:
		case r.ID == "growth" || r.ID == "buckets" || r.ID == "processors":
			add(picture(r.ID, r.ID, r.Title, r.About), scalingPlot(r), tall)
		case strings.HasSuffix(r.ID, "-grid"):
			add(picture(r.ID, r.ID, r.Title, r.About), gridPlot(r.Comparison), tall)
		default:
			rows := vg.Length(len(r.Comparison.Limiters))
			add(picture(r.ID, r.ID, r.Title, "Calls per second: the median of rounds, from the least to the greatest."), barPlot(r.Comparison), (2.2+0.62*rows)*vg.Centimeter)
			if r.ID == "tail" || strings.HasPrefix(r.ID, "redis-") || strings.HasPrefix(r.ID, "hybrid-") {
				add(picture(r.ID+"-latency", r.ID, "Latency: "+r.Title, "How long calls took, by how many took longer."), latencyPlot(r.Comparison), tall)
			}
		}
	}
	add(picture("memory", "memory-100k", "Memory for a key", "All that a limiter holds, without the strings of the caller; those in Rust copy them."),
		d.memoryPlot("bytes", func(f bench.Footprint) []float64 { return f.BytesPerKey }, true), tall)
	add(picture("collection", "memory-100k", "A garbage collection", "How long it takes with all keys in place; \"harness\" is that of the keys' strings alone."),
		d.memoryPlot("ms", func(f bench.Footprint) []float64 { return f.Collection }, true), tall)
	add(picture("pause", "memory-100k", "The pause of a garbage collection", "How long it stops everything."),
		d.memoryPlot("µs", func(f bench.Footprint) []float64 { return f.Pause }, false), tall)
	return all, err
}

// drawn is a picture with one plot, or a grid of them.
func drawn(height vg.Length, plots [][]*plot.Plot) ([]byte, error) {
	canvas := vgsvg.New(width, height)
	within := draw.New(canvas)
	if len(plots) == 1 && len(plots[0]) == 1 {
		plots[0][0].Draw(draw.Crop(within, 0, -0.4*vg.Centimeter, 0, -0.2*vg.Centimeter))
	} else {
		tiles := draw.Tiles{Rows: len(plots), Cols: len(plots[0]), PadX: 0.3 * vg.Centimeter, PadY: 0.3 * vg.Centimeter, PadRight: 0.3 * vg.Centimeter}
		for y, row := range plot.Align(plots, tiles, within) {
			for x, c := range row {
				if plots[y][x] != nil {
					plots[y][x].Draw(c)
				}
			}
		}
	}
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	text := out.Bytes()
	if at := bytes.Index(text, []byte("<svg")); at > 0 { // what comes before does not belong into a page
		text = text[at:]
	}
	return text, err
}

// blank is an empty plot in our style.
func blank(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Label.Text, p.Y.Label.Text = x, y
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(9)}
	for _, f := range []*font.Font{&p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font, &p.Title.TextStyle.Font} {
		*f = sans
	}
	p.X.Color, p.Y.Color = grey, grey
	p.X.Tick.Color, p.Y.Tick.Color = grey, grey
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(1)
	return p
}

// grid draws faint lines at the ticks.
func grid(p *plot.Plot) {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = faint, faint
	p.Add(g)
}

// logarithmic makes an axis count by factors. What it is to show must have been added, and be above 0.
func logarithmic(a *plot.Axis, write func(float64) string) {
	if a.Min == a.Max { // of which gonum would make a range that may reach 0
		a.Min, a.Max = a.Min/2, a.Max*2
	}
	a.Scale = plot.LogScale{}
	a.Tick.Marker = plot.TickerFunc(func(low, high float64) (ticks []plot.Tick) {
		decades := math.Log10(high / low)
		for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
			for _, m := range []float64{1, 2, 5} {
				if x := m * math.Pow(10, e); x >= low*0.999 && x <= high*1.001 {
					t := plot.Tick{Value: x}
					if m == 1 || decades < 2 {
						t.Label = write(x)
					}
					ticks = append(ticks, t)
				}
			}
		}
		return ticks
	})
}

// short writes a number with a unit of thousands.
func short(x float64) string {
	for _, u := range []struct {
		unit string
		size float64
	}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if x >= u.size {
			return strconv.FormatFloat(x/u.size, 'g', 3, 64) + u.unit
		}
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

func barPlot(c *bench.Comparison) *plot.Plot {
	p := blank("calls per second", "")
	grid(p)
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
	p.X.Tick.Marker = labelled{short}
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

func opsOf(x bench.Compared) (ops []float64) {
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
	colour := colours[c.n%len(colours)]
	line.Color, line.Width = colour, vg.Points(1.2)
	dots.Color, dots.Shape, dots.Radius = colour, draw.CircleGlyph{}, vg.Points(1.8)
	if ours(name) {
		line.Width = vg.Points(2.4)
	}
	if c.n >= len(colours)/2 {
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

func latencyPlot(c *bench.Comparison) *plot.Plot {
	p := &curves{Plot: blank("calls that took longer", "")}
	grid(p.Plot)
	p.X.Tick.Marker = plot.TickerFunc(func(_, high float64) (ticks []plot.Tick) {
		for e := 0.0; e <= high+0.01; e++ {
			ticks = append(ticks, plot.Tick{Value: e, Label: "one in " + short(math.Pow(10, e))})
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
	logarithmic(&p.Y, nanoseconds)
	p.X.Min = 0
	return p.Plot
}

func offeredPlot(all []bench.Accuracy) *plot.Plot {
	p := &curves{Plot: blank("offered ÷ limit", "admitted ÷ limit")}
	grid(p.Plot)
	var ideal plotter.XYs
	for x := 0.1; x < 100; x *= 1.05 { // a line on this scale is none on a logarithmic one
		ideal = append(ideal, plotter.XY{X: x, Y: min(x, 1)})
	}
	line, err := plotter.NewLine(ideal)
	if err != nil {
		return nil
	}
	line.Color, line.Width = grey, vg.Points(4)
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
	logarithmic(&p.X, func(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) })
	p.Y.Min, p.Y.Max = 0, max(1.45, p.Y.Max)
	p.Legend.Left = false
	p.Legend.Top = false
	return p.Plot
}

func title(a bench.Accuracy) string {
	if a.Strategy == "suppressed" {
		return a.Limiter + " suppressed"
	}
	return a.Limiter
}

func stepCaption(all []bench.Accuracy) string {
	var parts []string
	for _, a := range all {
		if a.Failed == "" {
			parts = append(parts, fmt.Sprintf("%s %s", title(a), screen.Duration(milliseconds(a.Step.Pause))))
		}
	}
	return "Admitted in each twentieth of a window; the line is the limit. The longest time without an admission after the step: " + strings.Join(parts, ", ") + "."
}

// stepPlots are small pictures, one for each limiter, on the same scale.
func stepPlots(all []bench.Accuracy) ([]byte, error) {
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
	return drawn(vg.Length(len(rows))*4.2*vg.Centimeter, rows)
}

// stepTop is how much of a step is shown: all that can come in, which is ten times the limit, and what is a bit more by chance.
const stepTop = 12

func stepPlot(a bench.Accuracy) *plot.Plot {
	p := blank("", "")
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
		line.Color, line.Width = colours[1], vg.Points(1)
		p.Add(line)
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, end, 0, stepTop
	p.X.Label.Text, p.Y.Label.Text = "windows", "÷ limit"
	p.X.Label.TextStyle.Font.Size, p.Y.Label.TextStyle.Font.Size = vg.Points(7), vg.Points(7)
	return p
}

// scalingPlot shows what a limiter does as something grows that the labels of the cases say.
func scalingPlot(r *result) *plot.Plot {
	y := "ns for a call"
	if r.ID == "processors" {
		y = "calls per second"
	}
	p := &curves{Plot: blank(strings.ToLower(r.Title), y)}
	grid(p.Plot)
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
		p.Y.Tick.Marker = labelled{short}
	} else {
		logarithmic(&p.X, short)
	}
	return p.Plot
}

func casesTicks(c *bench.Comparison) (ticks []plot.Tick) {
	for _, x := range c.Limiters {
		if at, err := strconv.ParseFloat(x.Case, 64); err == nil {
			ticks = append(ticks, plot.Tick{Value: at, Label: x.Case})
		}
	}
	return ticks
}

// gridPlot shows calls per second by rate, a line for each limiter and key space.
func gridPlot(c *bench.Comparison) *plot.Plot {
	p := &curves{Plot: blank("limit of a key, per second", "calls per second")}
	grid(p.Plot)
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
	logarithmic(&p.X, short)
	logarithmic(&p.Y, short)
	return p.Plot
}

func reachPlot(f *bench.Floors) *plot.Plot {
	p := &curves{Plot: blank("memory", "ns for a load")}
	grid(p.Plot)
	var points plotter.XYs
	for _, r := range f.Reaches {
		points = append(points, plotter.XY{X: float64(r.Bytes), Y: bench.Median(r.Cost)})
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
func (d *document) memoryPlot(unit string, of func(bench.Footprint) []float64, logY bool) *plot.Plot {
	p := &curves{Plot: blank("keys", unit)}
	grid(p.Plot)
	var s series
	for _, r := range d.Steps {
		for _, f := range r.Memory {
			values := of(f)
			if f.Failed != "" || len(values) == 0 || bench.Median(values) <= 0 {
				continue
			}
			s.add(cmp.Or(f.Limiter, "harness"), float64(f.Keys), bench.Median(values))
		}
	}
	slices.SortStableFunc(s.names, func(a, b string) int { // the harness last
		return cmp.Compare(strings.Count(a, "harness"), strings.Count(b, "harness"))
	})
	if !p.draw(s) {
		return nil
	}
	logarithmic(&p.X, short)
	if logY {
		logarithmic(&p.Y, short)
	}
	return p.Plot
}
