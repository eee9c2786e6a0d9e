package trypema

// SetDice replaces the randomness of Suppressed.
func (l *Local) SetDice(dice func() float64) { l.suppressed.dice = dice }

// Windows returns the number of lengths of windows, beside that of the options, that a Local holds keys of.
func (l *Local) Windows() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.others)
}
