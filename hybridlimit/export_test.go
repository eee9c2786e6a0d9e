package hybridlimit

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/lease"
)

// ComeLate asks for a call under Absolute as several limits do, and looks so much later whether there is a
// lease for it.
func ComeLate(p *Provider, key string, capacity, cost uint64, late time.Duration) bool {
	l, began := p.absolute, p.absolute.now()
	sh, k := l.acquire(l.table.Hash(key), key, began)
	q := lease.Call{Capacity: capacity, Cost: cost, Mode: lease.Try}
	w := &waiter{Call: q, stays: true, done: make(chan struct{})}
	k.waiting = append(k.waiting, w)
	l.urge(k)
	sh.Unlock()
	time.Sleep(late)
	if l.waitFor(context.Background(), k, w, began) != nil || w.failed {
		return false
	}
	sh = l.lock(k)
	defer sh.Unlock()
	var v lease.Decision
	k.Decide(&v, l.moment(&sh.Memory, l.now()), &q)
	return v.Allowed
}

// OnCollected has f called when the Absolute limiter of a provider, which its timers must not keep, is
// collected.
func OnCollected(p *Provider, f func()) { runtime.AddCleanup(p.absolute, func(f func()) { f() }, f) }

// StepWall sets the clock on the wall forward, as a provider sees it.
func StepWall(p *Provider, d time.Duration) {
	for _, l := range p.all() {
		s := &l.settler
		s.mu.Lock()
		wall := s.suspension.wall
		s.suspension.wall = func() int64 { return wall() + int64(d) }
		s.mu.Unlock()
	}
}

// Windows returns the number of lengths of windows, beside that of the options, that a provider holds keys
// of.
func Windows(p *Provider) (n int) {
	for _, l := range []*limiter{p.absolute, p.suppressed} {
		n += len(l.all()) - 1
	}
	return n
}

// SuppressNow has the window of a key under Suppressed decide a call of cost 1, as judge does. It reports
// false if that is not open.
func SuppressNow(p *Provider, key string, capacity uint64) (d trypema.Decision, ok bool) {
	l := p.suppressed
	place := l.table.Look(l.table.Hash(key))
	ok = l.suppress(&d, &place, key, l.now(), 1, capacity, rand.Float64())
	return d, ok
}

// TakeNow has the window of a key under Absolute admit a call of cost 1, as judge does. It reports false if
// that is not open.
func TakeNow(p *Provider, key string, capacity uint64) bool {
	l := p.absolute
	place := l.table.Look(l.table.Hash(key))
	_, ok := place.Take(key, capacity, l.now(), 1)
	return ok
}

// DiceOfMany returns by what throws AllowMany decides calls of different keys that wait: at first, and later.
func DiceOfMany(keys ...string) (first, later map[string]float64) {
	first, later = make(map[string]float64), make(map[string]float64)
	var mu sync.Mutex
	calls := make([]trypema.Call, len(keys))
	for i, key := range keys {
		calls[i] = trypema.Call{Key: key, Cost: 1}
	}
	_, _ = many{
		dice: rand.Float64,
		now: func(c trypema.Call, _ *trypema.Decision, dice float64) error {
			first[c.Key] = dice
			return errWaits
		},
		later: func(c trypema.Call, _ *trypema.Decision, dice float64) error {
			mu.Lock()
			defer mu.Unlock()
			later[c.Key] = dice
			return nil
		},
	}.decide(calls, nil)
	return first, later
}
