// Package entries finds the entries of keys, in the tables of Local and of Hybrid.
//
// A shard has an index with 4-byte slots: some bits of the hash of a key, and the handle of its entry.
// Entries lie in pages, which stay where they are when the index grows. A shard begins with pages of a few
// entries, so that few keys need little memory.
//
// Callers read an index without a lock. What they find must be checked under the lock of the entry: the key
// may be another by then, or have moved. What they do not find must be looked for again under the lock of the
// shard, which guards all changes: slots change one by one, and an index that grows is another one.
package entries

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Handle is the number of an entry: its page, above its place there.
type Handle int32

// None is no entry.
const None Handle = -1

const (
	pageBits  = 7
	firstPage = 4 // entries of the first two pages; the others are longer, up to a full page
	partial   = 6 // pages that are not full pages

	// PageLen is the number of entries of a full page.
	PageLen = 1 << pageBits
)

// Page returns the number of the page of an entry.
func (h Handle) Page() int { return int(h >> pageBits) }

// Place returns the place of an entry in its page.
func (h Handle) Place() int { return int(h & (PageLen - 1)) }

// Next returns the handle after another.
func (h Handle) Next() Handle {
	if h.Place()+1 < LengthOf(h.Page()) {
		return h + 1
	}
	return (h>>pageBits + 1) << pageBits
}

// LengthOf returns the number of entries of a page.
func LengthOf(page int) int {
	switch {
	case page == 0:
		return firstPage
	case page < partial:
		return firstPage / 2 << page
	}
	return PageLen
}

// Sparse reports whether n keys have so many more entries, those before end, that it is worth moving them
// together: one in part of the entries is in use, or fewer.
func Sparse(n int, end Handle, part int) bool {
	full := int(end) - (partial-1)<<pageBits // entries, if there is a full page
	return full > PageLen && part*n <= full
}

// Shards by number: enough that two cores seldom meet in one, few enough that an empty table is small.
const (
	minShards = 64
	maxShards = 1024
)

// Shards returns how many shards a table has. A hash that is shifted is the number of its shard.
func Shards() (n int, shift uint8) {
	n = minShards
	for n < 8*runtime.GOMAXPROCS(0) && n < maxShards {
		n *= 2
	}
	return n, uint8(64 - bits.TrailingZeros(uint(n)))
}

// Index is where the entries of keys are, of type E, and what they share, an M. A shard without keys has one
// from New.
//
// What a call needs of it is one cache line, as memory for 128 bytes begins at a multiple of that.
type Index[E, M any] struct {
	slots  []uint32 // open addressing: some bits of the hash, and bits bits of the handle + 1; 0 if empty
	pages  []*E     // the first entry of each
	Memory *M
	bits   uint8
	hashes [][]uint64 // of the keys, by page; under the lock of the shard
	Used   [][]int64  // by page: when each key was used last, for a table that wants it
	_      [128 - 14*bits.UintSize/8]byte
}

// A handle has 20 bits of a slot at first, so that two keys of a shard have the same other bits once in 4096,
// and more when there are more keys.
const (
	leastBits = 20
	moreBits  = 4
)

// noSlots are those of an empty shard, so that Look need not ask whether there are any.
var noSlots = make([]uint32, 1)

// New returns the index of a shard without keys.
func New[E, M any]() *Index[E, M] {
	return &Index[E, M]{slots: noSlots, bits: leastBits, Memory: new(M)}
}

// Entry returns an entry.
func (ix *Index[E, M]) Entry(h Handle) *E {
	first := unsafe.Pointer(ix.pages[h>>pageBits])
	return (*E)(unsafe.Add(first, uintptr(h&(PageLen-1))*unsafe.Sizeof(*new(E))))
}

// Hash returns the hash of the key of an entry. An entry without a key may have another number there.
func (ix *Index[E, M]) Hash(h Handle) *uint64 { return &ix.hashes[h.Page()][h.Place()] }

// Pages returns the number of pages.
func (ix *Index[E, M]) Pages() int { return len(ix.pages) }

// Home returns where the search for a hash begins. Shards are chosen by the highest bits of a hash, and slots
// have the lowest.
func Home(hash uint64) uint32 { return uint32(hash >> 16) }

