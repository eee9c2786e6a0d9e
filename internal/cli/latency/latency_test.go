package latency

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	a, b := NewHistogram(), NewHistogram()
	if a.Percentiles() != (Percentiles{}) {
		t.Errorf("empty: %+v", a.Percentiles())
	}
	for i := range 1000 {
		a.Record(time.Duration(i))
	}
	b.Record(time.Hour)
	a.Merge(b)
	p := a.Percentiles()
	if a.Count() != 1001 || p.P50 != 500 || p.P95 != 950 || p.P99 != 990 || p.P999 != 999 {
		t.Errorf("%d latencies: %+v", a.Count(), p)
	}
	if p.Max < int64(time.Minute) || p.Max > int64(61*time.Second) {
		t.Errorf("an hour is kept as %v, want a minute", time.Duration(p.Max))
	}
}
