package thirdparty

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/trypema/trypema"
)

// This file makes histories: what several goroutines asked of one limiter, what they were told, and when. It
// judges nothing; counter_test.go does.

// verb is one of the six verbs of a limiter, or of the two more that a trypema.Bound has, which has no
// Set.
type verb uint8

const (
	allow verb = iota
	allowN
	peek
	usage
	set
	remove
	reserve
	commit
)

// call is what one caller asked for.
type call struct {
	verb
	key      string
	capacity uint64 // of the window at the rate asked with
	n        uint64
	when     trypema.Condition
	total    uint64
	keep     trypema.History
	part     int   // of several limits, the one that is meant where each is read or changed by itself
	at       int64 // before the call: nanoseconds since the limiter was made, monotonic
}

// answer is what it was told. Only the field of its verb is set.
type answer struct {
	decision trypema.Decision
	usage    [maxLimits]trypema.Usage
	set      trypema.SetResult
	err      error
	at       int64 // after the call
}

func (c call) String() string {
	switch c.verb {
	case allow:
		return fmt.Sprintf("Allow(%q, limit %d)", c.key, c.capacity)
	case allowN:
		return fmt.Sprintf("AllowN(%q, limit %d, %d)", c.key, c.capacity, c.n)
	case peek:
		return fmt.Sprintf("Peek(%q, limit %d, %d)", c.key, c.capacity, c.n)
	case usage:
		return fmt.Sprintf("Usage(%q, limit %d)", c.key, c.capacity)
	case set:
		return fmt.Sprintf("Set(%q, %v, %d, %v)", c.key, c.when, c.total, c.keep)
	case reserve:
		return fmt.Sprintf("Reserve(%q, %d)", c.key, c.n)
	case commit:
		return fmt.Sprintf("Commit(%q, %d to %d) in window %d", c.key, c.n, c.total, c.part)
	default:
		return fmt.Sprintf("Delete(%q) in window %d", c.key, c.part)
	}
}

func (c call) describe(a answer) string {
	var got any = "done"
	switch {
	case a.err != nil:
		got = a.err
	case c.verb <= peek || c.verb == reserve:
		got = a.decision
	case c.verb == usage:
		got = a.usage[c.part]
	case c.verb == set:
		got = a.set
	}
	return fmt.Sprintf("%v: %+v", c, got)
}

// target is a limiter of either kind that callers ask.
type target interface {
	send(c call, rate trypema.Rate) answer
}

type single struct{ trypema.Limiter }

func (l single) send(c call, rate trypema.Rate) (a answer) {
	ctx := context.Background()
	switch c.verb {
	case allow:
		a.decision, a.err = l.Allow(ctx, c.key, rate)
	case allowN:
		a.decision, a.err = l.AllowN(ctx, c.key, rate, c.n)
	case peek:
		a.decision, a.err = l.Peek(ctx, c.key, rate, c.n)
	case usage:
		a.usage[0], a.err = l.Usage(ctx, c.key, rate)
	case set:
		a.set, a.err = l.Set(ctx, c.key, c.when, c.total, c.keep)
	case remove:
		a.err = l.Delete(ctx, c.key)
	}
	return a
}

// several is a trypema.Bound, and what one caller has reserved and not settled.
type several struct {
	boundLimits
	reserved *trypema.Reservation
}

func (l *several) send(c call, _ trypema.Rate) (a answer) {
	ctx := context.Background()
	switch c.verb {
	case allow:
		a.decision, a.err = l.Allow(ctx, c.key)
	case allowN:
		a.decision, a.err = l.AllowN(ctx, c.key, c.n)
	case peek:
		a.decision, a.err = l.Peek(ctx, c.key, c.n)
	case usage:
		var all []trypema.Usage
		all, a.err = l.Usage(ctx, c.key)
		copy(a.usage[:], all)
	case remove:
		a.err = l.Delete(ctx, c.key)
	case reserve:
		l.reserved, a.err = l.Reserve(ctx, c.key, c.n, 0)
		if a.err == nil {
			a.decision = l.reserved.Decision
		}
	case commit:
		if c.total == 0 {
			a.err = l.reserved.Refund(ctx)
		} else {
			a.err = l.reserved.Commit(ctx, c.total)
		}
	}
	return a
}

