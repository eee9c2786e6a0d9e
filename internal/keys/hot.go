package keys

import (
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/window"
)

// Hot is the key of a shard that is called most, open to callers without a lock: what its window holds, and
// one word to which they add what they admit. Until somebody locks the entry, and first takes the word back
// and enters what it counted, the word is the only thing about the key that changes. So
//
//   - a call that fits is admitted by one addition, which checks and records in one step, and
//   - a call that does not fit is denied by one load, with no shared write at all.
//
// Additions of 1 may go past what fits, and are then no admissions. So what was admitted is what the word
// counts, but no more than fits. That holds because all additions are for calls of one capacity, and because
// a call of a higher cost adds it only if all of it fits.
//
// The word does not tell instants. Whoever takes it back reads the clock after that, and takes all that was
// added as having happened then, or at the end of the cell if that was before: no earlier than it did, and
// less than a cell later.
type Hot struct {
	known        // what the window held when the word was opened: the word counts the rest
	Closes int64 // no event may be added from then on: the newest cell takes no more, or the oldest expires

	law     window.Law
	outlook *cells.Outlook // under Suppressed; nil otherwise
	hint    atomic.Uint64  // for the outlook

	capacity uint64        // of the calls that may add
	room     uint64        // what they may add
	since    atomic.Int64  // when others asked last whether they are called more
	base     atomic.Uint64 // how many events were added by then

	_    [64]byte      // who reads the above is not disturbed by who adds
	word atomic.Uint64 // the taken flag, and the number of added events
	_    [56]byte
}

const (
	taken   = 1 << 63
	grain   = int64(time.Millisecond) // so that callers who keep it do not disturb each other
	worthIt = 16                      // calls under the lock in one cell, until a key is made hot
	trial   = 10 * grain              // how long a hot key is not asked again whether others are called more
	hotter  = 4                       // times the calls of the hot key, until another takes its place
)

// Answer is what Hot knows about a call.
type Answer uint8

// The answers: Unknown has to be asked under the lock.
const (
	Unknown Answer = iota
	Admitted
	Denied
)

// Take judges a call of cost n at now and records it if it fits and record is set. It returns the admitted
// events after the decision and, for a denial, when the call would fit and how many admitted events there are
// then.
func (f *Hot) Take(
	capacity uint64, now int64, n uint64, record bool,
) (a Answer, have uint64, at int64, then uint64) {
	word := f.word.Load()
	if word&taken != 0 {
		return Unknown, 0, 0, 0
	}
	added := min(word, f.room)
	if have = f.Admitted + added; have > capacity || n > capacity-have {
		return f.deny(capacity, now, n, added)
	}
	switch {
	case now >= f.Closes || capacity != f.capacity:
		return Unknown, 0, 0, 0
	case !record:
		return Admitted, have + n, 0, 0
	case n == 1:
		if word, ok := f.add(); ok {
			return Admitted, f.Admitted + word, 0, 0
		}
		return Unknown, 0, 0, 0
	}
	for word <= f.room && n <= f.room-word { // and so not taken
		if f.word.CompareAndSwap(word, word+n) {
			return Admitted, f.Admitted + word + n, 0, 0
		}
		word = f.word.Load()
	}
	return Unknown, 0, 0, 0
}

// add adds an event, and reports whether that admits it. If the word is taken by now, the addition is lost.
func (f *Hot) add() (word uint64, ok bool) {
	word = f.word.Add(1)
	return word, word <= f.room
}

// The word of a Hot under Suppressed counts the admitted events in its low bits, and the declined ones above.
const (
	declinedAt = 31
	inPart     = 1<<declinedAt - 1
	mostAdded  = 1 << 30 // in either part, for what is added at once to be far from wrapping
	mostCost   = 1 << 20
)

// parts returns what a word says under Suppressed.
func (f *Hot) parts(word uint64) window.Counts {
	return window.Counts{Admitted: word & inPart, Declined: word >> declinedAt & inPart}
}

// Suppress judges a call of cost n at now by a throw of the dice, and records it, or reports that it could
// not. The law must be that with which the key was opened.
//
// A call that declines is one addition. If others have added since the word was read, the factor is larger by
// then, as it grows with every event: so the call is declined all the same, and tells the factor of the
// instant of its addition. A call that admits has to be sure that nothing was added: it is a
// compare-and-swap.
func (f *Hot) Suppress(v *window.Verdict, capacity uint64, now int64, n uint64, dice float64) bool {
	for {
		word := f.word.Load()
		added := f.parts(word)
		if word&taken != 0 || f.outlook == nil || capacity != f.capacity || now >= f.Closes || n > mostCost ||
			max(added.Admitted, added.Declined) > mostAdded {
			return false
		}
		v.Factor = f.factor(added, capacity, n)
		if v.Allowed = dice >= v.Factor; !v.Allowed {
			return f.decline(v, word, now, n)
		}
		if f.word.CompareAndSwap(word, word+n) {
			v.Now = f.outlook.Counts.Admitted + added.Admitted + n
			v.Then = v.Now
			return true
		}
	}
}

// factor returns the probability with which to decline a call, when some events were added.
func (f *Hot) factor(added window.Counts, capacity, n uint64) float64 {
	if n > capacity {
		return 1
	}
	return f.law.Factor(f.outlook.Counts.Plus(added), f.outlook.Recent+added.Observed(), n)
}

