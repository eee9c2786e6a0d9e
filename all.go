package trypema

import (
	"context"
	"errors"
	"time"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/window"
)

// Ask is a call that All decides together with others. Bound.Ask and Policies.Ask make it.
type Ask struct {
	bound *Bound
	key   string
	cost  uint64
	err   error // that All returns
}

// Ask returns a call of cost n for All.
func (b *Bound) Ask(key string, n uint64) Ask {
	if b.made() == noBound {
		b = nil
	}
	return Ask{bound: b, key: key, cost: n}
}

// Ask returns a call of cost n by a policy, for All. All returns ErrUnknownPolicy if the policy does not
// exist.
//
//	d, err := trypema.All(ctx, plans.Ask("pro/tenant", "acme", 1), plans.Ask("pro/user", "ada", 1))
func (p *Policies) Ask(policy, key string, n uint64) Ask {
	b, err := p.Use(policy)
	return Ask{b, key, n, err}
}

// KeptAsk is an Ask as a Keeper is asked it, by AllowAll.
type KeptAsk struct {
	Keeper Keeper
	Key    string
	Cost   uint64
}

// MaxAsks is how many calls All decides together.
const MaxAsks = 16

// reservedFor is how long a call of All can be half done, if the process dies meanwhile.
const reservedFor = 10 * time.Second

// All decides several calls all or nothing: it admits them if each fits, and otherwise none of them counts
// (by Suppressed, each counts as declined).
//
//	d, err := trypema.All(ctx, perTenant.Ask("acme", 1), perUser.Ask("user:42", 1))
//
// The decision is that of the limit that refused, or of the one with the longest RetryAfter if several did;
// of calls that are admitted, that of the limit with the least room. Give limits names to tell them apart:
// see Limit.Named. Two asks of one Bound for the same key are one of both costs.
//
// A policy in shadow refuses nothing. It is asked last, by itself, about calls that the others admit; the
// decision says Shadowed if it would have refused. An error that it returns then counts in its metrics, and
// does not fail the call.
//
// Calls on Local are decided in one step. So are those of one strategy on one Hybrid provider, from leases: a
// call that needs several waits for them at once. So are those on one Redis provider, unless it is a Cluster.
// Otherwise each call is reserved, and given back if another is refused; until then it counts. No limit is
// passed by that. If the process dies in between, its reservations expire after ten seconds. If Redis becomes
// unavailable in between, its failure policy decides.
func All(ctx context.Context, asks ...Ask) (Decision, error) {
	if len(asks) == 0 || len(asks) > MaxAsks {
		return Decision{}, invalid.Errorf(ErrInvalidOptions,
			"%d asks; there must be from 1 to %d", len(asks), MaxAsks)
	}
	parts, trials := make([]part, 0, MaxAsks), make([]part, 0)
	for i, a := range asks {
		switch {
		case a.err != nil:
			return Decision{}, a.err
		case a.bound == nil:
			return Decision{}, invalid.Errorf(ErrInvalidOptions,
				"ask %d has no Bound; it must be made by Bound.Ask or Policies.Ask", i+1)
		case a.cost == 0:
			return Decision{}, errZeroCost
		case a.bound.live == nil:
			parts = addPart(parts, part{Ask: a})
			continue
		}
		p, err := a.bound.live.find()
		if err != nil {
			return Decision{}, err
		}
		a.bound = p.bound
		if p.Shadow {
			trials = addPart(trials, part{a, p})
		} else {
			parts = addPart(parts, part{a, p})
		}
	}
	if len(parts) == 0 {
		d, err := trials[0].allow(ctx)
		if err == nil {
			tryAll(ctx, &d, trials[1:])
		}
		return d, err
	}
	d, err := decideAll(ctx, parts)
	for _, p := range parts {
		if p.policy != nil {
			p.policy.count(p.key, &d, err)
		}
	}
	if err == nil && d.Allowed {
		tryAll(ctx, &d, trials)
	}
	return d, err
}

// part is an Ask, and the policy whose Bound it is of, or nil.
type part struct {
	Ask
	policy *boundPolicy
}

func (p *part) allow(ctx context.Context) (Decision, error) {
	return p.policy.allow(ctx, p.key, p.cost)
}

