package window

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
)

// factor is the probability with which Suppressed declines a call of cost n, for windows of the capacity c
// and the hard limit factor h, as docs/choosing.md explains it. The window holds what was admitted and what
// was observed, admitted and declined together; recent is what was observed in its newest tenth.
func factor(admitted, observed, recent, n, c, h, window, bucket float64) float64 {
	if hard := math.Floor(c * h); admitted+n > hard {
		return 1
	}
	if observed < 0.8*c || h == 1 {
		return 0
	}
	aim := c + 0.8*(c-admitted) // the limit, and a little more while there is room
	if admitted >= c {
		brake := (h*c - admitted) / (h - 1)
		aim = max(brake, min(0.3*c, 4*brake)) // after a burst admissions become sparse, and do not stop
	}
	scale := window / (window/10 + bucket) // from the recent part to a window
	var load float64                       // what was observed, unless the recent part is beyond chance
	if recent*scale > observed {
		load = max(observed, (recent-2*math.Sqrt(recent))*scale)
	} else {
		load = min(observed, (recent+2*math.Sqrt(recent+1)+1)*scale)
	}
	return max(0, 1-aim/load)
}

// The law is the formula that documents show.
func TestLawIsTheFormula(t *testing.T) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	runs, declined := explore.Size(100_000, 10_000_000), 0
	for range runs {
		s := Span{Window: 10_000, Bucket: 1 + rng.Int64N(1_000)}
		capacity := uint64(math.Exp(rng.Float64() * 15))
		h := []float64{1, 1.1, 1.5, 2, 10}[rng.IntN(5)]
		l := NewLaw(s, capacity, h)
		admitted := rng.Uint64N(l.Hard + 2)
		observed := admitted + uint64(rng.ExpFloat64()*float64(capacity))
		recent := rng.Uint64N(observed + 1)
		n := 1 + rng.Uint64N(1+capacity/50)
		is := l.Factor(Counts{Admitted: admitted, Declined: observed - admitted}, recent, n)
		want := factor(float64(admitted), float64(observed), float64(recent), float64(n), float64(capacity), h,
			10_000, float64(s.Bucket))
		if math.Abs(is-want) > 1e-9 {
			t.Fatalf("capacity %d, H %v, admitted %d, observed %d, recent %d, cost %d: %v, want %v",
				capacity, h, admitted, observed, recent, n, is, want)
		}
		if want > 0 && want < 1 {
			declined++
		}
	}
	if declined < runs/10 {
		t.Errorf("only %d of %d were between 0 and 1", declined, runs)
	}
}
