package table

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/table/entries"
	"github.com/trypema/trypema/internal/table/slab"
	"github.com/trypema/trypema/internal/table/sweep"
)

// Handle is a key of a shard, valid while the shard is locked and no key is added or removed.
type Handle = entries.Handle

// None is no key.
const None = entries.None

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
	unused Handle // entries that are not in use, linked in the place of their hashes
	hand   Handle // where tidy goes on

	newest, tail Handle        // of the list by last use
	oldest       *atomic.Int64 // when the tail was used
	_            [64]byte
}

// index is where the keys of a shard are. Take reads it without a lock: an entry that is not in use, or has
// moved, has no open window, so whoever still finds it takes nothing from it.
type index = entries.Index[entry, memory]

// memory is what the entries of a shard have elsewhere.
type memory struct {
	cells cells.Memory
	texts cells.Arena[byte]
}

// noIndex is that of an empty shard, whose memory is not used.
var noIndex = entries.New[entry, memory]()

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
)

func (sh *Shard[S, M]) entry(h Handle) *entry { return sh.index.Load().Entry(h) }

func (sh *Shard[S, M]) back(h Handle) *back[S] { return &sh.backs[h.Page()][h.Place()] }

func (sh *Shard[S, M]) state(h Handle) *S { return &sh.back(h).state }

// State returns the state of a key, with all that callers have taken without it.
func (sh *Shard[S, M]) State(h Handle) *S {
	if sh.hot == h {
		sh.settle()
	}
	sh.reclaim(h)
	return sh.state(h)
}

func (m *memory) isKey(e *entry, key string) bool {
	if n := int(e.length); n == len(key) && n <= inlineKey {
		return string(e.key[:n]) == key
	}
	return e.length == longKey && string(m.keyOf(e)) == key
}

func (m *memory) keyOf(e *entry) []byte {
	if e.length <= inlineKey {
		return e.key[:e.length]
	}
	r, n := where(e)
	return m.texts.Block(r, slab.Class(n))[:n]
}

// where is a long key.
func where(e *entry) (r slab.Ref, length int) {
	return slab.Ref(binary.LittleEndian.Uint32(e.key[:])), int(binary.LittleEndian.Uint32(e.key[4:]))
}

func (m *memory) setKey(e *entry, key string) {
	if len(key) <= inlineKey {
		e.length = uint8(copy(e.key[:], key))
		return
	}
	r := m.texts.Alloc(slab.Class(len(key)))
	binary.LittleEndian.PutUint32(e.key[:], uint32(r))
	binary.LittleEndian.PutUint32(e.key[4:], uint32(len(key)))
	e.length = longKey
	copy(m.keyOf(e), key)
}

// Find returns the handle of a key, or None.
func (sh *Shard[S, M]) Find(hash uint64, key string) Handle {
	ix := sh.index.Load()
	h, next := ix.Probe(hash, entries.Home(hash))
	for h != None && !ix.Memory.isKey(ix.Entry(h), key) {
		h, next = ix.Probe(hash, next)
	}
	return h
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
	h := sh.unused
	if h == None {
		h = sh.end
	}
	if !ix.Fits(sh.n, h) {
		if ix == noIndex {
			ix = entries.New[entry, memory]()
		}
		ix = ix.Grown(sh.n, h, func(n int) []entry {
			sh.backs = append(sh.backs, make([]back[S], n))
			return make([]entry, n)
		})
	}
	if h == sh.unused {
		sh.unused = Handle(*ix.Hash(h))
	} else {
		sh.end = h.Next()
	}
	ix.Memory.setKey(ix.Entry(h), key)
	*sh.back(h) = back[S]{link: link{newer: None, older: None}}
	ix.Insert(hash, h)
	if ix != sh.index.Load() { // readers have it in their caches
		sh.index.Store(ix)
	}
	sh.n++
	return h
}

// Remove removes a key.
func (sh *Shard[S, M]) Remove(h Handle) {
	sh.table.kind.Free(&sh.Memory, sh.State(h))
	sh.unlink(h)
	ix := sh.index.Load()
	e := ix.Entry(h)
	if e.length == longKey {
		r, n := where(e)
		ix.Memory.texts.Free(r, slab.Class(n))
	}
	w := sh.Window(h)
	w.Clear()
	w.Reset()
	ix.Remove(h)
	e.length = unusedEntry
	*sh.back(h) = back[S]{}
	*ix.Hash(h), sh.unused = uint64(sh.unused), h
	sh.n--
	sh.table.count.Add(-1)
	if sh.n == 0 {
		sh.reset()
	}
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
	if !entries.Sparse(sh.n, sh.end, 4) {
		return
	}
	order := make([]Handle, 0, sh.n)
	if sh.ordered {
		for h := sh.tail; h != None; h = sh.back(h).newer {
			order = append(order, h)
		}
	} else {
		for h := Handle(0); h < sh.end; h = h.Next() {
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
		to := sh.add(*ix.Hash(h), string(ix.Memory.keyOf(ix.Entry(h))))
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
			sh.hand = h.Next()
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
