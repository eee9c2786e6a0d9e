package flags

import (
	"math"
	"strings"
	"testing"
	"time"
)

// FuzzLimit: the flags of a limit are taken with a capacity of at least 1, or refused by a complaint about a
// flag, which speaks of no field of the library.
func FuzzLimit(f *testing.F) {
	f.Add(100., int64(10*time.Second), int64(time.Second), true, 1.5)
	f.Add(0.01, int64(time.Second), int64(0), false, 1.)
	f.Add(math.Inf(1), int64(0), int64(0), true, math.NaN())
	f.Add(-1., int64(math.MaxInt64), int64(-1), true, math.Inf(1))
	f.Add(1., int64(time.Second), int64(time.Minute), true, 2.)
	f.Fuzz(func(t *testing.T, rate float64, w, bucket int64, hasBucket bool, factor float64) {
		l := Limit{Rate: rate, Window: time.Duration(w), HardLimitFactor: factor}
		if hasBucket {
			b := time.Duration(bucket)
			l.Bucket = &b
		}
		o, capacity, err := l.Resolve()
		switch {
		case err != nil && (!IsWrong(err) || !strings.HasPrefix(err.Error(), "--") ||
			strings.Contains(err.Error(), "Options")):
			t.Fatalf("%+v: %v", l, err)
		case err == nil && (capacity == 0 || o.Window != l.Window || o.Bucket < time.Millisecond ||
			o.Bucket > o.Window):
			t.Fatalf("%+v: %+v, %d", l, o, capacity)
		case err == nil && HardCapacity(capacity, o) < capacity && capacity < 1<<53:
			t.Fatalf("%+v: a hard capacity of %d, below %d", l, HardCapacity(capacity, o), capacity)
		}
	})
}
