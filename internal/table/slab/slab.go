// Package slab allocates blocks of a power-of-two length out of a few large pages, addressed by a number
// instead of a pointer. A structure made of such numbers holds nothing for the garbage collector to look at,
// however large it grows.
package slab

import "math/bits"

// Ref addresses a block. The zero Ref is no block.
type Ref uint32

const (
	pageBits = 10
	pageLen  = 1 << pageBits
)

// Slab hands out blocks of T, which must not contain pointers. The zero value is empty and ready. It is not
// safe for concurrent use. Memory goes back to the runtime only with the Slab as a whole, except that of
// blocks of 1024 elements and more; freed smaller blocks are used again for blocks of the same length.
type Slab[T any] struct {
	pages  [][]T
	free   [][]Ref // by class
	spare  []Ref   // page numbers without a page
	bump   Ref     // next unused element of the page being cut
	limit  Ref     // end of that page
	growth int     // length of that page
}

// Class returns the smallest class whose blocks hold n elements: a block of class c has 1<<c.
func Class(n int) uint8 { return uint8(bits.Len(uint(max(n, 1) - 1))) }

// Alloc returns a block of 1<<class elements with undefined content.
func (s *Slab[T]) Alloc(class uint8) Ref {
	if int(class) < len(s.free) {
		if f := s.free[class]; len(f) > 0 {
			s.free[class] = f[:len(f)-1]
			return f[len(f)-1]
		}
	}
	n := Ref(1) << class
	if n >= pageLen {
		return s.addPage(int(n))
	}
	if s.bump+n > s.limit {
		s.recycleRest()
		// Pages start small, so that a slab with little in it is little.
		s.growth = min(max(2*s.growth, 32, int(n)), pageLen)
		s.bump = s.addPage(s.growth)
		s.limit = s.bump + Ref(s.growth)
	}
	r := s.bump
	s.bump += n
	return r
}

// recycleRest turns what is left of the page being cut into free blocks.
func (s *Slab[T]) recycleRest() {
	for s.bump < s.limit {
		class := uint8(bits.Len32(uint32(s.limit-s.bump))) - 1
		s.keep(s.bump, class)
		s.bump += 1 << class
	}
}

func (s *Slab[T]) addPage(n int) Ref {
	if k := len(s.spare); k > 0 {
		r := s.spare[k-1]
		s.spare = s.spare[:k-1]
		s.pages[r>>pageBits] = make([]T, n)
		return r
	}
	if len(s.pages) == 0 {
		s.pages = append(s.pages, nil) // so that no block has Ref 0
	}
	s.pages = append(s.pages, make([]T, n))
	return Ref(len(s.pages)-1) << pageBits
}

// Block returns the elements of a block. The slice is valid until the block is freed.
func (s *Slab[T]) Block(r Ref, class uint8) []T { return BlockOf(s.pages, r, class) }

// Pages returns the pages, for BlockOf. A page stays where it is. A block is in the pages that were returned
// after it was allocated.
func (s *Slab[T]) Pages() [][]T { return s.pages }

// BlockOf returns the elements of a block in pages that Pages has returned. To read pages while the slab is
// used by others is safe for whoever owns the block.
func BlockOf[T any](pages [][]T, r Ref, class uint8) []T {
	i := int(r & (pageLen - 1))
	return pages[r>>pageBits][i : i+1<<class]
}

// Free takes a block back.
func (s *Slab[T]) Free(r Ref, class uint8) {
	if 1<<class >= pageLen {
		s.pages[r>>pageBits] = nil
		s.spare = append(s.spare, r)
		return
	}
	s.keep(r, class)
}

func (s *Slab[T]) keep(r Ref, class uint8) {
	for int(class) >= len(s.free) {
		s.free = append(s.free, nil)
	}
	s.free[class] = append(s.free[class], r)
}
