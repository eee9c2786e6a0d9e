package keys

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Handle is the number of an entry in an index: the page above its place there.
type Handle int32

// None is no entry.
const None Handle = -1

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

// index is where the keys of a shard are. Callers read it without a lock. What they find must be checked
// under the lock of the entry: the key may be another by then, or have moved. What they do not find must be
// looked for again under the lock of the shard.
//
// What a call needs of it is one cache line, as memory for 128 bytes begins at a multiple of that.
type index struct {
	slots  []uint32 // open addressing: some bits of the hash, and bits bits of the handle + 1; 0 is an empty slot
	pages  []*entry // the first entry of each
	memory *memory
	bits   uint8
	backs  []*back // of the pages
	_      [128 - (10*bits.UintSize/8 + bits.UintSize/8)]byte
}

// back is a page, and what is known of its entries under the lock of the shard.
type back struct {
	entries []entry
	hashes  []uint64 // of the keys
	used    []int64  // when each was used last, with a bound on the number of keys; under the lock of the entry
}

const (
	pageBits  = 7
	pageLen   = 1 << pageBits
	firstPage = 4 // entries of the first two pages; the others are longer, up to a full page
	partial   = 6 // pages that are not full pages
)

// lengthOf returns the number of entries of a page.
func lengthOf(page int) int {
	switch {
	case page == 0:
		return firstPage
	case page < partial:
		return firstPage / 2 << page
	}
	return pageLen
}

func (ix *index) entry(h Handle) *entry {
	first := unsafe.Pointer(ix.pages[h>>pageBits])
	return (*entry)(unsafe.Add(first, uintptr(h&(pageLen-1))*unsafe.Sizeof(entry{})))
}

func (ix *index) hash(h Handle) *uint64 { return &ix.backs[h>>pageBits].hashes[h&(pageLen-1)] }

func (ix *index) used(h Handle) *int64 { return &ix.backs[h>>pageBits].used[h&(pageLen-1)] }

// next returns the handle after another.
func (ix *index) next(h Handle) Handle {
	if int(h&(pageLen-1))+1 < len(ix.backs[h>>pageBits].entries) {
		return h + 1
	}
	return (h>>pageBits + 1) << pageBits
}

// home returns where the search for a hash begins. It uses other bits than a slot and than the shard.
func (ix *index) home(hash uint64) uint32 { return uint32(hash>>16) & uint32(len(ix.slots)-1) }

func (ix *index) slot(hash uint64, h Handle) uint32 { return uint32(hash)<<ix.bits | uint32(h+1) }

func (ix *index) handle(slot uint32) Handle { return Handle(slot&(1<<(ix.bits&31)-1)) - 1 }

// named returns the handle in a slot, if the slot is, as far as it tells, that of a key with a hash.
func (ix *index) named(slot uint32, hash uint64) (h Handle, ok bool) {
	x := slot ^ uint32(hash)<<(ix.bits&31)
	return Handle(x) - 1, x>>(ix.bits&31) == 0
}

// find returns the entry of a key, or None. The shard must be locked.
func (t *Table) find(ix *index, hash uint64, key string) Handle {
	mask := uint32(len(ix.slots) - 1)
	for i := ix.home(hash); ix.slots[i] != 0; i = (i + 1) & mask {
		if h, ok := ix.named(ix.slots[i], hash); ok && t.isKey(ix.memory, ix.entry(h), key) {
			return h
		}
	}
	return None
}

// noSlots are those of an empty shard, so that Look need not ask whether there are any.
var noSlots = make([]uint32, 1)

// empty returns the index of a shard without keys.
func empty() *index { return &index{slots: noSlots, bits: leastBits, memory: new(memory)} }

// insert enters a handle into an index.
func (ix *index) insert(hash uint64, h Handle) {
	mask := uint32(len(ix.slots) - 1)
	i := ix.home(hash)
	for ix.slots[i] != 0 {
		i = (i + 1) & mask
	}
	atomic.StoreUint32(&ix.slots[i], ix.slot(hash, h))
}

