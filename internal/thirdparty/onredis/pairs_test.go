package onredis

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/window"
)

// What is tested here is known in Lua and in Go. Each pair is held equal on generated states, a million of
// them at length. TestTwin does it for windows, TestLedger for the ledger.

const pairs = 64 // states in one exchange

// near draws a number that is small, large, or next to one of others.
func near(rng *rand.Rand, others ...uint64) uint64 {
	if len(others) > 0 && rng.IntN(2) == 0 {
		n := others[rng.IntN(len(others))]
		return n + rng.Uint64N(3) - min(n, 1)
	}
	return rng.Uint64N(1 << rng.IntN(40))
}

// full is the string of a window of Suppressed that holds a group before its recent part, and the newest
// group.
func full(now, w int64, before, recent window.Counts) string {
	var b []byte
	seven := func(numbers ...uint64) {
		for _, n := range numbers {
			b = binary.LittleEndian.AppendUint64(b, n)
			b = b[:len(b)-1]
		}
	}
	four := func(n uint32) { b = binary.LittleEndian.AppendUint32(b, n) }
	all, old := before.Plus(recent), uint64(now-w/2)
	seven(0, 0)
	b = append(b, 1)
	seven(uint64(now), all.Admitted, all.Declined, uint64(now), old, uint64(now+100*w))
	four(0)
	four(1)
	seven(before.Admitted, before.Declined, 0)
	four(1)
	seven(before.Observed(), 0)
	seven(old, before.Admitted, before.Declined)
	return string(b)
}

// counted is the running counts in the header of a window.
func counted(text string) window.Counts {
	seven := func(at int) uint64 {
		var b [8]byte
		copy(b[:7], text[at:])
		return binary.LittleEndian.Uint64(b[:])
	}
	return window.Counts{Admitted: seven(22), Declined: seven(29)}
}

