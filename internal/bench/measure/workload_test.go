package measure

import (
	"math"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
)

func TestWorkloadIsWhatItSays(t *testing.T) {
	tests := []struct {
		name          string
		keys, workers int
		hot           float64
		calls         uint64
		touched       [2]int // from, to
		share         [2]float64
	}{
		{"hot", 1000, 2, 1, 5000, [2]int{1, 1}, [2]float64{1, 1}},
		{"uniform, every key", 1000, 2, 0, 50_000, [2]int{1000, 1000}, [2]float64{0.0005, 0.0015}},
		{"uniform, some keys", 1000, 1, 0, 1000, [2]int{580, 690}, [2]float64{0, 0.01}}, // 1000 (1 − 1/e) ± 6σ
		{"skewed", 1000, 3, 0.2, 50_000, [2]int{1000, 1000}, [2]float64{0.19, 0.21}},
		{"skewed, one key", 1, 1, 0.5, 100, [2]int{1, 1}, [2]float64{1, 1}},
		{"longer than the sequences", 10, 2, 0, 1_000_000, [2]int{10, 10}, [2]float64{0.09, 0.11}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorkload(tt.keys, tt.workers, tt.hot)
			calls := make([]uint64, tt.workers)
			for i := range calls {
				calls[i] = tt.calls
			}
			counts := w.offered(calls)
			var total uint64
			for _, n := range counts {
				total += n
			}
			if want := tt.calls * uint64(tt.workers); total != want {
				t.Errorf("%d calls counted, want %d", total, want)
			}
			touched, expected, err := w.verify(calls, counts)
			if err != nil {
				t.Error(err)
			}
			if touched < tt.touched[0] || touched > tt.touched[1] || expected < tt.touched[0] ||
				expected > tt.touched[1] {
				t.Errorf("%d keys, %d expected, want %v", touched, expected, tt.touched)
			}
			if share := float64(counts[0]) / float64(total); share < tt.share[0] || share > tt.share[1] {
				t.Errorf("share of the first key is %v, want %v", share, tt.share)
			}
		})
	}
}

// TestShortRunsAreWhatTheySay: on a machine that is slow few calls are made, of which chance makes more than
// of many.
func TestShortRunsAreWhatTheySay(t *testing.T) {
	for _, keys := range []int{1, 2, 10, 2000} {
		for _, hot := range []float64{0, 0.0001, 0.2, 0.9, 1} {
			w := newWorkload(keys, 3, hot)
			for n := uint64(1); n < 5000; n += 1 + n/uint64(explore.Size(4, 8)) {
				for _, calls := range [][]uint64{{n, n, n}, {n, 0, 0}, {n, 20 * n, 7}} {
					if _, _, err := w.verify(calls, w.offered(calls)); err != nil {
						t.Errorf("%d keys, %v to the first, %d calls: %v", keys, hot, calls, err)
					}
				}
			}
		}
	}
}

// TestByChance: a Poisson count lies further from its mean than is taken for chance less than once in 10⁷
// times, and not so much less that nothing would be found.
func TestByChance(t *testing.T) {
	for _, mean := range []float64{1e-6, 0.01, 0.2, 1, 5, 61, 1000} {
		far, p := byChance(mean, 1), math.Exp(-mean)
		outside := 0.0
		for n := 0.0; n < mean+20*math.Sqrt(mean)+40; n++ {
			if math.Abs(n-mean) > far {
				outside += p
			}
			p *= mean / (n + 1)
		}
		if outside > 1e-7 || far > 6.5*math.Sqrt(mean)+7 {
			t.Errorf("mean %v: further than %.1f with a probability of %.2g", mean, far, outside)
		}
	}
}

func TestWorkloadThatIsNotWhatItSays(t *testing.T) {
	calls := []uint64{50_000}
	tests := []struct {
		name   string
		change func(sequence []uint32)
		says   string
	}{
		{"one empty key", func(s []uint32) { clear(s) }, "different keys were called"},
		{"half of the keys", func(s []uint32) {
			for i := range s {
				s[i] /= 2
			}
		}, "different keys were called"},
		{"too many calls to the first", func(s []uint32) {
			for i := 0; i < len(s); i += 4 {
				s[i] = 0
			}
		}, "went to the first key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorkload(1000, 1, 0.2)
			tt.change(w.sequences[0])
			_, _, err := w.verify(calls, w.offered(calls))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want one that says %q", err, tt.says)
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	tests := []struct {
		values []float64
		part   float64
		want   float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{4, 1, 3, 2}, 0.25, 1.75},
		{[]float64{4, 1, 3, 2}, 1, 4},
	}
	for _, tt := range tests {
		if got := quantile(tt.values, tt.part); got != tt.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", tt.values, tt.part, got, tt.want)
		}
	}
}
