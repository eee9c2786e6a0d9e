package demo

import (
	"strings"

	"github.com/charmbracelet/lipgloss"
)

// chart is a moving bar chart in the cells of a terminal. The newest bar stands on the right. Each cell is cut into
// eighths, so that a few lines show small differences.
type chart struct {
	bars          []float64
	top           float64 // the value at the upper edge; a higher bar is cut off
	mark          float64 // a value that is drawn as a line behind the bars
	width, height int
}

var eighths = []rune(" ▁▂▃▄▅▆▇█")

func (c chart) draw(bar, line lipgloss.Style) string {
	bars := c.bars[max(0, len(c.bars)-c.width):]
	empty := c.width - len(bars)
	markRow := min(int(c.mark/c.top*float64(c.height)), c.height-1)
	rows := make([]string, 0, c.height)
	for row := c.height - 1; row >= 0; row-- {
		background := ' '
		if row == markRow {
			background = '┄'
		}
		var b strings.Builder
		b.WriteString(line.Render(strings.Repeat(string(background), empty)))
		for _, value := range bars {
			n := int(8 * (value/c.top*float64(c.height) - float64(row)))
			if n <= 0 {
				b.WriteString(line.Render(string(background)))
			} else {
				b.WriteString(bar.Render(string(eighths[min(n, 8)])))
			}
		}
		rows = append(rows, b.String())
	}
	return strings.Join(rows, "\n")
}