// suppressed.lua decides by the law of package window: its chance to decline is the factor in Go, as dice
// show that fall next to it on either side.
func TestLawInLua(t *testing.T) {
	t.Parallel()
	client := redisserver.Start(t).Client()
	o := newOracle(t, client, trypema.Options{Window: 10 * time.Second}, true, nil)
	s := redisproto.NewServer(o)
	first := explore.Seed(t)
	admitted, denied, chances := 0, 0, 0
	for seed := first; seed != first+uint64(explore.Runs(100, 16_000)); seed++ {
		rng := rand.New(rand.NewPCG(seed, 0))
		capacity := max(1, near(rng))
		factor := []float64{1, 1.01, 1.1, 1.5, 1.5, 2, 4, 1000}[rng.IntN(8)]
		span := o.span
		span.Bucket = []int64{1000, span.Window / 100, span.Window / 7, span.Window}[rng.IntN(4)]
		law := window.NewLaw(span, capacity, factor)
		law.Hard = min(law.Hard, redisproto.Most)
		cost := max(1, near(rng, 1, 1, capacity))
		some := func() uint64 {
			return near(rng, capacity, law.Hard, capacity*4/5, capacity/10, 2*capacity) / 2
		}
		type state struct {
			before, recent window.Counts
			factor, thrown float64
		}
		states, keys, dice, pipe := make([]state, pairs), []string{}, []byte{}, client.Pipeline()
		for i := range states {
			x := &states[i]
			x.before = window.Counts{Admitted: some(), Declined: some()}
			x.recent = window.Counts{Admitted: some(), Declined: some()}
			if x.factor = 1; cost <= capacity {
				x.factor = law.Factor(x.before.Plus(x.recent), x.recent.Observed(), cost)
			}
			k := min(max(int64(x.factor*(1<<24))-rng.Int64N(2), 0), 1<<24-1)
			x.thrown = (float64(k) + .5) / (1 << 24)
			dice = append(dice, byte(k>>16), byte(k>>8), byte(k))
			keys = append(keys, "law"+strconv.Itoa(i))
			pipe.Set(t.Context(), keys[i], full(o.Now(), o.span.Window, x.before, x.recent), 0)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		args := append(redisproto.SpanArgs(span), strconv.FormatFloat(factor, 'g', -1, 64), string(dice),
			strconv.FormatUint(capacity, 10), strconv.FormatUint(cost, 10), "1")
		pick := func(all *redisproto.Scripts) redisproto.Script { return all.Suppressed }
		reply := runScript(t, s, pick, keys, args)
		r := redisproto.NewReader(reply)
		for i := range states {
			x := &states[i]
			counts := window.Counts{Admitted: r.Count(1 << 53), Declined: r.Count(1 << 53)}
			seen, joined, passes := r.Count(1<<53), r.Count(1<<53), r.Count(1) == 1
			if r.Number() != 0 { // the groups
				r.Number()
				r.Number()
				r.Text()
			}
			right := passes == (x.thrown >= x.factor) || math.Abs(x.thrown-x.factor) < 1e-12
			if counts != x.before.Plus(x.recent) || seen != x.recent.Observed() || joined != seen || !right {
				t.Fatalf("seed %d: capacity %d, factor %v, cost %d, %+v: %+v, recent %d and %d, admitted %v",
					seed, capacity, factor, cost, *x, counts, seen, joined, passes)
			}
			switch {
			case passes:
				admitted++
			default:
				denied++
			}
			if x.factor > 0 && x.factor < 1 {
				chances++
			}
		}
		must.OK(t, r.Done())
	}
	t.Logf("%d admitted, %d denied; %d of both by chance", admitted, denied, chances)
	if admitted == 0 || denied == 0 || chances == 0 {
		t.Error("something has not happened at all")
	}
}

// A group that set.lua cuts keeps as many declined as window.MulDiv says.
func TestCutInLua(t *testing.T) {
	t.Parallel()
	client := redisserver.Start(t).Client()
	o := newOracle(t, client, trypema.Options{Window: 10 * time.Second}, true, nil)
	s := redisproto.NewServer(o)
	first := explore.Seed(t)
	for seed := first; seed != first+uint64(explore.Runs(50, 16_000)); seed++ {
		rng := rand.New(rand.NewPCG(seed, 0))
		type item struct {
			key  string
			had  window.Counts
			kept uint64
		}
		items, pipe := make([]item, pairs), client.Pipeline()
		for i := range items {
			x := &items[i]
			x.key = "cut" + strconv.Itoa(i)
			some := func() uint64 { return rng.Uint64N(1 << (1 + rng.IntN(50))) }
			x.had = window.Counts{Admitted: some(), Declined: some()}
			x.kept = 1 + rng.Uint64N(max(1, x.had.Observed()))
			pipe.Set(t.Context(), x.key, full(o.Now(), o.span.Window, window.Counts{}, x.had), 0)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		redisproto.Run(context.Background(), s, func(all *redisproto.Scripts) redisproto.Script { return all.Set }, items,
			func(items []item, _ bool) (parcels [][]item) {
				for i := range items {
					parcels = append(parcels, items[i:][:1])
				}
				return parcels
			},
			func(parcel []item) (keys, args []string) {
				args = append(redisproto.SpanArgs(o.span), "Always()", strconv.FormatUint(parcel[0].kept, 10))
				return []string{parcel[0].key}, append(args, "KeepNewest", "s")
			},
			func(parcel []item, reply []any, err error, _ bool) (again, mend []item) {
				if x := parcel[0]; err != nil || len(reply) != 2 || reply[1] != int64(x.had.Observed()) {
					t.Errorf("seed %d: %+v: %v, %v", seed, x, reply, err)
				}
				return nil, nil
			}, func(item) redisproto.Windows { return redisproto.Windows{} })
		for _, x := range items {
			got, want := counted(client.Get(t.Context(), x.key).Val()), x.had
			if x.kept < x.had.Observed() {
				declined := window.MulDiv(x.had.Declined, x.kept, x.had.Observed())
				want = window.Counts{Admitted: x.kept - declined, Declined: declined}
			}
			if x.kept > x.had.Observed() { // of nothing
				want.Admitted = x.kept
			}
			if got != want {
				t.Fatalf("seed %d: %+v becomes %+v, want %+v", seed, x, got, want)
			}
		}
	}
}

// The library struct for servers that lack it packs and unpacks as that of Redis.
func TestStructInLua(t *testing.T) {
	t.Parallel()
	client := redisserver.Start(t).Client()
	text, err := os.ReadFile("../../redisproto/lua/struct.lua")
	must.OK(t, err)
	program := "local real = struct\n" + string(text) + `
for i = 1, #ARGV, 12 do
  local a = {}
  for j = 0, 11 do a[j + 1] = ARGV[i + j] + 0 end
  local b, c, d, e = a[3] % 256, a[10] % 4294967296, a[11] % 4294967296, a[12] % 65536
  for _, one in ipairs({
    {'<I7I7BI7I7I7I7I7I7I4I4I7', a[1], a[2], b, a[4], a[5], a[6], a[7], a[8], a[9], c, d, a[12]},
    {'<I7I7I4I7I7', a[1], a[2], c, a[4], a[5]}, {'<I7I7I2', a[1], a[2], e}, {'<I7I7I7', a[1], a[2], a[4]},
  }) do
    local ours, theirs = struct.pack(unpack(one)), real.pack(unpack(one))
    if ours ~= theirs then return 'pack ' .. one[1] .. ' of ' .. i end
    local at = i % 5
    local values = {struct.unpack(one[1], string.rep('x', at) .. ours, at + 1)}
    local others = {real.unpack(one[1], ours)}
    for j = 1, #one - 1 do
      if values[j] ~= one[j + 1] or others[j] ~= one[j + 1] then return 'unpack ' .. one[1] .. ' of ' .. i end
    end
  end
end
return ''`
	first := explore.Seed(t)
	for seed := first; seed != first+uint64(explore.Runs(20, 4000)); seed++ {
		rng := rand.New(rand.NewPCG(seed, 0))
		args := make([]any, 12*pairs)
		for i := range args {
			args[i] = strconv.FormatUint(rng.Uint64N(1<<(1+rng.IntN(53))), 10)
		}
		if wrong, err := client.Eval(t.Context(), program, nil, args...).Text(); err != nil || wrong != "" {
			t.Fatalf("seed %d: %s, %v", seed, wrong, err)
		}
	}
}
