package middleware

import (
	"context"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/boundlimits"
)

// Options are what all middleware have in common, for calls of a type R. The fields are those of their own
// options, which describe them.
type Options[R any] struct {
	Name    string // of the options, as in "httplimit.Options"
	Context func(R) context.Context

	// One of Bound, Policies, Limiter and Decide decides.
	Bound    *trypema.Bound
	Policies *trypema.Policies
	PolicyOf func(R) string
	Limiter  trypema.Limiter
	Rate     trypema.Rate
	RateOf   func(R) trypema.Rate
	Decide   func(call R, key string, cost uint64) (trypema.Decision, error)
	Limits   func(R) []trypema.Limit

	Key     func(R) (key string, ok bool)
	Keyless Keyless
	Cost    func(R) uint64
	Skip    func(R) bool
	MaxWait time.Duration
	Shadow  bool
	Seen    func(R, trypema.Decision, error)

	// Reserve has the cost reserved by a Bound or Policies, for this long if nothing else becomes of it.
	Reserve bool
	Expiry  time.Duration
}

// Keyless says what becomes of calls without a key.
type Keyless uint8

// The constants of all middleware.
const (
	KeylessShare Keyless = iota
	KeylessDeny
	KeylessPass
)

// Verdict is what becomes of a call.
type Verdict struct {
	trypema.Decision
	Decided     bool // Decision is one; otherwise the call is skipped, or has no key
	Keyless     bool // the call is denied because it has no key
	Key         string
	Policy      string               // by which it was decided, of Policies
	Limits      []trypema.Limit      // by which it was decided, if they are known; not to be changed
	Reservation *trypema.Reservation // with Reserve, of a call that was admitted
	Estimate    uint64               // of the reservation
}

// KeyOf returns the key of a call, which may be that of all that have none.
func (o *Options[R]) KeyOf(call R) (key string, ok bool) {
	if key, ok = o.Key(call); !ok && o.Keyless == KeylessShare {
		return keyless, true
	}
	return key, ok
}

// Judge decides on a call.
func (o *Options[R]) Judge(call R) (v Verdict, err error) {
	if v = o.Identify(call); v.Decided {
		err = o.DecideOn(call, &v, o.MaxWait)
	}
	return v, err
}

// Identify returns the key of a call that is to be decided, or what becomes of one that is not.
func (o *Options[R]) Identify(call R) (v Verdict) {
	if o.Skip != nil && o.Skip(call) {
		return v
	}
	key, ok := o.KeyOf(call)
	if !ok && o.Keyless == KeylessDeny && o.Shadow {
		key, ok = keyless, true
	}
	v.Key, v.Decided, v.Keyless = key, ok, !ok && o.Keyless == KeylessDeny
	return v
}

// DecideOn decides on a call that was identified, and that waits for so long at most.
func (o *Options[R]) DecideOn(call R, v *Verdict, most time.Duration) error {
	err := o.decide(call, v, most)
	if o.Seen != nil {
		o.Seen(call, v.Decision, err)
	}
	return err
}

func (o *Options[R]) decide(call R, v *Verdict, most time.Duration) (err error) {
	ctx, key, cost := o.Context(call), v.Key, uint64(1)
	if o.Cost != nil {
		cost = o.Cost(call)
	}
	if o.Shadow {
		most = 0
	}
	switch {
	case o.Decide != nil:
		v.Decision, err = again(ctx, most, func() (trypema.Decision, error) {
			return o.Decide(call, key, cost)
		})
		if err == nil && o.Limits != nil && !o.Shadow {
			v.Limits = o.Limits(call)
		}
		return err
	case o.Limiter != nil:
		rate := o.Rate
		if o.RateOf != nil {
			rate = o.RateOf(call)
		}
		if cost == 0 {
			v.Decision, err = o.Limiter.Peek(ctx, key, rate, 0)
			return err
		}
		v.Decision, err = again(ctx, most, func() (trypema.Decision, error) {
			return o.Limiter.AllowN(ctx, key, rate, cost)
		})
		return err
	}
	b := o.Bound
	if o.Policies != nil {
		v.Policy = o.PolicyOf(call)
		if b, err = o.Policies.Use(v.Policy); err != nil {
			return err
		}
	}
	switch {
	case o.Reserve:
		var r *trypema.Reservation
		cost = max(cost, 1)
		if r, err = b.Reserve(ctx, key, cost, o.Expiry); err == nil {
			v.Decision = r.Decision
			if r.Allowed {
				v.Reservation, v.Estimate = r, cost
			}
		}
	case o.Cost != nil && cost == 0:
		v.Decision, err = b.Peek(ctx, key, 0)
	case most > 0 && o.Cost == nil:
		v.Decision, err = wait(ctx, most, b, key, 0)
	case most > 0:
		v.Decision, err = wait(ctx, most, b, key, cost)
	case o.Cost != nil:
		v.Decision, err = b.AllowN(ctx, key, cost)
	default:
		v.Decision, err = b.Allow(ctx, key)
	}
	if err == nil && !o.Shadow {
		v.Limits = *boundlimits.Of(b).(*[]trypema.Limit)
	}
	return err
}
