package redislimit

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
)

// Options configures a [Provider]. The zero value works.
type Options struct {
	// Options are those of every provider. Redis counts in whole microseconds: a Window is rounded up to one,
	// a Bucket down. MaxKeys bounds the keys that FailLocal remembers; what Redis holds is bounded by its own
	// maxmemory, and by each key's time to live.
	trypema.Options

	// Prefix begins the name of every Redis key, so that applications can share a server: no two prefixes
	// share a key. It must not contain a brace. Default "trypema".
	Prefix string

	// Timeout bounds every call: the time to wait for others, for the network and for Redis. A call that has
	// no answer by then is decided by OnFailure. Default 250ms; at least 1ms.
	Timeout time.Duration

	// OnFailure says who decides while Redis does not. Default FailLocal.
	OnFailure FailurePolicy

	// Instances is how many instances share the limit, for FailLocal: each then enforces its share of the
	// rate, so that what they admit without Redis is no more than one limit together. A window in which Redis
	// becomes unavailable, or available again, may hold that and what Redis admitted. Default 1: each
	// enforces the whole.
	Instances int

	// RetryInterval is how often Redis is asked again once it is unavailable. A call asks, and does not wait
	// for the answer. Without calls, nothing notices that Redis is back.
	// Default 500ms; at least 1ms.
	RetryInterval time.Duration

	// OnChange is called when Redis becomes unavailable, and when it is available again; one change at a
	// time, in order. With several servers these are the instants at which the first becomes unavailable, and
	// at which all are available again. It must not block: the next change waits for it. Default nil.
	OnChange func(Health)
}

// FailurePolicy says who decides while Redis cannot be asked, or does not answer in time. Such decisions are
// marked by Decision.Fallback.
type FailurePolicy uint8

const (
	// FailLocal decides by what this instance has admitted itself: each instance enforces the limit, or its
	// share of it when Options.Instances is set. To be able to, it remembers the admissions of up to MaxKeys
	// keys (262,144 where that is not set) at about 150 bytes and 100 ns each.
	FailLocal FailurePolicy = iota
	// FailOpen admits every call.
	FailOpen
	// FailClosed denies every call.
	FailClosed
)

// String returns the name of the constant.
func (p FailurePolicy) String() string {
	switch p {
	case FailLocal:
		return "FailLocal"
	case FailOpen:
		return "FailOpen"
	case FailClosed:
		return "FailClosed"
	}
	return fmt.Sprintf("FailurePolicy(%d)", uint8(p))
}

// MarshalText writes the policy as String does.
func (p FailurePolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads FailLocal, FailOpen or FailClosed. It leaves the policy as it is if the text is wrong.
func (p *FailurePolicy) UnmarshalText(text []byte) error {
	for one := FailLocal; one <= FailClosed; one++ {
		if string(text) == one.String() {
			*p = one
			return nil
		}
	}
	return invalid.Errorf(trypema.ErrInvalidOptions,
		"the failure policy is %q; it must be FailLocal, FailOpen or FailClosed", text)
}

const (
	defaultPrefix        = "trypema"
	defaultTimeout       = 250 * time.Millisecond
	defaultRetryInterval = 500 * time.Millisecond
	defaultFallbackKeys  = 1 << 18

	forever = 100 * 365 * 24 * time.Hour // a longer time could not be added to
)

// WithDefaults returns the options with zero fields replaced by their defaults, or a
// trypema.ErrInvalidOptions that names the field, its value and the rule. New calls it; programs need it only
// to see what applies.
func (o Options) WithDefaults() (Options, error) {
	var err error
	if o.Options, err = o.Options.WithDefaults(); err != nil {
		return o, err
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if strings.ContainsAny(o.Prefix, "{}") {
		return o, invalid.Errorf(trypema.ErrInvalidOptions,
			"redislimit.Options.Prefix is %q; it must not contain a brace, which Redis Cluster gives "+
				"a meaning", o.Prefix)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	o.Timeout, o.RetryInterval = min(o.Timeout, forever), min(o.RetryInterval, forever)
	if o.Timeout < time.Millisecond {
		return o, invalid.Errorf(trypema.ErrInvalidOptions,
			"redislimit.Options.Timeout is %v; it must be at least 1ms", o.Timeout)
	}
	if o.OnFailure > FailClosed {
		return o, invalid.Errorf(trypema.ErrInvalidOptions,
			"redislimit.Options.OnFailure is %v; it must be FailLocal, FailOpen or FailClosed", o.OnFailure)
	}
	if o.Instances == 0 {
		o.Instances = 1
	}
	if o.Instances < 1 || o.Instances > math.MaxInt32 {
		return o, invalid.Errorf(trypema.ErrInvalidOptions,
			"redislimit.Options.Instances is %d; it must be from 1 to %d", o.Instances, math.MaxInt32)
	}
	if o.RetryInterval == 0 {
		o.RetryInterval = defaultRetryInterval
	}
	if o.RetryInterval < time.Millisecond {
		return o, invalid.Errorf(trypema.ErrInvalidOptions,
			"redislimit.Options.RetryInterval is %v; it must be at least 1ms", o.RetryInterval)
	}
	return o, nil
}
