package onredis

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/internal/window"
)

// oracle is a Conn that gives the scripts another clock, at which it then asks the naive twin of each key the
// same, in the order in which the calls travel.
type oracle struct {
	rig.Clocked
	*rig.Clock
	span window.Span
	law  func(capacity uint64) *window.Law // nil for Absolute

	mu    sync.Mutex
	twins map[string]*model.Twin     // by Redis key
	wants map[question][]expectation // what the callers are to be told, in any order
}

// question is what callers in one step can be told apart by.
type question struct {
	name        string
	capacity, n uint64
	record      bool
}

type expectation struct {
	window.Verdict
	chance bool // it may also be allowed
}

// newOracle returns an oracle whose clock starts somewhere; without twins it is only the clock.
func newOracle(
	_ testing.TB, client redis.UniversalClient, options trypema.Options, suppressed bool,
	twins map[string]*model.Twin,
) *oracle {
	options, _ = options.WithDefaults()
	o := &oracle{span: window.Span{Window: options.Window.Microseconds(), Bucket: options.Bucket.Microseconds()}, twins: twins}
	o.Clock, o.Clocked = rig.NewClock(goredisconn.New(client))
	if suppressed {
		o.law = func(capacity uint64) *window.Law { return window.NewLaw(o.span, capacity, options.HardLimitFactor) }
	}
	return o
}

// Run implements redislimit.Conn.
func (o *oracle) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	o.Clocked.Run(ctx, source, sha1, keys, args, func(i int, reply []any, err error) {
		switch redisproto.NameOf(source) {
		case "absolute.lua", "suppressed.lua":
			if err == nil && o.twins != nil {
				o.ask(keys[i], args[i])
			}
		}
		answer(i, reply, err)
	})
}

func (o *oracle) twin(name string) *model.Twin {
	if o.twins[name] == nil {
		o.twins[name] = &model.Twin{Span: o.span}
	}
	return o.twins[name]
}

func (o *oracle) ask(names, args []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	runs, dice := args[2:], ""
	if o.law != nil {
		runs, dice = args[4:], args[3]
	}
	for len(runs)%3 != 0 { // what is left out is 1
		runs = append(runs[:len(runs):len(runs)], "1")
	}
	for _, name := range names {
		dice = o.askOne(name, runs, dice)
	}
}

func (o *oracle) askOne(name string, runs []string, dice string) string {
	twin := o.twin(name)
	type denied struct {
		question
		at int
	}
	var later []denied
	for ; len(runs) > 0; runs = runs[3:] {
		q := question{name, parse(runs[0]), parse(runs[1]), runs[2] != "0"}
		if o.law == nil {
			// All of a run are answered from the state after it.
			for range max(1, parse(runs[2])) {
				o.wants[q] = append(o.wants[q],
					expectation{twin.Absolute(q.capacity, o.Now(), q.n, q.record), false})
			}
			continue
		}
		for range max(1, parse(runs[2])) {
			thrown := 0.0
			if q.record {
				thrown = (float64(int(dice[0])<<16+int(dice[1])<<8+int(dice[2])) + .5) / (1 << 24)
				dice = dice[3:]
			}
			v := twin.Suppressed(o.law(q.capacity), o.Now(), q.n, thrown, q.record)
			o.wants[q] = append(o.wants[q], expectation{v, !q.record && v.Factor < 1})
			if !v.Allowed {
				later = append(later, denied{q, len(o.wants[q]) - 1})
			}
		}
	}
	// The waiting times are those from the state after the batch.
	for _, d := range later {
		v := twin.Suppressed(o.law(d.capacity), o.Now(), d.n, 0, false)
		o.wants[d.question][d.at].Wait = v.Wait
		o.wants[d.question][d.at].Then = v.Then
	}
	return dice
}

