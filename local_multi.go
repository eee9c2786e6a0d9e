package trypema

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/keys"
	"github.com/trypema/trypema/internal/window"
)

// localMulti is several limits on Local. A decision locks the windows of the key, judges by each, and records
// in all or none.
//
// Locks are taken in the order of the lengths of the windows, of which no two are the same; everything else
// takes one at a time. So nobody waits in a circle.
type localMulti struct {
	limits   []localLimit // in that order
	strategy Strategy
	denial   Outcome
	most     uint64     // the least of the capacities
	counter  *localKeys // those of the strategy, which count for the Observer
	dice     func() float64
	group    string   // what its keys start with, if they are those of a group
	shown    []uint64 // what Decision.Limit says instead of the capacities, if anything
}

type localLimit struct {
	*localKeys
	label    string
	place    int // among the limits as they were given
	rate     Rate
	capacity uint64
	law      *window.Law // of Suppressed
}

// Multi returns a limiter that keeps several limits at once, or what is wrong with them: see CheckLimits. It
// is cheap to make.
func (l *Local) Multi(s Strategy, limits ...Limit) (MultiLimiter, error) {
	if err := CheckLimits(s, limits); err != nil {
		return nil, err
	}
	m := &localMulti{strategy: s, most: math.MaxUint64, counter: l.own(s), dice: l.suppressed.dice}
	if s == StrategySuppressed {
		m.denial = OutcomeSuppressed
	}
	m.limits = make([]localLimit, 0, len(limits))
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, limit := range limits {
		c, _ := limit.Rate.Capacity(limit.Window) // it was checked
		m.most = min(m.most, c)
		one := localLimit{localKeys: l.keysOfLocked(s, limit.Window), label: limit.Label(), place: i, rate: limit.Rate, capacity: c}
		if s == StrategySuppressed {
			one.law = window.NewLaw(one.lawSpan, c, l.suppressed.hardFactor)
		}
		m.limits = append(m.limits, one)
		inuse.Hold(&m.limits[i], &one.users) // which limiters of groups have, too
	}
	slices.SortFunc(m.limits, func(a, b localLimit) int { return cmp.Compare(a.span.Window, b.span.Window) })
	return m, nil
}

// InGroup returns a limiter that keeps the same limits for the keys of a group, as Policies need it.
func (m *localMulti) InGroup(group string) MultiLimiter {
	in := *m
	in.group = groupkey.Prefix(group)
	return &in
}

// Showing returns a limiter that keeps the same limits, and says instead of each capacity, in the order in
// which the limits were given, that of another provider, whose share it is.
func (m *localMulti) Showing(capacities []uint64) MultiLimiter {
	in := *m
	in.shown = capacities
	return &in
}

// form returns the form of a key.
func (m *localMulti) form(key string) string {
	if m.group == "" {
		return groupkey.Plain(key)
	}
	return m.group + key
}

func (m *localMulti) Allow(ctx context.Context, key string) (Decision, error) {
	return m.AllowN(ctx, key, 1)
}

func (m *localMulti) AllowN(_ context.Context, key string, n uint64) (d Decision, err error) {
	err = m.take(&d, key, n, 0, nil)
	return d, err
}

// take decides a call, records it, with a life if that is not 0, and counts it.
func (m *localMulti) take(d *Decision, key string, n uint64, life time.Duration, at *[MaxLimits]int64) error {
	if err := m.check(key); err != nil || n == 0 {
		return m.counter.failed(n, err)
	}
	key = m.form(key)
	now := m.counter.now()
	m.decide(d, key, now, n, true, life, at)
	m.counter.count(d.Allowed, key, now)
	return nil
}

func (m *localMulti) Peek(_ context.Context, key string, n uint64) (d Decision, err error) {
	if err := m.check(key); err != nil {
		return d, err
	}
	m.decide(&d, m.form(key), m.counter.now(), max(n, 1), false, 0, nil)
	return d, nil
}

// check returns what is wrong with a key, or that the provider is closed.
func (m *localMulti) check(key string) error {
	if k := m.limits[0].localKeys; len(key) > maxKeyLen || k.closed.Load() {
		return k.refuse(key, Unlimited)
	}
	return nil
}

// held is a locked window.
type held struct {
	keys.Held
	newest int64
	now    int64 // by the clock of the window
	v      window.Verdict
}

