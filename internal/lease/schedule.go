package lease

import "slices"

// Schedule decides which keys of one limiter settle, when, in which order and how many at a time. It has no
// clock, no lock and no goroutine. Whoever drives it passes the instant, sends the messages, and says what
// became of them: the Hybrid provider with a timer, goroutines and Redis, the simulator with virtual time.
//
// Its invariant: an active key is in one place. It is in the wheel, due at a tick; or it is ready for the
// next exchange; or neither, while a message of it is under way. In addition it may be urgent, because calls
// wait for it. A key that is not active is in none of these places, so nothing but its limiter's table refers
// to it.
//
// A tick is a multiple of Terms.Interval. At each tick one exchange takes what is ready, at most MaxBatch
// keys, and fewer if an exchange took longer than an interval or was lost: calls that wait must not wait for
// long behind it, and a server that is slow must answer it in time. Urgent keys do not wait for a tick: up to
// MaxFlights exchanges at a time take them in the order in which they became urgent.
//
// The driver guards a Schedule and the Turn of each of its keys with one lock. That may be taken while the
// lock of a key's Account is held, never the other way round.
type Schedule[K Key] struct {
	terms   *Terms
	active  map[K]struct{}
	tick    int64 // the last tick whose keys were made ready
	wheel   [wheelLen][]entry[K]
	ready   []K
	urgent  []K
	flights int // exchanges with urgent keys under way
	running bool

	batch int // keys of the next exchange at most

	pace        *Pace
	load        Load
	roundTrip   float64 // ns of an exchange on average; 0 before the first was measured
	tickBegan   int64   // when the last tick began
	exchanging  int64   // time in answered exchanges since then, all together
	exchanges   int     // number of those
	unreachable int     // ready keys that the last Take left because their server is unavailable
}

// Key is a key of a Schedule: anything that embeds a Turn.
type Key interface {
	comparable
	turn() *Turn
}

// Turn is what a Schedule notes in a key. The lock of the Schedule guards it.
type Turn struct {
	due    int64 // the tick at which the key becomes ready, or became so; 0 for none
	active bool
	ready  bool
	urgent bool
}

func (t *Turn) turn() *Turn { return t }

// Active reports whether the key is in a Schedule.
func (t *Turn) Active() bool { return t.active }

// entry is a key in the wheel. It is out of date if the key is due at another tick by now.
type entry[K Key] struct {
	k   K
	due int64
}

const (
	wheelLen = 1024 // ticks; a key that is due later goes round

	// MaxBatch is how many keys settle in one exchange: the server does that without a break for others.
	MaxBatch = 2048
	// maxUrgent is how many urgent keys settle in one exchange: calls wait for it.
	maxUrgent = MaxBatch / 4
	// MaxFlights is how many exchanges with urgent keys are under way at a time.
	MaxFlights = 4
	// MaxRun is how many keys one run of the script settles. The time of an exchange with more tells of its
	// own size, and not of the way to Redis.
	MaxRun = 64

	assumedMillis = 1 // round trip in ms, before one was measured
)

// Init empties s, and makes it ready for use. The terms must not change afterwards.
func (s *Schedule[K]) Init(t *Terms) {
	*s = Schedule[K]{terms: t, active: make(map[K]struct{}), batch: MaxBatch}
	s.setPace(t.Interval)
}

// Pace returns how fast keys settle. It changes with EndTick, Answered and Slowed.
func (s *Schedule[K]) Pace() *Pace { return s.pace }

func (s *Schedule[K]) setPace(interval int64) {
	s.pace = NewPace(s.terms, s.trip(), interval, len(s.active))
}

func (s *Schedule[K]) trip() int64 {
	if s.roundTrip == 0 {
		return assumedMillis * 1000 * s.terms.Micro
	}
	return int64(s.roundTrip)
}

// Running reports whether the timer runs: from Start until EndTick finds nothing active.
func (s *Schedule[K]) Running() bool { return s.running }

// Start begins to count ticks at now. It returns the time until the first.
func (s *Schedule[K]) Start(now int64) int64 {
	s.running = true
	s.tick = max(s.tick, now/s.terms.Interval)
	return s.terms.Interval
}

