package onredis

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/previous"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/internal/window"
)

// messages are random ones of a few holders to a few keys, which only make sense now and then.
type messages struct {
	rng  *rand.Rand
	span window.Span
	asks map[string]map[uint64]*lease.Message // the last of each holder, with instants for ages
	mix  []option                             // of holders, by their numbers modulo len; nil for one kind
	turn int                                  // who sends messages now, of mix

	absolute bool // nothing is declined, and holders keep windows
	waiting  bool // calls wait for room
}

// option is what holders need not have in common.
type option struct {
	bucket int64
	server *redisproto.Server // which may run the scripts of the version before
	prompt bool               // nothing is settled late
}

// pass has holders with other options send messages, and returns the server by which they do.
func (m *messages) pass(s *redisproto.Server) *redisproto.Server {
	if m.mix == nil {
		return s
	}
	m.turn = m.rng.IntN(len(m.mix))
	m.span.Bucket = m.mix[m.turn].bucket
	return m.mix[m.turn].server
}

func (m *messages) next(key string, now int64) lease.Message {
	if m.asks[key] == nil {
		m.asks[key] = make(map[uint64]*lease.Message)
	}
	id := 1 + m.rng.Uint64N(7)<<m.rng.IntN(2)
	if m.mix != nil {
		id = id*uint64(len(m.mix)) + uint64(m.turn)
	}
	last := m.asks[key][id]
	if last == nil || m.rng.IntN(50) == 0 { // it begins anew
		last = &lease.Message{Holder: id}
		m.asks[key][id] = last
	}
	if m.rng.IntN(4) > 0 { // the answer to the last message was not lost
		for _, g := range last.Groups {
			last.Base.Admitted += g.Admitted
			last.Base.Declined += g.Declined
		}
		last.Groups = nil
	}
	last.Seq++
	a := *last
	prompt := len(m.mix) > 0 && m.mix[m.turn].prompt
	if m.rng.IntN(20) == 0 && !prompt {
		a.Seq -= min(a.Seq, m.rng.Uint64N(3)) // one that is late
	}
	a.Capacity = []uint64{1, 5, 20, 100, 1000, 1 << 40}[m.rng.IntN(6)]
	some := func() uint64 { return m.rng.Uint64N(1 + a.Capacity/uint64(1+m.rng.IntN(20))) }
	a.Hold, a.Near, a.Far, a.NearLife = some()/2, some(), some(), []int64{100_000, 300_000}[m.rng.IntN(2)]
	a.HoldLife = []int64{0, 1, 300_000, 20_000_000}[m.rng.IntN(4)]
	if prompt { // the version before remembers how long a holder uses what it has
		a.Hold = 0
	}
	a.Count = m.absolute && !prompt && m.rng.IntN(4) == 0
	if a.Keeps = m.absolute && !prompt && m.rng.IntN(8) > 0; a.Keeps {
		a.New = m.rng.IntN(4) == 0
		a.Kept, a.FarLeast = m.rng.Uint64N(1+a.Hold), some()/4
		a.Brief = []int64{0, 100_000, 5_000_000}[m.rng.IntN(3)]
		if m.rng.IntN(4) == 0 {
			a.Hold = a.Capacity - a.Capacity/uint64(20+m.rng.IntN(60)) // about where it is near the limit
		}
	}
	if a.Lone = !m.absolute && !prompt && m.rng.IntN(8) > 0; a.Lone {
		a.New, a.Brief = m.rng.IntN(4) == 0, []int64{0, 100_000, 5_000_000}[m.rng.IntN(3)]
		a.Count = m.rng.IntN(4) == 0
		if m.rng.IntN(2) == 0 {
			a.Kept = m.rng.Uint64N(1 + a.Hold)
		}
	}
	if m.rng.IntN(3) == 0 {
		a.Need = some()
	}
	if m.waiting && !prompt && m.rng.IntN(4) > 0 {
		a.Waiting = 1 + some()/uint64(1+m.rng.IntN(100))
	}
	a.Slot = uint64(m.rng.IntN(8))
	a.Whole = m.rng.IntN(5) > 0
	ages := make([]int64, m.rng.IntN(4))
	for i := range ages {
		ages[i] = m.rng.Int64N(1 + m.span.Window/[]int64{1000, 100, 4, 1}[m.rng.IntN(4)])
		if m.rng.IntN(10) == 0 {
			ages[i] = m.span.Window - m.rng.Int64N(2)
		}
		if prompt {
			ages[i] = 0
		}
	}
	if a.Kept > 0 && a.Lone { // it settles nothing
		ages, last.Groups = nil, nil
	}
	slices.Sort(ages)
	for _, age := range slices.Backward(ages) {
		at := now - age
		if n := len(last.Groups); n > 0 {
			at = max(at, last.Groups[n-1].Age)
		}
		last.Groups = append(last.Groups, lease.Group{Age: at, Span: m.rng.Int64N(1 + m.span.Bucket), Counts: window.Counts{Admitted: m.rng.Uint64N(20), Declined: m.rng.Uint64N(3) * m.rng.Uint64N(9)}})
	}
	a.Groups = slices.Clone(last.Groups)
	for i := range a.Groups {
		a.Groups[i].Age = now - a.Groups[i].Age
	}
	if m.absolute {
		for _, groups := range [][]lease.Group{a.Groups, last.Groups} {
			for i := range groups {
				groups[i].Declined = 0
			}
		}
	}
	return a
}

