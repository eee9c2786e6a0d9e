package trypema

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
