package cells

import (
	"math/bits"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/window"
)

// spans are windows and buckets as options may have them.
func spans(yield func(length, bucket int64) bool) {
	for _, length := range []time.Duration{
		time.Millisecond, 3*time.Millisecond + 1, time.Second, 10*time.Second + 7, 24 * time.Hour,
		100 * 365 * 24 * time.Hour,
	} {
		for _, parts := range []int64{1, 2, 3, 7, 10, 99, 100, 101, 110} {
			for _, more := range []int64{0, 1, 12_345} {
				bucket := int64(length)/parts + more
				if bucket >= int64(time.Millisecond) && bucket <= int64(length) && !yield(int64(length), bucket) {
					return
				}
			}
		}
	}
}

// An event counts for at least a window, and at most for a window and a bucket, wherever in its cell it is.
func TestGridCountsLongEnough(t *testing.T) {
	for length, bucket := range spans {
		g, ok := New(length, bucket)
		if !ok {
			t.Errorf("a window of %d has too many buckets of %d", length, bucket)
			continue
		}
		if g.number >= Cells || g.life < length || g.life+g.bucket > length+bucket || g.bucket > bucket {
			t.Errorf("a window of %d and a bucket of %d: %+v", length, bucket, g)
		}
	}
}

// The number of a cell is what a division says, of the longest times too.
func TestSteps(t *testing.T) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	for length, bucket := range spans {
		g, _ := New(length, bucket)
		for range 200 {
			x := rng.Int64N(length + g.bucket)
			if rng.IntN(2) == 0 { // near an edge
				x = x/g.bucket*g.bucket + rng.Int64N(3) - 1
			}
			first := rng.Int64N(1 << 60)
			if got, want := g.steps(first, first+x), max(0, x)/g.bucket; got != want {
				t.Fatalf("%+v: %d is %d steps, want %d", g, x, got, want)
			}
		}
	}
	// Where the reciprocal is rounded up by most, a product with it is a step too far.
	g := Grid{bucket: 1<<61 + 1}
	g.inverse = ^uint64(0)/uint64(g.bucket) + 1
	x := 3*g.bucket - 1
	if hi, _ := bits.Mul64(uint64(x), g.inverse); hi != 3 {
		t.Errorf("the product is %d steps: choose another example", hi)
	}
	if got := g.steps(0, x); got != 2 {
		t.Errorf("%d steps, want 2", got)
	}
}

// A cell that holds as much as fits takes one more, in whatever width that needs.
func TestCellsAtTheirWidth(t *testing.T) {
	g, _ := New(int64(time.Second), int64(10*time.Millisecond))
	for _, full := range []uint64{14, 15, 16, 1<<16 - 2, 1<<16 - 1, 1 << 16, 1<<32 - 1} {
		var s State
		w := Window{State: &s, Grid: &g, Memory: new(Memory)}
		for i, n := range []uint64{3, full - 3, 1, 1} { // from 3 on in cells of four bits, if they can be
			var v window.Verdict
			w.Absolute(&v, 1<<40, 1, n, true)
			want := []uint64{3, full, full + 1, full + 2}[i]
			if got := w.in(int(w.at)); !v.Allowed || v.Now != want || got.Admitted != want || w.admitted() != want {
				t.Errorf("%d more: %+v, the cell holds %+v, want %d", n, v, got, want)
			}
		}
		var v window.Verdict
		w.Absolute(&v, 1<<40, g.bucket+1, 1, true)
		if got := w.in(int(w.at)); got.Admitted != 1 || w.in(w.place(1)).Admitted != full+2 {
			t.Errorf("the next cell holds %+v, the one before %+v", got, w.in(w.place(1)))
		}
	}
}

// TestAnswerIsForgotten: what Fits remembers is of no use once more was admitted, and the newest cell has all
// of its events when the next one begins.
func TestAnswerIsForgotten(t *testing.T) {
	g, _ := New(int64(time.Second), int64(10*time.Millisecond))
	w := Window{State: new(State), Grid: &g, Memory: new(Memory)}
	call := func(capacity uint64, cells int64, n uint64) (v window.Verdict) {
		w.Absolute(&v, capacity, 1+cells*(g.bucket+1), n, true) // not all of them as a cell begins
		return v
	}
	call(20, 0, 20)
	for cells := range int64(3) {
		if got := call(20, cells, 1); got.Allowed || got.Then != 5*uint64(cells) {
			t.Errorf("after %d cells: %+v, want a denial, and %d admitted events then", cells, got, 5*cells)
		}
		call(100, cells+1, 5)
	}
	for cells, want := range []uint64{20, 5, 5, 5} {
		if got := w.in(w.place(3 - int64(cells))).Admitted; got != want {
			t.Errorf("cell %d holds %d, want %d", cells, got, want)
		}
	}
}
