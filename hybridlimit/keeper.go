package hybridlimit

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// keeper is several limits. Each has a limiter with windows of its own, whose keys settle by themselves. A
// decision locks the accounts of the key in all of them, tries each, and records in all or none.
//
// Shards are locked in one order: see lockOrder. Everything else locks one shard at a time. So there is no
// deadlock.
type keeper struct {
	limits  []limit         // in the order of the lengths of the windows, of which no two are the same
	counter *limiter        // the limiter with the window of the options: it counts for the Observer
	group   string          // how its keys begin in the table, if they are those of a group
	done    <-chan struct{} // is closed with the provider
}

type limit struct {
	*limiter
	label    string
	place    int // among the limits as they were given
	capacity uint64
	law      window.Law // of Suppressed
}

// Bind returns limits that are kept for any key, or what is wrong with them: see trypema.CheckLimits. It is
// cheap. With FailClosed and FailOpen the limits have no say while Redis is unavailable.
func (p *Provider) Bind(s trypema.Strategy, limits ...trypema.Limit) (*trypema.Bound, error) {
	return trypema.NewBound(s, limits, func(limits []trypema.Limit) (trypema.Keeper, error) {
		return p.keep(s, limits), nil
	})
}

// keep returns a keeper of limits that were checked.
func (p *Provider) keep(s trypema.Strategy, limits []trypema.Limit) *keeper {
	m := &keeper{counter: p.absolute, done: p.done}
	if s == trypema.StrategySuppressed {
		m.counter = p.suppressed
	}
	m.limits = make([]limit, 0, len(limits))
	m.counter.windows.mu.Lock()
	defer m.counter.windows.mu.Unlock()
	for i, of := range limits {
		c := redisproto.CapacityOf(of)
		l := limit{limiter: m.counter.ofLocked(of.Window), label: of.Label(), place: i, capacity: c}
		l.law = l.limiter.law(c)
		m.limits = append(m.limits, l)
		inuse.Hold(&m.limits[i], &l.users) // which keepers of groups have, too
	}
	slices.SortFunc(m.limits, func(a, b limit) int { return cmp.Compare(a.terms.Window, b.terms.Window) })
	return m
}

// InGroup returns a limiter that keeps the same limits for the keys of a group, as trypema.Policies needs it.
func (m *keeper) InGroup(group string) trypema.Keeper {
	in := *m
	in.group = groupkey.Prefix(group)
	return &in
}

// Done is closed by Close of the provider: see trypema.Keeper.
func (m *keeper) Done() <-chan struct{} { return m.done }

// check returns what is wrong with a key, or that the provider is closed. The empty key is one of a group,
// and none without.
func (m *keeper) check(key string) error {
	if key == "" && m.group != "" {
		key = m.group
	}
	_, err := m.limits[0].check(key, trypema.Unlimited)
	return err
}

// inTable returns a key as it is in the table.
func (m *keeper) inTable(key string) string {
	if m.group == "" {
		return groupkey.Plain(key)
	}
	return m.group + key
}

// AllowN implements trypema.Keeper.
func (m *keeper) AllowN(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	err = m.take(ctx, &d, key, n, take, 0, m.dice(), nil)
	return d, err
}

// dice returns a throw for a call, if one of its limits may want it.
func (m *keeper) dice() float64 {
	if len(m.limits) == 1 && !m.counter.suppressed {
		return 0
	}
	return rand.Float64()
}

