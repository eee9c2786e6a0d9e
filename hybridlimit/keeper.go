package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
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
	err = m.take(ctx, &d, key, n, take, m.counter.now(), nil)
	return d, err
}

// take decides a call that began at an instant, records it, and counts it if there is an Observer. r is nil
// unless the call is a reservation.
func (m *keeper) take(
	ctx context.Context, d *trypema.Decision, key string, n uint64, how manner, began int64, r *reservation,
) (err error) {
	if err = m.check(key); err == nil && n == 0 {
		err = redisproto.ErrZeroCost
	}
	key = m.inTable(key)
	dice := 0.
	if len(m.limits) > 1 || m.limits[0].suppressed {
		dice = rand.Float64()
	}
	if err == nil && r == nil && m.takesAlone(d, key, n, how, began, dice) {
		return nil
	}
	if err == nil {
		var room [trypema.MaxLimits]party
		j := joint{
			keeper: m, parties: m.join(room[:0], key, n), began: began, dice: dice, mode: lease.Record,
			mustNotWait: how == takeNow, reservation: r,
		}
		if how == takeLate {
			j.now = m.counter.now()
		}
		if err = j.decide(ctx, d); err != nil && errors.Is(err, errWaits) {
			return err
		}
	}
	m.counter.count(groupkey.Shown(key), d, err, began)
	return err
}

// takesAlone decides a call of one limit by the window of its key, as judge does. It reports false if it
// cannot.
func (m *keeper) takesAlone(
	d *trypema.Decision, key string, n uint64, how manner, began int64, dice float64,
) bool {
	l := &m.limits[0]
	if len(m.limits) > 1 {
		return false
	}
	now := began
	if how == takeLate {
		now = l.now()
	}
	place := l.table.Look(l.table.Hash(key))
	if l.suppressed {
		ok := l.suppress(d, &place, key, now, n, l.capacity, dice)
		if ok {
			if !d.Allowed {
				d.RefusedBy = l.label
			}
			m.counter.count(groupkey.Shown(key), d, nil, began)
		}
		return ok
	}
	have, ok := place.Take(key, l.capacity, now, n)
	if ok {
		m.counter.admit(d, groupkey.Shown(key), began, l.capacity, have)
	}
	return ok
}