// Probe returns the first handle from a slot on that is, as far as its slot tells, that of a key with a hash;
// and the slot after it. Without such a handle it returns None.
func (ix *Index[E, M]) Probe(hash uint64, from uint32) (h Handle, next uint32) {
	mask := uint32(len(ix.slots) - 1)
	for i := from; ; i++ {
		slot := atomic.LoadUint32(&ix.slots[i&mask])
		if slot == 0 {
			return None, i
		}
		if x := slot ^ uint32(hash)<<(ix.bits&31); x>>(ix.bits&31) == 0 {
			return Handle(x) - 1, i + 1
		}
	}
}

// Look returns the entry that is most likely that of a key with a hash, or nil. It takes no lock. Until the
// slots grow, an index shares them with those that follow it: so a slot may name a page that this index does
// not have, of a key that was added since.
func (ix *Index[E, M]) Look(hash uint64) (h Handle, e *E) {
	h, _ = ix.Probe(hash, Home(hash))
	if uint(h.Page()) >= uint(len(ix.pages)) { // of None, too
		return None, nil
	}
	return h, ix.Entry(h)
}

// Insert enters the handle of a key.
func (ix *Index[E, M]) Insert(hash uint64, h Handle) {
	*ix.Hash(h) = hash
	ix.enter(hash, h)
}

func (ix *Index[E, M]) enter(hash uint64, h Handle) {
	mask := uint32(len(ix.slots) - 1)
	i := Home(hash) & mask
	for ix.slots[i] != 0 {
		i = (i + 1) & mask
	}
	atomic.StoreUint32(&ix.slots[i], uint32(hash)<<ix.bits|uint32(h+1))
}

// Remove takes out the handle of a key, and moves back what was displaced by it: there are no tombstones. Who
// reads meanwhile may miss a key that moves, and looks again under the lock of the shard.
func (ix *Index[E, M]) Remove(h Handle) {
	mask := uint32(len(ix.slots) - 1)
	i := Home(*ix.Hash(h)) & mask
	for ix.handle(ix.slots[i]) != h {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; ix.slots[j] != 0; j = (j + 1) & mask {
		home := Home(*ix.Hash(ix.handle(ix.slots[j])))
		if (j-home)&mask >= (j-i)&mask { // its home is not between the hole and itself
			atomic.StoreUint32(&ix.slots[i], ix.slots[j])
			i = j
		}
	}
	atomic.StoreUint32(&ix.slots[i], 0)
}

// handle returns the handle in a slot.
func (ix *Index[E, M]) handle(slot uint32) Handle { return Handle(slot&(1<<(ix.bits&31)-1)) - 1 }

// Fits reports whether one key more than n fits, with an entry at h.
func (ix *Index[E, M]) Fits(n int, h Handle) bool {
	return 8*(n+1) <= 7*len(ix.slots) && int(h)+1 < 1<<ix.bits && h.Page() < len(ix.pages)
}

// Grown returns an index in which one key more than n fits, with an entry at h. page makes a page of some
// entries. Others go on with the old index meanwhile: no entry is touched.
func (ix *Index[E, M]) Grown(n int, h Handle, page func(n int) []E) *Index[E, M] {
	more := *ix
	size := len(ix.slots)
	for 8*(n+1) > 7*size {
		size = max(8, 2*size)
	}
	if int(h)+1 >= 1<<ix.bits {
		more.bits += moreBits
	}
	if size != len(ix.slots) || more.bits != ix.bits {
		more.slots = makeSlots(size)
		for _, slot := range ix.slots {
			if slot != 0 {
				h := ix.handle(slot)
				more.enter(*ix.Hash(h), h)
			}
		}
	}
	if h.Page() == len(ix.pages) {
		n := LengthOf(h.Page())
		more.pages = append(more.pages, &page(n)[0])
		more.hashes = append(more.hashes, make([]uint64, n))
	}
	return &more
}

const (
	// HugePage is the length of a huge page of most processors, in bytes.
	HugePage = 2 << 20

	manySlots = 32 << 10 / 4 // of a shard: there are many keys
)

func makeSlots(n int) []uint32 {
	slots := make([]uint32, n)
	if n >= manySlots {
		adviseHuge(unsafe.Pointer(&slots[0]), uintptr(n)*unsafe.Sizeof(slots[0]))
	}
	return slots
}
