// Package engine decides the requests of trypema serve, whatever the protocol by which they come.
//
// A request to the Envoy rate limit service is a list of descriptors; each that matches a rule of the
// configuration has a limit to keep. It is admitted if it fits into all of them, and is then recorded in all;
// otherwise it is recorded in none. A request by a policy has a key and the name of the policy. A request
// with a limit of its own has a key, a capacity and a window.
package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
)

// MaxDescriptors bounds the descriptors of one request.
const MaxDescriptors = 64

// The errors of a request. What is wrong with it is an *InvalidError.
var (
	ErrNotLoaded   = errors.New("no rate limit configuration loaded")
	ErrUnavailable = errors.New("the store of limits is unavailable")
)

// InvalidError says what is wrong with a request.
type InvalidError struct{ Problem string }

func (e *InvalidError) Error() string { return e.Problem }

func invalid(format string, args ...any) error {
	return &InvalidError{fmt.Sprintf(format, args...)}
}

// Options configure an Engine.
type Options struct {
	// Shadow has every answer to a request with descriptors be OK. The statuses say what would have been.
	Shadow bool
	// RefuseFallback has a request be ErrUnavailable if the provider decided it by its failure policy.
	RefuseFallback bool
	// Observer is told of the policies. Default none.
	Observer trypema.Observer
	// Counts counts the hits of each rule for Counts.
	Counts bool
}

// Engine decides requests. It is safe for concurrent use.
type Engine struct {
	options  Options
	provider trypema.Binder
	own      *limiters // of requests with a limit of their own
	current  atomic.Pointer[config]
	counts   counts
	reserved reservations

	mu       sync.Mutex // guards what follows, and is held while a configuration is put in place
	policies *trypema.Policies
	budgets  sync.Map // paths of rules that are budgets; see budget
}

// ask is a limit and a key that a request has to keep, and its cost.
type ask struct {
	*limiter
	key  string
	cost uint64
	at   int // the status in the answer
}

// config is a configuration in use.
type config struct {
	set      *rules.Set
	limiters []*limiter // by Rule.Index; nil for one that is unlimited
	budget   []atomic.Bool
	policies *trypema.Policies // nil if there are none
}

// New returns an engine without a configuration, on a provider that the caller closes.
func New(p trypema.Binder, o Options) *Engine {
	return &Engine{
		options: o, provider: p, own: newLimiters(p),
		counts: counts{all: make(map[string]*series)}, reserved: reservations{open: make(map[string]*reservation)},
	}
}

// Use puts a configuration in place. With an error everything stays as it was. What keys have used stays
// counted where a limit of the same place has the same window.
func (e *Engine) Use(set *rules.Set) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := set.Rules()
	c := &config{set: set, limiters: make([]*limiter, len(all)), budget: make([]atomic.Bool, len(all))}
	for _, r := range all {
		if r.Unlimited {
			continue
		}
		var err error
		if c.limiters[r.Index], err = bind(e.provider, Limit{uint64(r.Requests), r.Unit.Window()}); err != nil {
			return fmt.Errorf("%s: %s: %w", r.Place, r.Path, err)
		}
		if _, is := e.budgets.Load(r.Path); is {
			c.budget[r.Index].Store(true)
		}
	}
	if err := e.usePolicies(set, c); err != nil {
		return err
	}
	e.current.Store(c)
	return nil
}

func (e *Engine) usePolicies(set *rules.Set, c *config) error {
	if len(set.Policies) == 0 {
		e.policies = nil
		return nil
	}
	if e.policies == nil {
		p, err := trypema.NewPolicies(e.provider, set.Policies...)
		if err != nil {
			return err
		}
		if e.options.Observer != nil {
			p.Observe(e.options.Observer)
		}
		e.policies = p
	} else if err := e.policies.Swap(set.Policies...); err != nil {
		return err
	}
	c.policies = e.policies
	return nil
}

// Set returns the configuration in use, or nil before the first.
func (e *Engine) Set() *rules.Set {
	if c := e.current.Load(); c != nil {
		return c.set
	}
	return nil
}

// Policies returns the policies in use, or nil if there are none.
func (e *Engine) Policies() *trypema.Policies {
	if c := e.current.Load(); c != nil {
		return c.policies
	}
	return nil
}