// traffic is the shape of a history.
type traffic struct {
	seed       uint64
	rules      rules
	reserves   bool // there are reservations; they go with nothing that makes other events of those that they settle
	bounded    bool // the limiter has a bound on its keys
	crowded    bool // other keys are hot: so those of the history are not, and are known to be full
	callers    int
	calls      int // by each caller
	keys       int
	others     int // one in that many calls is not Allow or AllowN: it takes a hot key back
	capacities []uint64
	costs      []uint64
}

// Some histories contest a limit; some stay below it, so that every admission tells by its Remaining which it
// was. A few costs are more than the limit, or more than a hot key can count.
var limits = []struct{ capacities, costs []uint64 }{
	{[]uint64{20}, []uint64{1}},
	{[]uint64{60, 200, 10}, []uint64{1, 1, 1, 1, 1, 1, 2, 3, 7, 201}},
	{[]uint64{1_000_000}, []uint64{1, 1, 2, 5}},
	{[]uint64{unlimited, 300}, []uint64{1, 1, 1, 1, 1, 1, 1, 1, 4, unlimited}},
	{[]uint64{10_000_000_000}, []uint64{1, 1, 1, 1, 1, 1, 1, 1, 1_500_000_000, 3_000_000_000}},
}

// unlimited is the capacity at the rate Unlimited.
const unlimited = 1<<63 - 1

func drawTraffic(seed uint64, r rules) traffic {
	rng := rand.New(rand.NewPCG(seed, 1<<63))
	t := traffic{
		seed:    seed,
		rules:   r,
		bounded: rng.IntN(4) == 0,
		callers: 8,
		calls:   60,
		keys:    pick(rng, 1, 1, 1, 3, 8),
		others:  pick(rng, 4, 20, 50, 200),
	}
	if t.keys > 3 {
		t.calls = 120 // or few of them would be asked for often enough to become hot
	}
	l := pick(rng, limits...)
	t.capacities, t.costs = l.capacities, l.costs
	if r.limits != nil { // what is read of each window by itself has many orders
		t.callers, t.calls = 4, t.calls/2
	}
	for i := range r.limits { // the rates belong to the limiter; mostly another limit than the first is the tightest
		t.rules.limits = slices.Clone(t.rules.limits)
		t.rules.limits[i].Rate = rate(pick(rng, t.capacities...)-uint64(rng.IntN(3)), r.limits[i].Window)
	}
	t.reserves = r.limits != nil && rng.IntN(2) == 0
	t.crowded = !t.bounded && rng.IntN(2) == 0
	return t
}

func (t traffic) String() string {
	return fmt.Sprintf("TRYPEMA_SEED=%d: %d callers, %d calls each, %d keys (bounded: %v, crowded: %v), one in %d not Allow, limits %v %v, costs %v",
		t.seed, t.callers, t.calls, t.keys, t.bounded, t.crowded, t.others, t.capacities, t.rules.limits, t.costs)
}

// rate is the rate at which a window holds a capacity.
func rate(capacity uint64, window time.Duration) trypema.Rate {
	if capacity >= unlimited-2 {
		return trypema.Unlimited
	}
	return trypema.Per(float64(capacity), window)
}

func pick[T any](rng *rand.Rand, values ...T) T { return values[rng.IntN(len(values))] }

// caller is one goroutine of a history.
type caller struct {
	rng     *rand.Rand
	calls   []call
	answers []answer
}

