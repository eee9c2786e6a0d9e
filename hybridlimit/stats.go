package hybridlimit

import (
	"time"

	"github.com/trypema/trypema"
)

// count counts a call that began at an instant. It is short enough to be inlined: most have no Observer.
func (l *limiter) count(key string, d *trypema.Decision, err error, began int64) {
	if l.tally != nil {
		l.observe(key, d, err, began)
	}
}

func (l *limiter) observe(key string, d *trypema.Decision, err error, began int64) {
	if l.tally.Decided(key, d.Allowed, d.Fallback, err) > 0 {
		l.tally.Took(time.Duration(l.now() - began))
	}
}

// allGauges fills in the gauges of the limiter and of those with other windows.
func (l *limiter) allGauges(s *trypema.Stats) {
	if l.closed.Load() {
		return
	}
	s.RedisErr = l.breakers.Cause()
	for _, one := range l.all() {
		s.Keys += one.table.Len()
		s.Leased += uint64(max(0, one.leased.Load()))
		active, lag := one.settling()
		s.ActiveKeys += active
		s.SettlingLag = max(s.SettlingLag, lag)
	}
}

// settling returns how many keys are active, and how far the limiter is behind with them.
func (l *limiter) settling() (active int, lag time.Duration) {
	now := l.now()
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	lag = time.Duration(s.schedule.Lag(now))
	if since := l.failing.Load(); since > 0 {
		lag = max(lag, time.Duration(now-since))
	}
	return s.schedule.Active(), lag
}