// Request asks for all of its descriptors at once.
type Request struct {
	Domain      string
	Descriptors []Descriptor
	// Hits is the cost where a descriptor has none of its own; 0 is 1.
	Hits uint32
}

// cost is that of a descriptor.
func (r *Request) cost(d *Descriptor) uint64 {
	if d.HasHits {
		return d.Hits
	}
	return uint64(max(r.Hits, 1))
}

// Descriptor is one of a request.
type Descriptor struct {
	Entries []rules.Entry
	// Limit is a limit that the request brings along, in the place of that of the configuration.
	Limit *Override
	// Hits is the cost, if HasHits. 0 looks and records nothing.
	Hits    uint64
	HasHits bool
	// GivesBack has Hits be given back, not taken.
	GivesBack bool
}

// Override is a limit that a request brings along.
type Override struct {
	Requests uint32
	Unit     rules.Unit
}

// NoReset is the Reset of a limit that has no room ever, or of which it is not known.
const NoReset time.Duration = -1

// Status is what became of one descriptor.
type Status struct {
	// Rule is what matched; nil if nothing did, or the request brought its own limit, which is Override.
	Rule     *rules.Rule
	Override *Override
	// Applies reports that there is a limit, which was not replaced by another.
	Applies bool
	// Over reports that the limit has no room, and is not in shadow mode.
	Over bool
	// Remaining is the room that is left.
	Remaining uint32
	// Reset is, if the limit is over, the time until the same request has room; otherwise the time until all
	// of its capacity is free, if nothing else happens. NoReset if there is none.
	Reset time.Duration

	wouldBeOver bool // Over but for shadow mode
}

// Answer is what became of a request. It can be used again: Decide overwrites it.
type Answer struct {
	Over     bool
	Shadowed bool // it would be over, but the engine is in shadow mode
	Statuses []Status

	asks    []ask
	shadow  []ask
	quota   []ask
	looks   []ask
	returns []ask
	all     []ask
	asked   []trypema.Ask
	scratch []byte
	match   rules.Match
	keyOf   []byte
}

// Decide decides a request. In an answer that is over, nothing was recorded.
func (e *Engine) Decide(ctx context.Context, r *Request, a *Answer) error {
	c := e.current.Load()
	switch {
	case c == nil:
		return ErrNotLoaded
	case r.Domain == "":
		return invalid("rate limit domain must not be empty")
	case len(r.Descriptors) == 0:
		return invalid("rate limit descriptor list must not be empty")
	case len(r.Descriptors) > MaxDescriptors:
		return invalid("rate limit descriptor list has %d descriptors; it must have at most %d",
			len(r.Descriptors), MaxDescriptors)
	}
	if err := e.match(c, r, a); err != nil {
		return err
	}
	if err := e.judge(ctx, c, a); err != nil {
		return err
	}
	for i := range a.returns {
		if err := e.giveBack(ctx, a, &a.returns[i]); err != nil {
			return err
		}
	}
	if a.Over && e.options.Shadow {
		a.Over, a.Shadowed = false, true
	}
	if e.options.Counts {
		e.count(c, r, a)
	}
	return nil
}

// match makes the asks of a request.
func (e *Engine) match(c *config, r *Request, a *Answer) error {
	a.Over, a.Shadowed = false, false
	a.asks, a.shadow, a.quota, a.looks, a.returns = a.asks[:0], a.shadow[:0], a.quota[:0], a.looks[:0], a.returns[:0]
	if cap(a.Statuses) < len(r.Descriptors) {
		a.Statuses = make([]Status, len(r.Descriptors))
	}
	a.Statuses = a.Statuses[:len(r.Descriptors)]
	replacing := false
	for i := range r.Descriptors {
		d, s := &r.Descriptors[i], &a.Statuses[i]
		*s = Status{Reset: NoReset}
		if len(d.Entries) > rules.MaxDepth {
			return invalid("descriptor %d has %d entries; it must have at most %d", i+1, len(d.Entries),
				rules.MaxDepth)
		}
		if d.Limit != nil {
			if !c.set.HasDomain(r.Domain) {
				continue
			}
			if d.Limit.Unit.Window() == 0 {
				return invalid("descriptor %d: limit: unit is %v; it must be one of second to week", i+1,
					d.Limit.Unit)
			}
			l, err := e.own.of(Limit{uint64(d.Limit.Requests), d.Limit.Unit.Window()})
			if err != nil {
				return err
			}
			s.Override, s.Applies = d.Limit, true
			a.match = rules.Match{}
			if err := e.ask(c, r, a, i, l); err != nil {
				return err
			}
			continue
		}
		a.scratch = c.set.Find(r.Domain, d.Entries, &a.match, a.scratch)
		s.Rule = a.match.Rule
		if s.Rule == nil {
			continue
		}
		s.Applies = true
		replacing = replacing || len(s.Rule.Replaces) > 0
		if s.Rule.Unlimited {
			continue
		}
		if err := e.ask(c, r, a, i, c.limiters[s.Rule.Index]); err != nil {
			return err
		}
	}
	if replacing {
		a.replace()
	}
	return nil
}

