package window

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
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
	l := NewLaw(uint64(p.rate*p.window+1e-9), p.factor)
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

func testExplore(t *testing.T) {
	start := time.Now()
	for _, c := range []struct{ rate, window, bucket float64 }{{100, 10, .1}, {1, 10, .1}, {100, 10, 1}, {1. / 60, 3600, 36}, {100, 1, .01}, {10, 60, .6}} {
		for _, load := range []float64{.5, .8, .9, .95, 1, 1.1, 1.5, 2, 3, 5, 10, 20, 50, 100} {
			if load*c.rate > 10000 {
				continue
			}
			r := sim{c.rate, load, c.window, c.bucket, 1.5, max(10/c.rate, .1), 20, 1}.run()
			fmt.Printf("rate %6.3f W %5.0f B %5.2f load %5.2f: admitted %.3f declined share %.4f cv %.2f pause %.2f cold %.2f max %.3f\n", c.rate, c.window, c.bucket, load, r.admitted, r.declined/(r.admitted+r.declined), r.variation, r.pause, r.coldPause, r.largest)
		}
	}
	fmt.Println(time.Since(start))
}
