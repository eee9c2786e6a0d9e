package keys

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/trypema/trypema/internal/table/entries"
)

// Handle is the number of an entry in an index.
type Handle = entries.Handle

// None is no entry.
const None = entries.None

// shard is a part of the table.
type shard struct {
	// Read by each call, written when keys are added.
	index atomic.Pointer[index]
	open  atomic.Pointer[Hot]   // the hot key
	fulls atomic.Pointer[fulls] // nil until a key is full
	_     [64 - 3*bits.UintSize/8]byte

	queue queue
	_     [64 - 8 - bits.UintSize/8]byte

	// The lock of the shard guards what follows, and which keys there are. It comes before the locks of
	// entries: who holds one of those must not want it.
	sync.Mutex
	n      int    // keys
	end    Handle // one after the last entry that was ever in use
	free   Handle // entries that are not in use: the first
	hand   Handle // where tidy goes on
	order  order  // by last use, with a bound on the number of keys
	oldest *atomic.Int64
	_      [64]byte
}

// index is where the keys of a shard are. Callers read it without a lock. When a key was used last, it says
// with a bound on the number of keys, under the lock of the entry.
type index = entries.Index[entry, memory]

// usedAt returns when a key was used last.
func usedAt(ix *index, h Handle) *int64 { return &ix.Used[h.Page()][h.Place()] }

// find returns the entry of a key, or None. The shard must be locked.
func (t *Table) find(ix *index, hash uint64, key string) Handle {
	h, next := ix.Probe(hash, entries.Home(hash))
	for h != None && !t.isKey(ix.Memory, ix.Entry(h), key) {
		h, next = ix.Probe(hash, next)
	}
	return h
}

// place returns an entry for one more key, and the index that has it. The caller publishes that.
func (t *Table) place(sh *shard, ix *index) (_ *index, place Handle) {
	h := sh.free
	if h == None {
		h = sh.end
	}
	if !ix.Fits(sh.n, h) {
		more := ix.Grown(sh.n, h, t.page)
		if t.bound > 0 && len(more.Used) < more.Pages() {
			more.Used = append(more.Used, make([]int64, entries.LengthOf(h.Page())))
		}
		ix = more
	}
	if h == sh.free {
		sh.free = Handle(*ix.Hash(h))
	} else {
		sh.end = h.Next()
	}
	return ix, h
}

// add adds a key that is not there, with an empty window, and locks its entry. The shard must be locked.
func (t *Table) add(hd *Held, key string, now int64) {
	sh := hd.sh
	ix, h := t.place(sh, sh.index.Load())
	e := ix.Entry(h)
	hd.lockAt(ix, h, e) // somebody may have found the key that was there before
	t.setText(ix.Memory, e, key)
	hd.word = 0
	if t.bound > 0 {
		*usedAt(ix, h) = now
		sh.order.add(h, now)
		sh.publishOldest()
	}
	ix.Insert(hd.hash, h)
	if ix != sh.index.Load() { // readers have it in their caches
		sh.index.Store(ix)
	}
	sh.n++
}

// remove removes a key, whose entry must be locked, and the shard too. The entry is unlocked.
func (t *Table) remove(hd *Held) {
	sh, ix, e := hd.sh, hd.ix, hd.e
	hd.settle()
	hd.Clear()
	t.dropText(ix.Memory, e)
	sh.queue.unlock(e, 0)
	ix.Remove(hd.h)
	*ix.Hash(hd.h), sh.free = uint64(sh.free), hd.h
	sh.n--
	t.count.Add(-1)
	if sh.n == 0 {
		sh.reset()
		if t.count.Load() == 0 {
			t.chunks.reset()
		}
	}
}

// reset gives all memory back. There must be no keys.
func (sh *shard) reset() {
	sh.index.Store(entries.New[entry, memory]())
	sh.fulls.Store(nil)
	sh.end, sh.free, sh.hand = 0, None, 0
	sh.order = order{}
	sh.publishOldest()
}

// compact moves the keys into as little memory as they need, if that is far less than they have. In the round
// after that, less is enough for the other shards: their pages keep the chunks that this one has left.
func (t *Table) compact(sh *shard) {
	from := sh.index.Load()
	switch {
	case entries.Sparse(sh.n, sh.end, 4):
		t.thrifty.Store(int32(len(t.shards)))
	case t.thrifty.Load() <= 0 || !entries.Sparse(sh.n, sh.end, 3):
		return
	}
	to, end := entries.New[entry, memory](), sh.end
	sh.end, sh.free, sh.hand, sh.order, sh.n = 0, None, 0, order{}, 0
	for h := Handle(0); h < end; h = h.Next() {
		if from.Entry(h).length == unused {
			continue
		}
		hd := Held{t: t, sh: sh}
		hd.lockAt(from, h, from.Entry(h))
		hd.settle()
		var g Handle
		to, g = t.place(sh, to)
		e := to.Entry(g)
		t.setText(to.Memory, e, string(t.textOf(from.Memory, hd.e)))
		if t.fine {
			*e.fine() = *hd.e.fine()
			from.Memory.fine.Lock() // which the other keys still use
			e.fine().Move(&from.Memory.fine.Groups, &to.Memory.fine.Groups)
			from.Memory.fine.Unlock()
		} else {
			w := hd.window()
			w.Move(&to.Memory.cells)
			e.Set(w.State)
		}
		if t.bound > 0 {
			*usedAt(to, g) = *usedAt(from, h)
			sh.order.add(g, *usedAt(to, g))
		}
		to.Insert(*from.Hash(h), g)
		sh.n++
		hd.e.length = unused // whoever has found it before must look again
		sh.queue.unlock(hd.e, 0)
	}
	sh.index.Store(to)
	sh.publishOldest()
}

// tidy looks at two entries and removes them if they are idle.
func (t *Table) tidy(sh *shard, now int64) {
	for range 2 {
		if sh.hand >= sh.end {
			sh.hand = 0
		}
		if sh.end > 0 {
			h := sh.hand
			sh.hand = h.Next()
			t.removeIfIdle(sh, h, now)
		}
	}
}

// removeIfIdle removes a key whose last event is as old as it must be.
func (t *Table) removeIfIdle(sh *shard, h Handle, now int64) {
	ix := sh.index.Load()
	if ix.Entry(h).length == unused {
		return
	}
	hd := Held{t: t, sh: sh}
	hd.lockAt(ix, h, ix.Entry(h))
	if now-hd.last() >= t.idle {
		if hd.settle(); now-hd.last() >= t.idle { // the second look is at a hot key too
			t.remove(&hd)
			return
		}
	}
	hd.Unlock()
}
