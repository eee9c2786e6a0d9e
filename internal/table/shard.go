package table

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/table/slab"
	"github.com/trypema/trypema/internal/table/sweep"
)

// Handle is a key of a shard, valid while the shard is locked and no key is added or removed.
type Handle int32

// None is no key.
const None Handle = -1

// Shard is a part of the table. Its lock guards all of it, but what Take reads without: see index and own.
type Shard[S, M any] struct {
	index   atomic.Pointer[index]
	open    atomic.Pointer[Hot]
	ordered bool                         // the keys are in a list by last use, because there is a bound on their number
	_       [63 - 2*bits.UintSize/8]byte // who reads these is not disturbed by who locks

	// What every call needs that locks is in one cache line with the lock.
	sync.Mutex
	backs [][]back[S] // by page
	hot   Handle      // the key that is open, or None
	votes uint32      // for the next hot key: see Asked

	Memory M // what the states share
	table  *Table[S, M]
	n      int    // keys
	end    Handle // one after the last entry that was ever in use
	unused Handle // entries that are not in use, linked by tag
	hand   Handle // where tidy goes on

	newest, tail Handle        // of the list by last use
	oldest       *atomic.Int64 // when the tail was used
	_            [64]byte
}

// index is where the keys of a shard are. Take reads it without a lock: what it finds it checks under the
// lock of the entry, and what it does not find is looked for under the lock of the shard. So slots change one
// by one, an index that grows is another one, and entries stay where they are. An entry that is not in use,
// or has moved, has no open window, so whoever still finds it takes nothing from it.
type index struct {
	slots  []uint64 // open addressing: the low half of the hash, and the handle + 1; 0 is an empty slot
	pages  []*entry // the first entry of each
	memory *memory
}

// memory is what the entries of a shard have elsewhere.
type memory struct {
	cells cells.Memory
	texts cells.Arena[byte]
}

// noIndex is that of an empty shard.
var noIndex = &index{slots: make([]uint64, 1)}

// entry is a key and its own window, all that most calls need: 128 bytes, two cache lines, without a pointer;
// TestEntrySize holds that.
type entry struct {
	own
	key    [inlineKey]byte
	length uint8 // of the key, if it is not longKey or unusedEntry
}

// back is what there is of an entry beside that. The lock of the shard guards it.
type back[S any] struct {
	state S
	tag   uint32 // the low half of the hash; of an entry that is not in use: the next such
	link
}

// link is the place of a key in the list by last use.
type link struct {
	used         int64 // last use
	newer, older Handle
}

