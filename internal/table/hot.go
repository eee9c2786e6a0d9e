package table

import (
	"sync/atomic"
	"time"
)

// Hot is the key of a shard that is asked for most, open to callers without the lock: what its window holds,
// and one word to which they add what they admit. Until somebody takes the lock and wants the key, who first
// takes the word back and enters what it counted into the state, the word is the only thing about the key
// that changes, so
//
//   - a call that fits is admitted by one compare-and-swap, which checks and records in one step, and
//   - a call that does not fit is denied by one load, with no shared write at all.
type Hot struct {
	// What the window held when the word was opened. Nothing else is in it but what the word counts.
	Window   int64  // how long an event counts
	Opened   int64  // the instant of opening: not before the last event
	Closes   int64  // no event may be added from then on: the newest group takes no more, or the oldest expires
	Last     int64  // the last event
	Admitted uint64 // the admitted events
	Expires  int64  // when the oldest group expires; 0 if it is the newest too, and all expires with the last event
	Oldest   uint64 // the admitted events that expire then
	Reserve  uint64 // of the capacity, what can not be had without the lock
	Only     uint64 // the capacity of the calls that can be judged; 0 for all

	key string
	// 1 + when it was asked for since catchUp, to askedGrain; or 0. Kept only with a bound on the number of
	// keys.
	asked atomic.Int64

	_    [64]byte      // who reads the above is not disturbed by who adds
	word atomic.Uint64 // taken flag, instant of the last added event after Opened, number of added events
	_    [56]byte
}

const (
	taken      = 1 << 63
	instantBit = 32
	maxAdded   = 1<<instantBit - 1

	// MaxOpen is how long after Opened a word can tell instants.
	MaxOpen = 1<<31 - 1

	askedGrain = int64(time.Millisecond) // so that callers who keep it do not disturb each other

	maxLead = 32
	worthIt = 16 // calls under the lock for one key more than for others, until it is made hot
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
	for {
		word := f.word.Load()
		if word&taken != 0 || f.Only != 0 && f.Only != capacity {
			return Unknown, 0, 0, 0
		}
		added := word & maxAdded
		have = f.Admitted + added
		if have+f.Reserve > capacity || n > capacity-f.Reserve-have {
			at, then = f.next(word, have)
			if now >= at || then > capacity || n > capacity-then {
				return Unknown, 0, 0, 0
			}
			return Denied, have, at, then
		}
		if now >= f.Closes || n > maxAdded-added {
			return Unknown, 0, 0, 0
		}
		if !record {
			return Admitted, have + n, 0, 0
		}
		instant := max(word>>instantBit, uint64(max(0, now-f.Opened)))
		if f.word.CompareAndSwap(word, instant<<instantBit|(added+n)) {
			return Admitted, have + n, 0, 0
		}
	}
}

// next returns when the oldest events expire, and how many are left then.
func (f *Hot) next(word, have uint64) (at int64, then uint64) {
	if f.Expires > 0 {
		return f.Expires, have - f.Oldest
	}
	last, _ := f.added(word)
	return last + f.Window, 0
}

// added returns the last event and the number of added events.
func (f *Hot) added(word uint64) (last int64, n uint64) {
	if n = word & maxAdded; n == 0 {
		return f.Last, 0
	}
	return f.Opened + int64(word>>instantBit), n
}

// Hot returns the hot key of the shard, if it is this one, or nil. Called must follow.
func (sh *Shard[S, M]) Hot(key string) *Hot {
	if f := sh.open.Load(); f != nil && f.key == key {
		return f
	}
	return nil
}

// Called notes that the hot key is asked for at now.
func (sh *Shard[S, M]) Called(f *Hot, now int64) {
	if sh.ordered {
		if at := f.asked.Load(); at == 0 || now-(at-1) >= askedGrain {
			f.asked.Store(now + 1)
		}
	}
}

// Asked notes that a key was asked for under the lock, and reports whether that has become so frequent that
// it is worth an Open: at most an eighth of an allocation for each call.
//
// It is a vote for the majority: the low bits count how much more often the candidate in the others was asked
// for than all else. It lies beside the lock, so that it costs no cache line of its own.
func (sh *Shard[S, M]) Asked(h Handle) bool {
	lead := sh.votes % maxLead
	switch {
	case sh.votes/maxLead == uint32(h)%(1<<32/maxLead):
		lead++
	case lead > 0:
		sh.votes--
		return false
	default:
		lead = 1
	}
	sh.votes = uint32(h)*maxLead + lead
	return lead >= worthIt
}

// Forget forgets what Asked has noted.
func (sh *Shard[S, M]) Forget() { sh.votes = 0 }

// Open lets callers have a key without the lock.
func (sh *Shard[S, M]) Open(h Handle, f *Hot) {
	sh.settle()
	ix := sh.index.Load()
	f.key = string(ix.Memory.keyOf(ix.Entry(h)))
	sh.hot = h
	sh.open.Store(f)
}

// settle takes the hot key back.
func (sh *Shard[S, M]) settle() {
	sh.votes = 0
	if sh.hot == None {
		return
	}
	f, h := sh.open.Load(), sh.hot
	if last, n := f.added(f.word.Swap(taken)); n > 0 {
		sh.table.kind.Add(sh.state(h), last, n)
	}
	sh.catchUp()
	sh.open.Store(nil)
	sh.hot = None
}

// catchUp puts the hot key where the last call for it belongs in the list by last use. It comes before any
// other use, so that the list stays in order.
func (sh *Shard[S, M]) catchUp() {
	if !sh.ordered || sh.hot == None {
		return
	}
	if at := sh.open.Load().asked.Swap(0) - 1; at >= 0 {
		if now := sh.table.clock(); now-at < askedGrain {
			at = now // there may have been more calls
		}
		sh.enlist(sh.hot, at)
	}
}
