package sim

import (
	"time"

	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// instance is one process with a Hybrid provider. It counts time from its own start.
type instance struct {
	world     *world
	terms     *lease.Terms
	index     int
	started   int64
	dead      bool
	resumes   int64 // it pauses until then
	groups    window.Groups
	accounts  []*account // by key; nil where it was not asked for
	kept      int64      // how long a key is kept after its last call
	settling  lease.Schedule[*account]
	lapsed    int  // calls since the last tick that found a lease that had ended
	answering bool // an exchange is being answered: flights begin after that
	flights   int  // that begin then
	redis     *breaker.Breaker
}

// account is a key in use.
type account struct {
	lease.Account
	lease.Turn
	key     int32
	waiting []call
	watched bool // there will be a deadline
}

// call is one call of a cost of 1.
type call struct {
	made   int64
	waited bool // for Redis
	asked  bool // the message under way asks for it
}

func (w *world) newInstance(index int, started int64) *instance {
	i := &instance{world: w, terms: &w.terms, index: index, started: started, accounts: make([]*account, len(w.keys))}
	i.settling.Init(i.terms)
	i.kept = i.terms.Window + i.terms.Bucket + i.settling.Pace().Far
	breakers := breaker.NewSet(w.retry, w.local, nil, nil)
	breakers.SetClock(w.clock)
	i.redis = breakers.Of("")
	return i
}

func (i *instance) now() int64 { return i.world.now - i.started }

// after has an event happen to the instance some time from now.
func (i *instance) after(d int64, e event) {
	e.at, e.instance = i.world.now+d, i
	i.world.events.push(e)
}

// account finds a key, or begins to hold it. A key that is not in use any more begins again.
func (i *instance) account(key int32) *account {
	k := i.accounts[key]
	if k != nil && !k.Active() && i.now()-k.Last() > i.kept {
		k.Clear(&i.groups)
		k = nil
	}
	if k == nil {
		k = &account{key: key}
		i.world.holders++
		k.Holder = i.world.holders
		i.accounts[key] = k
	}
	return k
}

// moment is what accounts act at.
func (i *instance) moment() *lease.Moment {
	return &lease.Moment{Terms: i.terms, Groups: &i.groups, Pace: i.settling.Pace(), Now: i.now()}
}

// question is what an account is asked for a call.
func (i *instance) question() *lease.Call {
	w := i.world
	q := &lease.Call{Cost: 1, Capacity: w.capacity, Mode: lease.Record}
	if w.law != nil {
		q.Law, q.Dice = *w.law, w.dice()
	}
	return q
}

// decide judges a call, or has it wait for the answer to a message.
func (i *instance) decide(k *account, c call) {
	now := i.now()
	var v lease.Decision
	alone := i.decidesAlone(k)
	if !alone {
		k.Decide(&v, i.moment(), i.question())
	}
	if alone || v.AskLedger && (i.redis.Gone() || i.world.now-c.made >= int64(i.world.Timeout)) {
		i.decideAlone(k, c)
		return
	}
	if !v.AskLedger {
		i.tell(k, c, &v)
		return
	}
	if k.Lapsed(now) {
		i.lapsed++
	}
	k.waiting = append(k.waiting, call{made: c.made, waited: true})
	i.watch(k)
	i.urge(k)
}

// decidesAlone reports whether the failure policy has to decide: there is nothing on lease, and there will be
// nothing.
func (i *instance) decidesAlone(k *account) bool {
	return !k.Fresh(i.now()) && i.redis.Gone() || k.Leased() == 0 && i.takesNothing()
}

// decideAlone decides a call by the failure policy.
func (i *instance) decideAlone(k *account, c call) {
	w := i.world
	var v lease.Decision
	if w.local {
		k.DecideOffline(&v, i.moment(), i.question(), uint64(len(w.instances)))
	} else {
		k.Touch(i.now())
	}
	i.schedule(k, i.now())
	w.meter.decided(w.now, i, k.key, c, v.Allowed, true)
}

// takesNothing reports whether leases are not asked for, because the instances decide locally: while Redis is
// unavailable, and, where several share a limit, until the others must have noticed, too, that it is back.
func (i *instance) takesNothing() bool {
	switch w := i.world; {
	case !w.local:
		return false
	case i.redis.Gone():
		return true
	case len(w.instances) == 1:
		return false
	default:
		return w.clock().Sub(i.redis.Back()) < w.retry+time.Duration(2*i.settling.Pace().Slack)
	}
}

// tell is the end of a call that was judged, and has the key settle as the verdict says.
func (i *instance) tell(k *account, c call, v *lease.Decision) {
	if v.SettleAt > 0 {
		i.schedule(k, v.SettleAt)
	}
	i.world.meter.decided(i.world.now, i, k.key, c, v.Allowed, false)
}

// serve answers the calls that wait, after the answer to a message. What a call asked for and the answer did
// not grant is denied, unless the lease has ended already. It reports whether some calls go on waiting.
func (i *instance) serve(k *account) (more bool) {
	calls := k.waiting
	k.waiting = nil
	for _, c := range calls {
		var v lease.Decision
		q := i.question()
		if k.Decide(&v, i.moment(), q); v.AskLedger && (!c.asked || !k.Fresh(i.now())) {
			k.waiting = append(k.waiting, c)
			continue
		}
		if v.AskLedger {
			k.Deny(&v, i.moment(), q)
		}
		i.tell(k, c, &v)
	}
	return len(k.waiting) > 0
}

// fail has the calls that wait try again.
func (i *instance) fail(k *account) {
	calls := k.waiting
	k.waiting = nil
	for _, c := range calls {
		i.decide(k, c)
	}
}

// watch sees to it that no call waits for longer than the timeout.
func (i *instance) watch(k *account) {
	if !k.watched && len(k.waiting) > 0 {
		k.watched = true
		i.after(max(0, k.waiting[0].made+int64(i.world.Timeout)-i.world.now), event{kind: deadline, key: k.key})
	}
}

// expire judges the calls that have waited for the timeout, without Redis.
func (i *instance) expire(k *account) {
	k.watched = false
	for len(k.waiting) > 0 && i.world.now-k.waiting[0].made >= int64(i.world.Timeout) {
		c := k.waiting[0]
		k.waiting = k.waiting[1:]
		i.decide(k, c)
	}
	i.watch(k)
}

// kill ends an instance. Its leases are not given back, and the calls that wait get no answer.
func (i *instance) kill() {
	i.dead = true
	for _, k := range i.accounts {
		if k != nil {
			i.world.meter.abandoned += uint64(len(k.waiting))
		}
	}
}