// Settle has a key settle at the first tick at or after an instant, unless it settles earlier in any case.
func (s *Schedule[K]) Settle(k K, at int64) {
	t := k.turn()
	s.activate(k, t)
	if t.ready {
		return
	}
	due := (at + s.terms.Interval - 1) / s.terms.Interval
	switch {
	case due <= s.tick:
		t.due, t.ready = s.tick, true
		s.ready = append(s.ready, k)
	case t.due == 0 || due < t.due:
		s.place(entry[K]{k, due})
	}
}

// Urge has a key settle at once, for calls that wait. It reports whether the driver must begin a flight:
// exchanges with what TakeUrgent returns, until it returns nothing.
func (s *Schedule[K]) Urge(k K) (begin bool) {
	t := k.turn()
	if t.urgent {
		return false
	}
	t.urgent = true
	s.urgent = append(s.urgent, k)
	s.activate(k, t)
	if s.flights == MaxFlights {
		return false
	}
	s.flights++
	return true
}

func (s *Schedule[K]) activate(k K, t *Turn) {
	if !t.active {
		t.active = true
		s.active[k] = struct{}{}
	}
}

func (s *Schedule[K]) place(e entry[K]) {
	e.k.turn().due = e.due
	slot := &s.wheel[min(e.due, s.tick+wheelLen-1)%wheelLen]
	*slot = append(*slot, e)
}

// BeginTick begins the tick at now: it makes ready what is due.
func (s *Schedule[K]) BeginTick(now int64) {
	upto := now / s.terms.Interval
	s.tick = max(s.tick, upto-wheelLen)
	for s.tick < upto {
		s.tick++
		slot := &s.wheel[s.tick%wheelLen]
		entries := *slot
		*slot = entries[:0]
		for _, e := range entries {
			switch t := e.k.turn(); {
			case t.due != e.due || t.ready:
			case e.due > upto:
				s.place(e)
			default:
				t.ready = true
				s.ready = append(s.ready, e.k)
			}
		}
		clear(entries[len(*slot):])
	}
}

// Reach says whether a key can settle now.
type Reach uint8

// A key is Reachable unless its server is unavailable. Then it is Unreachable, but for a Probe now and then,
// which finds out whether the server answers again.
const (
	Reachable Reach = iota
	Probe
	Unreachable
)

// Take takes the keys of the next exchange off the ready ones, the longest ready first. Keys that probe their
// server are apart: that may take long, and the others must not wait for it. A nil reach means that every key
// is Reachable.
func (s *Schedule[K]) Take(reach func(K) Reach) (batch, probes []K) {
	s.unreachable = 0
	if reach == nil {
		batch = take(&s.ready, s.batch)
	} else {
		batch, probes = s.pick(reach)
	}
	for _, k := range batch {
		k.turn().due, k.turn().ready = 0, false
	}
	for _, k := range probes {
		k.turn().due, k.turn().ready = 0, false
	}
	return batch, probes
}

func (s *Schedule[K]) pick(reach func(K) Reach) (batch, probes []K) {
	rest := s.ready[:0]
	for _, k := range s.ready {
		switch r := reach(k); {
		case r == Probe && len(probes) < s.batch:
			probes = append(probes, k)
		case r == Reachable && len(batch) < s.batch:
			batch = append(batch, k)
		default:
			if rest = append(rest, k); r == Unreachable {
				s.unreachable++
			}
		}
	}
	clear(s.ready[len(rest):])
	s.ready = rest
	return batch, probes
}

// TakeUrgent takes the keys of the next exchange of a flight. The flight has ended if there are none.
func (s *Schedule[K]) TakeUrgent() []K {
	batch := take(&s.urgent, min(maxUrgent, s.batch))
	for _, k := range batch {
		k.turn().urgent = false
	}
	if len(batch) == 0 {
		s.flights--
	}
	return batch
}

// take takes up to n keys off a queue.
func take[K any](queue *[]K, n int) []K {
	n = min(n, len(*queue))
	batch := slices.Clone((*queue)[:n])
	*queue = slices.Delete(*queue, 0, n)
	return batch
}

// Retire takes out a key that needs nothing any more, unless it was scheduled or urged meanwhile.
func (s *Schedule[K]) Retire(k K) {
	if t := k.turn(); !t.ready && t.due == 0 && !t.urgent {
		delete(s.active, k)
		t.active = false
	}
}

