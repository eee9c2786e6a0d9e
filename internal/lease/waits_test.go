package lease

import (
	"math/rand/v2"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
)

// Calls are believed to wait if they come when they were told to, and not if they are traffic.
func TestWaits(t *testing.T) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	traffic := func(mean float64) func(int64, int64) int64 {
		return func(now, _ int64) int64 { return now + 1 + int64(rng.ExpFloat64()*mean) }
	}
	for _, test := range []struct {
		name  string
		next  func(now, told int64) int64 // when the next call comes
		waits bool
	}{
		{"waits", func(_, told int64) int64 { return told }, true},
		{"a little late", func(now, told int64) int64 { return told + rng.Int64N(1+(told-now)/5) }, true},
		{"much traffic", traffic(1000), false},
		{"traffic", traffic(20_000), false},
		{"little traffic", traffic(300_000), false},
	} {
		m := &Moment{
			Terms: &Terms{Micro: 1, Interval: 5000}, Pace: &Pace{Near: 15_000, Trip: 2000}, Now: 1_000_000,
		}
		var w waits
		denied, believed := 0, 0
		for range 20_000 {
			c := &Call{Cost: 1, Mode: Record}
			told := m.Now + 1
			if w.came(m, c); rng.IntN(3) > 0 { // otherwise it is admitted, and the next follows at once
				told = max(w.promised.at, m.Now+10_000+rng.Int64N(200_000))
				w.denied(m, c, told)
				if denied++; w.until > m.Now && w.cost > 0 {
					believed++
				}
			}
			m.Now = test.next(m.Now, told)
			if m.Now >= w.until {
				w.cost = 0
			}
		}
		part := float64(believed) / float64(denied)
		if t.Logf("%s: %.3f believed to wait", test.name, part); test.waits != (part > .9) || !test.waits && part > .05 {
			t.Errorf("%s: %.3f of the denied calls are believed to wait", test.name, part)
		}
	}
}
