package trypema

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/tally"
)

// ErrUnknownPolicy is a call by a policy that is not there. It is never a pass.
var ErrUnknownPolicy = errors.New("trypema: unknown policy")

// Policy says how calls are limited, under a name: that of a plan, a tier, or an endpoint. Package policyfile
// reads policies from a file.
type Policy struct {
	// Name is what callers ask for. It has from 1 to 64 bytes of printable UTF-8, no colon, and no space at
	// either end.
	Name string
	// Group is what counts are kept under, by rules as those of Name. Policies of one group share what a key
	// has used, in windows of the same length and by the same strategy: a customer who goes from one plan to
	// another does not begin anew. Default Name, so that each policy counts by itself.
	Group string
	// Strategy is that of all limits. The zero value is StrategyAbsolute.
	Strategy Strategy
	// Limits are kept at once, all or nothing: from 1 to MaxLimits.
	Limits []Limit
	// Cost is that of one call. Default 1; at most what each of the limits can hold, or no call would ever
	// pass.
	Cost uint64
}

const maxPolicyName = 64

// Check returns what is wrong with the policy, as an ErrInvalidOptions or ErrInvalidRate that names the
// policy, the field, its value and the rule, or nil. NewPolicies and Swap call it; programs need it only to
// check what they have read from somewhere.
func (p Policy) Check() error {
	if p.Name == "" {
		return invalid.Errorf(ErrInvalidOptions,
			"the name of a policy is empty; it must have from 1 to %d bytes", maxPolicyName)
	}
	for _, f := range []struct{ field, value string }{{"name", p.Name}, {"group", p.Group}} {
		switch {
		case len(f.value) > maxPolicyName:
			return invalid.Errorf(ErrInvalidOptions,
				"policy %.32q: the %s has %d bytes; it must have from 1 to %d", p.Name, f.field, len(f.value),
				maxPolicyName)
		case strings.Contains(f.value, ":"):
			return invalid.Errorf(ErrInvalidOptions, "policy %q: the %s is %q; it must have no colon", p.Name,
				f.field, f.value)
		case !invalid.Name(f.value):
			return invalid.Errorf(ErrInvalidOptions,
				"policy %q: the %s is %q; it must be %s", p.Name, f.field, f.value, invalid.NameRule)
		}
	}
	if err := CheckLimits(p.Strategy, p.Limits); err != nil {
		kind := ErrInvalidOptions
		if errors.Is(err, ErrInvalidRate) {
			kind = ErrInvalidRate
		}
		return invalid.Errorf(kind, "policy %q: %s", p.Name, strings.TrimPrefix(err.Error(), "trypema: "))
	}
	for _, l := range p.Limits {
		if c, _ := l.Rate.Capacity(l.Window); p.Cost > c { // the limit was checked
			return invalid.Errorf(ErrInvalidOptions,
				"policy %q: cost is %d; it must be at most %d, which is all that limit %q can hold", p.Name,
				p.Cost, c, l.Label())
		}
	}
	return nil
}

// MultiProvider is what Policies need of a provider.
type MultiProvider interface {
	// Multi returns a limiter that keeps several limits at once.
	Multi(s Strategy, limits ...Limit) (MultiLimiter, error)
}

// Policies are limits by name, on one provider, which can be changed while they are in use. They are made by
// NewPolicies, and are safe for concurrent use.
//
// A key has a usage of its own by each policy, or by each group of them, which is not that of other limiters
// of the provider, whatever their keys are. Observers are shown the name of the group, a colon and the key. A
// provider of another module gets its keys in that form, too, and must tell them from other keys by itself.
// Making that string is one allocation; it is all that a call allocates beyond what the MultiLimiter does. An
// empty key is one as any other.
//
// A policy that is not there is ErrUnknownPolicy; no verb admits anything then.
type Policies struct {
	provider MultiProvider
	set      atomic.Pointer[policySet]

	mu       sync.Mutex // guards the below, and is held while the set is changed
	observer Observer
	tallies  map[policyName]*tally.Tally // of all policies that there were since it is observed
}

type policyName struct {
	name     string
	strategy Strategy
}

