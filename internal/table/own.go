package table

import (
	"math"

	"github.com/trypema/trypema/internal/cells"
)

// own is the window of a key that callers use without the state of the key: what they may take, and what they
// have taken. It is 104 bytes without a pointer.
//
// While it is open, all that happens to the key is that callers add events to it. Whoever wants the state has
// it closed first, which enters into the state what was added: see State. The window itself stays as it is,
// for the next time.
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

// Take judges a call by the window of its key, and records it if it is admitted: at now, and with a cost of n.
// It returns the part of the capacity that is taken then. If it reports false, nothing has happened.
func (t *Table[S, M]) Take(hash uint64, key string, capacity uint64, now int64, n uint64) (have uint64, ok bool) {
	sh := t.Shard(hash)
	sh.Lock()
	h := sh.Find(hash, key)
	if h == None {
		sh.Unlock()
		return 0, false
	}
	o := &sh.entry(h).own
	if ok = o.only > 0 && !sh.Asked(h); ok { // or it may become the hot key
		if have, ok = o.take(&t.own, sh.memory, capacity, now, n); ok {
			sh.Use(h, now)
		}
	}
	sh.Unlock()
	return have, ok
}

// Window returns the window of a key, for its state to fill in before Lend. Its content is that of before.
func (sh *Shard[S, M]) Window(h Handle) cells.Window {
	return cells.Window{State: &sh.entry(h).own.State, Grid: &sh.table.own.grid, Memory: sh.memory}
}

// Lends reports whether Lend can open windows on such terms.
func (sh *Shard[S, M]) Lends(t *Terms) bool {
	return sh.table.owns && max(t.Capacity, t.Limit, t.Base) <= mostOwn
}

// Lend opens the window of a key on some terms. Its state must have been asked for since the shard was locked.
func (sh *Shard[S, M]) Lend(h Handle, t Terms) {
	o := &sh.entry(h).own
	o.end, o.only, o.limit, o.base, o.added = t.End, uint32(t.Capacity), uint32(t.Limit), uint32(t.Base), 0
}

// reclaim closes the window of a key, and enters into the state what callers have added.
func (sh *Shard[S, M]) reclaim(h Handle) {
	o := &sh.entry(h).own
	if o.only = 0; o.added > 0 {
		w := sh.Window(h)
		sh.table.kind.Enter(&sh.Memory, sh.state(h), &w, uint64(o.added))
		o.added = 0
	}
}
