package middleware

import (
	"time"

	"github.com/trypema/trypema"
)

// WindowOf returns the window of a limiter, or 0 if there is none or it does not say.
func WindowOf(l trypema.Limiter) time.Duration {
	if l == nil {
		return 0
	}
	return max(l.Window(), 0)
}
