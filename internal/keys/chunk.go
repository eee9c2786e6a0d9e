package keys

import (
	"runtime"
	"sync"
	"unsafe"
)

// chunks is where the pages of a large table come from. A chunk is one page of the operating system of the
// kind that is called huge: the translation of its address is nearly always in the processor. That of one of
// many small pages is not, and then a call waits for memory twice.
//
// The first touch of a huge page can take milliseconds. So a goroutine makes each chunk and touches it, while
// the one before is in use. A page that is needed earlier comes from elsewhere.
//
// A chunk has pages of many shards, and is collected when none of them is in use any more: so shards compact
// in the same round. An emptied shard does not hand a page to another one: who has found an entry in there
// may still lock it, and would wait in the queue of the wrong shard.
type chunks struct {
	sync.Mutex
	rest   []entry
	next   []entry
	making bool // a goroutine makes next, and ends after that
}

const (
	hugePage  = 2 << 20 // on most processors
	smallPage = 4 << 10 // or more
	chunkLen  = hugePage / int(unsafe.Sizeof(entry{}))
	manyKeys  = 2 * chunkLen // from so many on, the pages come from chunks
)

// page returns the entries of a page.
func (t *Table) page(n int) []entry {
	if n < pageLen || t.count.Load() < int64(manyKeys) {
		return make([]entry, n)
	}
	c := &t.chunks
	c.Lock()
	defer c.Unlock()
	if len(c.rest) < n {
		c.rest, c.next = c.next, nil
	}
	if c.next == nil && !c.making {
		c.making = true
		go t.makeChunk()
	}
	if len(c.rest) < n {
		return make([]entry, n)
	}
	p := c.rest[:n:n]
	c.rest = c.rest[n:]
	return p
}

// makeChunk makes the next chunk.
func (t *Table) makeChunk() {
	made := make([]entry, chunkLen)
	if over := uintptr(unsafe.Pointer(&made[0])) % hugePage; over > 0 {
		// The heap goes on where it has ended, so after this what is made next begins where a huge page does.
		runtime.KeepAlive(make([]entry, (hugePage-over)/unsafe.Sizeof(entry{})))
		made = make([]entry, chunkLen)
	}
	adviseHuge(uintptr(unsafe.Pointer(&made[0])))
	for i := 0; i < chunkLen; i += smallPage / int(unsafe.Sizeof(entry{})) {
		made[i].length = 0
	}
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
