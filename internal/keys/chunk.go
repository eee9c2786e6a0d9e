package keys

import (
	"sync"
	"unsafe"

	"github.com/trypema/trypema/internal/table/entries"
)

// chunks is where the pages of a large table come from: pieces of memory that are long enough for the pages
// of the operating system that are called huge. The translation of an address of such a page is nearly always
// in the processor, that of one of many small pages is not, and then a call waits for memory twice.
//
// A chunk has pages of many shards, and is collected when none of them is in use any more: so shards compact
// in the same round. An emptied shard does not hand a page to another one: who has found an entry in there
// may still lock it, and would wait in the queue of the wrong shard.
type chunks struct {
	sync.Mutex
	rest []entry
}

const (
	mostLen  = entries.HugePage / int(unsafe.Sizeof(entry{}))
	manyKeys = mostLen // from so many on, the pages come from chunks
	inUnused = 64      // a chunk is this part of the keys that there are, so what is unused of it is less
)

// page returns the entries of a page.
func (t *Table) page(n int) []entry {
	keys := t.count.Load()
	if n < entries.PageLen || keys < int64(manyKeys) {
		return make([]entry, n)
	}
	c := &t.chunks
	c.Lock()
	defer c.Unlock()
	if len(c.rest) < n {
		c.rest = make([]entry, min(keys/inUnused, int64(mostLen))/entries.PageLen*entries.PageLen)
		entries.AdviseHuge(uintptr(unsafe.Pointer(&c.rest[0])), uintptr(len(c.rest))*unsafe.Sizeof(entry{}))
	}
	p := c.rest[:n:n]
	c.rest = c.rest[n:]
	return p
}

// reset gives the rest of a chunk back.
func (c *chunks) reset() {
	c.Lock()
	c.rest = nil
	c.Unlock()
}
