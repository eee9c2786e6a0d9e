package limittest_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/limittest"
)

// TestProviderOfSomebodyElse: a provider that is written against the public API alone passes the suite, and
// has Wait and All from it.
func TestProviderOfSomebodyElse(t *testing.T) {
	limittest.RunBind(t, limittest.Subject{In: synctest.Test, EmptyKey: true},
		func(t *testing.T, o trypema.Options) trypema.Provider {
			o, err := o.WithDefaults()
			if err != nil {
				t.Fatal(err)
			}
			return &logs{options: o, events: make(map[logKey][]event)}
		})
}

// logs is a provider that keeps a list of all events: slow, and exact. It has the Absolute strategy only.
type logs struct {
	options trypema.Options
	mu      sync.Mutex
	events  map[logKey][]event // by time
	closed  bool
}

type logKey struct {
	window time.Duration
	key    string
}

type event struct {
	at   time.Time // when it leaves a window is a window later
	cost uint64
}

func (l *logs) Absolute() trypema.Limiter   { return &logLimiter{l} }
func (l *logs) Suppressed() trypema.Limiter { panic("there is only Absolute") }

func (l *logs) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.events = true, nil
	return nil
}

func (l *logs) Bind(s trypema.Strategy, limits ...trypema.Limit) (*trypema.Bound, error) {
	return trypema.NewBound(s, limits, func(limits []trypema.Limit) (trypema.Keeper, error) {
		return &logKeeper{l, limits}, nil
	})
}

// liveLocked drops what has left the window, and returns what is left and its cost.
func (l *logs) liveLocked(of logKey) (live []event, total uint64) {
	now := time.Now()
	live = slices.DeleteFunc(l.events[of], func(e event) bool { return now.Sub(e.at) >= of.window })
	for _, e := range live {
		total += e.cost
	}
	l.events[of] = live
	if len(live) == 0 {
		delete(l.events, of)
	}
	return live, total
}

// judgeLocked decides by one limit.
func (l *logs) judgeLocked(of logKey, c, n uint64) trypema.Decision {
	live, total := l.liveLocked(of)
	room := func(total uint64) uint64 { return c - min(c, total) }
	d := trypema.Decision{Limit: c, Remaining: room(total), RetryAfter: trypema.Never}
	switch {
	case n <= room(total):
		d.Allowed, d.Outcome, d.RetryAfter, d.RemainingAfterWaiting = true, trypema.OutcomeAllowed, 0, d.Remaining
	case n <= c:
		for i, e := range live {
			total -= e.cost
			same := i+1 < len(live) && live[i+1].at.Equal(e.at) // it leaves with the next one
			if n <= room(total) && !same {
				d.RetryAfter, d.RemainingAfterWaiting = of.window-time.Since(e.at), room(total)
				break
			}
		}
	}
	return d
}

// recordLocked enters an event in its place.
func (l *logs) recordLocked(of logKey, at time.Time, n uint64) {
	if n == 0 {
		return
	}
	all := l.events[of]
	i, _ := slices.BinarySearchFunc(all, at, func(e event, at time.Time) int { return cmp.Or(e.at.Compare(at), -1) })
	l.events[of] = slices.Insert(all, i, event{at, n})
}

// takeBackLocked takes a cost back from the events of an instant.
func (l *logs) takeBackLocked(of logKey, at time.Time, n uint64) {
	for i := range l.events[of] {
		if e := &l.events[of][i]; e.at.Equal(at) {
			back := min(n, e.cost)
			e.cost -= back
			n -= back
		}
	}
}

func (l *logs) checkLocked(n uint64) error {
	switch {
	case l.closed:
		return trypema.ErrClosed
	case n == 0:
		return fmt.Errorf("cost is 0: %w", trypema.ErrInvalidCost)
	}
	return nil
}

// logKeeper keeps limits on logs.
type logKeeper struct {
	*logs
	limits []trypema.Limit
}

func (k *logKeeper) decide(key string, n uint64, record bool, life time.Duration) (d trypema.Decision, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.checkLocked(n); err != nil {
		return d, err
	}
	for i, limit := range k.limits {
		c, err := limit.Capacity()
		if err != nil {
			return d, err
		}
		one := k.judgeLocked(logKey{limit.Window, key}, c, n)
		if !one.Allowed {
			one.RefusedBy = limit.Label()
		}
		worse := !one.Allowed && (d.Allowed || one.RetryAfter > d.RetryAfter)
		if i == 0 || worse || one.Allowed && d.Allowed && one.Remaining < d.Remaining {
			d = one
		}
	}
	if !d.Allowed || !record {
		return d, nil
	}
	d.Remaining -= n
	d.RemainingAfterWaiting -= n
	for _, limit := range k.limits {
		at := time.Now()
		if life > 0 && life < limit.Window {
			at = at.Add(life - limit.Window)
		}
		k.recordLocked(logKey{limit.Window, key}, at, n)
	}
	return d, nil
}

