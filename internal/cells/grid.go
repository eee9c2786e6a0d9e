// Package cells is the window of one key of Local: counts in the cells of a fixed grid. It takes the time as
// an argument, holds no lock and does no I/O. Instants and durations are nanoseconds.
//
// # The grid
//
// The first event of an empty window begins a cell. Cells are a bucket B long and follow each other without
// gaps. An event belongs to the cell in which it happens. A cell expires a window W after its end; the newest
// cell expires a window after its last event. So an event is counted for at least W and for at most W + B:
//
//	An event of a cell that is not the newest happened before the end of the cell. An event of the newest cell
//	happened at its last event or before. Both are counted for a window from there on.
//
//	Let an admission happen at t. Every event admitted in (t−W, t] is counted at t, and the admission left the count at
//	no more than the capacity. Any half-open interval of length W ends, at the latest, with its last admission t, and
//	holds nothing else that was admitted than what lies in (t−W, t]. So no interval of length W holds more than the
//	capacity.
//
// A window is N buckets long, so a cell expires exactly when another one begins: within a cell nothing
// expires, and to move on by some cells is to forget as many of the oldest. If W is not a multiple of B, the
// cells are shorter than B.
//
// # Compared with groups
//
// Package window has groups, which are anchored at their first event and expire with their last one. Groups
// need an instant each, and a search. Cells need neither: the place of an event is a division. So a key has
// all of its counts in 56 bytes while no cell holds more than 15.
package cells

import (
	"math"
	"math/bits"

	"github.com/trypema/trypema/internal/window"
)

// Grid is what the windows of one limiter have in common.
type Grid struct {
	window  int64  // W: how long an event counts
	bucket  int64  // the length of a cell
	number  int64  // N: how many cells are a window
	life    int64  // how long a cell counts after its end: N cells, at least W
	recent  int64  // how many cells are the recent part of a window
	inverse uint64 // 2⁶⁴ ÷ bucket, rounded up
}

// Cells is the number of cells that a window has room for, the newest included.
const Cells = 112

// New returns the grid of windows of a length, with cells of a bucket at most, which must be 2 or more. It
// reports false if the window has too many of them.
func New(length, bucket int64) (Grid, bool) {
	n := (length-1)/bucket + 1
	size := (length-1)/n + 1
	if n*size-length+size > bucket { // an event would count for longer than W + B
		n++
		size = (length-1)/n + 1
	}
	recent := window.Span{Window: length}.Recent()
	return Grid{
		window: length, bucket: size, number: n, life: n * size,
		recent: (recent-1)/size + 1, inverse: math.MaxUint64/uint64(size) + 1,
	}, n < Cells
}

// Window is how long an event counts.
func (g *Grid) Window() int64 { return g.window }

// Bucket is the length of a cell.
func (g *Grid) Bucket() int64 { return g.bucket }

// Span is what window.NewLaw wants for the law of such windows.
func (g *Grid) Span() window.Span {
	span := window.Span{Window: g.window}
	span.Bucket = (g.recent+1)*g.bucket - span.Recent() // so that both are the time that the recent cells cover
	return span
}

// steps returns how many cells after the cell that begins at first the instant is.
func (g *Grid) steps(first, now int64) int64 {
	x := now - first
	if x < g.bucket {
		return 0
	}
	hi, _ := bits.Mul64(uint64(x), g.inverse)
	q := int64(hi)
	if hi*uint64(g.bucket) > uint64(x) { // inverse is rounded up
		q--
	}
	return q
}
