package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/remote"
	"github.com/trypema/trypema/internal/script"
	"github.com/trypema/trypema/internal/table"
	"github.com/trypema/trypema/internal/tally"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// limiter is one strategy of a provider. Its keys, accounts included, are guarded by the locks of the table's shards; a lock
// is never held while Redis is asked.
type limiter struct {
	options    Options
	terms      lease.Terms
	seconds    float64 // of the window
	pace       atomic.Pointer[lease.Pace]
	suppressed bool
	denial     trypema.Outcome
	names      remote.Names

	table   *table.Table[*account, window.Groups]
	started time.Time
	closed  atomic.Bool
	closing sync.Once
	holders atomic.Uint64
	lapsed  atomic.Int64 // calls since the last tick that found a lease that had ended
	leased  atomic.Int64 // by all accounts, as their last messages left them
	failing atomic.Int64 // since when every exchange has failed; 0 if the last one did not
	tally   *tally.Tally // nil without an Observer

	server   *script.Server
	breakers *breaker.Set
	settler  settler
	windows  windows     // of the limiter with the window of the options
	users    inuse.Count // of the others
}

// windows are the limiters of one strategy that a trypema.MultiLimiter has with other windows than that of the options.
type windows struct {
	mu     sync.Mutex
	others map[time.Duration]*limiter
	closed bool
}

// ofLocked returns the limiter with windows of a length, for a user that holds it before the lock of windows
// is unlocked.
func (l *limiter) ofLocked(w time.Duration) *limiter {
	if w == l.options.Window {
		return l
	}
	other := l.windows.others[w]
	if other == nil {
		l.forgetUnusedLocked()
		o := l.options
		o.Window, o.Bucket = w, o.BucketOf(w)
		share := float64(o.SyncInterval) / float64(intervalOf(l.options.Window))
		o.SyncInterval = min(max(time.Duration(share*float64(intervalOf(w))), time.Millisecond), w)
		other = newLimiter(l.server, l.breakers, o, l.suppressed, l.started)
		if l.windows.closed {
			_ = other.close() // it has nothing to settle
		}
		l.windows.others[w] = other
	}
	return other
}

// forgetUnusedLocked gives back the limiters with windows of lengths that no trypema.MultiLimiter has any
// more, once their keys are gone, too, and all of them is settled.
func (l *limiter) forgetUnusedLocked() {
	for w, other := range l.windows.others {
		if other.users.None() && other.rests() {
			_ = other.close() // there is nothing to settle
			delete(l.windows.others, w)
		}
	}
}

// rests reports whether the limiter has no key, and nothing to do.
func (l *limiter) rests() bool {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.table.Len() == 0 && s.schedule.Rests()
}

// all returns the limiter, and those with other windows.
func (l *limiter) all() []*limiter {
	l.windows.mu.Lock()
	defer l.windows.mu.Unlock()
	return append([]*limiter{l}, slices.Collect(maps.Values(l.windows.others))...)
}

// closeAll closes the limiter, and those with other windows.
func (l *limiter) closeAll() error {
	l.windows.mu.Lock()
	l.windows.closed = true
	l.windows.mu.Unlock()
	var err error
	for _, one := range l.all() {
		err = errors.Join(err, one.close())
	}
	return err
}

type shard = table.Shard[*account, window.Groups]

// account is a key in use.
type account struct {
	name   string // in Redis
	form   string // in the table: see package groupkey
	hash   uint64
	server atomic.Pointer[breaker.Breaker] // of the one that has the key, when it was asked last
	lease.Account
	gone  bool  // the table has dropped it
	fault error // what Redis said of what it holds, when it was asked last
	noted int64 // what of its lease is in the limiter's leased

	waiting  []*waiter     // in the order in which they came
	answered chan struct{} // closed at the end of the message that is under way, or else of the next; nil if nobody wants to know

	lease.Turn // guarded by the lock of the settler
}