// take decides a call that began at an instant, or begins now if that is 0, records it, and counts it if
// there is an Observer. r is nil unless the call is a reservation.
func (m *keeper) take(
	ctx context.Context, d *trypema.Decision, key string, n uint64, how manner, began int64, dice float64,
	r *reservation,
) (err error) {
	if err = m.check(key); err == nil && n == 0 {
		err = redisproto.ErrZeroCost
	}
	key = m.inTable(key)
	if err != nil {
		m.counter.count(groupkey.Shown(key), d, err, m.counter.now())
		return err
	}
	if l := &m.limits[0]; len(m.limits) == 1 && r == nil {
		now, ok := l.quick(d, key, l.table.Hash(key), n, l.capacity, dice)
		if began = cmp.Or(began, now); ok {
			if !d.Allowed {
				d.RefusedBy = l.label
			}
			m.counter.count(groupkey.Shown(key), d, nil, began)
			return nil
		}
	}
	return m.takeLocked(ctx, d, request{key: key, cost: n, began: began, dice: dice}, how, r)
}

// takeLocked is take for a call that quick has not decided: see judgeLocked.
func (m *keeper) takeLocked(
	ctx context.Context, d *trypema.Decision, r request, how manner, reserves *reservation,
) error {
	var room [trypema.MaxLimits]party
	all := m.join(room[:0], r.key, r.cost)
	j := joint{
		counter: m.counter, keeper: m, parties: all, began: r.began, dice: r.dice, reservation: reserves,
	}
	return j.judge(ctx, d, how)
}

// join adds a party for each limit.
func (m *keeper) join(parties []party, key string, cost uint64) []party {
	for i := range m.limits {
		l := &m.limits[i]
		parties = append(parties, l.party(key, l.table.Hash(key), cost))
	}
	return parties
}

// Peek implements trypema.Keeper.
func (m *keeper) Peek(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	if err = m.check(key); err == nil {
		var room [trypema.MaxLimits]party
		all := m.join(room[:0], m.inTable(key), max(n, 1))
		j := joint{counter: m.counter, keeper: m, parties: all, dice: rand.Float64()}
		err = j.judge(ctx, &d, peek)
	}
	return d, err
}

// Again is AllowN for a call that was denied before, which Suppressed has counted already: see
// trypema.Keeper. Suppressed looks first, and records the call only if it is admitted by the dice that it
// then has.
func (m *keeper) Again(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	if err := m.check(key); err != nil {
		return d, err
	}
	var room [trypema.MaxLimits]party
	key = m.inTable(key)
	all := m.join(room[:0], key, n)
	j := joint{counter: m.counter, keeper: m, parties: all, began: m.counter.now(), dice: rand.Float64()}
	if j.counter.suppressed {
		if err = j.decide(ctx, &d); err != nil || !d.Allowed {
			return d, err
		}
	}
	// The look may have waited for Redis. What it saw then may have ended since.
	again := joint{
		counter: m.counter, keeper: m, parties: m.join(room[:0], key, n),
		began: j.began, now: m.counter.now(), dice: j.dice, mode: lease.Record, again: true,
	}
	d = trypema.Decision{}
	if err = again.decide(ctx, &d); err != nil || d.Allowed {
		m.counter.count(groupkey.Shown(key), &d, err, j.began)
	}
	return d, err
}

// Usage implements trypema.Keeper. It takes a round trip for each limit.
func (m *keeper) Usage(ctx context.Context, key string) ([]trypema.Usage, error) {
	if err := m.check(key); err != nil {
		return nil, err
	}
	ctx, cancel := m.counter.within(ctx)
	defer cancel()
	all := make([]trypema.Usage, len(m.limits))
	for i := range m.limits {
		l := &m.limits[i]
		u, err := l.usage(ctx, m.inTable(key), l.capacity)
		if err != nil {
			return nil, err
		}
		all[l.place] = u
	}
	return all, nil
}

// Delete implements trypema.Keeper. It takes two round trips for each limit.
func (m *keeper) Delete(ctx context.Context, key string) error {
	if err := m.check(key); err != nil {
		return err
	}
	ctx, cancel := m.counter.within(ctx)
	defer cancel()
	for i := range m.limits {
		if _, err := m.limits[i].set(ctx, m.inTable(key), trypema.Always(), 0, trypema.Replace); err != nil {
			return err
		}
	}
	return nil
}
