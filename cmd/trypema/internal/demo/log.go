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
	for {
		select {
		case <-t.done:
			return
		case <-tick.C:
		}
		line := ""
		for _, r := range t.routes {
			m := r.meter.read()
			if line == "" {
				line = fmt.Sprintf("%3.0fs", m.elapsed.Seconds())
			}
			line += fmt.Sprintf("   %s %s offered, %s admitted", r.path,
				screen.PerSecond(m.recent(m.lately.offered())), screen.PerSecond(m.recent(m.lately.admitted)))
			if m.fallback+m.failed > 0 {
				line += fmt.Sprintf(" (%s fallback, %s errors)", screen.Count(m.fallback), screen.Count(m.failed))
			}
		}
		fmt.Fprintln(w, line)
	}
}

// recent is n events of the last second as a rate.
func (m reading) recent(n uint64) float64 {
	if m.latelyTook == 0 {
		return 0
	}
	return float64(n) / m.latelyTook.Seconds()
}

// title says in one line what is being run.
func (s setup) title() string {
	return fmt.Sprintf("limit %.5g/s per route in %v, load %.4g×", float64(s.rate), s.options.Window, s.load)
}
