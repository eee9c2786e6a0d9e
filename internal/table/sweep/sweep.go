// Package sweep is the timer that visits the shards of a table, one at a time, to remove idle keys.
package sweep

import (
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// Sweep is armed when the first key comes, and rests when the last one has gone. It knows its owner by a weak
// pointer: one that is dropped without Close is collected, and the timer, firing once more, finds nothing and
// ends.
type Sweep struct {
	armed atomic.Bool // the timer runs, or somebody is about to start it

	mu      sync.Mutex // held while the timer's function runs
	timer   *time.Timer
	Tick    time.Duration
	shards  int
	pending bool // the timer will fire, or its function is about to run
	next    int  // shard to visit
	closed  bool
	ended   chan struct{} // closed by a function that finds itself closed
}

// Owner is a table with a Sweep.
type Owner interface {
	Sweeper() *Sweep
	Visit(shard int) // removes the idle keys of a shard
	Empty() bool     // reports whether there are no keys
}

const (
	minTick = 10 * time.Millisecond
	maxTick = time.Minute

	// A shorter round would take more time than it saves memory, and a key that is called again would have
	// been removed for nothing. Keys that are added make room all the same: each looks at two others.
	minRound = 10 * time.Second
)

// Init prepares the sweep of a table with so many shards, which visits each of them once in a round.
func (s *Sweep) Init(shards int, round time.Duration) {
	s.shards = shards
	s.Tick = min(max(max(round, minRound)/time.Duration(shards), minTick), maxTick)
	s.ended = make(chan struct{})
}

// Arm starts the timer of a table if it is not running. Cheap when it is. The caller may hold locks that a
// visit takes: a visit happens only while the timer is armed, and then Arm waits for nothing.
func Arm[T any, P interface {
	*T
	Owner
}](t P) {
	s := t.Sweeper()
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
		s.timer.Reset(s.Tick)
		return
	}
	w := weak.Make((*T)(t))
	s.timer = time.AfterFunc(s.Tick, func() {
		if t := P(w.Value()); t != nil {
			t.Sweeper().run(t)
		}
	})
}

// run is one firing of the timer.
func (s *Sweep) run(t Owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(s.ended)
		return
	}
	t.Visit(s.next)
	s.next = (s.next + 1) % s.shards
	if t.Empty() {
		s.armed.Store(false)
		// A key that came in between found the timer armed.
		if t.Empty() || !s.armed.CompareAndSwap(false, true) {
			s.pending = false
			return
		}
	}
	s.timer.Reset(s.Tick)
}

// Close stops the timer, and returns when its function has ended.
func (s *Sweep) Close() {
	s.mu.Lock()
	running := s.pending && !s.timer.Stop()
	s.closed, s.pending = true, false
	s.mu.Unlock()
	if running {
		<-s.ended
	}
}
