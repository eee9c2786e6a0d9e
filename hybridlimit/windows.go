package hybridlimit

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// windows are the limiters of one strategy with windows of other lengths than that of the options. A
// trypema.Bound has them made. They share the clock, the server and the breakers of the limiter with
// the window of the options.
type windows struct {
	mu     sync.Mutex // guards what follows
	others map[time.Duration]*limiter
	closed bool
}

// ofLocked returns the limiter with windows of a length. The caller must hold it, as inuse.Hold does, before
// it unlocks windows.
func (l *limiter) ofLocked(w time.Duration) *limiter {
	if w == l.options.Window {
		return l
	}
	other := l.windows.others[w]
	if other == nil {
		l.forgetUnusedLocked()
		o := l.options
		o.Window, o.Bucket = w, o.BucketOf(w)
		share := float64(o.SyncInterval) / float64(intervalOf(l.options.Window))
		o.SyncInterval = min(max(time.Duration(share*float64(intervalOf(w))), time.Millisecond), w)
		other = newLimiter(l.server, l.breakers, o, l.suppressed, l.started)
		if l.windows.closed {
			_ = other.close() // it has nothing to settle
		}
		l.windows.others[w] = other
	}
	return other
}

// forgetUnusedLocked closes the limiters that no *trypema.Bound uses any more, and that have no key and
// nothing to settle.
func (l *limiter) forgetUnusedLocked() {
	for w, other := range l.windows.others {
		if other.users.None() && other.rests() {
			_ = other.close() // it has nothing to settle
			delete(l.windows.others, w)
		}
	}
}

// rests reports whether the limiter has no key, and nothing to do.
func (l *limiter) rests() bool {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.table.Len() == 0 && s.schedule.Rests()
}

// all returns the limiter, and those with other windows.
func (l *limiter) all() []*limiter {
	l.windows.mu.Lock()
	defer l.windows.mu.Unlock()
	return append([]*limiter{l}, slices.Collect(maps.Values(l.windows.others))...)
}

// closeAll closes the limiter, and those with other windows.
func (l *limiter) closeAll() error {
	l.windows.mu.Lock()
	l.windows.closed = true
	l.windows.mu.Unlock()
	var err error
	for _, one := range l.all() {
		err = errors.Join(err, one.close())
	}
	return err
}
