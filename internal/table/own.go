package table

import (
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/prefetch"
)

// own is the window of a key that callers use without the state of the key: what they may take, and what they
// have taken. It has 104 bytes without a pointer.
//
// While it is open, all that happens to the key is that callers add events to it. Whoever wants the state has
// it closed first, which enters into the state what was added: see State. The window itself stays as it is,
// for the next time.
//
// Its invariants: State.Lock is the lock of the entry. It guards all of own while the window is open; while
// it is closed, the lock of the shard does. Both are held to open and to close it, and only tells which it
// is: so either lock is enough to read that. The key of an entry changes only while the window is closed, and
// is read without the lock of the shard only while it is open. The lock of the shard comes first.
type own struct {
	cells.State
	end   int64  // nothing may be taken from then on
	only  uint32 // the capacity of the calls that may take something; 0 if the window is closed
	limit uint32 // how much the window may hold
	base  uint32 // of the capacity, what others have
	added uint32 // events since the window was opened
}

// Terms are on what callers may use the window of a key.
type Terms struct {
	End      int64  // nothing may be taken from then on
	Capacity uint64 // of the calls that may take something
	Limit    uint64 // how much the window may hold
	Base     uint64 // of the capacity, what others have: it counts for what remains
}

// mostOwn is the largest number in an own. What is added since the window was opened stays below it, too.
const mostOwn = math.MaxUint32

// mostCost is the largest cost of a call that is decided by the window of a key.
const mostCost = 1 << 20

// take judges a call of cost n at now, and records it if it fits. It returns the part of the capacity that is
// taken then. If it reports false, the state has to be asked.
func (o *own) take(k *ownKind, m *cells.Memory, capacity uint64, now int64, n uint64) (have uint64, ok bool) {
	if uint64(o.only) != capacity || now >= o.end || n > mostCost || o.added > mostOwn-mostCost {
		return 0, false
	}
	if ago := now - o.Last(); ago >= k.window && ago < k.kept {
		return 0, false // the last events have left the window of the key, but not this one
	}
	w := cells.Window{State: &o.State, Grid: &k.grid, Memory: m}
	if have, ok = w.Admit(uint64(o.limit), w.Advance(now), n); ok {
		o.added += uint32(n)
	}
	return min(have+uint64(o.base), capacity), ok
}

// ownKind is what the windows of the keys of a table have in common.
type ownKind struct {
	grid   cells.Grid
	window int64 // how long an event counts in the window of the limit
	kept   int64 // and in these, in which it counts for longer
}

// Place is where the window of a key most likely is.
type Place[S, M any] struct {
	sh *Shard[S, M]
	ix *index
	e  *entry // nil if none was found
	h  Handle
}

// Look finds the window of a key and asks for its memory, for Take. It takes no lock. The clock is best read
// between the two.
func (t *Table[S, M]) Look(hash uint64) (p Place[S, M]) {
	p.sh = t.Shard(hash)
	p.ix = p.sh.index.Load()
	if p.h, p.e = p.ix.Look(hash); p.e != nil {
		prefetch.Two(unsafe.Pointer(p.e))
	}
	return p
}

// Take judges a call by the window of its key, and records it if it is admitted: at now, and with a cost of
// n. It returns the part of the capacity that is taken then. If it reports false, nothing has happened.
//
// A known key with an open window takes one lock, that of its entry, and writes to nothing else; with a bound
// on the number of keys, the lock of the shard, too.
func (p *Place[S, M]) Take(key string, capacity uint64, now int64, n uint64) (have uint64, ok bool) {
	if p.e == nil {
		return 0, false
	}
	if p.sh.ordered {
		p.sh.Lock()
		defer p.sh.Unlock()
	}
	o := &p.e.own
	for tries := 0; !o.tryLock(); tries++ {
		if tries == looks {
			return 0, false // the state is asked for, or the owner of the lock was interrupted
		}
	}
	if o.only > 0 && p.ix.Memory.isKey(p.e, key) && !p.turnsHot(n) {
		if have, ok = o.take(&p.sh.table.own, &p.ix.Memory.cells, capacity, now, n); ok && p.sh.ordered {
			p.sh.Use(p.h, now)
		}
	}
	o.unlock()
	return have, ok
}

// voteEvery is for how many events in the window of a key it is asked for once: see Asked.
const voteEvery = 64

// turnsHot reports whether the key should become the hot one: the next call under the lock sees to that. The
// entry must be locked, and the shard, too, if there is a bound on the number of keys.
func (p *Place[S, M]) turnsHot(n uint64) (hot bool) {
	if added := uint64(p.e.added); (added+n)/voteEvery == added/voteEvery {
		return false
	}
	if p.sh.ordered {
		return p.sh.Asked(p.h)
	}
	if p.sh.TryLock() {
		hot = p.sh.Asked(p.h)
		p.sh.Unlock()
	}
	return hot
}

const looks = 30 // at a locked entry, before the state is asked for

func (o *own) tryLock() bool { return atomic.CompareAndSwapUint32(&o.Lock, 0, 1) }

// lock locks an entry. Callers hold its lock for a moment only.
func (o *own) lock() {
	for !o.tryLock() {
		runtime.Gosched()
	}
}

func (o *own) unlock() { atomic.StoreUint32(&o.Lock, 0) }

// Window returns the window of a key, for its state to fill in before Lend. Its content is that of before.
func (sh *Shard[S, M]) Window(h Handle) cells.Window {
	ix := sh.index.Load()
	return cells.Window{State: &ix.Entry(h).State, Grid: &sh.table.own.grid, Memory: &ix.Memory.cells}
}

// Lends reports whether Lend can open windows on such terms.
func (sh *Shard[S, M]) Lends(t *Terms) bool {
	return sh.table.owns && max(t.Capacity, t.Limit, t.Base) <= mostOwn
}

// Lend opens the window of a key on some terms. Its state must have been asked for under this lock.
func (sh *Shard[S, M]) Lend(h Handle, t Terms) {
	o := &sh.entry(h).own
	o.lock()
	o.end, o.only, o.limit, o.base, o.added = t.End, uint32(t.Capacity), uint32(t.Limit), uint32(t.Base), 0
	o.unlock()
}

// reclaim closes the window of a key, and enters into the state what callers have added.
func (sh *Shard[S, M]) reclaim(h Handle) {
	o := &sh.entry(h).own
	if o.only == 0 {
		return
	}
	o.lock()
	added := o.added
	o.only, o.added = 0, 0
	o.unlock()
	if added > 0 {
		sh.table.kind.Enter(&sh.Memory, sh.state(h), sh.Window(h), uint64(added))
	}
}
