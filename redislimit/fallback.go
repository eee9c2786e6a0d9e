package redislimit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/redisproto"
)

// fallBack decides a call, with all that it asked for, by the failure policy.
func (l *limiter) fallBack(
	ctx context.Context, key string, rate trypema.Rate, capacity, n uint64, record bool,
) (d trypema.Decision, err error) {
	switch l.policy {
	case FailLocal:
		d, err = l.decideLocally(ctx, key, rate, n, record)
	case FailOpen:
		d = redisproto.Open(capacity, n)
	default:
		d = redisproto.Closed(capacity, n, l.retry, l.denial)
	}
	local(&d, capacity)
	return d, err
}

// local makes of a decision of Local, which counts further than Redis, one at a capacity of Redis.
func local(d *trypema.Decision, capacity uint64) {
	d.Limit = capacity
	d.Remaining, d.RemainingAfterWaiting = min(d.Remaining, capacity), min(d.RemainingAfterWaiting, capacity)
	d.Fallback = true
}

// decideLocally decides by what this instance has admitted, by its share of the rate.
func (l *limiter) decideLocally(
	ctx context.Context, key string, rate trypema.Rate, n uint64, record bool,
) (d trypema.Decision, err error) {
	l.fallsBack()
	defer l.fallsBack() // Local has a say for a window from the end of the decision, however long that took
	share := shareOf(rate, l.instances)
	if record {
		d, err = l.local.AllowN(ctx, key, share, n)
	} else {
		d, err = l.local.Peek(ctx, key, share, n)
	}
	if errors.Is(err, trypema.ErrInvalidRate) { // less than one call in a window
		d, err = redisproto.Closed(0, 0, l.retry, l.denial), nil
	}
	return d, err
}

// fallsBack notes that this instance decides, and fellBackWithin reports whether it did so lately.
func (l *limiter) fallsBack() { l.fellBack.note(int64(time.Since(l.started)) | 1) }

func (l *limiter) fellBackWithin(d time.Duration) bool {
	at := l.fellBack.Load()
	return at != 0 && time.Since(l.started)-time.Duration(at) < d
}

// latest is the latest of the instants that were noted. Whoever notes one may be late with it.
type latest struct{ atomic.Int64 }

func (l *latest) note(at int64) {
	for {
		was := l.Load()
		if at <= was || l.CompareAndSwap(was, at) {
			return
		}
	}
}

// shareOf is what one of so many instances may admit.
func shareOf(rate trypema.Rate, instances float64) trypema.Rate {
	if rate == trypema.Unlimited {
		return rate
	}
	return rate / trypema.Rate(instances)
}

// remember tells the local limiter of a call that Redis has admitted, so that it knows, should it have to
// decide. For one window after it had to, it has a say: Redis may have counted less than this instance has
// admitted.
func (l *limiter) remember(ctx context.Context, d *trypema.Decision, key string, rate trypema.Rate, n uint64) {
	if !l.fellBackWithin(l.window) {
		l.local.AllowN(ctx, key, trypema.Unlimited, n) //nolint:errcheck // it can only be closed
		return
	}
	mine, err := l.local.AllowN(ctx, key, rate, n)
	if err == nil && !mine.Allowed {
		local(&mine, d.Limit)
		*d = mine
	}
}

// rememberDeclined tells the local limiter of a call that Redis has declined: it suppresses by what it has
// observed, and should it have to decide, it must know the load at once. At a limit of one it declines all
// but the first call of a window.
func (l *limiter) rememberDeclined(ctx context.Context, key string, n uint64) {
	l.local.AllowN(ctx, key, trypema.Per(1, l.window), n) //nolint:errcheck // it can only be closed
}
