package redislimit

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Health is what a provider thinks of Redis.
type Health struct {
	// Available is false while OnFailure decides.
	Available bool
	// Err is why Redis was taken for gone; nil once it is back.
	Err error
}

// ErrUnavailable is the error of a verb that no failure policy can answer: Usage, Set and Delete while Redis can not be
// asked. The error that is returned says why. Set and Delete may have been done if Redis only did not answer in time.
var ErrUnavailable = errors.New("redislimit: Redis is unavailable")

// ErrInDoubt is the error of a call whose context ended while Redis was deciding: it may have been counted.
var ErrInDoubt = errors.New("redislimit: sent to Redis, which may have counted it")

// trouble is why the failure policy has to decide.
type trouble struct{ cause error }

func (t *trouble) Error() string   { return ErrUnavailable.Error() + ": " + t.cause.Error() }
func (t *trouble) Unwrap() []error { return []error{ErrUnavailable, t.cause} }

// isKeyFault reports whether an error of Redis is about what a key holds. To ask again, or another server, does not help.
func isKeyFault(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "WRONGTYPE") || strings.Contains(err.Error(), "NOTAWINDOW"))
}

// lacksStruct reports whether an error says that the server's Lua does not have the library struct.
func lacksStruct(err error) bool {
	return err != nil && strings.Contains(err.Error(), "variable 'struct'")
}

// isCrossSlot reports whether an error says that the keys of one script are not on one node.
func isCrossSlot(err error) bool { return err != nil && strings.Contains(err.Error(), "CROSSSLOT") }

// health is the circuit breaker. After maxFailures exchanges in a row that brought no answer, Redis is taken for gone, and
// asked again once in a while. The first answer that is in time ends that.
type health struct {
	retry    time.Duration
	onChange func(Health)

	gone atomic.Bool // whether cause is set

	mu       sync.Mutex
	failures int       // in a row
	cause    error     // why Redis is taken for gone
	again    time.Time // when to ask it again
	changes  []Health  // that nobody was told of yet

	telling sync.Mutex // keeps them in order
}

const maxFailures = 3

// down returns why Redis is taken for gone, or nil. Once in a while it tells a caller to see whether it is back.
func (h *health) down() (probe bool, cause error) {
	if !h.gone.Load() {
		return false, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	probe = h.cause != nil && !now.Before(h.again)
	if probe {
		h.again = now.Add(h.retry)
	}
	return probe, h.cause
}

// failure is an exchange without any answer in time.
func (h *health) failure(err error) {
	h.mu.Lock()
	h.failures++
	changed := h.failures >= maxFailures && h.cause == nil
	if changed {
		h.cause, h.again = err, time.Now().Add(h.retry)
		h.gone.Store(true)
		h.changes = append(h.changes, Health{Err: err})
	}
	h.mu.Unlock()
	if changed {
		h.tell()
	}
}

// success is an exchange with an answer in time.
func (h *health) success() {
	h.mu.Lock()
	h.failures = 0
	changed := h.cause != nil
	if changed {
		h.cause = nil
		h.gone.Store(false)
		h.changes = append(h.changes, Health{Available: true})
	}
	h.mu.Unlock()
	if changed {
		h.tell()
	}
}

func (h *health) tell() {
	h.telling.Lock()
	defer h.telling.Unlock()
	h.mu.Lock()
	changes := h.changes
	h.changes = nil
	h.mu.Unlock()
	for _, c := range changes {
		if h.onChange != nil {
			h.onChange(c)
		}
	}
}
