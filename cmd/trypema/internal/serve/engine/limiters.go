package engine

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
)

// MaxLimits bounds the different limits that requests may bring along at a time.
const MaxLimits = 1024

// ErrTooManyLimits is a request with a limit of its own, while MaxLimits others are in use.
var ErrTooManyLimits = errors.New("too many different limits are in use")

// limiter is a limit that is bound to the provider.
type limiter struct {
	*trypema.Bound
	Limit
	lastUse atomic.Int64 // in seconds of the clock of limiters
}

// limiters are the limits that requests bring along. One that has not been used for longer than its window
// counts nothing any more, and makes room for another.
type limiters struct {
	provider trypema.Binder
	started  time.Time

	mu  sync.RWMutex
	all map[Limit]*limiter
}

func newLimiters(p trypema.Binder) *limiters {
	return &limiters{provider: p, started: time.Now(), all: make(map[Limit]*limiter)}
}

// of returns the limiter of a limit.
func (l *limiters) of(want Limit) (*limiter, error) {
	now := int64(time.Since(l.started) / time.Second)
	l.mu.RLock()
	one := l.all[want]
	if one != nil && one.lastUse.Load() != now {
		one.lastUse.Store(now)
	}
	l.mu.RUnlock()
	if one != nil {
		return one, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if other := l.all[want]; other != nil {
		return other, nil
	}
	if len(l.all) >= MaxLimits {
		l.forgetLocked(now)
	}
	if len(l.all) >= MaxLimits {
		return nil, ErrTooManyLimits
	}
	one, err := bind(l.provider, want)
	if err != nil {
		return nil, err
	}
	one.lastUse.Store(now)
	l.all[want] = one
	return one, nil
}

// forgetLocked forgets limits that count nothing any more.
func (l *limiters) forgetLocked(now int64) {
	for want, one := range l.all {
		// An event counts for less than two windows, and the second of the last use is rounded down.
		if idle := time.Duration(now-one.lastUse.Load()-1) * time.Second; idle > 2*want.Window {
			delete(l.all, want)
		}
	}
}

// bind binds a limit to the provider. A capacity of 0 denies everything.
func bind(p trypema.Binder, want Limit) (*limiter, error) {
	b, err := p.Bind(trypema.StrategyAbsolute, trypema.AtMost(want.Capacity, want.Window))
	if err != nil {
		return nil, err
	}
	return &limiter{Bound: b, Limit: want}, nil
}
