package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// curve is a line of a panel.
type curve struct {
	name string
	of   func(sample) float64
}

// Sizes of the picture, in pixels: panels, and what is around their axes.
const (
	panelWide, panelHigh = 600, 300
	marginLeft           = 60
	margin               = 30
)

var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}

// picture draws what was sampled over time, as SVG: faults are the gaps.
func picture(samples []sample, lanes []*lane) []byte {
	each := func(f func(laneSample) float64) (curves []curve) {
		for i, l := range lanes {
			curves = append(curves, curve{l.String(), func(s sample) float64 { return f(s.Lanes[i]) }})
		}
		return curves
	}
	panels := []struct {
		title  string
		curves []curve
	}{
		{"memory, MB", []curve{
			{"heap after a collection", func(s sample) float64 { return s.Heap }},
			{"resident", func(s sample) float64 { return s.RSS }},
			{"Redis", func(s sample) float64 { return s.RedisMB }},
		}},
		{"goroutines", []curve{{"all", func(s sample) float64 { return s.Goroutines }}}},
		{"keys", []curve{
			{"Local", func(s sample) float64 { return s.LocalKeys }},
			{"Hybrid", func(s sample) float64 { return s.HybridKeys }},
			{"Redis", func(s sample) float64 { return s.RedisKeys }},
		}},
		{"p99.9 of latency, µs", each(func(l laneSample) float64 { return l.P999 })},
		{"most in a window, of what may be", each(func(l laneSample) float64 { return l.Most })},
		{"use of the hot key", each(func(l laneSample) float64 { return l.Hot })},
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		2*panelWide, (len(panels)+1)/2*panelHigh)
	fmt.Fprintln(&out, `<rect width="100%" height="100%" fill="white"/>`)
	for i, p := range panels {
		fmt.Fprintf(&out, `<g transform="translate(%d %d)">`+"\n", i%2*panelWide, i/2*panelHigh)
		drawPanel(&out, p.title, p.curves, samples)
		fmt.Fprintln(&out, "</g>")
	}
	fmt.Fprintln(&out, "</svg>")
	return out.Bytes()
}

// drawPanel draws curves from 0 on.
func drawPanel(out *bytes.Buffer, title string, curves []curve, samples []sample) {
	longest, highest := 1e-9, 1e-9
	for _, s := range samples {
		longest = max(longest, s.Seconds)
		for _, c := range curves {
			if y := c.of(s); !s.Excused && !math.IsNaN(y) {
				highest = max(highest, y)
			}
		}
	}
	const right, bottom = panelWide - margin, panelHigh - margin
	text := func(x, y int, anchor, color, what string) {
		fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color,
			html.EscapeString(what))
	}
	fmt.Fprintf(out, `<path d="M%d %dV%dH%d" fill="none" stroke="black"/>`+"\n", marginLeft, margin, bottom,
		right)
	text(marginLeft, margin-10, "start", "black", title)
	text(marginLeft-4, margin+4, "end", "black", fmt.Sprintf("%.4g", highest))
	text(marginLeft-4, bottom, "end", "black", "0")
	text(right, bottom+16, "end", "black", fmt.Sprintf("%.0f s", longest))
	for i, c := range curves {
		color := colors[i%len(colors)]
		text(right, bottom-6-14*(len(curves)-1-i), "end", color, c.name)
		fmt.Fprintf(out, `<path fill="none" stroke="%s" d="`, color)
		pen := "M"
		for _, s := range samples {
			y := c.of(s)
			if s.Excused || math.IsNaN(y) {
				pen = "M"
				continue
			}
			fmt.Fprintf(out, "%s%.1f %.1f", pen, marginLeft+(right-marginLeft)*s.Seconds/longest,
				bottom-(bottom-margin)*y/highest)
			pen = "L"
		}
		fmt.Fprintln(out, `"/>`)
	}
}