// remove takes a handle out of an index, and moves back what was displaced by it: there are no tombstones.
// Who reads meanwhile may miss a key that moves, and looks again under the lock of the shard.
func (ix *index) remove(h Handle) {
	mask := uint32(len(ix.slots) - 1)
	i := ix.home(*ix.hash(h))
	for ix.handle(ix.slots[i]) != h {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; ix.slots[j] != 0; j = (j + 1) & mask {
		home := ix.home(*ix.hash(ix.handle(ix.slots[j])))
		if (j-home)&mask >= (j-i)&mask { // its home is not between the hole and itself
			atomic.StoreUint32(&ix.slots[i], ix.slots[j])
			i = j
		}
	}
	atomic.StoreUint32(&ix.slots[i], 0)
}

// place returns an entry for one more key, and the index that has it. The caller publishes that.
func (t *Table) place(sh *shard, ix *index) (*index, Handle) {
	if 8*(sh.n+1) > 7*len(ix.slots) {
		ix = ix.rebuilt(max(8, 2*len(ix.slots)), ix.bits)
	}
	if h := sh.free; h != None {
		sh.free = Handle(get32(t.room(ix.entry(h))))
		return ix, h
	}
	h := sh.end
	if int(h)+1 >= 1<<ix.bits {
		ix = ix.rebuilt(len(ix.slots), ix.bits+moreBits)
	}
	if n := int(h >> pageBits); n == len(ix.pages) {
		more := *ix
		n = lengthOf(n)
		p := &back{entries: t.page(n), hashes: make([]uint64, n)}
		if t.bound > 0 {
			p.used = make([]int64, n)
		}
		more.pages, more.backs = append(more.pages, &p.entries[0]), append(more.backs, p)
		ix = &more
	}
	sh.end = ix.next(h)
	return ix, h
}

// A handle has 20 bits of a slot at first, so that two keys of a shard have the same other bits once in 4096,
// and more when there are more keys.
const (
	leastBits = 20
	moreBits  = 4
)

// rebuilt returns an index with so many slots. No entry is touched. Others go on with the old one meanwhile.
func (ix *index) rebuilt(slots int, bits uint8) *index {
	more := *ix
	more.slots, more.bits = make([]uint32, slots), bits
	if size := uintptr(slots) * unsafe.Sizeof(more.slots[0]); size >= hugeIndex {
		adviseHuge(uintptr(unsafe.Pointer(&more.slots[0])), size)
	}
	for _, slot := range ix.slots {
		if slot != 0 {
			h := ix.handle(slot)
			more.insert(*ix.hash(h), h)
		}
	}
	return &more
}

// add adds a key that is not there, with an empty window, and locks its entry. The shard must be locked.
func (t *Table) add(hd *Held, key string, now int64) {
	sh := hd.sh
	ix, h := t.place(sh, sh.index.Load())
	e := ix.entry(h)
	hd.lockAt(ix, h, e) // somebody may have found the key that was there before
	t.setText(ix.memory, e, key)
	hd.word = 0
	*ix.hash(h) = hd.hash
	if t.bound > 0 {
		*ix.used(h) = now
		sh.order.add(h, now)
		sh.publishOldest()
	}
	ix.insert(hd.hash, h)
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
	t.dropText(ix.memory, e, sh.free)
	sh.queue.unlock(e, 0)
	sh.free = hd.h
	ix.remove(hd.h)
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
	sh.index.Store(empty())
	sh.fulls.Store(nil)
	sh.end, sh.free, sh.hand = 0, None, 0
	sh.order = order{}
	sh.publishOldest()
}

// compact moves the keys into as little memory as they need, if that is far less than they have. In the round
// after that, less is enough for the other shards: their pages keep the chunks that this one has left.
func (t *Table) compact(sh *shard) {
	from := sh.index.Load()
	have := int(sh.end) - (partial-1)<<pageBits // entries, if there is a full page
	switch {
	case have <= pageLen:
		return
	case 4*sh.n <= have:
		t.thrifty.Store(int32(len(t.shards)))
	case t.thrifty.Load() <= 0 || 3*sh.n > have:
		return
	}
	n := sh.n
	end := sh.end
	to := empty()
	to.slots = make([]uint32, 8)
	for 8*n > 7*len(to.slots) {
		to.slots = make([]uint32, 2*len(to.slots))
	}
	sh.end, sh.free, sh.hand, sh.order, sh.n = 0, None, 0, order{}, 0
	for h := Handle(0); h < end; h = from.next(h) {
		if from.entry(h).length == unused {
			continue
		}
		hd := Held{t: t, sh: sh}
		hd.lockAt(from, h, from.entry(h))
		hd.settle()
		var g Handle
		to, g = t.place(sh, to)
		e := to.entry(g)
		t.setText(to.memory, e, string(t.textOf(from.memory, hd.e)))
		if t.fine {
			*e.fine() = *hd.e.fine()
			from.memory.fine.Lock() // which the other keys still use
			e.fine().Move(&from.memory.fine.Groups, &to.memory.fine.Groups)
			from.memory.fine.Unlock()
		} else {
			w := hd.window()
			w.Move(&to.memory.cells)
			e.Set(w.State)
		}
		if t.bound > 0 {
			*to.used(g) = *from.used(h)
			sh.order.add(g, *to.used(g))
		}
		*to.hash(g) = *from.hash(h)
		to.insert(*to.hash(g), g)
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
			sh.hand = sh.index.Load().next(h)
			t.removeIfIdle(sh, h, now)
		}
	}
}

// removeIfIdle removes a key whose last event is as old as it must be.
func (t *Table) removeIfIdle(sh *shard, h Handle, now int64) {
	ix := sh.index.Load()
	if ix.entry(h).length == unused {
		return
	}
	hd := Held{t: t, sh: sh}
	hd.lockAt(ix, h, ix.entry(h))
	if now-hd.last() >= t.idle {
		if hd.settle(); now-hd.last() >= t.idle { // the second look is at a hot key too
			t.remove(&hd)
			return
		}
	}
	hd.Unlock()
}
