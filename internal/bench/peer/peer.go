// Package peer drives rate limiters of different libraries through one verb, each set up the way its users
// would set it up for a limit per key, and all to the same limit: at most Capacity in a Window.
//
// Every peer gets the same key strings and keeps its state per key. None has to parse, copy or hash a key in
// another way than its own. Where the verb of a library also formats HTTP headers, that is switched off if it
// can be. Stores keep their own defaults for size and cleaning. What "at most Capacity in a Window" comes to
// differs by algorithm, and is what the accuracy of a benchmark shows.
//
// Those that keep their counts in Redis get a client for each instance, all made in the same way, and keys of
// their own, which no other run knows and which Redis drops by itself.
package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/RussellLuo/slidingwindow"
	"github.com/didip/tollbooth/v8"
	"github.com/go-chi/httprate"
	"github.com/go-redis/redis_rate/v10"
	"github.com/puzpuzpuz/xsync/v4"
	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/bench/rustpeer"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/redislimit"
)

// Limit is what a limiter is to enforce for each key.
type Limit struct {
	Capacity   uint64
	Rate       float64 // per second; Capacity is the whole part of Rate × Window
	Suppressed bool    // the strategy; Trypema only
	Options    trypema.Options

	Server *store.Server // for limiters that keep their counts in Redis; nil for Trypema in this process
}

// Limiter is a limiter of any library.
type Limiter struct {
	// Allow decides and records one call, by the first instance where there are several.
	Allow Verb

	// Instances are Allow of each of several instances, which share the limit; nil where there is one.
	Instances []Verb

	// Many is Allow for several keys in one call, and returns how many were allowed; nil for a limiter that
	// has no such call.
	Many func(keys []string) (allowed int, err error)

	// Len is the number of keys held, by an instance; nil where the library does not tell.
	Len func() int

	// Flush returns when Redis has been told of all calls, and Settled what it then holds of a key; nil where
	// there is nothing to tell.
	Flush   func(context.Context) error
	Settled func(ctx context.Context, key string) (admitted, declined uint64, err error)

	// Provider is where the counts are kept: store.Local, Redis or Hybrid.
	Provider string

	// Process is where the limiter is, if not in this one; nil for most. It can make the calls of a workload
	// there, while Allow asks it for each.
	Process *rustpeer.Process

	// Close ends what the limiter runs in the background.
	Close func() error
}

// Verb decides and records one call.
type Verb = func(key string) (bool, error)

// Verbs are Allow of each instance, at least of one.
func (l Limiter) Verbs() []Verb {
	if l.Instances == nil {
		return []Verb{l.Allow}
	}
	return l.Instances
}

// Bound is the limiter for a caller who stays with one instance; callers are spread over them in turn.
func (l Limiter) Bound(caller int) Limiter {
	verbs := l.Verbs()
	l.Allow, l.Instances = verbs[caller%len(verbs)], nil
	return l
}

// Remote reports whether Redis has to do with it.
func (l Limiter) Remote() bool {
	return l.Provider == store.Redis || l.Provider == store.Hybrid
}

// Waits reports whether every call waits for an answer of Redis.
func (l Limiter) Waits() bool { return l.Provider == store.Redis }

// Ours is the name of this library among the peers, with the provider that the limit's Server names.
const Ours = "trypema"

// variants are names of ours with a provider of their own, for a comparison of them.
var variants = map[string]string{
	Ours + "-local":  store.Local,
	Ours + "-redis":  store.Redis,
	Ours + "-hybrid": store.Hybrid,
}

// Variants lists the names of this library that say where it keeps its counts.
func Variants() []string { return []string{Ours + "-local", Ours + "-redis", Ours + "-hybrid"} }

// IsOurs reports whether a name is one of this library.
func IsOurs(name string) bool { return name == Ours || variants[name] != "" }

// NeedsServer reports whether a limit must have a Server for the peer with this name.
func NeedsServer(name string) bool {
	if p := variants[name]; p != "" {
		return p != store.Local
	}
	return name != Ours && !slices.Contains(NamesIn(store.Local), name)
}

// KeepsKeys reports whether a peer may keep the string of a call for a key that it knew before.
func KeepsKeys(name string) bool { return name == "ulule" || name == "tollbooth" }

// InWholeSeconds reports whether the windows of a peer must be whole seconds.
func InWholeSeconds(name string) bool { return strings.HasPrefix(name, "rust-trypema") }

// MissingError is the error of Open for a limiter that can not be had here.
type MissingError struct{ Name, Why string }

func (e *MissingError) Error() string { return e.Name + ": " + e.Why }

