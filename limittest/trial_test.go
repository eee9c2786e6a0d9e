package limittest

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTrial(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name   string
		jitter time.Duration
		calls  []time.Duration // how long each takes, with a call in each 20 ms
		late   bool
	}{
		{"in time", 50 * ms, []time.Duration{50 * ms, ms, ms, 0}, false},
		{"a stall", 50 * ms, []time.Duration{ms, ms, 51 * ms, ms}, true},
		{"slow all the time", 50 * ms, []time.Duration{20 * ms, 20 * ms, 20 * ms, 20 * ms, 20 * ms, 20 * ms}, true},
		{"virtual time", 0, []time.Duration{time.Hour}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := Subject{Jitter: test.jitter, Window: 400 * ms}
				trial := s.trial(t)
				for _, took := range test.calls {
					since := time.Now()
					time.Sleep(took)
					trial.took(since)
					trial.sleep(20*ms - took)
				}
				if trial.late() != test.late {
					t.Errorf("late: %v; %v at once, %v in all", trial.late(), trial.worst, trial.lost)
				}
				if !test.late {
					return
				}
				trial.Errorf("the failure of a test that was late")
				t.Error("the test has not ended")
			})
		})
	}
}
