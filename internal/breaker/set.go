package breaker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/guard"
)

// Set is the breakers of one provider: one for each server, and one for the keys whose server is not known.
type Set struct {
	retry    time.Duration
	patient  bool
	onChange func(cause error)
	node     func(key string) string // on which server a key is, or ""; nil where there is only one
	outages  *atomic.Uint64
	now      func() time.Time

	one    *Breaker
	some   sync.Map     // by the name of the server
	gone   atomic.Int64 // how many are
	tidied atomic.Int64 // when, in Unix ns

	mu      sync.Mutex
	changes []error // causes, or nil, that are to be told

	telling sync.Mutex // keeps them in order
}

// unused is how long a server that is gone must not be asked for until it is forgotten: its keys are
// elsewhere.
const unused = time.Minute

// NewSet returns the breakers of a provider, which have a server asked again every retry while it is gone.
// They tell onChange, which may be nil, the cause when the first server is gone, and nil when none is any
// more; one change at a time, in order.
func NewSet(retry time.Duration, patient bool, node func(key string) string, onChange func(cause error)) *Set {
	s := &Set{retry: retry, patient: patient, node: node, onChange: onChange, outages: new(atomic.Uint64),
		now: time.Now}
	s.one = s.breaker("")
	return s
}

// SetClock has the breakers read another clock, such as that of a simulation. Nothing may have been asked of
// them yet.
func (s *Set) SetClock(now func() time.Time) { s.now = now }

func (s *Set) breaker(name string) *Breaker { return &Breaker{set: s, name: name, wins: calm} }

// Of returns the breaker of the server that has a key.
func (s *Set) Of(key string) *Breaker {
	if s.node == nil {
		return s.one
	}
	name := s.node(key)
	if name == "" {
		return s.one
	}
	if b, ok := s.some.Load(name); ok {
		return b.(*Breaker)
	}
	b, _ := s.some.LoadOrStore(name, s.breaker(name))
	return b.(*Breaker)
}

// Single reports whether all keys are on one server, whose breaker is that of any key.
func (s *Set) Single() bool { return s.node == nil }

// Gone reports whether any server is gone.
func (s *Set) Gone() bool { return s.gone.Load() > 0 }

// Cause returns why one of the servers is gone, or nil.
func (s *Set) Cause() (cause error) {
	if !s.Gone() {
		return nil
	}
	if cause := s.one.Cause(); cause != nil {
		return cause
	}
	s.some.Range(func(_, b any) bool {
		cause = b.(*Breaker).Cause()
		return cause == nil
	})
	return cause
}

// Outages returns how often a server was gone, in a counter that does not keep the Set.
func (s *Set) Outages() *atomic.Uint64 { return s.outages }

// note notes that a server is gone, or back, in the order in which that happens.
func (s *Set) note(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cause != nil {
		s.outages.Add(1)
		if s.gone.Add(1) == 1 {
			s.changes = append(s.changes, cause)
		}
		return
	}
	if s.gone.Add(-1) == 0 {
		s.changes = append(s.changes, nil)
	}
}

func (s *Set) tell() {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	changes := s.changes
	s.changes = nil
	s.mu.Unlock()
	for _, cause := range changes {
		if s.onChange != nil {
			guard.Log("OnChange", func() { s.onChange(cause) })
		}
	}
}

// tidy forgets servers that are gone and that are not asked for any more.
func (s *Set) tidy(now time.Time) {
	if !s.Gone() || s.node == nil {
		return
	}
	if was := s.tidied.Load(); now.UnixNano()-was < int64(unused)/4 || !s.tidied.CompareAndSwap(was, now.UnixNano()) {
		return
	}
	s.some.Range(func(name, one any) bool {
		b := one.(*Breaker)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.cause != nil && now.Sub(b.asked) >= unused+s.retry {
			b.closeLocked(now)
			s.some.Delete(name)
		}
		return true
	})
	s.tell()
}
