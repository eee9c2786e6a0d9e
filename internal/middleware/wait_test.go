package middleware

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
)

// It waits as long as it is told, and never longer than it may in all, however long it takes to ask.
func TestAgainWaitsNoLongerThanItMay(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name             string
		most, ask, retry time.Duration
		free             time.Duration // when there is room
		deadline         time.Duration // of the context; 0 for none
		asks             int
		took             time.Duration
		allowed          bool
	}{
		{"at once", 0, 0, 10 * ms, 0, 0, 1, 0, true},
		{"none may wait", 0, 0, 10 * ms, 10 * ms, 0, 1, 0, false},
		{"as long as it is told", 100 * ms, 0, 10 * ms, 10 * ms, 0, 2, 10 * ms, true},
		{"overtaken", 100 * ms, 0, 10 * ms, 35 * ms, 0, 5, 40 * ms, true},
		{"just as long as it may", 10 * ms, 0, 10 * ms, 10 * ms, 0, 2, 10 * ms, true},
		{"longer than it may", 10 * ms, 0, 10*ms + 1, 10 * ms, 0, 1, 0, false},
		{"asking takes of what it may", 100 * ms, 30 * ms, 60 * ms, time.Second, 0, 2, 120 * ms, false},
		{"asking takes too much of it", 100 * ms, 41 * ms, 60 * ms, time.Second, 0, 1, 41 * ms, false},
		{"to come again at once", 10 * ms, 0, 0, 4 * ms, 0, 5, 4 * ms, true},
		{"to come again at once, with less left than that", ms / 2, 0, 0, time.Second, 0, 1, 0, false},
		{"beyond the deadline", time.Hour, 0, 60 * ms, time.Second, 100 * ms, 2, 60 * ms, false},
		{"never", time.Hour, 0, trypema.Never, time.Second, 0, 1, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, began, asks := context.Background(), time.Now(), 0
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				d, err := again(ctx, test.most, func() (trypema.Decision, error) {
					asks++
					time.Sleep(test.ask)
					allowed := time.Since(began) >= test.free
					return trypema.Decision{Allowed: allowed, RetryAfter: test.retry}, nil
				})
				if took := time.Since(began); err != nil || d.Allowed != test.allowed || asks != test.asks ||
					took != test.took {
					t.Errorf("Allowed %v, %v, asked %d times in %v; want %v, %d times in %v", d.Allowed, err,
						asks, took, test.allowed, test.asks, test.took)
				}
			})
		})
	}
}
