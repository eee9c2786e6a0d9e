package main

import (
	"bytes"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture draws what was sampled over time, as SVG: faults are the gaps.
func picture(samples []sample, lanes []*lane) ([]byte, error) {
	type line struct {
		name string
		of   func(sample) float64
	}
	each := func(f func(laneSample) float64) (lines []line) {
		for i, l := range lanes {
			lines = append(lines, line{l.String(), func(s sample) float64 { return f(s.Lanes[i]) }})
		}
		return lines
	}
	panels := []struct {
		title string
		lines []line
	}{
		{"memory, MB", []line{
			{"heap after a collection", func(s sample) float64 { return s.Heap }},
			{"resident", func(s sample) float64 { return s.RSS }},
			{"Redis", func(s sample) float64 { return s.RedisMB }},
		}},
		{"goroutines", []line{{"", func(s sample) float64 { return s.Goroutines }}}},
		{"keys", []line{
			{"Local", func(s sample) float64 { return s.LocalKeys }},
			{"Hybrid", func(s sample) float64 { return s.HybridKeys }},
			{"Redis", func(s sample) float64 { return s.RedisKeys }},
		}},
		{"p99.9 of latency, µs", each(func(l laneSample) float64 { return l.P999 })},
		{"most in a window, of what may be", each(func(l laneSample) float64 { return l.Most })},
		{"use of the hot key", each(func(l laneSample) float64 { return l.Hot })},
	}
	var rows [][]*plot.Plot
	for i, panel := range panels {
		p := plot.New()
		p.Title.Text, p.X.Label.Text = panel.title, "seconds"
		p.Y.Min = 0
		p.Legend.Top = false
		p.Add(plotter.NewGrid())
		for j, l := range panel.lines {
			if err := curve(p, samples, l.name, l.of, plotutil.Color(j)); err != nil {
				return nil, err
			}
		}
		if i%2 == 0 {
			rows = append(rows, nil)
		}
		rows[i/2] = append(rows[i/2], p)
	}
	canvas := vgsvg.New(32*vg.Centimeter, 30*vg.Centimeter)
	tiles := draw.Tiles{Rows: len(rows), Cols: 2, PadX: vg.Centimeter, PadY: vg.Centimeter}
	for y, row := range plot.Align(rows, tiles, draw.New(canvas)) {
		for x, c := range row {
			rows[y][x].Draw(c)
		}
	}
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	return out.Bytes(), err
}

// curve adds a line that has a gap where there is no value.
func curve(p *plot.Plot, samples []sample, name string, of func(sample) float64, c color.Color) error {
	var part plotter.XYs
	flush := func() error {
		if len(part) < 2 {
			part = nil
			return nil
		}
		l, err := plotter.NewLine(part)
		if err != nil {
			return err
		}
		l.Color, part = c, nil
		p.Add(l)
		if name != "" {
			p.Legend.Add(name, l)
			name = ""
		}
		return nil
	}
	for _, s := range samples {
		if !s.Excused {
			part = append(part, plotter.XY{X: s.Seconds, Y: of(s)})
		} else if err := flush(); err != nil {
			return err
		}
	}
	return flush()
}
