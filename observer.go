package trypema

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/trypema/trypema/internal/guard"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/tally"
)

// Observer gets the meters of the providers that are made with it in Options.Observer: a [Meter] for each
// strategy of a provider, which it may read at any time. Nothing calls it while calls are decided. [Meters]
// is enough for most programs; the packages promlimit, otellimit and sloglimit export what they read.
type Observer interface {
	// Observe is called when a provider is made, once for each of its strategies, and before it decides
	// anything. It may be called at any time, by many goroutines.
	Observe(Meter)
}

// Meter is how one strategy of a provider is observed. It does not keep the provider from being collected.
//
// With it, a call costs one atomic add more, and to Redis two readings of the clock: see [docs/metrics.md].
//
// [docs/metrics.md]: https://github.com/trypema/trypema/blob/main/docs/metrics.md
type Meter struct {
	// "local", "redis" or "hybrid"; or "policies", which has counts, no latencies and no gauges.
	Provider string
	Policy   string // Options.Name
	Strategy string // "absolute" or "suppressed"

	// Read returns what was counted so far, and how things stand. It may be called at any time.
	Read func() Stats

	// TopLimited yields the keys that were denied most of late, and how often at least, beginning with the
	// one that was denied most: at most n, and at most 128. A denial counts half after a minute, a quarter
	// after two, and so on.
	//
	// It is an estimate. The first denials count one by one, later ones are sampled, 1 in 1024. A key with
	// less than 1/128 of the denials may be missing. Of keys longer than 256 bytes the first 256 are kept.
	TopLimited func(n int) iter.Seq2[string, uint64]
}

// meterOf is the meter of what counts in t. The first three arguments are its fields. The gauges are asked of
// its owner, which it does not keep.
func meterOf[T any](
	provider, policy string, s Strategy, t *tally.Tally, owner *T, gauges func(*T, *Stats),
) Meter {
	of := weak.Make(owner)
	return Meter{
		Provider: provider,
		Policy:   policy,
		Strategy: s.String(),
		Read: func() Stats {
			stats := Stats{Counters: Counters(t.Read(s == StrategySuppressed))}
			if owner := of.Value(); owner != nil {
				gauges(owner, &stats)
			} else {
				stats.Ended = true
			}
			return stats
		},
		TopLimited: t.TopDenied,
	}
}

// Stats is what a [Meter] reads.
type Stats struct {
	Counters

	// Keys is how many keys are held in this process; 0 for Redis, which holds them itself.
	Keys int
	// ActiveKeys is how many keys have something to do with Redis: with a call under way, or, for Hybrid,
	// that settle. 0 for Local.
	ActiveKeys int
	// Leased is what Hybrid has on lease, as each key was left by its last message: what was used since is
	// not taken off.
	Leased uint64
	// SettlingLag is how far Hybrid is behind with settling: since when the first key in the queue has been
	// due or, if that is longer, since when every exchange with Redis has failed. 0 when all is well.
	SettlingLag time.Duration
	// RedisErr is why Redis is unavailable. It is nil while Redis is available, and after Close.
	RedisErr error

	// Ended reports that the provider has been collected, so that nothing will change any more. An Observer
	// may then forget the Meter.
	Ended bool
}

// Counters is what a [Meter] has counted since the provider was made. Calls are those of Allow and AllowN,
// whatever their cost; the other verbs decide nothing.
type Counters struct {
	Allowed    uint64 // calls that were admitted
	Rejected   uint64 // calls that Absolute denied
	Suppressed uint64 // calls that Suppressed declined
	Errors     uint64 // calls that got an error and no decision

	Fallbacks uint64 // decisions by the failure policy; each is also counted as allowed, rejected or suppressed
	Waited    uint64 // calls to Hybrid that waited for Redis, because nothing was on lease
	Outages   uint64 // times that Redis became unavailable; the two strategies of a provider tell the same

	// Unreadable is how many windows in Redis held something that could not be read and were started again:
	// with what could still be told, or from empty. Something else writes to these keys. The two strategies
	// of a provider tell the same.
	Unreadable uint64

	// Latency says how long calls took: Latency[i] is the number of those that took less than 2^i ns, and are
	// not in a bucket before it; the last is for all that took longer. Every call to Redis is measured. Of
	// the other providers the first calls are, then 1 in 1024, so that there are fewer than decisions.
	Latency    [36]uint64
	LatencySum time.Duration // of the calls in Latency together
}

