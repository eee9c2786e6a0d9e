// Package latency keeps how long calls took.
package latency

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histogram counts latencies from a nanosecond to a minute with three significant digits, in a size that does not grow.
// It is not safe for concurrent use.
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
	return Percentiles{
		P50:  h.h.ValueAtPercentile(50),
		P95:  h.h.ValueAtPercentile(95),
		P99:  h.h.ValueAtPercentile(99),
		P999: h.h.ValueAtPercentile(99.9),
		Max:  h.h.Max(),
	}
}
