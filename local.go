package trypema

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
)

// Local is the provider whose state lives in this process. It is exact here, and knows nothing of other processes.
//
// A decision does no I/O and never waits for anything but a short lock, so the context of a call is not looked at. The
// resolution of its clock is a nanosecond. Every key is welcome, the empty one included.
//
// Idle keys are removed in small steps, while keys are added and by a timer that runs only while there are keys. A Local
// that is dropped without Close is collected as any other value.
type Local struct {
	absolute   localAbsolute
	suppressed localSuppressed
	options    Options

	mu     sync.Mutex               // guards what is made for a MultiLimiter:
	others map[otherKeys]*localKeys // with other windows
	closed bool
}

// otherKeys says which keys of a provider are meant.
type otherKeys struct {
	strategy Strategy
	window   time.Duration
}

// NewLocal returns a Local provider, or an ErrInvalidOptions that names the field. It starts no goroutine.
func NewLocal(o Options) (*Local, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, err
	}
	l := &Local{options: o, others: make(map[otherKeys]*localKeys)}
	started := time.Now()
	l.absolute.init(o, started)
	l.suppressed.init(o, started)
	l.suppressed.hardFactor, l.suppressed.dice = o.HardLimitFactor, rand.Float64
	l.absolute.tally = l.observe(StrategyAbsolute)
	l.suppressed.tally = l.observe(StrategySuppressed)
	return l, nil
}

// observe has the Observer, if there is one, told of a strategy, and returns what to count its calls in.
func (l *Local) observe(s Strategy) *tally.Tally {
	if l.options.Observer == nil {
		return nil
	}
	t := tally.New()
	l.options.Observer.Observe(meterOf("local", l.options.Name, s, t, l, func(l *Local, stats *Stats) {
		for _, k := range l.all(s) {
			stats.Keys += k.table.Len()
		}
	}))
	return t
}

// Absolute returns the limiter that admits while the window has room and rejects at once when it has none.
func (l *Local) Absolute() Limiter { return &l.absolute }

// Suppressed returns the limiter that declines a growing fraction of calls near and over the limit. It shares no state
// with Absolute.
func (l *Local) Suppressed() Limiter { return &l.suppressed }

// Len returns the number of keys held for both strategies, idle ones that have not been removed yet included. A key of a
// MultiLimiter counts once for each of its windows.
func (l *Local) Len() (n int) {
	for _, s := range []Strategy{StrategyAbsolute, StrategySuppressed} {
		for _, k := range l.all(s) {
			n += k.table.Len()
		}
	}
	return n
}

// own returns the keys of a strategy with the window of the options.
func (l *Local) own(s Strategy) *localKeys {
	if s == StrategySuppressed {
		return &l.suppressed.localKeys
	}
	return &l.absolute.localKeys
}

// all returns the keys of a strategy with windows of all lengths.
func (l *Local) all(s Strategy) []*localKeys {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []*localKeys{l.own(s)}
	for of, k := range l.others {
		if of.strategy == s {
			all = append(all, k)
		}
	}
	return all
}

// keysOfLocked returns the keys of a strategy with windows of a length, for a user that holds them before mu
// is unlocked.
func (l *Local) keysOfLocked(s Strategy, w time.Duration) *localKeys {
	if w == l.options.Window {
		return l.own(s)
	}
	k := l.others[otherKeys{s, w}]
	if k == nil {
		l.forgetUnusedLocked()
		k = new(localKeys)
		o := l.options
		o.Bucket = o.BucketOf(w)
		o.Window = w
		k.init(o, l.absolute.started)
		k.closed.Store(l.closed)
		l.others[otherKeys{s, w}] = k
	}
	return k
}

// forgetUnusedLocked gives back the tables of windows that no limiter has any more, once their keys are gone,
// too.
func (l *Local) forgetUnusedLocked() {
	for of, k := range l.others {
		if k.users.None() && k.table.Len() == 0 {
			k.table.Close()
			delete(l.others, of)
		}
	}
}

// Close forgets all keys and ends the cleanup; when it returns, nothing of the provider runs. Calls made after it return
// ErrClosed. It may be called again, and always returns nil.
func (l *Local) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, k := range slices.Concat(l.all(StrategyAbsolute), l.all(StrategySuppressed)) {
		k.closed.Store(true)
		k.table.Close()
	}
	return nil
}

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
}

type localShard = table.Shard[window.Window, window.Groups]

func (k *localKeys) init(o Options, started time.Time) {
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

// capacity returns the capacity of a window at a rate, if the rate is valid, the key can be stored, and the provider is
// open.
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

// find locks the shard of a key and returns its window, live at the instant that it returns too. A key that is not there
// has an empty window that belongs to nobody.
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
func (k *localKeys) Set(_ context.Context, key string, when Condition, total uint64, keep History) (SetResult, error) {
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

// set makes d the decision that a verdict means. It writes through a pointer because a Decision is too large for the
// compiler to keep in registers: made and returned by value it would be copied at every step.
func (d *Decision) set(capacity uint64, v *window.Verdict, denial Outcome) {
	d.Allowed = v.Allowed
	d.Outcome = denial
	if v.Allowed {
		d.Outcome = OutcomeAllowed
	}
	d.Limit = capacity
	d.Remaining = window.Room(capacity, v.Now)
	d.RetryAfter = time.Duration(v.Wait)
	if v.Wait != window.Never {
		d.RemainingAfterWaiting = window.Room(capacity, v.Then)
	}
	d.SuppressionFactor = v.Factor
}
