package cells

import (
	"math/bits"

	"github.com/trypema/trypema/internal/window"
)

// row is one number for each cell, packed into words: 16 of 4 bits, 4 of 16 bits, or one.
type row struct {
	words []uint64
	log   uint8 // of the numbers in a word
}

// width is how wide the numbers of a window are.
type width uint8

const (
	narrow width = iota // 4 bits, in the state, and nothing was declined
	paired              // 4 bits for each of admitted and declined
	middle              // 16 bits
	broad               // 64 bits
)

func (w width) log() uint8 { return [...]uint8{4, 4, 2, 0}[w&3] }

// words is the number of words of a row.
func (w width) words() int { return Cells >> w.log() }

// widthOf returns the least width for what a cell holds.
func widthOf(c window.Counts) width {
	switch n := max(c.Admitted, c.Declined); {
	case n < 1<<4 && c.Declined == 0:
		return narrow
	case n < 1<<4:
		return paired
	case n < 1<<16:
		return middle
	}
	return broad
}

// place returns the word of a cell, and how far it is shifted there.
func (r row) place(i int) (word int, shift uint) {
	return i >> r.log, uint(i) & (1<<r.log - 1) << (6 - r.log)
}

func (r row) get(i int) uint64 {
	word, shift := r.place(i)
	return r.words[word] >> (shift & 63) & (^uint64(0) >> (64 - 64>>r.log))
}

// change adds to a cell, in which the sum must fit. It may be less than 0, as modulo 2⁶⁴.
func (r row) change(i int, n uint64) {
	word, shift := r.place(i)
	r.words[word] += n << (shift & 63)
}

// sum adds up the cells from i on, and clears them if that is wanted.
func (r row) sum(i, n int, drop bool) (total uint64) {
	per := 1 << r.log
	for n > 0 {
		word, low := i>>r.log, i&(per-1)
		here := min(n, per-low)
		mask := ^uint64(0) >> (64 - here<<(6-r.log)) << (low << (6 - r.log))
		if x := r.words[word] & mask; x != 0 {
			total += r.fold(x)
			if drop {
				r.words[word] ^= x
			}
		}
		n -= here
		if i += here; i == Cells {
			i = 0
		}
	}
	return total
}

// fold adds up the numbers of a word.
func (r row) fold(x uint64) uint64 {
	const shorts = 0x0000ffff0000ffff
	switch r.log {
	case 4:
		return fold4(x)
	case 2:
		x = x&shorts + x>>16&shorts
		return x&math32 + x>>32
	}
	return x
}

// fold4 adds up 16 numbers of 4 bits.
func fold4(x uint64) uint64 {
	const nibbles, bytes = 0x0f0f0f0f0f0f0f0f, 0x0101010101010101
	return (x&nibbles + x>>4&nibbles) * bytes >> 56 // at most 16 × 15
}

const math32 = 1<<32 - 1

// zeros returns how many cells from i on, of at most n, are 0.
func (r row) zeros(i, n int) (skipped int) {
	per := 1 << r.log
	for n > 0 {
		word, low := i>>r.log, i&(per-1)
		here := min(n, per-low)
		if x := r.words[word] >> (low << (6 - r.log)); x != 0 {
			if k := bits.TrailingZeros64(x) >> (6 - r.log); k < here {
				return skipped + k
			}
		}
		skipped += here
		n -= here
		if i += here; i == Cells {
			i = 0
		}
	}
	return skipped
}
