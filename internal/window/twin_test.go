package window_test

import (
	"math"
	"slices"
	"testing"

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
		return uint64(b-200)*50 + 1
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
	s := window.Span{Window: model.Pick[int64](&in, 10, 100, 1000, 97), Bucket: 1}
	s.Bucket = model.Pick[int64](&in, 1, 3, s.Window/10, s.Window/2, s.Window)
	factor := []float64{1.5, 1, 1.01, 3, 1e18}[in.Next()%5]
	var (
		g    window.Groups
		w    window.Window
		twin = model.Twin{Span: s}
		now  = int64(1)
	)
	var events []event // that may be settled
	for step := 0; len(in.Data) > 0; step++ {
		switch b := in.Next(); {
		case b < 128: // small steps
			now += int64(b % 8)
		case b < 176: // to an edge
			now += model.Pick[int64](&in, s.Bucket-1, s.Bucket, s.Bucket+1, s.Window-1, s.Window, s.Window+1,
				s.Window-s.Bucket, s.Recent())
		case b < 208: // to the very instant when the oldest group expires
			if w.Advance(&g, s, now); w.Counts() != (window.Counts{}) {
				_, at, _ := w.Open(&g, s)
				if at == 0 {
					at = w.Last() + s.Window
				}
				now = at - int64(b&1)
			}
		case b < 216: // the clock steps back
			now -= int64(b)
		default: // an idle time
			now += int64(b) * s.Window / 100
		}
		now = max(now, 1)
		capacity := count(&in)%math.MaxInt64 + 1
		op, n, record := in.Next(), count(&in), in.Next()%4 > 0
		switch {
		case op < 220:
			var got, want window.Verdict
			if op < 110 {
				w.Absolute(&got, &g, s, capacity, now, n, record)
				want = twin.Absolute(capacity, now, n, record)
			} else {
				l, dice := window.NewLaw(s, capacity, factor), float64(in.Next())/256
				w.Suppressed(&got, &g, s, l, now, n, dice, record)
				want = twin.Suppressed(l, now, n, dice, record)
			}
			if got != want {
				t.Fatalf("step %d, op %d, %+v, now %d, capacity %d, cost %d, record %v:\n got %+v\nwant %+v",
					step, op, s, now, capacity, n, record, got, want)
			}
			if got.Allowed && record {
				events = append(events, event{w.Last(), w.Last(), n})
			}
		case in.Next() < 80: // it is recorded so that it leaves early, or was so long ago
			at := w.Advance(&g, s, now)
			from := s.Backdate(at, model.Pick(&in, 0, 1, 2, s.Bucket, s.Window/8, s.Window/2,
				s.Window-s.Bucket, s.Window-1, s.Window)+int64(in.Next()%4))
			c := window.Counts{Admitted: min(n%(1<<40), math.MaxInt64-min(w.Counts().Observed(), math.MaxInt64))}
			if in.Next() < 32 {
				c.Declined = 3
			}
			w.Place(&g, s, at, from, from, c)
			twin.Place(now, from, c)
			events = append(events, event{from, at, c.Admitted})
		case len(events) > 0 && in.Next() < 160:
			i := int(in.Next()) % len(events)
			e := &events[max(0, len(events)-1-i)]
			is := model.Pick(&in, 0, e.n/2, e.n, n)
			removed, added := w.Commit(&g, s, w.Advance(&g, s, now), e.from, e.at, e.n, is)
			if r, a := twin.Commit(now, e.from, e.at, e.n, is); removed != r || added != a ||
				w.Counts() != twin.Counts(now) {
				t.Fatalf("step %d, %+v, now %d: settle %+v to %d: -%d+%d, want -%d+%d; %+v, want %+v", step,
					s, now, *e, is, removed, added, r, a, w.Counts(), twin.Counts(now))
			}
			if e.n, e.from = is, e.at; is == 0 {
				events = slices.DeleteFunc(events, func(e event) bool { return e.n == 0 })
			}
		default:
			at := w.Advance(&g, s, now)
			switch empty := w.Counts() == (window.Counts{}); {
			case op < 235 && !empty:
				w.Resize(&g, s, n, window.Newest)
				twin.Resize(now, n, window.Newest)
			case op < 250 && !empty:
				w.Resize(&g, s, n, window.Oldest)
				twin.Resize(now, n, window.Oldest)
			default:
				w.Replace(&g, s, at, n)
				twin.Replace(now, n)
			}
		}
		if got, want := w.Last(), twin.Last(); got != want {
			t.Fatalf("step %d: last event at %d, want %d", step, got, want)
		}
		if n := groups(&g, &w); n > 0 && int64(n) > 4*s.Window/s.Bucket+64 {
			t.Fatalf("step %d, %+v: %d groups", step, s, n)
		}
		if record && in.Next() < 4 {
			w.Clear(&g)
			w = window.Window{}
			twin.Delete()
		}
		if in.Next() < 8 { // what holds windows may move them
			var to window.Groups
			w.Move(&g, &to)
			g = to
		}
	}
}

// groups is the number of groups of a window.
func groups(g *window.Groups, w *window.Window) (n int) {
	for range w.All(g) {
		n++
	}
	return n
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
