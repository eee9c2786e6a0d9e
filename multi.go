package trypema

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/invalid"
)

// Strategy is one of the two, where a choice is made by a value.
type Strategy uint8

const (
	// StrategyAbsolute admits while there is room, and rejects at once when there is none.
	StrategyAbsolute Strategy = iota
	// StrategySuppressed declines a growing fraction of calls near and over the limit.
	StrategySuppressed
)

// String returns "absolute" or "suppressed".
func (s Strategy) String() string {
	switch s {
	case StrategyAbsolute:
		return "absolute"
	case StrategySuppressed:
		return "suppressed"
	}
	return "Strategy(" + strconv.Itoa(int(s)) + ")"
}

// Limit is one of several limits that a call has to keep at once.
type Limit struct {
	// Name is what Decision.RefusedBy says: printable UTF-8 without a space at either end. Default the
	// window, as in "1h0m0s".
	Name string
	// Rate is that at which calls are admitted: PerHour(1000).
	Rate Rate
	// Window is the length of the sliding window; from 1ms to 100 years. Its bucket has the share of it that
	// Options.Bucket has of Options.Window, and is at least 1ms.
	Window time.Duration
}

// Label returns the name of the limit, or its window if it has none.
func (l Limit) Label() string {
	if l.Name != "" {
		return l.Name
	}
	return l.Window.String()
}

// MaxLimits is how many limits a call can have at once.
const MaxLimits = 8

// CheckLimits returns what is wrong with limits that are to be kept together, as an ErrInvalidOptions or
// ErrInvalidRate that names the limit, or nil. Multi calls it; programs need it only to check what they have
// read from somewhere.
func CheckLimits(s Strategy, limits []Limit) error {
	if s > StrategySuppressed {
		return invalid.Errorf(ErrInvalidOptions,
			"strategy is %v; it must be StrategyAbsolute or StrategySuppressed", s)
	}
	if len(limits) == 0 || len(limits) > MaxLimits {
		return invalid.Errorf(ErrInvalidOptions, "%d limits; there must be from 1 to %d", len(limits),
			MaxLimits)
	}
	for i, l := range limits {
		if l.Window < time.Millisecond || l.Window > maxWindow {
			return invalid.Errorf(ErrInvalidOptions, "limit %q: Window is %v; it must be from 1ms to %v",
				l.Label(), l.Window, maxWindow)
		}
		if !invalid.Name(l.Name) {
			return invalid.Errorf(ErrInvalidOptions,
				"limit %q: the name must be %s", l.Name, invalid.NameRule)
		}
		if _, err := l.Rate.Capacity(l.Window); err != nil {
			return invalid.Errorf(ErrInvalidRate, "limit %q: %s", l.Label(),
				strings.TrimPrefix(err.Error(), "trypema: "))
		}
		for _, other := range limits[:i] {
			if other.Label() == l.Label() || other.Window == l.Window {
				return invalid.Errorf(ErrInvalidOptions,
					"limits %q and %q both have the name %q or the window %v; each must have its own",
					other.Label(), l.Label(), l.Label(), l.Window)
			}
		}
	}
	return nil
}

// MultiLimiter keeps several limits at once, all or nothing: 10 a second and 1000 an hour. A call is admitted
// if it fits into all of them, and is then recorded in all of them; if it does not, it is recorded in none
// (by Suppressed, as declined in all). Each limit holds in any window of its own, as if it were alone.
//
// The decision names the limit that refused; if several do, the one that takes longest to have room, as its
// RetryAfter is that of the call. Limit, Remaining and RemainingAfterWaiting are those of that limit; of an
// admitted call, those of the limit with the least room.
//
// What a key has used in a window belongs to the provider, the strategy and the length of the window. So a
// MultiLimiter that is made anew with other rates goes on with what was used, and one with the window of the
// provider's options shares it with the provider's Absolute or Suppressed.
type MultiLimiter interface {
	// Allow is AllowN with a cost of 1.
	Allow(ctx context.Context, key string) (Decision, error)

	// AllowN decides whether a call of cost n may pass now, and records it, in one step.
	AllowN(ctx context.Context, key string, n uint64) (Decision, error)

	// Peek decides as AllowN would at this instant, and records nothing. A cost of 0 is answered as a cost of
	// 1.
	Peek(ctx context.Context, key string, n uint64) (Decision, error)

	// Reserve is AllowN for a call whose cost is an estimate. Commit puts the true cost in its place, and
	// Refund gives it back. If neither is called, the estimate leaves the windows after expiry, less than a
	// bucket late. Its store sees to that: this process may be gone by then. An expiry of 0 is none: the
	// estimate then counts until it is a window old.
	Reserve(ctx context.Context, key string, estimate uint64, expiry time.Duration) (*Reservation, error)

	// Usage reports what the windows of the key hold, in the order in which the limits were given.
	Usage(ctx context.Context, key string) ([]Usage, error)

	// Delete forgets the key in all windows.
	Delete(ctx context.Context, key string) error
}