// Peek implements trypema.Keeper.
func (m *keeper) Peek(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	if err = m.check(key); err == nil {
		var room [trypema.MaxLimits]party
		all := m.join(room[:0], m.inTable(key), max(n, 1))
		j := joint{keeper: m, parties: all, began: m.counter.now(), dice: rand.Float64(), mode: lease.Peek}
		err = j.decide(ctx, &d)
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
	j := joint{keeper: m, parties: m.join(room[:0], key, n), began: m.counter.now(), dice: rand.Float64(), mode: lease.Peek}
	if j.counter.suppressed {
		if err = j.decide(ctx, &d); err != nil || !d.Allowed {
			return d, err
		}
	}
	// The look may have waited for Redis. What it saw then may have ended since.
	again := joint{
		keeper: m, parties: m.join(room[:0], key, n),
		began: j.began, now: m.counter.now(), dice: j.dice, mode: lease.Record, again: true,
	}
	d = trypema.Decision{}
	if err = again.decide(ctx, &d); err != nil || d.Allowed {
		m.counter.count(groupkey.Shown(key), &d, err, j.began)
	}
	return d, err
}

// maxAsks is how often a call asks the ledger: other calls may take what it was granted, or it may go back,
// before the call comes to it.
const maxAsks = 3

// joint is one call that several limits decide together: those of its keeper or, by AllowAll, of several.
//
// Its invariant: the call is recorded in all limits or in none. decide holds the locks of all shards from the
// first decision to the last record. While the call waits it holds none, and then begins again.
type joint struct {
	*keeper
	parties     []party // one for each limit, in the order in which their shards are locked
	began, now  int64
	mustNotWait bool
	mode        lease.Mode
	dice        float64
	again       bool
	reservation *reservation
}

// party is the part of one limit in a decision. Its shard is locked but while the call waits.
type party struct {
	*limit
	key      string // in the table
	hash     uint64
	cost     uint64
	sh       *shard
	shares   bool         // the party before it has locked the shard
	h        table.Handle // where its key is in there, or None
	k        *account
	groups   *window.Groups // the memory of its windows
	decision lease.Decision
	asks     int     // how often the ledger has been asked
	waiter   *waiter // nil if it does not ask the ledger
}

// join adds a party for each limit.
func (m *keeper) join(parties []party, key string, cost uint64) []party {
	for i := range m.limits {
		l := &m.limits[i]
		hash := l.table.Hash(key)
		parties = append(parties, party{limit: l, key: key, hash: hash, cost: cost, sh: l.table.Shard(hash)})
	}
	return parties
}

// decide decides the call, and records it if the mode says so.
func (j *joint) decide(ctx context.Context, d *trypema.Decision) error {
	defer runtime.KeepAlive(j.keeper) // or its windows may go meanwhile
	waited := j.mode == lease.Peek    // which the Observer does not count
	for j.now = max(j.now, j.began); ; j.now = j.counter.now() {
		j.lock()
		if j.some(func(p *party) bool { return p.closed.Load() }) {
			j.unlock()
			return trypema.ErrClosed
		}
		ask := false
		alone := j.some(func(p *party) bool { return p.decidesAlone(p.k, j.now) })
		if !alone {
			ask = j.try()
			alone = ask && j.some(func(p *party) bool {
				return p.decision.AskLedger && p.mayNotWait(p.k, j.now, j.began)
			})
		}
		switch {
		case alone && j.onSeveralServers():
			j.unlock()
			return errSeveralServers
		case alone:
			j.decideAlone(d)
			j.unlock()
			for i := range j.parties {
				j.parties[i].schedule(j.parties[i].k, j.now)
			}
			return nil
		case ask && j.mustNotWait:
			j.unlock()
			return errWaits
		case ask:
			j.ask()
			j.unlock()
			if !waited {
				j.counter.tally.Count(tally.Waited)
				waited = true
			}
			if err := j.waitFor(ctx); err != nil {
				return err
			}
		default:
			t := j.combine()
			if j.mode == lease.Record {
				j.record(t.Allowed)
				p := &j.parties[0]
				alone := len(j.parties) == 1 && j.reservation == nil && p.h != table.None
				if alone && (t.Allowed || p.suppressed) {
					lendWindow(p.sh, p.h, p.k, j.at(p), j.call(p, lease.Record), &p.decision)
				}
			}
			j.unlock()
			for i := range j.parties {
				if p := &j.parties[i]; p.decision.SettleAt > 0 {
					p.schedule(p.k, p.decision.SettleAt)
				}
			}
			j.tell(d, &t)
			return nil
		}
	}
}

// some reports whether f holds for a party.
func (j *joint) some(f func(p *party) bool) bool {
	for i := range j.parties {
		if f(&j.parties[i]) {
			return true
		}
	}
	return false
}

// lock locks the shards of all parties, and finds their accounts or adds them. A call that has waited for an
// account whose key was removed meanwhile goes on with that: what it waited for is nowhere else.
func (j *joint) lock() {
	for i := range j.parties {
		p := &j.parties[i]
		if p.shares = i > 0 && p.sh == j.parties[i-1].sh; !p.shares {
			p.sh.Lock()
		}
		if p.waiter != nil && p.waiter.ended && !p.waiter.failed && p.k.own != nil {
			p.groups, p.h = p.k.groups(p.sh), table.None
			continue
		}
		h := p.sh.Find(p.hash, p.key)
		if h != table.None {
			p.sh.Use(h, j.now)
		} else {
			if !p.shares { // or the key of another party might go
				p.sh.Tidy(j.now)
			}
			h = p.sh.Enter(p.hash, p.key, j.now)
		}
		p.h, p.k = h, p.accountAt(p.sh, h, p.hash, p.key)
		p.groups = p.k.groups(p.sh)
	}
}

func (j *joint) unlock() {
	for i := range j.parties {
		if p := &j.parties[i]; p.k.removed {
			p.k.release(p.groups)
			p.schedule(p.k, j.now)
		}
	}
	for i := range j.parties {
		if p := &j.parties[i]; !p.shares {
			p.sh.Unlock()
		}
	}
	for i := range j.parties {
		j.parties[i].table.Trim()
	}
}

// call returns what one account is asked.
func (j *joint) call(p *party, mode lease.Mode) *lease.Call {
	return &lease.Call{Cost: p.cost, Capacity: p.capacity, Law: p.law, Dice: j.dice, Mode: mode, Again: j.again}
}

// at returns the moment at which one account acts.
func (j *joint) at(p *party) *lease.Moment { return p.moment(p.groups, j.now) }

// try has each account decide without recording anything. It reports whether the ledger must be asked: it
// must not if one account denies whatever the ledger says.
func (j *joint) try() (ask bool) {
	denied := false
	for i := range j.parties {
		p := &j.parties[i]
		c, at := j.call(p, min(j.mode, lease.Try)), j.at(p)
		p.decision = lease.Decision{}
		p.k.Decide(&p.decision, at, c)
		if p.decision.AskLedger {
			empty := p.options.OnEmpty == EmptyReject
			if empty && j.mode == lease.Record {
				p.k.Miss(p.cost)
			}
			if (empty || p.asks >= maxAsks && p.k.Fresh(j.now)) && !p.k.server.Load().Gone() {
				p.k.Deny(&p.decision, at, c)
			}
		}
		ask = ask || p.decision.AskLedger
		denied = denied || !p.decision.AskLedger && !p.decision.Allowed
	}
	if ask && denied {
		for i := range j.parties {
			if v := &j.parties[i].decision; v.AskLedger {
				v.AskLedger, v.Allowed = false, true
			}
		}
		return false
	}
	return ask
}

// ask has the call wait for the ledger of each account that has to ask it. The shards must be locked.
func (j *joint) ask() {
	for i := range j.parties {
		p := &j.parties[i]
		p.waiter = nil
		if !p.decision.AskLedger {
			continue
		}
		p.asks++
		w := &waiter{Call: *j.call(p, min(j.mode, lease.Try)), stays: true, done: make(chan struct{})}
		if p.enqueue(p.k, w, j.now) {
			p.waiter = w
		}
	}
}

// waitFor returns when all waiters have ended, or have waited for long enough. It returns the fault of a key,
// or the error of ctx.
func (j *joint) waitFor(ctx context.Context) (err error) {
	for i := range j.parties {
		p := &j.parties[i]
		if p.waiter == nil {
			continue
		}
		err = cmp.Or(err, p.waitFor(ctx, p.k, p.waiter, j.began))
		if p.waiter.failed { // the ledger did not answer
			p.asks--
		}
	}
	return err
}

// combine returns what the decisions are together: that of the limit which denies for longest, or else of the
// one with the least room.
func (j *joint) combine() (t window.Joint) {
	for i := range j.parties {
		p := &j.parties[i]
		v := &p.decision.Verdict
		if v.Allowed && j.mode == lease.Record {
			v.Now = min(v.Now+p.cost, p.capacity)
			v.Then = v.Now
		}
		t.Add(i, p.capacity, v)
	}
	return t
}

// record records a call that all limits admit, in each of them. A call that one of them denies is recorded
// as declined in each under Suppressed, and nowhere under Absolute. The shards must be locked.
func (j *joint) record(allowed bool) {
	for i := range j.parties {
		p := &j.parties[i]
		var v lease.Decision
		c, at := j.call(p, lease.Record), j.at(p)
		switch {
		case allowed:
			j.reservation.begin(i, p.k)
			p.k.Decide(&v, at, c)
			p.k.EndReserve()
			p.decision.SettleAt = v.SettleAt
			if r := j.reservation; r != nil && r.in[i].r.Expires() { // this instance may end before
				p.decision.SettleAt = j.now
			}
		case p.suppressed:
			p.k.Deny(&v, at, c)
			if p.k.Leased() == 0 { // otherwise it settles in any case
				p.decision.SettleAt = v.SettleAt
			}
		}
	}
}

// decideAlone decides by the failure policy. The shards must be locked.
func (j *joint) decideAlone(d *trypema.Decision) {
	tight := j.tightest()
	switch j.counter.options.OnFailure {
	case redislimit.FailLocal:
		j.decideOffline(min(j.mode, lease.Try))
		t := j.combine()
		if !t.Allowed {
			j.dice = -1 // none admits, whatever it would have done by itself
		}
		if j.mode == lease.Record && (t.Allowed || j.counter.suppressed) {
			for i := range j.parties {
				if t.Allowed {
					j.reservation.begin(i, j.parties[i].k)
				}
			}
			j.decideOffline(lease.Record)
		}
		j.tell(d, &t)
	case redislimit.FailOpen:
		for i := range j.parties {
			if p := &j.parties[i]; j.mode == lease.Record {
				j.reservation.begin(i, p.k)
				p.k.Admit(j.at(p), j.call(p, j.mode))
				p.k.EndReserve()
			}
		}
		*d = redisproto.Open(tight.capacity, tight.cost)
	default:
		for i := range j.parties {
			j.parties[i].k.Touch(j.now)
		}
		*d = redisproto.Closed(tight.capacity, tight.cost, j.counter.options.RetryInterval, j.counter.denial)
	}
	d.Fallback = true
}

// tightest returns the party with the least room for its cost, if all windows are empty.
func (j *joint) tightest() (tight *party) {
	for i := range j.parties {
		p := &j.parties[i]
		if tight == nil || p.cost > p.capacity ||
			window.Room(p.capacity, p.cost) < window.Room(tight.capacity, tight.cost) {
			tight = p
		}
	}
	return tight
}

// decideOffline has each account decide without Redis, as FailLocal does. Each takes its instance's share.
func (j *joint) decideOffline(mode lease.Mode) {
	for i := range j.parties {
		p := &j.parties[i]
		p.decision = lease.Decision{}
		p.k.DecideOffline(&p.decision, j.at(p), j.call(p, mode), uint64(p.options.Instances))
		p.k.EndReserve()
	}
}

// tell makes d what the limits have decided together.
func (j *joint) tell(d *trypema.Decision, t *window.Joint) {
	v := t.Verdict
	v.Factor = t.Most
	redisproto.Decide(d, t.Capacity, &v, time.Nanosecond, j.counter.denial)
	if !t.Allowed {
		d.RefusedBy = j.parties[t.Limit].label
	}
}

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
	if err := m.take(ctx, &d, key, estimate, take, m.counter.now(), r); err != nil {
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
