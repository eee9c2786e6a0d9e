package keys

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// The word in front of an entry is its lock, and says some things of the key that change only under the lock.
const (
	locked  = 1 << 31
	waiting = 1 << 30               // the first in the queue sleeps until the entry is unlocked
	opened  = 1 << 29               // the key is the hot one of its shard
	full    = 1 << 15               // there may be a Full of the key
	asked   = 1<<15 - 1             // calls under the lock in the newest cell, modulo 2¹⁵
	stamped = 1<<29 - 1<<stampShift // when they were worth it last, in milliseconds, modulo 2¹³

	stampShift = 16
)

// queue is where those wait, in a shard, who find an entry locked for longer than a moment: its owner was
// interrupted. The first in the queue sleeps until the owner is done, the others until they are first.
type queue struct {
	sync.Mutex
	wake chan struct{}
}

const (
	looks  = 30 // at a locked entry, before others may run
	yields = 4
)

// lock locks an entry, and returns its word from then on.
func (q *queue) lock(e *entry) uint32 {
	if w := atomic.LoadUint32(&e.Lock); w&locked == 0 && atomic.CompareAndSwapUint32(&e.Lock, w, w|locked) {
		return w
	}
	return q.lockSlowly(e)
}

//go:noinline
func (q *queue) lockSlowly(e *entry) uint32 {
	for range yields {
		for range looks {
			if w, ok := tryLock(e); ok {
				return w
			}
		}
		runtime.Gosched()
	}
	q.Lock()
	defer q.Unlock()
	for {
		w := atomic.LoadUint32(&e.Lock)
		switch {
		case w&locked == 0:
			if atomic.CompareAndSwapUint32(&e.Lock, w, w|locked) {
				return w &^ waiting
			}
		case w&waiting != 0 || atomic.CompareAndSwapUint32(&e.Lock, w, w|waiting):
			<-q.wake
		}
	}
}

// poll locks an entry for a caller that holds another one of the table. It must not stand in the queue: the
// first in there may wait for what it holds. Nor may it sleep: others may wait for that by a mutex, and then
// the time of a bubble of testing/synctest does not pass, so the sleep would not end.
func poll(e *entry) uint32 {
	for {
		if w, ok := tryLock(e); ok {
			return w
		}
		runtime.Gosched()
	}
}

func tryLock(e *entry) (w uint32, ok bool) {
	w = atomic.LoadUint32(&e.Lock)
	return w, w&locked == 0 && atomic.CompareAndSwapUint32(&e.Lock, w, w|locked)
}

// unlock unlocks an entry, and gives it a word.
func (q *queue) unlock(e *entry, word uint32) {
	if was := atomic.SwapUint32(&e.Lock, word); was&waiting != 0 {
		select {
		case q.wake <- struct{}{}:
		default: // somebody has been woken already
		}
	}
}
