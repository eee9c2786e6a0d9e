// Package breaker is the circuit breakers between a provider and Redis, one for each server.
package breaker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker is the circuit breaker of one server, here called Redis. After maxFailures exchanges in a row that
// brought no answer, Redis counts as gone, and is asked again once in a while. The first answer that is in
// time ends that.
//
// A Redis that answers now and then would be gone and back all the time. So a patient breaker wants maxWins
// answers in a row from one that goes again soon after it came back, or one if no exchange has failed for a
// while. It has Redis asked one time after the other as long as it answers, and once in a while again when it
// does not.
type Breaker struct {
	set  *Set
	name string // of the server, or ""

	gone atomic.Bool // whether cause is set

	mu       sync.Mutex
	failures int       // in a row
	wins     int       // in a row, since it is gone or, up to calm of them, since it came back
	needed   int       // wins until it is back
	failed   time.Time // when the last exchange failed
	answered time.Time // when the last exchange succeeded
	reason   error     // of those failures
	cause    error     // why Redis counts as unavailable
	again    time.Time // when to ask it again
	asked    time.Time // when a call last wanted to ask it, since it is unavailable
	back     time.Time // when it came back last
}

const (
	maxFailures = 3
	maxWins     = 16
	calm        = 64 // successes after which it is not soon any more
	calmRetries = 4  // times retry without a failure, after which one answer is enough
)

// Gone reports whether Redis is taken for gone.
func (b *Breaker) Gone() bool { return b.gone.Load() }

// Cause returns why Redis is taken for gone, or nil.
func (b *Breaker) Cause() error {
	if !b.Gone() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cause
}

// Back returns when Redis came back last, after it was taken for gone; the zero time if it never was.
func (b *Breaker) Back() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.back
}

// Down returns why Redis is taken for gone, or nil. Once in a while it tells a caller to see whether it is
// back.
func (b *Breaker) Down() (probe bool, cause error) {
	if !b.Gone() {
		return false, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.set.now()
	b.asked = now
	probe = b.cause != nil && !now.Before(b.again)
	if probe {
		b.again = now.Add(b.set.retry)
	}
	return probe, b.cause
}

// Failure is an exchange without any answer in time.
func (b *Breaker) Failure(err error) {
	b.mu.Lock()
	now := b.set.now()
	b.failures++
	b.failed = now
	if b.failures == 1 || !broken(err) {
		b.reason = err
	}
	changed := b.failures >= maxFailures && b.cause == nil
	if changed {
		b.needed = 1
		if b.set.patient && b.wins < calm {
			b.needed = maxWins
		}
		if b.cause = b.reason; b.name != "" {
			b.cause = fmt.Errorf("%s: %w", b.name, b.reason)
		}
		b.again, b.asked = now.Add(b.set.retry), now
		b.gone.Store(true)
		b.set.note(b.cause)
	}
	if b.cause != nil {
		b.wins = 0
	}
	b.mu.Unlock()
	if changed {
		b.set.tell()
	}
}

// Silence is an exchange without any answer in time, of calls the latest of which was made at an instant. It
// is a Failure, unless Redis has answered since then: these calls have waited for others.
func (b *Breaker) Silence(err error, made time.Time) {
	b.mu.Lock()
	answered := b.answered.After(made)
	b.mu.Unlock()
	if !answered {
		b.Failure(err)
	}
}

// broken reports whether err says no more than that a connection broke. What failed before it says why: a
// server, for one, that closes the connections of those who may not use it, once it has told them so.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && op.Op != "dial"
}

// Success is an exchange with an answer in time.
func (b *Breaker) Success() {
	b.mu.Lock()
	now := b.set.now()
	b.failures, b.answered = 0, now
	b.wins = min(b.wins+1, calm)
	changed := b.cause != nil && (b.wins >= b.needed || now.Sub(b.failed)/calmRetries >= b.set.retry)
	if b.cause != nil {
		b.again = now
	}
	if changed {
		b.wins = 0
		b.closeLocked(now)
	}
	b.mu.Unlock()
	if changed {
		b.set.tell()
	}
	b.set.tidy(now)
}

// closeLocked makes what was gone be back.
func (b *Breaker) closeLocked(now time.Time) {
	b.cause, b.back = nil, now
	b.gone.Store(false)
	b.set.note(nil)
}
