package hybridlimit

import (
	"context"

	"github.com/trypema/trypema/internal/redisproto"
)

// GiveBack takes up to n out of the windows of a key: see trypema.Keeper. It takes out of what Redis has,
// after this instance has settled and given back its lease. It does not see what other instances have not
// settled. While Redis is unavailable it is an error, which wraps redislimit.ErrUnavailable.
func (m *keeper) GiveBack(ctx context.Context, key string, n uint64) error {
	if err := m.check(key); err != nil || n == 0 {
		return err
	}
	key = m.inTable(key)
	ctx, cancel := m.counter.within(ctx)
	defer cancel()
	for i := range m.limits {
		if err := m.limits[i].giveBack(ctx, key, n); err != nil {
			return err
		}
	}
	return nil
}

func (l *limiter) giveBack(ctx context.Context, key string, n uint64) error {
	var name string
	if err := l.settled(ctx, key, true, func(_ *shard, k *account) { name = k.name }); err != nil {
		return err
	}
	if _, _, err := l.runSet(ctx, name, redisproto.GiveBackArgs(n, l.names.Letter())); err != nil {
		return err
	}
	sh, k := l.acquire(l.table.Hash(key), key, l.now())
	k.Forget(&sh.Memory, &l.terms)
	sh.Unlock()
	return nil
}
