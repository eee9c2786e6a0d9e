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

// The kinds of hits that the Envoy rate limit service counts.
const (
	Total = iota
	Over
	Near
	Within
	Shadow
	Returned
	kinds
)

// Hits is what was counted for a rule, by kind.
type Hits [kinds]uint64

type series [kinds]atomic.Uint64

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
		var h Hits
		for kind := range h {
			h[kind] = all[name][kind].Load()
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
		hits := r.cost(d)
		a.scratch = c.set.Find(r.Domain, d.Entries, &a.match, a.scratch)
		of := e.counts.of(c.set.MetricKey(r.Domain, d.Entries, &a.match), s.Rule.Path)
		if d.GivesBack {
			of[Returned].Add(hits)
			continue
		}
		of[Total].Add(hits)
		switch limit := uint64(s.Rule.Requests); {
		case s.Rule.Unlimited:
			of[Within].Add(hits)
		case s.wouldBeOver:
			of[Over].Add(hits)
			if s.Rule.Shadow {
				of[Shadow].Add(hits)
			}
		case a.Over:
		default:
			of[Within].Add(hits)
			used, near := limit-min(limit, uint64(s.Remaining)), limit*8/10
			if used > near {
				of[Near].Add(min(hits, used-near))
			}
		}
	}
}
