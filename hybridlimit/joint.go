package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// maxAsks is how often a call asks the ledger: other calls may take what it was granted, or it may go back,
// before the call comes to it.
const maxAsks = 3

// joint is one call that one or several limits decide: that of a Limiter, those of a keeper, or those of
// several keepers by AllowAll.
//
// Its invariant: the call is recorded in all limits or in none. decide holds the locks of all shards from the
// first decision to the last record. While the call waits it holds none, and then begins again. A call of a
// single limit is recorded as it is decided, and decided where the answer comes that it waits for: so calls
// are admitted in the order in which they came.
type joint struct {
	counter     *limiter // it counts for the Observer
	keeper      *keeper  // whose windows must not go meanwhile, or nil
	parties     []party  // one for each limit, in the order in which their shards are locked
	began, now  int64
	mustNotWait bool
	mode        lease.Mode
	dice        float64
	again       bool
	reservation *reservation
}

// party is the part of one limit in a decision. Its shard is locked but while the call waits.
type party struct {
	limit
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

// party returns the part of a limit in a decision about a key.
func (l *limit) party(key string, hash, cost uint64) party {
	return party{limit: *l, key: key, hash: hash, cost: cost, sh: l.table.Shard(hash)}
}

// isSingle reports whether the call has one limit, and its cost does not change.
func (j *joint) isSingle() bool { return len(j.parties) == 1 && j.reservation == nil }

// judge decides a call that is made in some manner, and counts it.
func (j *joint) judge(ctx context.Context, d *trypema.Decision, how manner) error {
	if how != peek {
		j.mode = lease.Record
	}
	j.mustNotWait = how == takeNow
	if j.began == 0 || how == takeLate {
		j.now = j.counter.now()
		j.began = cmp.Or(j.began, j.now)
	}
	err := j.decide(ctx, d)
	if how != peek && (err == nil || !errors.Is(err, errWaits)) {
		j.counter.count(groupkey.Shown(j.parties[0].key), d, err, j.began)
	}
	return err
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
			if p := &j.parties[0]; j.isSingle() && p.waiter != nil && !p.waiter.failed {
				p.decision = p.waiter.decision
				t := j.combine()
				j.tell(d, &t)
				return nil
			}
		default:
			t := j.combine()
			switch {
			case j.mode != lease.Record:
			case j.isSingle():
				j.lend()
			default:
				j.record(t.Allowed)
			}
			j.unlock()
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

// lend lets callers have the key of a single limit without the account, if they may after this call: by the
// one word of a hot key if it is that of a Limiter, or by the window of the key. The shard must be locked.
func (j *joint) lend() {
	p := &j.parties[0]
	v, c, at := &p.decision, j.call(p, lease.Record), j.at(p)
	// The account of a Bound must see who comes again in time, and so waits: the word would hide that.
	if j.keeper == nil && !p.suppressed && p.sh.Asked(p.h) {
		if f := p.k.Hot(at); f != nil {
			p.sh.Open(p.h, f)
			return
		}
		p.sh.Forget() // and not at each call
	}
	if p.suppressed || v.Allowed {
		if t, ok := p.k.Lend(at, c, v.SettleAt > 0); ok && p.sh.Lends(&t) {
			w := p.sh.Window(p.h)
			p.k.Fill(at, c, &w)
			p.sh.Lend(p.h, t)
		}
	}
}

// tryMode is how the accounts decide first: a single one records what it decides.
func (j *joint) tryMode() lease.Mode {
	if j.isSingle() {
		return j.mode
	}
	return min(j.mode, lease.Try)
}

// try has each account decide. It reports whether the ledger must be asked: it must not if one account denies
// whatever the ledger says.
func (j *joint) try() (ask bool) {
	denied := false
	for i := range j.parties {
		p := &j.parties[i]
		c, at := j.call(p, j.tryMode()), j.at(p)
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
		w := &waiter{Call: *j.call(p, j.tryMode()), stays: !j.isSingle(), done: make(chan struct{})}
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
		if v.Allowed && j.mode == lease.Record && !j.isSingle() {
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
			if j.decideOffline(lease.Record); j.isSingle() {
				t = j.combine() // with the cost of the call, which is counted now
			}
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

// tell makes d what the limits have decided together, and has the keys settle when that says.
func (j *joint) tell(d *trypema.Decision, t *window.Joint) {
	for i := range j.parties {
		if p := &j.parties[i]; p.decision.SettleAt > 0 {
			p.schedule(p.k, p.decision.SettleAt)
		}
	}
	v := t.Verdict
	v.Factor = t.Most
	redisproto.Decide(d, t.Capacity, &v, time.Nanosecond, j.counter.denial)
	if !t.Allowed {
		d.RefusedBy = j.parties[t.Limit].label
	}
}
