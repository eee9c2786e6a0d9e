package engine

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
)

// Provider is what the engine needs of a provider of limits.
type Provider interface {
	trypema.MultiProvider
	Close() error
}

// MaxLimits bounds the different limits that requests may bring along at a time.
const MaxLimits = 1024

// ErrTooManyLimits is a request with a limit of its own, while MaxLimits others are in use.
var ErrTooManyLimits = errors.New("too many different limits are in use")

// limit is a capacity and the window in which it holds.
type limit struct {
	capacity uint64
	window   time.Duration
}

// limiter is a limit that is bound to the provider.
type limiter struct {
	trypema.MultiLimiter
	limit
	lastUse atomic.Int64 // in seconds of the clock of limiters
}

// limiters are the limits that requests bring along. One that has not been used for longer than its window
// counts nothing any more, and makes room for another.
type limiters struct {
	provider Provider
	started  time.Time

	mu  sync.RWMutex
	all map[limit]*limiter
}

func newLimiters(p Provider) *limiters {
	return &limiters{provider: p, started: time.Now(), all: make(map[limit]*limiter)}
}

// of returns the limiter of a limit.
func (l *limiters) of(want limit) (*limiter, error) {
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
	if one = l.all[want]; one != nil {
		return one, nil
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
		if idle := time.Duration(now-one.lastUse.Load()-1) * time.Second; idle > 2*want.window {
			delete(l.all, want)
		}
	}
}

// bind returns a limiter of the provider, or nil for a capacity of 0, which denies everything.
func bind(p Provider, want limit) (*limiter, error) {
	one := &limiter{limit: want}
	if want.capacity == 0 {
		one.MultiLimiter = blocked{}
		return one, nil
	}
	m, err := p.Multi(trypema.StrategyAbsolute,
		trypema.Limit{Rate: trypema.Per(float64(want.capacity), want.window), Window: want.window})
	if err != nil {
		return nil, err
	}
	one.MultiLimiter = m
	c, _ := trypema.Per(float64(want.capacity), want.window).Capacity(want.window)
	if c != want.capacity {
		return nil, fmt.Errorf("limit %d per %v would be %d", want.capacity, want.window, c)
	}
	return one, nil
}
