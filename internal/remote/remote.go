// Package remote is what the verbs of all providers with Redis have in common: which arguments they take, how Redis is asked,
// and what its verdicts mean.
package remote

import (
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/window"
)

const (
	// MaxCapacity is the largest capacity that Redis can count with.
	MaxCapacity = Most - 1
	// Most is where counting ends: a quarter of 2⁵³, up to which the scripts know whole numbers.
	Most = 1 << 51
)

// MaxKeyLen keeps a key from filling Redis by itself.
const MaxKeyLen = 1 << 20

// CheckKey returns a trypema.ErrInvalidKey for a key that is not stored in Redis.
func CheckKey(key string) error {
	switch {
	case key == "":
		return invalid.Errorf(trypema.ErrInvalidKey, "key is empty; it must have at least one byte")
	case len(key) > MaxKeyLen:
		return invalid.Errorf(trypema.ErrInvalidKey, "key has %d bytes; it must have at most %d", len(key), MaxKeyLen)
	}
	return nil
}

// CheckHistory returns a trypema.ErrInvalidOptions for what is not a constant of trypema.History.
func CheckHistory(keep trypema.History) error {
	if keep > trypema.KeepOldest {
		return invalid.Errorf(trypema.ErrInvalidOptions, "history is %v; it must be Replace, KeepNewest or KeepOldest", keep)
	}
	return nil
}

// CheckTotal returns a trypema.ErrInvalidCost for a total that Redis can not count.
func CheckTotal(total uint64) error {
	if total > MaxCapacity {
		return invalid.Errorf(trypema.ErrInvalidCost, "total is %d; it must be at most %d, which is as far as Redis counts", total, uint64(MaxCapacity))
	}
	return nil
}

// ErrZeroCost is the trypema.ErrInvalidCost of a call that costs nothing.
var ErrZeroCost = invalid.Errorf(trypema.ErrInvalidCost, "cost is 0; it must be at least 1 (Peek takes 0)")

// CheckReservation returns what is wrong with an estimate and an expiry.
func CheckReservation(estimate uint64, expiry time.Duration) error {
	switch {
	case estimate == 0:
		return ErrZeroCost
	case expiry < 0:
		return invalid.Errorf(trypema.ErrInvalidOptions, "expiry is %v; it must be 0 (none) or more", expiry)
	}
	return nil
}

// Capacity returns that of a window at a rate, at most MaxCapacity, or a trypema.ErrInvalidRate.
func Capacity(rate trypema.Rate, window time.Duration) (uint64, error) {
	c, err := rate.Capacity(window)
	return min(c, MaxCapacity), err
}

// Names gives the keys of a limiter their names in Redis:
//
//	{prefix:key}:strategy:window
//	{prefix:key}:strategy:window:group
//
// The strategy is one or two letters, and the number of colons in the prefix if it has any, which says where
// the key begins. A window has no colon and is no strategy, and a group has no colon. So a name can be read
// from its end, whatever the bytes of the key, and no two (prefix, group, key, strategy, window) have the
// same name.
//
// The version before this one wrote neither that number nor the group at the end, but a group and a colon
// before the key. Its names of plain keys under a prefix without a colon are those of today. No other name of
// today is one of its names, so nothing is counted under another's.
//
// In a Cluster all names of a key are in one slot: the part that is hashed ends at the first closing brace.
type Names struct{ before, letter, after string }

// NewNames returns the names of the keys of one strategy, which the letter stands for, with windows of one length.
func NewNames(prefix, letter string, window time.Duration) Names {
	kind := letter
	if n := strings.Count(prefix, ":"); n > 0 {
		kind += strconv.Itoa(n)
	}
	return Names{"{" + prefix + ":", letter, "}:" + kind + ":" + window.String()}
}

// Of returns the name of the Redis key of a key, of which it takes the form.
func (n Names) Of(form string) string {
	group, key := groupkey.Split(form)
	if group == "" {
		return n.before + key + n.after
	}
	return n.before + key + n.after + ":" + group
}

// Form returns the form of the key that a name was made of.
func (n Names) Form(name string) string {
	if key, plain := strings.CutSuffix(name[len(n.before):], n.after); plain {
		return groupkey.Plain(key)
	}
	colon := strings.LastIndexByte(name, ':')
	return groupkey.Prefix(name[colon+1:]) + name[len(n.before):colon-len(n.after)]
}

// Letter returns what the strategy is called in the names.
func (n Names) Letter() string { return n.letter }

// SetArgs returns the ARGV of set.lua after those that every script begins with.
func SetArgs(when trypema.Condition, total uint64, keep trypema.History, letter string) []string {
	return []string{when.String(), strconv.FormatUint(total, 10), keep.String(), letter}
}

// Decide makes d, which is zero, what a verdict means at a capacity. The unit is that of v.Wait; denial is how the strategy
// says no.
func Decide(d *trypema.Decision, capacity uint64, v *window.Verdict, unit time.Duration, denial trypema.Outcome) {
	d.Allowed = v.Allowed
	d.Outcome = denial
	if v.Allowed {
		d.Outcome = trypema.OutcomeAllowed
	}
	d.Limit = capacity
	d.Remaining = window.Room(capacity, v.Now)
	d.RetryAfter = trypema.Never
	if v.Wait != window.Never {
		d.RetryAfter = time.Duration(v.Wait) * unit
		d.RemainingAfterWaiting = window.Room(capacity, v.Then)
	}
	d.SuppressionFactor = v.Factor
}

// Open returns the decision of a limiter that can not ask, and admits.
func Open(capacity, n uint64) trypema.Decision {
	room := window.Room(capacity, n)
	return trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: capacity, Remaining: room, RemainingAfterWaiting: room}
}

// Closed returns the decision of a limiter that can not ask, and says no until it asks again, after retry.
func Closed(capacity, n uint64, retry time.Duration, denial trypema.Outcome) trypema.Decision {
	d := trypema.Decision{Outcome: denial, Limit: capacity, RetryAfter: retry}
	if n > capacity {
		d.RetryAfter = trypema.Never
	}
	if denial == trypema.OutcomeSuppressed {
		d.SuppressionFactor = 1
	}
	return d
}
