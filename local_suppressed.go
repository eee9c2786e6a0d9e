package trypema

import (
	"context"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/keys"
	"github.com/trypema/trypema/internal/window"
)

// localSuppressed is Local under the Suppressed strategy.
type localSuppressed struct {
	localKeys
	hardFactor float64
	anyLaw     window.Law     // that of a capacity of 1
	dice       func() float64 // in [0, 1)
}

func (l *localSuppressed) law(c uint64) *window.Law {
	law := l.anyLaw.At(c)
	return &law
}

func (l *localSuppressed) Allow(_ context.Context, key string, rate Rate) (d Decision, err error) {
	err = l.take(&d, key, rate, 1)
	return d, err
}

func (l *localSuppressed) AllowN(_ context.Context, key string, rate Rate, n uint64) (d Decision, err error) {
	err = l.take(&d, key, rate, n)
	return d, err
}

func (l *localSuppressed) take(d *Decision, key string, rate Rate, n uint64) error {
	c, err := l.capacity(key, rate)
	if err != nil || n == 0 {
		return l.failed(n, err)
	}
	l.suppressed(d, groupkey.Plain(key), l.law(c), l.dice(), n)
	return nil
}

// suppressed decides and counts a call by the form of its key.
func (k *localKeys) suppressed(d *Decision, key string, law *window.Law, dice float64, n uint64) {
	at := looked{hash: k.table.Hash(key)}
	if f := k.table.Hot(at.hash, key); f != nil {
		now := k.now()
		if !k.suppressedHot(d, f, key, now, law, dice, n) {
			k.suppressedLocked(d, &at, key, now, law, dice, n)
		}
		return
	}
	at.look(k)
	k.suppressedLocked(d, &at, key, k.now(), law, dice, n)
}

// suppressedAt is suppressed for a call that was looked at, as absoluteAt is absolute.
func (k *localKeys) suppressedAt(
	d *Decision, at *looked, key string, now int64, law *window.Law, dice float64, n uint64,
) {
	if f := k.table.Hot(at.hash, key); f == nil || !k.suppressedHot(d, f, key, now, law, dice, n) {
		k.suppressedLocked(d, at, key, now, law, dice, n)
	}
}

// suppressedHot decides a call for a hot key, or reports that it could not.
func (k *localKeys) suppressedHot(
	d *Decision, f *keys.Hot, key string, now int64, law *window.Law, dice float64, n uint64,
) bool {
	var v window.Verdict
	k.table.Called(f, now)
	if !f.Suppress(&v, law.Capacity, now, n, dice) {
		return false
	}
	d.set(law.Capacity, &v, OutcomeSuppressed)
	k.count(v.Allowed, key, now)
	return true
}

// suppressedLocked decides a call under the lock of the key.
func (k *localKeys) suppressedLocked(
	d *Decision, at *looked, key string, now int64, law *window.Law, dice float64, n uint64,
) {
	at.request(k)
	at.Acquire(key, now)
	var v window.Verdict
	newest := at.Newest()
	at.Suppressed(&v, law, now, n, dice, true)
	at.Asked(newest, law.Capacity, law, now)
	at.Unlock()
	d.set(law.Capacity, &v, OutcomeSuppressed)
	k.count(v.Allowed, key, now)
}

func (l *localSuppressed) Peek(_ context.Context, key string, rate Rate, n uint64) (d Decision, err error) {
	c, err := l.capacity(key, rate)
	if err != nil {
		return d, err
	}
	var hd keys.Held
	now, _ := l.find(&hd, groupkey.Plain(key))
	var v window.Verdict
	hd.Suppressed(&v, l.law(c), now, max(n, 1), l.dice(), false)
	hd.Unlock()
	d.set(c, &v, OutcomeSuppressed)
	return d, nil
}

func (l *localSuppressed) Usage(_ context.Context, key string, rate Rate) (Usage, error) {
	return l.usage(groupkey.Plain(key), rate, l.law)
}