// run makes the calls. What can be drawn beforehand was, so that little time passes between them.
func (c *caller) run(l target, t traffic, start time.Time) {
	var seen uint64 // the total that it was told last
	for i := range c.calls {
		next := &c.calls[i]
		switch next.verb {
		case set:
			next.drawSet(c.rng, seen)
			next.total = min(next.total, t.rules.most)
		case commit: // of the reservation right before
			before := &c.calls[i-1]
			if *next = *before; !c.answers[i-1].decision.Allowed {
				next.verb = peek
				break
			}
			next.verb, next.total = commit, pick(c.rng, 0, 0, 1, before.n/2, before.n, before.n+3)
		}
		rate := rate(next.capacity, t.rules.window)
		next.at = int64(time.Since(start))
		got := l.send(*next, rate)
		got.at = int64(time.Since(start))
		c.answers[i] = got
		switch next.verb {
		case usage:
			seen = got.usage[0].Total
		case set:
			seen = got.set.Current
		}
		if c.rng.IntN(8) == 0 { // more callers than processors take turns
			runtime.Gosched()
		}
	}
}

// draw chooses a call.
func (t traffic) draw(rng *rand.Rand) call {
	c := call{
		verb:     allowN,
		key:      key(min(rng.IntN(t.keys), rng.IntN(t.keys))), // some more often than others
		capacity: pick(rng, t.capacities...),
		n:        pick(rng, t.costs...),
	}
	switch {
	case rng.IntN(t.others) == 0:
		c.verb = pick(rng, peek, usage, set, remove)
		switch {
		case t.reserves:
			c.verb = pick(rng, peek, usage)
		case t.rules.limits != nil && c.verb == set:
			c.verb = remove
		}
	case t.reserves && rng.IntN(4) == 0:
		c.verb = reserve
	case c.n == 1 && rng.IntN(2) == 0:
		c.verb = allow
	}
	if c.verb == peek {
		c.n = pick(rng, 0, c.n)
	}
	c.capacity = min(c.capacity, t.rules.most)
	return c
}

// drawSet chooses the arguments of a Set near what the caller saw last, so that each condition sometimes
// holds and sometimes does not.
func (c *call) drawSet(rng *rand.Rand, seen uint64) {
	near := seen - min(seen, 1) + uint64(rng.IntN(3))
	c.when = pick(rng, trypema.Always(), trypema.Equal(seen), trypema.Equal(0), trypema.NotEqual(near),
		trypema.Less(near), trypema.Greater(near))
	c.total = pick(rng, 0, 1, near, near/2, c.capacity/3, c.capacity-1)
	c.keep = pick(rng, trypema.Replace, trypema.KeepNewest, trypema.KeepOldest)
}

// key has names that fit into an entry of the table, and some that do not.
func key(i int) string {
	if i%3 == 2 {
		return fmt.Sprint(strings.Repeat("long", 8), i)
	}
	return fmt.Sprint(i)
}

// record lets the callers loose on a limiter, of which each has its own view.
func (t traffic) record(of func(caller int) target) []porcupine.Operation {
	callers, targets := make([]caller, t.callers), make([]target, t.callers)
	for i := range callers {
		rng := rand.New(rand.NewPCG(t.seed, uint64(i)))
		c := caller{rng, make([]call, t.calls), make([]answer, t.calls)}
		for j := range c.calls {
			c.calls[j] = t.draw(rng)
			if j > 0 && c.calls[j-1].verb == reserve {
				c.calls[j].verb = commit
			}
		}
		callers[i], targets[i] = c, of(i)
	}
	var (
		wg      sync.WaitGroup
		waiting atomic.Int64
		start   = time.Now()
	)
	waiting.Store(int64(t.callers))
	for i := range callers {
		wg.Go(func() {
			// Nobody begins before all are there: a history is so short that it would be over.
			for waiting.Add(-1); waiting.Load() > 0; {
				runtime.Gosched()
			}
			callers[i].run(targets[i], t, start)
		})
	}
	wg.Wait()
	history := make([]porcupine.Operation, 0, t.callers*t.calls)
	for i, c := range callers {
		for j, call := range c.calls {
			parts := 1
			switch call.verb {
			case usage, remove, commit: // each window by itself
				parts = max(1, len(t.rules.limits))
			}
			for call.part = range parts {
				history = append(history, porcupine.Operation{
					ClientId: call.part*t.callers + i, Input: call, Call: call.at, Output: c.answers[j], Return: c.answers[j].at,
				})
			}
		}
	}
	return history
}
