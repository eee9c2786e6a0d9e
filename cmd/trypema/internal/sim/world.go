package sim

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// world is a number of instances that share limits by the ledgers of one Redis. Its time is virtual: it goes
// from one event to the next. Everything random in it follows from the seed.
type world struct {
	setup
	terms  lease.Terms
	server window.Span // in µs
	law    *window.Law // nil: Absolute

	now       int64 // ns
	events    events
	instances []*instance
	holders   uint64
	keys      []key
	meter     *meter

	local bool // without Redis, instances decide alone
	link  link

	// Calls come as they come, whatever becomes of them and of the network.
	calls, network, coins *rand.Rand
}

// key is one limit: its ledger, and the calls per ns for it at most.
type key struct {
	ledger lease.Ledger
	peak   float64
	load   float64 // as a multiple of the limit
}

func newWorld(s setup) *world {
	w := &world{
		setup: s,
		terms: lease.Terms{
			Span:       window.Span{Window: int64(s.options.Window), Bucket: int64(s.options.Bucket)},
			Micro:      int64(time.Microsecond),
			Interval:   int64(s.interval),
			Suppressed: s.suppressed,
		},
		server:  window.Span{Window: s.options.Window.Microseconds(), Bucket: s.options.Bucket.Microseconds()},
		local:   s.Policy == policyLocal,
		keys:    make([]key, s.Keys),
		calls:   rand.New(rand.NewPCG(uint64(s.Seed), 1)),
		network: rand.New(rand.NewPCG(uint64(s.Seed), 2)),
		coins:   rand.New(rand.NewPCG(uint64(s.Seed), 3)),
	}
	if s.suppressed {
		w.law = window.NewLaw(w.terms.Span, s.capacity, s.options.HardLimitFactor)
	}
	w.link = &lossy{s, w.network}
	w.meter = newMeter(w)
	for n := range s.Instances {
		w.instances = append(w.instances, w.newInstance(n, -w.network.Int64N(w.terms.Interval)-1))
	}
	for n := range w.keys {
		k := &w.keys[n]
		k.load = s.Load
		if n < s.hotKeys {
			k.load = s.HotLoad
		}
		k.peak = max(k.load, s.shape.base) * s.Rate / 1e9
		w.arrive(int32(n))
	}
	if s.DieAt > 0 {
		w.events.push(event{at: int64(s.DieAt), kind: death})
	}
	if s.PauseFor > 0 {
		w.events.push(event{at: int64(s.PauseAt), kind: pause})
	}
	return w
}

func (w *world) dice() float64 { return w.coins.Float64() }

// run lets time pass until the end, or until ctx ends.
func (w *world) run(ctx context.Context, progress func(part float64)) {
	end := int64(w.duration)
	for n := uint64(0); len(w.events.heap) > 0 && w.events.heap[0].at < end; n++ {
		if n%4096 == 0 {
			if ctx.Err() != nil {
				return
			}
			progress(float64(w.now) / float64(end))
		}
		e := w.events.pop()
		w.now = e.at
		w.happen(e)
	}
	w.now = end
}

func (w *world) happen(e event) {
	if i := e.instance; i != nil {
		switch {
		case i.dead:
			return
		case w.now < i.resumes:
			e.at = i.resumes
			w.events.push(e)
			return
		}
	}
	switch e.kind {
	case arrival:
		w.arrive(e.key)
		k := &w.keys[e.key]
		if w.calls.Float64()*k.peak < w.shape.at(w.now, k.load)*w.Rate/1e9 {
			w.call(w.pick(), e.key, w.now)
		}
	case delayed:
		w.call(e.instance, e.key, e.made)
	case tick:
		e.instance.onTick()
	case request:
		w.serve(e.exchange)
	case reply:
		e.instance.answered(e.exchange)
	case overdue:
		e.instance.lost(e.exchange)
	case deadline:
		if k := e.instance.accounts[e.key]; k != nil {
			e.instance.expire(k)
		}
	case pause:
		w.instances[0].resumes = w.now + int64(w.PauseFor)
	case death:
		w.instances[0].kill()
		w.instances[0] = w.newInstance(0, w.now-1)
	}
}

// arrive has the next call for a key come.
func (w *world) arrive(n int32) {
	if peak := w.keys[n].peak; peak > 0 {
		w.events.push(event{at: w.now + int64(min(w.calls.ExpFloat64()/peak, 1e18)), kind: arrival, key: n})
	}
}

// pick draws the instance that is called.
func (w *world) pick() *instance {
	n := len(w.instances)
	if w.skew < 0 || n == 1 {
		return w.instances[w.calls.IntN(n)]
	}
	first := 0
	if w.SkewMoves > 0 {
		first = int(w.now / int64(w.SkewMoves) % int64(n))
	}
	if w.calls.Float64() < w.skew {
		return w.instances[first]
	}
	return w.instances[(first+1+w.calls.IntN(n-1))%n]
}

// call is made to an instance, which hears of it when it does not pause.
func (w *world) call(i *instance, key int32, made int64) {
	if w.now < i.resumes {
		i.after(i.resumes-w.now, event{kind: delayed, key: key, made: made})
		return
	}
	w.meter.offered(w.now, i, key)
	i.decide(i.account(key), call{made: w.now})
}

// clock is virtual time for what reads a clock by itself.
func (w *world) clock() time.Time { return time.Unix(0, w.now) }

// send puts an exchange on its way.
func (w *world) send(x *exchange) {
	w.meter.count(w.now, func(t *total) { t.exchanges++ })
	x.from.after(int64(w.Timeout), event{kind: overdue, exchange: x})
	if !w.link.loses(x) {
		w.events.push(event{at: w.now + w.link.trip(x), kind: request, exchange: x})
	}
}

// serve is what Redis does with an exchange.
func (w *world) serve(x *exchange) {
	if at := time.Duration(w.now); at >= w.OutageAt && at < w.OutageAt+w.OutageFor {
		return
	}
	w.meter.count(w.now, func(t *total) { t.settlements += uint64(len(x.messages)) })
	for _, m := range x.messages {
		x.answers = append(x.answers,
			w.keys[m.k.key].ledger.Settle(w.server, w.now/w.terms.Micro, x.farLife, m.Message))
	}
	if !w.link.loses(x) {
		x.from.after(w.link.trip(x), event{kind: reply, exchange: x})
	}
}

// link is the network between instances and Redis. It is asked about each exchange on its way there, and
// again on its way back.
type link interface {
	loses(x *exchange) bool
	trip(x *exchange) int64 // ns
}

// lossy is a network that loses and delays by chance.
type lossy struct {
	setup
	rng *rand.Rand
}

func (l *lossy) loses(*exchange) bool { return l.rng.Float64() < l.Loss }

func (l *lossy) trip(*exchange) int64 {
	return int64(l.Delay) + int64(l.rng.ExpFloat64()*float64(l.Jitter))
}
