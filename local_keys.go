package trypema

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
)

// localKeys is what the two strategies have in common: windows by key, and the clock. Keys are as package
// groupkey writes them, from where a verb has checked the key that it was given.
type localKeys struct {
	table   *table.Table[window.Window, window.Groups]
	span    window.Span
	seconds float64 // of the window
	started time.Time
	closed  atomic.Bool
	tally   *tally.Tally // nil without an Observer
	users   inuse.Count  // of those with other windows than that of the options

	provider int64 // its number
	strategy Strategy
}

// compare says whose shards are locked first by a call that locks those of both: of the older provider, of
// Absolute, of the shorter window.
func (k *localKeys) compare(other *localKeys) int {
	return cmp.Or(cmp.Compare(k.provider, other.provider), cmp.Compare(k.strategy, other.strategy),
		cmp.Compare(k.span.Window, other.span.Window))
}

type localShard = table.Shard[window.Window, window.Groups]

func (k *localKeys) init(l *Local, s Strategy, o Options) {
	k.provider, k.strategy = l.number, s
	started := l.started
	span := window.Span{Window: int64(o.Window), Bucket: int64(o.Bucket)}
	k.span, k.seconds, k.started = span, o.Window.Seconds(), started
	// What the table calls must not know k: it would keep a table that is dropped alive.
	k.table = table.New(table.Kind[window.Window, window.Groups]{
		Last: (*window.Window).Last,
		Free: func(g *window.Groups, w *window.Window) { w.Clear(g) },
		Move: func(from, to *window.Groups, w *window.Window) { w.Move(from, to) },
		Add:  func(w *window.Window, last int64, n uint64) { w.Join(last, n) },
	}, o.Window+o.Bucket, o.MaxKeys, func() int64 { return int64(time.Since(started)) })
}

// Window is how long the window is: see Limiter.
func (k *localKeys) Window() time.Duration { return time.Duration(k.span.Window) }

// now is the only place where the clock is read: monotonic, in nanoseconds since the start.
func (k *localKeys) now() int64 { return int64(time.Since(k.started)) }

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

// find locks the shard of a key and returns its window, live at the instant that it returns too. A key that
// is not there has an empty window that belongs to nobody.
func (k *localKeys) find(key string) (sh *localShard, h table.Handle, w *window.Window, now int64) {
	now = k.now()
	hash := k.table.Hash(key)
	sh = k.table.Shard(hash)
	sh.Lock()
	if h = sh.Find(hash, key); h == table.None {
		return sh, h, new(window.Window), now
	}
	w = sh.State(h)
	now = w.Advance(&sh.Memory, k.span, now)
	return sh, h, w, now
}

// open makes a key the hot one of its shard.
func (k *localKeys) open(sh *localShard, h table.Handle, w *window.Window) {
	now := w.Now()
	closes, expires, oldest := w.Open(&sh.Memory, k.span)
	sh.Open(h, &table.Hot{
		Window:   k.span.Window,
		Opened:   now,
		Closes:   min(closes, now+table.MaxOpen),
		Last:     w.Last(),
		Admitted: w.Counts().Admitted,
		Expires:  expires,
		Oldest:   oldest,
	})
}

// Set reads the clock once and takes one lock.
func (k *localKeys) Set(
	_ context.Context, key string, when Condition, total uint64, keep History,
) (SetResult, error) {
	if keep > KeepOldest {
		return SetResult{}, invalid.Errorf(ErrInvalidOptions, "history is %v; it must be Replace, KeepNewest or KeepOldest", keep)
	}
	// The rate has no say here; Unlimited is one that is always valid.
	if _, err := k.capacity(key, Unlimited); err != nil {
		return SetResult{}, err
	}
	key = groupkey.Plain(key)
	sh, h, w, now := k.find(key)
	if h == table.None && total > 0 && when.Holds(0) {
		sh.Unlock()
		sh, h = k.table.Acquire(k.table.Hash(key), key, now)
		w = sh.State(h)
		now = w.Advance(&sh.Memory, k.span, now)
	}
	defer sh.Unlock()
	have := w.Counts().Observed()
	if !when.Holds(have) {
		return SetResult{Previous: have, Current: have}, nil
	}
	switch {
	case h == table.None: // and total is 0
	case total == 0:
		sh.Remove(h)
	case keep == Replace || have == 0:
		w.Replace(&sh.Memory, k.span, now, total)
	case keep == KeepNewest:
		w.Resize(&sh.Memory, k.span, total, window.Newest)
	default:
		w.Resize(&sh.Memory, k.span, total, window.Oldest)
	}
	return SetResult{Matched: true, Previous: have, Current: total}, nil
}

// Delete takes one lock.
func (k *localKeys) Delete(_ context.Context, key string) error {
	if _, err := k.capacity(key, Unlimited); err != nil {
		return err
	}
	k.remove(groupkey.Plain(key))
	return nil
}

func (k *localKeys) remove(key string) {
	hash := k.table.Hash(key)
	sh := k.table.Shard(hash)
	sh.Lock()
	defer sh.Unlock()
	if h := sh.Find(hash, key); h != table.None {
		sh.Remove(h)
	}
}

// usage reports the live counts of a key, and the suppression factor under a law, or 0 under none.
func (k *localKeys) usage(key string, rate Rate, law func(c uint64) *window.Law) (Usage, error) {
	c, err := k.capacity(key, rate)
	if err != nil {
		return Usage{}, err
	}
	sh, _, w, now := k.find(key)
	defer sh.Unlock()
	counts := w.Counts()
	u := Usage{Total: counts.Observed(), Declined: counts.Declined, Limit: c, Remaining: window.Room(c, counts.Admitted)}
	if law != nil {
		u.SuppressionFactor = w.Factor(&sh.Memory, k.span, law(c), now, 1)
	}
	return u, nil
}
