// Package table is a hash table from strings to small states, for many goroutines and many keys.
//
// It is made of shards, each with a lock of its own. Package entries has what finds keys in a shard. Neither
// index nor entries hold a pointer: the garbage collector does not look at keys that sit still. The hash is
// seeded, so an attacker cannot choose keys that collide.
//
// Beside its state a key has a window in its entry, which callers use without the lock of the shard while the
// state lends it to them: see own.
//
// Three things shrink it. A key that is added looks at others and removes them if they are idle, so a flood
// of new keys pays for its own removal. A timer, armed only while there are keys, visits one shard at a time.
// And with a bound on the number of keys, the one that was used the longest ago makes room for a new one.
package table

import (
	"cmp"
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/table/entries"
	"github.com/trypema/trypema/internal/table/sweep"
	"github.com/trypema/trypema/internal/window"
)

// Kind tells a table about its states S and about the memory M that the states of one shard share, whose zero
// value is empty and ready. Neither may contain pointers to what only a state would keep alive.
type Kind[S, M any] struct {
	Last func(s *S) int64        // the instant of the last event of a state
	Free func(m *M, s *S)        // gives back what a state holds of the memory
	Move func(from, to *M, s *S) // takes what a state holds to other memory

	// Add enters events into a state that were added to its newest group while it was hot.
	Add func(s *S, last int64, n uint64)

	// Enter enters events into a state that callers have added to the window of its key. So many were added
	// since Lend. What has left the window since then is not in there.
	Enter func(m *M, s *S, w cells.Window, added window.Counts)

	Span     window.Span // of the window of the limit
	Kept     int64       // how long an event counts in the windows of the keys
	Declines bool        // events may be declined: see Suppress
}

// Table is the hash table. A state is reached through its shard, under the lock of the shard.
type Table[S, M any] struct {
	kind  Kind[S, M]
	idle  int64 // a key without an event for that long may go
	bound int64 // on the number of keys, 0 for none
	clock func() int64
	count atomic.Int64
	own   ownKind
	owns  bool // keys may have windows of their own

	seed   maphash.Seed
	shift  uint8
	shards []Shard[S, M]
	oldest []atomic.Int64 // by shard: when the key used the longest ago was used, or MaxInt64; nil without a bound

	sweep sweep.Sweep
}

// New returns an empty table, whose keys may go when their last event is idle old by the clock.
func New[S, M any](kind Kind[S, M], idle time.Duration, bound int, clock func() int64) *Table[S, M] {
	n, shift := entries.Shards()
	t := &Table[S, M]{
		kind:   kind,
		idle:   int64(idle),
		bound:  int64(bound),
		clock:  clock,
		seed:   maphash.MakeSeed(),
		shift:  shift,
		shards: make([]Shard[S, M], n),
	}
	t.own.window, t.own.kept, t.own.declines = kind.Span.Window, kind.Kept, kind.Declines
	if kind.Kept > 0 {
		t.own.grid, t.owns = cells.New(kind.Kept, kind.Span.Bucket)
	}
	if bound > 0 {
		t.oldest = make([]atomic.Int64, n)
	}
	for i := range t.shards {
		sh := &t.shards[i]
		sh.table, sh.hot = t, None
		if bound > 0 {
			sh.ordered, sh.oldest = true, &t.oldest[i]
		}
		sh.reset()
	}
	t.sweep.Init(n, idle)
	return t
}

// CompareShards says in which order the shards of two keys are locked by somebody who holds both.
func (t *Table[S, M]) CompareShards(a, b uint64) int { return cmp.Compare(a>>t.shift, b>>t.shift) }

// Hash returns the hash of a key, which the other methods want.
func (t *Table[S, M]) Hash(key string) uint64 { return maphash.String(t.seed, key) }

// Shard returns the shard of a key.
func (t *Table[S, M]) Shard(hash uint64) *Shard[S, M] { return &t.shards[hash>>t.shift] }

// Len returns the number of keys.
func (t *Table[S, M]) Len() int { return int(t.count.Load()) }

// Acquire locks the shard of a key and finds the key in it, or adds it with a zero state. At now it counts as
// used. With a bound on the keys, the one used the longest ago goes first.
func (t *Table[S, M]) Acquire(hash uint64, key string, now int64) (_ *Shard[S, M], entry Handle) {
	sh := t.Shard(hash)
	for {
		sh.Lock()
		if h := sh.Find(hash, key); h != None {
			sh.Use(h, now)
			return sh, h
		}
		if n := t.count.Add(1); t.bound == 0 || n <= t.bound {
			break
		}
		t.count.Add(-1)
		sh.Unlock()
		t.evict()
	}
	sh.Tidy(now)
	h := sh.add(hash, key)
	sh.Use(h, now)
	sweep.Arm(t)
	return sh, h
}

// Trim removes keys beyond the bound, which Enter has added. No shard may be locked by the caller.
func (t *Table[S, M]) Trim() {
	for t.bound > 0 && t.count.Load() > t.bound {
		t.evict()
	}
}

// evict removes the key that was used the longest ago.
func (t *Table[S, M]) evict() {
	first, when := -1, int64(math.MaxInt64)
	for i := range t.oldest {
		if at := t.oldest[i].Load(); at < when {
			first, when = i, at
		}
	}
	if first < 0 {
		return // every key is just being added or removed
	}
	sh := &t.shards[first]
	sh.Lock()
	defer sh.Unlock()
	sh.catchUp() // the hot key may not be the tail any more
	if h := sh.tail; h != None && sh.back(h).used == when {
		sh.Remove(h)
	}
}

// Close removes all keys, and waits for the end of the sweep. As Remove does, it tells the owner of each
// state by Free: somebody may still hold a pointer to one, whose memory is gone. O(keys).
func (t *Table[S, M]) Close() {
	t.sweep.Close()
	for i := range t.shards {
		sh := &t.shards[i]
		sh.Lock()
		for h := Handle(0); h < sh.end; h = h.Next() {
			if sh.entry(h).length != unusedEntry {
				t.kind.Free(&sh.Memory, sh.State(h))
			}
		}
		t.count.Add(-int64(sh.n))
		sh.reset()
		sh.Unlock()
	}
}