// decline counts a call as declined that was judged by a word.
func (f *Hot) decline(v *window.Verdict, judged uint64, now int64, n uint64) bool {
	word := f.word.Add(n << declinedAt)
	if word&taken != 0 {
		return false
	}
	if before := word - n<<declinedAt; before != judged {
		v.Factor = f.factor(f.parts(before), f.capacity, n)
	}
	added := f.parts(word)
	v.Now = f.outlook.Counts.Admitted + added.Admitted
	if n > f.capacity {
		v.Wait = window.Never
		return true
	}
	hint, of := unpackHint(f.hint.Load())
	floor := of.Admitted <= added.Admitted && of.Declined <= added.Declined
	// Whoever looks when the cell has ended takes the last event for one at its end.
	at, then, next := f.outlook.Calms(&f.law, added, f.Closes-1, n, hint, floor)
	if next != hint && n == 1 {
		f.hint.Store(packHint(next, added))
	}
	v.Wait, v.Then = at-max(now, f.Last), then
	return true
}

// A hint is packed with the events that were added when a call of cost 1 found it: so it is a floor for calls
// that find more.
const (
	hintBits  = 8
	partOfInt = (64 - hintBits) / 2
)

func packHint(hint int, of window.Counts) uint64 {
	if max(of.Admitted, of.Declined) >= 1<<partOfInt {
		return 0 // which is the first instant, and that is not too late
	}
	return of.Declined<<(partOfInt+hintBits) | of.Admitted<<hintBits | uint64(hint)
}

func unpackHint(packed uint64) (hint int, of window.Counts) {
	const part = 1<<partOfInt - 1
	return int(packed & (1<<hintBits - 1)), window.Counts{
		Admitted: packed >> hintBits & part, Declined: packed >> (partOfInt + hintBits),
	}
}

// Added returns how many events were added.
func (f *Hot) Added() uint64 {
	word := f.word.Load()
	if f.outlook != nil {
		return f.parts(word).Observed()
	}
	return min(word, f.room)
}

// Hot returns the hot key of a shard, if it is this one, or nil.
func (t *Table) Hot(hash uint64, key string) *Hot {
	f := t.shard(hash).open.Load()
	if f == nil || f.hash != hash || f.key != key {
		return nil
	}
	return f
}

// Called notes that a hot key is called at now.
func (t *Table) Called(f *Hot, now int64) { t.called(&f.known, now) }

// Asked notes that a key was called under its lock, at a capacity, and under Suppressed by a law. If that is
// frequent, the key becomes the hot one of its shard, unless that one is called more. newest is that of the
// key before the call.
func (hd *Held) Asked(newest int64, capacity uint64, law *window.Law, now int64) {
	if hd.vote(newest)%worthIt == 0 {
		hd.openIfHotter(capacity, law, now)
	}
}

// vote counts a call under the lock, and returns how many there were in the newest cell.
func (hd *Held) vote(newest int64) uint32 {
	votes := hd.word&asked + 1
	if hd.Newest() != newest {
		votes = 1
	}
	hd.word = hd.word&^asked | votes&asked
	return votes
}

// openIfHotter makes a key hot that has been called often enough again, unless another one is called more.
func (hd *Held) openIfHotter(capacity uint64, law *window.Law, now int64) {
	stamp := uint32(now/grain) << stampShift & stamped
	took := (stamp - hd.word&stamped) & stamped >> stampShift
	hd.word = hd.word&^stamped | stamp
	hd.openFor(capacity, law, now, worthIt, max(1, int64(took))*grain)
}

// openFor makes a key hot that was called so many times in a time that it took.
func (hd *Held) openFor(capacity uint64, law *window.Law, now, calls, took int64) {
	t, sh := hd.t, hd.sh
	if law != nil && (t.fine || hd.Counts().Observed() > 1<<62 || hd.last() != now) {
		return
	}
	if old := sh.open.Load(); old != nil {
		// Calls per time, as a product so that nothing is divided.
		if now < old.Closes && !old.colder(now, calls, took) {
			return
		}
		if !old.takeBack(t, sh) {
			return
		}
	}
	f := &Hot{capacity: capacity}
	f.since.Store(now)
	hd.name(&f.known)
	f.key = string(t.textOf(hd.ix.Memory, hd.e))
	f.Closes = hd.describe(&f.content)
	f.room = capacity - min(capacity, f.Admitted)
	if law != nil {
		w := hd.window()
		f.law, f.outlook = *law, w.Outlook(now)
	}
	if sh.open.CompareAndSwap(nil, f) { // or another one was faster
		hd.word |= opened
	}
}

// colder reports whether a key that was called so many times in a time that it took should take the place of
// this one, which has been looked at for long enough to tell.
func (f *Hot) colder(now, calls, took int64) bool {
	since, base, added := f.since.Load(), f.base.Load(), f.Added()
	switch {
	case now-since < trial:
		return false
	case float64(calls)*float64(now-since) >= hotter*float64(added-base)*float64(took):
		return true
	}
	f.since.Store(now)
	f.base.Store(added)
	return false
}

// settle takes back what callers without a lock know of the key: before that, nothing of it may change.
func (hd *Held) settle() {
	if hd.word&full != 0 {
		hd.forget()
	}
	if hd.word&opened != 0 {
		hd.close()
	}
}

// close takes the hot key back.
func (hd *Held) close() {
	f := hd.sh.open.Load()
	word := f.word.Swap(taken)
	now := hd.t.clock() // after all that was added
	c := window.Counts{Admitted: min(word, f.room)}
	if f.outlook != nil {
		c = f.parts(word)
	}
	if c != (window.Counts{}) {
		hd.join(max(f.Last, min(now, f.Closes-1)), c)
	}
	hd.usedAs(&f.known, now)
	hd.sh.open.Store(nil)
	hd.word &^= opened
}
