package demo

import (
	"context"
	"sync"
	"time"

	"github.com/trypema/trypema"
)

// The limiters that most services have, for comparison.
const (
	tokenBucket = "token-bucket"
	fixedWindow = "fixed-window"
)

// decider is what the demo asks of a limiter.
type decider interface {
	Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error)
}

// newPeer returns the limiter of that name.
func newPeer(name string, window time.Duration) decider {
	if name == tokenBucket {
		return &bucket{window: window}
	}
	return &fixed{window: window}
}

// bucket is a token bucket for one key, as golang.org/x/time/rate has it: tokens come at the rate, and it
// holds as many as a window allows.
type bucket struct {
	window time.Duration

	mu     sync.Mutex // guards the fields below
	tokens float64
	last   time.Time
}

// Allow takes a token if there is one.
func (b *bucket) Allow(_ context.Context, _ string, rate trypema.Rate) (trypema.Decision, error) {
	capacity, err := rate.Capacity(b.window)
	if err != nil {
		return trypema.Decision{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.last.IsZero() {
		b.tokens, b.last = float64(capacity), now
	}
	b.tokens = min(float64(capacity), b.tokens+float64(rate)*now.Sub(b.last).Seconds())
	b.last = now
	d := trypema.Decision{Limit: capacity, Outcome: trypema.OutcomeRejected}
	if b.tokens >= 1 {
		b.tokens--
		d.Allowed, d.Outcome = true, trypema.OutcomeAllowed
	} else {
		d.RetryAfter = time.Duration((1 - b.tokens) / float64(rate) * float64(time.Second))
	}
	d.Remaining = uint64(b.tokens)
	return d, nil
}

// fixed is a fixed window for one key, as a counter in Redis by INCR and EXPIRE is: it begins to count again
// whenever the clock passes a multiple of the window.
type fixed struct {
	window time.Duration

	mu    sync.Mutex // guards the fields below
	index int64      // of the window, by the clock
	count uint64
}

// Allow counts a call if the window has room.
func (f *fixed) Allow(_ context.Context, _ string, rate trypema.Rate) (trypema.Decision, error) {
	capacity, err := rate.Capacity(f.window)
	if err != nil {
		return trypema.Decision{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if index := now.UnixNano() / int64(f.window); index != f.index {
		f.index, f.count = index, 0
	}
	d := trypema.Decision{Limit: capacity, Outcome: trypema.OutcomeRejected}
	if f.count < capacity {
		f.count++
		d.Allowed, d.Outcome = true, trypema.OutcomeAllowed
	} else {
		d.RetryAfter = f.window - sinceEdge(now, f.window)
	}
	d.Remaining = capacity - min(f.count, capacity)
	return d, nil
}

// sinceEdge is the time since the clock last passed a multiple of d.
func sinceEdge(now time.Time, d time.Duration) time.Duration {
	return time.Duration(now.UnixNano() % int64(d))
}
