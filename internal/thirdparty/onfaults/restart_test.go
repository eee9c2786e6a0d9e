package onfaults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/explore"
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
	// It is written once a second, or a second later if the disk is busy; the third is for a busy machine.
	{"appendfsync everysec", []string{"--appendonly", "yes", "--appendfsync", "everysec"}, func(killed, _ time.Time) time.Time { return killed.Add(-3 * time.Second) }},
	{"snapshot", nil, func(_, saved time.Time) time.Time { return saved }},
	{"nothing", nil, nil},
}

// Redis is killed under load and started again. It knows of every call that it had admitted, as far as it
// writes down: with appendfsync always no window holds more than the limit, over the restart too. What it has
// forgotten may be admitted once more: so a window over the restart holds at most twice the limit, and one
// that begins later the limit.
func TestRestart(t *testing.T) {
	for i, kind := range both {
		for j, p := range persistences {
			// Of everysec a short run can say little. What forgets is looked at with one provider each.
			if !explore.Long() && (p.name == "appendfsync everysec" || j > 0 && j%2 == i) {
				continue
			}
			t.Run(fmt.Sprintf("%v, %s", kind, p.name), func(t *testing.T) {
				t.Parallel()
				repeat(t, func(t *testing.T) { restart(t, kind, p.name, p.args, p.keeps) })
			})
		}
	}
}

func restart(
	t *testing.T, kind rig.Kind, name string, args []string, keeps func(killed, saved time.Time) time.Time,
) {
	server := redisserver.Start(t, args...)
	way := redisserver.StartProxy(t, server.Addr())
	conns := func() []redislimit.Conn {
		return []redislimit.Conn{dial(t, way.Addr()), dial(t, way.Addr()), dial(t, way.Addr())}
	}
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 4, Callers: 2},
		hasty(redislimit.FailClosed, 1), conns()...)
	// Whose key Redis still has, however long it takes to start.
	long := rig.NewFleet(t, day(kind, "k"), hasty(redislimit.FailClosed, 1), conns()...)
	long.Start()
	exact := name == "appendfsync always"
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	f.Start()
	began := time.Now()
	f.Used("before", .9)
	f.Used("a window later", .9, rig.Since(began.Add(window)))
	rig.Wait(t, func() error {
		if n := len(long.Of(rig.Admitted)); n < 20 {
			return fmt.Errorf("%d admitted", n)
		}
		return nil
	})
	if name == "appendfsync everysec" {
		time.Sleep(5 * time.Second)
	}
	saved := time.Now()
	if name == "snapshot" {
		do(t, server.Client(), "SAVE")
	}
	// while calls are admitted, which they are in the first quarter of a window
	time.Sleep(window/10 + time.Duration(rng.Int64N(int64(window/8))))
	killed := time.Now()
	server.Kill()
	way.Refuse(true) // until it is known what Redis knows
	server.Restart()
	h, err := rig.ReadHeader(t.Context(), server.Client(), kind, long.Name("k"))
	if err != nil {
		t.Error(err)
	}
	granted := len(long.Of(rig.Admitted))
	way.Refuse(false)
	ended := time.Now()
	back(f)
	f.Used("afterwards", .9, rig.Since(ended.Add(window)))
	f.Stop()
	back(long)
	long.Stop()
	if exact && kind.Hybrid {
		settled(long, server.Client())
	}

	f.Summary(name)
	long.Summary(name + ", of a day")
	known := h.Counted + h.Leased // Hybrid admits what it has on lease
	if keeps == nil {
		if known > 0 {
			t.Errorf("Redis knows of %d", known)
		}
	} else {
		until := keeps(killed, saved)
		acknowledged := len(long.Of(func(c rig.Call) bool { return c.Allowed && c.To.Before(until) }))
		t.Logf("%d were admitted until it was killed, %d of them so early that Redis must know of them; it knows of %d and %d on lease",
			granted, acknowledged, h.Counted, h.Leased)
		if known < uint64(acknowledged) {
			t.Errorf("Redis knows of %d and %d on lease, of at least %d", h.Counted, h.Leased, acknowledged)
		}
	}
	if exact {
		f.Bound("of all", f.Capacity())
	} else {
		f.Bound("over a restart", 2*f.Capacity())
		// Leases from before are used to their end.
		f.Bound("that begins after it", f.Capacity(), rig.Since(ended.Add(window)))
	}
}
