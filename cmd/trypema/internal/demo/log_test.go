package demo

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
)

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

func TestLogEndsWithTheClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := busy(t)
		run.done = make(chan struct{})
		time.AfterFunc(1200*time.Millisecond, func() { close(run.done) })
		var b strings.Builder
		run.log(&b)
		if got := b.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "11s   /absolute") {
			t.Errorf("got %q", got)
		}
	})
}

func TestLogIsAboutTheTimeSinceTheLineBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := busy(t)
		run.done = make(chan struct{})
		time.AfterFunc(2200*time.Millisecond, func() { close(run.done) })
		var b strings.Builder
		run.log(&b)
		lines := strings.Split(b.String(), "\n")
		if len(lines) != 4 || !strings.Contains(lines[1], "/absolute 90.9/s offered, 30.4/s admitted") ||
			!strings.Contains(lines[2], "/absolute 0.0/s offered, 0.0/s admitted") {
			t.Errorf("got %q", lines)
		}
	})
}
