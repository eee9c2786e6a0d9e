package trypema

import (
	"math"
	"time"

	"github.com/trypema/trypema/internal/invalid"
)

// Options configures a provider. The zero value works.
type Options struct {
	// Window is the length of the sliding window, W. Default 10s; from 1ms to 100 years.
	Window time.Duration

	// Bucket is B: calls closer together than this may share one counter, which counts for at most B longer
	// than it must. A smaller bucket gives room back sooner: a caller that always wants more gets at least 1
	// − B/W of its capacity. Up to 110 buckets in a Window cost Local no memory. More of them, and any with
	// Redis, cost at most W/B + 2 counters for a key that is always in use, which
	// TestWindowHoldsBoundedGroups holds; in the process of 8 bytes each, or of 24 where Suppressed declines
	// or a window is long and admits much (2¹⁶ in a day). Default Window/100, at least 1ms; from 1ms to
	// Window.
	Bucket time.Duration

	// HardLimitFactor is used by Suppressed only: H × capacity is never passed in any window. 1 leaves no
	// room to suppress in and behaves as Absolute. Default 1.5; finite, at least 1.
	HardLimitFactor float64

	// MaxKeys bounds the keys that each strategy of a provider holds. Beyond it, the key whose last call is
	// the longest ago is forgotten, with its count, for each new one. Default 0: no bound but cleanup, which
	// forgets a key once its last event is older than Window + Bucket.
	MaxKeys int

	// Observer gets the meters of the provider, and can read what they count; see [Meters]. Without one
	// nothing is counted. Default nil.
	Observer Observer

	// Name is what the Observer calls the provider: its policy, as "login" or "api", in metrics. Providers of
	// one name are added up. It is printable UTF-8 without a space at either end. Default "".
	Name string
}

const (
	defaultWindow          = 10 * time.Second
	defaultHardLimitFactor = 1.5
	maxWindow              = 100 * 365 * 24 * time.Hour
)

// WithDefaults returns the options with zero fields replaced by their defaults, or an ErrInvalidOptions that
// names the field, its value and the rule. Providers call it; programs need it only to see what applies.
func (o Options) WithDefaults() (Options, error) {
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.Window < time.Millisecond || o.Window > maxWindow {
		return o, invalid.Errorf(ErrInvalidOptions, "Options.Window is %v; it must be from 1ms to %v",
			o.Window, maxWindow)
	}
	if o.Bucket == 0 {
		o.Bucket = max(o.Window/100, time.Millisecond)
	}
	if o.Bucket < time.Millisecond {
		return o, invalid.Errorf(ErrInvalidOptions, "Options.Bucket is %v; it must be at least 1ms", o.Bucket)
	}
	if o.Bucket > o.Window {
		return o, invalid.Errorf(ErrInvalidOptions, "Options.Bucket is %v, longer than Options.Window (%v)",
			o.Bucket, o.Window)
	}
	if o.HardLimitFactor == 0 {
		o.HardLimitFactor = defaultHardLimitFactor
	}
	if !(o.HardLimitFactor >= 1) || math.IsInf(o.HardLimitFactor, 0) {
		return o, invalid.Errorf(ErrInvalidOptions,
			"Options.HardLimitFactor is %v; it must be finite and at least 1", o.HardLimitFactor)
	}
	if o.MaxKeys < 0 {
		return o, invalid.Errorf(ErrInvalidOptions, "Options.MaxKeys is %d; it must be 0 (no bound) or more", o.MaxKeys)
	}
	if o.Observer != nil && invalid.Nil(o.Observer) {
		return o, invalid.Errorf(ErrInvalidOptions,
			"Options.Observer is a nil %T; it must be an Observer, or left out", o.Observer)
	}
	if !invalid.Name(o.Name) {
		return o, invalid.Errorf(ErrInvalidOptions,
			"Options.Name is %q; it must be %s", o.Name, invalid.NameRule)
	}
	return o, nil
}

// BucketOf is the bucket of a window of another length, with the same share of it that Bucket has of Window;
// at least 1ms. What a *Bound uses for its limits. The options must have their defaults.
func (o Options) BucketOf(window time.Duration) time.Duration {
	if window == o.Window {
		return o.Bucket
	}
	share := float64(o.Bucket) / float64(o.Window)
	return min(max(time.Duration(share*float64(window)), time.Millisecond), window)
}
