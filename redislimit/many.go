package redislimit

import (
	"context"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/redisproto"
)

// AllowMany decides calls that share round trips: see trypema.AllowMany.
func (l *limiter) AllowMany(
	ctx context.Context, rate trypema.Rate, calls []trypema.Call, to []trypema.Decision,
) ([]trypema.Decision, error) {
	began := l.began()
	capacity, err := redisproto.Capacity(rate, l.window)
	if err == nil {
		err = redisproto.CheckCalls(calls, redisproto.CheckKey)
	}
	if err != nil {
		l.count("", new(trypema.Decision), err, began)
		return to, err
	}
	return many{
		exchange: l.exchange, op: &l.decide,
		key:   func(key string) string { return l.names.Of(groupkey.Plain(key)) },
		call:  func(n uint64) *call { return l.newCall(capacity, n, true) },
		count: func(key string, d *trypema.Decision, err error) { l.count(key, d, err, began) },
		judged: func(of trypema.Call, c *call, err error) (trypema.Decision, error) {
			return l.judged(ctx, of.Key, rate, of.Cost, true, c, err)
		},
	}.decide(ctx, calls, to)
}

// AllowMany decides calls that share round trips: see trypema.Keeper.
func (m *keeper) AllowMany(
	ctx context.Context, calls []trypema.Call, to []trypema.Decision,
) ([]trypema.Decision, error) {
	began := m.began()
	if err := redisproto.CheckCalls(calls, m.check); err != nil {
		m.count("", new(trypema.Decision), err, began)
		return to, err
	}
	return many{
		exchange: m.exchange, op: &m.both, key: m.lane,
		call:  func(n uint64) *call { return m.newCall(n, true, throw()) },
		count: func(key string, d *trypema.Decision, err error) { m.count(key, d, err, began) },
		judged: func(of trypema.Call, c *call, err error) (trypema.Decision, error) {
			return m.judged(ctx, of.Key, of.Cost, true, c, err)
		},
	}.decide(ctx, calls, to)
}

// many is how calls that enter the exchange together are asked, judged and counted.
type many struct {
	exchange *exchange
	op       *operation
	key      func(key string) string // in the exchange
	call     func(n uint64) *call
	judged   func(of trypema.Call, c *call, err error) (trypema.Decision, error)
	count    func(key string, d *trypema.Decision, err error)
}

// decide appends the decisions up to the first error. Later calls are decided and counted all the same.
func (m many) decide(
	ctx context.Context, calls []trypema.Call, to []trypema.Decision,
) (_ []trypema.Decision, first error) {
	keys, asked := make([]string, len(calls)), make([]*call, len(calls))
	for i, c := range calls {
		keys[i], asked[i] = m.key(c.Key), m.call(c.Cost)
	}
	for i, err := range m.exchange.doAll(ctx, m.op, keys, asked) {
		d, err := m.judged(calls[i], asked[i], err)
		m.count(calls[i].Key, &d, err)
		if first == nil {
			if first = err; err == nil {
				to = append(to, d)
			}
		}
	}
	return to, first
}
