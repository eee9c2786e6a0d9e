// Package screen writes what a command has to say: tables, JSON, a progress bar, and numbers a person can
// read.
package screen

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/lipgloss/table"
	"github.com/mattn/go-isatty"
)

// Streams are where a command writes: its result to Out, everything about its progress to Err.
type Streams struct {
	Name     string // of the program
	Out, Err io.Writer
}

// Complain writes each error that err is made of as one line to Err.
func (s Streams) Complain(err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			s.Complain(e)
		}
		return
	}
	fmt.Fprintf(s.Err, "%s: %v\n", s.Name, err)
}

// IsTerminal reports whether a person is looking at w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// JSON writes v as one indented document.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Table writes rows under their heads, the first column to the left and the others to the right.
func Table(w io.Writer, head []string, rows [][]string) error {
	r := lipgloss.NewRenderer(w)
	cell := r.NewStyle().Padding(0, 1)
	t := table.New().
		Border(lipgloss.RoundedBorder()).
		BorderStyle(r.NewStyle().Faint(true)).
		Headers(head...).
		Rows(rows...).
		StyleFunc(func(row, col int) lipgloss.Style {
			style := cell
			if col > 0 {
				style = style.Align(lipgloss.Right)
			}
			if row == table.HeaderRow {
				style = style.Bold(true)
			}
			return style
		})
	_, err := fmt.Fprintln(w, t)
	return err
}

// width is that of a terminal, in columns.
const width = 80

// Fold returns the text as lines of at most 80 columns, where its words are not longer. The mark stands
// before the first line, and as much space before each other one.
func Fold(mark, text string) string {
	indent := utf8.RuneCountInString(mark)
	var out strings.Builder
	out.WriteString(mark)
	column := indent
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += n
	}
	out.WriteByte('\n')
	return out.String()
}

// Bar is a progress bar in one line of a terminal. It never runs backwards. It is not drawn on anything but a
// terminal, and has no color if the variable NO_COLOR of the environment is not empty, or TERM is dumb.
type Bar struct {
	w     io.Writer
	drawn bool
	plain bool    // without color
	part  float64 // the largest that was set
}

// NewBar returns a bar that draws on w.
func NewBar(w io.Writer) *Bar {
	return &Bar{w: w, drawn: IsTerminal(w), plain: os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"}
}

// Line writes a line that stays, above the bar or where none is drawn.
func (b *Bar) Line(text string) {
	b.Clear()
	fmt.Fprintln(b.w, text)
}

const eraseLine = "\r\x1b[2K"

// barWidth is the width of a bar without its percentage, in columns.
const barWidth = 35

// Set draws the bar at a part of 1, followed by a word on what is being done. The bar stays where it is if
// part is less than before, or not a number.
func (b *Bar) Set(part float64, doing string) {
	if part > b.part {
		b.part = min(1, part)
	}
	if !b.drawn {
		return
	}
	full := int(math.Round(b.part * barWidth))
	bar := strings.Repeat("█", full)
	if !b.plain && full > 0 {
		bar = "\x1b[36m" + bar + "\x1b[0m"
	}
	fmt.Fprintf(b.w, "%s%s%s %3.0f%%  %s", eraseLine, bar, strings.Repeat("░", barWidth-full), 100*b.part, doing)
}

// Clear removes the bar.
func (b *Bar) Clear() {
	if b.drawn {
		fmt.Fprint(b.w, eraseLine)
	}
}

// Duration writes d with three significant digits.
func Duration(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// Nanoseconds writes a number of them as Duration does.
func Nanoseconds(n int64) string { return Duration(time.Duration(n)) }

// Milliseconds is d as a number for a field whose name ends in ms.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Count writes n with a comma between thousands.
func Count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// PerSecond writes a number of events per second, with a decimal where it tells something.
func PerSecond(x float64) string {
	if x < 999.95 {
		return fmt.Sprintf("%.1f/s", x)
	}
	return Count(uint64(math.Round(x))) + "/s"
}
