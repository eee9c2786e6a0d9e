package hybridlimit

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

// reservation is a call whose cost may change: its life, and what each account knows of it. Its account keeps
// the call reachable, so a commit finds it also after the table has dropped the key.
type reservation struct {
	life int64
	in   [trypema.MaxLimits]struct {
		k *account
		r *lease.Reserved
	}
}

// begin has an account note where the call is that it records next. EndReserve must follow. The shard must be
// locked.
func (r *reservation) begin(i int, k *account) {
	if r != nil {
		r.in[i].k, r.in[i].r = k, k.Reserve(r.life)
	}
}

// Reserve implements trypema.Keeper.
func (m *keeper) Reserve(
	ctx context.Context, key string, estimate uint64, expiry time.Duration,
) (*trypema.Reservation, error) {
	if err := redisproto.CheckReservation(estimate, expiry); err != nil {
		return nil, err
	}
	var d trypema.Decision
	r := &reservation{life: int64(expiry)}
	if err := m.take(ctx, &d, key, estimate, take, 0, m.dice(), r); err != nil {
		return nil, err
	}
	return trypema.NewReservation(d, estimate, 0, func(ctx context.Context, was, is uint64) (err error) {
		ctx, cancel := m.counter.within(ctx)
		defer cancel()
		for i := range m.limits {
			err = errors.Join(err, m.limits[i].commit(ctx, r.in[i].k, r.in[i].r, was, is))
		}
		return err
	}), nil
}

// commit changes what a call counts in Redis, after its account has settled, and then here. If Redis does not
// answer, the cost of a call that expires settles later, with what is admitted meanwhile.
func (l *limiter) commit(ctx context.Context, k *account, r *lease.Reserved, was, is uint64) error {
	c := lease.Change{Was: was, Is: is}
	var at committed
	for known := false; !known; {
		find := func(int64) (*shard, *account) { return l.lock(k), k }
		err := l.settledAt(ctx, k.name, find, false, func(_ *shard, k *account) {
			at.recorded, at.admitted, known = k.Locate(&l.terms, r)
		})
		if err != nil && r.Expires() && errors.Is(err, redislimit.ErrUnavailable) {
			return l.commitLater(k, r, is)
		}
		if err != nil {
			return err
		}
	}
	if at.admitted == 0 {
		return nil // it has left the window
	}
	if err := l.runCommit(ctx, k.name, at, &c); err != nil || c.Removed == 0 && c.Added == 0 {
		return err
	}
	sh := l.lock(k)
	if !k.removed {
		k.Commit(l.moment(&sh.Memory, l.now()), r, c)
	}
	sh.Unlock()
	return nil
}

// Unsettled returns what becomes of a call of trypema.All that was reserved and cannot be settled because of
// err. Without Redis it stays as it was decided: the lease covers it. It reports false if Redis is not the
// reason.
func (m *keeper) Unsettled(err error, reserved trypema.Decision, _ uint64) (trypema.Decision, bool) {
	return reserved, errors.Is(err, redislimit.ErrUnavailable)
}

// committed is two instants of a call, by the clock of Redis in µs: when it is recorded, or 0 if it is not,
// and when it was admitted.
type committed struct{ recorded, admitted int64 }

// commitLater has the account of a call settle its true cost when it can.
func (l *limiter) commitLater(k *account, r *lease.Reserved, is uint64) error {
	now := l.now()
	l.schedule(k, now) // so that Close settles it, too
	sh := l.lock(k)
	if l.closed.Load() {
		sh.Unlock()
		return trypema.ErrClosed
	}
	groups := k.groups(sh)
	k.CommitLater(l.moment(groups, now), r, is)
	k.release(groups)
	sh.Unlock()
	l.schedule(k, now)
	return nil
}

// runCommit runs commit.lua, and enters into c what that has removed and added.
func (l *limiter) runCommit(ctx context.Context, name string, at committed, c *lease.Change) error {
	count := func(n uint64) string { return strconv.FormatUint(min(n, redisproto.Most), 10) }
	args := append(l.spanArgs(), l.names.Letter(), count(c.Was), count(c.Is))
	args = append(args, l.spanArgs()...)
	args = append(args, strconv.FormatInt(at.recorded, 10), strconv.FormatInt(at.admitted, 10))
	commit := func(s *redisproto.Scripts) redisproto.Script { return s.Commit }
	return l.runOne(ctx, name, commit, args, func(r *redisproto.Reader) {
		c.Removed, c.Added = r.Count(4*redisproto.Most), r.Count(4*redisproto.Most)
	})
}
