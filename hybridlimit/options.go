package hybridlimit

import (
	"fmt"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/redislimit"
)

// Options configures a [Provider]. The zero value works.
type Options struct {
	// Options are those of the Redis provider, and mean the same. Timeout bounds the calls that wait for
	// Redis; the others do not know of it. MaxKeys bounds the keys that each strategy of this instance holds;
	// one that makes room for another settles in the background, and gives back its lease. With FailLocal, an
	// instance takes for used what it knew of others when it heard of Redis last, and shares what is left
	// with Instances − 1 others.
	redislimit.Options

	// SyncInterval is how often keys near their limit settle with Redis, at most. A shorter one gives room
	// back sooner, and costs Redis more. Default Window/200, within 5ms and 100ms; from 1ms to Window. With
	// more than a twentieth of Window, a part of the limit is not used.
	SyncInterval time.Duration

	// OnEmpty says what becomes of a call for which this instance has nothing on lease, while it is not known
	// that the window is full. Default EmptyWait.
	OnEmpty EmptyPolicy
}

// EmptyPolicy says what becomes of a call for which this instance has nothing on lease, while it is not known
// that the window is full: the first for a key, the first after a pause, or one of a burst.
type EmptyPolicy uint8

const (
	// EmptyWait has it wait for one round trip to Redis, which all such calls for the key share.
	EmptyWait EmptyPolicy = iota
	// EmptyReject denies it at once, and asks Redis meanwhile.
	EmptyReject
)

// String returns the name of the constant.
func (p EmptyPolicy) String() string {
	switch p {
	case EmptyWait:
		return "EmptyWait"
	case EmptyReject:
		return "EmptyReject"
	}
	return fmt.Sprintf("EmptyPolicy(%d)", uint8(p))
}

const (
	intervals   = 200 // of settling in a window
	minInterval = 5 * time.Millisecond
	maxInterval = 100 * time.Millisecond
)

// intervalOf is the default for a window.
func intervalOf(w time.Duration) time.Duration {
	return min(max(w/intervals, minInterval), maxInterval, w)
}

// WithDefaults returns the options with zero fields replaced by their defaults, or a
// trypema.ErrInvalidOptions that names the field, its value and the rule. New calls it; programs need it only
// to see what applies.
func (o Options) WithDefaults() (Options, error) {
	var err error
	if o.Options, err = o.Options.WithDefaults(); err != nil {
		return o, err
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = intervalOf(o.Window)
	}
	if o.SyncInterval < time.Millisecond || o.SyncInterval > o.Window {
		return o, invalid.Errorf(trypema.ErrInvalidOptions,
			"hybridlimit.Options.SyncInterval is %v; it must be from 1ms to Options.Window (%v)",
			o.SyncInterval, o.Window)
	}
	if o.OnEmpty > EmptyReject {
		return o, invalid.Errorf(trypema.ErrInvalidOptions,
			"hybridlimit.Options.OnEmpty is %v; it must be EmptyWait or EmptyReject", o.OnEmpty)
	}
	return o, nil
}
