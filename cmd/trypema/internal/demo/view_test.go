package demo

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/redisserver"
)

func TestChart(t *testing.T) {
	c := chart{bars: []float64{99, 0, 0.25, 1, 2, 4, 8}, top: 4, mark: 1.5, width: 6, height: 2}
	plain := lipgloss.NewStyle()
	got := c.draw(plain, plain)
	want := "" + // 0.25 is the first eighth of two lines; 8 is cut off; the line at 1.5 is in the lower half
		"    ██\n" +
		"┄▁▄███"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestChartFillsFromTheRight(t *testing.T) {
	c := chart{bars: []float64{1}, top: 1, mark: 1, width: 4, height: 1}
	plain := lipgloss.NewStyle()
	if got, want := c.draw(plain, plain), "┄┄┄█"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// busy is a run with numbers to show, but without traffic.
func busy(t *testing.T) *traffic {
	t.Helper()
	s := setup{
		rate: 5000, load: 10, options: trypema.Options{Window: 2 * time.Second}, capacity: 10_000, hard: 15_000,
		duration: time.Minute, clients: 1,
	}
	run := &traffic{setup: s, servers: servers{{url: "http://127.0.0.1:65535"}}, end: func() {}}
	for _, name := range []string{"absolute", "suppressed"} {
		m := newMeter(s.options.Window, s.offered())
		m.start = m.start.Add(-10 * time.Second)
		for i := range 1000 {
			m.decided(m.clock(), 100*time.Microsecond, i%3 == 0, i == 0)
		}
		run.routes = append(run.routes, &route{path: "/" + name, strategy: name, bound: 100, meter: m})
	}
	return run
}

func TestViewFitsTheTerminal(t *testing.T) {
	tests := []struct {
		name  string
		where redisserver.Where
		says  []string
	}{
		{"local", redisserver.Here, []string{"local, in this process"}},
		{"redis", redisserver.Where{Provider: "redis", Client: "go-redis", Server: "redis://h:6379"}, []string{"redis by go-redis: redis://h:6379", "fallback, errors               1, 0"}},
		{"hybrid", redisserver.Where{Provider: "hybrid", Client: "rueidis", Server: "redis://h:6379", Instances: 2, SyncInterval: 12.5}, []string{"hybrid × 2 by rueidis: redis://h:6379, settled every 12.5ms"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // where the time left does not change meanwhile
				run := busy(t)
				run.setup.where = tt.where
				testViewFitsTheTerminal(t, run, tt.says)
			})
		})
	}
}

func testViewFitsTheTerminal(t *testing.T, run *traffic, says []string) {
	for _, size := range []struct{ width, height int }{{80, 24}, {120, 40}, {200, 60}, {60, 20}, {30, 10}, {10, 3}} {
		model, _ := newView(run).Update(tea.WindowSizeMsg{Width: size.width, Height: size.height})
		picture := model.View()
		lines := strings.Split(picture, "\n")
		if len(lines) > size.height {
			t.Errorf("%dx%d: %d lines", size.width, size.height, len(lines))
		}
		for _, line := range lines {
			if lipgloss.Width(line) > size.width {
				t.Errorf("%dx%d: %d columns: %q", size.width, size.height, lipgloss.Width(line), line)
			}
		}
		if size.width < 80 {
			continue
		}
		for _, want := range append(says,
			"limit 5000/s per route in 2s, load 10×", "http://127.0.0.1:65535", "50.0s left", "/absolute", "/suppressed",
			"offered", "admitted", "declined", "334/100 ✗", "longest pause", "p50 100µs", "p99.9 100µs", "clients can not keep up",
		) {
			if !strings.Contains(picture, want) {
				t.Errorf("%dx%d: nothing says %q:\n%s", size.width, size.height, want, picture)
			}
		}
	}
}

func TestViewEndsWhenAsked(t *testing.T) {
	v := newView(busy(t))
	for _, key := range []tea.KeyMsg{{Type: tea.KeyCtrlC}, {Type: tea.KeyEsc}, {Type: tea.KeyRunes, Runes: []rune{'q'}}} {
		if _, cmd := v.Update(key); cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%v does not quit", key)
		}
	}
	if _, cmd := v.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune{'x'}}); cmd != nil {
		t.Error("any key quits")
	}
	if model, cmd := v.Update(frame{}); cmd == nil || len(model.(view).readings) != 2 {
		t.Error("a frame is not followed by another")
	}
}

func TestLogEndsWithTheClients(t *testing.T) {
	run := busy(t)
	run.done = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	context.AfterFunc(ctx, func() { close(run.done) })
	var b strings.Builder
	run.log(&b)
	if got := b.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "11s   /absolute") {
		t.Errorf("got %q", got)
	}
}
