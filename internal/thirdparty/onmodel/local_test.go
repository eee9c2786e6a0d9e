package onmodel

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
)

// drawOptions draws windows, buckets and factors.
func drawOptions(t *rapid.T) trypema.Options {
	o := trypema.Options{Window: rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second}).Draw(t, "window")}
	o.Bucket = rapid.SampledFrom([]time.Duration{time.Millisecond, o.Window / 100, o.Window / 7, o.Window}).Draw(t,
		"bucket")
	o.HardLimitFactor = rapid.SampledFrom([]float64{1, 1.5, 1.1, 4}).Draw(t, "hard limit factor")
	return o
}

func drawStrategy(t *rapid.T) trypema.Strategy {
	return rapid.SampledFrom([]trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed}).Draw(t,
		"strategy")
}

func local(t *rapid.T, o trypema.Options, s trypema.Strategy) (*trypema.Local, Subject) {
	l, err := trypema.NewLocal(o)
	if err != nil {
		t.Fatal(err)
	}
	subject := Subject{
		Limiter: l.Absolute(), Bind: l.Bind, Strategy: s, Options: o, Cells: true,
		Unit: time.Nanosecond, Step: time.Nanosecond,
		Advance:    func(d time.Duration) { time.Sleep(d); synctest.Wait() },
		Capacities: []uint64{1, 5, 20, 20, 100, 1e6, math.MaxInt64},
		Costs:      []uint64{1, 3, 7, 1e7, math.MaxUint64},
	}
	if s == trypema.StrategySuppressed {
		subject.Limiter = l.Suppressed()
	}
	return l, subject
}

// All verbs of Local, single limits and several, at all instants that matter: every answer is that of the
// naive twin in all its fields.
func TestLocal(t *testing.T) {
	more(t, 4)
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			l, subject := local(t, drawOptions(t), drawStrategy(t))
			New(subject).Run(t)
			l.Close()
		})
	})
}

// With MaxKeys there are never more keys, and the one that makes room for another is the one that was asked
// for the longest ago, be it hot or not; all other answers are those of the naive twin.
func TestMaxKeys(t *testing.T) {
	more(t, 2)
	evictions := 0
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			o := drawOptions(t)
			o.MaxKeys = rapid.SampledFrom([]int{2, 1, 3, 4}).Draw(t, "keys at most")
			l, subject := local(t, o, drawStrategy(t))
			subject.Bind = nil
			subject.Step = time.Millisecond // to which it is known when a hot key was asked for
			subject.Capacities, subject.Costs = []uint64{1000, 100, 1e6}, []uint64{1, 3, 7}
			subject.Held = l.Len
			m := New(subject)
			m.Run(t)
			evictions += m.evictions
			l.Close()
		})
	})
	if evictions == 0 {
		t.Error("no key made room for another")
	}
}
