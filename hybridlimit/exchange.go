package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

// message is one message to Redis. Its invariant: it ends once, by its answer or because it is lost. Whoever
// ends it holds the lock of the key's shard.
type message struct {
	k      *account
	server *breaker.Breaker
	seq    uint64
	text   string
	whole  bool // the answer contains all groups of the window
	ended  bool
}

// end ends the message, unless that has happened already. It reports whether it did. The shard must be
// locked.
func (m *message) end() bool {
	if m.ended || !m.k.UnderWay() || m.k.Seq() != m.seq {
		return false
	}
	m.ended = true
	return true
}

// message makes the next message of a key. Its shard must be locked, and no message of it be under way.
func (l *limiter) message(k *account, now int64, giveBack bool) *message {
	server := l.breakers.Of(k.name)
	k.server.Store(server)
	want := lease.More
	switch {
	case giveBack:
		want = lease.Nothing
	case l.takesNothing(k):
		want = lease.Same
	}
	need := uint64(0)
	for _, w := range k.waiting {
		w.asked = true
		if w.Mode != lease.Peek { // Peek takes nothing
			need = min(need+w.Cost, w.Capacity)
		}
	}
	m := k.Message(l.moment(nil, now), need, want)
	return &message{k: k, server: server, seq: m.Seq, text: redisproto.Message(m), whole: m.Whole}
}

// exchange is some messages that go to Redis together, and what came of them. Its invariant: when exchange
// returns, each message has ended, by its answer or as lost, although the client may still be at it.
type exchange struct {
	*limiter
	messages []*message
	began    int64

	mu       sync.Mutex // guards what follows; it may be locked under no other lock
	wrong    error      // the last fault of Redis or of a key
	answered int64      // when the last answer came that was good and in time; 0 for none
	servers  []*outcome // a few
}

// outcome is what came of an exchange with one server.
type outcome struct {
	server *breaker.Breaker
	good   bool  // it answered in time
	wrong  error // the last fault
}

// exchange sends messages. It returns when each of them is answered or lost, with the last fault of Redis or
// of a key. The client may overstay the timeout if it cannot be interrupted; then its answers are not heard.
func (l *limiter) exchange(caller context.Context, messages []*message) error {
	if len(messages) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(caller, l.options.Timeout)
	defer cancel()
	x := &exchange{limiter: l, messages: messages, began: l.now()}
	for _, m := range messages {
		x.outcome(m)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.send(ctx)
	}()
	overdue := time.NewTimer(l.options.Timeout + l.options.Timeout/4)
	defer overdue.Stop()
	select {
	case <-done:
	case <-overdue.C:
		x.abandon(l.noAnswer())
	case <-caller.Done():
		if err := ended(caller); errors.Is(err, redislimit.ErrUnavailable) {
			x.abandon(l.noAnswer())
		} else {
			x.abandon(err)
		}
	}
	return x.conclude(caller)
}

// outcome returns the outcome of a message's server. The exchange must be locked, or not yet be sent.
func (x *exchange) outcome(m *message) *outcome {
	for _, o := range x.servers {
		if o.server == m.server {
			return o
		}
	}
	o := &outcome{server: m.server}
	x.servers = append(x.servers, o)
	return o
}

// send runs settle.lua for the messages, up to lease.MaxRun of them in one run if the keys are on one server.
// Keys that cannot be read are mended and asked again: see script.Run.
func (x *exchange) send(ctx context.Context) {
	common := append(x.spanArgs(), strconv.FormatInt(x.pace.Load().FarLife(&x.terms), 10))
	split := func(messages []*message, together bool) [][]*message {
		n := 1
		if together {
			n = lease.MaxRun
		}
		return slices.Collect(slices.Chunk(messages, n))
	}
	arguments := func(run []*message) (keys, args []string) {
		args = slices.Clone(common)
		for _, m := range run {
			keys = append(keys, m.k.name)
			args = append(args, m.text)
		}
		return keys, args
	}
	heard := func(run []*message, reply []any, err error, last bool) (again, mend []*message) {
		r := redisproto.NewReader(reply)
		for _, m := range run {
			err := x.answer(m, r, err, last)
			answered := errors.Is(err, redisproto.ErrAnswered)
			if redisproto.IsUnreadable(err) {
				if !last && !answered {
					again = append(again, m)
					continue
				}
				mend = append(mend, m)
			}
			if answered {
				err = nil
			}
			x.note(ctx, m, err)
		}
		return again, mend
	}
	settle := func(s *redisproto.Scripts) redisproto.Script { return s.Settle }
	windowOf := func(m *message) redisproto.Windows { return x.windowOf(m.k.name) }
	redisproto.Run(ctx, x.server, settle, x.messages, split, arguments, heard, windowOf)
}

