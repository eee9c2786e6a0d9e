package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// Allow implements trypema.Limiter.
func (l *limiter) Allow(ctx context.Context, key string, rate trypema.Rate) (d trypema.Decision, err error) {
	err = l.judge(ctx, &d, key, rate, 1, take)
	return d, err
}

// AllowN implements trypema.Limiter.
func (l *limiter) AllowN(
	ctx context.Context, key string, rate trypema.Rate, n uint64,
) (d trypema.Decision, err error) {
	err = l.judge(ctx, &d, key, rate, n, take)
	return d, err
}

// Peek implements trypema.Limiter. It answers as AllowN would on this instance, which may have to ask Redis
// for that, and takes nothing.
func (l *limiter) Peek(
	ctx context.Context, key string, rate trypema.Rate, n uint64,
) (d trypema.Decision, err error) {
	err = l.judge(ctx, &d, key, rate, max(n, 1), peek)
	return d, err
}

// check returns the capacity at a rate, or what is wrong: the rate is not valid, the key cannot be stored,
// the provider is closed.
func (l *limiter) check(key string, rate trypema.Rate) (uint64, error) {
	c := min(window.Capacity(float64(rate), l.seconds), redisproto.MaxCapacity)
	if c == 0 || key == "" || len(key) > redisproto.MaxKeyLen || l.closed.Load() {
		return 0, l.refuse(key, rate)
	}
	return c, nil
}

// refuse says what check found.
func (l *limiter) refuse(key string, rate trypema.Rate) error {
	if l.closed.Load() {
		return trypema.ErrClosed
	}
	if _, err := redisproto.Capacity(rate, l.options.Window); err != nil {
		return err
	}
	return redisproto.CheckKey(key)
}

// manner says how a call is made.
type manner uint8

const (
	peek     manner = iota // nothing is recorded
	take                   // it is recorded, and waits for Redis if it must
	takeNow                // it is recorded, or returns errWaits and leaves nothing behind
	takeLate               // as take, for a call that began some time ago
)

// errWaits is a call that would have to wait for Redis. It never gets to a caller of the package.
var errWaits = errors.New("hybridlimit: the call has to wait")

// judge decides a call: without the lock of its shard if the key is hot or its window is open, otherwise by
// decide. It takes six parameters, all that a caller gives: most calls need no request.
func (l *limiter) judge(
	ctx context.Context, d *trypema.Decision, key string, rate trypema.Rate, n uint64, how manner,
) error {
	c, err := l.check(key, rate)
	if err != nil || n == 0 {
		if how != peek {
			l.tally.Count(tally.Failed)
		}
		return cmp.Or(err, redisproto.ErrZeroCost)
	}
	plain := groupkey.Plain(key)
	hash := l.table.Hash(plain)
	switch {
	case how == peek:
		r := l.request(plain, hash, l.now(), n, c)
		r.Dice = rand.Float64()
		return l.judgeLocked(ctx, d, &r, how)
	case l.suppressed:
		place, dice := l.table.Look(hash), rand.Float64()
		now := l.now() // while the memory of the key comes
		if l.suppress(d, &place, plain, now, n, c, dice) {
			l.count(key, d, nil, now)
			return nil
		}
		r := l.request(plain, hash, now, n, c)
		r.Dice = dice
		return l.judgeLocked(ctx, d, &r, how)
	}
	var place table.Place[*account, window.Groups]
	sh := l.table.Shard(hash)
	hot := sh.Hot(plain)
	if hot == nil {
		place = l.table.Look(hash)
	}
	now := l.now() // while the memory of the key comes
	if have, ok := place.Take(plain, c, now, n); ok {
		l.admit(d, key, now, c, have)
		return nil
	}
	if hot != nil && !l.breakers.Gone() {
		sh.Called(hot, now)
		switch a, have, at, then := hot.Take(c, now, n, true); a {
		case table.Admitted:
			l.admit(d, key, now, c, have)
			return nil
		case table.Denied:
			if stands := l.tally.Count(tally.Denied); stands > 0 {
				l.sample(tally.Denied, stands, key, now)
			}
			d.Limit = c
			d.Remaining = window.Room(c, have)
			d.RetryAfter = time.Duration(at - now)
			d.RemainingAfterWaiting = c - then
			return nil
		}
	}
	r := l.request(plain, hash, now, n, c)
	return l.judgeLocked(ctx, d, &r, how)
}

