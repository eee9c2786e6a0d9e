package demo

import (
	"testing"
	"testing/synctest"
	"time"
)

// script feeds a meter with decisions, each after a wait.
type script []struct {
	wait    time.Duration
	times   int
	allowed bool
}

func (s script) play(m *meter) {
	for _, step := range s {
		for range step.times {
			time.Sleep(step.wait)
			m.decided(m.clock(), time.Microsecond, step.allowed, false)
		}
	}
}

func TestMeterPause(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name string
		play script
		want time.Duration
	}{
		{"nothing declined", script{{10 * ms, 100, true}}, 0},
		{"declined between two admissions",
			script{{10 * ms, 50, true}, {10 * ms, 49, false}, {10 * ms, 1, true}}, 500 * ms},
		{"at the beginning", script{{10 * ms, 30, false}, {10 * ms, 1, true}}, 310 * ms},
		{"at the end, until the last decision", script{{10 * ms, 50, true}, {10 * ms, 70, false}}, 700 * ms},
		{"nobody called for most of it", script{{10 * ms, 200, true}, {10 * ms, 3, false}, {900 * ms, 1, true}}, 0},
		{"the longest of two", script{{10 * ms, 50, true}, {10 * ms, 40, false}, {10 * ms, 50, true},
			{10 * ms, 20, false}, {10 * ms, 1, true}}, 410 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMeter(time.Second, 100)
				tt.play.play(m)
				time.Sleep(time.Second) // what follows the last decision is no pause
				if got := m.read().longestPause; got != tt.want {
					t.Errorf("longest pause is %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestMeterReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(time.Second, 100)
		script{{10 * time.Millisecond, 150, true}, {10 * time.Millisecond, 100, false},
			{500 * time.Millisecond, 1, false}}.play(m)
		r := m.read()
		if r.elapsed != 3*time.Second || r.total != (tally{150, 101}) {
			t.Errorf("after %v: %+v", r.elapsed, r.total)
		}
		// the decision at the very end of the window is settled
		if r.settled != (tally{51, 101}) || r.settledTook != 2*time.Second {
			t.Errorf("settled: %+v in %v", r.settled, r.settledTook)
		}
		if r.stalled != 500*time.Millisecond {
			t.Errorf("stalled for %v, want 500ms", r.stalled)
		}
		if r.fullest != 100 {
			t.Errorf("%d in the fullest window, want 100", r.fullest)
		}
		if r.latency.P50 != 1000 || r.latency.Max != 1000 {
			t.Errorf("latency p50 %dns, max %dns, want 1µs", r.latency.P50, r.latency.Max)
		}
	})
}
