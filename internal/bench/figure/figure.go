// Package figure draws plots in one style, as SVG that can stand in a page or alone.
package figure

import (
	"bytes"
	"fmt"
	"html"
	"image/color"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A picture that fills a column of text.
const (
	Width = 18 * vg.Centimeter
	Tall  = 9 * vg.Centimeter
)

// Colours are told apart by those who see no red or no green, too. Ours is the first.
var Colours = []color.Color{
	RGB(0x00, 0x72, 0xb2), RGB(0xd5, 0x5e, 0x00), RGB(0x00, 0x9e, 0x73), RGB(0xcc, 0x79, 0xa7), RGB(0xe6, 0x9f, 0x00),
	RGB(0x56, 0xb4, 0xe9), RGB(0x6a, 0x3d, 0x9a), RGB(0x7f, 0x7f, 0x7f), RGB(0x8c, 0x56, 0x4b),
	RGB(0x2f, 0x4f, 0x4f), RGB(0xbc, 0xbd, 0x22),
}

// RGB is the colour.
func RGB(r, g, b uint8) color.Color { return color.RGBA{r, g, b, 0xff} }

// What is not to stand out.
var (
	Grey  = RGB(0x9a, 0x9a, 0x9a)
	Faint = RGB(0xdd, 0xdd, 0xdd)
)

// SVG is a picture so wide and high with one plot, or a grid of them.
func SVG(width, height vg.Length, plots ...[]*plot.Plot) ([]byte, error) {
	canvas := vgsvg.New(width, height)
	within := draw.New(canvas)
	if len(plots) == 1 && len(plots[0]) == 1 {
		plots[0][0].Draw(draw.Crop(within, 0, -0.4*vg.Centimeter, 0, -0.2*vg.Centimeter))
	} else {
		const pad = 0.3 * vg.Centimeter
		tiles := draw.Tiles{Rows: len(plots), Cols: len(plots[0]), PadX: pad, PadY: pad, PadRight: pad, PadTop: pad / 3}
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
	return fitted(text), err
}

var label = regexp.MustCompile(`<text ([^>]*font-size:([0-9.]+)px[^>]*)>([^<]*)</text>`)

// fitted gives each text of a picture the length that it was placed by: another font would be wider.
func fitted(svg []byte) []byte {
	return label.ReplaceAllFunc(svg, func(all []byte) []byte {
		part := label.FindSubmatch(all)
		size, err := strconv.ParseFloat(string(part[2]), 64)
		if err != nil {
			return all
		}
		face := font.DefaultCache.Lookup(sans, vg.Points(size))
		width := face.Width(html.UnescapeString(string(part[3])))
		return fmt.Appendf(nil, `<text textLength="%.5g" lengthAdjust="spacingAndGlyphs" %s>%s</text>`,
			width.Points(), part[1], part[3])
	})
}

var sans = font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(9)}

// Alone is a picture that stands alone: it has a background, and follows the theme of who looks at it.
func Alone(svg []byte) []byte {
	head := "<style>" + Theme + "</style>\n" + `<rect width="100%" height="100%" style="fill:#FFFFFF"/>` + "\n<g "
	return bytes.Replace(svg, []byte("<g "), []byte(head), 1)
}

// Theme is a style sheet for pictures, which are drawn for a light page: on a dark one it gives each color
// the one that stands for it there. Whatever does not know it shows the picture as it was drawn.
var Theme = theme()

func theme() string {
	var out strings.Builder
	out.WriteString(`svg text{font-family:"Liberation Sans",Arial,Helvetica,sans-serif!important}`)
	out.WriteString("@media(prefers-color-scheme:dark){svg text{fill:#E6EDF3!important}")
	for _, c := range [][2]string{
		{"#0072B2", "#58A6FF"}, {"#D55E00", "#FF9E5E"}, {"#009E73", "#4CC9A0"},
		{"#CC79A7", "#E58FC4"}, {"#E69F00", "#F0C05A"}, {"#56B4E9", "#9CD8FF"},
		{"#6A3D9A", "#B794F6"}, {"#7F7F7F", "#A0A0A0"}, {"#8C564B", "#C9968A"},
		{"#2F4F4F", "#8FB3B3"}, {"#BCBD22", "#D5D65A"}, {"#9A9A9A", "#7D858E"},
		{"#DDDDDD", "#30363D"}, {"#FFFFFF", "#0D1117"}, {"#000000", "#E6EDF3"},
	} {
		fmt.Fprintf(&out, `[style*="fill:%[1]s"]{fill:%[2]s!important}[style*="stroke:%[1]s"]{stroke:%[2]s!important}`,
			c[0], c[1])
	}
	out.WriteString("}")
	return out.String()
}

// Blank is an empty plot in our style.
func Blank(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, f := range []*font.Font{&p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font,
		&p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font, &p.Title.TextStyle.Font} {
		*f = sans
	}
	p.X.Color, p.Y.Color = Grey, Grey
	p.X.Tick.Color, p.Y.Tick.Color = Grey, Grey
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(1)
	return p
}

// Gridded is a Blank with faint lines at the ticks.
func Gridded(x, y string) *plot.Plot {
	p := Blank(x, y)
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = Faint, Faint
	p.Add(g)
	return p
}

// Logarithmic makes an axis count by factors. What it is to show must have been added, and be above 0.
func Logarithmic(a *plot.Axis, write func(float64) string) {
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

// Short writes a number with a unit of thousands.
func Short(x float64) string {
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
