package keys

import (
	"sync/atomic"
	"unsafe"
)

// Full is a key without room, known to callers without a lock. While nothing is admitted, a window changes
// only when events expire. So until the next instant at which some do, a call that does not fit is denied by
// loads alone, and cores that call for the same keys do not take cache lines from each other.
//
// A Full does not change. Whoever locks the entry takes it back first. So while a caller finds the Full of
// its key after it has read the clock, the window holds what the Full says.
type Full struct {
	known
	at   *atomic.Pointer[Full] // where it is until it is taken back
	text [inText]byte          // the key, if it fits
}

// known is a key, and what its window held at an instant.
type known struct {
	content
	hash uint64
	key  string
	e    *entry
	h    Handle
	// 1 + when it was called, to grain; or 0. Kept only with a bound on the number of keys.
	asked atomic.Int64
}

// content is what a window held.
type content struct {
	Last     int64  // the last event
	Admitted uint64 // the admitted events
	Expires  int64  // when the oldest of them expire; 0 if all expire a window after the last event
	Oldest   uint64 // the admitted events that expire then

	window int64 // how long an event counts
}

// fulls are those of a shard, by some bits of the hash that tell no shard.
type fulls [1 << fullBits]atomic.Pointer[Full]

const (
	fullBits  = 6
	worthFull = 4 // one in so many denials under the lock makes a Full, so that what it takes is made up for
)

func (f *fulls) of(hash uint64) *atomic.Pointer[Full] { return &f[hash%uint64(len(f))] }

// Full returns what is known of a key without room, or nil. It may deny a call if it Stands after the clock
// was read, and after CalledFull: who takes it back takes back with it when the key was called.
func (t *Table) Full(hash uint64, key string) *Full {
	all := t.shard(hash).fulls.Load()
	if all == nil {
		return nil
	}
	if f := all.of(hash).Load(); f != nil && f.hash == hash && f.key == key {
		return f
	}
	return nil
}

// Fulls reports whether Full may find something: calls are spared the rest where no key is full.
func (t *Table) Fulls(hash uint64) bool { return t.shard(hash).fulls.Load() != nil }

// Stands reports whether the Full still holds: no caller has taken it back.
func (f *Full) Stands() bool { return f.at.Load() == f }

// Deny judges a call of cost n at now. It returns what Hot.Take does, and Unknown for what it would not deny.
func (f *Full) Deny(capacity uint64, now int64, n uint64) (a Answer, have uint64, at int64, then uint64) {
	if f.Admitted <= capacity && n <= capacity-f.Admitted {
		return Unknown, 0, 0, 0
	}
	return f.deny(capacity, now, n, 0)
}

// deny is a denial after events were added, if it is known when the call would fit.
func (f *content) deny(capacity uint64, now int64, n, added uint64) (a Answer, have uint64, at int64, then uint64) {
	have = f.Admitted + added
	if f.Expires > 0 {
		then = have - f.Oldest
	} else if added > 0 { // the last event is not known
		return Unknown, 0, 0, 0
	}
	at = f.until()
	if now >= at || then > capacity || n > capacity-then {
		return Unknown, 0, 0, 0
	}
	return Denied, have, at, then
}

// until is when the first events expire.
func (f *content) until() int64 {
	if f.Expires > 0 {
		return f.Expires
	}
	return f.Last + f.window
}

// CalledFull notes that a key without room is called at now.
func (t *Table) CalledFull(f *Full, now int64) { t.called(&f.known, now) }

func (t *Table) called(f *known, now int64) {
	if t.bound > 0 {
		if at := f.asked.Load(); at == 0 || now-(at-1) >= grain {
			f.asked.Store(now + 1)
		}
	}
}

// usedAs notes when callers without a lock have used the key.
func (hd *Held) usedAs(f *known, now int64) {
	if at := f.asked.Load() - 1; at >= 0 {
		if now-at < grain {
			at = now // there may have been more calls
		}
		used := usedAt(hd.ix, hd.h)
		*used = max(*used, at)
	}
}

// Denied is Asked for a call of cost n that was denied. If such are frequent, and callers without a lock
// could deny the same, they are told: the key becomes the hot one if there is none, which is the shortest way
// for a call, or if that one is called less; else it is full. The window must not change until the key is
// unlocked.
func (hd *Held) Denied(newest int64, capacity uint64, now int64, n uint64) {
	votes := hd.vote(newest)
	if votes%worthFull != 0 {
		return
	}
	var c content
	hd.describe(&c)
	if a, _, _, _ := c.deny(capacity, now, n, 0); a != Denied {
		return // it fits when more has expired: such calls would take back what they are told
	}
	if votes%worthIt == 0 {
		hd.openIfHotter(capacity, nil, now)
	}
	switch {
	case hd.word&opened != 0:
	case hd.sh.open.Load() == nil:
		hd.openFor(capacity, nil, now, worthFull, grain)
	default:
		hd.tell(&c, now)
	}
}

func (hd *Held) tell(c *content, now int64) {
	all := hd.sh.fulls.Load()
	if all == nil {
		all = new(fulls)
		if !hd.sh.fulls.CompareAndSwap(nil, all) {
			all = hd.sh.fulls.Load()
		}
	}
	at := all.of(hd.hash)
	old := at.Load()
	switch {
	case old == nil:
	case now < old.until():
		return // it serves another key
	case hd.t.bound > 0: // it knows when that key was used
		if !old.takeBack(hd.t, hd.sh) {
			return
		}
		old = nil
	}
	f := &Full{at: at}
	f.key = f.keep(hd.t.textOf(hd.ix.Memory, hd.e))
	f.content = *c
	hd.name(&f.known)
	if at.CompareAndSwap(old, f) { // or a caller for another key was faster
		hd.word |= full
	}
}

// takeBack takes back what is known of a key of a shard, for another key that takes its place, or reports
// that somebody has the entry locked.
func (f *known) takeBack(t *Table, sh *shard) bool {
	w, ok := tryLock(f.e)
	if !ok {
		return false
	}
	// An entry that is no longer in the index has no more to take back.
	hd := Held{t: t, sh: sh, ix: sh.index.Load(), e: f.e, h: f.h, hash: f.hash, word: w}
	hd.settle()
	hd.Unlock()
	return true
}

// keep returns a text as a string, which needs no memory of its own if it is short.
func (f *Full) keep(text []byte) string {
	if len(text) > len(f.text) {
		return string(text)
	}
	return unsafe.String(&f.text[0], copy(f.text[:], text))
}

// forget takes back the Full of the key.
func (hd *Held) forget() {
	hd.word &^= full
	at := hd.sh.fulls.Load().of(*hd.ix.Hash(hd.h))
	f := at.Load()
	if f != nil && f.e == hd.e && at.CompareAndSwap(f, nil) && hd.t.bound > 0 {
		hd.usedAs(&f.known, hd.t.clock())
	}
}