// ledgerSeeds are those that have found something.
var ledgerSeeds = []struct {
	what  string
	seed  uint64
	mixed bool
	on    string // a server, or "" if it was not the server
}{
	{"a repeated message after a Set to 0", 15882379513984314242, false, ""},
	{"a window of which all that is live was settled to none", 16482043683754387199, false, ""},
	{"a Set beside a group that was settled to none", 2961407227462601928, false, ""},
	{"the version before repeats what a stale message carried", 17597103399331209084, true, "redis"},
	{"the version before on a server without struct", 5306305051242669342, true, "miniredis"},
}

// settle.lua and the ledger in Go answer the same, and end up with the same groups; also where each holder
// has a bucket of its own, or runs the script of the version before.
func TestLedger(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	clients := map[string]*redis.Client{"redis": server.Client(), "miniredis": redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})}
	defer func() { _ = clients["miniredis"].Close() }()
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			// A run has 250 steps, so there are 10⁶ of them at length.
			runs, steps, random := explore.Runs(3, 2000), 250, explore.Length(120, 250)
			if name == "miniredis" { // which is slow
				runs = explore.Runs(1, 50)
				steps, random = explore.Length(60, 250), explore.Length(25, 250)
			}
			for _, known := range ledgerSeeds {
				if known.on == name || known.on == "" && (name == "redis" || explore.Long()) {
					t.Run(known.what, func(t *testing.T) { ledgersAgree(t, client, known.seed, steps, known.mixed) })
				}
			}
			first := explore.Seed(t)
			for seed := first; seed != first+uint64(runs); seed++ {
				for _, mixed := range []bool{false, true} {
					run := func(t *testing.T) { ledgersAgree(t, client, seed, random, mixed) }
					if !t.Run(fmt.Sprintf("seed %d, mixed %v", seed, mixed), run) {
						return
					}
				}
			}
		})
	}
}

