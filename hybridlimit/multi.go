package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/remote"
	"github.com/trypema/trypema/internal/script"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// multi is several limits. Each has a limiter with windows of its own, of which the keys settle by themselves; a decision locks the
// accounts of the key in all of them, tries each, and records in all or none.
//
// Locks are taken in the order of the lengths of the windows, of which no two are the same; everything else takes one at a
// time. So nobody waits in a circle.
type multi struct {
	limits  []limit  // in that order
	tight   uint64   // the least of the capacities
	counter *limiter // the limiter of the strategy, which counts for the Observer
	group   string   // what the forms of its keys start with, if they are those of a group
}

type limit struct {
	*limiter
	label    string
	place    int // among the limits as they were given
	capacity uint64
	law      window.Law // of Suppressed
}

// Multi returns a limiter that keeps several limits at once, or what is wrong with them: see trypema.CheckLimits. It is cheap to
// make. With FailClosed and FailOpen the limits have no say while Redis is gone.
func (p *Provider) Multi(s trypema.Strategy, limits ...trypema.Limit) (trypema.MultiLimiter, error) {
	if err := trypema.CheckLimits(s, limits); err != nil {
		return nil, err
	}
	m := &multi{tight: math.MaxUint64, counter: p.absolute}
	if s == trypema.StrategySuppressed {
		m.counter = p.suppressed
	}
	m.limits = make([]limit, 0, len(limits))
	m.counter.windows.mu.Lock()
	defer m.counter.windows.mu.Unlock()
	for i, of := range limits {
		c, _ := remote.Capacity(of.Rate, of.Window) // it was checked
		l := limit{limiter: m.counter.ofLocked(of.Window), label: of.Label(), place: i, capacity: c}
		l.law = l.limiter.law(c)
		m.limits = append(m.limits, l)
		inuse.Hold(&m.limits[i], &l.limiter.users) // which limiters of groups have, too
		m.tight = min(m.tight, c)
	}
	slices.SortFunc(m.limits, func(a, b limit) int { return cmp.Compare(a.terms.Window, b.terms.Window) })
	return m, nil
}

// InGroup returns a limiter that keeps the same limits for the keys of a group, as trypema.Policies needs it.
func (m *multi) InGroup(group string) trypema.MultiLimiter {
	in := *m
	in.group = groupkey.Prefix(group)
	return &in
}

// check returns what is wrong with a key, or that the provider is closed. The empty key is one of a group,
// and none without.
func (m *multi) check(key string) error {
	if key == "" && m.group != "" {
		key = m.group
	}
	_, err := m.limits[0].check(key, trypema.Unlimited)
	return err
}

// form returns the form of a key.
func (m *multi) form(key string) string {
	if m.group == "" {
		return groupkey.Plain(key)
	}
	return m.group + key
}

// Allow implements trypema.MultiLimiter.
func (m *multi) Allow(ctx context.Context, key string) (trypema.Decision, error) {
	return m.AllowN(ctx, key, 1)
}

// AllowN implements trypema.MultiLimiter.
func (m *multi) AllowN(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	err = m.take(ctx, &d, key, n, nil)
	return d, err
}

// reserved is a call whose cost may change: its life, and where it is in each window.
type reserved struct {
	life int64
	in   [trypema.MaxLimits]struct {
		k *account
		h *lease.Reserved
	}
}

// hold has an account, whose lock is held, note where the call is that it records next. EndReserve must follow.
func (r *reserved) hold(i int, k *account) {
	if r != nil {
		r.in[i].k, r.in[i].h = k, k.Reserve(r.life)
	}
}

// take decides a call, records it, and counts it if there is an Observer.
func (m *multi) take(ctx context.Context, d *trypema.Decision, key string, n uint64, r *reserved) (err error) {
	began := m.counter.now()
	form := m.form(key)
	if err = m.check(key); err == nil && n == 0 {
		err = remote.ErrZeroCost
	}
	if err == nil {
		err = m.judge(ctx, d, form, began, n, lease.Record, r)
	}
	m.counter.count(groupkey.Shown(form), d, err, began)
	return err
}

// Peek implements trypema.MultiLimiter.
func (m *multi) Peek(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	if err = m.check(key); err == nil {
		err = m.judge(ctx, &d, m.form(key), m.counter.now(), max(n, 1), lease.Peek, nil)
	}
	return d, err
}

// party is the part of one limit in a decision: its account, under the lock.
type party struct {
	sh    *shard
	k     *account
	v     lease.Decision
	asked int // how often the ledger had its say on this call
}

