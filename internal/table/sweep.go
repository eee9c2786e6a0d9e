package table

import (
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// sweep is the timer that removes idle keys. It is armed when the first key comes, and rests when the last
// one has gone. Each run visits one shard, a few keys under one hold of its lock. It knows the table by a
// weak pointer: one that is dropped without Close is collected, and the timer, firing once more, finds
// nothing and ends.
type sweep struct {
	armed atomic.Bool // somebody has seen to it that the timer runs

	mu      sync.Mutex // held while the timer's function runs
	timer   *time.Timer
	tick    time.Duration
	pending bool // the timer will fire, or its function is about to run
	next    int  // shard to visit
	closed  bool
	ended   chan struct{} // closed by a function that finds itself closed
}

const (
	minTick   = 10 * time.Millisecond
	maxTick   = time.Minute
	sweepStep = 128 // entries under one hold of a lock
)

func (s *sweep) init(tick time.Duration) {
	s.tick = min(max(tick, minTick), maxTick)
	s.ended = make(chan struct{})
}

// arm starts the timer if it is not running. Cheap when it is. The caller may hold the lock of a shard: the
// sweep wants one only while it is armed, and then arm wants nothing.
func (t *Table[S, M]) arm() {
	s := &t.sweep
	if s.armed.Load() || !s.armed.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.pending = true
	if s.timer != nil {
		s.timer.Reset(s.tick)
		return
	}
	w := weak.Make(t)
	s.timer = time.AfterFunc(s.tick, func() {
		if t := w.Value(); t != nil {
			t.run()
		}
	})
}

// run is one firing of the timer.
func (t *Table[S, M]) run() {
	s := &t.sweep
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(s.ended)
		return
	}
	t.shards[s.next].sweep(t.clock())
	s.next = (s.next + 1) % len(t.shards)
	if t.count.Load() == 0 {
		s.armed.Store(false)
		// A key that came in between found the timer armed.
		if t.count.Load() == 0 || !s.armed.CompareAndSwap(false, true) {
			s.pending = false
			return
		}
	}
	s.timer.Reset(s.tick)
}

// close stops the timer, and returns when its function has ended.
func (s *sweep) close() {
	s.mu.Lock()
	running := s.pending && !s.timer.Stop()
	s.closed, s.pending = true, false
	s.mu.Unlock()
	if running {
		<-s.ended
	}
}

// sweep removes the idle keys of a shard.
func (sh *Shard[S, M]) sweep(now int64) {
	for h := Handle(0); ; {
		sh.Lock()
		for step := 0; step < sweepStep && int(h) < sh.size; step++ {
			sh.removeIfIdle(h, now)
			h++
		}
		done := int(h) >= sh.size
		if done {
			sh.compact()
		}
		sh.Unlock()
		if done {
			return
		}
	}
}