func ledgersAgree(t *testing.T, client *redis.Client, seed uint64, steps int, mixed bool) {
	rng := rand.New(rand.NewPCG(seed, 0))
	o := trypema.Options{Window: []time.Duration{2 * time.Second, 10 * time.Second, time.Hour}[rng.IntN(3)]}
	o.Bucket = max(time.Millisecond, o.Window/[]time.Duration{1, 7, 100, 1000}[rng.IntN(4)])
	oracle := newOracle(t, client, o, false, nil)
	s := redisproto.NewServer(oracle)
	const near = 100_000
	far := int64(10_000_000)
	m := messages{
		rng: rng, span: oracle.span, asks: map[string]map[uint64]*lease.Message{}, absolute: seed%3 > 0,
	}
	old := false
	if mixed {
		old = rng.IntN(2) == 0
		m.mix = []option{{m.span.Bucket, s, false}, {1000, s, false}, {m.span.Window, s, false}}
		// It has two groups end at one instant unless its bucket is the largest, and what it settles late
		// joins the next group however much later that is.
		if old {
			m.mix[2] = option{m.span.Window, redisproto.NewServer(previous.Conn{Conn: oracle}), true}
		}
	}
	m.waiting = !old && seed%2 == 0 // the version before knows nothing of turns
	prefix := rig.Unique("ledger")
	twins, running := map[string]*lease.Ledger{}, map[string]window.Counts{}
	for step := range steps {
		if rng.IntN(4) == 0 {
			far = []int64{200_000, 10_000_000, 3_000_000_000}[rng.IntN(3)]
		}
		by := m.pass(s)
		w, b := m.span.Window, m.span.Bucket
		later := []int64{0, 0, 1, b / 3, b - 1, b, b + 1, w / 10, w, w - 1, near, far, far + w, 3 * w}[min(rng.IntN(14), rng.IntN(14))]
		oracle.Advance(later)
		var keys, args []string
		var asks []lease.Message
		for _, key := range []string{"a", "b", "c"}[:1+rng.IntN(3)] {
			key = prefix + key
			ask := m.next(key, oracle.Now())
			keys, args, asks = append(keys, key), append(args, redisproto.Message(ask)), append(asks, ask)
			if twins[key] == nil {
				twins[key] = new(lease.Ledger)
			}
		}
		common := append(redisproto.SpanArgs(m.span), strconv.FormatInt(far, 10))
		settle := func(all *redisproto.Scripts) redisproto.Script { return all.Settle }
		reply := runScript(t, by, settle, keys, append(common, args...))
		r := redisproto.NewReader(reply)
		for i, ask := range asks {
			got, err := redisproto.ReadAnswer(r, ask.Whole)
			want := twins[keys[i]].Settle(m.span, oracle.Now(), far, ask)
			if before, known := running[keys[i]]; known && got.Before != before && !got.Stale {
				t.Fatalf("step %d: running counts are %+v, and were %+v", step, got.Before, before)
			}
			if !got.Stale {
				running[keys[i]] = got.After
			} else if len(m.mix) > 0 && m.mix[m.turn].prompt {
				m.asks[keys[i]][ask.Holder].Groups = nil // the next message would settle them late
			}
			got.Slot, got.After, want.After = 0, since(got), since(want)
			got.Before, want.Before = window.Counts{}, window.Counts{}
			if len(want.Groups) > 128 { // neighbours may be taken together
				got.Groups, want.Groups = nil, nil
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("step %d, window %v, bucket %v, to %+v:\nredis %+v, %v\ntwin  %+v", step, o.Window,
					o.Bucket, ask, got, err, want)
			}
		}
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
		outlivesItsLeases(t, client.Get(t.Context(), keys[0]).Val(), oracle.span.Window)
		// A reservation is settled. The version before does not see that a window is empty by it.
		if rng.IntN(8) == 0 && !old {
			key, from, was, is := keys[0], oracle.Now()-rng.Int64N(m.span.Window+m.span.Window/8), rng.Uint64N(10), rng.Uint64N(10)
			at := from + rng.Int64N(1+oracle.Now()-from)*rng.Int64N(2)
			removed, added := commit(t, s, m.span, key, "ha", from, at, was, is)
			if r, more := twins[key].Commit(m.span, oracle.Now(), from, at, was, is); removed != r || added != more {
				t.Fatalf("step %d: commit of %d at %d to %d at %d: -%d+%d, want -%d+%d", step, was, from, is,
					at, removed, added, r, more)
			}
			delete(running, key)
		}
		if rng.IntN(40) == 0 { // somebody sets one
			key, total := keys[0], uint64(rng.IntN(30))
			keep := []trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}[rng.IntN(3)]
			set(t, s, m.span, key, total, keep)
			side := window.Newest
			if keep == trypema.KeepOldest {
				side = window.Oldest
			}
			twins[key].Set(m.span, oracle.Now(), total, side, keep == trypema.Replace)
			delete(running, key)
		}
	}
	for _, key := range []string{"a", "b", "c"} {
		if n := client.TTL(t.Context(), prefix+key).Val(); n == -1 {
			t.Errorf("%s lives forever", key)
		}
		outlivesItsLeases(t, client.Get(t.Context(), prefix+key).Val(), oracle.span.Window)
		client.Del(t.Context(), prefix+key)
	}
}

