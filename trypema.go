// Package trypema is an exact sliding-window rate limiter.
//
//	limits, err := trypema.NewLocal(trypema.Options{})
//	if err != nil { … }
//	defer limits.Close()
//	perUser, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(100, time.Minute))
//	if err != nil { … }
//
//	d, err := perUser.Allow(ctx, "user:42")
//	if err != nil { … }
//	if !d.Allowed { … d.RetryAfter … }
//
// It never lets more than the limit through in any window of time, wherever that window starts. There is no
// fixed boundary at which a caller can spend its budget twice.
//
// A [Bound] has limits that were bound once, and the verbs for them: Allow, Wait, Reserve and others. [All]
// decides for several keys together, [Policies] have limits by name. A [Limiter] takes a rate with each call.
//
// There are two strategies. Absolute admits while the window has room and rejects at once when it has none.
// Suppressed declines a growing fraction of calls near and over the limit, so that what is admitted settles
// at the limit instead of stopping and starting again.
//
// This package has [Local], the provider whose counts are in this process. Those of packages redislimit and
// hybridlimit are in Redis; all three are a [Provider]. It needs the standard library only.
package trypema

import (
	"context"
	"time"
)

// Limiter is the same verbs on every provider and strategy. It is safe for concurrent use.
//
// The rate belongs to the call, not to the key: a raised or lowered rate judges the usage that is already in
// the window, at once. A denial is a [Decision], never an error; an error means bad input ([ErrInvalidRate],
// [ErrInvalidCost], [ErrInvalidKey]), a closed provider ([ErrClosed]) or, where a provider does I/O, trouble.
// When an error is returned nothing was recorded, unless the error says so.
//
// The window is that of the provider's options. For a limit that comes with its window, see [Bound].
type Limiter interface {
	// Allow is AllowN with a cost of 1.
	Allow(ctx context.Context, key string, rate Rate) (Decision, error)

	// AllowN decides whether a call of cost n may pass now, and records it, in one step: concurrent callers
	// cannot pass the limit together. Absolute records what it admits; Suppressed also counts what it
	// declines. A cost of 0 is ErrInvalidCost.
	AllowN(ctx context.Context, key string, rate Rate, n uint64) (Decision, error)

	// Peek decides as AllowN would at this instant, and records nothing. A cost of 0 asks "is anything left?"
	// and is answered as a cost of 1. Suppressed throws its dice as for a real call.
	Peek(ctx context.Context, key string, rate Rate, n uint64) (Decision, error)

	// Usage reports what the window holds for the key, and changes nothing. A key never seen has a Usage of
	// zero.
	Usage(ctx context.Context, key string, rate Rate) (Usage, error)

	// Set makes the live total of the key equal to total, if the live total meets the condition; if it does
	// not, nothing is written. History says which events stay. A total of 0 removes the key.
	Set(ctx context.Context, key string, when Condition, total uint64, keep History) (SetResult, error)

	// Delete forgets the key. To delete a key that does not exist is no error.
	Delete(ctx context.Context, key string) error

	// Window returns the length of the window. A rate that does not fit it is refused by each call, so
	// middleware checks it when it is made. 0 is not known.
	Window() time.Duration
}
