package onmodel

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema/redislimit"
)

// trouble is when something was wrong between instances and Redis.
type trouble struct{ from, to time.Time }

// change is one of a rate, and what the capacity was before.
type change struct {
	at     time.Time
	window time.Duration
	was    uint64
}

// happens has something begin or end, and notes since when there is trouble.
func (f *Fleet) happens(what string, change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.note("", "%s", what)
	if !f.Calm {
		f.Figures.Faults[strings.SplitN(what, ":", 2)[0]]++
	}
	bad := f.away
	for _, m := range f.members {
		bad = bad || m.bad(f.Options.Timeout)
	}
	last := len(f.troubles) - 1
	switch open := last >= 0 && f.troubles[last].to.IsZero(); {
	case bad && !open:
		f.troubles = append(f.troubles, trouble{from: time.Now()})
		for _, m := range f.members {
			m.asked = time.Time{}
		}
	case !bad && open:
		f.troubles[last].to = time.Now()
	}
}

// recovery is how long it takes at most until nothing reminds of a trouble.
func (f *Fleet) recovery() time.Duration {
	d := f.Options.RetryInterval + 3*f.Options.Timeout + 4*f.Options.SyncInterval
	if f.Options.OnFailure == redislimit.FailLocal && f.Options.Instances > 1 {
		d += 8 * f.Options.Window // instances that share go on until all must have settled
	}
	return d
}

// troubled reports whether anything was wrong, or had been wrong shortly before.
func (f *Fleet) troubled(from, to time.Time) bool {
	return slices.ContainsFunc(f.troubles, func(tr trouble) bool {
		return !tr.from.After(to) && (tr.to.IsZero() || tr.to.Add(f.recovery()).After(from))
	})
}

// excused reports whether an instance may take Redis for gone in a call, of which it was told: if that was
// so, or if it was so when the instance was called last, as it does not look by itself.
func (f *Fleet) excused(m *member, from, to time.Time) bool {
	if f.troubled(from, to) {
		m.asked = time.Time{}
		return true
	}
	if m.asked.IsZero() {
		m.asked = from
	}
	return len(f.troubles) > 0 && from.Sub(m.asked) < f.recovery()
}

func (f *Fleet) takeAway() {
	if !f.away {
		f.happens("the server goes", func() { f.redis.TakeAway(); f.away = true })
	}
}

func (f *Fleet) restore() {
	if f.away {
		f.happens("the server comes back", func() { f.redis.Restore(); f.away = false })
	}
}

// wires makes the line of an instance another.
func (f *Fleet) wires(t *rapid.T) {
	m, timeout := f.drawMember(t), f.Options.Timeout
	var s state
	what := rapid.SampledFrom([]string{"a good line", "a long line", "a line that is cut", "a line that loses answers", "a line with echoes"}).Draw(t, "line")
	switch what {
	case "a long line":
		s.delay = rapid.SampledFrom([]time.Duration{time.Millisecond, timeout / 50, timeout / 8, timeout / 2, timeout * 3 / 2, timeout * 3}).Draw(t, "delay")
	case "a line that is cut":
		s.cut = true
	case "a line that loses answers":
		s.loses = rapid.SampledFrom([]int{2, 1, 3}).Draw(t, "one of")
	case "a line with echoes":
		s.echo = rapid.SampledFrom([]time.Duration{time.Microsecond, f.Options.SyncInterval, f.Options.Window / 2}).Draw(t, "after")
	}
	f.happens(fmt.Sprintf("%s: of %s, %+v", what, m.name, s), func() {
		m.set(s)
		f.apart = f.apart || m.bad(timeout)
	})
}

func (f *Fleet) forget(t *rapid.T) {
	f.seldom(t)
	f.happens("the server forgets", func() {
		f.redis.Forget()
		f.forgets = append(f.forgets, time.Now())
		// an echo may come to a server that does not know that its holder has said more since
		for _, m := range f.members {
			f.stranded = f.stranded || m.heard.Load()
		}
		for _, r := range f.records {
			judged := r.judged // they still have to hold the bound
			r.doubt()
			r.judged = judged
		}
	})
}

// heal ends all that is wrong, and waits until that is over.
func (f *Fleet) heal() {
	f.restore()
	if slices.ContainsFunc(f.members, func(m *member) bool { return m.state() != state{} }) {
		f.happens("all lines are good", func() {
			for _, m := range f.members {
				m.set(state{})
			}
		})
	}
	if now := time.Now(); f.troubled(now, now) {
		f.sleep(f.recovery() + time.Microsecond)
	}
}
