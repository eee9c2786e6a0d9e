package sim

import (
	"github.com/trypema/trypema/internal/lease"
)

// maxFailures is how many exchanges in a row bring no answer until Redis is taken for gone.
const maxFailures = 3

// settler sees to it that the keys of an instance settle, as the one of hybridlimit does with a timer and goroutines: those
// that are due, in one exchange each interval, and those that calls wait for, at once.
type settler struct {
	tick    int64 // the last one that was looked at, in intervals
	wheel   map[int64][]entry
	ready   []*account
	urgent  []*account
	active  int
	armed   bool
	flights int

	rtt    float64
	pace   *lease.Pace
	load   lease.Load
	before int64 // when the last tick began
	spent  int64 // in exchanges since then
	made   int   // of those exchanges
	lapsed int   // calls since then that found a lease that had ended

	failures int
	gone     bool
	again    int64
	back     int64 // when Redis came back last; 0 if it was never gone
}

// entry is a key in the wheel; out of date if it is due at another tick by now.
type entry struct {
	k   *account
	due int64
}

// exchange is what an instance sends at once, and the answers.
type exchange struct {
	from    *instance
	items   []item
	far     int64 // life of leases far from the limit
	answers []lease.Answer
	began   int64
	size    int // of the batch that it came from
	flight  bool
	over    bool
}

type item struct {
	k   *account
	seq uint64
	ask lease.Ask
}

// schedule has a key settle at an instant, or earlier if it is due earlier.
func (i *instance) schedule(k *account, at int64) {
	s := &i.settler
	i.activate(k)
	if !s.armed {
		s.armed = true
		s.tick = max(s.tick, i.now()/i.terms.Interval)
		i.after(i.terms.Interval, event{kind: tick})
	}
	if k.ready {
		return
	}
	due := (at + i.terms.Interval - 1) / i.terms.Interval
	switch {
	case due <= s.tick:
		k.due, k.ready = 0, true
		s.ready = append(s.ready, k)
	case k.due == 0 || due < k.due:
		k.due = due
		s.wheel[due] = append(s.wheel[due], entry{k, due})
	}
}

func (i *instance) activate(k *account) {
	if !k.active {
		k.active = true
		i.settler.active++
	}
}

// advance makes ready what is due.
func (s *settler) advance(now int64) {
	for s.tick < now {
		s.tick++
		for _, e := range s.wheel[s.tick] {
			if e.k.due == e.due && !e.k.ready {
				e.k.due, e.k.ready = 0, true
				s.ready = append(s.ready, e.k)
			}
		}
		delete(s.wheel, s.tick)
	}
}

// onTick is one firing of the timer: one exchange with the keys that are ready, or as many as fit.
func (i *instance) onTick() {
	s := &i.settler
	began := i.now()
	s.advance(began / i.terms.Interval)
	var batch []*account
	if i.mayAsk() {
		batch = take(&s.ready, lease.MaxBatch)
	}
	for _, k := range batch {
		k.ready = false
	}
	x := &exchange{from: i, began: i.world.now, size: len(batch)}
	if !i.settle(x, batch) {
		i.ticked(x)
	}
}

// ticked is the end of what a firing of the timer began.
func (i *instance) ticked(x *exchange) {
	s := &i.settler
	began, took := x.began-i.started, i.world.now-x.began
	rest := max(i.terms.Interval-began%i.terms.Interval-took, i.terms.Interval/4)
	left := len(s.ready)
	if x.size == 0 { // they wait for Redis, and not because there is too much to do
		left = 0
	}
	interval := s.load.Tick(i.terms, began-s.before, s.spent, s.made, int64(s.rtt), left, s.lapsed, s.active)
	s.pace = lease.NewPace(i.terms, int64(s.rtt), interval, s.active)
	s.before, s.spent, s.made, s.lapsed = began, 0, 0, 0
	if s.active == 0 {
		s.armed = false
		return
	}
	i.after(rest, event{kind: tick})
}

// mayAsk reports whether Redis may be asked in the background: not while it is taken for gone, but once in a while.
func (i *instance) mayAsk() bool {
	s := &i.settler
	if !s.gone {
		return true
	}
	if i.now() < s.again {
		return false
	}
	s.again = i.now() + i.world.retry
	return true
}