// note notes how a message ended. An answer is good, also one that a key is at fault, if it is in time.
func (x *exchange) note(ctx context.Context, m *message, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.outcome(m)
	if err != nil {
		x.wrong, o.wrong = err, err
	}
	if ctx.Err() == nil && (err == nil || redisproto.IsKeyFault(err)) {
		x.answered, o.good = x.now(), true
	}
}

// abandon ends the messages that have no answer yet.
func (x *exchange) abandon(err error) {
	for _, m := range x.messages {
		if x.lost(m, err) {
			x.mu.Lock()
			x.wrong, x.outcome(m).wrong = err, err
			x.mu.Unlock()
		}
	}
}

// conclude tells the breakers and the schedule what came of the exchange. It returns the last fault.
func (x *exchange) conclude(caller context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	// A caller who gave up early says nothing about Redis.
	timely := caller.Err() == nil || x.now()-x.began >= int64(x.options.Timeout)
	for _, o := range x.servers {
		switch {
		case o.good:
			o.server.Success()
		case timely:
			o.server.Failure(cmp.Or(o.wrong, x.noAnswer())) // or the answer came too late
		}
	}
	switch {
	case x.answered > 0:
		// Servers that did not answer say nothing about those that did.
		s := &x.settler
		s.mu.Lock()
		s.schedule.Answered(x.answered-x.began, len(x.messages))
		x.pace.Store(s.schedule.Pace())
		s.mu.Unlock()
		x.failing.Store(0)
	case timely:
		s := &x.settler
		s.mu.Lock()
		s.schedule.Lost(len(x.messages))
		s.mu.Unlock()
		x.failing.CompareAndSwap(0, x.began)
	}
	return x.wrong
}

func (l *limiter) noAnswer() error { return fmt.Errorf("no answer within %v", l.options.Timeout) }

// answer ends a message with what Redis replied. It returns the fault of Redis or of the key. A message whose
// key cannot be read does not end by that, except the last time.
func (l *limiter) answer(m *message, r *redisproto.Reader, err error, last bool) error {
	var a lease.Answer
	if err == nil {
		if fault, ok := r.Fault(); ok {
			err = errors.New(fault)
		} else {
			a, err = redisproto.ReadAnswer(r, m.whole)
		}
	}
	switch {
	case errors.Is(err, redisproto.ErrAnswered):
		l.hear(m, a)
		return err
	case redisproto.IsUnreadable(err) && !last:
		return err
	case err != nil:
		l.lost(m, err)
		return err
	}
	l.hear(m, a)
	return nil
}

// hear has the account of a message take the answer, serves the calls that wait, and schedules the key.
func (l *limiter) hear(m *message, a lease.Answer) {
	k := m.k
	sh := l.lock(k)
	now := l.now()
	if !m.end() {
		sh.Unlock()
		return
	}
	groups := k.groups(sh)
	at := l.moment(groups, now)
	k.Hear(at, a)
	endedBefore := a.Grant > 0 && !k.Fresh(now)
	l.countLease(k, int64(k.Leased()))
	k.fault = nil
	more, due := l.serve(k, at), now
	if !k.removed {
		due = k.Due(at)
	}
	k.release(groups)
	k.wake()
	took := now - k.SentAt()
	sh.Unlock()
	if endedBefore {
		l.slowed(took)
	}
	l.schedule(k, due)
	if more {
		l.urge(k)
	}
}

// lost ends a message without an answer. It reports whether it had none so far.
func (l *limiter) lost(m *message, err error) bool {
	k := m.k
	sh := l.lock(k)
	if !m.end() {
		sh.Unlock()
		return false
	}
	k.Lost()
	again := l.terms.Interval
	if redisproto.IsKeyFault(err) {
		k.fault = fmt.Errorf("hybridlimit: the Redis key %q: %w", k.name, err)
		again = int64(l.options.RetryInterval)
	}
	k.fail(k.fault)
	k.wake()
	sh.Unlock()
	l.schedule(k, l.now()+again)
	return true
}
