package sim

import (
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// instance is one process with a Hybrid provider. It counts time from its own start.
type instance struct {
	world    *world
	terms    *lease.Terms
	index    int
	started  int64
	dead     bool
	resumes  int64 // it pauses until then
	groups   window.Groups
	accounts []*account // by key; nil where it was not asked for
	settler  settler
}

// account is a key in use.
type account struct {
	lease.Account
	key     int32
	waiting []call
	watched bool // there will be a deadline

	due    int64
	active bool
	ready  bool // for the next tick
	urged  bool // for the next flight
}

// call is one call of a cost of 1.
type call struct {
	made   int64
	waited bool // for Redis
	asked  bool // the message under way asks for it
}

func (w *world) newInstance(index int, started int64) *instance {
	i := &instance{world: w, terms: &w.terms, index: index, started: started, accounts: make([]*account, len(w.keys))}
	i.settler.wheel = make(map[int64][]entry)
	i.settler.rtt = 1e6
	i.settler.pace = lease.NewPace(i.terms, int64(i.settler.rtt), i.terms.Interval, 0)
	return i
}

func (i *instance) now() int64 { return i.world.now - i.started }

// after has an event happen to the instance some time from now.
func (i *instance) after(d int64, e event) {
	e.at, e.instance = i.world.now+d, i
	i.world.events.push(e)
}

// account finds a key, or begins to hold it. One that nobody has asked for in a window and the life of a lease begins anew.
func (i *instance) account(key int32) *account {
	k := i.accounts[key]
	if k != nil && !k.active && i.now()-k.Last() > i.terms.Window+i.terms.Bucket+i.settler.pace.Far {
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

// put asks an account.
func (i *instance) put(v *lease.Verdict, k *account) {
	if w := i.world; w.law == nil {
		k.Absolute(v, &i.groups, i.terms, i.settler.pace, w.capacity, i.now(), 1, lease.Record)
	} else {
		k.Suppressed(v, &i.groups, i.terms, i.settler.pace, w.law, i.now(), 1, w.dice(), lease.Record)
	}
}

// decide judges a call, or has it wait for the answer to a message.
func (i *instance) decide(k *account, c call) {
	w, now := i.world, i.now()
	var v lease.Verdict
	if i.settler.gone && !k.Fresh(now) || k.Leased() == 0 && i.sharing() || w.now-c.made >= w.timeout {
		if w.local {
			k.Alone(&v, &i.groups, i.terms, w.capacity, w.law, uint64(len(w.instances)), now, 1, w.dice(), true)
		} else {
			k.Touch(now)
		}
		i.schedule(k, now)
		w.meter.decided(w.now, i, k.key, c, v.Allowed, true)
		return
	}
	if i.put(&v, k); !v.Ask {
		i.tell(k, c, &v)
		return
	}
	if k.Lapsed(now) {
		i.settler.lapsed++
	}
	k.waiting = append(k.waiting, call{made: c.made, waited: true})
	i.watch(k)
	i.urge(k)
}

// tell is the end of a call that was judged, and has the key settle as the verdict says.
func (i *instance) tell(k *account, c call, v *lease.Verdict) {
	if v.Due > 0 {
		i.schedule(k, v.Due)
	}
	i.world.meter.decided(i.world.now, i, k.key, c, v.Allowed, false)
}

// serve answers the calls that wait, after the answer to a message. What it was asked for and is not there, is not to be had, unless the lease is over by then.
// It reports whether there are some that go on waiting.
func (i *instance) serve(k *account) (more bool) {
	calls := k.waiting
	k.waiting = nil
	for _, c := range calls {
		var v lease.Verdict
		if i.put(&v, k); v.Ask && (!c.asked || !k.Fresh(i.now())) {
			k.waiting = append(k.waiting, c)
			continue
		}
		if v.Ask {
			k.Deny(&v, &i.groups, i.terms, i.settler.pace, i.world.capacity, i.world.law, i.now(), 1, true)
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
		i.after(max(0, k.waiting[0].made+i.world.timeout-i.world.now), event{kind: deadline, key: k.key})
	}
}

// expire judges the calls that have waited for the timeout, without Redis.
func (i *instance) expire(k *account) {
	k.watched = false
	for len(k.waiting) > 0 && i.world.now-k.waiting[0].made >= i.world.timeout {
		c := k.waiting[0]
		k.waiting = k.waiting[1:]
		i.decide(k, c)
	}
	i.watch(k)
}

// kill ends an instance: nobody hears any more of what it has on lease, and of the calls that wait.
func (i *instance) kill() {
	i.dead = true
	for _, k := range i.accounts {
		if k != nil {
			i.world.meter.abandoned += uint64(len(k.waiting))
		}
	}
}
