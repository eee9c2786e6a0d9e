// Package keys is the table of Local: from keys to windows, for many goroutines and many keys.
//
// A call for a known key takes one lock, that of the entry of the key, and writes to nothing else. An entry
// is two cache lines, which hold the text of the key and its window. Where the entry is says an index of
// 4-byte slots, which is read without a lock. Both lines are asked for before the clock is read, so that one
// wait covers both.
//
// Keys are added and removed under the lock of a shard. The index grows by being copied; callers go on with
// the old one meanwhile. An entry stays where it is, unless most of the entries of a shard are unused: then
// its keys move together. Neither index nor entries hold a pointer, so the garbage collector does not look at
// keys. The hash is seeded, so keys that collide cannot be chosen.
//
// Idle keys leave in small steps: each key that is added looks at two others, and a timer visits one shard at
// a time. With a bound on the number of keys, the one that was used the longest ago makes room for a new one.
//
// Locks are taken in this order: that of a shard, then those of entries, of one table at a time; then those
// of the memory that entries share.
package keys

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/prefetch"
	"github.com/trypema/trypema/internal/table/entries"
	"github.com/trypema/trypema/internal/table/sweep"
	"github.com/trypema/trypema/internal/window"
)

// Options say what a table is for.
type Options struct {
	Span       window.Span // of the windows
	Suppressed bool        // declined events are counted, too
	Bound      int         // on the number of keys, 0 for none
	Clock      func() int64
}

// Table is the hash table.
type Table struct {
	grid       cells.Grid
	span       window.Span
	fine       bool // a window has more buckets than cells: it has groups
	suppressed bool
	idle       int64 // a key without an event for that long may go
	bound      int64
	clock      func() int64

	seed   maphash.Seed
	shift  uint8
	shards []shard
	oldest []atomic.Int64 // by shard: no key of it was used before that; nil without a bound

	_       [64]byte // what follows is written when keys come and go
	count   atomic.Int64
	chunks  chunks
	thrifty atomic.Int32 // so many of the next visits compact a shard of which two thirds are unused
	sweep   sweep.Sweep
}

// groups is where windows with groups keep them.
type groups struct {
	sync.Mutex
	window.Groups
}

// New returns an empty table.
func New(o Options) *Table {
	n, shift := entries.Shards()
	t := &Table{
		span: o.Span, suppressed: o.Suppressed, idle: o.Span.Window + o.Span.Bucket,
		bound: int64(o.Bound), clock: o.Clock,
		seed: maphash.MakeSeed(), shift: shift, shards: make([]shard, n),
	}
	grid, ok := cells.New(o.Span.Window, o.Span.Bucket)
	t.grid, t.fine = grid, !ok
	if o.Bound > 0 {
		t.oldest = make([]atomic.Int64, n)
	}
	for i := range t.shards {
		sh := &t.shards[i]
		sh.queue.wake = make(chan struct{}, 1)
		if o.Bound > 0 {
			sh.oldest = &t.oldest[i]
		}
		sh.reset()
	}
	t.sweep.Init(n, time.Duration(t.idle))
	return t
}

// Span is what window.NewLaw wants for the law of the windows.
func (t *Table) Span() window.Span {
	if t.fine {
		return t.span
	}
	return t.grid.Span()
}

// Hash returns the hash of a key, which the other methods want.
func (t *Table) Hash(key string) uint64 { return maphash.String(t.seed, key) }

func (t *Table) shard(hash uint64) *shard { return &t.shards[hash>>t.shift] }

// Len returns the number of keys.
func (t *Table) Len() int { return int(t.count.Load()) }

// Look finds where a key most likely is, and asks for its memory, for the next method of hd. It takes no
// lock. The clock is best read between the two.
func (t *Table) Look(hd *Held, hash uint64) {
	sh := t.shard(hash)
	hd.t, hd.sh, hd.hash = t, sh, hash
	hd.ix = sh.index.Load()
	if hd.h, hd.e = hd.ix.Look(hash); hd.h != None {
		prefetch.Two(unsafe.Pointer(hd.e))
	}
}

// Acquire locks a key that Look has looked for, or adds it with an empty window. At now it counts as used.
// With a bound on the keys, the one used the longest ago goes first.
func (hd *Held) Acquire(key string, now int64) {
	switch {
	case hd.locked:
		hd.locked = false
		hd.settle()
	case !hd.lockKnown(key):
		hd.t.acquireSlowly(hd, key, now, true)
	}
	hd.Use(now)
}

// lockKnown locks the entry that Look has found, and reports whether it is that of the key.
func (hd *Held) lockKnown(key string) bool {
	if hd.h == None {
		return false
	}
	w, ok := tryLock(hd.e)
	if !ok {
		w = hd.lock(hd.e)
	}
	hd.word = w
	if !hd.t.isKey(hd.ix.Memory, hd.e, key) {
		hd.sh.queue.unlock(hd.e, hd.word)
		return false
	}
	if hd.word&(opened|full) != 0 {
		hd.settle()
	}
	return true
}