func parse(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// redisAgreement asks one server and the naive twin of each key the same.
type redisAgreement struct {
	*testing.T
	in         model.Tape
	o          trypema.Options
	suppressed bool
	oracle     *oracle
	limiter    trypema.Limiter
	prefix     string
	events     map[string][]event // by key: what may be settled
}

// event is what was admitted at an instant, and where it was recorded.
type event struct {
	from, at int64
	n        uint64
}

func newAgreement(
	t *testing.T, client redis.UniversalClient, options trypema.Options, suppressed bool,
) *redisAgreement {
	o := rig.Patient(t, options)
	o.Prefix = rig.Unique("twin")
	oracle := newOracle(t, client, options, suppressed, map[string]*model.Twin{})
	return &redisAgreement{T: t, o: options, suppressed: suppressed, oracle: oracle, limiter: rig.Strategy(rig.Open(t, oracle, o), suppressed), prefix: o.Prefix, events: map[string][]event{}}
}

func (a *redisAgreement) name(key string) string {
	return rig.Kind{Suppressed: a.suppressed}.RedisKey(a.prefix, key, a.o.Window)
}

// agreeWithRedis is a random run.
func agreeWithRedis(t *testing.T, client redis.UniversalClient, data []byte) {
	in := model.Tape{Data: data}
	var o trypema.Options
	o.Window = model.Pick(&in, 2*time.Second, 10*time.Second, time.Hour)
	o.Bucket = max(time.Millisecond,
		model.Pick(&in, time.Millisecond, o.Window/1000, o.Window/100, o.Window/7, o.Window))
	o.HardLimitFactor = model.Pick(&in, 1.5, 1, 1.1, 4)
	a := newAgreement(t, client, o, model.Pick(&in, false, true))
	for a.in = in; len(a.in.Data) > 0 && !t.Failed(); {
		a.step()
	}
}

func (a *redisAgreement) step() {
	in, o := &a.in, a.oracle
	w, b := o.span.Window, o.span.Bucket
	switch c := int64(in.Next()); {
	case c < 100: // at once
	case c < 190:
		o.Advance(c * b / 240)
	case c < 230:
		o.Advance(model.Pick(in, b-1, b, b+1, w-b, w-1, w, o.span.Recent()))
	default:
		o.Advance((c - 200) * w / 40)
	}
	key := model.Pick(in, "k", "k", "k", "another")
	capacity := model.Pick[uint64](in, 1, 5, 20, 20, 20, 100, 1e6, 1<<50)
	if a.suppressed {
		capacity = min(capacity, 1e6) // the twin counts declined calls further than Redis
	}
	cost := func() uint64 { return model.Pick(in, 1, 1, 1, 2, 3, 7, capacity, capacity+1, 1<<40) }
	rate := trypema.Per(float64(capacity), a.o.Window)
	capacity, _ = rate.Capacity(a.o.Window)
	switch op := in.Next(); {
	case op < 60:
		a.calls([]string{key}, rate, capacity, []uint64{cost()}, op%4 > 0)
	case op < 120: // many calls at once
		var costs []uint64
		for range 2 + op%40 {
			costs = append(costs, cost())
		}
		keys := []string{key}
		if op%3 == 0 { // for several keys
			keys = []string{"k", "another", "third"}
		}
		a.calls(keys, rate, capacity, costs, op%7 > 0)
	case op < 200: // a long run of groups
		for range 1 + op%16 {
			a.calls([]string{key}, rate, capacity, []uint64{1}, true)
			o.Advance(b)
		}
	case op < 208:
		a.usage(key, rate, capacity)
	case op < 232:
		a.commit(key, cost())
	case op < 248:
		a.set(key, cost())
	default:
		if err := a.limiter.Delete(a.Context(), key); err != nil {
			a.Fatal(err)
		}
		o.twin(a.name(key)).Delete()
		delete(a.events, key)
	}
}

// commit settles a call at another cost, or places one in the past, as a reservation does that has an expiry.
func (a *redisAgreement) commit(key string, is uint64) {
	o, in := a.oracle, &a.in
	w, b := o.span.Window, o.span.Bucket
	e := event{at: o.Now()}
	if events := a.events[key]; len(events) > 0 && in.Next() < 128 {
		i := max(0, len(events)-1-int(in.Next()%8))
		e = events[i]
		a.events[key] = slices.Delete(events, i, i+1)
		is = model.Pick(in, 0, 0, is, e.n)
	} else {
		is = model.Pick(in, is, 1, 3)
		e.from = o.span.Backdate(o.Now(), model.Pick(in, 1, b, w/100, w/8, w/2, w-b, w-1)+int64(in.Next()))
		e.at = e.from
	}
	if is > 1e6 {
		is = 5 // the twin counts further than Redis
	}
	letter := map[bool]string{false: "a", true: "s"}[a.suppressed]
	removed, added := commit(a.T, redisproto.NewServer(a.oracle), o.span, a.name(key), letter, e.from, e.at,
		e.n, is)
	if r, more := o.twin(a.name(key)).Commit(o.Now(), e.from, e.at, e.n, is); removed != r || added != more {
		a.Errorf("%+v to %d at %d: -%d+%d, want -%d+%d", e, is, o.Now(), removed, added, r, more)
	}
	if is > 0 {
		a.events[key] = append(a.events[key], event{e.at, max(e.at, o.Now()-int64(in.Next())*b/64), is})
	}
}

// commit runs commit.lua.
func commit(
	t *testing.T, s *redisproto.Server, span window.Span, key, kind string, from, at int64, was, is uint64,
) (removed, added uint64) {
	t.Helper()
	args := append(redisproto.SpanArgs(span), kind, strconv.FormatUint(was, 10), strconv.FormatUint(is, 10))
	args = append(append(args, redisproto.SpanArgs(span)...), strconv.FormatInt(from, 10),
		strconv.FormatInt(at, 10))
	pick := func(all *redisproto.Scripts) redisproto.Script { return all.Commit }
	reply := runScript(t, s, pick, []string{key}, args)
	r := redisproto.NewReader(reply)
	removed, added = r.Count(1<<53), r.Count(1<<53)
	if r.Done() != nil {
		t.Fatal(reply)
	}
	return removed, added
}

// runScript runs a script once, and returns its reply.
func runScript(
	t *testing.T, s *redisproto.Server, pick func(*redisproto.Scripts) redisproto.Script, keys, args []string,
) (reply []any) {
	t.Helper()
	redisproto.Run(context.Background(), s, pick, []int{0},
		func(items []int, _ bool) [][]int { return [][]int{items} },
		func([]int) ([]string, []string) { return keys, args },
		func(_ []int, got []any, err error, _ bool) (again, mend []int) {
			if err != nil {
				t.Fatal(err)
			}
			reply = got
			return nil, nil
		}, func(int) redisproto.Windows { return redisproto.Windows{} })
	return reply
}

// calls makes calls at one instant, and looks whether they were told what the twin was, in some order.
func (a *redisAgreement) calls(keys []string, rate trypema.Rate, capacity uint64, costs []uint64, record bool) {
	a.oracle.wants = map[question][]expectation{}
	got := make([]trypema.Decision, len(costs))
	var wg sync.WaitGroup
	for i, n := range costs {
		wg.Go(func() {
			verb := a.limiter.Peek
			if record {
				verb = a.limiter.AllowN
			}
			var err error
			if got[i], err = verb(a.Context(), keys[i%len(keys)], rate, n); err != nil {
				a.Error(err)
			}
		})
	}
	wg.Wait()
	for i, n := range costs {
		q := question{a.name(keys[i%len(keys)]), capacity, n, record}
		if !a.take(q, got[i]) {
			a.Errorf("%+v, suppressed %v, at %d: of %d calls one of %+v was told\n %+v\nbut the twin expects one of\n %+v",
				a.o, a.suppressed, a.oracle.Now(), len(costs), q, got[i], a.oracle.wants[q])
			return
		}
		if got[i].Allowed && record && n > 0 {
			key := keys[i%len(keys)]
			a.events[key] = append(a.events[key], event{a.oracle.Now(), a.oracle.Now(), n})
		}
	}
}

// take finds the expectation that a decision meets.
func (a *redisAgreement) take(q question, got trypema.Decision) bool {
	for i, e := range a.oracle.wants[q] {
		want := trypema.Decision{
			Allowed: e.Allowed, Limit: q.capacity, Remaining: q.capacity - min(e.Now, q.capacity),
			RetryAfter: trypema.Never, SuppressionFactor: e.Factor,
		}
		if e.chance && got.Allowed {
			want.Allowed, e.Wait, e.Then = true, 0, e.Now
		}
		if e.Wait != window.Never {
			want.RetryAfter = time.Duration(e.Wait) * time.Microsecond
			want.RemainingAfterWaiting = q.capacity - min(e.Then, q.capacity)
		}
		switch {
		case want.Allowed:
			want.Outcome = trypema.OutcomeAllowed
		case a.suppressed:
			want.Outcome = trypema.OutcomeSuppressed
		}
		if got == want {
			if q.record { // equal questions that record nothing travel as one
				a.oracle.wants[q] = append(a.oracle.wants[q][:i], a.oracle.wants[q][i+1:]...)
			}
			return true
		}
	}
	return false
}

func (a *redisAgreement) usage(key string, rate trypema.Rate, capacity uint64) {
	a.oracle.wants = map[question][]expectation{}
	got, err := a.limiter.Usage(a.Context(), key, rate)
	if err != nil {
		a.Fatal(err)
	}
	c := a.oracle.twin(a.name(key)).Counts(a.oracle.Now())
	want := trypema.Usage{
		Total: c.Observed(), Declined: c.Declined, Limit: capacity, Remaining: capacity - min(capacity, c.Admitted),
		SuppressionFactor: a.oracle.wants[question{a.name(key), capacity, 1, false}][0].Factor,
	}
	if got != want {
		a.Errorf("usage %+v, want %+v", got, want)
	}
}

func (a *redisAgreement) set(key string, total uint64) {
	in, o := &a.in, a.oracle
	keep := model.Pick(in, trypema.Replace, trypema.KeepNewest, trypema.KeepOldest)
	when := model.Pick(in, trypema.Always(), trypema.Always(), trypema.Less(total), trypema.Greater(total),
		trypema.NotEqual(total))
	if in.Next() < 20 {
		total = 0
	}
	got, err := a.limiter.Set(a.Context(), key, when, total, keep)
	if err != nil {
		a.Fatal(err)
	}
	twin := o.twin(a.name(key))
	have := twin.Counts(o.Now()).Observed()
	want := trypema.SetResult{Matched: when.Holds(have), Previous: have, Current: have}
	if want.Matched {
		want.Current = total
		delete(a.events, key)
		switch {
		case total == 0:
			twin.Delete()
		case keep == trypema.Replace || have == 0:
			twin.Replace(o.Now(), total)
		case keep == trypema.KeepNewest:
			twin.Resize(o.Now(), total, window.Newest)
		default:
			twin.Resize(o.Now(), total, window.Oldest)
		}
	}
	if got != want {
		a.Errorf("Set(%v, %d, %v): %+v, want %+v", when, total, keep, got, want)
	}
}

// Random operations have the same answers from Redis and from the naive twin: with the Lua of a real server,
// and with that of miniredis, which lacks the library struct.
func TestTwin(t *testing.T) {
	t.Parallel()
	for _, server := range []struct {
		name         string
		addr         func() string
		runs, length int
	}{
		{"redis", redisserver.Start(t).Addr, explore.Runs(3, 600), 1500},
		{"miniredis", miniredis.RunT(t).Addr, explore.Runs(1, 50), explore.Length(400, 1000)},
	} {
		t.Run(server.name, func(t *testing.T) {
			client := rig.GoRedis(t, []string{server.addr()})
			first := explore.Seed(t)
			for seed := first; seed != first+uint64(server.runs) && !t.Failed(); seed++ {
				agreeWithRedis(t, client, model.Noise(seed, server.length))
				if t.Failed() {
					t.Logf("TRYPEMA_SEED=%d", seed)
				}
			}
		})
	}
}

// Running counts of a window that never empties come to the end of what Lua can count, and begin again.
func TestCountsWithoutEnd(t *testing.T) {
	client := rig.GoRedis(t, []string{redisserver.Start(t).Addr()})
	for _, suppressed := range []bool{false, true} {
		options := trypema.Options{Window: 10 * time.Second}
		a := newAgreement(t, client, options, suppressed)
		const large = 1 << 50
		capacity := uint64(large + 100)
		if suppressed {
			capacity = 100 // so that what is large is declined
		}
		rate := trypema.Per(float64(capacity), options.Window)
		capacity, _ = rate.Capacity(options.Window)
		for range 60 {
			a.calls([]string{"k"}, rate, capacity, []uint64{large}, true)
			a.oracle.Advance(options.Window.Microseconds() / 20)
			a.calls([]string{"k"}, rate, capacity, []uint64{2}, true)
			a.usage("k", rate, capacity)
			a.oracle.Advance(options.Window.Microseconds() * 9 / 20)
			a.calls([]string{"k"}, rate, capacity, []uint64{3}, true)
			a.usage("k", rate, capacity)
			a.oracle.Advance(options.Window.Microseconds() / 2)
		}
	}
}
