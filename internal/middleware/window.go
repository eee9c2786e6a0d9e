package middleware

import (
	"time"

	"github.com/trypema/trypema"
)

// WindowOf returns the window of a limiter, or 0 if there is none or it does not say. A fake that embeds a
// nil Limiter, as tests write them, panics when it is asked: it does not say either.
func WindowOf(l trypema.Limiter) (window time.Duration) {
	if l == nil {
		return 0
	}
	defer func() {
		if recover() != nil {
			window = 0
		}
	}()
	return max(l.Window(), 0)
}
