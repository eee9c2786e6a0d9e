package cells

import (
	"sync"
	"sync/atomic"

	"github.com/trypema/trypema/internal/table/slab"
)

// Arena is a slab whose blocks are read without a lock by whoever owns them. The zero value is empty.
type Arena[T any] struct {
	mu    sync.Mutex
	slab  slab.Slab[T]
	pages atomic.Pointer[[][]T]
}

// Alloc returns a block of 1<<class elements with undefined content.
func (a *Arena[T]) Alloc(class uint8) slab.Ref {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.slab.Alloc(class)
	if old := a.pages.Load(); old == nil || len(*old) != len(a.slab.Pages()) {
		pages := a.slab.Pages()
		a.pages.Store(&pages)
	}
	return r
}

// Block returns the elements of a block, which the caller must own.
func (a *Arena[T]) Block(r slab.Ref, class uint8) []T {
	return slab.BlockOf(*a.pages.Load(), r, class)
}

// Free takes a block back.
func (a *Arena[T]) Free(r slab.Ref, class uint8) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slab.Free(r, class)
}

// Memory is where windows keep the counts that do not fit into their states.
type Memory struct{ Arena[uint64] }
