package trypema

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
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
	// another keeps what was used. Default Name, so that each policy counts by itself.
	Group string
	// Strategy is that of all limits. The zero value is StrategyAbsolute.
	Strategy Strategy
	// Limits are kept at once, all or nothing: from 1 to MaxLimits.
	Limits []Limit
	// Cost is that of one call. Default 1; at most what each of the limits can hold that does not block, or
	// no call would ever pass.
	Cost uint64
	// Shadow lets calls pass that the limits deny, to try a policy on what it is meant for. They are judged
	// and recorded as otherwise; Decision.Shadowed says that they were denied, and so do the metrics.
	Shadow bool
}

const maxPolicyName = 64

// checkName returns what is wrong with the name of a policy or group, which may be empty.
func checkName(what, name string) error {
	switch {
	case len(name) > maxPolicyName:
		return invalid.Errorf(ErrInvalidOptions, "%s has %d bytes; it must have from 1 to %d", what,
			len(name), maxPolicyName)
	case strings.Contains(name, ":"):
		return invalid.Errorf(ErrInvalidOptions, "%s is %q; it must have no colon", what, name)
	case !invalid.Name(name):
		return invalid.Errorf(ErrInvalidOptions, "%s is %q; it must be %s", what, name, invalid.NameRule)
	}
	return nil
}