func (k *logKeeper) AllowN(_ context.Context, key string, n uint64) (trypema.Decision, error) {
	return k.decide(key, n, true, 0)
}

func (k *logKeeper) Peek(_ context.Context, key string, n uint64) (trypema.Decision, error) {
	return k.decide(key, max(n, 1), false, 0)
}

func (k *logKeeper) Reserve(
	_ context.Context, key string, estimate uint64, expiry time.Duration,
) (*trypema.Reservation, error) {
	if expiry < 0 {
		return nil, fmt.Errorf("expiry is %v: %w", expiry, trypema.ErrInvalidOptions)
	}
	at := time.Now()
	d, err := k.decide(key, estimate, true, expiry)
	if err != nil {
		return nil, err
	}
	return trypema.NewReservation(d, estimate, 0, func(_ context.Context, was, is uint64) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.closed {
			return trypema.ErrClosed
		}
		for _, limit := range k.limits {
			of, from := logKey{limit.Window, key}, at
			if expiry > 0 && expiry < limit.Window {
				from = at.Add(expiry - limit.Window)
			}
			k.takeBackLocked(of, from, was)
			k.recordLocked(of, at, is)
			k.liveLocked(of)
		}
		return nil
	}), nil
}

func (k *logKeeper) Usage(_ context.Context, key string) (all []trypema.Usage, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, trypema.ErrClosed
	}
	for _, limit := range k.limits {
		c, err := limit.Capacity()
		if err != nil {
			return nil, err
		}
		_, total := k.liveLocked(logKey{limit.Window, key})
		all = append(all, trypema.Usage{Total: total, Limit: c, Remaining: c - min(c, total)})
	}
	return all, nil
}

func (k *logKeeper) Delete(_ context.Context, key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return trypema.ErrClosed
	}
	for _, limit := range k.limits {
		delete(k.events, logKey{limit.Window, key})
	}
	return nil
}

// logLimiter is logs with the window of its options.
type logLimiter struct{ *logs }

func (l *logLimiter) bind(rate trypema.Rate) (*logKeeper, error) {
	limit := trypema.Limit{Rate: rate, Window: l.options.Window}
	_, err := limit.Capacity()
	return &logKeeper{l.logs, []trypema.Limit{limit}}, err
}

func (l *logLimiter) Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error) {
	return l.AllowN(ctx, key, rate, 1)
}

func (l *logLimiter) AllowN(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	k, err := l.bind(rate)
	if err != nil {
		return trypema.Decision{}, err
	}
	d, err := k.AllowN(ctx, key, n)
	d.RefusedBy = ""
	return d, err
}

func (l *logLimiter) Peek(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	k, err := l.bind(rate)
	if err != nil {
		return trypema.Decision{}, err
	}
	d, err := k.Peek(ctx, key, n)
	d.RefusedBy = ""
	return d, err
}

func (l *logLimiter) Usage(ctx context.Context, key string, rate trypema.Rate) (trypema.Usage, error) {
	k, err := l.bind(rate)
	if err != nil {
		return trypema.Usage{}, err
	}
	all, err := k.Usage(ctx, key)
	if err != nil {
		return trypema.Usage{}, err
	}
	return all[0], nil
}

func (l *logLimiter) Set(
	_ context.Context, key string, when trypema.Condition, total uint64, keep trypema.History,
) (r trypema.SetResult, err error) {
	if keep > trypema.KeepOldest {
		return r, fmt.Errorf("history is %v: %w", keep, trypema.ErrInvalidOptions)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return r, trypema.ErrClosed
	}
	of := logKey{l.options.Window, key}
	live, have := l.liveLocked(of)
	r = trypema.SetResult{Previous: have, Current: have}
	if !when.Holds(have) {
		return r, nil
	}
	r.Matched, r.Current = true, total
	switch {
	case total == 0:
		live = nil
	case keep == trypema.Replace || have == 0:
		live = []event{{time.Now(), total}}
	default:
		grown, first := len(live)-1, 0 // what grows, and what shrinks first
		step := 1
		if keep == trypema.KeepOldest {
			grown, first, step = 0, len(live)-1, -1
		}
		if total > have {
			live[grown].cost += total - have
		}
		for i := first; have > total; i += step {
			cut := min(have-total, live[i].cost)
			live[i].cost -= cut
			have -= cut
		}
		live = slices.DeleteFunc(live, func(e event) bool { return e.cost == 0 })
	}
	if l.events[of] = live; len(live) == 0 {
		delete(l.events, of)
	}
	return r, nil
}

func (l *logLimiter) Window() time.Duration { return l.options.Window }

func (l *logLimiter) Delete(_ context.Context, key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return trypema.ErrClosed
	}
	delete(l.events, logKey{l.options.Window, key})
	return nil
}

var _ trypema.Provider = (*logs)(nil)
