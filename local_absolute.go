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
func (k *localKeys) absolute(d *Decision, key string, c, n uint64) {
	at := looked{hash: k.table.Hash(key)}
	if f := k.table.Hot(at.hash, key); f != nil {
		now := k.now()
		if !k.absoluteHot(d, f, key, now, c, n) {
			k.absoluteLocked(d, &at, key, now, c, n)
		}
		return
	}
	if k.table.Fulls(at.hash) && k.absoluteFull(d, at.hash, key, c, n) {
		return
	}
	at.look(k)
	k.absoluteLocked(d, &at, key, k.now(), c, n) // the clock is read while the memory of the key is on its way
}

// absoluteAt is absolute for a call that was looked at together with others. It and those below take the
// parts of a call one by one, as they are in registers.
func (k *localKeys) absoluteAt(d *Decision, at *looked, key string, now int64, c, n uint64) {
	if f := k.table.Hot(at.hash, key); f != nil && k.absoluteHot(d, f, key, now, c, n) {
		return
	}
	if f := k.table.Full(at.hash, key); f != nil && k.denyFull(d, f, key, now, c, n) {
		return
	}
	k.absoluteLocked(d, at, key, now, c, n)
}

// looked is a call whose memory was requested. It does not hold the key, which could not be on a stack then.
type looked struct {
	hash      uint64
	requested bool // Look was called; not for a hot key: callers leave its entry alone
	keys.Held
}

func (at *looked) look(k *localKeys) {
	k.table.Look(&at.Held, at.hash)
	at.requested = true
}

// request is look, unless that was called before.
func (at *looked) request(k *localKeys) {
	if !at.requested {
		at.look(k)
	}
}

// absoluteHot decides a call for a hot key, or reports that it could not.
func (k *localKeys) absoluteHot(d *Decision, f *keys.Hot, key string, now int64, c, n uint64) bool {
	k.table.Called(f, now)
	switch a, have, fits, then := f.Take(c, now, n, true); a {
	case keys.Admitted:
		k.admitted(d, key, now, c, have)
		return true
	case keys.Denied:
		k.deny(d, key, now, c, have, fits, then)
		return true
	}
	return false
}

// admitted makes d an admission, and counts it. The window holds have from then on.
func (k *localKeys) admitted(d *Decision, key string, now int64, c, have uint64) {
	if stands := k.tally.Count(tally.Allowed); stands > 0 {
		k.sample(tally.Allowed, stands, key, now)
	}
	d.Allowed = true
	d.Outcome = OutcomeAllowed
	d.Limit = c
	d.Remaining = c - have
	d.RemainingAfterWaiting = c - have
}

// absoluteFull denies a call for a key that has no room, or reports that this is not known.
//
//go:noinline
func (k *localKeys) absoluteFull(d *Decision, hash uint64, key string, c, n uint64) bool {
	f := k.table.Full(hash, key)
	if f == nil {
		return false
	}
	return k.denyFull(d, f, key, k.now(), c, n)
}

// denyFull denies a call by what is known of its key, or reports that it could not.
func (k *localKeys) denyFull(d *Decision, f *keys.Full, key string, now int64, c, n uint64) bool {
	k.table.CalledFull(f, now)
	if !f.Stands() {
		return false
	}
	a, have, fits, then := f.Deny(c, now, n)
	if a != keys.Denied {
		return false
	}
	k.deny(d, key, now, c, have, fits, then)
	return true
}

// deny makes d a denial, and counts it. The window holds have, and then at the instant at which the call
// fits.
func (k *localKeys) deny(d *Decision, key string, now int64, c, have uint64, fits int64, then uint64) {
	if stands := k.tally.Count(tally.Denied); stands > 0 {
		k.sample(tally.Denied, stands, key, now)
	}
	d.Limit = c
	d.Remaining = window.Room(c, have)
	d.RetryAfter = time.Duration(fits - now)
	d.RemainingAfterWaiting = c - then
}

// absoluteLocked decides a call under the lock of the key.
func (k *localKeys) absoluteLocked(d *Decision, at *looked, key string, now int64, c, n uint64) {
	if n > c { // it records nothing, so it must not make a key either
		k.peek(d, key, c, n)
		k.count(false, key, now)
		return
	}
	at.request(k)
	if have, ok := at.Take(key, c, now, n); ok {
		k.admitted(d, key, now, c, have)
		return
	}
	at.Acquire(key, now)
	var v window.Verdict
	newest := at.Newest()
	at.Absolute(&v, c, now, n, true)
	if v.Allowed {
		at.Asked(newest, c, nil, now)
	} else {
		at.Denied(newest, c, now, n)
	}
	at.Unlock()
	d.set(c, &v, OutcomeRejected)
	k.count(v.Allowed, key, now)
}

func (l *localAbsolute) Peek(_ context.Context, key string, rate Rate, n uint64) (d Decision, err error) {
	c, err := l.capacity(key, rate)
	if err != nil {
		return d, err
	}
	l.peek(&d, groupkey.Plain(key), c, max(n, 1))
	return d, nil
}

func (k *localKeys) peek(d *Decision, key string, c, n uint64) {
	var hd keys.Held
	now, _ := k.find(&hd, key)
	var v window.Verdict
	hd.Absolute(&v, c, now, n, false)
	hd.Unlock()
	d.set(c, &v, OutcomeRejected)
}

func (l *localAbsolute) Usage(_ context.Context, key string, rate Rate) (Usage, error) {
	return l.usage(groupkey.Plain(key), rate, nil)
}
