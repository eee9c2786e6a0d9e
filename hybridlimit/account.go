package hybridlimit

import (
	"sync/atomic"

	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/window"
)

type shard = table.Shard[*account, window.Groups]

// account is a key in use. The lock of its shard guards all of it but the fixed fields and the Turn. That
// lock is never held while Redis is asked. The settler's lock may be taken under it.
type account struct {
	// Fixed.
	key  string // in the table: with its group, see package groupkey
	name string // in Redis
	hash uint64

	// The breaker of the server that had the key when that was last asked. It is read without a lock.
	server atomic.Pointer[breaker.Breaker]

	lease.Account
	removed    bool           // the table has dropped it
	own        *window.Groups // the memory of its windows from then on, if calls waited for it; or nil
	fault      error          // what Redis last said about what it holds under the name, or nil
	counted    int64          // part of the lease that is in the limiter's leased
	waiting    []*waiter      // in the order in which they came
	messageEnd chan struct{}  // see wait

	lease.Turn // the settler's lock guards it
}

// acquire locks the shard of a key and finds its account there, or adds it.
func (l *limiter) acquire(hash uint64, key string, now int64) (*shard, *account) {
	sh, h := l.table.Acquire(hash, key, now)
	return sh, l.accountAt(sh, h, hash, key)
}

// accountAt returns the account of a key that is in the table. Its shard must be locked.
func (l *limiter) accountAt(sh *shard, h table.Handle, hash uint64, key string) *account {
	k := sh.State(h)
	if *k == nil {
		name := l.names.Of(key)
		// key itself may be a part of a large string of the caller.
		*k = &account{name: name, key: l.names.Form(name), hash: hash}
		(*k).Holder = l.holders.Add(1)
		(*k).server.Store(l.breakers.Of(name))
	}
	return *k
}

// lock locks the shard of an account. Callers without the lock can take nothing from it any more.
func (l *limiter) lock(k *account) *shard {
	sh := l.table.Shard(k.hash)
	sh.Lock()
	if h := sh.Find(k.hash, k.key); h != table.None && !k.removed {
		sh.State(h)
	}
	return sh
}

// remove is told that a key leaves the table. What it has not settled goes to Redis soon, and its lease goes
// back. Calls that wait for it are decided first, by the answer to the next message and by what is known of
// the window.
func (l *limiter) remove(g *window.Groups, k *account) {
	if k.removed = true; len(k.waiting) > 0 {
		k.own = new(window.Groups)
		k.Move(g, k.own)
	} else {
		k.Clear(g)
	}
	if k.Unsettled() || k.Lent(l.now()) {
		l.schedule(k, 0)
	}
}

// groups returns the memory of the account's windows, for one use of them: release must follow. An account
// that was removed has none in its shard. The shard must be locked.
func (k *account) groups(sh *shard) *window.Groups {
	switch {
	case k.own != nil:
		return k.own
	case k.removed:
		return new(window.Groups)
	}
	return &sh.Memory
}

// release ends what groups began. An account that was removed has nothing in its windows from then on, unless
// calls waited for it. The shard must be locked.
func (k *account) release(g *window.Groups) {
	if k.removed && k.own == nil {
		k.Clear(g)
	}
}

// use says who needs the account. Calls may wait for one that was removed.
func (k *account) use() lease.Use {
	switch {
	case len(k.waiting) > 0:
		return lease.Wanted
	case k.removed:
		return lease.Removed
	}
	return lease.Known
}
