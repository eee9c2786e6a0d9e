package trypema

import (
	"context"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/window"
)

// Call is a key and the cost of a call for it, for AllowMany.
type Call struct {
	Key  string
	Cost uint64 // at least 1
}

// AllowMany decides many calls at a rate, in order, each as if it were alone, and appends a decision for each
// to a slice:
//
//	decisions, err := trypema.AllowMany(ctx, limits.Absolute(), trypema.PerMinute(100), calls, decisions[:0])
//
// It is for servers that read pipelines, for batch jobs and for the replay of logs. On Local it takes a
// fraction of the time of single calls where there are many keys, because the memory of all keys is requested
// at once; sixteen calls at a time are decided at one instant. It allocates nothing if the slice is long
// enough. On Redis, calls share round trips: one for up to 256 keys. On Hybrid, calls that wait for Redis
// wait together. A Limiter without a method like AllowMany of Bound, that takes the rate first, is called for
// one after the other.
//
// A key that is not valid, a cost of 0 or a wrong rate is an error before any call is decided. After any
// other error the decisions of the calls before it are returned with the error; on Redis and Hybrid, some of
// those after it may have been decided, too.
func AllowMany(ctx context.Context, l Limiter, rate Rate, calls []Call, to []Decision) ([]Decision, error) {
	if invalid.Nil(l) {
		return to, invalid.Errorf(ErrInvalidOptions, "the limiter is nil; it must be one of a provider")
	}
	if many, ok := l.(manyLimiter); ok {
		return many.AllowMany(ctx, rate, calls, to)
	}
	if err := checkCosts(calls); err != nil {
		return to, err
	}
	return eachCall(calls, to, func(c Call) (Decision, error) { return l.AllowN(ctx, c.Key, rate, c.Cost) })
}

// manyLimiter is a Limiter that decides many calls faster than one after the other.
type manyLimiter interface {
	AllowMany(ctx context.Context, rate Rate, calls []Call, to []Decision) ([]Decision, error)
}

// AllowMany decides many calls, in order, each as if it were alone, and appends a decision for each to a
// slice: see the function AllowMany.
func (b *Bound) AllowMany(ctx context.Context, calls []Call, to []Decision) ([]Decision, error) {
	b = b.made()
	k := b.keeper
	if with, ok := k.(*withNoLimit); ok {
		k = with.Keeper
	}
	if many, ok := k.(manyKeeper); ok {
		return many.AllowMany(ctx, calls, to)
	}
	if err := checkCosts(calls); err != nil {
		return to, err
	}
	return eachCall(calls, to, func(c Call) (Decision, error) { return b.AllowN(ctx, c.Key, c.Cost) })
}

// manyKeeper is a Keeper with AllowMany.
type manyKeeper interface {
	AllowMany(ctx context.Context, calls []Call, to []Decision) ([]Decision, error)
}

func checkCosts(calls []Call) error {
	for i := range calls {
		if calls[i].Cost == 0 {
			return invalid.Errorf(ErrInvalidCost, "call %d: cost is 0; it must be at least 1", i)
		}
	}
	return nil
}

func eachCall(calls []Call, to []Decision, decide func(Call) (Decision, error)) ([]Decision, error) {
	for i := range calls {
		d, err := decide(calls[i])
		if err != nil {
			return to, err
		}
		to = append(to, d)
	}
	return to, nil
}

// checkCalls returns what is wrong with calls, or that the provider is closed.
func (k *localKeys) checkCalls(calls []Call) error {
	if err := checkCosts(calls); err != nil {
		return err
	}
	for i := range calls {
		if n := len(calls[i].Key); n > maxKeyLen {
			return invalid.Errorf(ErrInvalidKey, "call %d: key has %d bytes; it must have at most %d", i, n, maxKeyLen)
		}
	}
	if k.closed.Load() {
		return ErrClosed
	}
	return nil
}

func (l *localAbsolute) AllowMany(
	_ context.Context, rate Rate, calls []Call, to []Decision,
) ([]Decision, error) {
	c, err := l.capacity("", rate)
	if err != nil {
		return to, l.failed(1, err)
	}
	return l.many(calls, to, judge{capacity: c})
}

func (l *localSuppressed) AllowMany(
	_ context.Context, rate Rate, calls []Call, to []Decision,
) ([]Decision, error) {
	c, err := l.capacity("", rate)
	if err != nil {
		return to, l.failed(1, err)
	}
	return l.many(calls, to, judge{law: l.law(c), dice: l.dice})
}

// AllowMany is that of a single limit: see Bound.
func (m *localAlone) AllowMany(_ context.Context, calls []Call, to []Decision) ([]Decision, error) {
	l := &m.limit
	return l.many(calls, to, judge{capacity: l.capacity, law: l.law, dice: m.owner.suppressed.dice, alone: m})
}

// judge is what many calls are judged by.
type judge struct {
	capacity uint64      // of Absolute
	law      *window.Law // of Suppressed
	dice     func() float64
	alone    *localAlone // or nil for a limiter
}

// many decides calls, of which it looks at sixteen at a time.
func (k *localKeys) many(calls []Call, to []Decision, by judge) ([]Decision, error) {
	group := ""
	if by.alone != nil {
		group = by.alone.group
	}
	if err := k.checkCalls(calls); err != nil {
		return to, k.failed(1, err)
	}
	var b batch
	for len(calls) > 0 {
		n := b.look(k, calls, group)
		for i := range n {
			to = append(to, Decision{})
			d := &to[len(to)-1]
			if by.law == nil {
				k.absoluteAt(d, &b.looked[i], b.keys[i], b.now, by.capacity, calls[i].Cost)
			} else {
				k.suppressedAt(d, &b.looked[i], b.keys[i], b.now, by.law, by.dice(), calls[i].Cost)
			}
			if by.alone != nil {
				by.alone.told(d)
			}
		}
		calls = calls[n:]
	}
	return to, nil
}

// batch is calls whose memory was requested at once.
type batch struct {
	keys   [16]string
	looked [16]looked
	now    int64
}

// look begins the next calls, and returns how many.
func (b *batch) look(k *localKeys, calls []Call, group string) (n int) {
	for n < min(len(calls), len(b.looked)) {
		at := &b.looked[n]
		b.keys[n] = form(group, calls[n].Key)
		at.hash = k.table.Hash(b.keys[n])
		at.requested = false
		if k.table.Hot(at.hash, b.keys[n]) == nil && k.table.Full(at.hash, b.keys[n]) == nil {
			at.look(k)
		}
		n++
	}
	b.now = k.now()
	return n
}

var _, _ manyLimiter = (*localAbsolute)(nil), (*localSuppressed)(nil)