// asks is how often the ledger is asked for a call: what it has granted may be taken, or given back, before the call comes to it.
const asks = 3

// judge makes d for a call that began at an instant, and tells where it was recorded if that is wanted.
func (m *multi) judge(
	ctx context.Context, d *trypema.Decision, form string, began int64, n uint64, mode lease.Mode,
	r *reserved,
) error {
	defer runtime.KeepAlive(m) // or its windows may go meanwhile
	first := m.limits[0].limiter
	var hashes [trypema.MaxLimits]uint64
	var all [trypema.MaxLimits]party
	parties := all[:len(m.limits)]
	for i := range m.limits {
		hashes[i] = m.limits[i].table.Hash(form)
	}
	dice := 0.
	if first.suppressed {
		dice = rand.Float64()
	}
	waited := false
	for now := began; ; now = first.now() {
		m.lock(parties, form, hashes, now)
		if first.closed.Load() {
			m.unlock(parties)
			return trypema.ErrClosed
		}
		if m.decidesAlone(parties, now) || m.try(parties, n, mode, dice, now) && first.mayNotWait(parties[0].k, now, began) {
			m.alone(d, parties, n, mode, dice, now, r)
			m.unlock(parties)
			for i := range parties {
				m.limits[i].schedule(parties[i].k, now)
			}
			return nil
		}
		if slices.ContainsFunc(parties, func(p party) bool { return p.v.AskLedger }) {
			waiters := m.ask(parties, n, mode, now)
			m.unlock(parties)
			if mode == lease.Record && !waited {
				m.counter.tally.Count(tally.Waited)
				waited = true
			}
			if err := m.waitFor(ctx, parties, waiters, began); err != nil {
				return err
			}
			continue
		}
		t := m.tally(parties, n, mode)
		if mode == lease.Record {
			m.record(parties, n, t.Allowed, dice, now, r)
		}
		m.unlock(parties)
		for i := range parties {
			if due := parties[i].v.SettleAt; due > 0 {
				m.limits[i].schedule(parties[i].k, due)
			}
		}
		m.tell(d, &t)
		return nil
	}
}

// lock finds the accounts of a key, and unlock leaves them.
func (m *multi) lock(parties []party, form string, hashes [trypema.MaxLimits]uint64, now int64) {
	for i := range parties {
		p := &parties[i]
		p.sh, _, p.k = m.limits[i].acquire(hashes[i], form, now)
	}
}

func (m *multi) unlock(parties []party) {
	for i := range parties {
		parties[i].sh.Unlock()
	}
}

// decidesAlone reports whether the failure policy has to, for any of the limits.
func (m *multi) decidesAlone(parties []party, now int64) bool {
	for i := range parties {
		if m.limits[i].decidesAlone(parties[i].k, now) {
			return true
		}
	}
	return false
}

// call is what the account of a limit is asked for a call.
func (m *multi) call(i int, n uint64, mode lease.Mode, dice float64) *lease.Call {
	return &lease.Call{Capacity: m.limits[i].capacity, Cost: n, Law: m.limits[i].law, Dice: dice, Mode: mode}
}

// try has each limit judge, and reports whether some have to ask the ledger, and no other denies in any case.
func (m *multi) try(parties []party, n uint64, mode lease.Mode, dice float64, now int64) (ask bool) {
	for i := range parties {
		l, p := &m.limits[i], &parties[i]
		q, at := m.call(i, n, min(mode, lease.Try), dice), l.moment(&p.sh.Memory, now)
		p.v = lease.Decision{}
		p.k.Decide(&p.v, at, q)
		if p.v.AskLedger && l.options.OnEmpty == EmptyReject && mode == lease.Record {
			p.k.Miss(n)
		}
		deny := p.asked >= asks && p.k.Fresh(now) || l.options.OnEmpty == EmptyReject
		if p.v.AskLedger && deny && !p.k.server.Load().Gone() {
			p.k.Deny(&p.v, at, q)
		}
		ask = ask || p.v.AskLedger
	}
	if !ask {
		return false
	}
	for i := range parties {
		if p := &parties[i]; p.v.AskLedger || p.v.Allowed {
			continue
		}
		for j := range parties { // it is denied whatever the ledger says
			if o := &parties[j]; o.v.AskLedger {
				o.v.AskLedger, o.v.Allowed = false, true
			}
		}
		return false
	}
	return true
}