// others is the table of all limiters but ours, in the order in which they are listed.
var others = []struct {
	name     string
	provider string // where it keeps its counts
	open     func(context.Context, Limit) (Limiter, error)
}{
	{"xtime-syncmap", store.Local, openXTimeSyncMap},
	{"xtime-xsync", store.Local, openXTimeXSync},
	{"go-limiter", store.Local, openGoLimiter},
	{"throttled", store.Local, openThrottled},
	{"ulule", store.Local, openUlule},
	{"httprate", store.Local, openHTTPRate},
	{"slidingwindow", store.Local, openSlidingWindow},
	{"tollbooth", store.Local, openTollbooth},
	{"governor", store.Local, openRust("governor", store.Local)},
	{"rust-trypema", store.Local, openRust("trypema", store.Local)},
	{"redis_rate", store.Redis, openRedisRate},
	{"redis-cell", store.Redis, openRedisCell},
	{"rust-trypema-redis", store.Redis, openRust("trypema", store.Redis)},
	{"rust-trypema-hybrid", store.Hybrid, openRust("trypema", store.Hybrid)},
}

// Names lists the peers, ours first.
func Names() []string { return NamesIn(store.Local, store.Redis, store.Hybrid) }

// NamesIn lists those that can keep their counts where one of the providers does, ours first.
func NamesIn(providers ...string) []string {
	names := []string{Ours}
	for _, p := range others {
		if slices.Contains(providers, p.provider) {
			names = append(names, p.name)
		}
	}
	return names
}

// Open returns a new limiter without any state. The name is one of Names or Variants; for one that keeps its
// counts in Redis, the limit has a Server. One that is written in Rust is built first, if it is not yet,
// which takes a minute or two. The error is a *MissingError for a limiter that can not be had.
func Open(ctx context.Context, name string, l Limit) (Limiter, error) {
	if IsOurs(name) {
		provider := cmp.Or(variants[name], l.Server.Provider())
		if provider == store.Local {
			return openTrypemaLocal(l)
		}
		return openTrypemaRemote(provider, l)
	}
	for _, p := range others {
		if p.name != name {
			continue
		}
		limiter, err := p.open(ctx, l)
		if limiter.Close == nil {
			limiter.Close = func() error { return nil }
		}
		limiter.Provider = p.provider
		return limiter, err
	}
	return Limiter{}, fmt.Errorf("no peer is called %q", name)
}

func openTrypemaLocal(l Limit) (Limiter, error) {
	local, err := trypema.NewLocal(l.Options)
	if err != nil {
		return Limiter{}, err
	}
	strategy := l.strategy(local)
	ctx, perSecond := context.Background(), trypema.Rate(l.Rate)
	batches := sync.Pool{New: func() any { return new(batch) }}
	return Limiter{
		Allow: func(key string) (bool, error) {
			d, err := strategy.Allow(ctx, key, perSecond)
			return d.Allowed, err
		},
		Many: func(keys []string) (allowed int, err error) {
			b := batches.Get().(*batch)
			defer batches.Put(b)
			b.calls, b.decisions = b.calls[:0], b.decisions[:0]
			for _, key := range keys {
				b.calls = append(b.calls, trypema.Call{Key: key, Cost: 1})
			}
			b.decisions, err = trypema.AllowMany(ctx, strategy, perSecond, b.calls, b.decisions)
			for i := range b.decisions {
				if b.decisions[i].Allowed {
					allowed++
				}
			}
			return allowed, err
		},
		Len:      local.Len,
		Provider: store.Local,
		Close:    local.Close,
	}, nil
}

// batch is what a caller of AllowMany has for its calls.
type batch struct {
	calls     []trypema.Call
	decisions []trypema.Decision
}

// strategy is the one of a provider that the limit names.
func (l Limit) strategy(p trypema.Provider) trypema.Limiter {
	if l.Suppressed {
		return p.Suppressed()
	}
	return p.Absolute()
}

// With the patience of the other clients, ours decides nothing without Redis that they would not fail at.
// Such a decision is a failure here: it says nothing about Redis.
func openTrypemaRemote(provider string, l Limit) (Limiter, error) {
	limits, err := l.Server.Limits(provider,
		redislimit.Options{Options: l.Options, Timeout: l.Server.Patience()})
	if err != nil {
		return Limiter{}, err
	}
	ctx, perSecond := context.Background(), trypema.Rate(l.Rate)
	var verbs []Verb
	for _, i := range limits.Instances {
		strategy := l.strategy(i)
		verbs = append(verbs, func(key string) (bool, error) {
			d, err := strategy.Allow(ctx, key, perSecond)
			if err == nil && d.Fallback {
				err = errors.New("decided without Redis, which did not answer")
			}
			return d.Allowed, err
		})
	}
	limiter := Limiter{Allow: verbs[0], Instances: verbs, Provider: provider, Close: limits.Close}
	if provider == store.Hybrid {
		first := l.strategy(limits.Instances[0])
		limiter.Len = limits.Len
		limiter.Flush = limits.Flush
		limiter.Settled = func(ctx context.Context, key string) (admitted, declined uint64, err error) {
			u, err := first.Usage(ctx, key, perSecond)
			return u.Total - u.Declined, u.Declined, err
		}
	}
	return limiter, nil
}

