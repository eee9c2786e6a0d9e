package anywindow_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/anywindow"
)

// naive tries each window that begins when a call does, and looks at all calls.
func naive(log []anywindow.Admission, w time.Duration) (most uint64) {
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

func TestMost(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		start := time.Now()
		var log []anywindow.Admission
		longest := rng.Int64N(40) // some take longer than a window
		for range rng.IntN(60) {
			from := start.Add(time.Duration(rng.Int64N(100)))
			log = append(log, anywindow.Admission{From: from, To: from.Add(time.Duration(rng.Int64N(1 + longest))), Cost: rng.Uint64N(5)})
		}
		w := time.Duration(1 + rng.Int64N(30))
		if got, want := anywindow.Most(log, w), naive(log, w); got != want {
			t.Fatalf("seed %d: %d, want %d", seed, got, want)
		}
	}
}
