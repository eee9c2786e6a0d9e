package cells_test

import (
	"math"
	"slices"
	"testing"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/internal/window"
)

// count is mostly small, sometimes at the edge of what fits.
func count(t *model.Tape) uint64 {
	switch b := t.Next(); {
	case b < 200:
		return uint64(b%16) + 1
	case b < 240:
		return uint64(b-200)*3000 + 1
	case b < 248:
		return math.MaxInt64 - uint64(b-240)
	default:
		return math.MaxUint64 - uint64(b-248)
	}
}

// event is what was admitted at an instant, as it was settled last, and where it was recorded.
type event struct {
	from, at int64
	n        uint64
}

// agree drives a window and its twin with the same calls, and fails at the first difference.
func agree(t *testing.T, data []byte) {
	in := model.Tape{Data: data}
	length := model.Pick[int64](&in, 400_000, 1_000_000, 11_100_000, 997_000_000)
	bucket := model.Pick(&in, length/11, (length+99)/100+1, length/111+1, length/10, length/2, length)
	grid, ok := cells.New(length, bucket)
	if !ok && bucket == length/111+1 {
		return
	}
	if !ok {
		t.Fatalf("no grid of %d, %d", length, bucket)
	}
	factor := []float64{1.5, 1, 1.01, 3, 1e18}[in.Next()%5]
	suppressed := in.Next() < 128
	var memory cells.Memory
	var s cells.State
	w := cells.Window{State: &s, Grid: &grid, Memory: &memory, Declines: suppressed}
	twin := model.Grid{Window: length, Cell: grid.Bucket()}
	now := int64(1)
	var events []event // that may be settled
	for step := 0; len(in.Data) > 0; step++ {
		switch b := in.Next(); {
		case b < 128: // small steps
			now += int64(b%8) * bucket / 8
		case b < 176: // to an edge
			now += model.Pick(&in, bucket-1, bucket, bucket+1, length-1, length, length+1, length-bucket,
				length/10)
		case b < 208: // to the very instant when the oldest cell expires
			twin.Counts(now)
			if w.Advance(now); !w.Empty() {
				_, at, _ := w.Open()
				if at == 0 {
					at = w.Last() + length
				}
				now = at - int64(b&1)
			}
		case b < 216: // the clock steps back
			now -= int64(b)
		default: // an idle time
			now += int64(b) * length / 100
		}
		now = max(now, 1)
		capacity := count(&in)%math.MaxInt64 + 1
		op, n, record := in.Next(), count(&in), in.Next()%4 > 0
		switch {
		case op < 220:
			var got, want window.Verdict
			if suppressed {
				l, dice := window.NewLaw(grid.Span(), capacity, factor), float64(in.Next())/256
				w.Suppressed(&got, l, now, n, dice, record)
				want = twin.Suppressed(l, now, n, dice, record)
			} else {
				first, quick := w.First(), record && in.Next() < 128
				have, began, ok := uint64(0), false, false
				switch {
				case quick && s.Wide():
					have, began, ok = w.TakeWide(capacity, now, n)
				case quick:
					have, began, ok = s.Take(&grid, capacity, now, n)
				}
				if ok {
					got = window.Verdict{Allowed: true, Now: have, Then: have}
				} else {
					w.Absolute(&got, capacity, now, n, record)
				}
				if ok && began != (w.First() != first) {
					t.Fatalf("step %d: a cell has begun: %v; it began at %d and before at %d", step, began, w.First(), first)
				}
				want = twin.Absolute(capacity, now, n, record)
			}
			if got != want {
				t.Fatalf("step %d, op %d, %+v, now %d, capacity %d, cost %d, record %v:\n got %+v\nwant %+v",
					step, op, grid, now, capacity, n, record, got, want)
			}
			if got.Allowed && record {
				events = append(events, event{w.Last(), w.Last(), n})
			}
		case in.Next() < 80: // it is recorded so that it leaves early, or was so long ago
			at := w.Advance(now)
			life := model.Pick(&in, 0, 1, 2, bucket, length/8, length/2, length-bucket, length-1,
				length) + int64(in.Next()%4)
			from := window.Span{Window: length}.Backdate(at, life)
			c := window.Counts{Admitted: min(n%(1<<40), w.Room())}
			if suppressed && in.Next() < 32 {
				c.Declined = 3
			}
			w.Place(at, from, c)
			twin.Place(now, from, c)
			events = append(events, event{from, at, c.Admitted})
		case len(events) > 0 && in.Next() < 160:
			e := &events[max(0, len(events)-1-int(in.Next())%len(events))]
			is := model.Pick(&in, 0, e.n/2, e.n, n)
			removed, added := w.Commit(w.Advance(now), e.from, e.at, e.n, is)
			if r, a := twin.Commit(now, e.from, e.at, e.n, is); removed != r || added != a ||
				w.Counts() != twin.Counts(now) {
				t.Fatalf("step %d, %+v, now %d: settle %+v to %d: -%d+%d, want -%d+%d; %+v, want %+v", step,
					grid, now, *e, is, removed, added, r, a, w.Counts(), twin.Counts(now))
			}
			if e.n, e.from = is, e.at; is == 0 {
				events = slices.DeleteFunc(events, func(e event) bool { return e.n == 0 })
			}
		case !suppressed && op > 250 && !w.Empty():
			w.Advance(now)
			twin.Counts(now)
			if closes, _, _ := w.Open(); !w.Empty() && now < closes { // events joined a hot key
				at := max(now, w.Last())
				w.Join(at, window.Counts{Admitted: n % (1 << 30)})
				twin.Record(at, window.Counts{Admitted: n % (1 << 30)})
			}
		default:
			at := w.Advance(now)
			switch empty := w.Empty(); {
			case op < 235 && !empty:
				w.Resize(n, window.Newest)
				twin.Resize(now, n, window.Newest)
			case op < 250 && !empty:
				w.Resize(n, window.Oldest)
				twin.Resize(now, n, window.Oldest)
			default:
				w.Replace(at, n)
				twin.Replace(now, n)
			}
		}
		if got, want := w.Last(), twin.Last(); got != want {
			t.Fatalf("step %d, op %d, now %d, %+v: last event at %d, want %d; %+v", step, op, now, grid, got, want, twin)
		}
		check(t, &w)
		if record && in.Next() < 4 {
			w.Clear()
			s = cells.State{}
			twin.Delete()
		}
		if in.Next() < 8 { // what holds windows may move them
			w.Move(new(cells.Memory))
		}
	}
}

// check fails if the sums are not those of the cells.
func check(t *testing.T, w *cells.Window) {
	t.Helper()
	var c window.Counts
	for i := range cells.Cells {
		c = c.Plus(w.In(i))
	}
	if c != w.Counts() {
		t.Fatalf("the cells hold %+v, want %+v", c, w.Counts())
	}
}

func FuzzTwin(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(model.Noise(seed, 400))
	}
	f.Fuzz(agree)
}

func TestTwin(t *testing.T) {
	first := explore.Seed(t)
	for run := range uint64(explore.Runs(300, 50_000)) {
		agree(t, model.Noise(first+run, 4000))
	}
}
