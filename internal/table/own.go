package table

import (
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/prefetch"
	"github.com/trypema/trypema/internal/window"
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
	added uint32 // admitted events since the window was opened
	// Of the capacity, what others have. Where events may be declined there are no others, and it counts the
	// declined events since the window was opened.
	base uint32
}

// Terms are on what callers may use the window of a key.
type Terms struct {
	End      int64  // nothing may be taken from then on
	Capacity uint64 // of the calls that may take something
	Limit    uint64 // how much the window may hold
	Base     uint64 // of the capacity, what others have: it counts for what remains; 0 if events may be declined
}

// mostOwn is the largest number in an own. What is added since the window was opened stays below it, too.
const mostOwn = math.MaxUint32

// mostCost is the largest cost of a call that is decided by the window of a key.
const mostCost = 1 << 20

// serves reports whether a call of cost n at now may be decided.
func (o *own) serves(k *ownKind, capacity uint64, now int64, n uint64) bool {
	if uint64(o.only) != capacity || now >= o.end || n > mostCost || o.added > mostOwn-mostCost {
		return false
	}
	ago := now - o.Last()
	return ago < k.window || ago >= k.kept // or the last events have left the window of the key, but not this one
}

// take judges a call of cost n at now, and records it if it fits. It returns the part of the capacity that is
// taken then. If it reports false, the state has to be asked.
func (o *own) take(k *ownKind, m *cells.Memory, capacity uint64, now int64, n uint64) (have uint64, ok bool) {
	if !o.serves(k, capacity, now, n) {
		return 0, false
	}
	w := cells.Window{State: &o.State, Grid: &k.grid, Memory: m}
	if have, ok = w.Admit(uint64(o.limit), w.Advance(now), n); ok {
		o.added += uint32(n)
	}
	return min(have+uint64(o.base), capacity), ok
}

// suppress judges a call of cost n at now by a throw of the dice, and records it, admitted or declined. If it
// reports false, nothing is recorded, and the state has to be asked, with the same dice: another throw would
// decline more.
func (o *own) suppress(
	v *window.Verdict, k *ownKind, m *cells.Memory, l *window.Law, now int64, n uint64, dice float64,
) bool {
	if !o.serves(k, l.Capacity, now, n) || o.base > mostOwn-mostCost {
		return false
	}
	w := cells.Window{State: &o.State, Declines: true, Grid: &k.grid, Memory: m}
	now = w.Advance(now)
	w.Throw(v, l, now, n, dice)
	c := window.Counts{Declined: n}
	if v.Allowed {
		have, limit := w.Counts().Admitted, uint64(o.limit)
		if have > limit || n > limit-have {
			return false // the law admits more than there is on lease
		}
		c = window.Counts{Admitted: n}
	}
	w.Record(now, c)
	w.Tell(v, l, now, n)
	o.added += uint32(c.Admitted)
	o.base += uint32(c.Declined)
	return true
}

// ownKind is what the windows of the keys of a table have in common.
type ownKind struct {
	grid     cells.Grid
	window   int64 // how long an event counts in the window of the limit
	kept     int64 // and in these, in which it counts for longer
	declines bool
}

// LawSpan is what window.NewLaw wants for the law by which Suppress judges.
func (t *Table[S, M]) LawSpan() window.Span {
	if !t.owns {
		return t.kind.Span
	}
	return t.own.grid.Span()
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
	if !p.enter(key) {
		return 0, false
	}
	if !p.turnsHot(n) {
		have, ok = p.e.take(&p.sh.table.own, &p.ix.Memory.cells, capacity, now, n)
	}
	p.leave(ok, now)
	return have, ok
}

// Suppress judges a call by the window of its key, and records it as admitted or declined: see Take. The law
// must be one for LawSpan. If it reports false, nothing has happened, and the same dice must be thrown for
// the state.
func (p *Place[S, M]) Suppress(
	v *window.Verdict, key string, l *window.Law, now int64, n uint64, dice float64,
) (ok bool) {
	if !p.enter(key) {
		return false
	}
	ok = p.e.suppress(v, &p.sh.table.own, &p.ix.Memory.cells, l, now, n, dice)
	p.leave(ok, now)
	return ok
}

// enter locks the entry, and the shard, too, if there is a bound on the number of keys. It reports false, and
// has locked nothing, if the window of the key is not open there. leave must follow otherwise.
func (p *Place[S, M]) enter(key string) bool {
	if p.e == nil {
		return false
	}
	if p.sh.ordered {
		p.sh.Lock()
	}
	o := &p.e.own
	for tries := 0; !o.tryLock(); tries++ {
		if tries == looks { // the state is asked for, or the owner of the lock was interrupted
			if p.sh.ordered {
				p.sh.Unlock()
			}
			return false
		}
	}
	if o.only > 0 && p.ix.Memory.isKey(p.e, key) {
		return true
	}
	p.leave(false, 0)
	return false
}

// leave unlocks what enter has locked, after a call at now that was decided or not.
func (p *Place[S, M]) leave(decided bool, now int64) {
	if decided && p.sh.ordered {
		p.sh.Use(p.h, now)
	}
	p.e.unlock()
	if p.sh.ordered {
		p.sh.Unlock()
	}
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
	k, ix := &sh.table.own, sh.index.Load()
	return cells.Window{
		State: &ix.Entry(h).State, Declines: k.declines, Grid: &k.grid, Memory: &ix.Memory.cells,
	}
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
	added := window.Counts{Admitted: uint64(o.added)}
	if sh.table.own.declines {
		added.Declined = uint64(o.base)
	}
	o.only, o.added = 0, 0
	o.unlock()
	if added != (window.Counts{}) {
		sh.table.kind.Enter(&sh.Memory, sh.state(h), sh.Window(h), added)
	}
}
