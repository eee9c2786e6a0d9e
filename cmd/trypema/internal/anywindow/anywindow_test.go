package anywindow

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/explore"
)

type call struct{ before, after time.Duration }

// naive is the definition read aloud: for every call as the earliest, count those that certainly lie in its window.
func naive(calls []call, w time.Duration) int {
	fullest := 0
	for _, first := range calls {
		n := 0
		for _, c := range calls {
			if c.before >= first.before && c.after < first.before+w {
				n++
			}
		}
		fullest = max(fullest, n)
	}
	return fullest
}

func streamed(calls []call, w time.Duration) int {
	c := New(w)
	for _, x := range calls {
		c.Add(x.before, x.after)
	}
	return c.Max()
}

func TestCounterAgreesWithDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	for range explore.Runs(3000, 100_000) {
		w := time.Duration(1 + rng.IntN(60))
		span, delay := 1+rng.IntN(400), 1+rng.IntN(1+2*int(w)) // delays longer than the window too
		calls := make([]call, rng.IntN(80))
		for i := range calls {
			before := time.Duration(rng.IntN(span))
			calls[i] = call{before, before + time.Duration(rng.IntN(delay))}
		}
		slices.SortFunc(calls, func(a, b call) int { return int(a.after - b.after) })
		if got, want := streamed(calls, w), naive(calls, w); got != want {
			t.Fatalf("window %d, calls %v: got %d, want %d", w, calls, got, want)
		}
	}
}

func TestCounterAtTheBoundaries(t *testing.T) {
	const w = 10
	tests := []struct {
		name  string
		calls []call
		want  int
	}{
		{"nothing", nil, 0},
		{"one", []call{{5, 5}}, 1},
		{"exactly a window apart are two windows", []call{{0, 0}, {10, 10}}, 1},
		{"one instant less is one window", []call{{0, 0}, {9, 9}}, 2},
		{"a delay that leaves doubt is not counted", []call{{0, 0}, {9, 10}}, 1},
		{"a call as long as the window is never certain", []call{{0, 10}}, 0},
		{"a long call does not hide the others", []call{{4, 4}, {5, 5}, {0, 20}}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := streamed(tt.calls, w); got != tt.want {
				t.Errorf("streamed: got %d, want %d", got, tt.want)
			}
			if got := naive(tt.calls, w); got != tt.want {
				t.Errorf("naive: got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestCounterHoldsOneWindow(t *testing.T) {
	const w = 1000
	c := New(w)
	for i := range time.Duration(100_000) {
		c.Add(i, i)
	}
	if len(c.starts) > w || cap(c.starts) > 4*w {
		t.Errorf("holds %d of cap %d for a window of %d", len(c.starts), cap(c.starts), w)
	}
	if c.Max() != w {
		t.Errorf("max is %d, want %d", c.Max(), w)
	}
}