// bucket is a token bucket of x/time/rate. It refills at the rate and holds at most the capacity.
func bucket(l Limit) *rate.Limiter { return rate.NewLimiter(rate.Limit(l.Rate), int(l.Capacity)) }

// x/time/rate has no keys. The usual way to give it some is a sync.Map of limiters, looked up first, so that
// a known key costs no allocation.
func openXTimeSyncMap(_ context.Context, l Limit) (Limiter, error) {
	return perKey(func() *rate.Limiter { return bucket(l) }), nil
}

// The same in a faster map.
func openXTimeXSync(_ context.Context, l Limit) (Limiter, error) {
	m := xsync.NewMap[string, *rate.Limiter]()
	create := func() (*rate.Limiter, bool) { return bucket(l), false }
	return Limiter{
		Allow: func(key string) (bool, error) {
			b, _ := m.LoadOrCompute(key, create)
			return b.Allow(), nil
		},
		Len: m.Size,
	}, nil
}

// perKey keeps one limiter for each key in a sync.Map.
func perKey[L interface{ Allow() bool }](create func() L) Limiter {
	var m sync.Map
	return Limiter{
		Allow: func(key string) (bool, error) {
			known, ok := m.Load(key)
			if !ok {
				known, _ = m.LoadOrStore(key, create())
			}
			return known.(L).Allow(), nil
		},
		Len: func() (n int) {
			m.Range(func(any, any) bool { n++; return true })
			return n
		},
	}
}

// go-limiter counts tokens per interval, which starts at the first call of a key.
func openGoLimiter(_ context.Context, l Limit) (Limiter, error) {
	ctx := context.Background()
	store, err := memorystore.New(&memorystore.Config{Tokens: l.Capacity, Interval: l.Options.Window})
	if err != nil {
		return Limiter{}, err
	}
	return Limiter{
		Allow: func(key string) (bool, error) {
			_, _, _, ok, err := store.Take(ctx, key)
			return ok, err
		},
		Close: func() error { return store.Close(ctx) },
	}, nil
}

// throttled is GCRA: the same limit is a rate of Capacity per Window with Capacity at once, which it calls a
// burst of one less. Its store has no bound of keys here: the bound it can have is an LRU that would slow it
// down.
func openThrottled(_ context.Context, l Limit) (Limiter, error) {
	ctx := context.Background()
	store, err := memstore.NewCtx(0)
	if err != nil {
		return Limiter{}, err
	}
	limiter, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{
		MaxRate:  throttled.PerDuration(int(l.Capacity), l.Options.Window),
		MaxBurst: int(l.Capacity) - 1,
	})
	if err != nil {
		return Limiter{}, err
	}
	// It gives up after ten lost races for a key, with an error, where its users would try again or deny.
	limiter.SetMaxCASAttemptsLimit(1 << 20)
	return Limiter{Allow: func(key string) (bool, error) {
		limited, _, err := limiter.RateLimitCtx(ctx, key, 1)
		return !limited, err
	}}, nil
}

// ulule counts in a fixed window, which starts at the first call of a key.
func openUlule(_ context.Context, l Limit) (Limiter, error) {
	ctx := context.Background()
	u := limiter.New(memory.NewStore(), limiter.Rate{Period: l.Options.Window, Limit: int64(l.Capacity)})
	return Limiter{Allow: func(key string) (bool, error) {
		c, err := u.Get(ctx, key)
		return !c.Reached, err
	}}, nil
}

// httprate weighs the counts of two fixed windows. Its only verb that decides and records is OnLimit, made
// for a handler; with empty names for its headers it leaves the response alone.
func openHTTPRate(_ context.Context, l Limit) (Limiter, error) {
	h := httprate.NewRateLimiter(int(l.Capacity), l.Options.Window,
		httprate.WithResponseHeaders(httprate.ResponseHeaders{}))
	request, err := http.NewRequest(http.MethodGet, "/", http.NoBody)
	if err != nil {
		return Limiter{}, err
	}
	return Limiter{Allow: func(key string) (bool, error) {
		return !h.OnLimit(nil, request, key), nil
	}}, nil
}

