package window

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/table/slab"
)

// sizes returns the observed count of each group, oldest first.
func (w *Window) sizes(g *Groups) (sizes []uint64) {
	for i := 0; i <= int(w.n) && !w.empty(); i++ {
		before, end := w.bounds(g, i)
		sizes = append(sizes, end.minus(before).Observed())
	}
	return sizes
}

func TestGroupBoundaries(t *testing.T) {
	s := Span{Window: 1000, Bucket: 100}
	for _, test := range []struct {
		name   string
		events []int64
		at     int64
		groups []uint64
	}{
		{"one event lives until a window later", []int64{50}, 1049, []uint64{1}},
		{"and no longer", []int64{50}, 1050, nil},
		{"a group takes events for less than a bucket", []int64{50, 149}, 149, []uint64{2}},
		{"from its first event, not its last", []int64{50, 100, 150}, 150, []uint64{2, 1}},
		{"it expires by its last event", []int64{50, 149}, 1148, []uint64{2}},
		{"whole", []int64{50, 149}, 1149, nil},
		{"the oldest group goes first", []int64{50, 150, 250}, 1050, []uint64{1, 1}},
		{"an event after an empty window starts anew", []int64{50, 1050}, 1050, []uint64{1}},
		{"a clock that steps back joins the newest group", []int64{500, 100}, 500, []uint64{2}},
		{"and does not bring back what has expired", []int64{50, 1050, 60}, 1050, []uint64{2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var g Groups
			var w Window
			for _, at := range test.events {
				w.Record(&g, s, w.Advance(&g, s, at), Counts{Admitted: 1})
			}
			w.Advance(&g, s, test.at)
			if got := w.sizes(&g); !slices.Equal(got, test.groups) {
				t.Errorf("groups %v, want %v", got, test.groups)
			}
		})
	}
}

func TestResize(t *testing.T) {
	s := Span{Window: 1000, Bucket: 10}
	for _, test := range []struct {
		keep  Keep
		total []uint64
		want  []uint64
	}{
		{Newest, []uint64{8}, []uint64{2, 6}},
		{Oldest, []uint64{8}, []uint64{4, 4}},
		{Newest, []uint64{8, 11}, []uint64{2, 9}},
		{Oldest, []uint64{8, 11}, []uint64{7, 4}},
		{Newest, []uint64{15}, []uint64{4, 5, 6}},
		{Oldest, []uint64{15}, []uint64{4, 5, 6}},
		{Newest, []uint64{11}, []uint64{5, 6}},
		{Oldest, []uint64{9}, []uint64{4, 5}},
		{Newest, []uint64{1}, []uint64{1}},
		{Oldest, []uint64{1}, []uint64{1}},
		{Newest, []uint64{math.MaxUint64}, []uint64{4, 5, math.MaxUint64 - 9}},
		{Oldest, []uint64{math.MaxUint64}, []uint64{math.MaxUint64 - 11, 5, 6}},
	} {
		var g Groups
		var w Window
		for i, n := range []uint64{4, 5, 6} {
			now := int64(100 * (i + 1))
			w.Record(&g, s, w.Advance(&g, s, now), Counts{Admitted: n})
		}
		for _, total := range test.total {
			w.Resize(&g, s, total, test.keep)
		}
		if got := w.sizes(&g); !slices.Equal(got, test.want) {
			t.Errorf("4, 5, 6 → %v, keep %v: %v, want %v", test.total, test.keep, got, test.want)
		}
	}
}

func TestCutKeepsTheShareOfDeclined(t *testing.T) {
	for _, test := range []struct {
		group Counts
		kept  uint64
		want  Counts
	}{
		{Counts{6, 4}, 5, Counts{3, 2}},
		{Counts{6, 4}, 4, Counts{3, 1}}, // floor(1.6)
		{Counts{6, 4}, 1, Counts{1, 0}},
		{Counts{0, 10}, 7, Counts{0, 7}},
		{Counts{math.MaxInt64, math.MaxInt64}, 3, Counts{2, 1}},
	} {
		if got := cut(test.group, test.kept); got != test.want {
			t.Errorf("%+v cut to %d: %+v, want %+v", test.group, test.kept, got, test.want)
		}
	}
}

// Whatever happens, a window holds at most W/B + 2 groups, and lets go of their memory.
func TestWindowHoldsBoundedGroups(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range []Span{{1000, 1}, {1000, 10}, {1000, 999}, {1000, 1000}, {1003, 10}} {
		var g Groups
		var w Window
		most := 0
		for now := int64(0); now < 20*s.Window; now += rng.Int64N(s.Bucket + 2) {
			w.Record(&g, s, w.Advance(&g, s, now), Counts{Admitted: 1})
			most = max(most, int(w.n)+1)
		}
		if limit := int(s.Window/s.Bucket) + 2; most > limit {
			t.Errorf("%+v: %d groups, want at most %d", s, most, limit)
		}
		w.Advance(&g, s, math.MaxInt64)
		if w.block != 0 || !w.empty() {
			t.Errorf("%+v: memory held by an empty window", s)
		}
	}
}

// A block that a burst of groups has needed is given back while the window is still in use.
func TestBlocksShrink(t *testing.T) {
	s := Span{Window: 1000, Bucket: 1}
	var g Groups
	var w Window
	for now := range int64(1000) {
		w.Record(&g, s, w.Advance(&g, s, now), Counts{Admitted: 1})
	}
	w.Record(&g, s, w.Advance(&g, s, 1990), Counts{Admitted: 1})
	if w.class > 5 {
		t.Errorf("%d closed groups in a block of %d", w.n, 1<<w.class)
	}
}

// Where as many groups come as go, no block is exchanged for another.
func TestBlocksStay(t *testing.T) {
	for _, c := range []Counts{{Admitted: 1}, {Declined: 1}} {
		for groups := int64(0); groups < 300; groups += int64(explore.Size(7, 1)) {
			s := Span{Window: 10 * (groups + 1), Bucket: 10}
			var g Groups
			var w Window
			var block slab.Ref
			for i := range 10 * groups {
				w.Record(&g, s, w.Advance(&g, s, 10*i), c)
				if i == 5*groups {
					block = w.block
				}
				if i > 5*groups && w.block != block {
					t.Fatalf("%d groups of %+v: another block of %d words at event %d", groups, c, 1<<w.class,
						i)
				}
			}
		}
	}
}

func BenchmarkAbsolute(b *testing.B) {
	for _, buckets := range []int64{10, 1000, 100_000} {
		b.Run("buckets="+map[int64]string{10: "10", 1000: "1k", 100_000: "100k"}[buckets], func(b *testing.B) {
			s := Span{Window: 1e9, Bucket: 1e9 / buckets}
			var g Groups
			var w Window
			now := int64(0)
			for b.Loop() {
				now += 3000
				var v Verdict
				w.Absolute(&v, &g, s, 200_000, now, 1, true)
			}
		})
	}
}