func (c *Counters) add(o *Counters) {
	c.Allowed += o.Allowed
	c.Rejected += o.Rejected
	c.Suppressed += o.Suppressed
	c.Errors += o.Errors
	c.Fallbacks += o.Fallbacks
	c.Waited += o.Waited
	c.Outages += o.Outages
	c.Unreadable += o.Unreadable
	for i, n := range o.Latency {
		c.Latency[i] += n
	}
	c.LatencySum += o.LatencySum
}

// add adds up two readings. Of what cannot be added, the worse is kept.
func (s *Stats) add(o *Stats) {
	s.Counters.add(&o.Counters)
	s.Keys += o.Keys
	s.ActiveKeys += o.ActiveKeys
	s.Leased += o.Leased
	s.SettlingLag = max(s.SettlingLag, o.SettlingLag)
	if s.RedisErr == nil {
		s.RedisErr = o.RedisErr
	}
}

// Observers returns an Observer that tells all of them. Those that are nil are left out.
func Observers(all ...Observer) Observer {
	return observers(slices.DeleteFunc(slices.Clone(all), func(o Observer) bool { return invalid.Nil(o) }))
}

type observers []Observer

func (all observers) Observe(m Meter) {
	for _, o := range all {
		o.Observe(m)
	}
}

// Meters is an Observer that keeps the meters of any number of providers. Those with the same provider,
// policy and strategy are added up. What was counted by a provider that is no more stays in the sum, the
// provider does not. The zero value is ready for use.
//
// What is read is safe to hand on: names are UTF-8, whatever they were. A Meter that has no function adds
// nothing, and one whose function panics is logged and left out.
type Meters struct {
	mu   sync.Mutex
	sums map[meterName]*meterSum
}

type meterName struct{ policy, provider, strategy string }

// meterSum is the meters of one name.
type meterSum struct {
	meters []Meter
	past   Counters // of those that have ended
	many   int      // meters, at which to look for some that have ended
}

// Observe implements Observer.
func (m *Meters) Observe(one Meter) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name := meterName{legible(one.Policy), legible(one.Provider), legible(one.Strategy)}
	sum := m.sums[name]
	if sum == nil {
		sum = &meterSum{many: 8}
		if m.sums == nil {
			m.sums = make(map[meterName]*meterSum)
		}
		m.sums[name] = sum
	}
	sum.meters = append(sum.meters, one)
	if len(sum.meters) > sum.many { // a provider for each of many tasks must not leave a meter for each
		sum.readLocked()
		sum.many = max(8, 2*len(sum.meters))
	}
}

// All returns one Meter for each provider, policy and strategy, in the order of policy, provider, strategy.
func (m *Meters) All() []Meter {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(m.sums), func(a, b meterName) int {
		return cmp.Or(cmp.Compare(a.policy, b.policy), cmp.Compare(a.provider, b.provider),
			cmp.Compare(a.strategy, b.strategy))
	})
	all := make([]Meter, 0, len(names))
	for _, name := range names {
		sum := m.sums[name]
		all = append(all, Meter{
			Provider: name.provider,
			Policy:   name.policy,
			Strategy: name.strategy,
			Read: func() Stats {
				m.mu.Lock()
				defer m.mu.Unlock()
				return sum.readLocked()
			},
			TopLimited: func(n int) iter.Seq2[string, uint64] {
				m.mu.Lock()
				meters := slices.Clone(sum.meters)
				m.mu.Unlock()
				return topOf(meters, n)
			},
		})
	}
	return all
}

// legible makes a name one that Prometheus and OpenTelemetry take.
func legible(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// readLocked reads the sum, and lets go of meters that have ended.
func (s *meterSum) readLocked() Stats {
	total := Stats{Counters: s.past}
	s.meters = slices.DeleteFunc(s.meters, func(m Meter) bool {
		if m.Read == nil {
			return false
		}
		one := Stats{Ended: true} // if it panics
		guard.Log("Read of a Meter", func() { one = m.Read() })
		total.add(&one)
		if one.Ended {
			s.past.add(&one.Counters)
		}
		return one.Ended
	})
	return total
}

// topOf returns the keys that were denied most by meters together.
func topOf(meters []Meter, n int) iter.Seq2[string, uint64] {
	keys := make(map[string]uint64)
	for _, m := range meters {
		if m.TopLimited == nil {
			continue
		}
		guard.Log("TopLimited of a Meter", func() {
			for key, denied := range m.TopLimited(tally.Most) {
				keys[key] += denied
			}
		})
	}
	return tally.Ranked(keys, min(n, tally.Most))
}
