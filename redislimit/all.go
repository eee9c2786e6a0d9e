package redislimit

import (
	"context"
	"slices"

	"github.com/trypema/trypema"
)

// AllowAll decides calls of several keepers by one script: see trypema.All. It does so if Redis is one
// server, the calls are of one strategy of this provider and have one cost, and no two of them share a
// window.
func (m *keeper) AllowAll(
	ctx context.Context, asks []trypema.KeptAsk,
) (d trypema.Decision, ok bool, err error) {
	if one, err := m.exchange.server.OneServer(); err != nil || !one {
		return d, false, nil
	}
	all := &keeper{limiter: m.limiter, done: m.done, factor: m.factor, tight: m.tight}
	n := asks[0].Cost
	for _, a := range asks {
		k, same := a.Keeper.(*keeper)
		if !same || k.limiter != m.limiter || a.Cost != n {
			return d, false, nil
		}
		if err := k.check(a.Key); err != nil {
			return d, false, err
		}
		for _, key := range k.keys(k.lane(a.Key)) {
			if slices.Contains(all.joined, key) {
				return d, false, nil
			}
			all.joined = append(all.joined, key)
		}
		all.limits = append(all.limits, k.limits...)
		all.tight, all.longest = min(all.tight, k.tight), max(all.longest, k.longest)
	}
	all.setOperations()
	began := m.began()
	d, err = all.judgeJoined(ctx, n, asks)
	for _, a := range asks {
		a.Keeper.(*keeper).count(a.Key, &d, err, began)
	}
	return d, true, err
}

// judgeJoined decides calls of the same cost whose keys are joined.
func (m *keeper) judgeJoined(
	ctx context.Context, n uint64, asks []trypema.KeptAsk,
) (d trypema.Decision, err error) {
	c := m.exchange.newCall()
	c.cost, c.record, c.dice = n, true, throw()
	err = m.exchange.do(ctx, &m.both, m.joined[0], c)
	switch {
	case err == nil:
		d = m.told(c)
		for _, a := range asks {
			if k := a.Keeper.(*keeper); d.Allowed && m.local != nil {
				mine, err := k.memory().AllowN(ctx, a.Key, n)
				m.correct(&d, &mine, err)
			}
		}
		return d, nil
	case !isTrouble(err):
		return d, err
	case m.policy != FailLocal:
		return m.withoutRedis(n), nil
	}
	m.fallsBack()
	shares := slices.Clone(asks)
	for i := range shares {
		if shares[i].Keeper = asks[i].Keeper.(*keeper).fail.share; shares[i].Keeper == nil {
			return m.withoutRedis(n), nil
		}
	}
	d, _, err = shares[0].Keeper.(localKeeper).AllowAll(ctx, shares)
	m.fallsBack() // before and after the decision: see decideLocally
	d.Fallback = true
	return d, err
}
