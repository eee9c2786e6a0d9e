package onmodel

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// onRedis makes a run with the Redis provider.
func onRedis(t *rapid.T, c redislimit.Conn, o trypema.Options, subject Subject) {
	s := drawStrategy(t)
	p, err := redislimit.New(c, redislimit.Options{
		Options: o, Prefix: rig.Unique("model"), Timeout: rig.Patience, OnFailure: redislimit.FailClosed,
		OnChange: func(h redislimit.Health) { t.Errorf("a change: %+v", h) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	subject.Limiter, subject.Bind, subject.Strategy, subject.Options = rig.Strategy(p, s == trypema.StrategySuppressed), p.Bind, s, o
	subject.Unit, subject.Step = time.Microsecond, time.Microsecond
	subject.Capacities = []uint64{1, 5, 20, 20, 100, 1e6}
	subject.Costs = []uint64{1, 3, 7, 1e7} // all of them together are a number that scripts can count with
	New(subject).Run(t)
}

// All verbs of the Redis provider, single limits and several, by the scripts on a real server whose clock
// stands still: every answer is that of the naive twin in all its fields.
func TestRedis(t *testing.T) {
	clock, conn := rig.NewClock(rig.Adapters[0].Dial(t, []string{redisserver.Start(t).Addr()}))
	rapid.Check(t, func(t *rapid.T) {
		onRedis(t, conn, drawOptions(t), Subject{Advance: func(d time.Duration) { clock.Advance(d.Microseconds()) }})
	})
}

// The same in virtual time, with a server in the process: as many runs as one likes.
func TestRedisInVirtualTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			onRedis(t, fakeredis.New(), drawOptions(t), Subject{Advance: func(d time.Duration) { time.Sleep(d); synctest.Wait() }})
		})
	})
}