// suppress decides a call under Suppressed by the window of its key, where Look has found it. It reports
// false if it cannot. What the account decides then must be by the same dice.
func (l *limiter) suppress(
	d *trypema.Decision, place *table.Place[*account, window.Groups], key string, now int64, n, c uint64,
	dice float64,
) bool {
	var v window.Verdict
	law := lawAt(&l.cellsLaw, c)
	if !place.Suppress(&v, key, &law, now, n, dice) {
		return false
	}
	if !v.Allowed && v.Wait != window.Never { // the account may have to settle by then
		pace := l.pace.Load()
		v.Wait += pace.Trip + pace.Slack + l.terms.Bucket
	}
	redisproto.Decide(d, c, &v, time.Nanosecond, l.denial)
	return true
}

// admit makes d the answer to a call that was admitted without the account, when so much of the capacity was
// taken, and counts it.
func (l *limiter) admit(d *trypema.Decision, key string, now int64, capacity, have uint64) {
	if stands := l.tally.Count(tally.Allowed); stands > 0 {
		l.sample(tally.Allowed, stands, key, now)
	}
	d.Allowed = true
	d.Outcome = trypema.OutcomeAllowed
	d.Limit = capacity
	d.Remaining = capacity - have
	d.RemainingAfterWaiting = capacity - have
}

// judgeLocked decides a call under the lock of its key, and counts it.
func (l *limiter) judgeLocked(ctx context.Context, d *trypema.Decision, r *request, how manner) error {
	if how != peek {
		r.Mode = lease.Record
	}
	r.now, r.mustNotWait = r.began, how == takeNow
	if how == takeLate {
		r.now = l.now()
	}
	err := l.decide(ctx, d, r)
	if how != peek && (err == nil || !errors.Is(err, errWaits)) {
		l.count(groupkey.Shown(r.key), d, err, r.began)
	}
	return err
}

// request is a call that has to be decided under the lock of its key.
type request struct {
	key   string // in the table
	hash  uint64
	began int64
	now   int64 // when it is decided first
	lease.Call
	mustNotWait bool
}

// request returns a call at an instant. Its dice are for the caller to throw.
func (l *limiter) request(key string, hash uint64, began int64, n, capacity uint64) request {
	call := lease.Call{Cost: n, Capacity: capacity, Law: l.law(capacity)}
	return request{key: key, hash: hash, began: began, Call: call}
}

// decide decides a call under the lock of its key. When this instance has nothing on lease, the call waits
// for the answer to a message, unless the options say otherwise.
func (l *limiter) decide(ctx context.Context, d *trypema.Decision, r *request) error {
	waited := r.Mode == lease.Peek // which the Observer does not count
	for now := r.now; ; now = l.now() {
		sh, h, k := l.acquire(r.hash, r.key, now)
		if l.closed.Load() {
			sh.Unlock()
			return trypema.ErrClosed
		}
		var v lease.Decision
		at := l.moment(&sh.Memory, now)
		alone := l.decidesAlone(k, now)
		if !alone {
			k.Decide(&v, at, &r.Call)
		}
		if alone || v.AskLedger && l.mayNotWait(k, now, r.began) {
			l.decideAlone(d, k, at, &r.Call)
			sh.Unlock()
			l.schedule(k, now)
			return nil
		}
		if v.AskLedger && l.options.OnEmpty == EmptyReject {
			l.reject(&v, k, at, &r.Call)
		}
		if !v.AskLedger {
			if r.Mode == lease.Record {
				l.lend(sh, h, k, at, &r.Call, &v)
			}
			sh.Unlock()
			l.tell(d, k, r.Capacity, &v)
			return nil
		}
		if r.mustNotWait {
			sh.Unlock()
			return errWaits
		}
		w := &waiter{Call: r.Call, done: make(chan struct{})}
		if !l.enqueue(k, w, now) {
			sh.Unlock()
			return trypema.ErrClosed
		}
		sh.Unlock()
		if !waited {
			l.tally.Count(tally.Waited)
			waited = true
		}
		switch err := l.waitFor(ctx, k, w, r.began); {
		case err != nil:
			return err
		case !w.failed:
			l.tell(d, k, r.Capacity, &w.decision)
			return nil
		}
	}
}