// slidingwindow weighs the counts of two fixed windows, and has no keys.
func openSlidingWindow(_ context.Context, l Limit) (Limiter, error) {
	return perKey(func() *slidingwindow.Limiter {
		s, _ := slidingwindow.NewLimiter(l.Options.Window,
			int64(l.Capacity), func() (slidingwindow.Window, slidingwindow.StopFunc) {
				return slidingwindow.NewLocalWindow()
			})
		return s
	}), nil
}

// tollbooth is a cache of buckets of x/time/rate, made for a handler. LimitReached is what decides there.
func openTollbooth(_ context.Context, l Limit) (Limiter, error) {
	t := tollbooth.NewLimiter(l.Rate, nil).SetBurst(int(l.Capacity))
	return Limiter{Allow: func(key string) (bool, error) { return !t.LimitReached(key), nil }}, nil
}

// governor is GCRA in a concurrent map; rust-trypema is the library that first described what ours does, with
// the same strategies and options. What they are set up with stands beside them, in internal/bench/rust.
func openRust(limiter, provider string) func(context.Context, Limit) (Limiter, error) {
	return func(ctx context.Context, l Limit) (Limiter, error) {
		settings := rustpeer.Settings{
			Limiter: limiter, Provider: provider,
			Capacity: l.Capacity, Rate: l.Rate, Suppressed: l.Suppressed && limiter == Ours,
			Window: l.Options.Window, Bucket: l.Options.Bucket, HardLimitFactor: l.Options.HardLimitFactor,
		}
		if provider != store.Local {
			if l.Server.Instances() > 1 || l.Server.IsCluster() {
				return Limiter{}, &MissingError{limiter + " in Rust", "it is measured as one instance, on one server"}
			}
			settings.Redis, settings.Prefix = l.Server.URL(), store.Prefix()
			settings.SyncInterval = l.Server.SyncInterval()
		}
		p, err := rustpeer.Open(ctx, settings)
		var missing *rustpeer.MissingError
		if errors.As(err, &missing) {
			err = &MissingError{limiter + " in Rust", missing.Why}
		}
		if err != nil {
			return Limiter{}, err
		}
		return Limiter{
			Allow: func(key string) (bool, error) {
				ok, err := p.Allow(context.Background(), key)
				return err == nil && ok[0], err
			},
			Process: p,
			Close:   p.Close,
		}, nil
	}
}

// clients makes a verb of each of as many clients as there are instances.
func clients(s *store.Server, verb func(redis.UniversalClient) Verb) Limiter {
	var verbs []Verb
	var ends []func() error
	for range s.Instances() {
		c := s.GoRedis()
		verbs, ends = append(verbs, verb(c)), append(ends, c.Close)
	}
	return Limiter{Allow: verbs[0], Instances: verbs, Close: func() (err error) {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
		return err
	}}
}

// redis_rate is GCRA in a script: the same limit is a rate of Capacity per Window with Capacity at once.
func openRedisRate(_ context.Context, l Limit) (Limiter, error) {
	ctx, prefix := context.Background(), store.Prefix()
	limit := redis_rate.Limit{Rate: int(l.Capacity), Burst: int(l.Capacity), Period: l.Options.Window}
	return clients(l.Server, func(c redis.UniversalClient) Verb {
		limiter := redis_rate.NewLimiter(c)
		return func(key string) (bool, error) {
			r, err := limiter.Allow(ctx, prefix+key, limit)
			return err == nil && r.Allowed > 0, err
		}
	}), nil
}

// redis-cell is GCRA in a module of the server. It takes a rate as a count in whole seconds, and a burst of
// one less than may come at once.
func openRedisCell(_ context.Context, l Limit) (Limiter, error) {
	ctx, prefix := context.Background(), store.Prefix()
	count, seconds := inWholeSeconds(l.Capacity, l.Options.Window)
	limiter := clients(l.Server, func(c redis.UniversalClient) Verb {
		return func(key string) (bool, error) {
			// Its reply: whether it is limited, then how far and for how long.
			reply, err := c.Do(ctx, "CL.THROTTLE", prefix+key, l.Capacity-1, count, seconds, 1).Int64Slice()
			return err == nil && len(reply) > 0 && reply[0] == 0, err
		}
	})
	if _, err := limiter.Allow(""); err != nil {
		if redis.HasErrorPrefix(err, "unknown command") {
			err = &MissingError{"redis-cell", "the server does not have this module, whose command is CL.THROTTLE"}
		}
		return Limiter{}, errors.Join(err, limiter.Close())
	}
	return limiter, nil
}

// inWholeSeconds is a rate of n per window as a count per whole number of seconds, in the smallest numbers
// there are.
func inWholeSeconds(n uint64, window time.Duration) (count, seconds uint64) {
	r := big.NewRat(int64(n)*int64(time.Second), int64(window))
	return r.Num().Uint64(), r.Denom().Uint64()
}
