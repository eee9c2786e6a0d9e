package cells_test

import (
	"math/rand/v2"
	"testing"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/window"
)

// What is known of a window that is open to callers is what the window itself says when the same events are
// in it: the odds, and how long to wait.
func TestOutlook(t *testing.T) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	for range explore.Runs(2000, 100_000) {
		length := int64(1_000_000)
		grid, _ := cells.New(length, []int64{10_000, 10_007, 140_000, 500_000, length}[rng.IntN(5)])
		capacity := uint64(1 + rng.IntN(300))
		law := window.NewLaw(grid.Span(), capacity, []float64{1.5, 1, 1.1, 4}[rng.IntN(4)])
		var memory cells.Memory
		w := cells.Window{State: new(cells.State), Grid: &grid, Memory: &memory, Declines: true}
		now := int64(1)
		for range 1 + rng.IntN(60) {
			now += rng.Int64N(length / 20)
			w.Record(w.Advance(now), window.Counts{Admitted: uint64(rng.IntN(20)), Declined: uint64(rng.IntN(40))})
		}
		if w.Empty() {
			continue
		}
		now = w.Advance(now)
		w.Record(now, window.Counts{Admitted: 1})
		open, more, hint, floor := w.Outlook(now), window.Counts{}, 0, 0
		closes, _, _ := w.Open()
		for now < closes {
			n := 1 + rng.Uint64N(capacity)*rng.Uint64N(2)
			add := window.Counts{Admitted: uint64(rng.IntN(5)), Declined: uint64(rng.IntN(9))}
			w.Record(w.Advance(now), add)
			more = more.Plus(add)
			got := law.Factor(open.Counts.Plus(more), open.Recent+more.Observed(), n)
			if want := w.Factor(law, w.Last(), n); got != want {
				t.Fatalf("the factor is %v, want %v", got, want)
			} else if want > 0 {
				at, admitted, next := open.Calms(law, more, w.Last(), n, hint, false)
				if wantAt, wantAdmitted := w.Calms(law, w.Last(), n); at != wantAt || admitted != wantAdmitted {
					t.Fatalf("%+v, capacity %d, cost %d at %d: calm at %d with %d, want %d with %d", grid, capacity, n,
						now, at, admitted, wantAt, wantAdmitted)
				}
				hint = next
				wantAt, wantAdmitted, want := open.Calms(law, more, closes-1, n, -1, false)
				if at, admitted, next = open.Calms(law, more, closes-1, n, floor, true); at != wantAt ||
					admitted != wantAdmitted || next != want {
					t.Fatalf("%+v, capacity %d, cost %d at %d: calm at %d with %d, want %d with %d", grid, capacity, n,
						now, at, admitted, wantAt, wantAdmitted)
				}
				if n == 1 {
					floor = next
				}
			}
			now += 1 + rng.Int64N(grid.Bucket()/3)
		}
	}
}