// ask has calls for the ledger's word wait, under the locks.
func (m *multi) ask(parties []party, n uint64, mode lease.Mode, now int64) []*waiter {
	waiters := make([]*waiter, len(parties))
	for i := range parties {
		l, p := &m.limits[i], &parties[i]
		if !p.v.AskLedger {
			continue
		}
		if p.k.Lapsed(now) {
			l.lapsed.Add(1)
		}
		p.asked++
		w := &waiter{Call: *m.call(i, n, min(mode, lease.Try), rand.Float64()), stays: true, done: make(chan struct{})}
		if l.urge(p.k) {
			p.k.waiting = append(p.k.waiting, w)
			waiters[i] = w
		}
	}
	return waiters
}

// waitFor returns when all have been answered, or have waited for long enough, with what is wrong with a key, or with ctx.
func (m *multi) waitFor(ctx context.Context, parties []party, waiters []*waiter, began int64) (err error) {
	for i, w := range waiters {
		if w != nil {
			err = cmp.Or(err, m.limits[i].waitFor(ctx, parties[i].k, w, began))
			if w.failed { // the message was lost, or took too long: it is to be asked again, if there is time
				parties[i].asked--
			}
		}
	}
	return err
}

// tally is what the verdicts mean together.
func (m *multi) tally(parties []party, n uint64, mode lease.Mode) (t window.Tally) {
	for i := range parties {
		v := &parties[i].v.Verdict
		if v.Allowed && mode == lease.Record {
			v.Now = min(v.Now+n, m.limits[i].capacity)
			v.Then = v.Now
		}
		t.Add(i, m.limits[i].capacity, v)
	}
	return t
}

// record records a call that all admit, or that Suppressed declines, under the locks.
func (m *multi) record(parties []party, n uint64, passes bool, dice float64, now int64, r *reserved) {
	for i := range parties {
		l, p := &m.limits[i], &parties[i]
		var v lease.Decision
		q, at := m.call(i, n, lease.Record, dice), l.moment(&p.sh.Memory, now)
		switch {
		case passes:
			r.hold(i, p.k)
			p.k.Decide(&v, at, q)
			p.k.EndReserve()
			p.v.SettleAt = v.SettleAt
			if r != nil && r.in[i].h.Expires() { // Redis is to know before this instance may end
				p.v.SettleAt = now
			}
		case l.suppressed:
			p.k.Deny(&v, at, q)
			if p.k.Leased() == 0 { // or it settles in any case
				p.v.SettleAt = v.SettleAt
			}
		}
	}
}

// alone decides by the failure policy, under the locks.
func (m *multi) alone(d *trypema.Decision, parties []party, n uint64, mode lease.Mode, dice float64, now int64, r *reserved) {
	first := m.limits[0].limiter
	switch first.options.OnFailure {
	case redislimit.FailLocal:
		for i := range parties {
			p := &parties[i]
			p.v = lease.Decision{}
			m.judgeAlone(i, p, n, dice, now, false)
		}
		t := m.tally(parties, n, mode)
		if !t.Allowed {
			dice = -1 // whatever each would have done by itself
		}
		for i := range parties {
			if p := &parties[i]; mode == lease.Record && (t.Allowed || first.suppressed) {
				p.v = lease.Decision{}
				if t.Allowed {
					r.hold(i, p.k)
				}
				m.judgeAlone(i, p, n, dice, now, true)
				p.k.EndReserve()
			}
		}
		m.tell(d, &t)
	case redislimit.FailOpen:
		for i := range parties {
			if p := &parties[i]; mode == lease.Record {
				r.hold(i, p.k)
				p.k.Admit(m.limits[i].moment(&p.sh.Memory, now), m.call(i, n, mode, dice))
				p.k.EndReserve()
			}
		}
		*d = remote.Open(m.tight, n)
	default:
		for i := range parties {
			parties[i].k.Touch(now)
		}
		*d = remote.Closed(m.tight, n, first.options.RetryInterval, first.denial)
	}
	d.Fallback = true
}

func (m *multi) judgeAlone(i int, p *party, n uint64, dice float64, now int64, record bool) {
	l := &m.limits[i]
	mode := lease.Try
	if record {
		mode = lease.Record
	}
	p.k.DecideOffline(&p.v, l.moment(&p.sh.Memory, now), m.call(i, n, mode, dice), uint64(l.options.Instances))
}

// tell makes d what a tally means.
func (m *multi) tell(d *trypema.Decision, t *window.Tally) {
	v := t.Verdict
	v.Factor = t.Most
	remote.Decide(d, t.Capacity, &v, time.Nanosecond, m.limits[0].denial)
	if !t.Allowed {
		d.RefusedBy = m.limits[t.Limit].label
	}
}

