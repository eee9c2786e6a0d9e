// Package latency keeps how long calls took.
package latency

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histogram counts latencies from a nanosecond to a minute with three significant digits, in a size that does
// not grow. It is not safe for concurrent use.
type Histogram struct{ h *hdrhistogram.Histogram }

// NewHistogram returns an empty Histogram.
func NewHistogram() Histogram { return Histogram{hdrhistogram.New(1, int64(time.Minute), 3)} }

// Record counts one latency; more than a minute is counted as a minute.
func (h Histogram) Record(d time.Duration) {
	_ = h.h.RecordValue(min(int64(d), h.h.HighestTrackableValue())) // it refuses only what is out of its range
}

// Merge counts what o has counted.
func (h Histogram) Merge(o Histogram) { h.h.Merge(o.h) }

// Count is the number of latencies counted.
func (h Histogram) Count() int64 { return h.h.TotalCount() }

// Percentiles are what a report says of a Histogram, in nanoseconds.
type Percentiles struct {
	P50  int64 `json:"latency_p50_ns"`
	P95  int64 `json:"latency_p95_ns"`
	P99  int64 `json:"latency_p99_ns"`
	P999 int64 `json:"latency_p999_ns"`
	Max  int64 `json:"latency_max_ns"`
}

// Percentiles reads the Histogram; all are 0 when it is empty.
func (h Histogram) Percentiles() Percentiles {
	at := h.h.ValueAtPercentilesSlice([]float64{50, 95, 99, 99.9, 100}) // one pass over the counts, and not five
	return Percentiles{P50: at[0], P95: at[1], P99: at[2], P999: at[3], Max: at[4]}
}

// Decode reads a Histogram from the text that HdrHistogram libraries of all languages exchange, which must
// have the bounds of NewHistogram.
func Decode(text string) (Histogram, error) {
	h, err := hdrhistogram.Decode([]byte(text))
	return Histogram{h}, err
}

// Reset forgets everything.
func (h Histogram) Reset() { h.h.Reset() }

// Point is a quantile of a Histogram, and the latency that as many calls did not pass.
type Point struct {
	Quantile float64 `json:"quantile"`
	Latency  int64   `json:"latency_ns"`
}

// curve are the quantiles that tell a distribution with a long tail.
var curve = []float64{0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 1}

// Curve reads the Histogram at many quantiles, none of which is so far out that fewer than ten latencies lie
// beyond, but the maximum.
func (h Histogram) Curve() (points []Point) {
	n := float64(h.Count())
	for _, q := range curve {
		if q == 1 || n*(1-q) >= 10 {
			points = append(points, Point{q, h.h.ValueAtPercentile(100 * q)})
		}
	}
	return points
}
