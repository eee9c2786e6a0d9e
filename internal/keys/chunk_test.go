package keys

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"
	"weak"
)

// No two pages share memory, and none of their entries is in three cache lines.
func TestPagesOfChunks(t *testing.T) {
	tab := New(options(time.Minute, 0, false))
	defer tab.Close()
	tab.count.Store(int64(manyKeys)) // it is large
	defer tab.count.Store(0)
	places := make(map[*entry]bool)
	for range 3 * mostLen / pageLen {
		page := tab.page(pageLen)
		for i := range page {
			if e := &page[i]; places[e] || uintptr(unsafe.Pointer(e))%128 != 0 {
				t.Fatalf("entry at %p, seen before: %v", e, places[e])
			}
			places[&page[i]] = true
		}
	}
	if len(tab.page(firstPage)) != firstPage || len(places) != 3*mostLen {
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
	if tab.chunks.rest != nil {
		t.Error("it has one")
	}
}
