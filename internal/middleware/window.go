package middleware

import (
	"time"

	"github.com/trypema/trypema"
)

// WindowOf returns the window of a limiter that has a method Window, as those of this module have, or 0.
func WindowOf(l trypema.Limiter) time.Duration {
	if l, ok := l.(interface{ Window() time.Duration }); ok {
		return max(l.Window(), 0)
	}
	return 0
}
