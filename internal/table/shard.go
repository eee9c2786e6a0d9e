package table

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/table/slab"
	"github.com/trypema/trypema/internal/table/sweep"
)

// Handle is a key of a shard, valid while the shard is locked and no key is added or removed.
type Handle int32

// None is no key.
const None Handle = -1

// Shard is a part of the table. Its lock guards all of it, but open, which is read without.
type Shard[S, M any] struct {
	open    atomic.Pointer[Hot]
	ordered bool                       // the keys are in a list by last use, because there is a bound on their number
	_       [63 - bits.UintSize/8]byte // who reads the hot key is not disturbed by who locks

	// What every call needs is in one cache line with the lock.
	sync.Mutex
	index []uint64 // open addressing: the low half of the hash, and the handle + 1; 0 is an empty slot
	pages [][]entry
	hot   Handle // the key that is open, or None
	votes uint32 // for the next hot key: see Asked

	backs  [][]back[S]   // by page
	Memory M             // what the states share
	memory *cells.Memory // what the windows of keys share
	table  *Table[S, M]
	keys   slab.Slab[byte] // keys too long for an entry
	n      int             // keys
	size   int             // entries, those that are not in use included
	unused Handle          // entries that are not in use, linked by tag
	hand   Handle          // where tidy goes on

	links        []link        // of the list, one for each entry
	newest, tail Handle        // of the list
	oldest       *atomic.Int64 // when the tail was used
	_            [64]byte
}

// entry is a key and its own window, all that most calls need: 128 bytes, two cache lines, without a pointer;
// TestEntrySize holds that.
type entry struct {
	own
	key    [inlineKey]byte
	length uint8 // of the key, if it is not longKey or unusedEntry
}

// back is what there is of an entry beside that.
type back[S any] struct {
	state S
	tag   uint32 // the low half of the hash; of an entry that is not in use: the next such
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
	firstPage   = 4 // entries of the first page, which doubles until it is full size
)

func (sh *Shard[S, M]) entry(h Handle) *entry { return &sh.pages[h>>pageBits][h&(pageLen-1)] }

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

func (sh *Shard[S, M]) isKey(e *entry, key string) bool {
	if n := int(e.length); n == len(key) && n <= inlineKey {
		return string(e.key[:n]) == key
	}
	return e.length == longKey && string(sh.keyOf(e)) == key
}

func (sh *Shard[S, M]) keyOf(e *entry) []byte {
	if e.length <= inlineKey {
		return e.key[:e.length]
	}
	r, n := where(e)
	return sh.keys.Block(r, slab.Class(n))[:n]
}

// where is a long key.
func where(e *entry) (r slab.Ref, length int) {
	return slab.Ref(binary.LittleEndian.Uint32(e.key[:])), int(binary.LittleEndian.Uint32(e.key[4:]))
}

func (sh *Shard[S, M]) setKey(e *entry, key string) {
	if len(key) <= inlineKey {
		e.length = uint8(copy(e.key[:], key))
		return
	}
	r := sh.keys.Alloc(slab.Class(len(key)))
	binary.LittleEndian.PutUint32(e.key[:], uint32(r))
	binary.LittleEndian.PutUint32(e.key[4:], uint32(len(key)))
	e.length = longKey
	copy(sh.keyOf(e), key)
}

// Find returns the handle of a key, or None.
func (sh *Shard[S, M]) Find(hash uint64, key string) Handle {
	if len(sh.index) == 0 {
		return None
	}
	tag := uint32(hash)
	mask := uint32(len(sh.index) - 1)
	for i := tag & mask; sh.index[i] != 0; i = (i + 1) & mask {
		slot := sh.index[i]
		if slot>>32 != uint64(tag) {
			continue
		}
		if h := Handle(uint32(slot) - 1); sh.isKey(sh.entry(h), key) {
			return h
		}
	}
	return None
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
	if 8*(sh.n+1) > 7*len(sh.index) {
		sh.reindex(max(8, 2*len(sh.index)))
	}
	h := sh.unused
	if h == None {
		h = sh.grow()
	} else {
		sh.unused = Handle(sh.back(h).tag)
	}
	if sh.ordered {
		sh.links[h] = link{newer: None, older: None}
	}
	if sh.memory == nil {
		sh.memory = new(cells.Memory)
	}
	e, b := sh.entry(h), sh.back(h)
	*e, *b = entry{}, back[S]{tag: uint32(hash)}
	sh.setKey(e, key)
	sh.insert(b.tag, h)
	sh.n++
	return h
}

// grow returns a new entry.
func (sh *Shard[S, M]) grow() Handle {
	h := Handle(sh.size)
	if page := int(h >> pageBits); page == len(sh.pages) {
		length := pageLen
		if page == 0 {
			length = firstPage
		}
		sh.pages, sh.backs = append(sh.pages, make([]entry, length)), append(sh.backs, make([]back[S], length))
	} else if n := len(sh.pages[page]); n == int(h&(pageLen-1)) {
		longer, backs := make([]entry, 2*n), make([]back[S], 2*n)
		copy(longer, sh.pages[page])
		copy(backs, sh.backs[page])
		sh.pages[page], sh.backs[page] = longer, backs
	}
	sh.size++
	if sh.ordered {
		sh.links = append(sh.links, link{})
	}
	return h
}