// Check returns what is wrong with the policy, as an ErrInvalidOptions or ErrInvalidRate that names the
// policy, the field, its value and the rule, or nil. NewPolicies and Swap call it; programs need it only to
// check what they have read from somewhere.
func (p Policy) Check() error {
	if p.Name == "" {
		return invalid.Errorf(ErrInvalidOptions,
			"the name of a policy is empty; it must have from 1 to %d bytes", maxPolicyName)
	}
	for _, f := range []struct{ field, value string }{{"name", p.Name}, {"group", p.Group}} {
		if err := checkName(fmt.Sprintf("policy %.32q: the %s", p.Name, f.field), f.value); err != nil {
			return err
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
		if c, _ := l.Capacity(); p.Cost > c && !l.Blocks() { // the limit was checked
			return invalid.Errorf(ErrInvalidOptions,
				"policy %q: cost is %d; it must be at most %d, which is all that limit %q can hold", p.Name,
				p.Cost, c, l.Label())
		}
	}
	return nil
}

// Policies are limits by name, on one provider, which can be changed while they are in use. They are made by
// NewPolicies, and are safe for concurrent use.
//
// A key has a usage of its own by each policy, or by each group of them, which is not that of other limiters
// of the provider, whatever their keys are. Observers are shown the name of the group, a colon and the key. A
// provider of another module gets its keys in that form, too, and must tell them from other keys by itself.
// Making that string is one allocation; it is all that a call allocates beyond what the Bound does. An empty
// key is one as any other.
//
// A policy that is not there is ErrUnknownPolicy; no verb admits anything then.
type Policies struct {
	provider Binder
	set      atomic.Pointer[policySet]

	mu       sync.Mutex // guards the below, and is held while the set is changed
	observer Observer
	tallies  map[policyName]*tally.Tally // of all policies that there were since it is observed
	used     map[string]*Bound           // by name, of all policies that there were
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

// boundPolicy is a policy with what keeps it.
type boundPolicy struct {
	Policy
	bound *Bound       // of the group
	tally *tally.Tally // nil without an Observer
	live  *Bound       // what Use returns
}

// NewPolicies returns policies on a provider, or what is wrong with them: see Policy.Check. There must be at
// least one, and no two of the same name.
func NewPolicies(p Binder, list ...Policy) (*Policies, error) {
	if invalid.Nil(p) {
		return nil, invalid.Errorf(ErrInvalidOptions,
			"the provider of the policies is nil; it must be one that has Bind")
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
	if p == nil || p.provider == nil {
		return errNoPolicies
	}
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
		to, err := p.provider.Bind(bound.Strategy, bound.Limits...)
		if err != nil {
			return err
		}
		if to == nil {
			return invalid.Errorf(ErrInvalidOptions,
				"policy %q: Bind of the provider, a %T, returned nil", name, p.provider)
		}
		bound.bound = to.inGroup(bound.Group)
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
	if p.now() == noPolicies {
		return
	}
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

// installLocked puts policies in place, and has the Observer count them.
func (p *Policies) installLocked(set *policySet) {
	for _, name := range set.names {
		bound := set.byName[name]
		if bound.live = p.used[name]; bound.live == nil {
			if p.used == nil {
				p.used = make(map[string]*Bound)
			}
			live := &livePolicy{p, name}
			bound.live = &Bound{keeper: live, one: costOfPolicy, live: live, blocks: -1}
			p.used[name] = bound.live
		}
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

// count counts a decision, and lets it pass if the policy is a shadow.
func (b *boundPolicy) count(key string, d *Decision, err error) {
	b.tally.Decided(key, d.Allowed, d.Fallback, err)
	b.shadow(d, err)
}

func (b *boundPolicy) shadow(d *Decision, err error) {
	if b.Shadow && err == nil && !d.Allowed {
		d.Allowed, d.Outcome, d.RetryAfter, d.Shadowed = true, OutcomeAllowed, 0, true
	}
}

// Use returns the limits of a policy by itself: a Bound that follows Swap, and whose Allow and Wait cost what
// the policy says. It is ErrUnknownPolicy if the policy does not exist now; if it goes later, that is what
// the verbs return. Calls that wait stand in one line for each policy and key, however often Use is called.
func (p *Policies) Use(name string) (*Bound, error) {
	bound, err := p.find(name)
	if err != nil {
		return nil, err
	}
	return bound.live, nil
}

// costOfPolicy asks a livePolicy for a call of the cost that the policy says.
const costOfPolicy = math.MaxUint64

// livePolicy is a policy by its name: the Keeper of what Use returns.
type livePolicy struct {
	policies *Policies
	name     string
}

func (l *livePolicy) find() (*boundPolicy, error) { return l.policies.find(l.name) }

func (l *livePolicy) AllowN(ctx context.Context, key string, n uint64) (Decision, error) {
	if n == costOfPolicy {
		return l.policies.Allow(ctx, l.name, key)
	}
	return l.policies.AllowN(ctx, l.name, key, n)
}

func (l *livePolicy) Peek(ctx context.Context, key string, n uint64) (Decision, error) {
	return l.policies.Peek(ctx, l.name, key, n)
}

func (l *livePolicy) Reserve(
	ctx context.Context, key string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	return l.policies.Reserve(ctx, l.name, key, estimate, expiry)
}

// AllowMany is that of Bound, counted by the policy.
func (l *livePolicy) AllowMany(ctx context.Context, calls []Call, to []Decision) ([]Decision, error) {
	p, err := l.find()
	if err != nil {
		return to, err
	}
	before := len(to)
	to, err = p.bound.AllowMany(ctx, calls, to)
	for i := range to[before:] {
		p.count(calls[i].Key, &to[before+i], nil)
	}
	if n := len(to) - before; err != nil && n < len(calls) {
		p.count(calls[n].Key, new(Decision), err)
	}
	return to, err
}

func (l *livePolicy) Usage(ctx context.Context, key string) ([]Usage, error) {
	return l.policies.Usage(ctx, l.name, key)
}

func (l *livePolicy) Delete(ctx context.Context, key string) error {
	return l.policies.Delete(ctx, l.name, key)
}

// now returns what keeps the policy at this instant; noBound if it is not there.
func (l *livePolicy) now() *Bound {
	if p, err := l.find(); err == nil {
		return p.bound
	}
	return noBound
}

func (l *livePolicy) cost() uint64 {
	if p, err := l.find(); err == nil {
		return p.Cost
	}
	return 1
}

// again is Allow for a call that was denied, and so counted, before.
func (l *livePolicy) again(ctx context.Context, key string, n uint64) (Decision, error) {
	p, err := l.find()
	if err != nil {
		return Decision{}, err
	}
	d, err := p.bound.again(ctx, key, n)
	if err != nil || d.Allowed {
		p.count(key, &d, err)
	}
	p.shadow(&d, err)
	return d, err
}

// Names returns the names of the policies, in the order in which they were given.
func (p *Policies) Names() []string { return slices.Clone(p.now().names) }

// Get returns the policy of a name, with its defaults, and whether there is one.
func (p *Policies) Get(name string) (Policy, bool) {
	bound := p.now().byName[name]
	if bound == nil {
		return Policy{}, false
	}
	policy := bound.Policy
	policy.Limits = slices.Clone(policy.Limits)
	return policy, true
}

// noPolicies are what Policies have that NewPolicies has not made.
var noPolicies = new(policySet)

var errNoPolicies = invalid.Errorf(ErrInvalidOptions,
	"the Policies are nil or empty; they must be made by NewPolicies")

func (p *Policies) now() *policySet {
	if p == nil {
		return noPolicies
	}
	return cmp.Or(p.set.Load(), noPolicies)
}

// find returns the policy of a name, as it is now.
func (p *Policies) find(name string) (*boundPolicy, error) {
	set := p.now()
	if set == noPolicies {
		return nil, errNoPolicies
	}
	if bound := set.byName[name]; bound != nil {
		return bound, nil
	}
	return nil, invalid.Errorf(ErrUnknownPolicy, "there is no policy %q", name)
}

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
	d, err := b.bound.AllowN(ctx, key, n)
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

// Wait returns when a call is admitted by a policy, in its turn: see Bound.WaitN. It costs what the policy
// says.
func (p *Policies) Wait(ctx context.Context, policy, key string) (Decision, error) {
	b, err := p.Use(policy)
	if err != nil {
		return Decision{}, err
	}
	return b.Wait(ctx, key)
}

// WaitN is Wait for a call whose cost is n, whatever the policy says.
func (p *Policies) WaitN(ctx context.Context, policy, key string, n uint64) (Decision, error) {
	b, err := p.Use(policy)
	if err != nil {
		return Decision{}, err
	}
	return b.WaitN(ctx, key, n)
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
	d, err := bound.bound.Peek(ctx, key, n)
	bound.shadow(&d, err)
	return d, err
}

// Reserve is AllowN for a call whose cost is an estimate: see Bound.Reserve. It is settled by the limits that
// admitted it, even if others have taken their place by then.
func (p *Policies) Reserve(
	ctx context.Context, policy, key string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	bound, err := p.find(policy)
	if err != nil {
		return nil, err
	}
	r, err := bound.bound.Reserve(ctx, key, estimate, expiry)
	if err != nil {
		bound.count(key, new(Decision), err)
		return nil, err
	}
	denied := !r.Allowed
	bound.count(key, &r.Decision, nil)
	if denied && r.Allowed {
		r = NewReservation(r.Decision, 0, 0, nil) // it passes, and has nothing to settle
	}
	return r, nil
}

// Usage reports what the windows of the key hold by a policy, in the order of its limits.
func (p *Policies) Usage(ctx context.Context, policy, key string) ([]Usage, error) {
	bound, err := p.find(policy)
	if err != nil {
		return nil, err
	}
	return bound.bound.Usage(ctx, key)
}

// Delete forgets what the key has used by a policy, in the windows that the policy has now.
func (p *Policies) Delete(ctx context.Context, policy, key string) error {
	bound, err := p.find(policy)
	if err != nil {
		return err
	}
	return bound.bound.Delete(ctx, key)
}
