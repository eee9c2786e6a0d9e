package redislimit

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/redisproto"
)

// Reserve implements trypema.Keeper. Redis keeps the expiry. A reservation that the failure policy admitted
// is settled with that.
func (m *keeper) Reserve(
	ctx context.Context, key string, estimate uint64, expiry time.Duration,
) (r *trypema.Reservation, err error) {
	var told trypema.Decision
	began := m.began()
	if r, err = m.reserved(ctx, key, estimate, expiry); r != nil {
		told = r.Decision
	}
	m.count(key, &told, err, began)
	return r, err
}

func (m *keeper) reserved(
	ctx context.Context, key string, estimate uint64, expiry time.Duration,
) (*trypema.Reservation, error) {
	if err := redisproto.CheckReservation(estimate, expiry); err != nil {
		return nil, err
	}
	life := int64(0)
	if expiry < m.longest { // a longer expiry is after all windows
		life = int64((expiry + time.Microsecond - 1) / time.Microsecond)
	}
	each := make([]each, len(m.limits))
	c, err := m.askAll(ctx, key, estimate, true, throw(), each, life)
	switch {
	case err == nil:
	case !isTrouble(err):
		return nil, err
	case m.policy != FailLocal || m.sharing() == nil:
		nowhere := func(context.Context, uint64, uint64) error { return nil }
		return trypema.NewReservation(m.withoutRedis(estimate), estimate, 0, nowhere), nil
	default:
		r, err := m.fail.share.Reserve(ctx, key, estimate, expiry)
		m.fallsBack()
		if err == nil {
			r.Fallback = true
		}
		return r, err
	}
	d := m.told(c)
	var mine *trypema.Reservation // in the memory
	admitted := d.Allowed
	if admitted && m.local != nil {
		if mine, err = m.memory().Reserve(ctx, key, estimate, expiry); err == nil {
			m.correct(&d, &mine.Decision, nil)
		}
	}
	r := trypema.NewReservation(d, estimate, 0, func(ctx context.Context, was, is uint64) error {
		if mine != nil {
			_ = mine.Commit(ctx, is) // it may be closed
		}
		return m.commitCost(ctx, key, each, life, was, is)
	})
	if admitted && !d.Allowed { // Redis has recorded what the memory denies
		return r, m.commitCost(ctx, key, each, life, estimate, 0)
	}
	return r, nil
}

// Unsettled returns what becomes of a call of trypema.All that was reserved and cannot be settled because of
// err. Without Redis the failure policy says so: FailLocal has counted the call already. It reports false if
// Redis is not the reason.
func (m *keeper) Unsettled(err error, reserved trypema.Decision, cost uint64) (trypema.Decision, bool) {
	switch {
	case !isTrouble(err):
		return trypema.Decision{}, false
	case m.policy != FailLocal:
		return m.withoutRedis(cost), true
	}
	m.fallsBack()
	reserved.Fallback = true
	return reserved, true
}

// commitCost runs commit.lua, whose arguments it takes: the cost of the call was, and is from now on.
func (m *keeper) commitCost(ctx context.Context, key string, each []each, life int64, was, is uint64) error {
	c := m.exchange.newCall()
	c.set = []string{strconv.FormatUint(min(was, redisproto.Most), 10),
		strconv.FormatUint(min(is, redisproto.Most), 10)}
	for i := range m.limits {
		span, at := m.limits[i].span, each[i].at
		from := max(0, span.Backdate(at, life))
		c.set = append(append(c.set, redisproto.SpanArgs(span)...), strconv.FormatInt(from, 10),
			strconv.FormatInt(at, 10))
	}
	err := m.exchange.do(ctx, &m.commit, m.lane(key), c)
	if redisproto.IsUnreadable(err) {
		return nil // the windows in which the call counted are gone
	}
	if err != nil {
		return err
	}
	m.exchange.free(c)
	return nil
}

// GiveBack takes up to n out of the windows of a key: see trypema.Keeper. It takes a round trip for each
// limit. While Redis is unavailable, FailLocal gives back where it counts.
func (m *keeper) GiveBack(ctx context.Context, key string, n uint64) error {
	if err := m.check(key); err != nil || n == 0 {
		return err
	}
	form := m.form(key)
	for i := range m.limits {
		l := &m.limits[i]
		c := m.exchange.newCall()
		c.set = redisproto.GiveBackArgs(n, m.letter)
		err := m.exchange.do(ctx, &l.giveBack, l.names.Of(form), c)
		switch {
		case err == nil:
			m.exchange.free(c)
		case !isTrouble(err) || m.policy == FailClosed:
			return err
		case m.local == nil || m.sharing() == nil:
			return nil // nothing was counted
		default:
			err := m.fail.share.(localKeeper).GiveBack(ctx, key, n)
			m.fallsBack()
			return err
		}
	}
	if m.local != nil {
		_ = m.memory().(localKeeper).GiveBack(ctx, key, n) // it can only be closed
	}
	return nil
}

func (m *keeper) readCommit(r *redisproto.Reader, _ []run, _ []*call) error {
	for range m.limits {
		if fault, ok := r.Fault(); ok {
			return errors.New(fault)
		}
		r.Count(4 * redisproto.Most) // taken back
		r.Count(4 * redisproto.Most) // added
	}
	return r.Err()
}