// Reserve implements trypema.MultiLimiter.
func (m *multi) Reserve(ctx context.Context, key string, estimate uint64, expiry time.Duration) (*trypema.Reservation, error) {
	if err := remote.CheckReservation(estimate, expiry); err != nil {
		return nil, err
	}
	var d trypema.Decision
	r := &reserved{life: int64(expiry)}
	if err := m.take(ctx, &d, key, estimate, r); err != nil {
		return nil, err
	}
	return trypema.NewReservation(d, estimate, 0, func(ctx context.Context, was, is uint64) (err error) {
		ctx, cancel := m.counter.within(ctx)
		defer cancel()
		for i := range m.limits {
			err = errors.Join(err, m.limits[i].commit(ctx, r.in[i].k, r.in[i].h, was, is))
		}
		return err
	}), nil
}

// commit changes what a call counts in Redis, once all of its account is settled there, and here. If Redis
// does not answer, the cost of a call with an expiry is settled later, as what calls cost is that are
// admitted meanwhile.
func (l *limiter) commit(ctx context.Context, k *account, h *lease.Reserved, was, is uint64) error {
	var from, at int64
	for known := false; !known; {
		find := func(int64) (*shard, *account) { return l.lock(k), k }
		err := l.settledAt(ctx, k.name, find, false, func(_ *shard, k *account) {
			from, at, known = k.Locate(&l.terms, h)
		})
		if err != nil && h.Expires() && errors.Is(err, redislimit.ErrUnavailable) {
			return l.commitLater(k, h, is)
		}
		if err != nil {
			return err
		}
	}
	if at == 0 {
		return nil // it has left the window
	}
	removed, added, err := l.runCommit(ctx, k.name, from, at, was, is)
	if err != nil || removed == 0 && added == 0 {
		return err
	}
	sh := l.lock(k)
	if !k.gone {
		k.Commit(l.moment(&sh.Memory, l.now()), h, lease.Change{Was: was, Is: is, Removed: removed, Added: added})
	}
	sh.Unlock()
	return nil
}

// commitLater has the account of a call settle its true cost when it can.
func (l *limiter) commitLater(k *account, h *lease.Reserved, is uint64) error {
	now := l.now()
	l.schedule(k, now) // so that Close settles it, too
	sh := l.lock(k)
	if l.closed.Load() {
		sh.Unlock()
		return trypema.ErrClosed
	}
	k.CommitLater(l.moment(k.groups(sh), now), h, is)
	sh.Unlock()
	l.schedule(k, now)
	return nil
}

// runCommit runs commit.lua for a call that Redis has recorded at from, or not at all if that is 0.
func (l *limiter) runCommit(ctx context.Context, name string, from, at int64, was, is uint64) (removed, added uint64, err error) {
	args := append(l.spanArgs(), l.names.Letter(), strconv.FormatUint(min(was, remote.Most), 10), strconv.FormatUint(min(is, remote.Most), 10))
	args = append(append(args, l.spanArgs()...), strconv.FormatInt(from, 10), strconv.FormatInt(at, 10))
	err = l.runOne(ctx, name, func(s *script.Scripts) script.Script { return s.Commit }, args, func(r *script.Reader) {
		removed, added = r.Count(4*remote.Most), r.Count(4*remote.Most)
	})
	return removed, added, err
}

// Usage implements trypema.MultiLimiter. It takes a round trip for each limit.
func (m *multi) Usage(ctx context.Context, key string) ([]trypema.Usage, error) {
	if err := m.check(key); err != nil {
		return nil, err
	}
	ctx, cancel := m.counter.within(ctx)
	defer cancel()
	all := make([]trypema.Usage, len(m.limits))
	for i := range m.limits {
		l := &m.limits[i]
		u, err := l.usage(ctx, m.form(key), l.capacity)
		if err != nil {
			return nil, err
		}
		all[l.place] = u
	}
	return all, nil
}

// Delete implements trypema.MultiLimiter. It takes two round trips for each limit.
func (m *multi) Delete(ctx context.Context, key string) error {
	if err := m.check(key); err != nil {
		return err
	}
	ctx, cancel := m.counter.within(ctx)
	defer cancel()
	for i := range m.limits {
		if _, err := m.limits[i].set(ctx, m.form(key), trypema.Always(), 0, trypema.Replace); err != nil {
			return err
		}
	}
	return nil
}
