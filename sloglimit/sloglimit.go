// Package sloglimit writes to a log/slog.Logger when something changes about the limiters of a program: a
// policy begins to limit, or has ceased to; Redis is unavailable, or is back; windows in Redis cannot be
// read. It writes no line for a call.
//
//	changes := sloglimit.New(slog.Default(), sloglimit.Options{})
//	defer changes.Close()
//	limits, err := trypema.NewLocal(trypema.Options{Name: "api", Observer: changes})
package sloglimit

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"
	"weak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/guard"
)

// Options configures a [Log]. The zero value works.
type Options struct {
	// Interval is the time in which there is at most one line of a kind for each policy, provider and
	// strategy. Changes in between are read once a second, and counted. A policy has ceased to limit when
	// nothing was denied for an Interval. Default 10s; less than 1s is taken for 1s.
	Interval time.Duration
}

const look = time.Second

// Log is an Observer that writes changes to a logger. If it observes policies and their provider, it says of
// the policy that calls are denied, and of the provider only if it denies calls that no policy does.
type Log struct {
	logger   *slog.Logger
	interval time.Duration
	meters   trypema.Meters

	mu     sync.Mutex // held while it looks
	timer  *time.Timer
	closed bool
	failed error // what the logger panicked with last
	known  map[name]*policy
	spare  map[string]uint64 // by strategy: denials by policies at the last look that no provider had yet
}

type name struct{ policy, provider, strategy string }

// policy is the state of a policy: whether it denies calls. Without a strategy in its name it is that of a
// provider: whether Redis is unavailable.
type policy struct {
	state
	count    uint64    // of denied calls, or of outages, when it was looked at last
	deniedAt time.Time // when it was seen last that calls had been denied
	told     uint64    // denied calls, or fallbacks, that a line has told of

	// Of a provider, when policies are observed, too:
	seen uint64 // denied calls at the last look
	open uint64 // those of them that were new then, and that no policy had denied
	own  uint64 // those that no policy has denied

	unreadable struct { // windows
		state
		count uint64 // that a line has told of
	}
}

// state is something that is so, or not.
type state struct {
	is      bool
	said    bool      // in the last line
	at      time.Time // of the last line
	changes int       // since the last line
}

// set changes the state, to which a number of changes have led, and reports whether to log it now.
func (s *state) set(is bool, changes int, now time.Time, interval time.Duration) bool {
	s.is = is
	s.changes += changes
	return s.changes > 0 && (s.is != s.said || s.changes > 1) && (s.at.IsZero() || now.Sub(s.at) >= interval)
}

// New returns a Log that writes to a logger, slog.Default() if that is nil, until it is closed. It has a
// timer, no goroutine; one that is dropped without Close is collected.
func New(logger *slog.Logger, o Options) *Log {
	interval := max(cmp.Or(o.Interval, 10*time.Second), look)
	l := &Log{logger: cmp.Or(logger, slog.Default()), interval: interval, known: make(map[name]*policy)}
	w := weak.Make(l)
	l.timer = time.AfterFunc(look, func() {
		if l := w.Value(); l != nil {
			l.onTick()
		}
	})
	return l
}

// Observe implements trypema.Observer.
func (l *Log) Observe(m trypema.Meter) { l.meters.Observe(m) }

// Close ends the log, after a last look. It may be called again. It returns an error if the logger has
// panicked, which costs a line and does not end the program.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.timer.Stop()
		l.lookLocked()
	}
	return l.failed
}

func (l *Log) onTick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.lookLocked()
		l.timer.Reset(look)
	}
}

func (l *Log) lookLocked() {
	now := time.Now()
	redis := make(map[name]*trypema.Stats) // which strategies share
	byPolicies := make(map[string]uint64)  // by strategy: denials since the last look
	meters := l.meters.All()
	stats := make([]trypema.Stats, len(meters))
	var policies bool
	for i, m := range meters {
		if m.Provider != "policies" {
			stats[i] = m.Read()
		}
	}
	for _, m := range meters { // now, as a policy counts a denial after its provider
		if m.Provider != "policies" {
			continue
		}
		s := m.Read()
		id, denied := name{m.Policy, m.Provider, m.Strategy}, s.Rejected+s.Suppressed
		byPolicies[m.Strategy] += denied - l.policy(id).count
		policies = true
		l.limiting(id, denied, now)
	}
	left := make(map[string]uint64)
	for strategy, n := range byPolicies {
		left[strategy] = n + l.spare[strategy]
	}
	for i, m := range meters {
		if m.Provider == "policies" {
			continue
		}
		s := &stats[i]
		id, denied := name{m.Policy, m.Provider, m.Strategy}, s.Rejected+s.Suppressed
		l.limiting(id, l.policy(id).ownOf(denied, left, m.Strategy, policies && !l.closed), now)
		if m.Provider == "local" {
			continue
		}
		id = name{m.Policy, m.Provider, ""}
		if other := redis[id]; other != nil {
			s.Fallbacks += other.Fallbacks
		}
		redis[id] = s
	}
	for strategy, n := range left {
		left[strategy] = min(n, byPolicies[strategy])
	}
	l.spare = left
	for id, s := range redis {
		l.redis(id, s, now)
		l.unreadable(id, s.Unreadable, now)
	}
}

