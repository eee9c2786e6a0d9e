package redisproto

import (
	"weak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/tally"
)

// Observe has the Observer of a provider, if there is one, told of a strategy, and returns what to count in,
// or nil. The gauges are asked of the limiter, which the meter does not keep alive.
func Observe[L any](
	o trypema.Options, provider, strategy string, b *breaker.Set, server *Server,
	l *L, gauges func(*L, *trypema.Stats),
) *tally.Tally {
	if o.Observer == nil {
		return nil
	}
	t, outages, unreadable, limiter := tally.New(), b.Outages(), server.Mended(), weak.Make(l)
	o.Observer.Observe(trypema.Meter{
		Provider: provider,
		Policy:   o.Name,
		Strategy: strategy,
		Read: func() trypema.Stats {
			s := trypema.Stats{Counters: trypema.Counters(t.Read(strategy == "suppressed"))}
			s.Outages, s.Unreadable = outages.Load(), unreadable.Load()
			if l := limiter.Value(); l != nil {
				gauges(l, &s)
			} else {
				s.Ended = true
			}
			return s
		},
		TopLimited: t.TopDenied,
	})
	return t
}
