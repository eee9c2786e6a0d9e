package slab

import (
	"math/rand/v2"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
)

// Random blocks are filled with their own number: no block may overlap another, whatever was freed in
// between.
func TestBlocksDoNotOverlap(t *testing.T) {
	type block struct {
		ref   Ref
		class uint8
		mark  uint64
	}
	seed := explore.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	var s Slab[uint64]
	var live []block
	for mark := uint64(1); mark < 20_000; mark++ {
		if len(live) > 0 && rng.IntN(100) < 48 {
			i := rng.IntN(len(live))
			b := live[i]
			for _, v := range s.Block(b.ref, b.class) {
				if v != b.mark {
					t.Fatalf("block %d of class %d holds %d, want %d", b.ref, b.class, v, b.mark)
				}
			}
			s.Free(b.ref, b.class)
			live[i] = live[len(live)-1]
			live = live[:len(live)-1]
			continue
		}
		class := uint8(rng.IntN(13))
		b := block{s.Alloc(class), class, mark}
		if b.ref == 0 {
			t.Fatal("Alloc returned the zero Ref")
		}
		if n := len(s.Block(b.ref, class)); n != 1<<class {
			t.Fatalf("block of class %d has %d elements", class, n)
		}
		for i := range s.Block(b.ref, class) {
			s.Block(b.ref, class)[i] = mark
		}
		live = append(live, b)
	}
}

func TestFreedBlocksAreUsedAgain(t *testing.T) {
	var s Slab[byte]
	for range 1000 {
		for class := range uint8(12) {
			s.Free(s.Alloc(class), class)
		}
	}
	if n := len(s.pages); n > 20 {
		t.Errorf("%d pages for one block at a time", n)
	}
}

func TestClass(t *testing.T) {
	for n, want := range map[int]uint8{0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 1024: 10, 1025: 11} {
		if got := Class(n); got != want {
			t.Errorf("Class(%d) = %d, want %d", n, got, want)
		}
	}
}
