package demo

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/bubbles/progress"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"github.com/trypema/trypema/cmd/trypema/internal/screen"
)

const framesPerSecond = 8

// The colours are the terminal's own sixteen, so that they fit any background.
var (
	bold  = lipgloss.NewStyle().Bold(true)
	faint = lipgloss.NewStyle().Faint(true)
	good  = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	bad   = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)

	routeColors = []lipgloss.Color{"3", "6"}
)

// view is the live picture of a run: both routes side by side.
type view struct {
	traffic       *traffic
	bar           progress.Model
	width, height int
	readings      []reading
}

func newView(t *traffic) view {
	v := view{traffic: t, width: 80, height: 24}
	v.bar = progress.New(progress.WithSolidFill("6"), progress.WithoutPercentage())
	v.look()
	return v
}

type frame struct{}

func nextFrame() tea.Cmd {
	return tea.Tick(time.Second/framesPerSecond, func(time.Time) tea.Msg { return frame{} })
}

// Init starts the clock of the picture.
func (v view) Init() tea.Cmd { return nextFrame() }

// Update looks at the meters once per frame, and ends the run when the user asks for it.
func (v view) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		v.width, v.height = msg.Width, msg.Height
	case tea.KeyMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return v, tea.Quit
		}
	case frame:
		v.look()
		return v, nextFrame()
	}
	return v, nil
}

func (v *view) look() {
	v.readings = v.readings[:0:0]
	for _, r := range v.traffic.routes {
		v.readings = append(v.readings, r.meter.read())
	}
}

// View draws the picture.
func (v view) View() string {
	s := v.traffic.setup
	elapsed := v.readings[0].elapsed
	left := max(0, s.duration-elapsed)
	where := s.where.String()
	if pace := s.where.Pace(); pace != "" {
		where += ", " + pace
	}
	v.bar.Width = max(10, v.width-14)
	lines := []string{
		bold.Render(" trypema demo") + faint.Render("  "+s.title()+"  "+v.traffic.servers.String()),
		faint.Render(" " + where),
		fmt.Sprintf(" %s %5.1fs left", v.bar.ViewAs(min(1, elapsed.Seconds()/s.duration.Seconds())), left.Seconds()),
		"",
	}
	const gap = 3
	width := (v.width - 2 - gap) / 2
	top := v.chartTop()
	var columns []string
	for i := range v.readings {
		columns = append(columns, v.column(i, width, top))
	}
	lines = append(lines,
		lipgloss.JoinHorizontal(lipgloss.Top, " ", columns[0], strings.Repeat(" ", gap), columns[1]),
		"",
		v.footer())
	return lipgloss.NewStyle().MaxWidth(v.width).MaxHeight(v.height).Render(strings.Join(lines, "\n"))
}

// footer says what the user can do, or what the user has to know about the numbers above.
func (v view) footer() string {
	asked := v.traffic.setup.offered()
	for _, m := range v.readings {
		due := asked * m.elapsed.Seconds()
		if offered := float64(m.total.offered()); due > 1000 && offered < 0.9*due {
			return bad.Render(fmt.Sprintf(" The clients can not keep up: %.0f%% of the load is offered.", 100*offered/due))
		}
	}
	return faint.Render(" q ends it and prints the summary")
}

// chartTop is the scale of both charts, in admissions per second: the most that either shows, but no more than four
// times the limit, so that the limit stays well above the ground.
func (v view) chartTop() float64 {
	limit := v.traffic.setup.limit()
	top := 1.5 * limit
	for _, m := range v.readings {
		for _, t := range m.history {
			top = max(top, float64(t.admitted)/m.bin.Seconds())
		}
	}
	return min(top, 4*limit)
}

const linesAroundChart = 18 // everything in the picture that is not chart

// column is the picture of one route.
func (v view) column(i, width int, top float64) string {
	s, r, m := v.traffic.setup, v.traffic.routes[i], v.readings[i]
	color := lipgloss.NewStyle().Foreground(routeColors[i])
	limit := s.limit()

	bars := make([]float64, len(m.history))
	for i, t := range m.history {
		bars[i] = float64(t.admitted) / m.bin.Seconds()
	}
	height := v.height - linesAroundChart
	if s.where.Server != "" {
		height-- // for what only a server brings
	}
	c := chart{bars: bars, top: top, mark: limit, width: width, height: max(3, height)}

	row := func(name string, n, total uint64) string {
		now, mean := m.recent(n), float64(total)/m.elapsed.Seconds()
		return fmt.Sprintf("%-9s%11s%10s%7s", name, screen.PerSecond(now), screen.PerSecond(mean), fmt.Sprintf("%.2f×", mean/limit))
	}
	mark := good.Render(" ✓")
	if uint64(m.fullest) > r.bound {
		mark = bad.Render(" ✗")
	}
	lines := []string{
		color.Bold(true).Render(r.path) + faint.Render("  admissions per "+screen.Duration(m.bin)),
		c.draw(color, faint),
		faint.Render(fmt.Sprintf("%-9s%11s%10s%7s", "", "now", "mean", "×limit")),
		row("offered", m.lately.offered(), m.total.offered()),
		row("admitted", m.lately.admitted, m.total.admitted),
		row("declined", m.lately.declined, m.total.declined),
		fmt.Sprintf("%-19s%16s", "most in any window", screen.Count(uint64(m.fullest))+"/"+screen.Count(r.bound)) + mark,
		fmt.Sprintf("%-19s%11s", "longest pause", screen.Duration(m.longestPause.Round(time.Millisecond))),
		faint.Render("decision  ") + fmt.Sprintf("p50 %s  p99 %s", screen.Nanoseconds(m.latency.P50), screen.Nanoseconds(m.latency.P99)),
		faint.Render("        ") + fmt.Sprintf("p99.9 %s  max %s", screen.Nanoseconds(m.latency.P999), screen.Nanoseconds(m.latency.Max)),
	}
	if s.where.Server != "" {
		lines = append(lines, fmt.Sprintf("%-19s%16s", "fallback, errors", screen.Count(m.fallback)+", "+screen.Count(m.failed)))
	}
	cut := lipgloss.NewStyle().MaxWidth(width).Render(strings.Join(lines, "\n")) // or the next would wrap what is too long
	return lipgloss.NewStyle().Width(width).Render(cut)
}
