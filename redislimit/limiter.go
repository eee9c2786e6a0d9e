package redislimit

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
)

// limiter is one strategy of a provider.
type limiter struct {
	*strategy
	exchange *exchange
	window   time.Duration
	names    redisproto.Names

	policy    FailurePolicy
	retry     time.Duration
	instances float64
	local     trypema.Limiter // of FailLocal
	fellBack  latest          // when local decided last, in ns since started; 0 for never
	started   time.Time
	tally     *tally.Tally // nil without an Observer
}

// strategy is what Absolute and Suppressed do not have in common.
type strategy struct {
	letter string // in the names of Redis keys
	denial trypema.Outcome
	decide operation
	set    operation
}

func newLimiter(srv *redisproto.Server, b *breaker.Set, o Options, span window.Span, s *strategy) *limiter {
	s.set = setOperation(s.letter, span)
	return &limiter{
		strategy:  s,
		exchange:  newExchange(srv, b, o.Timeout, &s.decide),
		window:    o.Window,
		names:     redisproto.NewNames(o.Prefix, s.letter, o.Window),
		policy:    o.OnFailure,
		retry:     o.RetryInterval,
		instances: float64(o.Instances),
		started:   time.Now(),
	}
}

// Window is how long the window is: see trypema.Limiter.
func (l *limiter) Window() time.Duration { return l.window }

// Allow implements trypema.Limiter.
func (l *limiter) Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error) {
	return l.take(ctx, key, rate, 1)
}

// AllowN implements trypema.Limiter.
func (l *limiter) AllowN(
	ctx context.Context, key string, rate trypema.Rate, n uint64,
) (trypema.Decision, error) {
	return l.take(ctx, key, rate, n)
}

// take decides a call, records it, and counts it if there is an Observer.
func (l *limiter) take(
	ctx context.Context, key string, rate trypema.Rate, n uint64,
) (d trypema.Decision, err error) {
	began := l.began()
	if n == 0 {
		err = redisproto.ErrZeroCost
	} else {
		d, err = l.judge(ctx, key, rate, n, true)
	}
	l.count(key, &d, err, began)
	return d, err
}

// began is the instant at which a call begins, if there is an Observer, for whom count counts it.
func (l *limiter) began() (now time.Time) {
	if l.tally != nil {
		now = time.Now()
	}
	return now
}

func (l *limiter) count(key string, d *trypema.Decision, err error, began time.Time) {
	if l.tally == nil {
		return
	}
	if err == nil {
		l.tally.Took(time.Since(began))
	}
	l.tally.Decided(key, d.Allowed, d.Fallback, err)
}

// gauges tells how the limiter stands.
func (l *limiter) gauges(s *trypema.Stats) {
	x := l.exchange
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.closed {
		s.ActiveKeys = len(x.lanes)
		s.RedisErr = x.breakers.Cause()
	}
}

// Peek implements trypema.Limiter.
func (l *limiter) Peek(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	return l.judge(ctx, key, rate, max(n, 1), false)
}

func (l *limiter) judge(
	ctx context.Context, key string, rate trypema.Rate, n uint64, record bool,
) (d trypema.Decision, err error) {
	c, err := l.ask(ctx, key, rate, n, record)
	return l.judged(ctx, key, rate, n, record, c, err)
}

// judged makes a decision of what Redis has answered to a call, or why it has not. It takes all that the call
// asked for: without an answer, the failure policy decides it again.
func (l *limiter) judged(
	ctx context.Context, key string, rate trypema.Rate, n uint64, record bool, c *call, err error,
) (d trypema.Decision, _ error) {
	switch {
	case err == nil:
		redisproto.Decide(&d, c.capacity, &c.verdict, time.Microsecond, l.denial)
		l.exchange.free(c)
		switch {
		case !record || l.local == nil:
		case d.Allowed:
			l.remember(ctx, &d, key, rate, n)
		case l.decide.dice:
			l.rememberDeclined(ctx, key, n)
		}
		return d, nil
	case isTrouble(err):
		capacity, _ := redisproto.Capacity(rate, l.window)
		return l.fallBack(ctx, key, rate, capacity, n, record)
	}
	return d, err
}

