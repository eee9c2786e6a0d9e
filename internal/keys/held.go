package keys

import (
	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/window"
)

// Held is a key whose entry is locked, and its window.
type Held struct {
	t    *Table
	sh   *shard
	ix   *index
	e    *entry
	hash uint64
	h    Handle // None for a key that is not there
	word uint32 // what the lock says once it is unlocked

	holds  bool // the caller holds another entry of the table
	locked bool // Take has locked the key, for Acquire
}

// lockAt locks an entry.
func (hd *Held) lockAt(ix *index, h Handle, e *entry) {
	hd.ix, hd.h, hd.e = ix, h, e
	hd.word = hd.lock(e)
}

func (hd *Held) lock(e *entry) uint32 {
	if hd.holds {
		return poll(e)
	}
	return hd.sh.queue.lock(e)
}

// Unlock unlocks the key.
func (hd *Held) Unlock() {
	if hd.h != None {
		hd.sh.queue.unlock(hd.e, hd.word)
	}
}

// Take is Acquire, Absolute, Asked and Unlock in one for what most calls are: one that fits, for a key that
// is where Look has found it. For any other call it reports false and has recorded nothing; it may have
// locked the key, so Acquire must follow.
func (hd *Held) Take(key string, capacity uint64, now int64, n uint64) (have uint64, ok bool) {
	t, e := hd.t, hd.e
	if hd.h == None || t.fine || n > capacity {
		return 0, false
	}
	word, ok := tryLock(e)
	switch {
	case !ok:
		return 0, false
	case !hasShort(e, key):
		hd.sh.queue.unlock(e, word)
		return 0, false
	}
	if votes := word&asked + 1; word&(opened|full) == 0 && votes%worthIt != 0 {
		have, began, ok := e.Take(&t.grid, capacity, now, n)
		if !ok && e.Wide() {
			w := hd.window()
			have, began, ok = w.TakeWide(capacity, now, n)
		}
		if ok {
			if began {
				votes = 1
			}
			hd.Use(now)
			hd.sh.queue.unlock(e, word&^asked|votes)
			return have, true
		}
	}
	hd.word, hd.locked = word, true
	return 0, false
}

// window returns the window of a key that has cells.
func (hd *Held) window() cells.Window {
	return cells.Window{
		State: &hd.e.State, Declines: hd.t.suppressed, Grid: &hd.t.grid, Memory: &hd.ix.Memory.cells,
	}
}

// groups locks the memory of the windows that have groups, and returns that of the key.
func (hd *Held) groups() (*window.Window, *groups) {
	g := &hd.ix.Memory.fine
	g.Lock()
	return hd.e.fine(), g
}

func (hd *Held) last() int64 {
	if hd.t.fine {
		return hd.e.fine().Last()
	}
	return hd.e.Last()
}

// Newest is what tells the newest cell or group from others.
func (hd *Held) Newest() int64 {
	if hd.t.fine {
		return hd.e.fine().First()
	}
	return hd.e.First()
}

// Clear forgets all events, and the time.
func (hd *Held) Clear() {
	if hd.t.fine {
		w, g := hd.groups()
		w.Clear(&g.Groups)
		g.Unlock()
		*w = window.Window{}
		return
	}
	w := hd.window()
	w.Clear()
	w.Reset()
}

// Counts returns what the window holds. Call Advance first.
func (hd *Held) Counts() window.Counts {
	if hd.t.fine {
		return hd.e.fine().Counts()
	}
	w := hd.window()
	return w.Counts()
}

// Advance forgets what has expired at now, and returns the instant to go on with.
func (hd *Held) Advance(now int64) int64 {
	if hd.t.fine {
		w, g := hd.groups()
		now = w.Advance(&g.Groups, hd.t.span, now)
		g.Unlock()
		return now
	}
	w := hd.window()
	return w.Advance(now)
}

// Absolute judges a call of cost n at now, and records it if it is admitted and record is set.
func (hd *Held) Absolute(v *window.Verdict, capacity uint64, now int64, n uint64, record bool) {
	if hd.t.fine {
		w, g := hd.groups()
		w.Absolute(v, &g.Groups, hd.t.span, capacity, now, n, record)
		g.Unlock()
		return
	}
	w := hd.window()
	w.Absolute(v, capacity, now, n, record)
}

