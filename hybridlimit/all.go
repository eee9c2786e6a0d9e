package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// errSeveralServers is a call whose keys are on several servers of Redis, of which one does not answer. The
// failure policy is for the keys of that server alone. The error never gets to a caller of the package.
var errSeveralServers = errors.New("hybridlimit: the failure policy is not for all keys of the call")

// AllowAll decides calls of several keepers of one provider and strategy from leases, as one joint decision:
// see trypema.All. Those that need a lease wait for it together. What a key is asked in one window adds up,
// and the least of the limits counts.
func (m *keeper) AllowAll(
	ctx context.Context, asks []trypema.KeptAsk,
) (d trypema.Decision, ok bool, err error) {
	began := m.counter.now()
	var room [trypema.MaxLimits]party
	parties := room[:0]
	for _, a := range asks {
		k, same := a.Keeper.(*keeper)
		if !same || k.counter != m.counter {
			return d, false, nil
		}
		if err = k.check(a.Key); err != nil {
			m.counter.count("", &d, err, began)
			return d, false, err
		}
		parties = k.join(parties, k.inTable(a.Key), a.Cost)
	}
	slices.SortStableFunc(parties, lockOrder)
	j := joint{counter: m.counter, keeper: m, parties: merge(parties), began: began, dice: rand.Float64()}
	j.mode = lease.Record
	err = j.decide(ctx, &d)
	if errors.Is(err, errSeveralServers) {
		return d, false, nil
	}
	for _, a := range asks {
		k := a.Keeper.(*keeper)
		k.counter.count(groupkey.Shown(k.inTable(a.Key)), &d, err, began)
	}
	runtime.KeepAlive(asks) // or the windows may go meanwhile
	return d, true, err
}

// lockOrder is the order in which the shards of parties of one provider and strategy are locked.
func lockOrder(a, b party) int {
	return cmp.Or(cmp.Compare(a.terms.Window, b.terms.Window), a.table.CompareShards(a.hash, b.hash))
}

// merge makes one party of those that have an account in common.
func merge(parties []party) []party {
	merged := parties[:0]
next:
	for _, p := range parties {
		for i := range merged {
			of := &merged[i]
			if of.limiter != p.limiter || of.hash != p.hash || of.key != p.key {
				continue
			}
			if p.capacity < of.capacity {
				of.limit = p.limit
			}
			of.cost = window.SumOf(of.cost, p.cost)
			continue next
		}
		merged = append(merged, p)
	}
	return merged
}

// onSeveralServers reports whether keys of the call are on several servers. The shards must be locked.
func (j *joint) onSeveralServers() bool {
	first := &j.parties[0]
	server := first.k.server.Load()
	return j.some(func(p *party) bool { return p.key != first.key && p.k.server.Load() != server })
}
