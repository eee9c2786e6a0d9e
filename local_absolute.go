package trypema

import (
	"context"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
)

// localAbsolute is Local under the Absolute strategy.
type localAbsolute struct{ localKeys }

func (l *localAbsolute) Allow(_ context.Context, key string, rate Rate) (d Decision, err error) {
	err = l.take(&d, key, rate, 1)
	return d, err
}

func (l *localAbsolute) AllowN(_ context.Context, key string, rate Rate, n uint64) (d Decision, err error) {
	err = l.take(&d, key, rate, n)
	return d, err
}

func (l *localAbsolute) take(d *Decision, key string, rate Rate, n uint64) error {
	c, err := l.capacity(key, rate)
	if err != nil || n == 0 {
		return l.failed(n, err)
	}
	l.absolute(d, groupkey.Plain(key), c, n)
	return nil
}

// absolute decides and counts a call by the form of its key.
func (l *localKeys) absolute(d *Decision, key string, c, n uint64) {
	hash := l.table.Hash(key)
	now := l.now() // after what the hash had to wait for: see now
	if f := l.table.Shard(hash).Hot(key, now); f != nil {
		switch a, have, at, then := f.Take(c, now, n, true); a {
		case table.Admitted:
			if stands := l.tally.Count(tally.Allowed); stands > 0 {
				l.sample(tally.Allowed, stands, key, now)
			}
			d.Allowed = true
			d.Outcome = OutcomeAllowed
			d.Limit = c
			d.Remaining = c - have
			d.RemainingAfterWaiting = c - have
			return
		case table.Denied:
			if stands := l.tally.Count(tally.Denied); stands > 0 {
				l.sample(tally.Denied, stands, key, now)
			}
			d.Limit = c
			d.Remaining = window.Room(c, have)
			d.RetryAfter = time.Duration(at - now)
			d.RemainingAfterWaiting = c - then
			return
		}
	}
	if n > c { // it records nothing, so it must not make a key either
		l.peek(d, key, c, n)
		l.count(false, key, now)
		return
	}
	sh, h := l.table.Acquire(hash, key, now)
	w := sh.State(h)
	var v window.Verdict
	w.Absolute(&v, &sh.Memory, l.span, c, now, n, true)
	if sh.Asked(h) {
		l.open(sh, h, w)
	}
	sh.Unlock()
	d.set(c, &v, OutcomeRejected)
	l.count(v.Allowed, key, now)
}

func (l *localAbsolute) Peek(_ context.Context, key string, rate Rate, n uint64) (d Decision, err error) {
	c, err := l.capacity(key, rate)
	if err != nil {
		return d, err
	}
	l.peek(&d, groupkey.Plain(key), c, max(n, 1))
	return d, nil
}

func (l *localKeys) peek(d *Decision, key string, c, n uint64) {
	sh, _, w, now := l.find(key)
	var v window.Verdict
	w.Absolute(&v, &sh.Memory, l.span, c, now, n, false)
	sh.Unlock()
	d.set(c, &v, OutcomeRejected)
}

func (l *localAbsolute) Usage(_ context.Context, key string, rate Rate) (Usage, error) {
	return l.usage(groupkey.Plain(key), rate, nil)
}