//go:noinline
func (t *Table) acquireSlowly(hd *Held, key string, now int64, bounded bool) {
	sh := hd.sh
	for {
		sh.Lock()
		ix := sh.index.Load()
		if h := t.find(ix, hd.hash, key); h != None {
			hd.lockAt(ix, h, ix.Entry(h))
			hd.settle()
			sh.Unlock()
			return
		}
		if n := t.count.Add(1); !bounded || t.bound == 0 || n <= t.bound {
			break
		}
		t.count.Add(-1)
		sh.Unlock()
		t.evict()
	}
	if bounded { // a key that Enter has added is empty, and as idle as any, until it is locked again
		t.tidy(sh, now)
	}
	if t.bound > 0 {
		t.reorder(sh)
	}
	t.add(hd, key, now)
	sh.Unlock()
	sweep.Arm(t)
}

// Find locks a key that Look has looked for, and reports whether it is there. If it is not, hd is an empty
// window that belongs to no key.
func (hd *Held) Find(key string) bool {
	if hd.lockKnown(key) {
		return true
	}
	sh, t := hd.sh, hd.t
	sh.Lock()
	defer sh.Unlock()
	ix := sh.index.Load()
	h := t.find(ix, hd.hash, key)
	if h == None {
		hd.ix, hd.h, hd.e, hd.word = ix, None, new(entry), locked
		return false
	}
	hd.lockAt(ix, h, ix.Entry(h))
	hd.settle()
	return true
}

// TryFind is Find for a caller that holds another entry of the table, and must not wait for a shard. It
// reports whether it is sure: if it is not, it has locked nothing.
func (hd *Held) TryFind(key string) (found, sure bool) {
	hd.holds = true
	if hd.lockKnown(key) {
		return true, true
	}
	sh, t := hd.sh, hd.t
	hd.h = None // until it is locked
	if !sh.TryLock() {
		return false, false
	}
	defer sh.Unlock()
	ix := sh.index.Load()
	h := t.find(ix, hd.hash, key)
	if h == None {
		hd.ix, hd.e, hd.word = ix, new(entry), locked
		return false, true
	}
	hd.lockAt(ix, h, ix.Entry(h))
	hd.settle()
	return true, true
}

// Misses reports whether a key is not there. It does not wait, and reports false if it would have to.
func (t *Table) Misses(hash uint64, key string) bool {
	sh := t.shard(hash)
	if !sh.TryLock() {
		return false
	}
	defer sh.Unlock()
	return t.find(sh.index.Load(), hash, key) == None
}

// Enter adds a key with an empty window if it is not there, also beyond the bound on the keys: Trim must be
// called when no entry is locked.
func (t *Table) Enter(hash uint64, key string, now int64) {
	var hd Held
	t.Look(&hd, hash)
	if !hd.lockKnown(key) {
		t.acquireSlowly(&hd, key, now, false)
	}
	hd.Unlock()
}

// Trim removes keys beyond the bound, which Enter has added. No entry may be locked by the caller.
func (t *Table) Trim() {
	for t.bound > 0 && t.count.Load() > t.bound {
		t.evict()
	}
}

// Use notes that a key is used at now.
func (hd *Held) Use(now int64) {
	if hd.t.bound > 0 {
		used := usedAt(hd.ix, hd.h)
		*used = max(*used, now)
	}
}

// Remove removes a key.
func (t *Table) Remove(hash uint64, key string) { t.removeIf(hash, key, false) }

// removeIf removes a key, or does so only if its window is empty.
func (t *Table) removeIf(hash uint64, key string, empty bool) {
	sh := t.shard(hash)
	sh.Lock()
	defer sh.Unlock()
	ix := sh.index.Load()
	h := t.find(ix, hash, key)
	if h == None {
		return
	}
	hd := Held{t: t, sh: sh, hash: hash}
	hd.lockAt(ix, h, ix.Entry(h))
	if hd.settle(); empty && hd.Counts() != (window.Counts{}) {
		hd.Unlock()
		return
	}
	t.remove(&hd)
}

// RemoveEmpty removes a key that was just cleared, unless it was used since.
func (t *Table) RemoveEmpty(hash uint64, key string) { t.removeIf(hash, key, true) }

// Close removes all keys, and waits for the end of what runs. O(keys).
func (t *Table) Close() {
	t.sweep.Close()
	for i := range t.shards {
		sh := &t.shards[i]
		sh.Lock()
		ix, end := sh.index.Load(), sh.end
		for h := Handle(0); h < end; h = h.Next() {
			if ix.Entry(h).length != unused {
				hd := Held{t: t, sh: sh}
				hd.lockAt(ix, h, ix.Entry(h))
				t.remove(&hd)
			}
		}
		sh.reset()
		sh.Unlock()
	}
	t.chunks.close()
}

// Sweeper returns the timer that removes idle keys.
func (t *Table) Sweeper() *sweep.Sweep { return &t.sweep }

// Empty reports whether there are no keys.
func (t *Table) Empty() bool { return t.count.Load() == 0 }

const sweepStep = 128 // entries under one hold of the lock of a shard

// Visit removes the idle keys of a shard.
func (t *Table) Visit(shard int) {
	sh, now := &t.shards[shard], t.clock()
	for h := Handle(0); ; {
		sh.Lock()
		for step := 0; step < sweepStep && h < sh.end; step++ {
			at := h
			h = h.Next()
			t.removeIfIdle(sh, at, now)
		}
		done := h >= sh.end
		if done {
			t.thrifty.Store(max(0, t.thrifty.Load()-1))
			t.compact(sh)
		}
		sh.Unlock()
		if done {
			return
		}
	}
}
