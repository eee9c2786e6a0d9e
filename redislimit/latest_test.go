package redislimit

import "testing"

// A goroutine that read the clock and was then suspended does not set the instant back.
func TestLatest(t *testing.T) {
	var l latest
	for _, at := range []int64{3, 9, 5, 9, 1} {
		l.note(at)
	}
	if got := l.Load(); got != 9 {
		t.Errorf("%d, want the latest, 9", got)
	}
}
