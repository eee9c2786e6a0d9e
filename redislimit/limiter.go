package redislimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/window"
)

// limiter is one strategy of a provider.
type limiter struct {
	*strategy
	exchange *exchange
	window   time.Duration
	before   string // what comes before and after a key in the name of its Redis key
	after    string

	policy    FailurePolicy
	retry     time.Duration
	instances float64
	local     trypema.Limiter // of FailLocal
	fellBack  atomic.Int64    // when local decided last, in ns since started; 0 for never
	started   time.Time
}

// strategy is what Absolute and Suppressed do not have in common.
type strategy struct {
	letter string // in the names of Redis keys
	denial trypema.Outcome
	decide operation
	set    operation
}

func newLimiter(c Conn, o Options, span window.Span, h *health, srv *server, s *strategy) *limiter {
	s.set = setOperation(span)
	return &limiter{
		strategy:  s,
		exchange:  newExchange(c, o.Timeout, &s.decide, h, srv),
		window:    o.Window,
		before:    "{" + o.Prefix + ":",
		after:     "}:" + s.letter + ":" + o.Window.String(),
		policy:    o.OnFailure,
		retry:     o.RetryInterval,
		instances: float64(o.Instances),
		started:   time.Now(),
	}
}

// maxKeyLen keeps a key from filling Redis by itself.
const maxKeyLen = 1 << 20

// name returns the Redis key of a key.
func (l *limiter) name(key string) (string, error) {
	switch {
	case key == "":
		return "", invalid.Errorf(trypema.ErrInvalidKey, "key is empty; it must have at least one byte")
	case len(key) > maxKeyLen:
		return "", invalid.Errorf(trypema.ErrInvalidKey, "key has %d bytes; it must have at most %d", len(key), maxKeyLen)
	}
	return l.before + key + l.after, nil
}

var errZeroCost = invalid.Errorf(trypema.ErrInvalidCost, "cost is 0; it must be at least 1 (Peek takes 0)")

// Allow implements trypema.Limiter.
func (l *limiter) Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error) {
	return l.judge(ctx, key, rate, 1, true)
}

// AllowN implements trypema.Limiter.
func (l *limiter) AllowN(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	if n == 0 {
		return trypema.Decision{}, errZeroCost
	}
	return l.judge(ctx, key, rate, n, true)
}

// Peek implements trypema.Limiter.
func (l *limiter) Peek(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	return l.judge(ctx, key, rate, max(n, 1), false)
}

func (l *limiter) judge(ctx context.Context, key string, rate trypema.Rate, n uint64, record bool) (d trypema.Decision, err error) {
	c, err := l.ask(ctx, key, rate, n, record)
	switch {
	case err == nil:
		l.decision(&d, c)
		l.exchange.free(c)
		if record && d.Allowed && l.local != nil {
			l.remember(ctx, &d, key, rate, n)
		}
		return d, nil
	case isTrouble(err):
		capacity, _ := l.capacity(rate)
		return l.fallBack(ctx, key, rate, capacity, n, record)
	}
	return d, err
}

func isTrouble(err error) bool {
	var t *trouble
	return errors.As(err, &t)
}

// ask asks Redis about one call.
func (l *limiter) ask(ctx context.Context, key string, rate trypema.Rate, n uint64, record bool) (*call, error) {
	capacity, err := l.capacity(rate)
	if err != nil {
		return nil, err
	}
	name, err := l.name(key)
	if err != nil {
		return nil, err
	}
	c := l.exchange.newCall()
	c.capacity, c.cost, c.record = capacity, min(n, most), record
	if l.decide.dice {
		c.dice = rand.Uint32N(1 << 24)
	}
	return c, l.exchange.do(ctx, &l.decide, name, c)
}

func (l *limiter) capacity(rate trypema.Rate) (uint64, error) {
	c, err := rate.Capacity(l.window)
	return min(c, MaxCapacity), err
}

// decision makes d what the answer to a call means.
func (l *limiter) decision(d *trypema.Decision, c *call) {
	v := &c.verdict
	d.Allowed = v.Allowed
	d.Outcome = l.denial
	if v.Allowed {
		d.Outcome = trypema.OutcomeAllowed
	}
	d.Limit = c.capacity
	d.Remaining = window.Room(c.capacity, v.Now)
	d.RetryAfter = trypema.Never
	if v.Wait != window.Never {
		d.RetryAfter = time.Duration(v.Wait) * time.Microsecond
		d.RemainingAfterWaiting = window.Room(c.capacity, v.Then)
	}
	d.SuppressionFactor = v.Factor
}

// Usage implements trypema.Limiter.
func (l *limiter) Usage(ctx context.Context, key string, rate trypema.Rate) (trypema.Usage, error) {
	c, err := l.ask(ctx, key, rate, 1, false)
	if err != nil {
		return trypema.Usage{}, err
	}
	u := trypema.Usage{
		Total:             c.counts.Observed(),
		Declined:          c.counts.Declined,
		Limit:             c.capacity,
		Remaining:         window.Room(c.capacity, c.counts.Admitted),
		SuppressionFactor: c.verdict.Factor,
	}
	l.exchange.free(c)
	return u, nil
}

// Set implements trypema.Limiter. It costs Redis one command for each live group, and one that writes them all.
func (l *limiter) Set(ctx context.Context, key string, when trypema.Condition, total uint64, keep trypema.History) (trypema.SetResult, error) {
	if keep > trypema.KeepOldest {
		return trypema.SetResult{}, invalid.Errorf(trypema.ErrInvalidOptions, "history is %v; it must be Replace, KeepNewest or KeepOldest", keep)
	}
	if total > MaxCapacity {
		return trypema.SetResult{}, invalid.Errorf(trypema.ErrInvalidCost, "total is %d; it must be at most %d, which is as far as Redis counts", total, uint64(MaxCapacity))
	}
	name, err := l.name(key)
	if err != nil {
		return trypema.SetResult{}, err
	}
	c := l.exchange.newCall()
	c.set = []string{when.String(), strconv.FormatUint(total, 10), keep.String(), l.letter}
	if err := l.exchange.do(ctx, &l.set, name, c); err != nil {
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
func setOperation(span window.Span) operation {
	return operation{
		single: true,
		script: func(s *scripts) script { return s.set },
		args: func(batches []*batch) []string {
			return append(spanArgs(span), batches[0].set...)
		},
		read: func(r *reader, _ []run, calls []*call) error {
			matched, total := r.count(1) == 1, r.count(2*most)
			if calls != nil {
				calls[0].matched, calls[0].counts.Admitted = matched, total
			}
			return r.err
		},
	}
}

func spanArgs(s window.Span) []string {
	return []string{strconv.FormatInt(s.Window, 10), strconv.FormatInt(s.Bucket, 10)}
}
