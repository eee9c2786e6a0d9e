package trypema

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/trypema/trypema/internal/boundlimits"
	"github.com/trypema/trypema/internal/invalid"
)

// Bound is one or several limits that were bound once, with all that can be wrong checked: Bind of a provider
// and Policies.Use return it. It is safe for concurrent use.
//
//	perUser, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(100, time.Minute))
//	if err != nil { … }
//	d, err := perUser.Allow(ctx, "user:42")
//
// Several limits are kept all or nothing: 10 a second and 1000 an hour. A call is admitted if it fits into
// all of them, and is then recorded in all of them; if it does not, it is recorded in none (by Suppressed, as
// declined in all). Each limit holds in any window of its own, as if it were alone.
//
// The decision names the limit that refused; if several do, the one that takes longest to have room, as its
// RetryAfter is that of the call. Limit, Remaining and RemainingAfterWaiting are those of that limit; of an
// admitted call, those of the limit with the least room.
//
// What a key has used in a window belongs to the provider, the strategy and the length of the window. So a
// Bound with other numbers starts with what was used before, and one with the window of the provider's
// options shares it with the provider's Absolute or Suppressed. To count the same key twice in windows of one
// length, as by its requests and by its tokens, give one of them a group: see InGroup.
type Bound struct {
	alone    *localAlone // the keeper, if it is one: a call then costs no more than by a Limiter
	keeper   Keeper      // of all limits
	one      uint64      // the cost of a call by Allow, as the keeper takes it
	live     *livePolicy // the keeper, if it is one
	counting Keeper      // of the limits that count; nil if there are none
	strategy Strategy
	limits   []Limit // as they were given
	blocks   int     // the limit that denies every call, or -1
	lines    lines
}

// Keeper is what a provider implements for Bind: it keeps limits that count for any key, as Bound says. A
// provider makes one for NewBound; callers use the Bound.
//
// A Keeper may have these methods in addition:
//
//	Again(ctx context.Context, key string, n uint64) (Decision, error)
//
// is AllowN for a call that was denied before and waits: a strategy that counts what it declines does not
// count it a second time.
//
//	AllowAll(ctx context.Context, asks []KeptAsk) (d Decision, ok bool, err error)
//
// decides calls of several keepers in one step, as All says. With ok false it cannot, and has done nothing.
//
//	AllowMany(ctx context.Context, calls []Call, to []Decision) ([]Decision, error)
//
// is AllowN for each call, in order: see AllowMany. Without it, AllowN is called for one after the other.
//
//	InGroup(group string) Keeper
//
// keeps the same limits for the keys of a group, as Policies need them.
//
//	GiveBack(ctx context.Context, key string, n uint64) error
//
// takes n out of what each window of the key holds, or everything if that is less. The oldest events go
// first, so each that stays counts as long as before. After an error the windows may have changed or not; the
// call must not be repeated.
//
//	Unsettled(err error, reserved Decision, cost uint64) (d Decision, ok bool)
//
// is for a call of All that was reserved and whose Commit or Refund has failed with err. With ok it is
// decided as d says, by the failure policy. Otherwise All returns the error.
//
//	Done() <-chan struct{}
//
// returns a channel that is closed when the provider is, so that what waits ends at once.
type Keeper interface {
	// AllowN decides whether a call of cost n may pass now, and records it, in one step. A cost of 0 is
	// ErrInvalidCost.
	AllowN(ctx context.Context, key string, n uint64) (Decision, error)

	// Peek decides as AllowN would at this instant, and records nothing. A cost of 0 is answered as a cost of
	// 1.
	Peek(ctx context.Context, key string, n uint64) (Decision, error)

	// Reserve is AllowN for a call whose cost is an estimate: see Bound.Reserve, and NewReservation.
	Reserve(ctx context.Context, key string, estimate uint64, expiry time.Duration) (*Reservation, error)

	// Usage reports what the windows of the key hold, in the order in which the limits were given.
	Usage(ctx context.Context, key string) ([]Usage, error)

	// Delete forgets the key in all windows.
	Delete(ctx context.Context, key string) error
}

// NewBound is for implementations of Provider: it checks limits with CheckLimits, has keep make a Keeper of
// those that count, and answers for the others by itself. keep is not called if none counts.
func NewBound(s Strategy, limits []Limit, keep func(limits []Limit) (Keeper, error)) (*Bound, error) {
	if err := CheckLimits(s, limits); err != nil {
		return nil, err
	}
	b := &Bound{one: 1, strategy: s, limits: slices.Clone(limits), blocks: -1}
	var counting []Limit
	for i, l := range limits {
		switch l.kind {
		case limitCounts:
			counting = append(counting, l)
		case limitBlocks:
			b.blocks = i
		}
	}
	if len(counting) > 0 {
		k, err := keep(counting)
		if err != nil {
			return nil, err
		}
		if invalid.Nil(k) {
			return nil, invalid.Errorf(ErrInvalidOptions, "the keeper of the limits is nil; it must keep them")
		}
		b.counting = k
	}
	b.setKeeper()
	return b, nil
}