func take(queue *[]*account, n int) []*account {
	n = min(n, len(*queue))
	batch := append([]*account(nil), (*queue)[:n]...)
	*queue = (*queue)[:copy(*queue, (*queue)[n:])]
	return batch
}

// urge has a key settle at once, for calls that wait.
func (i *instance) urge(k *account) {
	s := &i.settler
	if k.urged {
		return
	}
	k.urged = true
	s.urgent = append(s.urgent, k)
	i.activate(k)
	if s.flights < lease.MaxFlights {
		s.flights++
		i.fly()
	}
}

// fly makes an exchange with the keys that calls wait for, if there are any.
func (i *instance) fly() {
	s := &i.settler
	for len(s.urgent) > 0 {
		batch := take(&s.urgent, lease.MaxBatch/4)
		for _, k := range batch {
			k.urged = false
		}
		if i.settle(&exchange{from: i, began: i.world.now, size: len(batch), flight: true}, batch) {
			return
		}
	}
	s.flights--
}

// settle asks Redis about keys, unless a message of theirs is under way. It reports whether there is anything to ask.
func (i *instance) settle(x *exchange, batch []*account) bool {
	now := i.now()
	for _, k := range batch {
		idle := len(k.waiting) == 0 && k.Idle(i.terms, now)
		switch {
		case k.Asking():
		case idle && !k.Unsettled() && !k.Lent(now):
			if !k.ready && k.due == 0 {
				k.active = false
				i.settler.active--
			}
		default:
			m := i.message(k, now, idle)
			x.items = append(x.items, item{k, m.Seq, m})
		}
	}
	if len(x.items) == 0 {
		return false
	}
	x.far = i.settler.pace.FarLife(i.terms)
	i.world.send(x)
	return true
}

// message makes the next message of a key.
func (i *instance) message(k *account, now int64, giveBack bool) lease.Ask {
	want := lease.More
	switch {
	case giveBack:
		want = lease.Nothing
	case i.sharing():
		want = lease.Same
	}
	for n := range k.waiting {
		k.waiting[n].asked = true
	}
	return k.Ask(i.terms, i.settler.pace, now, min(uint64(len(k.waiting)), i.world.capacity), want)
}

// sharing reports whether instances that decide without Redis share a limit: while it is gone, and until the others must have
// noticed, too, that it is back.
func (i *instance) sharing() bool {
	s := &i.settler
	if !i.world.local || len(i.world.instances) == 1 {
		return false
	}
	return s.gone || s.back > 0 && i.now()-s.back < i.world.retry+2*s.pace.Slack
}

// heard takes the answers of an exchange.
func (i *instance) heard(x *exchange) {
	if x.over {
		return
	}
	x.over = true
	s := &i.settler
	took := i.world.now - x.began
	s.rtt += (float64(took) - s.rtt) / 8
	s.spent += took
	s.made++
	if s.gone {
		s.back = i.now()
	}
	s.failures, s.gone = 0, false
	for n, it := range x.items {
		k, now := it.k, i.now()
		if !k.Asking() || k.Seq() != it.seq {
			continue
		}
		k.Hear(&i.groups, i.terms, s.pace, now, x.answers[n])
		more := i.serve(k)
		i.schedule(k, k.Due(&i.groups, i.terms, s.pace, now))
		if more {
			i.urge(k)
		}
	}
	i.ended(x)
}

// missed notes that an exchange has no answer.
func (i *instance) missed(x *exchange) {
	if x.over {
		return
	}
	x.over = true
	s := &i.settler
	s.failures++
	if s.failures >= maxFailures && !s.gone {
		s.gone, s.again = true, i.now()+i.world.retry
	}
	for _, it := range x.items {
		k := it.k
		if !k.Asking() || k.Seq() != it.seq {
			continue
		}
		k.Lost()
		i.schedule(k, i.now()+i.terms.Interval)
		i.fail(k)
	}
	i.ended(x)
}

func (i *instance) ended(x *exchange) {
	if x.flight {
		i.fly()
	} else {
		i.ticked(x)
	}
}