const (
	inlineKey   = 23
	longKey     = inlineKey + 1 // the length of a key that does not fit: the bytes say where it is
	unusedEntry = inlineKey + 2
	pageBits    = 7
	pageLen     = 1 << pageBits
	firstPage   = 4 // entries of the first two pages; the others are longer, up to a full page
	partial     = 6 // pages that are not full pages
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

// next returns the handle after another.
func (h Handle) next() Handle {
	if int(h&(pageLen-1))+1 < lengthOf(int(h>>pageBits)) {
		return h + 1
	}
	return (h>>pageBits + 1) << pageBits
}

func (ix *index) entry(h Handle) *entry {
	first := unsafe.Pointer(ix.pages[h>>pageBits])
	return (*entry)(unsafe.Add(first, uintptr(h&(pageLen-1))*unsafe.Sizeof(entry{})))
}

func (sh *Shard[S, M]) entry(h Handle) *entry { return sh.index.Load().entry(h) }

func (sh *Shard[S, M]) back(h Handle) *back[S] { return &sh.backs[h>>pageBits][h&(pageLen-1)] }

func (sh *Shard[S, M]) state(h Handle) *S { return &sh.back(h).state }

// State returns the state of a key, with all that callers have taken without it.
func (sh *Shard[S, M]) State(h Handle) *S {
	if sh.hot == h {
		sh.settle()
	}
	sh.reclaim(h)
	return sh.state(h)
}

func (ix *index) isKey(e *entry, key string) bool {
	if n := int(e.length); n == len(key) && n <= inlineKey {
		return string(e.key[:n]) == key
	}
	return e.length == longKey && string(ix.keyOf(e)) == key
}

func (ix *index) keyOf(e *entry) []byte {
	if e.length <= inlineKey {
		return e.key[:e.length]
	}
	r, n := where(e)
	return ix.memory.texts.Block(r, slab.Class(n))[:n]
}

// where is a long key.
func where(e *entry) (r slab.Ref, length int) {
	return slab.Ref(binary.LittleEndian.Uint32(e.key[:])), int(binary.LittleEndian.Uint32(e.key[4:]))
}

func (ix *index) setKey(e *entry, key string) {
	if len(key) <= inlineKey {
		e.length = uint8(copy(e.key[:], key))
		return
	}
	r := ix.memory.texts.Alloc(slab.Class(len(key)))
	binary.LittleEndian.PutUint32(e.key[:], uint32(r))
	binary.LittleEndian.PutUint32(e.key[4:], uint32(len(key)))
	e.length = longKey
	copy(ix.keyOf(e), key)
}

// Find returns the handle of a key, or None.
func (sh *Shard[S, M]) Find(hash uint64, key string) Handle {
	ix, tag := sh.index.Load(), uint32(hash)
	mask := uint32(len(ix.slots) - 1)
	for i := tag & mask; ix.slots[i] != 0; i = (i + 1) & mask {
		slot := ix.slots[i]
		if slot>>32 != uint64(tag) {
			continue
		}
		if h := Handle(uint32(slot) - 1); ix.isKey(ix.entry(h), key) {
			return h
		}
	}
	return None
}

// look returns the entry that is most likely that of a key with a hash, or nil. It takes no lock.
func (ix *index) look(hash uint64) (e *entry, h Handle) {
	tag := uint32(hash)
	mask := uint32(len(ix.slots) - 1)
	for i := tag & mask; ; i = (i + 1) & mask {
		slot := atomic.LoadUint64(&ix.slots[i])
		if slot == 0 {
			return nil, None
		}
		if slot>>32 != uint64(tag) {
			continue
		}
		// Until the slots grow, an index shares them with those that follow it. So a slot may name a page
		// that this index does not have.
		if h = Handle(uint32(slot) - 1); int(h>>pageBits) >= len(ix.pages) {
			return nil, None
		}
		return ix.entry(h), h
	}
}

// Enter adds a key that is not there, with a zero state, also beyond the bound on the keys: Trim must be
// called when no shard is locked. States that were looked up before may have moved. At now the key counts as
// used.
func (sh *Shard[S, M]) Enter(hash uint64, key string, now int64) Handle {
	sh.table.count.Add(1)
	h := sh.add(hash, key)
	sh.Use(h, now)
	sweep.Arm(sh.table)
	return h
}

// add adds a key that is not there, with a zero state.
func (sh *Shard[S, M]) add(hash uint64, key string) Handle {
	ix := sh.index.Load()
	if ix.memory == nil {
		ix = &index{slots: ix.slots, memory: new(memory)}
	}
	if 8*(sh.n+1) > 7*len(ix.slots) {
		ix = ix.rebuilt(max(8, 2*len(ix.slots)))
	}
	h := sh.unused
	if h == None {
		ix, h = sh.grow(ix)
	} else {
		sh.unused = Handle(sh.back(h).tag)
	}
	e, b := ix.entry(h), sh.back(h)
	ix.setKey(e, key)
	*b = back[S]{tag: uint32(hash), link: link{newer: None, older: None}}
	ix.insert(b.tag, h)
	if ix != sh.index.Load() { // readers have it in their caches
		sh.index.Store(ix)
	}
	sh.n++
	return h
}

// grow returns a new entry, and an index that has it.
func (sh *Shard[S, M]) grow(ix *index) (*index, Handle) {
	h := sh.end
	if page := int(h >> pageBits); page == len(ix.pages) {
		more, n := *ix, lengthOf(page)
		more.pages = append(more.pages, &make([]entry, n)[0])
		sh.backs = append(sh.backs, make([]back[S], n))
		ix = &more
	}
	sh.end = h.next()
	return ix, h
}

// insert enters a handle into the index.
func (ix *index) insert(tag uint32, h Handle) {
	mask := uint32(len(ix.slots) - 1)
	i := tag & mask
	for ix.slots[i] != 0 {
		i = (i + 1) & mask
	}
	atomic.StoreUint64(&ix.slots[i], uint64(tag)<<32|uint64(h+1))
}

// rebuilt returns an index with so many slots. The tags are in the slots: no entry is touched.
func (ix *index) rebuilt(length int) *index {
	more := *ix
	more.slots = make([]uint64, length)
	for _, slot := range ix.slots {
		if slot != 0 {
			more.insert(uint32(slot>>32), Handle(uint32(slot)-1))
		}
	}
	return &more
}

// Remove removes a key.
func (sh *Shard[S, M]) Remove(h Handle) {
	sh.table.kind.Free(&sh.Memory, sh.State(h))
	sh.unlink(h)
	ix := sh.index.Load()
	e, b := ix.entry(h), sh.back(h)
	if e.length == longKey {
		r, n := where(e)
		ix.memory.texts.Free(r, slab.Class(n))
	}
	w := sh.Window(h)
	w.Clear()
	w.Reset()
	ix.remove(b.tag, h)
	e.length = unusedEntry
	*b = back[S]{tag: uint32(sh.unused)}
	sh.unused = h
	sh.n--
	sh.table.count.Add(-1)
	if sh.n == 0 {
		sh.reset()
	}
}

// remove takes a handle out of the index, and moves back what was displaced by it: there are no tombstones.
// Who reads meanwhile may miss a key that moves, and looks again under the lock of the shard.
func (ix *index) remove(tag uint32, h Handle) {
	mask := uint32(len(ix.slots) - 1)
	i := tag & mask
	for ix.slots[i] != uint64(tag)<<32|uint64(h+1) {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; ix.slots[j] != 0; j = (j + 1) & mask {
		home := uint32(ix.slots[j]>>32) & mask
		if (j-home)&mask >= (j-i)&mask { // its home is not between the hole and itself
			atomic.StoreUint64(&ix.slots[i], ix.slots[j])
			i = j
		}
	}
	atomic.StoreUint64(&ix.slots[i], 0)
}

// reset gives all memory back. No window may be open.
func (sh *Shard[S, M]) reset() {
	sh.settle()
	var none M
	sh.Memory = none
	sh.index.Store(noIndex)
	sh.backs = nil
	sh.n, sh.end, sh.hand, sh.unused = 0, 0, 0, None
	sh.newest, sh.tail = None, None
	sh.publishOldest()
}

// compact moves the keys into as little memory as they need, if that is far less than they have.
func (sh *Shard[S, M]) compact() {
	have := int(sh.end) - (partial-1)<<pageBits // entries, if there is a full page
	if have <= pageLen || 4*sh.n > have {
		return
	}
	order := make([]Handle, 0, sh.n)
	if sh.ordered {
		for h := sh.tail; h != None; h = sh.back(h).newer {
			order = append(order, h)
		}
	} else {
		for h := Handle(0); h < sh.end; h = h.next() {
			if sh.entry(h).length != unusedEntry {
				order = append(order, h)
			}
		}
	}
	for _, h := range order {
		sh.State(h) // with its window closed, Take finds nothing in an entry that has moved
	}
	from := Shard[S, M]{Memory: sh.Memory, backs: sh.backs}
	ix := sh.index.Load()
	sh.reset()
	for _, h := range order {
		b := from.back(h)
		to := sh.add(uint64(b.tag), string(ix.keyOf(ix.entry(h))))
		*sh.state(to) = b.state
		sh.table.kind.Move(&from.Memory, &sh.Memory, sh.state(to))
		if sh.ordered {
			sh.Use(to, b.used)
		}
	}
}

// Tidy looks at two entries and removes them if they are idle.
func (sh *Shard[S, M]) Tidy(now int64) {
	for range 2 {
		if sh.hand >= sh.end {
			sh.hand = 0
		}
		if sh.end > 0 {
			h := sh.hand
			sh.hand = h.next()
			sh.removeIfIdle(h, now)
		}
	}
}

func (sh *Shard[S, M]) removeIfIdle(h Handle, now int64) {
	last := sh.table.kind.Last
	if sh.entry(h).length == unusedEntry || now-last(sh.state(h)) < sh.table.idle {
		return
	}
	if now-last(sh.State(h)) >= sh.table.idle { // the second look is at a hot key too
		sh.Remove(h)
	}
}

// Use makes a key the one that was used last, at now.
func (sh *Shard[S, M]) Use(h Handle, now int64) {
	if sh.ordered {
		sh.catchUp()
		sh.enlist(h, now)
	}
}

// enlist puts a key at the end of the list by last use.
func (sh *Shard[S, M]) enlist(h Handle, now int64) {
	e := &sh.back(h).link
	e.used = max(now, e.used)
	if sh.newest == h {
		if sh.tail == h {
			sh.publishOldest()
		}
		return
	}
	sh.unlink(h)
	if e.older = sh.newest; e.older != None {
		newest := &sh.back(e.older).link
		newest.newer = h
		e.used = max(e.used, newest.used) // clocks of two callers may be read in another order
	}
	sh.newest = h
	if sh.tail == None {
		sh.tail = h
		sh.publishOldest()
	}
}

// unlink takes a key out of the list by last use, if it is in there.
func (sh *Shard[S, M]) unlink(h Handle) {
	if !sh.ordered {
		return
	}
	e := &sh.back(h).link
	if e.newer != None {
		sh.back(e.newer).older = e.older
	} else if sh.newest == h {
		sh.newest = e.older
	}
	if e.older != None {
		sh.back(e.older).newer = e.newer
	}
	if sh.tail == h {
		sh.tail = e.newer
		sh.publishOldest()
	}
	e.newer, e.older = None, None
}

func (sh *Shard[S, M]) publishOldest() {
	if !sh.ordered {
		return
	}
	at := int64(math.MaxInt64)
	if sh.tail != None {
		at = sh.back(sh.tail).used
	}
	sh.oldest.Store(at)
}
