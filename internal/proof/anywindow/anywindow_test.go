package anywindow

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/explore"
)

// naive is the definition: for each call as the earliest, it sums the calls that certainly lie in its window.
func naive(log []Admission, w time.Duration) (most uint64) {
	for _, first := range log {
		var sum uint64
		for _, a := range log {
			if !a.From.Before(first.From) && a.To.Before(first.From.Add(w)) {
				sum += a.Cost
			}
		}
		most = max(most, sum)
	}
	return most
}

// TestMost also holds for Counter, by which Most counts.
func TestMost(t *testing.T) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	start := time.Now()
	for range explore.Runs(1500, 100_000) {
		w := time.Duration(1 + rng.IntN(60))
		span, delay := 1+rng.IntN(400), 1+rng.IntN(1+2*int(w)) // delays longer than the window too
		log := make([]Admission, rng.IntN(80))
		for i := range log {
			from := start.Add(time.Duration(rng.IntN(span)))
			log[i] = Admission{From: from, To: from.Add(time.Duration(rng.IntN(delay))), Cost: rng.Uint64N(5)}
		}
		if got, want := Most(log, w), naive(log, w); got != want {
			t.Fatalf("window %d, log %v: got %d, want %d", w, log, got, want)
		}
	}
}

func TestMostAtTheBoundaries(t *testing.T) {
	const w = 10
	type call struct{ from, to time.Duration }
	tests := []struct {
		name  string
		calls []call
		want  uint64
	}{
		{"nothing", nil, 0},
		{"one", []call{{5, 5}}, 1},
		{"exactly a window apart are two windows", []call{{0, 0}, {10, 10}}, 1},
		{"one instant less is one window", []call{{0, 0}, {9, 9}}, 2},
		{"a delay that leaves doubt is not counted", []call{{0, 0}, {9, 10}}, 1},
		{"a call as long as the window is never certain", []call{{0, 10}}, 0},
		{"a long call does not hide the others", []call{{4, 4}, {5, 5}, {0, 20}}, 2},
	}
	start := time.Now()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log []Admission
			for _, c := range tt.calls {
				log = append(log, Admission{start.Add(c.from), start.Add(c.to), 1})
			}
			if got := Most(log, w); got != tt.want {
				t.Errorf("Most: got %d, want %d", got, tt.want)
			}
			if got := naive(log, w); got != tt.want {
				t.Errorf("naive: got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestCounterHoldsOneWindow(t *testing.T) {
	const w = 1000
	c := NewCounter(w)
	for i := range time.Duration(100_000) {
		c.Add(i, i, 1)
	}
	if len(c.starts) > w || cap(c.starts) > 4*w {
		t.Errorf("holds %d of cap %d for a window of %d", len(c.starts), cap(c.starts), w)
	}
	if c.Max() != w {
		t.Errorf("max is %d, want %d", c.Max(), w)
	}
}