// Answered takes that an exchange with so many keys was answered after some time. The first round trip that
// is measured sets the pace at once: a call that was told when to come again must not be told of a later
// instant once the round trip is known better.
func (s *Schedule[K]) Answered(took int64, keys int) {
	s.exchanging += took
	s.exchanges++
	switch {
	case keys > MaxRun && took > s.terms.Interval+2*int64(s.roundTrip):
		s.shrink(keys)
	case keys >= s.batch:
		s.batch = min(2*s.batch, MaxBatch)
	}
	switch {
	case keys > MaxRun:
	case s.roundTrip > 0:
		s.roundTrip += (float64(took) - s.roundTrip) / 8
	default:
		s.roundTrip = max(float64(took), 1)
		s.setPace(s.terms.Interval)
	}
}

// Lost takes that an exchange with so many keys was not answered in time.
func (s *Schedule[K]) Lost(keys int) { s.shrink(keys) }

// shrink has exchanges be at most half as large as one with so many keys.
func (s *Schedule[K]) shrink(keys int) { s.batch = max(MaxRun, min(s.batch, keys/2)) }

// Slowed takes that an answer took so long that what it granted had ended already. Unless leases live longer,
// so does what the next answer grants.
func (s *Schedule[K]) Slowed(took int64) {
	if float64(took) > s.roundTrip {
		s.roundTrip = float64(took)
		s.setPace(s.pace.Interval)
	}
}

// EndTick ends at now the tick that began at an instant, in which so many leases have lapsed. It returns the
// time until the next, and false if there is none because no key is active.
func (s *Schedule[K]) EndTick(began, now int64, lapsed int) (rest int64, more bool) {
	interval := s.terms.Interval
	s.setPace(s.load.Tick(s.terms, Work{
		Apart:      began - s.tickBegan,
		Exchanging: s.exchanging,
		Exchanges:  s.exchanges,
		RoundTrip:  int64(s.roundTrip),
		Ready:      max(0, len(s.ready)-s.unreachable),
		Lapsed:     lapsed,
		Active:     len(s.active),
	}))
	s.tickBegan, s.exchanging, s.exchanges = began, 0, 0
	if len(s.active) == 0 {
		s.running = false
		return 0, false
	}
	return max(interval-began%interval-(now-began), interval/4), true
}

// Keys returns the active keys, in no order.
func (s *Schedule[K]) Keys() []K {
	keys := make([]K, 0, len(s.active))
	for k := range s.active {
		keys = append(keys, k)
	}
	return keys
}

// Active returns the number of active keys.
func (s *Schedule[K]) Active() int { return len(s.active) }

// Rests reports whether no key is active and no flight under way.
func (s *Schedule[K]) Rests() bool { return len(s.active) == 0 && s.flights == 0 }

// Lag returns for how long the key that is ready for the longest time has waited.
func (s *Schedule[K]) Lag(now int64) int64 {
	if len(s.ready) == 0 {
		return 0
	}
	return max(0, now-s.ready[0].turn().due*s.terms.Interval)
}

// Step is what an account does when it is the turn of its key.
type Step uint8

// The steps: Wait for the answer to a message that is under way, Rest as there is nothing to say, Settle,
// settle and give the lease back, or leave all as it is until an instant that Later returns.
const (
	Wait Step = iota
	Rest
	Settle
	GiveBack
	Leave
)

// Use is who needs an account.
type Use uint8

// An account is Wanted while calls wait for it. It is Removed once its limiter's table has dropped it.
const (
	Known Use = iota
	Wanted
	Removed
)

// Step returns what to do at now. An account cannot settle while Redis holds something else under its name.
func (a *Account) Step(t *Terms, now int64, use Use, cannotSettle bool) Step {
	idle := use == Removed || use == Known && a.Idle(t, now)
	switch {
	case a.UnderWay():
		return Wait
	case idle && (!a.Unsettled() && !a.Lent(now) || cannotSettle):
		return Rest
	case idle && use == Known && a.small() && now < a.chargedUntil:
		a.rests = true
		return Leave
	case idle && use == Known && a.small():
		a.unsettled.forget(0, now) // it has left the window
		return Rest
	case idle:
		return GiveBack
	}
	return Settle
}

// small reports whether the account has a window lease that is so small that it does not matter to others.
// To give it back is not worth a message.
func (a *Account) small() bool {
	u := &a.unsettled
	return a.kind == far && a.keeps && !a.exchange.lost && a.budget+u.charged <= a.capacity/smallPart &&
		u.allCharged() && !u.expires()
}

// Later returns when the lease of an account that Leave left has ended, and does not count any more.
func (a *Account) Later() int64 { return a.chargedUntil }
