package onredis

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// errand is one run of a script on the windows of a key.
type errand struct {
	wait       time.Duration // before it
	commits    bool          // it is commit.lua, else multi.lua
	keys, args []string
	runs       []errandRun
}

type errandRun struct {
	count uint64
	lives bool
}

// errands are random ones for the windows of one key: runs of calls with several limits, with or without a
// life, and settlements, in half of all by several instances with buckets of their own.
func errands(rng *rand.Rand, kind string, steps int) (all []errand) {
	w := int64(1_000_000_000)
	buckets := []int64{1, 1000, w / 100, w / 7, w}
	bucket, mixed := buckets[rng.IntN(5)], rng.IntN(2) == 0
	base := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() // where the clock of a bubble begins
	type reserved struct{ at, life int64 }
	var open []reserved
	now := base
	text := func(n int64) string { return strconv.FormatInt(n, 10) }
	for range steps {
		if mixed { // by instances with other options
			bucket = buckets[rng.IntN(5)]
		}
		spans := []window.Span{
			{Window: w, Bucket: bucket}, {Window: 4 * w, Bucket: 4 * bucket}, {Window: w / 3, Bucket: max(bucket/3, 1)},
		}
		var e errand
		wait := []int64{0, 0, 1, bucket - 1, bucket, bucket + 1, w / 30, w / 4, w - 1, w, 3 * w}[rng.IntN(11)]
		if rng.IntN(2) == 0 {
			wait = rng.Int64N(w / 20)
		}
		e.wait = time.Duration(wait) * time.Microsecond
		now += wait
		e.commits = len(open) > 0 && rng.IntN(4) == 0
		limits := rng.Perm(3)[:1+rng.IntN(3)]
		slices.Sort(limits)
		for _, i := range limits {
			e.keys = append(e.keys, fmt.Sprint(kind, i))
		}
		e.args = append(redisproto.SpanArgs(spans[limits[0]]), kind)
		if e.commits {
			of := open[rng.IntN(len(open))]
			e.args = append(e.args, text(rng.Int64N(6)), text(rng.Int64N(6)))
			for _, i := range limits {
				from := spans[i].Backdate(of.at, of.life)
				e.args = append(append(e.args, redisproto.SpanArgs(spans[i])...), text(from), text(of.at))
			}
			all = append(all, e)
			continue
		}
		lives := rng.IntN(2) == 0
		dice, runs := []byte{}, []string{}
		for range 1 + rng.IntN(4) {
			count, life := []int64{0, 1, 1, 2, 5, 40}[rng.IntN(6)], int64(0)
			if lives {
				life = []int64{1, bucket, w / 20, w / 3, w / 2, w - 1, w, 2 * w}[rng.IntN(8)]
				count = max(count, 1)
				if kind == "s" {
					count = 1
				}
				open = append(open, reserved{now, life})
			}
			for range count {
				dice = append(dice, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()))
			}
			runs = append(runs, text(1+rng.Int64N(4)), text(count), text(life))
			e.runs = append(e.runs, errandRun{uint64(count), life > 0})
		}
		if kind == "a" {
			dice = nil
		}
		e.args = append(e.args, "1.5", string(dice))
		for _, i := range limits {
			e.args = append(append(e.args, redisproto.SpanArgs(spans[i])...),
				text([]int64{5, 20, 20, 100}[rng.IntN(4)]))
		}
		e.args = append(e.args, runs...)
		all = append(all, e)
	}
	return all
}

// run has a server do an errand, and returns what it says where servers must say the same.
func (e *errand) run(t *testing.T, s *redisproto.Server, kind, prefix string) (said []any) {
	keys := slices.Clone(e.keys)
	for i := range keys {
		keys[i] = prefix + keys[i]
	}
	pick := func(all *redisproto.Scripts) redisproto.Script { return all.Multi }
	if e.commits {
		pick = func(all *redisproto.Scripts) redisproto.Script { return all.Commit }
	}
	r := redisproto.NewReader(runScript(t, s, pick, keys, e.args))
	take := func(n int) {
		for range n {
			said = append(said, r.Number())
		}
	}
	for range keys {
		if e.commits {
			take(2)
			continue
		}
		take(1) // now
		for _, run := range e.runs {
			if kind == "a" {
				take(1)
				fit := r.Count(run.count)
				if said = append(said, fit); fit < run.count || run.count == 0 {
					take(2)
				}
				continue
			}
			take(3)
			joined := r.Number()
			if run.count > 0 && !run.lives { // or it is not read
				said = append(said, joined)
			}
			take(int(run.count+31) / 32)
		}
		if kind == "a" || r.Number() == 0 {
			continue
		}
		upto := [2]uint64{r.Count(1 << 53), r.Count(1 << 53)}
		for log := []byte(r.Text()); len(log) >= 21; log = log[21:] {
			said = append(said, number7(log))
			for i := range upto {
				n := number7(log[7*i+7:])
				said = append(said, n-upto[i])
				upto[i] = n
			}
		}
	}
	if err := r.Done(); err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	return said
}

func number7(b []byte) uint64 {
	var all [8]byte
	copy(all[:], b[:7])
	return binary.LittleEndian.Uint64(all[:])
}

// Runs of calls with several limits, some of which leave their windows early, and settlements of those:
// multi.lua and commit.lua say what package window says, call by call.
func TestSeveralLimitsInRuns(t *testing.T) {
	t.Parallel()
	for _, server := range []struct {
		name        string
		addr        func() string
		runs, steps int
	}{
		{"redis", redisserver.Start(t).Addr, explore.Runs(3, 2000), explore.Length(100, 150)},
		{"miniredis", miniredis.RunT(t).Addr, explore.Runs(1, 50), explore.Length(50, 150)}, // which is slow
	} {
		t.Run(server.name, func(t *testing.T) {
			clock, conn := rig.NewClock(goredisconn.New(rig.GoRedis(t, []string{server.addr()})))
			seed := explore.Seed(t)
			for i := range uint64(server.runs) {
				for _, kind := range []string{"a", "s"} {
					all := errands(rand.New(rand.NewPCG(seed+i, 0)), kind, server.steps)
					var want [][]any
					synctest.Test(t, func(t *testing.T) {
						fake := redisproto.NewServer(fakeredis.New())
						for _, e := range all {
							time.Sleep(e.wait)
							want = append(want, e.run(t, fake, kind, ""))
						}
					})
					server := redisproto.NewServer(redislimit.Conn(conn))
					clock.Advance(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() - clock.Now())
					prefix := "{" + rig.Unique("runs") + "}"
					for j, e := range all {
						clock.Advance(e.wait.Microseconds())
						if got := e.run(t, server, kind, prefix); !reflect.DeepEqual(got, want[j]) {
							t.Fatalf("seed %d, %s, step %d, %+v:\n got %v\nwant %v", seed+i, kind, j, e, got,
								want[j])
						}
					}
				}
			}
		})
	}
}
