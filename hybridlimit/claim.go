package hybridlimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/redislimit"
)

// settled calls then under the lock of a key that has just settled, and if so wished given back its lease.
func (l *limiter) settled(
	ctx context.Context, form string, giveBack bool, then func(*shard, *account),
) error {
	hash := l.table.Hash(form)
	return l.settledAt(ctx, l.names.Of(form), func(now int64) (*shard, *account) {
		sh, _, k := l.acquire(hash, form, now)
		return sh, k
	}, giveBack, then)
}

// settledAt is settled for the account with a name in Redis that find finds, under its lock.
func (l *limiter) settledAt(
	ctx context.Context, name string, find func(now int64) (*shard, *account), giveBack bool,
	then func(*shard, *account),
) error {
	k, i, err := l.claim(ctx, name, find, giveBack)
	if err != nil {
		return err
	}
	err = l.exchange(ctx, []*message{i})
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

// claim makes the next message of the account that find finds, under its lock, once none is under way.
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
			i := l.message(k, now, giveBack || k.gone || !k.Fresh(now))
			sh.Unlock()
			return k, i, nil
		}
		answered := k.wait()
		sh.Unlock()
		if err := l.await(ctx, answered, began); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("%w: no answer within %v", redislimit.ErrUnavailable, l.options.Timeout)
}