// lend lets callers have the key without the account, if they may: by the one word of a hot key, or by the
// window of the key. The shard must be locked, and v be what the account has decided on c, which was the
// last.
func (l *limiter) lend(
	sh *shard, h table.Handle, k *account, at *lease.Moment, c *lease.Call, v *lease.Decision,
) {
	if !l.suppressed && sh.Asked(h) {
		if f := k.Hot(at); f != nil {
			sh.Open(h, f)
			return
		}
		sh.Forget() // and not at each call
	}
	if l.suppressed || v.Allowed {
		lendWindow(sh, h, k, at, c, v)
	}
}

// lendWindow lets callers have the window of a key, if they may, after a call that was recorded.
func lendWindow(sh *shard, h table.Handle, k *account, at *lease.Moment, c *lease.Call, v *lease.Decision) {
	if t, ok := k.Lend(at, c, v.SettleAt > 0); ok && sh.Lends(&t) {
		w := sh.Window(h)
		k.Fill(at, c, &w)
		sh.Lend(h, t)
	}
}

// enqueue has a call wait for the answer to the next message of its key. It reports false if the limiter is
// closed. The shard must be locked.
func (l *limiter) enqueue(k *account, w *waiter, now int64) bool {
	if k.Lapsed(now) {
		l.lapsed.Add(1)
	}
	if !l.urge(k) {
		return false
	}
	k.waiting = append(k.waiting, w)
	return true
}

// reject denies a call that would have to wait, as EmptyReject says. A lease for it is asked for in the
// background. The shard must be locked.
func (l *limiter) reject(v *lease.Decision, k *account, at *lease.Moment, c *lease.Call) {
	if c.Mode != lease.Peek {
		k.Miss(c.Cost)
	}
	k.Deny(v, at, c)
}

// decidesAlone reports whether the failure policy has to decide: there is nothing on lease, and there will be
// nothing. The shard must be locked.
func (l *limiter) decidesAlone(k *account, now int64) bool {
	return !k.Fresh(now) && k.server.Load().Gone() || k.Leased() == 0 && l.takesNothing(k)
}

// mayNotWait reports whether a call that began at an instant must not wait for Redis, or not any longer.
func (l *limiter) mayNotWait(k *account, now, began int64) bool {
	return k.server.Load().Gone() || now-began >= int64(l.options.Timeout)
}

// decideAlone decides by the failure policy. The shard must be locked.
func (l *limiter) decideAlone(d *trypema.Decision, k *account, at *lease.Moment, c *lease.Call) {
	switch l.options.OnFailure {
	case redislimit.FailLocal:
		var v lease.Decision
		k.DecideOffline(&v, at, c, uint64(l.options.Instances))
		redisproto.Decide(d, c.Capacity, &v.Verdict, time.Nanosecond, l.denial)
	case redislimit.FailOpen:
		if c.Mode == lease.Record {
			k.Admit(at, c)
		}
		*d = redisproto.Open(c.Capacity, c.Cost)
	default:
		k.Touch(at.Now)
		*d = redisproto.Closed(c.Capacity, c.Cost, l.options.RetryInterval, l.denial)
	}
	d.Fallback = true
}

// takesNothing reports whether messages ask for no lease: while FailLocal decides, which does not count what
// the ledger grants. A lost answer would only keep its grant from others.
func (l *limiter) takesNothing(k *account) bool {
	return l.options.OnFailure == redislimit.FailLocal && k.server.Load().Gone() || l.sharing(k)
}

// sharing reports whether FailLocal gives each instance its share of the limit: while Redis is unavailable,
// and until the other instances must have noticed, too, that it is back, and have settled what they admitted
// without it.
func (l *limiter) sharing(k *account) bool {
	if l.options.OnFailure != redislimit.FailLocal || l.options.Instances == 1 {
		return false
	}
	b := k.server.Load()
	if b.Gone() {
		return true
	}
	pace := l.pace.Load()
	return time.Since(b.Back()) < l.options.RetryInterval+time.Duration(2*pace.Slack)
}

// tell makes d what an account has decided, and has the key settle when that says.
func (l *limiter) tell(d *trypema.Decision, k *account, capacity uint64, v *lease.Decision) {
	if v.SettleAt > 0 {
		l.schedule(k, v.SettleAt)
	}
	redisproto.Decide(d, capacity, &v.Verdict, time.Nanosecond, l.denial)
}