// Suppressed judges a call of cost n at now by a throw of the dice, and records it if record is set.
func (hd *Held) Suppressed(
	v *window.Verdict, l *window.Law, now int64, n uint64, dice float64, record bool,
) {
	if hd.t.fine {
		w, g := hd.groups()
		w.Suppressed(v, &g.Groups, hd.t.span, l, now, n, dice, record)
		g.Unlock()
		return
	}
	w := hd.window()
	w.Suppressed(v, l, now, n, dice, record)
}

// Throw is the first half of Suppressed: whether the call passes, at now, which must come from Advance.
func (hd *Held) Throw(v *window.Verdict, l *window.Law, now int64, n uint64, dice float64) {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		w.Throw(v, &g.Groups, hd.t.span, l, now, n, dice)
		return
	}
	w := hd.window()
	w.Throw(v, l, now, n, dice)
}

// Tell is the second half: what is there once the call is recorded, and the wait from then on.
func (hd *Held) Tell(v *window.Verdict, l *window.Law, now int64, n uint64) {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		w.Tell(v, &g.Groups, hd.t.span, l, now, n)
		return
	}
	w := hd.window()
	w.Tell(v, l, now, n)
}

// Factor returns the suppression factor for a call of cost n at now, which must come from Advance.
func (hd *Held) Factor(l *window.Law, now int64, n uint64) float64 {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		return w.Factor(&g.Groups, hd.t.span, l, now, n)
	}
	w := hd.window()
	return w.Factor(l, now, n)
}

// Place records events at an instant that is now or before. now must come from Advance.
func (hd *Held) Place(now, at int64, c window.Counts) {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		w.Place(&g.Groups, hd.t.span, now, at, at, c)
		return
	}
	w := hd.window()
	w.Place(now, at, c)
}

// Record adds events at now, which must come from Advance.
func (hd *Held) Record(now int64, c window.Counts) {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		w.Record(&g.Groups, hd.t.span, now, c)
		return
	}
	w := hd.window()
	w.Record(now, c)
}

// Commit makes a call that was recorded at from with a cost of was count as one of cost is that was admitted
// at an instant, at now, which must come from Advance.
func (hd *Held) Commit(now, from, at int64, was, is uint64) {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		w.Commit(&g.Groups, hd.t.span, now, from, at, was, is)
		return
	}
	w := hd.window()
	w.Commit(now, from, at, was, is)
}

// Replace makes the window hold total admitted events at now, which must come from Advance, and no others.
// The total must not be 0.
func (hd *Held) Replace(now int64, total uint64) {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		w.Replace(&g.Groups, hd.t.span, now, total)
		return
	}
	w := hd.window()
	w.Replace(now, total)
}

// Resize makes the observed total equal to total. The window must not be empty, total not 0.
func (hd *Held) Resize(total uint64, keep window.Keep) {
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		w.Resize(&g.Groups, hd.t.span, total, keep)
		return
	}
	w := hd.window()
	w.Resize(total, keep)
}

// describe describes the window, and returns until when events may be added to its newest cell.
func (hd *Held) describe(c *content) (closes int64) {
	c.window = hd.t.span.Window
	if hd.t.fine {
		w, g := hd.groups()
		defer g.Unlock()
		closes, c.Expires, c.Oldest = w.Open(&g.Groups, hd.t.span)
		c.Last, c.Admitted = w.Last(), w.Counts().Admitted
		return closes
	}
	w := hd.window()
	closes, c.Expires, c.Oldest = w.Open()
	c.Last, c.Admitted = w.Last(), w.Counts().Admitted
	return closes
}

// name says where the key is.
func (hd *Held) name(k *known) { k.hash, k.h, k.e = hd.hash, hd.h, hd.e }

// join enters events that a Hot has counted.
func (hd *Held) join(last int64, c window.Counts) {
	if hd.t.fine {
		hd.e.fine().Join(last, c.Admitted)
		return
	}
	w := hd.window()
	w.Join(last, c)
}
