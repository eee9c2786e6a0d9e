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
// The first touch of a huge page can take milliseconds. So a goroutine makes each chunk and has the system
// prepare it, while the one before is in use. A page that is needed earlier comes from elsewhere.
//
// A chunk has pages of many shards, and is collected when none of them is in use any more: so shards compact
// in the same round. An emptied shard does not hand a page to another one: who has found an entry in there
// may still lock it, and would wait in the queue of the wrong shard.
type chunks struct {
	sync.Mutex
	rest   []entry
	next   []entry
	making bool // a goroutine makes next, and ends after that
	closed bool

	running sync.WaitGroup
}

const (
	mostLen  = entries.HugePage / int(unsafe.Sizeof(entry{}))
	manyKeys = mostLen // from so many on, the pages come from chunks
	inUnused = 128     // a chunk is this part of the keys that there are: of two, all may be unused
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
		c.rest, c.next = c.next, nil
	}
	if c.next == nil && !c.making && !c.closed {
		c.making = true
		c.running.Go(func() { t.makeChunk(int(min(keys/inUnused, int64(mostLen)))) })
	}
	if len(c.rest) < n {
		return make([]entry, n)
	}
	p := c.rest[:n:n]
	c.rest = c.rest[n:]
	return p
}

// makeChunk makes the next chunk, of so many entries.
func (t *Table) makeChunk(n int) {
	made := make([]entry, n/entries.PageLen*entries.PageLen)
	entries.Prepare(unsafe.Pointer(&made[0]), uintptr(len(made))*unsafe.Sizeof(entry{}))
	c := &t.chunks
	c.Lock()
	defer c.Unlock()
	c.making = false
	if !t.Empty() {
		c.next = made
	}
}

// reset gives back what is unused.
func (c *chunks) reset() {
	c.Lock()
	c.rest, c.next = nil, nil
	c.Unlock()
}

// close has no more chunks be made, and waits for the last. The table must be empty, so nothing keeps that.
func (c *chunks) close() {
	c.Lock()
	c.closed = true
	c.Unlock()
	c.running.Wait()
}
