package onfaults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// persistences are what Redis writes down, and of which calls it must still know after it was killed.
var persistences = []struct {
	name  string
	args  []string
	keeps func(killed, saved time.Time) (until time.Time)
}{
	{"appendfsync always", []string{"--appendonly", "yes", "--appendfsync", "always"}, func(killed, _ time.Time) time.Time { return killed }},
	// It is written once a second, or a second later if the disk is busy.
	{"appendfsync everysec", []string{"--appendonly", "yes", "--appendfsync", "everysec"}, func(killed, _ time.Time) time.Time { return killed.Add(-2 * time.Second) }},
	{"snapshot", nil, func(_, saved time.Time) time.Time { return saved }},
	{"nothing", nil, nil},
}

// Redis is killed under load and started again. It knows of every call that it had admitted, as far as it writes down: with
// appendfsync always no window holds more than the limit, over the restart too. What it has forgotten may be admitted once
// more: so a window over the restart holds at most twice the limit, and one that begins later the limit.
func TestRestart(t *testing.T) {
	for _, kind := range both {
		for _, p := range persistences {
			t.Run(fmt.Sprintf("%v, %s", kind, p.name), func(t *testing.T) {
				t.Parallel()
				repeat(t, func(t *testing.T) { restart(t, kind, p.name, p.args, p.keeps) })
			})
		}
	}
}

func restart(t *testing.T, kind rig.Kind, name string, args []string, keeps func(killed, saved time.Time) time.Time) {
	server := redisserver.Start(t, args...)
	way := redisserver.StartProxy(t, server.Addr())
	conns := []redislimit.Conn{dial(t, way.Addr()), dial(t, way.Addr()), dial(t, way.Addr())}
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 4, Callers: 2}, hasty(redislimit.FailClosed, 1), conns...)
	f.Start()
	time.Sleep(3 * window)
	saved := time.Now()
	if name == "snapshot" {
		do(t, server.Client(), "SAVE")
	}
	time.Sleep(window/10 + rand.N(window/8)) // while calls are admitted, which they are in the first quarter of a window
	killed := time.Now()
	server.Kill()
	way.Refuse(true) // until it is known what Redis knows
	server.Restart()
	h, err := rig.ReadHeader(t.Context(), server.Client(), kind, f.Name("k"))
	if err != nil {
		t.Error(err)
	}
	granted := len(f.Of(rig.Admitted))
	way.Refuse(false)
	ended := time.Now()
	back(f)
	time.Sleep(3 * window)
	f.Stop()

	f.Summary(timeout, name)
	known := h.Counted + h.Leased // Hybrid admits what it has on lease
	if keeps == nil {
		if known > 0 {
			t.Errorf("Redis knows of %d", known)
		}
	} else {
		until := keeps(killed, saved)
		acknowledged := len(f.Of(func(c rig.Call) bool { return c.Allowed && c.To.Before(until) }))
		t.Logf("%d were admitted until it was killed, %d of them so early that Redis must know of them; it knows of %d and %d on lease",
			granted, acknowledged, h.Counted, h.Leased)
		if known < uint64(acknowledged) {
			t.Errorf("Redis knows of %d and %d on lease, of at least %d", h.Counted, h.Leased, acknowledged)
		}
	}
	if name == "appendfsync always" {
		f.Bound("of all", f.Capacity())
		if kind.Hybrid {
			settled(f, server.Client(), func(c rig.Call) bool { return c.To.After(killed.Add(-window)) && c.From.Before(ended) })
		}
	} else {
		f.Bound("over a restart", 2*f.Capacity())
		// Leases from before are used to their end.
		f.Bound("that begins after it", f.Capacity(), rig.Since(ended.Add(window)))
	}
	f.Use("afterwards", .9, rig.Since(ended.Add(window)))
}
