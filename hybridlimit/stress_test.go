package hybridlimit_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// told is what callers of one strategy were told.
type told struct{ allowed, denied, errors atomic.Uint64 }

// Everything that can be done to a provider is done to it at the same time, on few processors and on many:
// calls of all verbs, with one limit and with several, reservations that are settled, that expire or neither;
// keys that go because they are idle or too many, or are set or deleted; meters that are read; and an end in
// the midst of it. No number wraps or contradicts another, no error is one that nobody has caused, and the
// meters have counted each call, once.
func TestEverythingAtOnce(t *testing.T) {
	for _, processors := range []int{1, 2, 8} {
		if processors == 2 && !explore.Long() {
			continue
		}
		for provider, open := range map[string]func(o redislimit.Options) (provider, error){
			"local": func(o redislimit.Options) (provider, error) { return trypema.NewLocal(o.Options) },
			"redis": func(o redislimit.Options) (provider, error) { return redislimit.New(fakeredis.New(), o) },
			"hybrid": func(o redislimit.Options) (provider, error) {
				return hybridlimit.New(fakeredis.New(), hybridlimit.Options{Options: o})
			},
		} {
			t.Run(fmt.Sprint(provider, " on ", processors), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
				var meters trypema.Meters
				p, err := open(redislimit.Options{Timeout: 10 * time.Second, Options: trypema.Options{
					Window: 20 * time.Millisecond, Bucket: time.Millisecond, MaxKeys: 64, Observer: &meters,
				}})
				if err != nil {
					t.Fatal(err)
				}
				s := &stress{T: t, provider: p, meters: &meters}
				s.run(time.Duration(explore.Size(50, 2000)) * time.Millisecond)
			})
		}
	}
}

// provider is what all have in common.
type provider interface {
	trypema.Binder
	Absolute() trypema.Limiter
	Suppressed() trypema.Limiter
	Close() error
}

type stress struct {
	*testing.T
	provider
	meters *trypema.Meters
	told   [2]told
	closed atomic.Bool // it is being closed, or is
}

func (s *stress) run(d time.Duration) {
	var limiters [2]trypema.Limiter
	var several [2]*trypema.Bound
	limiters[0], limiters[1] = s.Absolute(), s.Suppressed()
	for i, strategy := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		m, err := s.Bind(strategy, trypema.Limit{Rate: 5000, Window: 20 * time.Millisecond},
			trypema.Limit{Rate: 2000, Window: 100 * time.Millisecond})
		if err != nil {
			s.Fatal(err)
		}
		several[i] = m
	}
	began := time.Now()
	over := func() bool { // the last calls are made after the end
		return s.closed.Load() && time.Since(began) > d+50*time.Millisecond
	}
	var all sync.WaitGroup
	for caller := range uint64(8) {
		rng := rand.New(rand.NewPCG(caller, 1))
		all.Go(func() {
			for !over() {
				key := fmt.Sprint("hot", rng.IntN(3))
				if rng.IntN(4) == 0 {
					key = fmt.Sprint("cold", rng.IntN(1000))
				}
				which := rng.IntN(2)
				s.do(rng, which, limiters[which], several[which], key)
			}
		})
	}
	for time.Sleep(d); s.missing() && time.Since(began) < 5*time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
	s.closed.Store(true)
	if err := s.Close(); err != nil {
		s.Error(err)
	}
	all.Wait()
	for _, m := range s.meters.All() {
		which := map[string]int{"absolute": 0, "suppressed": 1}[m.Strategy]
		told, counted := &s.told[which], m.Read()
		if counted.Allowed != told.allowed.Load() ||
			counted.Rejected+counted.Suppressed != told.denied.Load() || counted.Errors != told.errors.Load() {
			s.Errorf("%s: %d allowed, %d denied, %d errors, and the meter has %+v", m.Strategy,
				told.allowed.Load(), told.denied.Load(), told.errors.Load(), counted)
		}
	}
	if s.missing() {
		s.Error("one of the strategies has admitted nothing, or denied nothing")
	}
}

// missing reports whether there is an answer that nobody was given yet.
func (s *stress) missing() bool {
	for i := range s.told {
		if s.told[i].allowed.Load() == 0 || s.told[i].denied.Load() == 0 {
			return true
		}
	}
	return false
}

func (s *stress) do(rng *rand.Rand, which int, l trypema.Limiter, several *trypema.Bound, key string) {
	rate, n := trypema.Rate(1000), 1+rng.Uint64N(3)
	var d trypema.Decision
	var err error
	decided := true
	switch rng.IntN(20) {
	case 0:
		_, err = l.Set(ctx, key, trypema.Greater(5), rng.Uint64N(100), trypema.History(rng.IntN(3)))
		decided = false
	case 1:
		err, decided = l.Delete(ctx, key), false
	case 2, 3:
		var u trypema.Usage
		u, err = l.Usage(ctx, key, rate)
		decided = false
		if u.Declined > u.Total || u.Total > 1<<40 || u.Remaining > u.Limit {
			s.Errorf("%+v", u)
		}
	case 4:
		d, err = l.Peek(ctx, key, rate, n)
		decided = false
	case 5:
		_, err = several.Usage(ctx, key)
		decided = false
	case 6:
		err, decided = several.Delete(ctx, key), false
	case 7, 8:
		d, err = several.AllowN(ctx, key, n)
	case 9, 10:
		var r *trypema.Reservation
		if r, err = several.Reserve(ctx, key, n, time.Duration(rng.IntN(3))*10*time.Millisecond); err == nil {
			d = r.Decision
			if rng.IntN(3) > 0 {
				if e := r.Commit(ctx, rng.Uint64N(5)); e != nil && !errors.Is(e, trypema.ErrSettled) && !errors.Is(e, trypema.ErrDenied) {
					s.check(e)
				}
			}
		}
	case 11:
		for _, m := range s.meters.All() {
			m.Read()
			for range m.TopLimited(3) {
				break
			}
		}
		return
	default:
		d, err = l.AllowN(ctx, key, rate, n)
	}
	s.check(err)
	if d.Remaining > d.Limit || d.RetryAfter < 0 ||
		d.Allowed != (d.Outcome == trypema.OutcomeAllowed) && err == nil && d.Limit > 0 ||
		d.Fallback {
		s.Errorf("%+v, %v", d, err)
	}
	if decided {
		switch told := &s.told[which]; {
		case err != nil:
			told.errors.Add(1)
		case d.Allowed:
			told.allowed.Add(1)
		default:
			told.denied.Add(1)
		}
	}
}

func (s *stress) check(err error) {
	if err != nil && (!s.closed.Load() || !errors.Is(err, trypema.ErrClosed)) {
		s.Error(err)
	}
}
