package trypema

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/pertime"
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

// MarshalText writes the strategy as String does.
func (s Strategy) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads "absolute" or "suppressed". It leaves the strategy as it is if the text is wrong.
func (s *Strategy) UnmarshalText(text []byte) error {
	for _, one := range []Strategy{StrategyAbsolute, StrategySuppressed} {
		if string(text) == one.String() {
			*s = one
			return nil
		}
	}
	return invalid.Errorf(ErrInvalidOptions, "strategy is %q; it must be absolute or suppressed", text)
}

// Limit is how much may pass in any window of some length. AtMost makes one; a literal with a Rate and a
// Window is for limits that are no whole number.
type Limit struct {
	// Name is what Decision.RefusedBy says: printable UTF-8 without a space at either end. Default the
	// window, as in "1h0m0s".
	Name string
	// Rate is that at which calls are admitted: PerHour(1000). AtMost sets it.
	Rate Rate
	// Window is the length of the sliding window; from 1ms to 100 years. Its bucket has the share of it that
	// Options.Bucket has of Options.Window, and is at least 1ms.
	Window time.Duration

	kind limitKind
}

type limitKind uint8

const (
	limitCounts limitKind = iota
	limitBlocks
	limitNothing
)

// NoLimit is no limit: every call passes, and nothing is counted or stored. It is for tables of limits in
// which some have none.
var NoLimit = Limit{kind: limitNothing}

// AtMost is at most n in any window of that length. The capacity is exactly n up to 10¹⁵, and within a part
// in 10¹⁵ above that. An n of 0 blocks: every call is denied, with a RetryAfter of Never, and nothing is
// stored. Bind refuses a window that is too short or too long.
func AtMost(n uint64, window time.Duration) Limit {
	l := Limit{Rate: Per(float64(n), window), Window: window}
	if n == 0 {
		l.Rate, l.kind = 0, limitBlocks
	}
	return l
}

// Named returns the limit with a name.
func (l Limit) Named(name string) Limit {
	l.Name = name
	return l
}

// Label returns the name of the limit, or its window if it has none: what Decision.RefusedBy says.
func (l Limit) Label() string {
	if l.Name != "" {
		return l.Name
	}
	return l.Window.String()
}

// Capacity is how much one window may hold: see Rate.Capacity. It is 0 for a limit that blocks, and 2⁶³−1
// for NoLimit.
func (l Limit) Capacity() (uint64, error) {
	switch l.kind {
	case limitBlocks:
		return 0, nil
	case limitNothing:
		return math.MaxInt64, nil
	}
	return l.Rate.Capacity(l.Window)
}

// Blocks reports whether the limit denies every call, as AtMost(0, window) does.
func (l Limit) Blocks() bool { return l.kind == limitBlocks }

// IsNoLimit reports whether the limit is NoLimit, whatever its name.
func (l Limit) IsNoLimit() bool { return l.kind == limitNothing }

// String returns the limit for people to read, as "100 per 1m0s".
func (l Limit) String() string {
	switch {
	case l.kind == limitNothing:
		return "no limit"
	case l.Rate == Unlimited:
		return fmt.Sprintf("unlimited per %v", l.Window)
	}
	return fmt.Sprintf("%s per %v", strconv.FormatFloat(l.events(), 'f', -1, 64), l.Window)
}

// events is how many events the rate lets through in a window, without the noise of floating point.
func (l Limit) events() float64 {
	n := float64(l.Rate) * l.Window.Seconds()
	if whole := math.Round(n); math.Abs(n-whole) <= 1e-12*whole {
		return whole
	}
	if short := math.Round(n*1e6) / 1e6; Per(short, l.Window) == l.Rate {
		return short
	}
	return n
}

// ParseLimit reads a limit as text: 100/m is AtMost(100, time.Minute). The time may be a unit or a duration,
// with days: 5/15m, 1000/7d. "none" is NoLimit, "unlimited/1h" counts and lets pass, and a name may come
// first, as in burst=20/2s. The error names the text and the rule.
func ParseLimit(s string) (Limit, error) {
	name, text := "", s
	if i := strings.LastIndexByte(s, '='); i >= 0 {
		name, text = s[:i], s[i+1:]
	}
	var l Limit
	if per, ok := strings.CutPrefix(text, "unlimited/"); ok {
		window, ok := pertime.Duration(per)
		if !ok {
			return Limit{}, invalid.Errorf(ErrInvalidOptions, "limit is %q; it must be %s", s, limitRule)
		}
		l = Limit{Rate: Unlimited, Window: window}
	} else if text == "none" {
		l = NoLimit
	} else {
		n, per, ok := pertime.Parse(text)
		switch {
		case !ok || n > math.MaxInt64:
			return Limit{}, invalid.Errorf(ErrInvalidOptions, "limit is %q; it must be %s", s, limitRule)
		case n == 0:
			l = AtMost(0, per)
		default:
			l = Limit{Rate: Per(n, per), Window: per}
		}
	}
	l.Name = name
	if l.kind == limitCounts {
		if err := CheckLimits(StrategyAbsolute, []Limit{l}); err != nil {
			return Limit{}, err
		}
	}
	return l, nil
}

const limitRule = pertime.Rule + `; or "none"; after a name and "=" if it has one`

// MarshalText writes what ParseLimit reads as the same limit.
func (l Limit) MarshalText() ([]byte, error) {
	var text string
	switch {
	case l.kind == limitNothing:
		text = "none"
	case l.Rate == Unlimited:
		text = "unlimited/" + pertime.FormatDuration(l.Window)
	default:
		text = pertime.Format(l.events(), l.Window)
	}
	if l.Name != "" {
		text = l.Name + "=" + text
	}
	return []byte(text), nil
}

// UnmarshalText is ParseLimit. It leaves the limit as it is if the text is wrong.
func (l *Limit) UnmarshalText(text []byte) error {
	read, err := ParseLimit(string(text))
	if err == nil {
		*l = read
	}
	return err
}

// MaxLimits is how many limits a call can have at once.
const MaxLimits = 8

// CheckLimits returns what is wrong with limits that are to be kept together, as an ErrInvalidOptions or
// ErrInvalidRate that names the limit, or nil. Bind calls it; programs need it only to check what they have
// read from somewhere. NoLimit can stand among others any number of times.
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
		if l.kind == limitNothing {
			continue
		}
		if l.Window < time.Millisecond || l.Window > maxWindow {
			return invalid.Errorf(ErrInvalidOptions, "limit %q: Window is %v; it must be from 1ms to %v",
				l.Label(), l.Window, maxWindow)
		}
		if !invalid.Name(l.Name) {
			return invalid.Errorf(ErrInvalidOptions,
				"limit %q: the name must be %s", l.Name, invalid.NameRule)
		}
		if _, err := l.Capacity(); err != nil {
			return invalid.Errorf(ErrInvalidRate, "limit %q: %s", l.Label(),
				strings.TrimPrefix(err.Error(), "trypema: "))
		}
		for _, other := range limits[:i] {
			if other.kind == limitNothing {
				continue
			}
			if other.Label() == l.Label() || other.Window == l.Window {
				return invalid.Errorf(ErrInvalidOptions,
					"limits %q and %q both have the name %q or the window %v; each must have its own",
					other.Label(), l.Label(), l.Label(), l.Window)
			}
		}
	}
	return nil
}