// ask adds the ask of a descriptor.
func (e *Engine) ask(c *config, r *Request, a *Answer, i int, l *limiter) error {
	d, s := &r.Descriptors[i], &a.Statuses[i]
	one := ask{limiter: l, key: a.key(r.Domain, d.Entries), cost: r.cost(d), at: i}
	switch {
	case d.GivesBack:
		if _, ok := l.Keeper().(giver); !ok && l.Keeper() != nil {
			return invalid("descriptor %d has is_negative_hits, which the store of this server does not support", i+1)
		}
		a.returns = append(a.returns, one)
	case one.cost == 0:
		if s.Rule != nil && !c.budget[s.Rule.Index].Load() {
			c.budget[s.Rule.Index].Store(true)
			e.budgets.Store(s.Rule.Path, true)
		}
		a.looks = append(a.looks, one)
	case s.Rule != nil && s.Rule.Shadow:
		a.shadow = append(a.shadow, one)
	case s.Rule != nil && s.Rule.Quota:
		a.quota = append(a.quota, one)
	default:
		a.asks = append(a.asks, one)
	}
	return nil
}

// giver is a trypema.Keeper that can give back.
type giver interface {
	GiveBack(ctx context.Context, key string, n uint64) error
}

// key returns the key of a descriptor: its domain and entries, in a form that no other has.
func (a *Answer) key(domain string, entries []rules.Entry) string {
	b := appendEscaped(append(a.keyOf[:0], "rls|"...), domain)
	for i, e := range entries {
		b = append(b, '|')
		b = appendEscaped(b, e.Key)
		b = append(b, '=')
		if i < rules.MaxDepth && a.match.IsShared && a.match.Shared[i] != "" {
			b = append(b, '*', '=') // no value begins so
			b = appendEscaped(b, a.match.Shared[i])
			continue
		}
		b = appendEscaped(b, e.Value)
	}
	a.keyOf = b
	return string(b)
}

