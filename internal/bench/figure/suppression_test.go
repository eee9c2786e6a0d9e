package figure

import (
	"bytes"
	"flag"
	"fmt"
	"image/color"
	"math"
	"os"
	"strconv"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/window"
)

// update writes the picture: go test ./internal/bench/figure -run TestSuppressionPicture -update
var update = flag.Bool("update", false, "write docs/suppression.svg")

// TestSuppressionPicture: docs/suppression.svg is what the law gives.
func TestSuppressionPicture(t *testing.T) {
	const file = "../../../docs/suppression.svg"
	svg, err := SVG(Width, Tall, []*plot.Plot{aimPlot(), factorPlot()})
	must.OK(t, err)
	svg = append(bytes.TrimSpace(Alone(svg)), '\n')
	if *update {
		must.OK(t, os.WriteFile(file, svg, 0o600))
	}
	explore.ReadsRepository()
	committed, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(committed, svg) {
		t.Errorf("%s is not what the law gives (%v); -update writes it", file, err)
	}
}

const pictured = 1_000_000 // capacity

// factorAt is the factor under a steady load, when so much of the capacity is in the window; both are
// multiples of the capacity.
func factorAt(load, admitted, hardFactor float64) float64 {
	span := window.Span{Window: 1000, Bucket: 10}
	counts := window.Counts{Admitted: uint64(admitted * pictured)}
	counts.Declined = max(uint64(load*pictured), counts.Admitted) - counts.Admitted
	recent := float64(counts.Observed()) * float64(span.Recent()+span.Bucket) / float64(span.Window)
	return window.NewLaw(span, pictured, hardFactor).Factor(counts, uint64(recent), 1)
}

// aimPlot shows the rate of admissions that is aimed at, by what the window holds, under a high load.
func aimPlot() *plot.Plot {
	p := panel("admitted in the window ÷ capacity", "aim ÷ limit")
	const load = 100
	for n, h := range []float64{1.25, 1.5, 2} {
		var points plotter.XYs
		for x := 0; x <= 200; x++ {
			held := float64(x) / 100
			if held > h {
				break
			}
			points = append(points, plotter.XY{X: held, Y: (1 - factorAt(load, held, h)) * load})
		}
		line(p, n, "H = "+strconv.FormatFloat(h, 'g', -1, 64), points)
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 2, 0, 2
	p.Legend.Left = false
	return p
}

// factorPlot shows the factor by the load, for windows that hold more or less.
func factorPlot() *plot.Plot {
	p := panel("load ÷ limit", "suppression factor, H = 1.5")
	for n, held := range []float64{0.5, 1, 1.25, 1.4} {
		var points plotter.XYs
		for e := math.Log(max(held, 0.5)); e <= math.Log(20)+1e-9; e += 0.005 {
			load := math.Exp(e)
			points = append(points, plotter.XY{X: load, Y: factorAt(load, held, 1.5)})
		}
		line(p, n, fmt.Sprintf("%v of the capacity admitted", held), points)
	}
	Logarithmic(&p.X, func(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) })
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0.5, 20, 0, 1
	p.Legend.Left, p.Legend.Top = false, false
	return p
}

func panel(x, y string) *plot.Plot {
	p := Gridded(x, y)
	p.BackgroundColor = color.White // documents are read on dark pages, too
	return p
}

// line adds the nth line, with its name.
func line(p *plot.Plot, n int, name string, points plotter.XYs) {
	line, err := plotter.NewLine(points)
	if err != nil {
		return // and the picture is not the committed one
	}
	line.Color, line.Width = Colours[n], vg.Points(1.6)
	p.Add(line)
	p.Legend.Add(name, line)
}
