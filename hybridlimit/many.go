package hybridlimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/guard"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// AllowMany decides calls of which those that wait for Redis wait together: see trypema.AllowMany.
func (l *limiter) AllowMany(
	ctx context.Context, rate trypema.Rate, calls []trypema.Call, to []trypema.Decision,
) ([]trypema.Decision, error) {
	capacity, err := redisproto.Capacity(rate, l.options.Window)
	if err == nil {
		err = redisproto.CheckCalls(calls, func(key string) error { _, err := l.check(key, rate); return err })
	}
	began := l.now()
	if err != nil {
		l.count("", new(trypema.Decision), err, began)
		return to, err
	}
	of := func(c trypema.Call, dice float64) request {
		key := groupkey.Plain(c.Key)
		return request{
			key: key, hash: l.table.Hash(key), cost: c.Cost, capacity: capacity, began: began, dice: dice,
		}
	}
	return many{
		dice: l.dice,
		now: func(c trypema.Call, d *trypema.Decision, dice float64) (err error) {
			r, decided := of(c, dice), false
			if r.began, decided = l.quick(d, r.key, r.hash, r.cost, capacity, dice); decided {
				l.count(c.Key, d, nil, r.began)
				return nil
			}
			return l.judgeLocked(ctx, d, r, takeNow)
		},
		later: func(c trypema.Call, d *trypema.Decision, dice float64) error {
			return l.judgeLocked(ctx, d, of(c, dice), takeLate)
		},
		fetch: func(key string, cost uint64) {
			l.want(groupkey.Plain(key), capacity, cost).wait(ctx, began)
		},
	}.decide(calls, to)
}

// AllowMany decides calls of which those that wait for Redis wait together: see trypema.Keeper.
func (m *keeper) AllowMany(
	ctx context.Context, calls []trypema.Call, to []trypema.Decision,
) ([]trypema.Decision, error) {
	began := m.counter.now()
	if err := redisproto.CheckCalls(calls, m.check); err != nil {
		m.counter.count("", new(trypema.Decision), err, began)
		return to, err
	}
	return many{
		dice: m.dice,
		now: func(c trypema.Call, d *trypema.Decision, dice float64) error {
			return m.take(ctx, d, c.Key, c.Cost, takeNow, 0, dice, nil)
		},
		later: func(c trypema.Call, d *trypema.Decision, dice float64) error {
			return m.take(ctx, d, c.Key, c.Cost, takeLate, began, dice, nil)
		},
		fetch: func(key string, cost uint64) {
			wanted := make([]wanted, len(m.limits))
			for i := range m.limits {
				wanted[i] = m.limits[i].want(m.inTable(key), m.limits[i].capacity, cost)
			}
			for _, w := range wanted {
				w.wait(ctx, began)
			}
		},
	}.decide(calls, to)
}

// wanted is what waits for a lease that all calls of a key share. It decides nothing.
type wanted struct {
	l *limiter
	k *account
	w *waiter // nil if the limiter is closed
}

// want asks for a lease of a cost for a key.
func (l *limiter) want(key string, capacity, cost uint64) wanted {
	now := l.now()
	sh, k := l.acquire(l.table.Hash(key), key, now)
	defer sh.Unlock()
	c := lease.Call{Cost: min(cost, capacity), Capacity: capacity, Law: l.law(capacity), Mode: lease.Try}
	w := &waiter{Call: c, stays: true, done: make(chan struct{})}
	if l.closed.Load() || !l.enqueue(k, w, now) {
		w = nil
	}
	return wanted{l, k, w}
}

// wait returns when the lease is there, or will not be in time: the calls find out by themselves.
func (w wanted) wait(ctx context.Context, began int64) {
	if w.w != nil {
		_ = w.l.waitFor(ctx, w.k, w.w, began)
	}
}

// maxWaiting is how many keys of one AllowMany wait for Redis at a time: as many as an exchange takes.
const maxWaiting = 2048

// many is how calls are decided together.
type many struct {
	dice  func() float64
	now   func(c trypema.Call, d *trypema.Decision, dice float64) error // or errWaits
	later func(c trypema.Call, d *trypema.Decision, dice float64) error // may wait
	fetch func(key string, cost uint64)                                 // waits for a lease of so much
}

// late is a call that waits, and its dice. A second throw would decline it again with the same probability:
// it may be that only those wait that the first throw has admitted.
type late struct {
	call int
	dice float64
}

// decide decides calls in order, and appends the decisions up to the first error. A call that has to wait for
// Redis, and those after it for its key, are decided when all calls have been looked at: all keys at once,
// the calls of each in order.
func (m many) decide(calls []trypema.Call, to []trypema.Decision) ([]trypema.Decision, error) {
	start := len(to)
	to = slices.Grow(to, len(calls))[:start+len(calls)]
	decisions := to[start:]
	clear(decisions)
	var f failure
	var waiting map[string]int // place in queues, by key
	var queues [][]late        // calls of a key that wait
	for i, c := range calls {
		dice := m.dice()
		if q, ok := waiting[c.Key]; ok {
			queues[q] = append(queues[q], late{i, dice})
			continue
		}
		err := m.now(c, &decisions[i], dice)
		if errors.Is(err, errWaits) {
			if waiting == nil {
				waiting = make(map[string]int)
			}
			waiting[c.Key] = len(queues)
			queues = append(queues, []late{{i, dice}})
		} else if err != nil {
			f.note(i, err)
			break
		}
	}
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(len(queues), maxWaiting) {
		all.Go(func() {
			for q := int(next.Add(1)) - 1; q < len(queues); q = int(next.Add(1)) - 1 {
				m.decideLate(calls, decisions, queues[q], &f)
			}
		})
	}
	all.Wait()
	if f.err != nil {
		return to[:start+f.call], f.err
	}
	return to, nil
}

// decideLate decides the calls of a key that wait, in order, up to the first error. The context is code of
// the caller: a panic of it is an error of the call that waits, as the caller cannot recover it here.
func (m many) decideLate(calls []trypema.Call, decisions []trypema.Decision, queue []late, f *failure) {
	at := queue[0].call
	err := guard.Call("the context", func() {
		if len(queue) > 1 {
			cost := uint64(0)
			for _, q := range queue {
				cost = window.SumOf(cost, calls[q.call].Cost)
			}
			m.fetch(calls[at].Key, cost)
		}
		for _, q := range queue {
			at = q.call
			if err := m.later(calls[at], &decisions[at], q.dice); err != nil {
				f.note(at, err)
				break
			}
		}
	})
	if err != nil {
		f.note(at, err)
	}
}

// failure is the first call that got an error.
type failure struct {
	mu   sync.Mutex
	call int
	err  error
}

func (f *failure) note(call int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil || call < f.call {
		f.call, f.err = call, err
	}
}
