package trypema

import (
	"context"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/window"
)

// localSuppressed is Local under the Suppressed strategy.
type localSuppressed struct {
	localKeys
	hardFactor float64
	dice       func() float64 // in [0, 1)
}

func (l *localSuppressed) law(c uint64) *window.Law { return window.NewLaw(l.span, c, l.hardFactor) }

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
func (l *localKeys) suppressed(d *Decision, key string, law *window.Law, dice float64, n uint64) {
	hash := l.table.Hash(key)
	now := l.now()
	sh, h := l.table.Acquire(hash, key, now)
	var v window.Verdict
	sh.State(h).Suppressed(&v, &sh.Memory, l.span, law, now, n, dice, true)
	sh.Unlock()
	d.set(law.Capacity, &v, OutcomeSuppressed)
	l.count(v.Allowed, key, now)
}

func (l *localSuppressed) Peek(_ context.Context, key string, rate Rate, n uint64) (d Decision, err error) {
	c, err := l.capacity(key, rate)
	if err != nil {
		return d, err
	}
	sh, _, w, now := l.find(groupkey.Plain(key))
	var v window.Verdict
	w.Suppressed(&v, &sh.Memory, l.span, l.law(c), now, max(n, 1), l.dice(), false)
	sh.Unlock()
	d.set(c, &v, OutcomeSuppressed)
	return d, nil
}

func (l *localSuppressed) Usage(_ context.Context, key string, rate Rate) (Usage, error) {
	return l.usage(groupkey.Plain(key), rate, l.law)
}
