package redislimit

import "errors"

// Health is what a provider thinks of Redis.
type Health struct {
	// Available is false while OnFailure decides; where there are several servers, for the keys of one of
	// them at least.
	Available bool
	// Err is why Redis is unavailable; nil once it is back.
	Err error
}

// ErrUnavailable is the error of a verb that no failure policy can answer: Usage, Set and Delete while Redis
// cannot be asked. The error that is returned says why. Set and Delete may have been done if Redis only did
// not answer in time.
var ErrUnavailable = errors.New("redislimit: Redis is unavailable")

// ErrInDoubt is the error of a call whose context ended while Redis was deciding: it may have been counted.
var ErrInDoubt = errors.New("redislimit: sent to Redis, which may have counted it")

// trouble is why the failure policy has to decide.
type trouble struct{ cause error }

func (t *trouble) Error() string   { return ErrUnavailable.Error() + ": " + t.cause.Error() }
func (t *trouble) Unwrap() []error { return []error{ErrUnavailable, t.cause} }
