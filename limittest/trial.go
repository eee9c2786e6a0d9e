package limittest

import (
	"testing"
	"time"
)

// trial is a test of a subject. Where time is real, a machine that is too busy makes calls and wakes sleepers
// too late: then what depends on when a call was judged is not known to be wrong. What does not depend on it,
// such as the bound, fails by the embedded T.
type trial struct {
	*testing.T
	s *Subject

	began       time.Time
	worst, lost time.Duration // by calls and by sleeping too long: the most at once, and in all
}

func (s *Subject) trial(t *testing.T) *trial {
	return &trial{T: t, s: s, began: time.Now()}
}

// sleep is time.Sleep.
func (t *trial) sleep(d time.Duration) {
	defer t.took(time.Now().Add(max(d, 0)))
	time.Sleep(d)
}

// took is told when what ends now could have ended.
func (t *trial) took(since time.Time) {
	took := time.Since(since)
	t.worst = max(t.worst, took)
	t.lost += took
}

// late reports whether the machine was too busy so far: for longer than a call may be judged too late, or for
// a large part of the time.
func (t *trial) late() bool {
	return t.s.Jitter > 0 && (t.worst > t.s.Jitter || t.lost > max(t.s.Window, time.Since(t.began))/4)
}

// excuse ends the test if the machine was too busy for it.
func (t *trial) excuse(format string, args ...any) {
	t.Helper()
	if t.late() {
		t.Logf(format, args...)
		t.Skipf("not known to be wrong: the machine is too busy, which took %v at once and %v of %v in all",
			t.worst, t.lost, time.Since(t.began))
	}
}

// Errorf fails the test, unless the machine was too busy for it.
func (t *trial) Errorf(format string, args ...any) {
	t.Helper()
	t.excuse(format, args...)
	t.T.Errorf(format, args...)
}

// Fatalf is Errorf, and ends the test.
func (t *trial) Fatalf(format string, args ...any) {
	t.Helper()
	t.excuse(format, args...)
	t.T.Fatalf(format, args...)
}