// addPart adds a part, or its cost to that of the same Bound and key.
func addPart(parts []part, p part) []part {
	for i := range parts {
		if of := &parts[i]; of.bound == p.bound && of.key == p.key {
			of.cost = window.SumOf(of.cost, p.cost)
			return parts
		}
	}
	return append(parts, p)
}

// tryAll asks policies in shadow about an admitted call.
func tryAll(ctx context.Context, d *Decision, trials []part) {
	for _, p := range trials {
		if own, err := p.allow(ctx); err == nil && own.Shadowed && !d.Shadowed {
			d.Shadowed, d.RefusedBy = true, own.RefusedBy
		}
	}
}

// decideAll decides all parts, whether or not they are in shadow.
func decideAll(ctx context.Context, parts []part) (Decision, error) {
	kept := make([]KeptAsk, 0, MaxAsks)
	for _, p := range parts {
		if p.bound.blocks >= 0 {
			return p.bound.uncounted(), nil
		}
		if p.bound.counting != nil {
			kept = append(kept, KeptAsk{p.bound.counting, p.key, p.cost})
		}
	}
	switch len(kept) {
	case 0:
		return parts[0].bound.uncounted(), nil
	case 1:
		return kept[0].Keeper.AllowN(ctx, kept[0].Key, kept[0].Cost)
	}
	if k, ok := kept[0].Keeper.(interface {
		AllowAll(context.Context, []KeptAsk) (Decision, bool, error)
	}); ok {
		if d, ok, err := k.AllowAll(ctx, kept); ok || err != nil {
			return d, err
		}
	}
	return allReserved(ctx, kept)
}

// allReserved reserves each call, and then commits all or gives all back. If a store becomes unavailable in
// between, the failure policy decides the calls that it cannot commit. What it cannot give back counts until
// the reservation expires.
func allReserved(ctx context.Context, asks []KeptAsk) (d Decision, err error) {
	reserved := make([]*Reservation, 0, len(asks))
	giveBack := func(from int, err error) error {
		for i, r := range reserved[from:] {
			lost := r.Refund(context.WithoutCancel(ctx))
			if _, ok := unsettled(&asks[from+i], r, lost); lost != nil && !ok {
				err = errors.Join(err, lost)
			}
		}
		return err
	}
	for i, a := range asks {
		r, err := a.Keeper.Reserve(ctx, a.Key, a.Cost, reservedFor)
		if err != nil {
			return Decision{}, giveBack(0, err)
		}
		if !r.Allowed {
			d = r.Decision
			for _, a := range asks[i+1:] { // who else refuses, perhaps for longer
				other, err := a.Keeper.Peek(ctx, a.Key, a.Cost)
				if err != nil {
					return Decision{}, giveBack(0, err)
				}
				if !other.Allowed && other.RetryAfter > d.RetryAfter {
					d = other
				}
			}
			return d, giveBack(0, nil)
		}
		if i == 0 || r.Remaining < d.Remaining {
			fallback := d.Fallback
			d = r.Decision
			d.Fallback = d.Fallback || fallback
		}
		reserved = append(reserved, r)
	}
	for i, r := range reserved {
		err := r.Commit(ctx, asks[i].Cost)
		if err == nil {
			continue
		}
		answer, ok := unsettled(&asks[i], r, err)
		if !ok {
			return Decision{}, giveBack(i+1, err)
		}
		if !answer.Allowed {
			for _, a := range asks[:i] { // they are committed
				if k, ok := a.Keeper.(interface {
					GiveBack(ctx context.Context, key string, n uint64) error
				}); ok {
					_ = k.GiveBack(context.WithoutCancel(ctx), a.Key, a.Cost) // or it counts
				}
			}
			return answer, giveBack(i+1, nil)
		}
		d.Fallback = d.Fallback || answer.Fallback
	}
	return d, nil
}

// unsettled returns what the failure policy says of a call that was reserved and cannot be settled because of
// err; false if the policy has no say.
func unsettled(a *KeptAsk, r *Reservation, err error) (Decision, bool) {
	k, ok := a.Keeper.(interface {
		Unsettled(err error, reserved Decision, cost uint64) (Decision, bool)
	})
	if !ok || err == nil {
		return Decision{}, false
	}
	return k.Unsettled(err, r.Decision, a.Cost)
}