// Holders that take turns and those of the version before share a key: no message is an error, and the ledger
// grants nothing beyond what is free.
func TestTurnsBesideThePreviousVersion(t *testing.T) {
	t.Parallel()
	client := redisserver.Start(t).Client()
	first := explore.Seed(t)
	for seed := first; seed != first+uint64(explore.Runs(3, 300)); seed++ {
		rng := rand.New(rand.NewPCG(seed, 0))
		oracle := newOracle(t, client, trypema.Options{Window: 2 * time.Second, Bucket: 20 * time.Millisecond}, false, nil)
		s, before := redisproto.NewServer(oracle), redisproto.NewServer(previous.Conn{Conn: oracle})
		m := messages{
			rng: rng, span: oracle.span, asks: map[string]map[uint64]*lease.Message{}, absolute: true, waiting: true,
			mix: []option{{oracle.span.Bucket, s, false}, {oracle.span.Bucket, before, true}},
		}
		key, turns := rig.Unique("turns"), 0
		args := append(redisproto.SpanArgs(m.span), "10000000")
		for step := range 250 {
			by := m.pass(s)
			oracle.Advance([]int64{0, 1, 1000, 20_000, 100_000, 2_000_000}[rng.IntN(6)])
			ask := m.next(key, oracle.Now())
			ask.Hold = min(ask.Hold, 5)
			settle := func(all *redisproto.Scripts) redisproto.Script { return all.Settle }
			reply := runScript(t, by, settle, []string{key}, append(slices.Clone(args), redisproto.Message(ask)))
			got, err := redisproto.ReadAnswer(redisproto.NewReader(reply), ask.Whole)
			taken := got.Live.Admitted + got.Others + ask.Hold
			if err != nil || got.Grant > ask.Capacity-min(ask.Capacity, taken) {
				t.Fatalf("seed %d, step %d: to %+v\n%+v, %v", seed, step, ask, got, err)
			}
			if !got.Stale && got.Next >= 0 {
				turns++
			}
		}
		if client.Del(t.Context(), key); turns == 0 {
			t.Errorf("seed %d: there were no turns", seed)
		}
	}
}

// outlivesItsLeases checks that a key is kept, by its own word, until what is on lease has aged out.
func outlivesItsLeases(t *testing.T, text string, w int64) {
	t.Helper()
	if text == "" {
		return
	}
	number := func(at int) (n int64) {
		for i := 6; i >= 0; i-- {
			n = n<<8 | int64(text[at+i])
		}
		return n
	}
	for i := range int(text[118]) + int(text[119])<<8 {
		slot := 120 + 43*i
		if amount, until := number(slot+15), number(slot+22); amount > 0 && number(50) < until+w {
			t.Errorf("holder %d has %d on lease, charged until %d, and the key is kept until %d", i, amount,
				until+w, number(50))
		}
	}
}

func since(a lease.Answer) window.Counts {
	return window.Counts{Admitted: a.After.Admitted - a.Before.Admitted, Declined: a.After.Declined - a.Before.Declined}
}

func set(t *testing.T, s *redisproto.Server, span window.Span, key string, total uint64, keep trypema.History) {
	t.Helper()
	args := append(redisproto.SpanArgs(span), "Always()", strconv.FormatUint(total, 10), keep.String(), "ha")
	reply := runScript(t, s, func(all *redisproto.Scripts) redisproto.Script { return all.Set }, []string{key}, args)
	if len(reply) != 2 || strings.Contains(fmt.Sprint(reply[0]), "NOTAWINDOW") {
		t.Fatal(reply)
	}
}
