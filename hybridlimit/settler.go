package hybridlimit

import (
	"context"
	"sync"
	"time"
	"weak"

	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/lease"
)

// settler drives the Schedule of a limiter: it has the timer, the goroutines and the lock. package lease
// decides which keys settle when; see lease.Schedule.
//
// The timer runs only while there are active keys. It refers to the limiter by a weak pointer, so a limiter
// that is dropped without Close is collected.
type settler struct {
	mu         sync.Mutex // guards what follows, and the Turn of each account
	schedule   lease.Schedule[*account]
	suspension suspension
	timer      *time.Timer
	closed     bool

	running sync.WaitGroup // ticks and flights
}

func (s *settler) init(l *limiter) {
	s.schedule.Init(&l.terms)
	s.suspension.init(l.now())
	l.pace.Store(s.schedule.Pace())
}

// schedule has a key settle at an instant, or earlier if it is due earlier.
func (l *limiter) schedule(k *account, at int64) {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if !s.schedule.Running() {
		l.resetLocked(s.schedule.Start(l.now()))
	}
	s.schedule.Settle(k, at)
}

// urge has a key settle at once, for callers who wait. It reports false if the limiter is closed.
func (l *limiter) urge(k *account) bool {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.schedule.Urge(k) {
		s.running.Add(1)
		go l.fly()
	}
	return true
}

// retire takes out keys that need nothing any more, unless calls came for them meanwhile.
func (l *limiter) retire(keys []*account) {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.schedule.Retire(k)
	}
}

// slowed has leases live longer, after an answer took so long that what it granted had ended already.
func (l *limiter) slowed(took int64) {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule.Slowed(took)
	l.pace.Store(s.schedule.Pace())
}

func (l *limiter) resetLocked(after int64) {
	s := &l.settler
	if s.timer != nil {
		s.timer.Reset(time.Duration(after))
		return
	}
	w := weak.Make(l)
	s.timer = time.AfterFunc(time.Duration(after), func() {
		if l := w.Value(); l != nil {
			l.onTick()
		}
	})
}

// onTick is one firing of the timer: one exchange with the keys that are ready, or as many as fit.
func (l *limiter) onTick() {
	s := &l.settler
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.running.Add(1)
	defer s.running.Done()
	began := l.now()
	suspended := s.suspension.ended(l.now, l.terms.Window)
	s.mu.Unlock()
	if suspended {
		l.endLeases(began)
	}
	s.mu.Lock()
	s.schedule.BeginTick(began)
	batch, probes := s.schedule.Take(l.reach())
	s.mu.Unlock()
	if len(probes) > 0 {
		s.running.Add(1)
		go func() {
			defer s.running.Done()
			_ = l.settle(probes)
		}()
	}
	_ = l.settle(batch) // the breaker has the error, and so has the next exchange

	s.mu.Lock()
	defer s.mu.Unlock()
	rest, more := s.schedule.EndTick(began, l.now(), int(l.lapsed.Swap(0)))
	l.pace.Store(s.schedule.Pace())
	if more && !s.closed {
		l.resetLocked(rest)
	}
}

// reach returns what says of each ready key whether its server can be asked now; nil if all can.
func (l *limiter) reach() func(*account) lease.Reach {
	switch {
	case !l.breakers.Gone():
		return nil
	case l.breakers.Single():
		if probe, cause := l.breakers.Of("").Down(); cause != nil && !probe {
			return func(*account) lease.Reach { return lease.Unreachable }
		}
		return nil
	}
	asked := make(map[*breaker.Breaker]bool) // whether an unavailable server is asked in this exchange
	return func(k *account) lease.Reach {
		b := k.server.Load()
		if !b.Gone() {
			return lease.Reachable
		}
		may, seen := asked[b]
		if !seen {
			probe, cause := b.Down()
			may = probe || cause == nil
			asked[b] = may
		}
		if !may {
			return lease.Unreachable
		}
		b = l.breakers.Of(k.name) // the key may have moved to another server
		k.server.Store(b)
		if b.Gone() {
			return lease.Probe
		}
		return lease.Reachable
	}
}

// fly makes exchanges with the keys that callers wait for, until there are none.
func (l *limiter) fly() {
	s := &l.settler
	defer s.running.Done()
	for {
		s.mu.Lock()
		batch := s.schedule.TakeUrgent()
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		_ = l.settle(batch) // the callers get the error
	}
}

// endLeases ends all leases, and has every key settle and ask for the whole window.
func (l *limiter) endLeases(now int64) {
	for _, k := range l.activeKeys() {
		sh := l.lock(k)
		k.EndLease(now)
		sh.Unlock()
		l.schedule(k, 0)
	}
}

func (l *limiter) activeKeys() []*account {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schedule.Keys()
}

// settle makes one exchange with keys, except those of which a message is under way. Keys that need nothing
// retire.
func (l *limiter) settle(batch []*account) error {
	messages := make([]*message, 0, len(batch))
	var resting []*account
	for _, k := range batch {
		sh := l.lock(k)
		now := l.now()
		switch step := k.Step(&l.terms, now, k.use(), k.fault != nil); step {
		case lease.Wait:
		case lease.Rest:
			l.countLease(k, 0)
			resting = append(resting, k)
		case lease.Leave:
			l.schedule(k, k.Later())
		default:
			messages = append(messages, l.message(k, now, step == lease.GiveBack))
		}
		sh.Unlock()
	}
	l.retire(resting)
	return l.exchange(context.Background(), messages)
}
