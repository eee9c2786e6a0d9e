package onfaults

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// stepped is a Conn to a server whose clock can be set: it is ahead by as many µs as a key of the server says.
type stepped struct{ redislimit.Conn }

const ahead = "ahead"

func (c stepped) Run(ctx context.Context, script, _ string, keys, args [][]string, answer func(int, []any, error)) {
	const wall = "call('TIME')"
	if strings.Count(script, wall) != 1 {
		panic("the script does not read the clock as expected")
	}
	script = strings.Replace(script, wall, "(function() local t = call('TIME') return {t[1], t[2] + (call('GET', '"+ahead+"') or 0)} end)()", 1)
	sum := sha1.Sum([]byte(script)) //nolint:gosec // it is how Redis names scripts
	c.Conn.Run(ctx, script, hex.EncodeToString(sum[:]), keys, args, answer)
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
		stepped{dial(t, server.Addr())}, stepped{dial(t, server.Addr())})
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
	f.Use("after the step", .95, rig.Since(set.Add(2*window+window/5)))
}
