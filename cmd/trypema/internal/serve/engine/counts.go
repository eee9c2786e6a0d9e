package engine

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// maxSeries bounds the names under which hits are counted. Hits of a name beyond it count for the path of
// their rule.
const maxSeries = 10_000

// Hits is what was counted for a rule, as the Envoy rate limit service counts it.
type Hits struct{ Total, Over, Near, Within, Shadow, Returned uint64 }

type series struct{ total, over, near, within, shadow, returned atomic.Uint64 }

type counts struct {
	mu  sync.RWMutex
	all map[string]*series
}

func (c *counts) of(name, path string) *series {
	c.mu.RLock()
	s, n := c.all[name], len(c.all)
	c.mu.RUnlock()
	if s != nil {
		return s
	}
	if n >= maxSeries {
		name = path
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[string]*series)
	}
	if c.all[name] == nil {
		c.all[name] = new(series)
	}
	return c.all[name]
}

// Hits yields what was counted, by name, in the order of names.
func (e *Engine) Hits(yield func(name string, h Hits) bool) {
	e.counts.mu.RLock()
	all := maps.Clone(e.counts.all)
	e.counts.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s := all[name]
		h := Hits{
			s.total.Load(), s.over.Load(), s.near.Load(), s.within.Load(), s.shadow.Load(), s.returned.Load(),
		}
		if !yield(name, h) {
			return
		}
	}
}

// count counts the hits of a request. Those above 80 % of a limit are near it.
func (e *Engine) count(c *config, r *Request, a *Answer) {
	for i := range a.Statuses {
		s := &a.Statuses[i]
		if s.Rule == nil {
			continue
		}
		d := &r.Descriptors[i]
		hits := uint64(max(r.Hits, 1))
		if d.HasHits {
			hits = d.Hits
		}
		a.scratch = c.set.Find(r.Domain, d.Entries, &a.match, a.scratch)
		of := e.counts.of(c.set.MetricKey(r.Domain, d.Entries, &a.match), s.Rule.Path)
		if d.GivesBack {
			of.returned.Add(hits)
			continue
		}
		of.total.Add(hits)
		switch limit := uint64(s.Rule.Requests); {
		case s.Rule.Unlimited:
			of.within.Add(hits)
		case s.wouldBeOver:
			of.over.Add(hits)
			if s.Rule.Shadow {
				of.shadow.Add(hits)
			}
		case a.Over:
		default:
			of.within.Add(hits)
			used, near := limit-min(limit, uint64(s.Remaining)), limit*8/10
			if used > near {
				of.near.Add(min(hits, used-near))
			}
		}
	}
}
