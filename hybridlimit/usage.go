package hybridlimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// Usage implements trypema.Limiter. It returns what Redis has, after this instance has settled, and what
// other instances had admitted without settling it when Redis last heard of them. Far from the limit that may
// be as long ago as leases live: a window, from twenty seconds, or twenty windows if that is less, to a
// minute; longer with more than 80,000 keys.
func (l *limiter) Usage(ctx context.Context, key string, rate trypema.Rate) (u trypema.Usage, err error) {
	c, err := l.check(key, rate)
	if err != nil {
		return u, err
	}
	return l.usage(ctx, groupkey.Plain(key), c)
}

func (l *limiter) usage(ctx context.Context, key string, c uint64) (u trypema.Usage, err error) {
	law := l.law(c)
	ctx, cancel := l.within(ctx)
	defer cancel()
	err = l.settled(ctx, key, false, func(sh *shard, k *account) {
		counts := k.Live()
		u = trypema.Usage{
			Total:     counts.Observed(),
			Declined:  counts.Declined,
			Limit:     c,
			Remaining: window.Room(c, counts.Admitted),
		}
		if l.suppressed {
			u.SuppressionFactor = k.Factor(l.moment(&sh.Memory, l.now()), &law)
		}
	})
	return u, err
}

// Set implements trypema.Limiter. It works on what Redis has, after this instance has settled and given back
// its lease. It does not see what other instances have not settled: far from the limit, all that they
// admitted in the last window, although Usage counts that. They go on with what they have on lease, and learn
// of the new total when they settle next.
func (l *limiter) Set(
	ctx context.Context, key string, when trypema.Condition, total uint64, keep trypema.History,
) (result trypema.SetResult, err error) {
	// Set has no rate; Unlimited is one that is always valid.
	if _, err := l.check(key, trypema.Unlimited); err != nil {
		return result, err
	}
	if err := redisproto.CheckHistory(keep); err != nil {
		return result, err
	}
	if err := redisproto.CheckTotal(total); err != nil {
		return result, err
	}
	return l.set(ctx, groupkey.Plain(key), when, total, keep)
}

func (l *limiter) set(
	ctx context.Context, key string, when trypema.Condition, total uint64, keep trypema.History,
) (result trypema.SetResult, err error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	var name string
	if err := l.settled(ctx, key, true, func(_ *shard, k *account) { name = k.name }); err != nil {
		return result, err
	}
	matched, have, err := l.runSet(ctx, name, redisproto.SetArgs(when, total, keep, l.names.Letter()))
	if err != nil {
		return result, err
	}
	result = trypema.SetResult{Matched: matched, Previous: have, Current: have}
	if matched {
		result.Current = total
		sh, k := l.acquire(l.table.Hash(key), key, l.now())
		k.Forget(&sh.Memory, &l.terms)
		sh.Unlock()
	}
	return result, nil
}

// Delete implements trypema.Limiter. What instances have on lease stays charged until they have settled it.
func (l *limiter) Delete(ctx context.Context, key string) error {
	_, err := l.Set(ctx, key, trypema.Always(), 0, trypema.Replace)
	return err
}

// settled has a key settle, and give back its lease if giveBack is set. Then it calls then, with the shard
// locked.
func (l *limiter) settled(
	ctx context.Context, key string, giveBack bool, then func(*shard, *account),
) error {
	hash := l.table.Hash(key)
	return l.settledAt(ctx, l.names.Of(key), func(now int64) (*shard, *account) {
		return l.acquire(hash, key, now)
	}, giveBack, then)
}

// settledAt is settled for the account that find returns, with its shard locked. name is its name in Redis.
func (l *limiter) settledAt(
	ctx context.Context, name string, find func(now int64) (*shard, *account), giveBack bool,
	then func(*shard, *account),
) error {
	k, m, err := l.claim(ctx, name, find, giveBack)
	if err != nil {
		return err
	}
	err = l.exchange(ctx, []*message{m})
	sh := l.lock(k)
	defer sh.Unlock()
	switch {
	case k.fault != nil:
		return k.fault
	case ctx.Err() != nil:
		return ended(ctx)
	case err != nil && !errors.Is(err, redislimit.ErrUnavailable):
		return fmt.Errorf("%w: %w", redislimit.ErrUnavailable, err)
	case err != nil:
		return err
	}
	then(sh, k)
	return nil
}

// claim makes the next message of the account that find returns, once none is under way. Its lease goes back
// with that if giveBack is set, or if it has ended.
func (l *limiter) claim(
	ctx context.Context, name string, find func(now int64) (*shard, *account), giveBack bool,
) (*account, *message, error) {
	for began := l.now(); l.now()-began < int64(l.options.Timeout); {
		if l.breakers.Gone() {
			if probe, cause := l.breakers.Of(name).Down(); cause != nil && !probe {
				return nil, nil, fmt.Errorf("%w: %w", redislimit.ErrUnavailable, cause)
			}
		}
		if ctx.Err() != nil {
			return nil, nil, ended(ctx)
		}
		now := l.now()
		sh, k := find(now)
		if l.closed.Load() {
			sh.Unlock()
			return nil, nil, trypema.ErrClosed
		}
		if !k.UnderWay() {
			k.MustTell()
			m := l.message(k, now, giveBack || k.removed || !k.Fresh(now))
			sh.Unlock()
			return k, m, nil
		}
		answered := k.wait()
		sh.Unlock()
		if err := l.await(ctx, answered, began); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("%w: no answer within %v", redislimit.ErrUnavailable, l.options.Timeout)
}
