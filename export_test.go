package trypema

import "github.com/trypema/trypema/internal/groupkey"

// SetDice replaces the randomness of Suppressed.
func (l *Local) SetDice(dice func() float64) { l.suppressed.dice = dice }

// Windows returns the number of lengths of windows, beside that of the options, that a Local holds keys of.
func (l *Local) Windows() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.others)
}

// Waiting returns how many calls wait for a key.
func (b *Bound) Waiting(key string) (n int) {
	b.lines.mu.Lock()
	defer b.lines.mu.Unlock()
	if of := b.lines.byKey[key]; of != nil {
		for w := of.first; w != nil; w = w.next {
			n++
		}
	}
	return n
}

// Added returns what was counted of a hot key since it was last looked at under its lock.
func (l *Local) Added(suppressed bool, key string) uint64 {
	k := l.own(StrategyAbsolute)
	if suppressed {
		k = l.own(StrategySuppressed)
	}
	key = groupkey.Plain(key)
	if f := k.table.Hot(k.table.Hash(key), key); f != nil {
		return f.Added()
	}
	return 0
}
