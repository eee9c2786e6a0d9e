package trypema

import (
	"context"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/keys"
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
	var at looked
	at.look(l, key)
	l.absoluteAt(d, &at, l.now(), c, n) // the clock is read while the memory of the key is on its way
}

// looked is a call whose memory was requested.
type looked struct {
	keys.Held
	key  string
	hash uint64
}

func (at *looked) look(k *localKeys, key string) {
	at.key, at.hash = key, k.table.Hash(key)
	k.table.Look(&at.Held, at.hash)
}

func (l *localKeys) absoluteAt(d *Decision, at *looked, now int64, c, n uint64) {
	key := at.key
	if f := l.table.Hot(at.hash, key, now); f != nil {
		switch a, have, fits, then := f.Take(c, now, n, true); a {
		case keys.Admitted:
			if stands := l.tally.Count(tally.Allowed); stands > 0 {
				l.sample(tally.Allowed, stands, key, now)
			}
			d.Allowed = true
			d.Outcome = OutcomeAllowed
			d.Limit = c
			d.Remaining = c - have
			d.RemainingAfterWaiting = c - have
			return
		case keys.Denied:
			if stands := l.tally.Count(tally.Denied); stands > 0 {
				l.sample(tally.Denied, stands, key, now)
			}
			d.Limit = c
			d.Remaining = window.Room(c, have)
			d.RetryAfter = time.Duration(fits - now)
			d.RemainingAfterWaiting = c - then
			return
		}
	}
	if n > c { // it records nothing, so it must not make a key either
		l.peek(d, key, c, n)
		l.count(false, key, now)
		return
	}
	at.Acquire(key, now)
	var v window.Verdict
	newest := at.Newest()
	at.Absolute(&v, c, now, n, true)
	at.Asked(newest, c, nil, now)
	at.Unlock()
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
	var hd keys.Held
	now, _ := l.find(&hd, key)
	var v window.Verdict
	hd.Absolute(&v, c, now, n, false)
	hd.Unlock()
	d.set(c, &v, OutcomeRejected)
}

func (l *localAbsolute) Usage(_ context.Context, key string, rate Rate) (Usage, error) {
	return l.usage(groupkey.Plain(key), rate, nil)
}
