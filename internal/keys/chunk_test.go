package keys

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/trypema/trypema/internal/table/entries"
	"github.com/trypema/trypema/internal/window"
)

// pageOfChunk returns a page, once it comes from a chunk.
func pageOfChunk(t *testing.T, tab *Table) []entry {
	t.Helper()
	c := &tab.chunks
	for range 10_000 {
		c.Lock()
		has := len(c.rest) >= entries.PageLen || c.next != nil
		c.Unlock()
		page := tab.page(entries.PageLen) // which has one made, if there is none
		if has {
			return page
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("no chunk is made")
	return nil
}

// No two pages share memory, and none of their entries is in three cache lines.
func TestPagesOfChunks(t *testing.T) {
	tab := New(options(time.Minute, 0, false))
	defer tab.Close()
	tab.count.Store(1 << 20) // it is large
	defer tab.count.Store(0)
	places := make(map[*entry]bool)
	for range 3 * mostLen / entries.PageLen {
		page := pageOfChunk(t, tab)
		for i := range page {
			if e := &page[i]; places[e] || uintptr(unsafe.Pointer(e))%128 != 0 {
				t.Fatalf("entry at %p, seen before: %v", e, places[e])
			}
			places[&page[i]] = true
		}
	}
	if len(tab.page(entries.PageLen-1)) != entries.PageLen-1 || len(places) != 3*mostLen {
		t.Errorf("%d entries", len(places))
	}
}

// When the keys of a large table have left, its chunks are collected.
func TestChunksAreCollected(t *testing.T) {
	tab := New(options(time.Minute, 0, false))
	defer tab.Close()
	const n = 2 * manyKeys
	var last weak.Pointer[entry]
	for i := range n {
		hd := tab.acquire(fmt.Sprint("key ", i), 1)
		last = weak.Make(hd.e)
		hd.Unlock()
	}
	for i := range n {
		key := fmt.Sprint("key ", i)
		tab.Remove(tab.Hash(key), key)
	}
	if !tab.Empty() {
		t.Fatalf("%d keys are left", tab.Len())
	}
	for i := 0; last.Value() != nil; i++ {
		if i == 100 {
			t.Fatal("the last chunk is not collected")
		}
		runtime.GC()
	}
}

// A small table has no chunk.
func TestSmallTableHasNoChunk(t *testing.T) {
	tab := New(options(time.Minute, 0, false))
	defer tab.Close()
	for i := range manyKeys - 1 {
		hd := tab.acquire(fmt.Sprint("key ", i), 1)
		hd.Unlock()
	}
	if tab.chunks.rest != nil || tab.chunks.next != nil || tab.chunks.making {
		t.Error("it has one")
	}
}

// Shards share chunks. If one has so few keys that they move, those of the others move, too: else the chunks
// that it leaves stay, and it takes new ones whenever keys come back.
func TestShardsCompactInOneRound(t *testing.T) {
	o := options(time.Hour, 0, false)
	o.Clock = func() int64 { return 0 }
	tab := newTable(t, o)
	tab.sweep.Close() // the test visits
	const most, left = 4 * manyKeys, manyKeys
	for i := range most {
		hd := tab.acquire(fmt.Sprint("key ", i), 0)
		hd.Record(0, window.Counts{Admitted: 1})
		hd.Unlock()
	}
	for i := left; i < most; i++ {
		key := fmt.Sprint("key ", i)
		tab.Remove(tab.Hash(key), key)
	}
	for range 2 {
		for i := range tab.shards {
			tab.Visit(i)
		}
	}
	size := 0
	for i := range tab.shards {
		for page := range tab.shards[i].index.Load().Pages() {
			size += entries.LengthOf(page)
		}
	}
	if tab.Len() != left || size > 2*left {
		t.Errorf("%d keys in %d entries", tab.Len(), size)
	}
	for range tab.shards {
		tab.Visit(0)
	}
	if n := tab.thrifty.Load(); n != 0 {
		t.Errorf("the next %d shards compact early, though nothing has moved for a round", n)
	}
}