func appendEscaped(b []byte, s string) []byte {
	if strings.IndexByte(s, '|') < 0 && strings.IndexByte(s, '=') < 0 && strings.IndexByte(s, '\\') < 0 {
		return append(b, s...)
	}
	for i := range len(s) {
		if c := s[i]; c == '|' || c == '=' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return b
}

// replace drops the limits that another one of the request replaces.
func (a *Answer) replace() {
	var replaced []string // names, none of which is empty
	for i := range a.Statuses {
		if r := a.Statuses[i].Rule; r != nil {
			replaced = append(replaced, r.Replaces...)
		}
	}
	for i := range a.Statuses {
		if s := &a.Statuses[i]; s.Rule != nil && !s.Rule.Unlimited && slices.Contains(replaced, s.Rule.Name) {
			s.Applies = false
		}
	}
	for _, list := range []*[]ask{&a.asks, &a.shadow, &a.quota, &a.looks, &a.returns} {
		*list = slices.DeleteFunc(*list, func(one ask) bool { return !a.Statuses[one.at].Applies })
	}
	for i := range a.Statuses {
		if s := &a.Statuses[i]; !s.Applies {
			s.Rule = nil
		}
	}
}

// judge decides the asks of a request.
func (e *Engine) judge(ctx context.Context, c *config, a *Answer) error {
	if len(a.asks) == 1 && len(a.shadow)+len(a.quota)+len(a.looks) == 0 { // as most are
		allowed, err := e.decide(ctx, a, &a.asks[0])
		if err != nil || allowed {
			return err
		}
		a.Over = true
		return e.enterBudgets(ctx, c, a)
	}
	for i := range a.looks {
		if _, err := e.look(ctx, a, &a.looks[i]); err != nil {
			return err
		}
		s := &a.Statuses[a.looks[i].at]
		a.Over = a.Over || s.Over && (s.Rule == nil || !s.Rule.Quota)
	}
	if err := e.judgeTogether(ctx, a); err != nil {
		return err
	}
	judge := e.decide
	if a.Over {
		judge = e.look // nothing is recorded
	}
	for i := range a.shadow {
		if _, err := judge(ctx, a, &a.shadow[i]); err != nil {
			return err
		}
	}
	if a.Over {
		return e.enterBudgets(ctx, c, a)
	}
	return nil
}

// giveBack gives back what an ask says, and tells what is left. That a request is refused does not matter:
// what is given back was taken by an earlier one. It comes last, so a client that repeats a request which
// could not be judged does not give back twice.
func (e *Engine) giveBack(ctx context.Context, a *Answer, one *ask) error {
	if k, ok := one.Keeper().(giver); ok && one.cost > 0 {
		if err := k.GiveBack(ctx, one.key, one.cost); err != nil {
			return e.failed(false, err)
		}
	}
	d, err := one.Peek(ctx, one.key, max(one.Capacity, 1))
	if err := e.failed(d.Fallback, err); err != nil {
		return err
	}
	s := &a.Statuses[one.at]
	s.Remaining, s.Reset = uint32(min(d.Remaining, math.MaxUint32)), resetOf(&d)
	return nil
}

// resetOf is the Reset of a limit without the room that was asked for.
func resetOf(d *trypema.Decision) time.Duration {
	if d.RetryAfter == trypema.Never {
		return NoReset
	}
	return d.RetryAfter
}

// decide decides an ask by itself, and tells the answer.
func (e *Engine) decide(ctx context.Context, a *Answer, one *ask) (allowed bool, err error) {
	d, err := one.AllowN(ctx, one.key, one.cost)
	if err := e.failed(d.Fallback, err); err != nil {
		return false, err
	}
	a.tell(one, &d)
	if d.Allowed {
		a.Statuses[one.at].Reset = one.Window
	}
	return d.Allowed, nil
}

// judgeTogether decides the asks that count together: those without quota mode all or nothing, and with them
// those in quota mode that have room, of which there must be one if there are any. A quota whose room others
// take between the look and the decision is left out at the next try.
func (e *Engine) judgeTogether(ctx context.Context, a *Answer) error {
	const tries = 4
	for try := 1; ; try++ {
		if err := e.choose(ctx, a); err != nil {
			return err
		}
		switch {
		case a.Over:
			return e.lookAtAll(ctx, a)
		case len(a.all) > trypema.MaxAsks:
			return invalid("%d limits match; there must be at most %d in one request", len(a.all),
				trypema.MaxAsks)
		case len(a.all) == 0:
			return nil
		}
		a.asked = a.asked[:0]
		for i := range a.all {
			a.asked = append(a.asked, a.all[i].Ask(a.all[i].key, a.all[i].cost))
		}
		d, err := trypema.All(ctx, a.asked...)
		if err := e.failed(d.Fallback, err); err != nil {
			return err
		}
		if d.Allowed {
			return e.lookAtAdmitted(ctx, a)
		}
		if err := e.lookAtAll(ctx, a); err != nil {
			return err
		}
		if len(a.quota) > 0 && try < tries && !a.isAnyOver() {
			continue
		}
		a.Over = true
		if !a.isAnyOver() { // what refused has room again
			s := &a.Statuses[a.all[0].at]
			s.Over, s.wouldBeOver, s.Reset = true, true, resetOf(&d)
		}
		return nil
	}
}

// choose has all be the asks that are to count together. The answer is over if quotas leave none.
func (e *Engine) choose(ctx context.Context, a *Answer) error {
	quotas, room := 0, 0
	for _, list := range [][]ask{a.returns, a.looks} { // the former are never over
		for i := range list {
			if s := &a.Statuses[list[i].at]; s.Rule != nil && s.Rule.Quota && !s.Rule.Shadow {
				quotas++
				if !s.Over {
					room++
				}
			}
		}
	}
	a.all = append(a.all[:0], a.asks...)
	for i := range a.quota {
		quotas++
		over, err := e.look(ctx, a, &a.quota[i])
		if err != nil {
			return err
		}
		if !over {
			room++
			a.all = append(a.all, a.quota[i])
		}
	}
	a.Over = a.Over || quotas > 0 && room == 0
	return nil
}

// isAnyOver reports whether one of the asks without quota mode is over.
func (a *Answer) isAnyOver() bool {
	return slices.ContainsFunc(a.asks, func(one ask) bool { return a.Statuses[one.at].Over })
}

// lookAtAdmitted notes what is left after a request that was admitted.
func (e *Engine) lookAtAdmitted(ctx context.Context, a *Answer) error {
	for i := range a.all {
		one := &a.all[i]
		d, err := one.Peek(ctx, one.key, 1)
		if err := e.failed(d.Fallback, err); err != nil {
			return err
		}
		s := &a.Statuses[one.at]
		s.Over, s.wouldBeOver = false, false
		s.Remaining, s.Reset = uint32(min(d.Remaining, math.MaxUint32)), one.Window
	}
	return nil
}

// lookAtAll judges the asks of a request that is refused. The costs of those that share a counter add up.
func (e *Engine) lookAtAll(ctx context.Context, a *Answer) error {
	for i := range a.asks {
		one := a.asks[i]
		for j := range a.asks {
			if other := &a.asks[j]; j != i && other.limiter == one.limiter && other.key == one.key {
				one.cost += min(other.cost, math.MaxUint64-one.cost)
			}
		}
		if _, err := e.look(ctx, a, &one); err != nil {
			return err
		}
	}
	return nil
}

// look judges an ask and records nothing.
func (e *Engine) look(ctx context.Context, a *Answer, one *ask) (over bool, err error) {
	d, err := one.Peek(ctx, one.key, one.cost)
	if err := e.failed(d.Fallback, err); err != nil {
		return false, err
	}
	a.tell(one, &d)
	if d.Allowed {
		full, err := one.Peek(ctx, one.key, max(one.Capacity, 1))
		if err := e.failed(full.Fallback, err); err != nil {
			return false, err
		}
		a.Statuses[one.at].Reset = resetOf(&full)
	}
	return !d.Allowed, nil
}

// tell makes the status of an ask what a decision says.
func (a *Answer) tell(one *ask, d *trypema.Decision) {
	s := &a.Statuses[one.at]
	s.Remaining = uint32(min(d.Remaining, math.MaxUint32))
	s.wouldBeOver = !d.Allowed
	s.Over = s.wouldBeOver
	if d.Allowed {
		return
	}
	s.Reset = resetOf(d)
	if s.Rule != nil && s.Rule.Shadow {
		s.Over, s.Remaining = false, 0
	}
}

// failed returns what a limiter says is wrong, in the errors of this package.
func (e *Engine) failed(isFallback bool, err error) error {
	switch {
	case err == nil && isFallback && e.options.RefuseFallback:
		return ErrUnavailable
	case err == nil:
		return nil
	case errors.Is(err, trypema.ErrInvalidKey):
		return invalid("%s", strings.TrimPrefix(err.Error(), "trypema: "))
	}
	return err
}

// enterBudgets enters what a refused request reports to budgets. A budget is a limit that was asked with 0
// hits: Envoy looks at it before a stream, and reports with apply_on_stream_done what the stream has used
// after that. A report that does not fit has happened all the same, and so counts: the window then holds more
// than its capacity, and the next looks are refused. Nothing can be entered into a window that is full.
func (e *Engine) enterBudgets(ctx context.Context, c *config, a *Answer) error {
	for _, list := range [][]ask{a.asks, a.quota} {
		for i := range list {
			one := &list[i]
			s := &a.Statuses[one.at]
			if s.Rule == nil || !s.Over || s.Remaining == 0 || !c.budget[s.Rule.Index].Load() {
				continue
			}
			r, err := one.Reserve(ctx, one.key, min(one.cost, uint64(s.Remaining)), 0)
			if err == nil && r.Allowed {
				err = r.Commit(ctx, one.cost)
				s.Remaining = 0
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
