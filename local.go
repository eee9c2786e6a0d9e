package trypema

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
)

// Local is the provider whose state lives in this process. It is exact here, and knows nothing of other
// processes.
//
// A decision does no I/O and never waits for anything but a short lock, so the context of a call is not
// looked at. The resolution of its clock is a nanosecond. Every key is welcome, the empty one included.
//
// Idle keys are removed in small steps, while keys are added and by a timer that runs only while there are
// keys. A Local that is dropped without Close is collected as any other value.
type Local struct {
	absolute   localAbsolute
	suppressed localSuppressed
	options    Options

	number  int64 // in the order in which they were made
	started time.Time
	done    chan struct{} // is closed by Close

	mu     sync.Mutex               // guards what is made for a Bound:
	others map[otherKeys]*localKeys // with other windows
	closed bool
}

var locals atomic.Int64 // how many there ever were

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
	l := &Local{options: o, number: locals.Add(1), started: time.Now(), done: make(chan struct{}),
		others: make(map[otherKeys]*localKeys)}
	l.absolute.init(l, StrategyAbsolute, o)
	l.suppressed.init(l, StrategySuppressed, o)
	l.suppressed.hardFactor, l.suppressed.dice = o.HardLimitFactor, rand.Float64
	l.suppressed.anyLaw = *window.NewLaw(l.suppressed.lawSpan, 1, o.HardLimitFactor)
	l.absolute.tally = l.observe(StrategyAbsolute)
	l.suppressed.tally = l.observe(StrategySuppressed)
	return l, nil
}

// observe tells the Observer of a strategy, and returns the tally of its calls; nil without an Observer.
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
func (l *Local) Absolute() Limiter { return &l.made().absolute }

// Suppressed returns the limiter that declines a growing fraction of calls near and over the limit. It shares
// no state with Absolute.
func (l *Local) Suppressed() Limiter { return &l.made().suppressed }

// made returns the provider, or an empty one whose verbs all return errNoLocal.
func (l *Local) made() *Local {
	if l == nil || l.done == nil {
		return new(Local)
	}
	return l
}

var errNoLocal = invalid.Errorf(ErrInvalidOptions, "the Local is nil or empty; it must be made by NewLocal")

// Len returns the number of keys held for both strategies, idle ones that have not been removed yet included.
// A key of a Bound counts once for each of its windows.
func (l *Local) Len() (n int) {
	if l == nil || l.done == nil {
		return 0
	}
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
		k.init(l, s, o)
		k.closed.Store(l.closed)
		k.tally = l.own(s).tally
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

// Close forgets all keys and ends the cleanup; when it returns, nothing of the provider runs. Calls made
// after it return ErrClosed. It may be called again, and always returns nil.
func (l *Local) Close() error {
	if l == nil || l.done == nil {
		return nil
	}
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.done)
	}
	l.mu.Unlock()
	for _, k := range slices.Concat(l.all(StrategyAbsolute), l.all(StrategySuppressed)) {
		k.closed.Store(true)
		k.table.Close()
	}
	return nil
}