// decide makes d, and tells when it was admitted in each window if that is wanted.
func (m *localMulti) decide(
	d *Decision, key string, now int64, n uint64, record bool, life time.Duration, at *[MaxLimits]int64,
) {
	if at == nil && m.strategy == StrategyAbsolute && m.denied(d, key, now, n) {
		return
	}
	var all [MaxLimits]held
	allowed, dice := true, 0.
	if m.strategy == StrategySuppressed {
		dice = m.dice()
	}
	// who records nothing must not make a key either
	asks := record && (n <= m.most || m.strategy == StrategySuppressed)
	for i := range m.limits {
		l, h := &m.limits[i], &all[i]
		if asks {
			l.table.Look(&h.Held, l.table.Hash(key))
			h.Acquire(key, now)
			h.newest = h.Newest()
			h.now = h.Advance(now)
		} else {
			h.now, _ = l.find(&h.Held, key)
		}
		if l.law == nil {
			h.Absolute(&h.v, l.capacity, h.now, n, false)
		} else {
			h.Throw(&h.v, l.law, h.now, n, dice)
		}
		allowed = allowed && h.v.Allowed
	}
	counts := window.Counts{Admitted: n}
	if !allowed {
		counts = window.Counts{}
		if m.strategy == StrategySuppressed {
			counts.Declined = n
		}
	}
	record = record && (counts != window.Counts{})
	var t window.Joint
	for i := range m.limits {
		l, h := &m.limits[i], &all[i]
		if from := l.span.Backdate(h.now, int64(life)); record && allowed && from < h.now {
			h.Place(h.now, from, counts)
		} else if record {
			h.Record(h.now, counts)
		}
		switch {
		case l.law != nil:
			h.Tell(&h.v, l.law, h.now, n)
		case allowed && record:
			h.v.Now += n
			h.v.Then = h.v.Now
		}
		t.Add(i, l.capacity, &h.v)
		if at != nil {
			at[i] = h.now
		}
		if !allowed && asks && l.law == nil {
			h.Asked(h.newest, l.capacity, h.now)
		}
		h.Unlock()
	}
	m.tell(d, &t)
}

// denied reports whether a call is denied by what is known without any lock: all windows are those of the hot
// keys of their shards, and one has no room. It then makes d.
func (m *localMulti) denied(d *Decision, key string, now int64, n uint64) bool {
	var t window.Joint
	for i := range m.limits {
		l := &m.limits[i]
		f := l.table.Hot(l.table.Hash(key), key, now)
		if f == nil {
			return false
		}
		a, have, at, then := f.Take(l.capacity, now, n, false)
		if a == keys.Unknown {
			return false
		}
		v := window.Verdict{Allowed: a == keys.Admitted, Now: have, Then: then}
		if !v.Allowed {
			v.Wait = at - now
		}
		t.Add(i, l.capacity, &v)
	}
	if !t.Allowed {
		m.tell(d, &t)
	}
	return !t.Allowed
}

// tell makes d what a tally means.
func (m *localMulti) tell(d *Decision, t *window.Joint) {
	d.set(t.Capacity, &t.Verdict, m.denial)
	d.SuppressionFactor = t.Most
	if m.shown != nil {
		d.Limit = m.shown[m.limits[t.Limit].place]
		d.Remaining = min(d.Remaining, d.Limit)
		d.RemainingAfterWaiting = min(d.RemainingAfterWaiting, d.Limit)
	}
	if !t.Allowed {
		d.RefusedBy = m.limits[t.Limit].label
	}
}

func (m *localMulti) Reserve(
	_ context.Context, key string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	if expiry < 0 {
		return nil, invalid.Errorf(ErrInvalidOptions, "expiry is %v; it must be 0 (none) or more", expiry)
	}
	var d Decision
	at := new([MaxLimits]int64)
	if err := m.take(&d, key, estimate, expiry, at); err != nil {
		return nil, err
	}
	return NewReservation(d, estimate, 0, func(_ context.Context, was, is uint64) error {
		return m.settle(key, expiry, at, was, is)
	}), nil
}

// settle changes what a call counts that was admitted at the given instants, with a life.
func (m *localMulti) settle(key string, life time.Duration, at *[MaxLimits]int64, was, is uint64) error {
	if err := m.check(key); err != nil {
		return err
	}
	key = m.form(key)
	for i := range m.limits {
		l := &m.limits[i]
		var hd keys.Held
		now, there := l.find(&hd, key)
		if !there && is > 0 && now-at[i] < l.span.Window {
			hd.Acquire(key, now)
			now = hd.Advance(now)
			there = true
		}
		if there {
			hd.Commit(now, l.span.Backdate(at[i], int64(life)), at[i], was, is)
		}
		hd.Unlock()
	}
	return nil
}

func (m *localMulti) Usage(_ context.Context, key string) ([]Usage, error) {
	if err := m.check(key); err != nil {
		return nil, err
	}
	key = m.form(key)
	all := make([]Usage, len(m.limits))
	for i := range m.limits {
		l := &m.limits[i]
		var law func(uint64) *window.Law
		if l.law != nil {
			law = func(uint64) *window.Law { return l.law }
		}
		u, err := l.usage(key, l.rate, law)
		if err != nil {
			return nil, err
		}
		all[l.place] = u
	}
	return all, nil
}

func (m *localMulti) Delete(_ context.Context, key string) error {
	if err := m.check(key); err != nil {
		return err
	}
	key = m.form(key)
	for i := range m.limits {
		m.limits[i].remove(key)
	}
	return nil
}