func newLimiter(s *script.Server, b *breaker.Set, o Options, suppressed bool, started time.Time) *limiter {
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
		names:      remote.NewNames(o.Prefix, "ha", o.Window),
		started:    started,
		windows:    windows{others: make(map[time.Duration]*limiter)},
		server:     s,
		breakers:   b,
	}
	if suppressed {
		l.denial, l.names = trypema.OutcomeSuppressed, remote.NewNames(o.Prefix, "hs", o.Window)
	}
	l.holders.Store(rand.Uint64() &^ math.MaxUint32) // each key is a holder of its own
	l.settler.init(l)
	l.table = table.New(table.Kind[*account, window.Groups]{
		Last: func(k **account) int64 { return (*k).Last() },
		Free: func(g *window.Groups, k **account) { l.forget(g, *k); *k = nil },
		Move: func(from, to *window.Groups, k **account) { (*k).Move(from, to) },
		Add:  func(k **account, last int64, n uint64) { (*k).Join(last, n) },
	}, o.Window+o.Bucket+time.Duration(l.pace.Load().Far), o.MaxKeys, l.now)
	return l
}

// now is the only place where the clock is read: monotonic, in nanoseconds since the start.
func (l *limiter) now() int64 { return int64(time.Since(l.started)) }

// forget is told that a key leaves the table. What it has not settled, and its lease, go back as soon as may be.
func (l *limiter) forget(g *window.Groups, k *account) {
	k.Clear(g)
	k.gone = true
	if k.Unsettled() || k.Lent(l.now()) {
		l.schedule(k, 0)
	}
}

// Window is how long the window is: see trypema.Limiter.
func (l *limiter) Window() time.Duration { return l.options.Window }

// Allow implements trypema.Limiter.
func (l *limiter) Allow(ctx context.Context, key string, rate trypema.Rate) (d trypema.Decision, err error) {
	err = l.judge(ctx, &d, key, rate, 1, true)
	return d, err
}

// AllowN implements trypema.Limiter.
func (l *limiter) AllowN(ctx context.Context, key string, rate trypema.Rate, n uint64) (d trypema.Decision, err error) {
	err = l.judge(ctx, &d, key, rate, n, true)
	return d, err
}

// Peek implements trypema.Limiter.
func (l *limiter) Peek(ctx context.Context, key string, rate trypema.Rate, n uint64) (d trypema.Decision, err error) {
	err = l.judge(ctx, &d, key, rate, max(n, 1), false)
	return d, err
}

// check returns the capacity at a rate, if the rate is valid, the key can be stored, and the provider is open.
func (l *limiter) check(key string, rate trypema.Rate) (uint64, error) {
	c := min(window.Capacity(float64(rate), l.seconds), remote.MaxCapacity)
	if c == 0 || key == "" || len(key) > remote.MaxKeyLen || l.closed.Load() {
		return 0, l.refuse(key, rate)
	}
	return c, nil
}

// refuse says what check found.
func (l *limiter) refuse(key string, rate trypema.Rate) error {
	if l.closed.Load() {
		return trypema.ErrClosed
	}
	if _, err := remote.Capacity(rate, l.options.Window); err != nil {
		return err
	}
	return remote.CheckKey(key)
}

