package thirdparty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
)

// This file proves that Local is linearizable: whatever goroutines ask of it at the same time, with all six
// verbs, every answer is the one that some order of the calls gives, in which no call comes before one that
// had returned when it was made. So a decision and its record are one step, no read sees half of a change,
// and what callers add to a hot key without a lock is never lost, counted twice, or missed by who takes the
// key back.
//
// Real goroutines make many short histories on several numbers of processors; porcupine looks for such an
// order. The window is longer than a history, so that the specification (counter_test.go) needs no clock.
// That the search finds what is wrong is proved with limiters that are.

// seeds returns the seeds of so many histories, or of fifty times as many where tests explore. A seed says
// what is asked, and not how it is scheduled.
func seeds(t *testing.T, few int) (first, last uint64) {
	first = explore.Seed(t)
	return first, first + uint64(explore.Runs(few, 50*few))
}

// withProcessors runs Go code on n processors for the rest of the test.
func withProcessors(t *testing.T, n int) {
	before := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// subject is a limiter, and the rules that it must follow.
type subject struct {
	name   string
	bucket time.Duration
	rules
}

const longWindow = time.Hour

// subjects are both strategies, with one limit and with several. A window has all its events in one group, or
// in many.
func subjects(most, counted uint64, slack time.Duration) []subject {
	one := rules{window: longWindow, oneGroup: true, most: most, counted: counted, slack: slack}
	many, suppressed := one, one
	many.oneGroup, suppressed.suppressed = false, true
	several := func(r rules) rules {
		r.limits = []trypema.Limit{{Window: longWindow}, {Window: 2 * longWindow}, {Window: 3 * longWindow}}
		return r
	}
	return []subject{
		{"Absolute", longWindow, one},
		{"AbsoluteInManyGroups", time.Millisecond, many},
		{"Suppressed", longWindow, suppressed},
		{"SeveralAbsolute", longWindow, several(one)},
		{"SeveralAbsoluteInManyGroups", time.Millisecond, several(many)},
		{"SeveralSuppressed", longWindow, several(suppressed)},
	}
}

var locals = func() []subject {
	all := subjects(unlimited, unlimited, 0)
	for i := range all {
		if s := &all[i]; s.suppressed && s.limits == nil {
			s.late = s.bucket
		}
	}
	return all
}()

// options are those that the rules take for granted.
func (s subject) options() trypema.Options {
	return trypema.Options{Window: s.window, Bucket: s.bucket, HardLimitFactor: 1}
}

// boundLimits is a trypema.Bound, or what looks like one.
type boundLimits interface {
	trypema.Keeper
	Allow(ctx context.Context, key string) (trypema.Decision, error)
}

// target returns the limiter of a provider for a history, or what wrap makes of it.
func (s subject) target(t *testing.T, p trypema.Provider, traffic traffic, wrap wrapper) target {
	strategy := trypema.StrategyAbsolute
	if s.suppressed {
		strategy = trypema.StrategySuppressed
	}
	switch {
	case s.limits != nil:
		b := fixture.Bind(t, p, strategy, traffic.rules.limits...)
		m := boundLimits(b)
		if wrap.several != nil {
			m = wrap.several(m)
		}
		return &several{boundLimits: m}
	case wrap.single != nil:
		return single{wrap.single(of(p, strategy))}
	}
	return single{of(p, strategy)}
}

func of(p trypema.Provider, s trypema.Strategy) trypema.Limiter {
	if s == trypema.StrategySuppressed {
		return p.Suppressed()
	}
	return p.Absolute()
}

// wrapper makes another limiter of one.
type wrapper struct {
	single  func(trypema.Limiter) trypema.Limiter
	several func(boundLimits) boundLimits
}

// history lets the traffic loose on a Local, or on what wrap makes of it, and returns what happened.
func (s subject) history(t *testing.T, traffic traffic, wrap wrapper) []porcupine.Operation {
	o := s.options()
	if traffic.bounded {
		o.MaxKeys = traffic.keys // nobody has to go, but the order of use is kept
	}
	local := fixture.Local(t, o)
	if traffic.crowded {
		makeOthersHot(local.Absolute())
	}
	return traffic.record(func(int) target { return s.target(t, local, traffic, wrap) })
}

// makeOthersHot makes a key hot in each shard.
func makeOthersHot(l trypema.Limiter) {
	for i := range 500 {
		name := fmt.Sprint("crowd ", i)
		for range 16 {
			_, _ = l.Allow(context.Background(), name, trypema.Unlimited)
		}
	}
}

// judge fails unless the histories of a number of seeds are linearizable. Most verdicts take milliseconds. A
// history without one in a few seconds, or a minute at length, is passed over, but most must have one.
func (s subject) judge(t *testing.T, few int, history func(traffic) []porcupine.Operation) {
	t.Helper()
	first, last := seeds(t, few)
	patience := 10 * time.Second
	if explore.Long() {
		patience = time.Minute
	}
	judged := uint64(0)
	for seed := first; seed != last; seed++ {
		traffic := drawTraffic(seed, s.rules)
		happened, model := history(traffic), traffic.rules.model()
		switch porcupine.CheckOperationsTimeout(model, happened, patience) {
		case porcupine.Illegal:
			t.Fatalf("a history is not linearizable, see %s\n%v", draw(t, model, happened), traffic)
		case porcupine.Ok:
			judged++
		}
	}
	if judged <= (last-first)/2 {
		t.Errorf("%d of %d histories were judged", judged, last-first)
	}
}

func TestLocalIsLinearizable(t *testing.T) {
	for _, s := range locals {
		// One processor takes turns, two overlap, and with more than there are one is stopped in the midst of
		// a call.
		for _, processors := range []int{1, 2, 8} {
			if processors == 2 && !explore.Long() {
				continue // what callers do at a time lies between the other two
			}
			t.Run(fmt.Sprintf("%s/%d", s.name, processors), func(t *testing.T) {
				withProcessors(t, processors)
				s.judge(t, 5, func(traffic traffic) []porcupine.Operation { return s.history(t, traffic, wrapper{}) })
			})
		}
	}
}

// draw writes a picture of a history that stays when the test is over, and returns the name of the file.
func draw(t *testing.T, model porcupine.Model, history []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(model, history, time.Minute)
	f, err := os.CreateTemp("", "trypema-history-*.html")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(porcupine.Visualize(model, info, f), f.Close()); err != nil {
		t.Error(err)
	}
	return f.Name()
}

// A limiter that does in two steps what must be one is found out, whichever verb it is.
func TestBrokenLimitersAreRejected(t *testing.T) {
	for name, wrap := range map[string]wrapper{
		"AllowN": {func(l trypema.Limiter) trypema.Limiter { return tornAllow{l} }, nil},
		"Set":    {func(l trypema.Limiter) trypema.Limiter { return tornSet{l} }, nil},
		"Usage":  {func(l trypema.Limiter) trypema.Limiter { return tornUsage{l} }, nil},
		"All":    {nil, func(m boundLimits) boundLimits { return tornAll{m} }},
		"Commit": {nil, func(m boundLimits) boundLimits { return tornCommit{m} }},
	} {
		for _, s := range locals {
			if (s.limits == nil) != (wrap.several == nil) {
				continue
			}
			t.Run(name+"/"+s.name, func(t *testing.T) {
				withProcessors(t, 2)
				s.reject(t, 2000, func(traffic traffic) []porcupine.Operation {
					traffic.keys, traffic.others, traffic.reserves = 1, 4, name == "Commit"
					if name == "All" {
						traffic.callers, traffic.calls = 8, 20
					}
					return s.history(t, traffic, wrap)
				})
			})
		}
	}
}

// reject fails unless one of some histories is not linearizable. Most broken limiters need far fewer.
func (s subject) reject(t *testing.T, bound uint64, history func(traffic) []porcupine.Operation) {
	t.Helper()
	first := explore.Seed(t)
	for seed := first; seed != first+bound; seed++ {
		traffic := drawTraffic(seed, s.rules)
		if porcupine.CheckOperationsTimeout(traffic.rules.model(), history(traffic), time.Second) == porcupine.Illegal {
			t.Logf("rejected by history %d", seed-first+1)
			return
		}
	}
	t.Fatalf("not rejected by %d histories", bound)
}

// between is where a broken limiter lets others in. On a machine that is busy, or has one processor, they
// would seldom come by themselves.
func between() { runtime.Gosched() }

// tornAllow looks first and records then.
type tornAllow struct{ trypema.Limiter }

func (l tornAllow) Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error) {
	return l.AllowN(ctx, key, rate, 1)
}

