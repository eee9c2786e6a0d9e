package measure

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/store"
)

const (
	// Of more keys than this, only some are looked up in Redis.
	maxSettledKeys = 10_000
	lookups        = 64 // at once

	settlementTook   = 250 * time.Millisecond
	settlementWindow = time.Minute
	embeddedWindow   = time.Hour // for the embedded server, which may be slow, and whose keys end with it
)

// settlement runs a smaller workload within one window, and returns how much was admitted, after it is sure
// that Redis has been told of exactly that; nil for a limiter that has nothing to tell, or where it took too
// long.
func (p plan) settlement(ctx context.Context, name string, progress func(part float64)) (_ *uint64, err error) {
	if p.limit.Server.Provider() != store.Hybrid || !peer.IsOurs(name) {
		return nil, nil
	}
	window := settlementWindow
	if p.limit.Server.Embedded() {
		window = embeddedWindow
	}
	if p.limit, err = resized(p.limit, p.limit.Capacity, window); err != nil {
		return nil, err
	}
	p.work = newWorkload(min(len(p.work.keys), maxSettledKeys), len(p.work.sequences), p.work.hot)
	p.warmUp = 0
	r, err := p.measure(ctx, name, p.settles, progress)
	if errors.Is(err, errIdle) { // at a low rate it may be too short for any
		return nil, nil
	}
	return r.settled, err
}

// reconcile has all instances tell Redis what they have decided, and compares what Redis then holds with what
// was admitted and denied. If all of that lies within a window, both are equal, and it returns what was
// admitted. Otherwise no key may hold more than it is allowed.
func (s *session) reconcile(ctx context.Context, admitted, denied uint64) (*uint64, error) {
	if err := s.limiter.Flush(ctx); err != nil {
		return nil, err
	}
	bound := s.limit.Capacity
	if s.limit.Suppressed {
		bound = flags.HardCapacity(bound, s.limit.Options)
	} else {
		denied = 0 // Absolute does not tell of what it rejects
	}
	keys := s.work.keys
	step := (len(keys) + maxSettledKeys - 1) / maxSettledKeys
	var heldAdmitted, heldDenied atomic.Uint64
	err := share(lookups, (len(keys)+step-1)/step, func(i int) error {
		key := keys[i*step]
		a, d, err := s.limiter.Settled(ctx, key)
		heldAdmitted.Add(a)
		heldDenied.Add(d)
		switch {
		case ctx.Err() != nil:
			return errInterrupted
		case err != nil:
			return err
		case a > bound:
			return fmt.Errorf("key %s holds %d admitted in Redis, and may hold %d", key, a, bound)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if step > 1 || time.Since(s.began) >= s.limit.Options.Window {
		return nil, nil
	}
	a, d := heldAdmitted.Load(), heldDenied.Load()
	if a != admitted || d != denied {
		return nil, fmt.Errorf("%d admitted and %d declined, but Redis was told of %d and %d", admitted, denied, a, d)
	}
	return &admitted, nil
}