func (l *limiter) judge(ctx context.Context, d *trypema.Decision, key string, rate trypema.Rate, n uint64, record bool) error {
	c, err := l.check(key, rate)
	if err != nil || n == 0 {
		if record {
			l.tally.Count(tally.Failed)
		}
		return cmp.Or(err, remote.ErrZeroCost)
	}
	now := l.now()
	form := groupkey.Plain(key)
	hash := l.table.Hash(form)
	if !l.suppressed && record {
		if f := l.table.Shard(hash).Hot(form, now); f != nil && !l.breakers.Gone() {
			switch a, have, at, then := f.Take(c, now, n, true); a {
			case table.Admitted:
				if stands := l.tally.Count(tally.Allowed); stands > 0 {
					l.sample(tally.Allowed, stands, key, now)
				}
				d.Allowed = true
				d.Outcome = trypema.OutcomeAllowed
				d.Limit = c
				d.Remaining = c - have
				d.RemainingAfterWaiting = c - have
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
	}
	err = l.decide(ctx, d, form, hash, now, c, n, record)
	if record {
		l.count(key, d, err, now)
	}
	return err
}

// count counts a call that began at an instant.
func (l *limiter) count(key string, d *trypema.Decision, err error, began int64) {
	if l.tally.Decided(key, d.Allowed, d.Fallback, err) > 0 {
		l.tally.Took(time.Duration(l.now() - began))
	}
}

// sample measures a call, and notes the key of a denial. It stands for n calls.
func (l *limiter) sample(cell tally.Cell, n uint64, key string, began int64) {
	l.tally.Took(time.Duration(l.now() - began))
	if cell == tally.Denied {
		l.tally.Denied(key, n)
	}
}

// allGauges tells how the limiter stands, with those of other windows.
func (l *limiter) allGauges(s *trypema.Stats) {
	if l.closed.Load() {
		return
	}
	s.RedisErr = l.breakers.Cause()
	for _, one := range l.all() {
		s.Keys += one.table.Len()
		s.Leased += uint64(max(0, one.leased.Load()))
		active, lag := one.settling()
		s.ActiveKeys += active
		s.SettlingLag = max(s.SettlingLag, lag)
	}
}

// settling returns how many keys are active, and how far the limiter is behind with them.
func (l *limiter) settling() (active int, lag time.Duration) {
	now := l.now()
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	lag = time.Duration(s.schedule.Lag(now))
	if since := l.failing.Load(); since > 0 {
		lag = max(lag, time.Duration(now-since))
	}
	return s.schedule.Active(), lag
}

// noteLease takes into the sum what a key has on lease, under the lock.
func (l *limiter) noteLease(k *account, leased int64) {
	l.leased.Add(leased - k.noted)
	k.noted = leased
}

// law is that of Suppressed at a capacity; none under Absolute.
func (l *limiter) law(c uint64) (law window.Law) {
	if l.suppressed {
		law = *window.NewLaw(l.terms.Span, c, l.options.HardLimitFactor)
		law.Hard = min(law.Hard, remote.Most)
	}
	return law
}

// acquire locks the shard of a key and finds it there, or adds it.
func (l *limiter) acquire(hash uint64, form string, now int64) (*shard, table.Handle, *account) {
	sh, h := l.table.Acquire(hash, form, now)
	k := sh.State(h)
	if *k == nil {
		name := l.names.Of(form)
		// form itself may be a part of a caller's large string.
		*k = &account{name: name, form: l.names.Form(name), hash: hash}
		(*k).Holder = l.holders.Add(1)
		(*k).server.Store(l.breakers.Of(name))
	}
	return sh, h, *k
}

// lock locks the shard of a key, and takes back what callers without the lock have.
func (l *limiter) lock(k *account) *shard {
	sh := l.table.Shard(k.hash)
	sh.Lock()
	if h := sh.Find(k.hash, k.form); h != table.None && !k.gone {
		sh.State(h)
	}
	return sh
}

// groups returns the memory of the account's windows. An account that the table has dropped has none: what it still hears
// goes to memory of its own.
func (k *account) groups(sh *shard) *window.Groups {
	if k.gone {
		return new(window.Groups)
	}
	return &sh.Memory
}

// waiter is a call that waits for the answer to a message.
type waiter struct {
	lease.Call
	asked  bool          // the message under way asks for it
	stays  bool          // it takes what it was granted later, and waits until it has come back for that
	done   chan struct{} // closed when there is an answer:
	closed bool          // done is
	d      lease.Decision
	failed bool  // there is none, as the message was lost
	fault  error // what is wrong with the key
}

// moment is what accounts act at: an instant, with the memory of a shard.
func (l *limiter) moment(g *window.Groups, now int64) *lease.Moment {
	return &lease.Moment{Terms: &l.terms, Groups: g, Pace: l.pace.Load(), Now: now}
}

// call is what an account is asked for a call.
func (l *limiter) call(capacity, cost uint64, mode lease.Mode) lease.Call {
	c := lease.Call{Cost: cost, Capacity: capacity, Mode: mode}
	if l.suppressed {
		c.Law, c.Dice = l.law(capacity), rand.Float64()
	}
	return c
}

// decide judges a call under the lock of its key. When this instance has nothing on lease, it waits for the answer to a message.
func (l *limiter) decide(
	ctx context.Context, d *trypema.Decision, form string, hash uint64, began int64, c, n uint64, record bool,
) error {
	mode := lease.Peek
	if record {
		mode = lease.Record
	}
	q := l.call(c, n, mode)
	waited := false
	for now := began; ; now = l.now() {
		sh, h, k := l.acquire(hash, form, now)
		if l.closed.Load() {
			sh.Unlock()
			return trypema.ErrClosed
		}
		var v lease.Decision
		at := l.moment(&sh.Memory, now)
		alone := l.decidesAlone(k, now)
		if !alone {
			k.Decide(&v, at, &q)
		}
		if alone || v.AskLedger && l.mayNotWait(k, now, began) {
			l.alone(d, k, at, &q)
			sh.Unlock()
			l.schedule(k, now)
			return nil
		}
		if v.AskLedger && l.options.OnEmpty == EmptyReject {
			if record {
				k.Miss(n)
			}
			k.Deny(&v, at, &q)
		}
		if !v.AskLedger {
			if !l.suppressed && record && sh.Asked(h) {
				if f := k.Hot(at); f != nil {
					sh.Open(h, f)
				}
			}
			sh.Unlock()
			l.tell(d, k, c, &v)
			return nil
		}
		if k.Lapsed(now) {
			l.lapsed.Add(1)
		}
		if !l.urge(k) {
			sh.Unlock()
			return trypema.ErrClosed
		}
		if record && !waited {
			l.tally.Count(tally.Waited)
			waited = true
		}
		w := &waiter{Call: q, done: make(chan struct{})}
		k.waiting = append(k.waiting, w)
		sh.Unlock()
		switch err := l.waitFor(ctx, k, w, began); {
		case err != nil:
			return err
		case !w.failed:
			l.tell(d, k, c, &w.d)
			return nil
		}
	}
}

// decidesAlone reports whether the failure policy has to decide a call, under the lock: there is nothing on
// lease, and there will be nothing.
func (l *limiter) decidesAlone(k *account, now int64) bool {
	return !k.Fresh(now) && k.server.Load().Gone() || k.Leased() == 0 && l.takesNothing(k)
}

// mayNotWait reports whether a call that began at an instant does not wait for Redis, or not any more.
func (l *limiter) mayNotWait(k *account, now, began int64) bool {
	return k.server.Load().Gone() || now-began >= int64(l.options.Timeout)
}

// waitFor returns when w has its answer, or has waited for long enough, and then has failed. It returns what is wrong with the
// key, or with ctx.
func (l *limiter) waitFor(ctx context.Context, k *account, w *waiter, began int64) error {
	err := l.await(ctx, w.done, began)
	sh := l.lock(k)
	defer sh.Unlock()
	k.waiting = slices.DeleteFunc(k.waiting, func(o *waiter) bool { return o == w })
	if w.closed {
		return w.fault // the answer was there first
	}
	w.failed = true
	return err
}

// takesNothing reports whether leases are not asked for: while FailLocal decides, which does not count what
// the ledger grants. An answer that is lost would only keep it from others.
func (l *limiter) takesNothing(k *account) bool {
	return l.options.OnFailure == redislimit.FailLocal && k.server.Load().Gone() || l.sharing(k)
}

// sharing reports whether instances that share a limit by FailLocal do so: while Redis is gone, and until the others must have
// noticed, too, that it is back, and have settled what they admitted without it.
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

// tell makes d what a verdict means, and has the key settle as that says.
func (l *limiter) tell(d *trypema.Decision, k *account, capacity uint64, v *lease.Decision) {
	if v.SettleAt > 0 {
		l.schedule(k, v.SettleAt)
	}
	remote.Decide(d, capacity, &v.Verdict, time.Nanosecond, l.denial)
}

// serve answers those who wait, after the answer to a message, under the lock. What it was asked for and is not there, is not
// to be had; unless the answer came so late that its lease is over. It reports whether there are some who go on waiting.
func (l *limiter) serve(sh *shard, k *account, now int64) (more bool) {
	at := l.moment(&sh.Memory, now)
	rest := k.waiting[:0]
	for _, w := range k.waiting {
		if !w.closed {
			w.d = lease.Decision{}
			if k.Decide(&w.d, at, &w.Call); w.d.AskLedger && (!w.asked || !k.Fresh(now)) {
				rest, more = append(rest, w), true
				continue
			}
			if w.d.AskLedger {
				k.Deny(&w.d, at, &w.Call)
			}
			w.end()
		}
		if w.stays {
			rest = append(rest, w)
		}
	}
	clear(k.waiting[len(rest):])
	k.waiting = rest
	return more
}

// end says that w has its answer, under the lock.
func (w *waiter) end() {
	w.closed = true
	close(w.done)
}

// fail has those who wait try again, or take the fault of the key for an answer, under the lock.
func (k *account) fail(fault error) {
	for _, w := range k.waiting {
		if !w.closed {
			w.failed, w.fault = fault == nil, fault
			w.end()
		}
	}
	k.waiting = nil
}

// wait returns what will be closed at the end of the message that is under way, or else of the next.
func (k *account) wait() chan struct{} {
	if k.answered == nil {
		k.answered = make(chan struct{})
	}
	return k.answered
}

// wake tells those who wait for the end of a message.
func (k *account) wake() {
	if k.answered != nil {
		close(k.answered)
		k.answered = nil
	}
}

// await returns when done is closed, or the timeout since began is over; with an error if ctx ends before.
func (l *limiter) await(ctx context.Context, done chan struct{}, began int64) error {
	timeout := time.NewTimer(l.options.Timeout - time.Duration(l.now()-began))
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	case <-ctx.Done():
		return fmt.Errorf("hybridlimit: not decided: %w", ended(ctx))
	}
	return nil
}

// alone decides by the failure policy, under the lock.
func (l *limiter) alone(d *trypema.Decision, k *account, at *lease.Moment, q *lease.Call) {
	c, n := q.Capacity, q.Cost
	switch l.options.OnFailure {
	case redislimit.FailLocal:
		var v lease.Decision
		k.DecideOffline(&v, at, q, uint64(l.options.Instances))
		remote.Decide(d, c, &v.Verdict, time.Nanosecond, l.denial)
	case redislimit.FailOpen:
		if q.Mode == lease.Record {
			k.Admit(at, q)
		}
		*d = remote.Open(c, n)
	default:
		k.Touch(at.Now)
		*d = remote.Closed(c, n, l.options.RetryInterval, l.denial)
	}
	d.Fallback = true
}

// Usage implements trypema.Limiter: what Redis has, after it was told all that this instance has not settled. What other
// instances have not settled is not seen.
func (l *limiter) Usage(ctx context.Context, key string, rate trypema.Rate) (u trypema.Usage, err error) {
	c, err := l.check(key, rate)
	if err != nil {
		return u, err
	}
	return l.usage(ctx, groupkey.Plain(key), c)
}

func (l *limiter) usage(ctx context.Context, form string, c uint64) (u trypema.Usage, err error) {
	law := l.law(c)
	ctx, cancel := l.within(ctx)
	defer cancel()
	err = l.settled(ctx, form, false, func(sh *shard, k *account) {
		counts := k.Live()
		u = trypema.Usage{
			Total:     counts.Observed(),
			Declined:  counts.Declined,
			Limit:     c,
			Remaining: window.Room(c, counts.Admitted),
		}
		if l.suppressed {
			u.SuppressionFactor = k.Factor(l.moment(&sh.Memory, l.now()), &law)
		}
	})
	return u, err
}

// Set implements trypema.Limiter: on what Redis has, after it was told all that this instance has not settled, and got back
// what it had on lease. Other instances use up what they have on lease, and learn of the new total when they settle next.
func (l *limiter) Set(ctx context.Context, key string, when trypema.Condition, total uint64, keep trypema.History) (result trypema.SetResult, err error) {
	// The rate has no say here; Unlimited is one that is always valid.
	if _, err := l.check(key, trypema.Unlimited); err != nil {
		return result, err
	}
	if err := remote.CheckHistory(keep); err != nil {
		return result, err
	}
	if err := remote.CheckTotal(total); err != nil {
		return result, err
	}
	return l.set(ctx, groupkey.Plain(key), when, total, keep)
}

func (l *limiter) set(
	ctx context.Context, form string, when trypema.Condition, total uint64, keep trypema.History,
) (result trypema.SetResult, err error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	var name string
	if err := l.settled(ctx, form, true, func(_ *shard, k *account) { name = k.name }); err != nil {
		return result, err
	}
	matched, have, err := l.runSet(ctx, name, remote.SetArgs(when, total, keep, l.names.Letter()))
	if err != nil {
		return result, err
	}
	result = trypema.SetResult{Matched: matched, Previous: have, Current: have}
	if matched {
		result.Current = total
		sh, _, k := l.acquire(l.table.Hash(form), form, l.now())
		k.Forget(&sh.Memory, &l.terms)
		sh.Unlock()
	}
	return result, nil
}

// Delete implements trypema.Limiter. What instances have on lease stays charged until they have settled it.
func (l *limiter) Delete(ctx context.Context, key string) error {
	_, err := l.Set(ctx, key, trypema.Always(), 0, trypema.Replace)
	return err
}
