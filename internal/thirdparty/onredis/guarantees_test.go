package onredis

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
)

const (
	sharedCap    = 50
	sharedWindow = 500 * time.Millisecond
	sharedBucket = time.Millisecond
)

// Two processes on one key admit, together, the limit: never more in any window, and nothing is denied while
// there is room. The latter holds of any denial, so it does not matter how fast the callers are.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	s := redisserver.Start(t)
	both := []*process{start(t, s, ""), start(t, s, "")}
	rig.Wait(t, func() error {
		for i, p := range both {
			if admitted, denied := p.calls(); len(admitted) < sharedCap/2 || len(denied) < 100 {
				return fmt.Errorf("process %d: %d admitted, %d denied", i, len(admitted), len(denied))
			}
		}
		return nil
	})
	var admitted, denied []anywindow.Admission
	for _, p := range both {
		p.end()
		a, d := p.calls()
		admitted, denied = append(admitted, a...), append(denied, d...)
	}
	most, fewest := anywindow.Most(admitted, sharedWindow), rig.Fewest(admitted, denied,
		sharedWindow+sharedBucket+slew)
	t.Logf("%d admitted, %d denied; at most %d of %d in a window, certainly; at least %d when one was denied",
		len(admitted), len(denied), most, sharedCap, fewest)
	if most > sharedCap || fewest < sharedCap {
		t.Errorf("%d in a window, %d in one when a call was denied, of %d", most, fewest, sharedCap)
	}
}

// slew is how much clocks may go astray in a window.
const slew = 50 * time.Millisecond

// A window of an hour and groups of 100 ms: 8,500 groups that expire at once do no harm, which is more than
// Lua can give to a command of Redis; nor do 36,000, at length.
func TestManyGroups(t *testing.T) {
	t.Parallel()
	client := redisserver.Start(t).Client()
	for _, suppressed := range []bool{false, true} {
		o := newOracle(t, client, trypema.Options{Window: time.Hour, Bucket: 100 * time.Millisecond},
			suppressed, nil)
		ro := rig.Patient(t, trypema.Options{Window: time.Hour, Bucket: 100 * time.Millisecond})
		ro.Prefix = rig.Unique("groups")
		l := rig.Strategy(rig.Open(t, o, ro), suppressed)
		rate := trypema.PerHour(1e6)
		allow := func(n uint64) trypema.Decision {
			t.Helper()
			d, err := l.AllowN(t.Context(), "k", rate, n)
			if err != nil || d.Fallback {
				t.Fatal(d, err)
			}
			return d
		}
		groups := 8_500
		switch {
		case explore.Long():
			groups = 35_990
		case suppressed:
			groups = 1000
		}
		allow(550_000)
		calls := groups
		if !suppressed { // most of them by the script alone, which takes less time
			calls = 500
			admitEach(t, o, rig.Kind{}.RedisKey(ro.Prefix, "k", time.Hour), groups-calls, 100_000)
		}
		for range calls {
			if d := allow(1); !d.Allowed {
				t.Fatal(d)
			}
			o.Advance(100_000)
		}
		if d := allow(2e6); d.Allowed || d.RetryAfter != trypema.Never || d.Remaining != 450_000-uint64(groups) {
			t.Errorf("%+v", d)
		}
		if d := allow(1e6); d.Allowed || d.RetryAfter <= 0 || d.RetryAfter > time.Hour {
			t.Errorf("%+v", d)
		}
		// All but some expire.
		o.Advance(time.Hour.Microseconds() - 20*100_000)
		d := allow(1)
		if want := uint64(1e6 - 19 - 1); !d.Allowed || d.Remaining != want {
			t.Errorf("after all but 19 have expired: %+v, want %d remaining", d, want)
		}
		// Their memory is given back.
		for range 200 {
			o.Advance(100_000)
			allow(1)
		}
		keys, err := client.Keys(t.Context(), "*").Result()
		must.OK(t, err)
		for _, key := range keys {
			if n := client.StrLen(t.Context(), key).Val(); n > 20_000 {
				t.Errorf("%s has %d bytes", key, n)
			}
			client.Del(t.Context(), key)
		}
	}
}

// admitEach has absolute.lua admit n calls to a key, each so many µs after the one before.
func admitEach(t *testing.T, o *oracle, key string, n int, apart int64) {
	t.Helper()
	s := redisproto.NewServer(rig.Clocked{Conn: o.Conn, Time: func() int64 {
		defer o.Advance(apart)
		return o.Now()
	}})
	args := append(redisproto.SpanArgs(o.span), "1000000")
	for ; n > 0; n -= min(n, 500) {
		redisproto.Run(t.Context(), s, func(all *redisproto.Scripts) redisproto.Script { return all.Absolute },
			make([]int, min(n, 500)),
			func(calls []int, _ bool) [][]int { return slices.Collect(slices.Chunk(calls, 1)) },
			func([]int) ([]string, []string) { return []string{key}, args },
			func(_ []int, reply []any, err error, _ bool) (again, mend []int) {
				if err != nil || len(reply) != 2 || reply[1] != int64(1) {
					t.Errorf("%v, %v, want one call admitted", reply, err)
				}
				return nil, nil
			}, func(int) redisproto.Windows { return redisproto.Windows{} })
	}
}

var usedMemory = regexp.MustCompile(`(?m)^used_memory:(\d+)`)

func memory(t *testing.T, c *redis.Client) int {
	t.Helper()
	info, err := c.Info(t.Context(), "memory").Result()
	must.OK(t, err)
	n, _ := strconv.Atoi(usedMemory.FindStringSubmatch(info)[1])
	return n
}

// Idle keys take little memory, and go away by themselves.
func TestIdleKeys(t *testing.T) {
	t.Parallel()
	keys := 5_000
	if explore.Long() {
		keys = 100_000
	}
	client := redisserver.Start(t).Client()
	conn := goredisconn.New(client)
	fill := func(l trypema.Limiter) {
		var all sync.WaitGroup
		for i := range 64 {
			all.Go(func() {
				for k := i; k < keys; k += 64 {
					if d, err := l.Allow(t.Context(), fmt.Sprintf("user:%07d", k), 10); err != nil ||
						!d.Allowed || d.Fallback {
						t.Error(d, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	for _, suppressed := range []bool{false, true} {
		before := memory(t, client)
		fill(rig.Strategy(rig.Open(t, conn, rig.Patient(t, trypema.Options{Window: time.Hour})), suppressed))
		perKey := float64(memory(t, client)-before) / float64(keys)
		t.Logf("suppressed %v: %.0f bytes per key", suppressed, perKey)
		if perKey > 350 {
			t.Errorf("suppressed %v: %.0f bytes per key, want at most 350", suppressed, perKey)
		}
		must.OK(t, client.FlushAll(t.Context()).Err())

		o := trypema.Options{Window: 300 * time.Millisecond}
		fill(rig.Strategy(rig.Open(t, conn, rig.Patient(t, o)), suppressed))
		rig.Wait(t, func() error {
			n, err := client.DBSize(t.Context()).Result()
			if err == nil && n > 0 {
				err = fmt.Errorf("suppressed %v: %d of %d keys are left", suppressed, n, keys)
			}
			return err
		})
	}
}
