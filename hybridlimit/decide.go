package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
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

// judge decides a call at a rate, and counts it. It takes six parameters, all that a caller gives.
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
	plain, dice := groupkey.Plain(key), l.dice()
	hash := l.table.Hash(plain)
	began := int64(0)
	if how != peek {
		var ok bool
		if began, ok = l.quick(d, plain, hash, n, c, dice); ok {
			l.count(key, d, nil, began)
			return nil
		}
	}
	r := request{key: plain, hash: hash, cost: n, capacity: c, began: began, dice: dice}
	return l.judgeLocked(ctx, d, r, how)
}

// dice returns a throw for a call, if the limit wants it.
func (l *limiter) dice() float64 {
	if l.suppressed {
		return rand.Float64()
	}
	return 0
}

// request is a call that quick has not decided.
type request struct {
	key            string // in the table
	hash           uint64
	cost, capacity uint64
	began          int64 // or 0 if it begins now
	dice           float64
}

// judgeLocked decides a call under the lock of its key, and counts it. It is apart from judge because what it
// needs on the stack costs time.
func (l *limiter) judgeLocked(ctx context.Context, d *trypema.Decision, r request, how manner) error {
	one := limit{limiter: l, capacity: r.capacity, law: l.law(r.capacity)}
	parties := [...]party{one.party(r.key, r.hash, r.cost)}
	j := joint{counter: l, parties: parties[:], began: r.began, dice: r.dice}
	return j.judge(ctx, d, how)
}

// quick decides a call without the lock of its shard, if the key is hot or its window is open. It returns the
// instant that it has read, and reports false if it cannot decide. What the account decides then must be by
// the same dice. It takes six parameters: most calls end here, and to fill in a struct takes longer.
func (l *limiter) quick(
	d *trypema.Decision, key string, hash, n, c uint64, dice float64,
) (now int64, ok bool) {
	if l.suppressed {
		place := l.table.Look(hash)
		now = l.now() // while the memory of the key comes
		return now, l.suppress(d, &place, key, now, n, c, dice)
	}
	var place table.Place[*account, window.Groups]
	sh := l.table.Shard(hash)
	hot := sh.Hot(key)
	if hot == nil {
		place = l.table.Look(hash)
	}
	now = l.now() // while the memory of the key comes
	if have, ok := place.Take(key, c, now, n); ok {
		admit(d, c, have)
		return now, true
	}
	if hot == nil || l.breakers.Gone() {
		return now, false
	}
	sh.Called(hot, now)
	switch a, have, at, then := hot.Take(c, now, n, true); a {
	case table.Admitted:
		admit(d, c, have)
		return now, true
	case table.Denied:
		d.Limit = c
		d.Remaining = window.Room(c, have)
		d.RetryAfter = time.Duration(at - now)
		d.RemainingAfterWaiting = c - then
		return now, true
	}
	return now, false
}

// suppress decides a call under Suppressed by the window of its key, where Look has found it. It reports
// false if it cannot.
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
// taken.
func admit(d *trypema.Decision, capacity, have uint64) {
	d.Allowed = true
	d.Outcome = trypema.OutcomeAllowed
	d.Limit = capacity
	d.Remaining = capacity - have
	d.RemainingAfterWaiting = capacity - have
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

// decidesAlone reports whether the failure policy has to decide: there is nothing on lease, and there will be
// nothing. The shard must be locked.
func (l *limiter) decidesAlone(k *account, now int64) bool {
	return !k.Fresh(now) && k.server.Load().Gone() || k.Leased() == 0 && l.takesNothing(k)
}

// mayNotWait reports whether a call that began at an instant must not wait for Redis, or not any longer.
func (l *limiter) mayNotWait(k *account, now, began int64) bool {
	return k.server.Load().Gone() || now-began >= int64(l.options.Timeout)
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