// setKeeper sets the keeper of all limits by that of the limits that count.
func (b *Bound) setKeeper() {
	switch {
	case b.counting == nil || b.blocks >= 0:
		b.keeper = &uncounted{b}
	case slices.ContainsFunc(b.limits, Limit.IsNoLimit):
		b.keeper = &withNoLimit{b.counting, b}
	default:
		b.keeper = b.counting
		b.alone, _ = b.keeper.(*localAlone)
	}
}

// InGroup returns the same limits for the keys of a group: they count apart from the same keys elsewhere, and
// together with those of other Bounds of the group that have windows of the same length. So requests and
// tokens of one user, both by the minute, are two groups. The name has from 1 to 64 bytes of printable UTF-8,
// no colon, and no space at either end. Policies have groups by themselves; theirs of the same name are the
// same.
func (b *Bound) InGroup(group string) (*Bound, error) {
	b = b.made()
	switch {
	case b == noBound:
		return nil, errNoBound
	case b.live != nil:
		return nil, invalid.Errorf(ErrInvalidOptions, "the group of a policy is given by Policy.Group")
	case group == "":
		return nil, invalid.Errorf(ErrInvalidOptions, "the group is empty; it must have from 1 to %d bytes",
			maxPolicyName)
	}
	if err := checkName("the group", group); err != nil {
		return nil, err
	}
	return b.inGroup(group), nil
}

// inGroup is InGroup for a name that was checked.
func (b *Bound) inGroup(group string) *Bound {
	in := &Bound{one: 1, strategy: b.strategy, limits: b.limits, blocks: b.blocks}
	switch k := b.counting.(type) {
	case nil:
	case interface{ InGroup(string) Keeper }:
		in.counting = k.InGroup(group)
	default:
		in.counting = &prefixed{k, group + ":"}
	}
	in.setKeeper()
	return in
}

// prefixed is a Keeper that does not know groups: it gets keys that begin with the group.
type prefixed struct {
	Keeper
	prefix string
}

func (p *prefixed) AllowN(ctx context.Context, key string, n uint64) (Decision, error) {
	return p.Keeper.AllowN(ctx, p.prefix+key, n)
}

func (p *prefixed) Peek(ctx context.Context, key string, n uint64) (Decision, error) {
	return p.Keeper.Peek(ctx, p.prefix+key, n)
}

func (p *prefixed) Reserve(
	ctx context.Context, key string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	return p.Keeper.Reserve(ctx, p.prefix+key, estimate, expiry)
}

func (p *prefixed) Usage(ctx context.Context, key string) ([]Usage, error) {
	return p.Keeper.Usage(ctx, p.prefix+key)
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	return p.Keeper.Delete(ctx, p.prefix+key)
}

// Strategy returns the strategy of the limits.
func (b *Bound) Strategy() Strategy { return b.now().strategy }

// Limits returns the limits, in the order in which they were given. Those of Policies.Use are the ones that
// the policy has now; none if it is not there.
func (b *Bound) Limits() []Limit { return slices.Clone(b.now().limits) }

func init() { boundlimits.Of = func(b any) any { return &b.(*Bound).now().limits } }

// now returns the Bound itself, or what keeps its policy at this instant.
func (b *Bound) now() *Bound {
	if b = b.made(); b.live != nil {
		return b.live.now()
	}
	return b
}

// made returns the Bound, or noBound for one that neither Bind nor Use has returned.
func (b *Bound) made() *Bound {
	if b == nil || b.keeper == nil {
		return noBound
	}
	return b
}

// noBound has no limits, and each verb returns an error.
var noBound = &Bound{keeper: noKeeper{}, one: 1, blocks: -1}

var errNoBound = invalid.Errorf(ErrInvalidOptions,
	"the Bound is nil or empty; it must be made by Bind of a provider, or by Policies.Use")

type noKeeper struct{}

func (noKeeper) AllowN(context.Context, string, uint64) (Decision, error) {
	return Decision{}, errNoBound
}
func (noKeeper) Peek(context.Context, string, uint64) (Decision, error) {
	return Decision{}, errNoBound
}
func (noKeeper) Usage(context.Context, string) ([]Usage, error) { return nil, errNoBound }
func (noKeeper) Delete(context.Context, string) error           { return errNoBound }

func (noKeeper) Reserve(context.Context, string, uint64, time.Duration) (*Reservation, error) {
	return nil, errNoBound
}