// policySet is not changed once it is in use.
type policySet struct {
	names  []string // as they were given
	byName map[string]*boundPolicy
}

// boundPolicy is a policy with the limiter that keeps it.
type boundPolicy struct {
	Policy
	limiter MultiLimiter
	prefix  string       // of keys, where the limiter does not know the group
	tally   *tally.Tally // nil without an Observer
}

// grouped is a MultiLimiter that keeps the keys of groups apart from each other and from plain keys. Those of
// this module do.
type grouped interface {
	InGroup(group string) MultiLimiter
}

// bind sets the limiter of the policy.
func (b *boundPolicy) bind(l MultiLimiter) {
	if g, ok := l.(grouped); ok {
		b.limiter = g.InGroup(b.Group)
		return
	}
	b.limiter, b.prefix = l, b.Group+":"
}

// NewPolicies returns policies on a provider, or what is wrong with them: see Policy.Check. There must be at
// least one, and no two of the same name.
func NewPolicies(p MultiProvider, list ...Policy) (*Policies, error) {
	if invalid.Nil(p) {
		return nil, invalid.Errorf(ErrInvalidOptions, "the provider of the policies is nil; it must be one that has Multi")
	}
	all := &Policies{provider: p}
	if err := all.Swap(list...); err != nil {
		return nil, err
	}
	return all, nil
}

