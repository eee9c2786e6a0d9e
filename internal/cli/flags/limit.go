package flags

import (
	"errors"
	"strings"
	"time"

	"github.com/trypema/trypema"
)

// Limit is what the flags of a command say about the limit it is to enforce.
type Limit struct {
	Rate            float64
	Window          time.Duration
	Bucket          *time.Duration // nil: the library's default
	HardLimitFactor float64
}

// Resolve checks the flags by the library's own rules, and returns the options with their defaults filled in
// and the capacity of one window. A zero is refused here because the library takes it for "use the default",
// which is not what a user who writes 0 means.
func (l Limit) Resolve() (trypema.Options, uint64, error) {
	options := trypema.Options{Window: l.Window, Bucket: Or(l.Bucket, 0), HardLimitFactor: l.HardLimitFactor}
	err := First(
		Check(l.Window >= time.Millisecond, "window", l.Window, "at least 1ms"),
		Check(l.Bucket == nil || *l.Bucket >= time.Millisecond, "bucket", options.Bucket, "at least 1ms"),
		Check(l.HardLimitFactor >= 1, "hard-limit-factor", l.HardLimitFactor, "finite and at least 1"),
	)
	if err != nil {
		return options, 0, err
	}
	options, err = options.WithDefaults()
	if err != nil {
		return options, 0, inFlags(err)
	}
	capacity, err := trypema.Rate(l.Rate).Capacity(options.Window)
	if err != nil {
		return options, 0, inFlags(err)
	}
	return options, capacity, nil
}

// HardCapacity is what Suppressed never passes in any window, of a capacity.
func HardCapacity(capacity uint64, o trypema.Options) uint64 {
	return uint64(float64(capacity) * o.HardLimitFactor)
}

// inFlags rewords an error of the library, which speaks of fields, for someone who typed flags.
func inFlags(err error) error {
	text := strings.NewReplacer(
		"trypema: rate is", "--rate is",
		"trypema: ", "",
		"Options.Window", "--window",
		"lengthen the window", "lengthen --window",
		"Options.Bucket", "--bucket",
		"Options.HardLimitFactor", "--hard-limit-factor",
	).Replace(err.Error())
	return &LibraryError{text, err}
}

// LibraryError is a refusal by the library, in the words of the command line.
type LibraryError struct {
	text  string
	cause error
}

func (e *LibraryError) Error() string { return e.text }
func (e *LibraryError) Unwrap() error { return e.cause }

// IsWrong reports whether err says that a flag is wrong, rather than that something failed.
func IsWrong(err error) bool {
	var flag *Error
	var library *LibraryError
	return errors.As(err, &flag) || errors.As(err, &library)
}
