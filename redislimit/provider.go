// Package redislimit is the provider whose state lives in Redis: any number of instances share a limit, and
// it is exact by the server's clock.
//
// Every decision is one step of one Lua script on one Redis key, taken by Redis after the call was made. A
// key is a string with the same window as [trypema.Local] has; it has a time to live, and a hash tag for
// Redis Cluster. Redis 6.2 or later, Valkey, and services that speak their protocol will do; no module is
// needed.
//
// Concurrent calls share round trips. While calls for a key are under way, later ones for that key gather.
// They go out together as one script call that admits as many as fit, in order. Calls for different keys
// share pipelines. The answer is the same as if each had come alone.
//
// The provider uses your own client, by an adapter: see [Conn]. It never closes it.
//
//	limits, err := redislimit.New(goredisconn.New(client), redislimit.Options{})
//	if err != nil { … }
//	defer limits.Close()
//
//	d, err := limits.Absolute().Allow(ctx, "user:42", trypema.PerMinute(100))
package redislimit

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// MaxCapacity is the largest capacity that Redis can count with: its scripts know whole numbers up to 2⁵³. A
// rate that allows more, Unlimited for one, has this capacity.
const MaxCapacity = redisproto.MaxCapacity

// Provider is the provider whose state lives in Redis. It starts goroutines only while calls are under way;
// one that is dropped without Close is collected as any other value.
type Provider struct {
	absolute, suppressed *limiter
	local                *trypema.Local // what FailLocal knows; nil with other policies
	options              Options
	done                 chan struct{} // is closed by Close
	closing              sync.Once
}

// New returns a Redis provider, or a trypema.ErrInvalidOptions that names the field. It does no I/O: whether
// Redis answers shows at the first call.
func New(c Conn, o Options) (*Provider, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, err
	}
	if err := redisproto.CheckConn("redislimit.New", c); err != nil {
		return nil, err
	}
	p := &Provider{options: o, done: make(chan struct{})}
	if o.OnFailure == FailLocal {
		local := o.Options
		local.Observer = nil // it observes what the provider decides
		if local.MaxKeys == 0 {
			local.MaxKeys = defaultFallbackKeys
		}
		if p.local, err = trypema.NewLocal(local); err != nil {
			return nil, err
		}
	}
	var onChange func(cause error)
	if o.OnChange != nil {
		onChange = func(cause error) { o.OnChange(Health{Available: cause == nil, Err: cause}) }
	}
	srv := redisproto.NewServer(c)
	b := breaker.NewSet(o.RetryInterval, o.OnFailure == FailLocal, srv.Node(), onChange)
	span := spanOf(o.Window, o.Bucket)
	p.absolute = newLimiter(srv, b, o, span, absolute(span))
	p.suppressed = newLimiter(srv, b, o, span, suppressed(span, o.HardLimitFactor, rand.Float64))
	if p.local != nil {
		p.absolute.local, p.suppressed.local = p.local.Absolute(), p.local.Suppressed()
	}
	observe := func(strategy string, l *limiter) {
		l.tally = redisproto.Observe(o.Options, "redis", strategy, b, srv, l, (*limiter).gauges)
	}
	observe("absolute", p.absolute)
	observe("suppressed", p.suppressed)
	return p, nil
}

// spanOf is what Redis counts by, in whole microseconds.
func spanOf(w, bucket time.Duration) window.Span {
	return window.Span{
		Window: int64((w + time.Microsecond - 1) / time.Microsecond),
		Bucket: int64(bucket / time.Microsecond),
	}
}

// Absolute returns the limiter that admits while the window has room and rejects at once when it has none.
func (p *Provider) Absolute() trypema.Limiter { return p.absolute }

// Suppressed returns the limiter that declines a growing fraction of calls near and over the limit. It shares
// no state with Absolute.
func (p *Provider) Suppressed() trypema.Limiter { return p.suppressed }

// Close ends all calls that are under way with ErrClosed, as it does all later ones, and returns when nothing
// of the provider runs any more. What has been counted stays in Redis; the client stays open. It may be
// called again.
//
// It returns an error if the client has not ended its exchanges after Timeout.
func (p *Provider) Close() error {
	p.closing.Do(func() { close(p.done) })
	err := errors.Join(p.absolute.exchange.close(), p.suppressed.exchange.close())
	if p.local != nil {
		err = errors.Join(err, p.local.Close())
	}
	return err
}