// ownOf takes the number of denials of a provider, and returns how many of them are by no policy. Provider
// and policy count a denial one after the other, and the Log may read between the two. So a denial counts as
// the provider's own if no policy has counted it by the next reading; or at once, if later is false. It
// subtracts from left the denials by policies that it finds among those of the provider.
func (p *policy) ownOf(denied uint64, left map[string]uint64, strategy string, later bool) uint64 {
	fresh := denied - p.seen
	p.seen = denied
	late := min(p.open, left[strategy])
	mine := min(fresh, left[strategy]-late)
	p.own, p.open = p.own+p.open-late, fresh-mine
	left[strategy] -= late + mine
	if !later {
		p.own, p.open = p.own+p.open, 0
	}
	return p.own
}

func (l *Log) policy(id name) *policy {
	p := l.known[id]
	if p == nil {
		p = new(policy)
		l.known[id] = p
	}
	return p
}

// limiting says that a policy begins to deny calls, or has ceased to.
func (l *Log) limiting(id name, denied uint64, now time.Time) {
	p := l.policy(id)
	is, changes := p.is, 0
	switch {
	case denied > p.count:
		p.count, p.deniedAt, is = denied, now, true
	case now.Sub(p.deniedAt) >= l.interval:
		is = false
	}
	if is != p.is {
		changes = 1
	}
	if !p.set(is, changes, now, l.interval) {
		return
	}
	message := "trypema: denies calls"
	if !is {
		message = "trypema: denies no more calls"
	}
	l.say(slog.LevelInfo, message, id, &p.state, now, slog.Uint64("denied", denied-p.told))
	p.told = denied
}

// redis says that Redis is unavailable, or is back.
func (l *Log) redis(id name, s *trypema.Stats, now time.Time) {
	p := l.policy(id)
	gone := s.RedisErr != nil
	changes := 2 * int(s.Outages-p.count) // an outage is two once it is over
	p.count = s.Outages
	switch {
	case gone && !p.is:
		changes--
	case !gone && p.is:
		changes++
	}
	if !p.set(gone, changes, now, l.interval) {
		return
	}
	more := []slog.Attr{slog.Uint64("fallbacks", s.Fallbacks-p.told)}
	p.told = s.Fallbacks
	if gone {
		l.say(slog.LevelWarn, "trypema: Redis unavailable, failure policy active", id, &p.state, now,
			append(more, slog.Any("err", s.RedisErr))...)
	} else {
		l.say(slog.LevelInfo, "trypema: Redis available again", id, &p.state, now, more...)
	}
}

// unreadable says that windows in Redis could not be read.
func (l *Log) unreadable(id name, count uint64, now time.Time) {
	of := &l.policy(id).unreadable
	if count == of.count || !of.at.IsZero() && now.Sub(of.at) < l.interval {
		return
	}
	const message = "trypema: windows in Redis could not be read, and were started again"
	l.say(slog.LevelWarn, message, id, &of.state, now, slog.Uint64("windows", count-of.count))
	of.count = count
}

// say writes a line: what it is about, more, and how many changes before this one no line has told of. Its
// arguments are those of slog, and what changed when.
func (l *Log) say(level slog.Level, message string, id name, s *state, now time.Time, more ...slog.Attr) {
	attrs := []slog.Attr{slog.String("policy", id.policy), slog.String("provider", id.provider)}
	if id.strategy != "" {
		attrs = append(attrs, slog.String("strategy", id.strategy))
	}
	attrs = append(attrs, more...)
	if s.changes > 1 {
		attrs = append(attrs, slog.Int("unlogged", s.changes-1))
	}
	s.said, s.at, s.changes = s.is, now, 0
	err := guard.Call("the logger of sloglimit", func() {
		l.logger.LogAttrs(context.Background(), level, message, attrs...)
	})
	if err != nil {
		l.failed = err
	}
}