func (l tornAllow) AllowN(
	ctx context.Context, key string, rate trypema.Rate, n uint64,
) (trypema.Decision, error) {
	u, err := l.Usage(ctx, key, rate)
	if err != nil || n > u.Remaining {
		return l.Limiter.AllowN(ctx, key, rate, n)
	}
	between()
	d, err := l.Limiter.AllowN(ctx, key, trypema.Unlimited, n)
	d.Limit, d.Remaining = u.Limit, u.Remaining-n
	d.RemainingAfterWaiting = d.Remaining
	return d, err
}

// tornSet compares first and writes then.
type tornSet struct{ trypema.Limiter }

func (l tornSet) Set(
	ctx context.Context, key string, when trypema.Condition, total uint64, keep trypema.History,
) (trypema.SetResult, error) {
	u, err := l.Usage(ctx, key, trypema.Unlimited)
	if err != nil || !when.Holds(u.Total) {
		return trypema.SetResult{Previous: u.Total, Current: u.Total}, err
	}
	between()
	return l.Limiter.Set(ctx, key, trypema.Always(), total, keep)
}

// tornUsage reads the total at one instant and what remains at another.
type tornUsage struct{ trypema.Limiter }

func (l tornUsage) Usage(ctx context.Context, key string, rate trypema.Rate) (trypema.Usage, error) {
	before, err := l.Limiter.Usage(ctx, key, rate)
	if err != nil {
		return before, err
	}
	between()
	after, err := l.Limiter.Usage(ctx, key, rate)
	after.Total = before.Total
	return after, err
}

