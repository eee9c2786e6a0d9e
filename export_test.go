package trypema

// SetDice replaces the randomness of Suppressed.
func (l *Local) SetDice(dice func() float64) { l.suppressed.dice = dice }
