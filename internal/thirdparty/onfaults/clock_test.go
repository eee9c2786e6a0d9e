package onfaults

import (
	"fmt"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// ahead is the key that says by how many µs the clock of a server is ahead.
const ahead = "ahead"

func stepped(c redislimit.Conn) redislimit.Conn {
	return rig.Clocked{Conn: c, Lua: "(function() local t = call('TIME') return {t[1], t[2] + (call('GET', '" + ahead + "') or 0)} end)()"}
}

// The clock of Redis is set, as by somebody, or by a failover to another machine. No call is an error, waits, or is decided by the
// policy. Set back, by however much, it lets no window hold more than the limit, and keys that wait for it do so for a window at most.
// Set forward, it ends windows before their time: one over the step holds at most twice the limit, and one that begins later the limit.
func TestClock(t *testing.T) {
	for _, kind := range both {
		steps := []time.Duration{window / 2, window + time.Millisecond, 20 * 365 * 24 * time.Hour}
		if *long {
			steps = append(steps, time.Millisecond, 10*time.Millisecond, window-time.Millisecond, window, 5*window, time.Hour)
		}
		for _, step := range steps {
			for _, step := range []time.Duration{step, -step} {
				t.Run(fmt.Sprintf("%v, %v", kind, step), func(t *testing.T) {
					t.Parallel()
					repeat(t, func(t *testing.T) { clock(t, kind, step) })
				})
			}
		}
	}
}

func clock(t *testing.T, kind rig.Kind, step time.Duration) {
	server := redisserver.Start(t)
	o := hasty(redislimit.FailClosed, 1)
	o.Timeout = 2 * time.Second // nothing is slow but the machine
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 4, Callers: 2}, o,
		stepped(dial(t, server.Addr())), stepped(dial(t, server.Addr())))
	f.Start()
	time.Sleep(window * 3 / 2)
	do(t, server.Client(), "SET", ahead, step.Microseconds())
	set := time.Now()
	time.Sleep(window * 9 / 2)
	f.Stop()

	f.Summary(o.Timeout, "step")
	if n := len(f.Of(rig.Fellback)); n > 0 {
		t.Errorf("%d calls were decided by the policy", n)
	}
	bound := f.Capacity()
	if step > 0 {
		bound *= 2
	}
	f.Bound("over the step", bound)
	f.Bound("after the step", f.Capacity(), rig.Since(set.Add(rig.Slack/50)))
	f.Use("after the step", .9, rig.Since(set.Add(2*window+window/5)))
}