// tornAll asks whether there is room, and records then; whoever was told of room is admitted.
type tornAll struct{ boundLimits }

func (l tornAll) Allow(ctx context.Context, key string) (trypema.Decision, error) {
	return l.AllowN(ctx, key, 1)
}

func (l tornAll) AllowN(ctx context.Context, key string, n uint64) (trypema.Decision, error) {
	d, err := l.Peek(ctx, key, n)
	if err != nil || !d.Allowed {
		return l.boundLimits.AllowN(ctx, key, n)
	}
	between()
	got, err := l.boundLimits.AllowN(ctx, key, n)
	if err == nil && !got.Allowed { // it was told that there is room
		d.Remaining -= min(n, d.Remaining)
		d.RemainingAfterWaiting = d.Remaining
		return d, nil
	}
	return got, err
}

// tornCommit gives the estimate back first, and takes the true cost then, as another call.
type tornCommit struct{ boundLimits }

func (l tornCommit) Reserve(
	ctx context.Context, key string, estimate uint64, expiry time.Duration,
) (*trypema.Reservation, error) {
	r, err := l.boundLimits.Reserve(ctx, key, estimate, expiry)
	if err != nil {
		return nil, err
	}
	return trypema.NewReservation(r.Decision, estimate, expiry, func(ctx context.Context, _, is uint64) error {
		if err := r.Refund(ctx); err != nil || is == 0 {
			return err
		}
		between()
		_, err := l.AllowN(ctx, key, is)
		return err
	}), nil
}
