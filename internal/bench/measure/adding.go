package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/latency"
)

// Added is what calls took while a limiter got to know all keys of a workload: one caller makes the first
// call for each key, as fast as it can, and all others make calls for keys that are known.
type Added struct {
	Limiter string  `json:"limiter"`
	Failed  string  `json:"failed"`
	Keys    int     `json:"keys"`
	Seconds float64 `json:"elapsed_s"`

	Known Percentile `json:"known_key"`
	New   Percentile `json:"new_key"`
}

// Percentile is what is said of some latencies, in nanoseconds.
type Percentile struct {
	P999 int64 `json:"p999_ns"`
	Max  int64 `json:"max_ns"`
}

const knownKeys = 1000

// Adding measures that for each limiter that the command compares. They must be in this process.
func (c *Command) Adding(ctx context.Context) (out []Added, err error) {
	p, names, err := c.prepare(ctx, c.Window)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.limit.Server.Close()) }()
	for _, name := range names {
		l, err := peer.Open(ctx, name, p.limit)
		if err != nil {
			return nil, err
		}
		a, err := p.adding(ctx, name, l)
		err = errors.Join(err, l.Close())
		if ctx.Err() != nil {
			return nil, errInterrupted
		}
		if err != nil {
			a = Added{Limiter: name, Failed: err.Error()}
		}
		out = append(out, a)
	}
	return out, nil
}

func (p plan) adding(ctx context.Context, name string, l peer.Limiter) (a Added, err error) {
	keys := p.work.keys
	if len(keys) <= knownKeys {
		return a, fmt.Errorf("%d keys; there must be more than %d", len(keys), knownKeys)
	}
	for _, key := range keys[:knownKeys] {
		if _, err := l.Allow(key); err != nil {
			return a, err
		}
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	callers := max(2, len(p.work.sequences))
	latencies := make([]latency.Histogram, callers)
	errs := make([]error, callers)
	base := time.Now()
	call := func(g int, key string) bool {
		began := time.Since(base)
		_, errs[g] = l.Allow(key)
		latencies[g].Record(time.Since(base) - began)
		return errs[g] == nil
	}
	for g := range callers {
		latencies[g] = latency.NewHistogram()
		wg.Go(func() {
			if g > 0 {
				for i := g; call(g, keys[i%knownKeys]) && !stop.Load(); i += callers {
				}
				return
			}
			defer stop.Store(true)
			for i := knownKeys; i < len(keys) && ctx.Err() == nil && call(0, keys[i]); i++ {
			}
		})
	}
	wg.Wait()
	a = Added{Limiter: name, Keys: len(keys), Seconds: time.Since(base).Seconds()}
	for _, one := range latencies[2:] {
		latencies[1].Merge(one)
	}
	of := func(h latency.Histogram) Percentile {
		x := h.Percentiles()
		return Percentile{P999: x.P999, Max: x.Max}
	}
	a.New, a.Known = of(latencies[0]), of(latencies[1])
	if err := cmp.Or(errs...); err != nil {
		return a, err
	}
	if l.Len != nil { // counted before the time is read: keys go with their window
		if held := l.Len(); held != len(keys) && time.Since(base) < p.limit.Options.Window {
			return a, fmt.Errorf("it holds %d keys, but %d were called", held, len(keys))
		}
	}
	return a, nil
}