// Swap puts other policies in the place of all that are there. If one of them is wrong it says so, and
// nothing changes. Calls that are made meanwhile are judged by the old policy or the new one, never by a part
// of each.
//
// Usage is not lost. What a key has used belongs to the group of the policy, its strategy, and the length of
// a window; so where these stay, a new rate judges at once what the key has used already. A window that is
// new begins empty, and so does a policy of a new group or strategy. What a policy has counted that is no
// longer there leaves its windows in time, and still counts if the policy comes back before.
//
// The provider keeps some memory for each length of window that a policy has, and until its keys have
// expired: choose from a few.
func (p *Policies) Swap(list ...Policy) error {
	if len(list) == 0 {
		return invalid.Errorf(ErrInvalidOptions, "there are no policies; there must be at least 1")
	}
	set := &policySet{byName: make(map[string]*boundPolicy, len(list))}
	for _, policy := range list {
		if err := policy.Check(); err != nil {
			return err
		}
		if set.byName[policy.Name] != nil {
			return invalid.Errorf(ErrInvalidOptions, "two policies have the name %q; each must have its own",
				policy.Name)
		}
		policy.Limits = slices.Clone(policy.Limits)
		policy.Cost = max(policy.Cost, 1)
		policy.Group = cmp.Or(policy.Group, policy.Name)
		set.names = append(set.names, policy.Name)
		set.byName[policy.Name] = &boundPolicy{Policy: policy}
	}
	// Only now is the provider asked, which may keep something for each window.
	for _, name := range set.names {
		bound := set.byName[name]
		limiter, err := p.provider.Multi(bound.Strategy, bound.Limits...)
		if err != nil {
			return err
		}
		if invalid.Nil(limiter) {
			return invalid.Errorf(ErrInvalidOptions,
				"policy %q: Multi of the provider, a %T, returned nil", name, p.provider)
		}
		bound.bind(limiter)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.installLocked(set)
	return nil
}

// Observe has an Observer told of each policy, those of later Swaps included: by a Meter whose Policy is the
// name of the policy, and whose Provider is "policies". What it counts goes on over Swaps. It has no
// latencies and no gauges, which the meters of the provider have, and counts decisions that these count, too.
// It is to be called once, before the policies are used; of several calls the last counts. With nil nothing
// is counted any more.
func (p *Policies) Observe(o Observer) {
	if invalid.Nil(o) {
		o = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.observer, p.tallies = o, make(map[policyName]*tally.Tally)
	old := p.set.Load()
	set := &policySet{names: old.names, byName: make(map[string]*boundPolicy, len(old.byName))}
	for name, bound := range old.byName {
		again := *bound
		again.tally = nil
		set.byName[name] = &again
	}
	p.installLocked(set)
}

// installLocked has policies counted, if somebody observes, and puts them in place.
func (p *Policies) installLocked(set *policySet) {
	for _, name := range set.names {
		bound := set.byName[name]
		if p.observer == nil {
			continue
		}
		of := policyName{name, bound.Strategy}
		if p.tallies[of] == nil {
			p.tallies[of] = tally.New()
			p.observer.Observe(meterOf("policies", name, of.strategy, p.tallies[of], p, func(*Policies, *Stats) {}))
		}
		bound.tally = p.tallies[of]
	}
	p.set.Store(set)
}

// count counts a decision.
func (b *boundPolicy) count(key string, d *Decision, err error) {
	b.tally.Decided(key, d.Allowed, d.Fallback, err)
}

// Names returns the names of the policies, in the order in which they were given.
func (p *Policies) Names() []string { return slices.Clone(p.set.Load().names) }

// Get returns the policy of a name, with its defaults, and whether there is one.
func (p *Policies) Get(name string) (Policy, bool) {
	bound := p.set.Load().byName[name]
	if bound == nil {
		return Policy{}, false
	}
	policy := bound.Policy
	policy.Limits = slices.Clone(policy.Limits)
	return policy, true
}

// find returns the policy of a name, as it is now.
func (p *Policies) find(name string) (*boundPolicy, error) {
	if bound := p.set.Load().byName[name]; bound != nil {
		return bound, nil
	}
	return nil, invalid.Errorf(ErrUnknownPolicy, "there is no policy %q", name)
}

// key returns the key that the limiter is asked for.
func (b *boundPolicy) key(key string) string { return b.prefix + key }

// Allow decides whether a call may pass now by a policy, and records it, in one step. It costs what the
// policy says.
func (p *Policies) Allow(ctx context.Context, policy, key string) (Decision, error) {
	bound, err := p.find(policy)
	if err != nil {
		return Decision{}, err
	}
	return bound.allow(ctx, key, bound.Cost)
}

func (b *boundPolicy) allow(ctx context.Context, key string, n uint64) (Decision, error) {
	d, err := b.limiter.AllowN(ctx, b.key(key), n)
	b.count(key, &d, err)
	return d, err
}

// AllowN is Allow for a call whose cost is n, whatever the policy says; so to make k calls at once, n is k
// times their cost. A cost of 0 is ErrInvalidCost.
func (p *Policies) AllowN(ctx context.Context, policy, key string, n uint64) (Decision, error) {
	bound, err := p.find(policy)
	if err != nil {
		return Decision{}, err
	}
	return bound.allow(ctx, key, n)
}

// Peek decides as AllowN would at this instant, and records nothing. With a cost of 0 it decides as Allow
// would.
func (p *Policies) Peek(ctx context.Context, policy, key string, n uint64) (Decision, error) {
	bound, err := p.find(policy)
	if err != nil {
		return Decision{}, err
	}
	if n == 0 {
		n = bound.Cost
	}
	return bound.limiter.Peek(ctx, bound.key(key), n)
}

// Reserve is AllowN for a call whose cost is an estimate: see MultiLimiter. It is settled by the limits that
// admitted it, even if others have taken their place by then.
func (p *Policies) Reserve(
	ctx context.Context, policy, key string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	bound, err := p.find(policy)
	if err != nil {
		return nil, err
	}
	r, err := bound.limiter.Reserve(ctx, bound.key(key), estimate, expiry)
	var d Decision
	if err == nil {
		d = r.Decision
	}
	bound.count(key, &d, err)
	return r, err
}

// Usage reports what the windows of the key hold by a policy, in the order of its limits.
func (p *Policies) Usage(ctx context.Context, policy, key string) ([]Usage, error) {
	bound, err := p.find(policy)
	if err != nil {
		return nil, err
	}
	return bound.limiter.Usage(ctx, bound.key(key))
}

// Delete forgets what the key has used by a policy, in the windows that the policy has now.
func (p *Policies) Delete(ctx context.Context, policy, key string) error {
	bound, err := p.find(policy)
	if err != nil {
		return err
	}
	return bound.limiter.Delete(ctx, bound.key(key))
}