// Keeper returns what keeps the limits that count, or nil if none does: for providers that build on another
// one.
func (b *Bound) Keeper() Keeper { return b.made().counting }

// Allow is AllowN with a cost of 1, or with that of the policy.
func (b *Bound) Allow(ctx context.Context, key string) (d Decision, err error) {
	if b != nil && b.alone != nil {
		err = b.alone.allow(&d, key, 1)
		return d, err
	}
	b = b.made()
	return b.keeper.AllowN(ctx, key, b.one)
}

// AllowN decides whether a call of cost n may pass now, and records it, in one step. A cost of 0 is
// ErrInvalidCost.
func (b *Bound) AllowN(ctx context.Context, key string, n uint64) (d Decision, err error) {
	if b != nil && b.alone != nil {
		err = b.alone.allow(&d, key, n)
		return d, err
	}
	return b.made().keeper.AllowN(ctx, key, min(n, costOfPolicy-1))
}

// Peek decides as AllowN would at this instant, and records nothing. A cost of 0 is answered as Allow would.
func (b *Bound) Peek(ctx context.Context, key string, n uint64) (Decision, error) {
	return b.made().keeper.Peek(ctx, key, n)
}

// Reserve is AllowN for a call whose cost is an estimate. Commit puts the true cost in its place, and Refund
// gives it back. If neither is called, the estimate leaves the windows after expiry, less than a bucket late.
// Its store sees to that: this process may be gone by then. An expiry of 0 is none: the estimate then counts
// until it is a window old.
func (b *Bound) Reserve(
	ctx context.Context, key string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	return b.made().keeper.Reserve(ctx, key, estimate, expiry)
}

// Usage reports what the windows of the key hold, in the order in which the limits were given. A limit that
// does not count has used nothing.
func (b *Bound) Usage(ctx context.Context, key string) ([]Usage, error) {
	return b.made().keeper.Usage(ctx, key)
}

// Delete forgets the key in all windows.
func (b *Bound) Delete(ctx context.Context, key string) error {
	return b.made().keeper.Delete(ctx, key)
}

// withNoLimit keeps limits that count, beside some that are NoLimit.
type withNoLimit struct {
	Keeper
	of *Bound
}

func (k *withNoLimit) Usage(ctx context.Context, key string) ([]Usage, error) {
	return k.of.usage(ctx, key)
}

// uncounted keeps limits whose decision is always the same: one denies every call, or none counts.
type uncounted struct{ of *Bound }

func (u *uncounted) AllowN(_ context.Context, _ string, n uint64) (Decision, error) {
	if n == 0 {
		return Decision{}, errZeroCost
	}
	return u.of.uncounted(), nil
}

func (u *uncounted) Peek(context.Context, string, uint64) (Decision, error) {
	return u.of.uncounted(), nil
}

func (u *uncounted) Reserve(
	_ context.Context, _ string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	switch {
	case estimate == 0:
		return nil, errZeroCost
	case expiry < 0:
		return nil, expiryError(expiry)
	}
	return NewReservation(u.of.uncounted(), estimate, 0, nil), nil
}

func (u *uncounted) Usage(ctx context.Context, key string) ([]Usage, error) {
	return u.of.usage(ctx, key)
}

func (u *uncounted) Delete(ctx context.Context, key string) error {
	if u.of.counting == nil {
		return nil
	}
	return u.of.counting.Delete(ctx, key)
}

// usage is the usage of all limits, in the order in which they were given, of which some do not count.
func (b *Bound) usage(ctx context.Context, key string) (all []Usage, err error) {
	var counted []Usage
	if b.counting != nil {
		if counted, err = b.counting.Usage(ctx, key); err != nil {
			return nil, err
		}
	}
	for _, l := range b.limits {
		if l.kind == limitCounts {
			all, counted = append(all, counted[0]), counted[1:]
			continue
		}
		c, _ := l.Capacity()
		all = append(all, Usage{Limit: c, Remaining: c})
	}
	return all, nil
}

// uncounted is the decision by limits of which one blocks, or none counts.
func (b *Bound) uncounted() Decision {
	if b.blocks < 0 {
		return Decision{
			Allowed: true, Outcome: OutcomeAllowed,
			Limit: math.MaxInt64, Remaining: math.MaxInt64, RemainingAfterWaiting: math.MaxInt64,
		}
	}
	d := Decision{RetryAfter: Never, RefusedBy: b.limits[b.blocks].Label()}
	if b.strategy == StrategySuppressed {
		d.Outcome, d.SuppressionFactor = OutcomeSuppressed, 1
	}
	return d
}

func expiryError(d time.Duration) error {
	return invalid.Errorf(ErrInvalidOptions, "expiry is %v; it must be 0 (none) or more", d)
}