func isTrouble(err error) bool {
	var t *trouble
	return errors.As(err, &t)
}

// ask asks Redis about one call.
func (l *limiter) ask(
	ctx context.Context, key string, rate trypema.Rate, n uint64, record bool,
) (*call, error) {
	capacity, err := redisproto.Capacity(rate, l.window)
	if err != nil {
		return nil, err
	}
	if err := redisproto.CheckKey(key); err != nil {
		return nil, err
	}
	c := l.newCall(capacity, n, record)
	return c, l.exchange.do(ctx, &l.decide, l.names.Of(groupkey.Plain(key)), c)
}

func (l *limiter) newCall(capacity, n uint64, record bool) *call {
	c := l.exchange.newCall()
	c.capacity, c.cost, c.record = capacity, min(n, redisproto.Most), record
	if l.decide.dice {
		c.dice = throw()
	}
	return c
}

// Usage implements trypema.Limiter.
func (l *limiter) Usage(ctx context.Context, key string, rate trypema.Rate) (trypema.Usage, error) {
	c, err := l.ask(ctx, key, rate, 1, false)
	if err != nil {
		return trypema.Usage{}, err
	}
	u := usageOf(c.capacity, c.counts, c.verdict.Factor)
	l.exchange.free(c)
	return u, nil
}

func usageOf(capacity uint64, counts window.Counts, factor float64) trypema.Usage {
	return trypema.Usage{
		Total:             counts.Observed(),
		Declined:          counts.Declined,
		Limit:             capacity,
		Remaining:         window.Room(capacity, counts.Admitted),
		SuppressionFactor: factor,
	}
}

// Set implements trypema.Limiter. It costs Redis one command for each live group, and one that writes them
// all.
func (l *limiter) Set(
	ctx context.Context, key string, when trypema.Condition, total uint64, keep trypema.History,
) (trypema.SetResult, error) {
	err := cmp.Or(redisproto.CheckHistory(keep), redisproto.CheckTotal(total), redisproto.CheckKey(key))
	if err != nil {
		return trypema.SetResult{}, err
	}
	return l.runSet(ctx, &l.set, l.names.Of(groupkey.Plain(key)), when, total, keep)
}

// runSet runs set.lua, with the arguments of Set, on the Redis key of that name.
func (l *limiter) runSet(
	ctx context.Context, op *operation, name string,
	when trypema.Condition, total uint64, keep trypema.History,
) (trypema.SetResult, error) {
	c := l.exchange.newCall()
	c.set = redisproto.SetArgs(when, total, keep, l.names.Letter())
	if err := l.exchange.do(ctx, op, name, c); err != nil {
		return trypema.SetResult{}, err
	}
	r := trypema.SetResult{Matched: c.matched, Previous: c.counts.Admitted, Current: c.counts.Admitted}
	if r.Matched {
		r.Current = total
	}
	l.exchange.free(c)
	return r, nil
}

// Delete implements trypema.Limiter.
func (l *limiter) Delete(ctx context.Context, key string) error {
	_, err := l.Set(ctx, key, trypema.Always(), 0, trypema.Replace)
	return err
}

// setOperation is set.lua.
func setOperation(letter string, span window.Span) operation {
	return operation{
		single:  true,
		windows: windowsOf(letter, span),
		script:  func(s *redisproto.Scripts) redisproto.Script { return s.Set },
		args: func(batches []*batch) []string {
			return append(redisproto.SpanArgs(span), batches[0].set...)
		},
		read: func(r *redisproto.Reader, _ []run, calls []*call) error {
			matched, total := r.Count(1) == 1, r.Count(2*redisproto.Most)
			if calls != nil {
				calls[0].matched, calls[0].counts.Admitted = matched, total
			}
			return r.Err()
		},
	}
}
