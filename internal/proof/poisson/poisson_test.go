package poisson

import (
	"testing"
	"time"
)

func TestPoisson(t *testing.T) {
	const rate, seconds = 1000, 100
	p := New(rate)
	var last time.Duration
	var n, near int
	for ; p.Due() < seconds*time.Second; p.Next() {
		if p.Due() < last {
			t.Fatalf("%v is due after %v", p.Due(), last)
		}
		if p.Due()-last < time.Second/rate {
			near++
		}
		last = p.Due()
		n++
	}
	if n < 98_000 || n > 102_000 { // 100,000 ± 6σ
		t.Errorf("%d arrivals", n)
	}
	if part := float64(near) / float64(n); part < 0.62 || part > 0.645 { // 1 − 1/e of the gaps are below the mean
		t.Errorf("%.3f of the gaps are below the mean", part)
	}
}

func TestSkipTo(t *testing.T) {
	p := New(1000)
	if n := p.SkipTo(p.Due()); n != 0 {
		t.Errorf("skipped %d, but what is due now is not before now", n)
	}
	if n := p.SkipTo(100 * time.Second); n < 98_000 || n > 102_000 {
		t.Errorf("skipped %d", n)
	}
	if p.Due() < 100*time.Second {
		t.Errorf("due at %v", p.Due())
	}
}
