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
	dice       func() float64 // in [0, 1)
}

func (l *localSuppressed) law(c uint64) *window.Law { return window.NewLaw(l.lawSpan, c, l.hardFactor) }

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
	if k.table.Hot(at.hash, key) == nil {
		at.look(k)
	}
	k.suppressedAt(d, &at, key, k.now(), law, dice, n)
}

// suppressedAt is suppressed for a call that was looked at, as absoluteAt is absolute.
func (k *localKeys) suppressedAt(
	d *Decision, at *looked, key string, now int64, law *window.Law, dice float64, n uint64,
) {
	var v window.Verdict
	decided := false
	if f := k.table.Hot(at.hash, key); f != nil { // a call before this one may have changed that
		k.table.Called(f, now)
		if decided = f.Suppress(&v, law.Capacity, now, n, dice); !decided {
			v = window.Verdict{}
		}
	}
	if !decided {
		at.acquire(k, key, now)
		newest := at.Newest()
		at.Suppressed(&v, law, now, n, dice, true)
		at.Asked(newest, law.Capacity, law, now)
		at.Unlock()
	}
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
