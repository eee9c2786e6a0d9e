package window

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
)

// curve is what one run of Suppressed under a Poisson load did.
type curve struct {
	admitted, declined float64 // rates, as multiples of the limit, after settling
	variation          float64 // coefficient of variation of admissions per bin
	pause, coldPause   float64 // longest without an admission, in seconds: settled, from the first call on
	largest            float64 // most admitted in any window ÷ C
}

type sim struct {
	rate, load, window, bucket, factor, bin float64 // seconds and events per second
	windows                                 int
	seed                                    uint64
}

func (p sim) run() curve {
	rng := rand.New(rand.NewPCG(p.seed, 1))
	s := Span{int64(p.window * 1e9), int64(p.bucket * 1e9)}
	l := NewLaw(s, uint64(p.rate*p.window+1e-9), p.factor)
	var (
		g                  Groups
		w                  Window
		log                []int64
		out                curve
		admitted, declined int
		bins               = make([]int, int(float64(p.windows-1)*p.window/p.bin))
		lastAdmission      int64
	)
	end := int64(p.windows) * s.Window
	for t := float64(1); ; {
		t += rng.ExpFloat64() / (p.rate * p.load) * 1e9
		now := int64(t)
		if now >= end {
			break
		}
		settled := now >= s.Window
		w.Advance(&g, s, now)
		if f := w.Factor(&g, s, l, now, 1); rng.Float64() < f {
			w.Record(&g, s, now, Counts{Declined: 1})
			if settled {
				declined++
			}
			continue
		}
		w.Record(&g, s, now, Counts{Admitted: 1})
		pause := float64(now-lastAdmission) / 1e9
		lastAdmission = now
		out.coldPause = max(out.coldPause, pause)
		if settled {
			admitted++
			out.pause = max(out.pause, pause)
			if b := int(float64(now-s.Window) / 1e9 / p.bin); b < len(bins) {
				bins[b]++
			}
		}
		log = append(log, now)
		for len(log) > 0 && now-log[0] >= s.Window {
			log = log[1:]
		}
		out.largest = max(out.largest, float64(len(log))/float64(l.Capacity))
	}
	seconds := float64(p.windows-1) * p.window
	out.admitted = float64(admitted) / seconds / p.rate
	out.declined = float64(declined) / seconds / p.rate
	var sum, squares float64
	for _, b := range bins {
		sum += float64(b)
		squares += float64(b) * float64(b)
	}
	n := float64(len(bins))
	mean := sum / n
	out.variation = math.Sqrt(squares/n-mean*mean) / mean
	return out
}

// G6, at a limit of 100/s in 10s: the whole curve, with the seeds named in a failure.
func TestSuppressionCurve(t *testing.T) {
	seeds, windows := uint64(1), 11
	if explore.Long() {
		seeds, windows = 5, 21
	}
	for _, load := range []float64{0.5, 0.9, 1.1, 1.5, 2, 3, 5, 10, 20, 50, 100} {
		if load > 10 && !explore.Long() { // there are as many more arrivals
			continue
		}
		for seed := range seeds {
			r := sim{rate: 100, load: load, window: 10, bucket: .1, factor: 1.5, bin: .1, windows: windows,
				seed: seed}.run()
			fail := func(what string, got, want float64) {
				t.Errorf("load %v, seed %d: %s is %.4f, want %v", load, seed, what, got, want)
			}
			if share := r.declined / (r.admitted + r.declined); load <= 0.9 && share > 0.001 {
				fail("declined share", share, 0.001)
			}
			tolerance := 0.03
			if load > 20 {
				tolerance = 0.05
			}
			if load >= 1.1 && math.Abs(r.admitted-1) > tolerance {
				fail("admitted ÷ limit", r.admitted, 1)
			}
			if load >= 0.9 && r.variation > 0.45 { // at 0.5 that of the arrivals alone is 1/√5 = 0.447
				fail("coefficient of variation", r.variation, 0.45)
			}
			if r.pause > 0.3 {
				fail("longest pause", r.pause, 0.3)
			}
			if load <= 10 && r.coldPause > 0.5 {
				fail("longest pause from cold", r.coldPause, 0.5)
			}
			if r.largest > 1.5 {
				fail("largest window ÷ C", r.largest, 1.5)
			}
			if seed == 0 {
				t.Logf("load %5.1f: admitted %.3f, variation %.2f, pause %.2fs, from cold %.2fs, largest window %.2f",
					load, r.admitted, r.variation, r.pause, r.coldPause, r.largest)
			}
		}
	}
}

// A step down is followed too: when overload ends, what is offered below the limit soon passes again.
func TestSuppressionEndsWithTheLoad(t *testing.T) {
	s := Span{Window: 10e9, Bucket: 1e8}
	l := NewLaw(s, 1000, 1.5)
	rng := rand.New(rand.NewPCG(1, 1))
	var g Groups
	var w Window
	var offered, declined int
	for t := 0.0; t < 40e9; {
		load := 1000.0 // per second: 10 times the limit, until 20s
		if t > 20e9 {
			load = 80
		}
		t += rng.ExpFloat64() / load * 1e9
		now := w.Advance(&g, s, int64(t))
		c := Counts{Admitted: 1}
		if rng.Float64() < w.Factor(&g, s, l, now, 1) {
			c = Counts{Declined: 1}
		}
		w.Record(&g, s, now, c)
		if t > 22e9 {
			offered++
			declined += int(c.Declined)
		}
	}
	if share := float64(declined) / float64(offered); share > 0.01 {
		t.Errorf("%.1f%% of a load below the limit declined from two seconds after a step down", 100*share)
	}
}

// Calm is the same word as a factor of 0, and the factor falls with everything that time alone makes fall.
func TestFactorIsMonotonousAndCalmIsZero(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 200_000 {
		s := Span{Window: 1000, Bucket: 1 + rng.Int64N(1000)}
		l := NewLaw(s, 1+rng.Uint64N(100), 1+rng.Float64()*float64(rng.IntN(3)))
		c := Counts{rng.Uint64N(200), rng.Uint64N(500)}
		recent, n := rng.Uint64N(c.Observed()+1), 1+rng.Uint64N(l.Capacity)
		f := l.Factor(c, recent, n)
		if f < 0 || f > 1 || math.IsNaN(f) {
			t.Fatalf("%+v, %+v, recent %d, cost %d: factor %v", l, c, recent, n, f)
		}
		if calm := l.Calm(c, recent, n); calm != (f == 0) {
			t.Fatalf("%+v, %+v, recent %d, cost %d: factor %v, calm %v", l, c, recent, n, f, calm)
		}
		less := Counts{rng.Uint64N(c.Admitted + 1), rng.Uint64N(c.Declined + 1)}
		if g := l.Factor(less, rng.Uint64N(recent+1), n); g > f+1e-12 {
			t.Fatalf("%+v: factor %v with %+v, but %v with %+v", l, f, c, g, less)
		}
	}
}

// A burst passes whole up to 0.8 of the capacity, however sudden it is; above that a part of it is declined.
func TestBurstUpToTheCalmShare(t *testing.T) {
	l := NewLaw(Span{Window: 1000, Bucket: 10}, 100, 1.5)
	for n := range uint64(100) {
		f := l.Factor(Counts{Admitted: n}, n, 1)
		if calm := n < 80; calm != (f == 0) || f >= 1 {
			t.Errorf("after a burst of %d of 100 the factor is %v", n, f)
		}
	}
}