// insert enters a handle into the index.
func (sh *Shard[S, M]) insert(tag uint32, h Handle) {
	mask := uint32(len(sh.index) - 1)
	i := tag & mask
	for sh.index[i] != 0 {
		i = (i + 1) & mask
	}
	sh.index[i] = uint64(tag)<<32 | uint64(h+1)
}

// reindex gives the index a new length. The tags are in the slots: no entry is touched.
func (sh *Shard[S, M]) reindex(length int) {
	old := sh.index
	sh.index = make([]uint64, length)
	for _, slot := range old {
		if slot != 0 {
			sh.insert(uint32(slot>>32), Handle(uint32(slot)-1))
		}
	}
}

// Remove removes a key.
func (sh *Shard[S, M]) Remove(h Handle) {
	sh.table.kind.Free(&sh.Memory, sh.State(h))
	sh.unlink(h)
	e, b := sh.entry(h), sh.back(h)
	if e.length == longKey {
		r, n := where(e)
		sh.keys.Free(r, slab.Class(n))
	}
	w := sh.Window(h)
	w.Clear()
	sh.unindex(b.tag, h)
	e.length = unusedEntry
	*b = back[S]{tag: uint32(sh.unused)}
	sh.unused = h
	sh.n--
	sh.table.count.Add(-1)
	if sh.n == 0 {
		sh.reset()
	}
}

// unindex takes a handle out of the index, and moves back what was displaced by it: there are no tombstones.
func (sh *Shard[S, M]) unindex(tag uint32, h Handle) {
	mask := uint32(len(sh.index) - 1)
	i := tag & mask
	for sh.index[i] != uint64(tag)<<32|uint64(h+1) {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; sh.index[j] != 0; j = (j + 1) & mask {
		home := uint32(sh.index[j]>>32) & mask
		if (j-home)&mask >= (j-i)&mask { // its home is not between the hole and itself
			sh.index[i] = sh.index[j]
			i = j
		}
	}
	sh.index[i] = 0
}

// reset gives all memory back.
func (sh *Shard[S, M]) reset() {
	sh.settle()
	var none M
	sh.Memory, sh.memory = none, nil
	sh.index, sh.pages, sh.backs, sh.links, sh.keys = nil, nil, nil, nil, slab.Slab[byte]{}
	sh.n, sh.size, sh.hand, sh.unused = 0, 0, 0, None
	sh.newest, sh.tail = None, None
	sh.publishOldest()
}

// compact moves the keys into as little memory as they need, if that is far less than they have.
func (sh *Shard[S, M]) compact() {
	if sh.size <= pageLen || 4*sh.n > sh.size {
		return
	}
	sh.settle()
	from := Shard[S, M]{ // to read old entries by
		table: sh.table, pages: sh.pages, backs: sh.backs, links: sh.links, keys: sh.keys, Memory: sh.Memory,
		memory: sh.memory,
	}
	order := make([]Handle, 0, sh.n)
	if sh.ordered {
		for h := sh.tail; h != None; h = from.links[h].newer {
			order = append(order, h)
		}
	} else {
		for h := range Handle(sh.size) {
			if from.entry(h).length != unusedEntry {
				order = append(order, h)
			}
		}
	}
	sh.reset()
	for _, h := range order {
		from.reclaim(h)
		b := from.back(h)
		to := sh.add(uint64(b.tag), string(from.keyOf(from.entry(h))))
		*sh.state(to) = b.state
		sh.table.kind.Move(&from.Memory, &sh.Memory, sh.state(to))
		if sh.ordered {
			sh.Use(to, from.links[h].used)
		}
	}
}

// Tidy looks at two entries and removes them if they are idle.
func (sh *Shard[S, M]) Tidy(now int64) {
	for range 2 {
		if int(sh.hand) >= sh.size {
			sh.hand = 0
		}
		if sh.size > 0 {
			sh.removeIfIdle(sh.hand, now)
			sh.hand++
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
	e := &sh.links[h]
	e.used = max(now, e.used)
	if sh.newest == h {
		if sh.tail == h {
			sh.publishOldest()
		}
		return
	}
	sh.unlink(h)
	if e.older = sh.newest; e.older != None {
		newest := &sh.links[e.older]
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
	e := &sh.links[h]
	if e.newer != None {
		sh.links[e.newer].older = e.older
	} else if sh.newest == h {
		sh.newest = e.older
	}
	if e.older != None {
		sh.links[e.older].newer = e.newer
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
		at = sh.links[sh.tail].used
	}
	sh.oldest.Store(at)
}
