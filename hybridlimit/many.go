package hybridlimit

import (
	"context"
	"errors"
	"math/rand/v2"
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
	return many{
		now: func(c trypema.Call, d *trypema.Decision) error {
			return l.judge(ctx, d, c.Key, rate, c.Cost, takeNow)
		},
		later: func(c trypema.Call, d *trypema.Decision) error {
			r := request{key: groupkey.Plain(c.Key), cost: c.Cost, capacity: capacity, began: began}
			r.hash, r.dice = l.table.Hash(r.key), rand.Float64()
			return l.judgeLocked(ctx, d, r, takeLate)
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
		now: func(c trypema.Call, d *trypema.Decision) error {
			return m.take(ctx, d, c.Key, c.Cost, takeNow, 0, nil)
		},
		later: func(c trypema.Call, d *trypema.Decision) error {
			return m.take(ctx, d, c.Key, c.Cost, takeLate, began, nil)
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
	now   func(c trypema.Call, d *trypema.Decision) error // or errWaits
	later func(c trypema.Call, d *trypema.Decision) error // may wait
	fetch func(key string, cost uint64)                   // waits for a lease, for calls of that cost together
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
	var queues [][]int         // calls of a key that wait
	for i, c := range calls {
		if q, ok := waiting[c.Key]; ok {
			queues[q] = append(queues[q], i)
			continue
		}
		err := m.now(c, &decisions[i])
		if errors.Is(err, errWaits) {
			if waiting == nil {
				waiting = make(map[string]int)
			}
			waiting[c.Key] = len(queues)
			queues = append(queues, []int{i})
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
				m.late(calls, decisions, queues[q], &f)
			}
		})
	}
	all.Wait()
	if f.err != nil {
		return to[:start+f.call], f.err
	}
	return to, nil
}

// late decides the calls of a key that wait, in order, up to the first error. The context is code of the
// caller: a panic of it is an error of the call that waits, as the caller cannot recover it here.
func (m many) late(calls []trypema.Call, decisions []trypema.Decision, queue []int, f *failure) {
	at := queue[0]
	err := guard.Call("the context", func() {
		if len(queue) > 1 {
			cost := uint64(0)
			for _, i := range queue {
				cost = window.SumOf(cost, calls[i].Cost)
			}
			m.fetch(calls[at].Key, cost)
		}
		for _, at = range queue {
			if err := m.later(calls[at], &decisions[at]); err != nil {
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
