package sim

import (
	"errors"

	"github.com/trypema/trypema/internal/lease"
)

// This file drives a lease.Schedule in virtual time, as settler.go and exchange.go of hybridlimit do with a
// timer, goroutines and Redis. TestSameMessages holds the two equal, message by message.

// exchange is the messages that an instance sends at once, and their answers.
type exchange struct {
	from     *instance
	messages []message
	farLife  int64 // life in µs of leases far from the limit
	answers  []lease.Answer
	began    int64
	flight   bool // of urgent keys; otherwise of a tick
	ended    bool // it was answered, or the timeout is over
}

type message struct {
	k *account
	lease.Message
}

var errNoAnswer = errors.New("no answer")

// schedule has a key settle at an instant, or earlier if it is due earlier.
func (i *instance) schedule(k *account, at int64) {
	if !i.settling.Running() {
		i.after(i.settling.Start(i.now()), event{kind: tick})
	}
	i.settling.Settle(k, at)
}

// urge has a key settle at once, for calls that wait. An answer that ends a tick sets the pace first: in
// hybridlimit the flight is a goroutine of its own.
func (i *instance) urge(k *account) {
	switch {
	case !i.settling.Urge(k):
	case i.answering:
		i.flights++
	default:
		i.fly()
	}
}

// onTick is one firing of the timer: one exchange with the keys that are ready, or as many as fit.
func (i *instance) onTick() {
	i.settling.BeginTick(i.now())
	batch, _ := i.settling.Take(i.reach()) // with one server there are no probes
	x := &exchange{from: i, began: i.now()}
	if !i.settle(x, batch) {
		i.endTick(x)
	}
}

// endTick sets the timer again, if there is more to do.
func (i *instance) endTick(x *exchange) {
	rest, more := i.settling.EndTick(x.began, i.now(), i.lapsed)
	i.lapsed = 0
	if more {
		i.after(rest, event{kind: tick})
	}
}

// reach returns what says whether keys can settle now; nil if they can.
func (i *instance) reach() func(*account) lease.Reach {
	if probe, cause := i.redis.Down(); cause != nil && !probe {
		return func(*account) lease.Reach { return lease.Unreachable }
	}
	return nil
}

// fly makes an exchange with the keys that calls wait for, until there are none.
func (i *instance) fly() {
	for {
		batch := i.settling.TakeUrgent()
		if len(batch) == 0 || i.settle(&exchange{from: i, began: i.now(), flight: true}, batch) {
			return
		}
	}
}

// settle sends an exchange with keys, except those of which a message is under way. It reports false if there
// is nothing to send.
func (i *instance) settle(x *exchange, batch []*account) bool {
	for _, k := range batch {
		use := lease.Known
		if len(k.waiting) > 0 {
			use = lease.Wanted
		}
		switch step := k.Step(i.terms, i.now(), use, false); step {
		case lease.Wait:
		case lease.Rest:
			i.settling.Retire(k)
		case lease.Leave:
			i.schedule(k, k.Later())
		default:
			x.messages = append(x.messages, message{k, i.message(k, step == lease.GiveBack)})
		}
	}
	if len(x.messages) == 0 {
		return false
	}
	x.farLife = i.settling.Pace().FarLife(i.terms)
	i.world.send(x)
	return true
}

// message makes the next message of a key.
func (i *instance) message(k *account, giveBack bool) lease.Message {
	want := lease.More
	switch {
	case giveBack:
		want = lease.Nothing
	case i.takesNothing():
		want = lease.Same
	}
	for n := range k.waiting {
		k.waiting[n].asked = true
	}
	return k.Message(i.moment(), min(uint64(len(k.waiting)), i.world.capacity), want)
}

// answered takes the answers of an exchange.
func (i *instance) answered(x *exchange) {
	if x.ended {
		return
	}
	x.ended, i.answering = true, true
	for n, m := range x.messages {
		if m.k.UnderWay() && m.k.Seq() == m.Seq {
			i.hear(m.k, x.answers[n])
		}
	}
	i.redis.Success()
	i.settling.Answered(i.now()-x.began, len(x.messages))
	i.next(x)
	i.answering = false
	for ; i.flights > 0; i.flights-- {
		i.fly()
	}
}

// hear has an account take an answer, serves the calls that wait, and schedules the key.
func (i *instance) hear(k *account, a lease.Answer) {
	at := i.moment()
	k.Hear(at, a)
	endedBefore := a.Grant > 0 && !k.Fresh(at.Now)
	more := i.serve(k)
	due := k.Due(at)
	if endedBefore {
		i.settling.Slowed(at.Now - k.SentAt())
	}
	i.schedule(k, due)
	if more {
		i.urge(k)
	}
}

// lost ends an exchange that has no answer within the timeout.
func (i *instance) lost(x *exchange) {
	if x.ended {
		return
	}
	x.ended = true
	i.redis.Failure(errNoAnswer)
	i.settling.Lost(len(x.messages))
	for _, m := range x.messages {
		if k := m.k; k.UnderWay() && k.Seq() == m.Seq {
			k.Lost()
			i.schedule(k, i.now()+i.terms.Interval)
			i.fail(k)
		}
	}
	i.next(x)
}

// next does what the end of an exchange makes way for.
func (i *instance) next(x *exchange) {
	if x.flight {
		i.fly()
	} else {
		i.endTick(x)
	}
}
