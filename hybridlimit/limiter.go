package hybridlimit

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
)

// limiter is one strategy of a provider, with windows of one length. The locks of the table's shards guard
// its accounts: see account. Locks are taken in this order: windows, shard, settler.
type limiter struct {
	options    Options
	terms      lease.Terms
	seconds    float64 // of the window
	pace       atomic.Pointer[lease.Pace]
	suppressed bool
	anyLaw     window.Law // of Suppressed, at a capacity of 1
	cellsLaw   window.Law // that for the windows of keys
	denial     trypema.Outcome
	names      redisproto.Names

	table   *table.Table[*account, window.Groups]
	started time.Time
	closed  atomic.Bool
	closing sync.Once
	holders atomic.Uint64 // number of the last account
	lapsed  atomic.Int64  // calls since the last tick that found a lease that had ended
	leased  atomic.Int64  // cost on lease to all accounts, as their last messages left it
	failing atomic.Int64  // since when every exchange has failed; 0 if the last one did not
	tally   *tally.Tally  // nil without an Observer

	server   *redisproto.Server
	breakers *breaker.Set
	settler  settler
	windows  windows     // of the limiter with the window of the options
	users    inuse.Count // of the others
}

func newLimiter(s *redisproto.Server, b *breaker.Set, o Options, suppressed bool, started time.Time) *limiter {
	l := &limiter{
		options: o,
		terms: lease.Terms{
			Span:       window.Span{Window: int64(o.Window), Bucket: int64(o.Bucket)},
			Micro:      int64(time.Microsecond),
			Interval:   int64(o.SyncInterval),
			Suppressed: suppressed,
		},
		seconds:    o.Window.Seconds(),
		suppressed: suppressed,
		denial:     trypema.OutcomeRejected,
		names:      redisproto.NewNames(o.Prefix, "ha", o.Window),
		started:    started,
		windows:    windows{others: make(map[time.Duration]*limiter)},
		server:     s,
		breakers:   b,
	}
	if suppressed {
		l.denial, l.names = trypema.OutcomeSuppressed, redisproto.NewNames(o.Prefix, "hs", o.Window)
		l.anyLaw = *window.NewLaw(l.terms.Span, 1, o.HardLimitFactor)
	}
	l.holders.Store(rand.Uint64() &^ math.MaxUint32) // each key is a holder of its own
	l.settler.init(l)
	l.table = table.New(table.Kind[*account, window.Groups]{
		Last: func(k **account) int64 { return (*k).Last() },
		Free: func(g *window.Groups, k **account) { l.remove(g, *k); *k = nil },
		Move: func(from, to *window.Groups, k **account) { (*k).Move(from, to) },
		Add:  func(k **account, last int64, n uint64) { (*k).Join(last, n) },
		Enter: func(g *window.Groups, k **account, w cells.Window, added window.Counts) {
			(*k).Enter(l.moment(g, 0), &w, added)
		},
		Span:     l.terms.Span,
		Kept:     l.terms.Kept(),
		Declines: suppressed,
	}, o.Window+o.Bucket+time.Duration(l.pace.Load().Far), o.MaxKeys, l.now)
	if suppressed {
		l.cellsLaw = *window.NewLaw(l.table.LawSpan(), 1, o.HardLimitFactor)
	}
	return l
}

// now reads the monotonic clock, in nanoseconds since the start.
func (l *limiter) now() int64 { return int64(time.Since(l.started)) }

// Window returns the length of the window: see trypema.Limiter.
func (l *limiter) Window() time.Duration { return l.options.Window }

// moment returns an instant, and what accounts need to act at it: the memory of their shard, and the pace.
func (l *limiter) moment(g *window.Groups, now int64) *lease.Moment {
	return &lease.Moment{Terms: &l.terms, Groups: g, Pace: l.pace.Load(), Now: now}
}

// law returns the law of Suppressed at a capacity; the zero Law under Absolute.
func (l *limiter) law(c uint64) (law window.Law) {
	if l.suppressed {
		law = lawAt(&l.anyLaw, c)
	}
	return law
}

// lawAt returns a law at a capacity, by that at a capacity of 1.
func lawAt(unit *window.Law, c uint64) window.Law {
	law := unit.At(c)
	law.Hard = min(law.Hard, redisproto.Most)
	return law
}

// countLease adds to the sum of all leases what a key has on lease now. The shard must be locked.
func (l *limiter) countLease(k *account, leased int64) {
	l.leased.Add(leased - k.counted)
	k.counted = leased
}
