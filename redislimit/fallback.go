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

// local fits a decision of Local to a capacity of Redis: Local counts further.
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
	defer l.fallsBack() // remember asks Local for a window from the end of the decision, however long that took
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

// latest is the latest of the instants that were noted, in any order.
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

// remember records in the local limiter a call that Redis has admitted, so that the local limiter can decide
// when Redis is unavailable. For one window after it has decided, it can also deny a call that Redis admits:
// Redis has not counted what the instance admitted by itself.
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

// rememberDeclined records in the local limiter a call that Redis has declined. Suppressed declines by the
// load that it has observed, so it must know the load when it begins to decide. At a limit of one call in a
// window, all but the first count as declined.
func (l *limiter) rememberDeclined(ctx context.Context, key string, n uint64) {
	l.local.AllowN(ctx, key, trypema.Per(1, l.window), n) //nolint:errcheck // it can only be closed
}
