package middleware

import (
	"math"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
)

// Check returns what is wrong with the options, or nil. It names the field.
func (o *Options[R]) Check() error {
	bad := func(format string, args ...any) error {
		return invalid.Errorf(trypema.ErrInvalidOptions, o.Name+"."+format, args...)
	}
	byRate := o.Limiter != nil || o.Rate != 0 || o.RateOf != nil
	switch {
	case o.Decide != nil && (byRate || o.Bound != nil || o.Policies != nil):
		return bad("Decide is set, and Bound, Policies, Limiter, Rate or RateOf, too; they must be left out")
	case o.Bound != nil && (byRate || o.Policies != nil):
		return bad("Bound is set, and Policies, Limiter, Rate or RateOf, too; they must be left out")
	case o.Policies != nil && byRate:
		return bad("Policies is set, and Limiter, Rate or RateOf, too; they must be left out")
	case o.PolicyOf != nil && o.Policies == nil:
		return bad("PolicyOf is set, but not Policies, of which it names one; it must be left out")
	case o.Policies != nil && o.PolicyOf == nil:
		return bad("PolicyOf is nil; it must name the policy, of those in Policies")
	case o.Limits != nil && o.Decide == nil:
		return bad("Limits is set, but not Decide, which keeps them; it must be left out")
	case o.Bound != nil && len(o.Bound.Limits()) == 0:
		return bad("Bound has no limits; it must be made by Bind of a provider, or by Policies.Use")
	case o.Policies != nil && len(o.Policies.Names()) == 0:
		return bad("Policies has no policies; they must be made by trypema.NewPolicies")
	case o.Keyless > KeylessPass:
		return bad("Keyless is %d; it must be KeylessShare, KeylessDeny or KeylessPass", o.Keyless)
	case o.MaxWait < 0:
		return bad("MaxWait is %v; it must be at least 0", o.MaxWait)
	case o.Decide != nil, o.Bound != nil, o.Policies != nil:
		return nil
	case o.Limiter == nil:
		return bad("Limiter is nil, and so are Bound, Policies and Decide; one of them must decide")
	case invalid.Nil(o.Limiter):
		return bad("Limiter is nil, a %T; it must be the limiter that decides", o.Limiter)
	case o.Rate == 0 && o.RateOf == nil:
		return bad("Rate is 0 and RateOf is nil; one of them must be set")
	case o.Rate != 0 && o.RateOf != nil:
		return bad("Rate is %v and RateOf is set; one of them must be left out", float64(o.Rate))
	case o.RateOf != nil:
		return nil
	case !(o.Rate > 0):
		return bad("Rate is %v; it must be above 0", float64(o.Rate))
	case math.IsInf(float64(o.Rate), 0):
		return bad("Rate is %v; it must be finite, or trypema.Unlimited", float64(o.Rate))
	}
	// A rate of which nothing fits into the window is refused here, and not at each call.
	if w := WindowOf(o.Limiter); w > 0 {
		if _, err := o.Rate.Capacity(w); err != nil {
			return bad("Rate is %v, less than one event in the limiter's window of %v; "+
				"raise the rate or lengthen the window", o.Rate, w)
		}
	}
	return nil
}
