package trypema

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/keys"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
)

// localKeys is what the two strategies have in common: windows by key, and the clock. Keys are as package
// groupkey writes them, from where a verb has checked the key that it was given.
type localKeys struct {
	table   *keys.Table
	span    window.Span
	lawSpan window.Span // for window.NewLaw
	seconds float64     // of the window
	started time.Time
	closed  atomic.Bool
	tally   *tally.Tally // nil without an Observer
	users   inuse.Count  // of those with other windows than that of the options

	provider int64 // its number
	strategy Strategy
}

// compare says whose entries are locked first by a call that locks those of both: of the older provider, of
// Absolute, of the shorter window.
func (k *localKeys) compare(other *localKeys) int {
	return cmp.Or(cmp.Compare(k.provider, other.provider), cmp.Compare(k.strategy, other.strategy),
		cmp.Compare(k.span.Window, other.span.Window))
}

func (k *localKeys) init(l *Local, s Strategy, o Options) {
	k.provider, k.strategy = l.number, s
	started := l.started
	span := window.Span{Window: int64(o.Window), Bucket: int64(o.Bucket)}
	k.span, k.seconds, k.started = span, o.Window.Seconds(), started
	k.table = keys.New(keys.Options{
		Span: span, Suppressed: s == StrategySuppressed, Bound: o.MaxKeys,
		Clock: func() int64 { return int64(time.Since(started)) }, // which must not know k: it would keep k alive
	})
	k.lawSpan = k.table.Span()
}

// Window is how long the window is: see Limiter.
func (k *localKeys) Window() time.Duration { return time.Duration(k.span.Window) }

// now is the only place where the clock is read: monotonic, in nanoseconds since the start.
func (k *localKeys) now() int64 { return int64(time.Since(k.started)) }

// instant returns what the clock of k says when that of another provider's keys says now.
func (k *localKeys) instant(of *localKeys, now int64) int64 {
	return now + int64(of.started.Sub(k.started))
}

// count counts a decision on a call that began at an instant.
func (k *localKeys) count(allowed bool, key string, began int64) {
	cell := tally.Judged(allowed)
	if n := k.tally.Count(cell); n > 0 {
		k.sample(cell, n, key, began)
	}
}

// sample measures a call, and notes the key of a denial. It stands for n calls.
func (k *localKeys) sample(cell tally.Cell, n uint64, key string, began int64) {
	k.tally.Took(time.Duration(k.now() - began))
	if cell == tally.Denied {
		k.tally.Denied(groupkey.Shown(key), n)
	}
}

// capacity returns the capacity of a window at a rate, if the rate is valid, the key can be stored, and the
// provider is open.
func (k *localKeys) capacity(key string, rate Rate) (uint64, error) {
	c := window.Capacity(float64(rate), k.seconds)
	if c == 0 || len(key) > maxKeyLen || k.closed.Load() {
		return 0, k.refuse(key, rate)
	}
	return c, nil
}

// maxKeyLen is what the table can hold.
const maxKeyLen = 1 << 30

// refuse says what capacity found.
func (k *localKeys) refuse(key string, rate Rate) error {
	switch {
	case k.table == nil:
		return errNoLocal
	case k.closed.Load():
		return ErrClosed
	case len(key) > maxKeyLen:
		return invalid.Errorf(ErrInvalidKey, "key has %d bytes; it must have at most %d", len(key), maxKeyLen)
	default:
		return rateError(rate, time.Duration(k.span.Window))
	}
}

var errZeroCost = invalid.Errorf(ErrInvalidCost, "cost is 0; it must be at least 1 (Peek takes 0)")

// failed counts a call that is not decided, and returns why.
func (k *localKeys) failed(n uint64, err error) error {
	k.tally.Count(tally.Failed)
	if n == 0 {
		return errZeroCost
	}
	return err
}

// find locks a key, and returns an instant at which its window is live. A key that is not there has an empty
// window that belongs to no key; find reports whether it is there.
func (k *localKeys) find(hd *keys.Held, key string) (now int64, there bool) {
	k.table.Look(hd, k.table.Hash(key))
	now = k.now()
	there = hd.Find(key)
	return hd.Advance(now), there
}

// Set reads the clock once and takes one lock.
func (k *localKeys) Set(
	_ context.Context, key string, when Condition, total uint64, keep History,
) (SetResult, error) {
	if keep > KeepOldest {
		return SetResult{}, invalid.Errorf(ErrInvalidOptions,
			"history is %v; it must be Replace, KeepNewest or KeepOldest", keep)
	}
	// The rate has no say here; Unlimited is one that is always valid.
	if _, err := k.capacity(key, Unlimited); err != nil {
		return SetResult{}, err
	}
	key = groupkey.Plain(key)
	var hd keys.Held
	now, there := k.find(&hd, key)
	if !there && total > 0 && when.Holds(0) {
		hd.Unlock()
		hd.Acquire(key, now)
		now = hd.Advance(now)
		there = true
	}
	have := hd.Counts().Observed()
	if !when.Holds(have) {
		hd.Unlock()
		return SetResult{Previous: have, Current: have}, nil
	}
	switch {
	case !there: // and total is 0
	case total == 0:
		hd.Clear()
	case keep == Replace || have == 0:
		hd.Replace(now, total)
	case keep == KeepNewest:
		hd.Resize(total, window.Newest)
	default:
		hd.Resize(total, window.Oldest)
	}
	hd.Unlock()
	if there && total == 0 {
		k.table.RemoveEmpty(k.table.Hash(key), key)
	}
	return SetResult{Matched: true, Previous: have, Current: total}, nil
}

// giveBack takes up to n out of the window of a key, the oldest events first.
func (k *localKeys) giveBack(key string, n uint64) {
	var hd keys.Held
	_, there := k.find(&hd, key)
	have := hd.Counts().Observed()
	empty := there && n >= have
	switch {
	case !there || n == 0:
	case empty:
		hd.Clear()
	default:
		hd.Resize(have-n, window.Newest)
	}
	hd.Unlock()
	if empty {
		k.table.RemoveEmpty(k.table.Hash(key), key)
	}
}

// Delete takes the lock of a shard.
func (k *localKeys) Delete(_ context.Context, key string) error {
	if _, err := k.capacity(key, Unlimited); err != nil {
		return err
	}
	k.remove(groupkey.Plain(key))
	return nil
}

func (k *localKeys) remove(key string) { k.table.Remove(k.table.Hash(key), key) }

// usage reports the live counts of a key, and the suppression factor under a law, or 0 under none.
func (k *localKeys) usage(key string, rate Rate, law func(c uint64) *window.Law) (Usage, error) {
	c, err := k.capacity(key, rate)
	if err != nil {
		return Usage{}, err
	}
	var hd keys.Held
	now, _ := k.find(&hd, key)
	defer hd.Unlock()
	counts := hd.Counts()
	u := Usage{Total: counts.Observed(), Declined: counts.Declined, Limit: c,
		Remaining: window.Room(c, counts.Admitted)}
	if law != nil {
		u.SuppressionFactor = hd.Factor(law(c), now, 1)
	}
	return u, nil
}
