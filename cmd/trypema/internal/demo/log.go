package demo

import (
	"fmt"
	"io"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
)

// log writes a line about each second of the run, until the clients have ended.
func (t *traffic) log(w io.Writer) {
	fmt.Fprintf(w, "%s\n", t.setup.title()+", "+t.servers.String())
	if t.setup.where.Server != "" {
		fmt.Fprintln(w, t.setup.where)
	}
	if pace := t.setup.where.Pace(); pace != "" {
		fmt.Fprintln(w, pace)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before := make([]reading, len(t.routes))
	for {
		select {
		case <-t.done:
			return
		case <-tick.C:
		}
		line := ""
		for i, r := range t.routes {
			was, m := before[i], r.meter.read()
			before[i] = m
			perSecond := func(now, then uint64) string {
				return screen.PerSecond(float64(now-then) / (m.elapsed - was.elapsed).Seconds())
			}
			if line == "" {
				line = fmt.Sprintf("%3.0fs", m.elapsed.Seconds())
			}
			line += fmt.Sprintf("   %s %s offered, %s admitted", r.path,
				perSecond(m.total.offered(), was.total.offered()), perSecond(m.total.admitted, was.total.admitted))
			if m.fallback+m.failed > 0 {
				line += fmt.Sprintf(" (%s fallback, %s errors)", screen.Count(m.fallback), screen.Count(m.failed))
			}
		}
		fmt.Fprintln(w, line)
	}
}

// title says in one line what is being run.
func (s setup) title() string {
	return fmt.Sprintf("limit %.5g/s per route in %v, load %.4g×", float64(s.rate), s.options.Window, s.load)
}
