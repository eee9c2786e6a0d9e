// Package hybridlimit is the provider that decides in this process and settles with Redis in the background.
// Any number of instances share a limit, at the speed of Local, and never pass it together.
//
// Each instance leases a part of each key's window. Far from the limit it keeps that part as a window of its
// own, and Redis hears of it every few seconds. Near the limit it reports what it used, gives back what it
// did not use, and asks for more before the lease is used up. The limit holds over all instances, whatever
// happens to them, to Redis or to the network: Redis charges a lease in full until it is settled or cannot be
// used any more. See [the design].
//
// Once a key is in use, no call for it does I/O or waits for any, whether the window has room, is full, or
// Redis is unavailable. A call waits for one round trip, which all calls for the key share, when this
// instance has nothing on lease and does not know that the window is full. That is the first call for a key,
// the first one after a pause, or one of a burst that uses up the lease. A pause is at least half the life of
// a lease: seconds far from the limit; near it, from five times SyncInterval, where instances compete for the
// rest, to sixty times. [EmptyReject] denies such calls instead.
//
// Windows should last for twenty times SyncInterval or more: 100 ms, by default. An instance hears of room up
// to an interval and a round trip late, so it uses less of a limit with a shorter window: 0.6 to 0.9 with
// 20 ms.
//
//	limits, err := hybridlimit.New(goredisconn.New(client), hybridlimit.Options{})
//	if err != nil { … }
//	defer limits.Close()
//
//	d, err := limits.Absolute().Allow(ctx, "user:42", trypema.PerMinute(100))
//
// [the design]: https://github.com/trypema/trypema/blob/main/docs/design.md#hybrid
package hybridlimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

// Provider is the hybrid provider. It has a timer while keys are in use; one that is dropped without Close is
// collected as any other value, and what it had on lease counts as used.
type Provider struct {
	absolute, suppressed *limiter
	done                 chan struct{} // is closed by Close
	closing              sync.Once
}

// New returns a hybrid provider, or a trypema.ErrInvalidOptions that names the field. It does no I/O: whether
// Redis answers shows at the first call.
func New(c redislimit.Conn, o Options) (*Provider, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, err
	}
	if err := redisproto.CheckConn("hybridlimit.New", c); err != nil {
		return nil, err
	}
	var tell func(error)
	if o.OnChange != nil {
		tell = func(cause error) { o.OnChange(redislimit.Health{Available: cause == nil, Err: cause}) }
	}
	server := redisproto.NewServer(c)
	b := breaker.NewSet(o.RetryInterval, o.OnFailure == redislimit.FailLocal, server.Node(), tell)
	started := time.Now().Add(-1) // so that no instant is 0
	p := &Provider{
		absolute:   newLimiter(server, b, o, false, started),
		suppressed: newLimiter(server, b, o, true, started),
		done:       make(chan struct{}),
	}
	observe := func(strategy string, l *limiter) {
		l.tally = redisproto.Observe(o.Options.Options, "hybrid", strategy, b, server, l, (*limiter).allGauges)
	}
	observe("absolute", p.absolute)
	observe("suppressed", p.suppressed)
	return p, nil
}

// all returns the limiters of all strategies and windows.
func (p *Provider) all() []*limiter { return slices.Concat(p.absolute.all(), p.suppressed.all()) }

// Absolute returns the limiter that admits while the window has room and rejects at once when it has none.
func (p *Provider) Absolute() trypema.Limiter { return p.absolute }

// Suppressed returns the limiter that declines a growing fraction of calls near and over the limit, by what
// all instances together have observed. It shares no state with Absolute.
func (p *Provider) Suppressed() trypema.Limiter { return p.suppressed }

// Len returns the number of keys held for both strategies. A key of a trypema.Bound counts once for
// each of its windows.
func (p *Provider) Len() (n int) {
	for _, l := range p.all() {
		n += l.table.Len()
	}
	return n
}

// Flush settles all that was admitted and declined before it was called, and returns when Redis has it, or
// ctx has ended, or with what is wrong with Redis. What is on lease stays so.
func (p *Provider) Flush(ctx context.Context) error {
	var err error
	for _, l := range p.all() {
		err = errors.Join(err, l.flush(ctx, false))
	}
	return err
}

// Close settles everything, gives back what is on lease, and returns when nothing of the provider runs any
// more. Calls that wait end with ErrClosed, as do all later ones. The client stays open. It may be called
// again.
//
// It returns an error if Redis could not be told; what was on lease then counts as used until it has aged
// out.
func (p *Provider) Close() error {
	p.closing.Do(func() { close(p.done) })
	return errors.Join(p.absolute.closeAll(), p.suppressed.closeAll())
}
