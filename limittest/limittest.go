// Package limittest is the conformance suite for implementations of [trypema.Limiter]: what every provider
// and strategy must do, as tests. Run it on yours:
//
//	func TestConformance(t *testing.T) {
//		limittest.Run(t, limittest.Subject{
//			New: func(t *testing.T, o trypema.Options) trypema.Limiter { … },
//			In:  synctest.Test, // if its clock can be virtual
//		})
//	}
//
// A test makes a limiter of its own with the options that it needs, uses it through the public verbs, and
// waits with time.Sleep.
package limittest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

// Subject is the implementation under test.
type Subject struct {
	// New returns a limiter without any keys. What has to be closed is closed by t.Cleanup.
	New func(t *testing.T, o trypema.Options) trypema.Limiter

	// Suppressed says which strategy it is: false is Absolute.
	Suppressed bool

	// In runs a test in the clock of the subject: synctest.Test, or nil for real time.
	In func(t *testing.T, test func(*testing.T))

	// Window is the window of the tests, in which a few hundred calls must be possible. Default 10s.
	Window time.Duration

	// Resolution is the smallest step of the subject's clock. Default 1ns.
	Resolution time.Duration

	// Jitter is how much later than asked for a call may be judged: sleeping, travelling, and being scheduled
	// take time where time is real. Default 0.
	Jitter time.Duration

	// Lag is how much later than the truth RetryAfter may be, where room is noticed only now and then.
	// Default 0.
	Lag time.Duration

	// Use is the share of the capacity that a caller who always wants more must get in each window beside the
	// bucket's share, as a fraction. Default 1.
	Use float64

	// Join returns another instance that shares the counts of a provider which RunBind has opened. nil
	// leaves out what takes two, where every provider counts for itself.
	Join func(t *testing.T, p trypema.Provider) trypema.Provider

	// EmptyKey says that the empty key is a key like any other.
	EmptyKey bool

	virtual bool // time is
	brief   bool // the first case of each test is enough
}

// Run runs the suite, one subtest for each requirement.
func Run(t *testing.T, s Subject) {
	s = s.withDefaults()
	for _, test := range []struct {
		name string
		run  func(*Subject, *trial)
		only string
	}{
		{"FirstCall", (*Subject).firstCall, ""},
		{"RemainingCountsDown", (*Subject).remainingCountsDown, "absolute"},
		{"BoundInAnyWindow", (*Subject).boundInAnyWindow, ""},
		{"BoundUnderConcurrency", (*Subject).boundUnderConcurrency, ""},
		{"GreedyCallerGetsItsShare", (*Subject).greedyCaller, "absolute"},
		{"EvenCallerIsNeverDenied", (*Subject).evenCaller, ""},
		{"RetryAfterIsTrue", (*Subject).retryAfter, ""},
		{"MoreThanCapacityIsNever", (*Subject).moreThanCapacity, ""},
		{"DenialCostsNothing", (*Subject).denialCostsNothing, "absolute"},
		{"DenialIsCounted", (*Subject).denialIsCounted, "suppressed"},
		{"BurstFromColdIsAdmitted", (*Subject).burstFromCold, "suppressed"},
		{"SettlesAtTheLimit", (*Subject).settlesAtTheLimit, "suppressed"},
		{"NoHeadroomIsAbsolute", (*Subject).noHeadroom, "suppressed"},
		{"RateBelongsToTheCall", (*Subject).rateBelongsToTheCall, ""},
		{"PeekAndUsageRecordNothing", (*Subject).readsRecordNothing, ""},
		{"KeysAreIndependent", (*Subject).keysAreIndependent, ""},
		{"BadInputChangesNothing", (*Subject).badInput, ""},
		{"LargeNumbersDoNotWrap", (*Subject).largeNumbers, ""},
		{"SetHistory", (*Subject).setHistory, ""},
		{"SetConditions", (*Subject).setConditions, ""},
		{"SetTimes", (*Subject).setTimes, "absolute"},
		{"Delete", (*Subject).delete, ""},
	} {
		if test.only == "absolute" && s.Suppressed || test.only == "suppressed" && !s.Suppressed {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			s.In(t, func(t *testing.T) { test.run(&s, s.trial(t)) })
		})
	}
}

func (s Subject) withDefaults() Subject {
	s.virtual = s.virtual || s.In != nil
	if s.In == nil {
		s.In = func(t *testing.T, test func(*testing.T)) { test(t) }
	}
	s.Window = cmp.Or(s.Window, 10*time.Second)
	s.Resolution = cmp.Or(s.Resolution, 1)
	s.Use = cmp.Or(s.Use, 1)
	return s
}

// subject is a limiter with the helpers that make tests short: they fail the test on any error.
type subject struct {
	trypema.Limiter
	*trial
}

var ctx = context.Background()

func (s *Subject) make(t *trial, o trypema.Options) subject {
	t.Helper()
	o.Window = cmp.Or(o.Window, s.Window)
	return subject{s.New(t.T, o), t}
}

// rate is the rate at which a window holds c.
func (s *Subject) rate(c uint64) trypema.Rate { return trypema.Per(float64(c), s.Window) }

func (l subject) allow(key string, rate trypema.Rate, n uint64) trypema.Decision {
	l.Helper()
	defer l.took(time.Now())
	d, err := l.AllowN(ctx, key, rate, n)
	if err != nil {
		l.Fatalf("AllowN(%q, %v, %d): %v", key, rate, n, err)
	}
	l.coherent(d, n)
	return d
}

func (l subject) peek(key string, rate trypema.Rate, n uint64) trypema.Decision {
	l.Helper()
	defer l.took(time.Now())
	d, err := l.Peek(ctx, key, rate, n)
	if err != nil {
		l.Fatalf("Peek(%q, %v, %d): %v", key, rate, n, err)
	}
	l.coherent(d, n)
	return d
}

func (l subject) usage(key string, rate trypema.Rate) trypema.Usage {
	l.Helper()
	defer l.took(time.Now())
	u, err := l.Usage(ctx, key, rate)
	if err != nil {
		l.Fatalf("Usage(%q, %v): %v", key, rate, err)
	}
	return u
}

func (l subject) set(key string, when trypema.Condition, total uint64, keep trypema.History) trypema.SetResult {
	l.Helper()
	defer l.took(time.Now())
	r, err := l.Set(ctx, key, when, total, keep)
	if err != nil {
		l.Fatalf("Set(%q, %v, %d, %v): %v", key, when, total, keep, err)
	}
	return r
}

// coherent checks what must hold for the fields of any decision.
func (l subject) coherent(d trypema.Decision, n uint64) {
	l.Helper()
	denial := trypema.OutcomeRejected
	if l.s.Suppressed {
		denial = trypema.OutcomeSuppressed
	}
	bad := ""
	switch {
	case d.Allowed != (d.Outcome == trypema.OutcomeAllowed):
		bad = "Allowed and Outcome contradict each other"
	case !d.Allowed && d.Outcome != denial:
		bad = fmt.Sprintf("a denial must be %v", denial)
	case d.Remaining > d.Limit || d.RemainingAfterWaiting > d.Limit:
		bad = "more remains than the limit"
	case d.Allowed && (d.RetryAfter != 0 || d.RemainingAfterWaiting != d.Remaining):
		bad = "an allowed call has nothing to wait for"
	case !d.Allowed && d.RetryAfter <= 0:
		bad = "a denied call has to wait"
	case d.RetryAfter == trypema.Never && d.RemainingAfterWaiting != 0:
		bad = "nothing remains after Never"
	case !d.Allowed && d.RetryAfter != trypema.Never && !l.s.Suppressed && d.RemainingAfterWaiting < n:
		bad = "the call does not fit after waiting"
	case d.SuppressionFactor < 0 || d.SuppressionFactor > 1 || d.SuppressionFactor != d.SuppressionFactor:
		bad = "SuppressionFactor is not from 0 to 1"
	case !l.s.Suppressed && d.SuppressionFactor != 0:
		bad = "Absolute has no SuppressionFactor"
	case l.s.Suppressed && !d.Allowed && d.SuppressionFactor == 0:
		bad = "denied with a SuppressionFactor of 0"
	}
	if bad != "" {
		l.T.Fatalf("%s: cost %d, %+v", bad, n, d)
	}
}

// some returns all cases, or the first of them where time is real and each takes many windows, or in brief.
func some[T any](s *Subject, cases ...T) []T {
	if s.Jitter > 0 || s.brief {
		return cases[:1]
	}
	return cases
}

// bound returns what no window may pass.
func (s *Subject) bound(c uint64, o trypema.Options) uint64 {
	if !s.Suppressed {
		return c
	}
	return uint64(float64(c) * cmp.Or(o.HardLimitFactor, 1.5))
}

func (s *Subject) firstCall(t *trial) {
	l := s.make(t, trypema.Options{})
	if got, want := l.usage("k", s.rate(10)), (trypema.Usage{Limit: 10, Remaining: 10}); got != want {
		t.Errorf("usage of an unknown key: %+v, want %+v", got, want)
	}
	want := trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: 10, Remaining: 10,
		RemainingAfterWaiting: 10}
	if got := l.peek("k", s.rate(10), 3); got != want {
		t.Errorf("peek: %+v, want %+v", got, want)
	}
	want.Remaining, want.RemainingAfterWaiting = 7, 7
	if got := l.allow("k", s.rate(10), 3); got != want {
		t.Errorf("first call of cost 3: %+v, want %+v", got, want)
	}
	d, err := l.Allow(ctx, "k", s.rate(10))
	if want.Remaining, want.RemainingAfterWaiting = 6, 6; err != nil || d != want {
		t.Errorf("Allow: %+v, %v, want %+v", d, err, want)
	}
	if got, want := l.usage("k", s.rate(10)), (trypema.Usage{Total: 4, Limit: 10, Remaining: 6}); got != want {
		t.Errorf("usage: %+v, want %+v", got, want)
	}
}

func (s *Subject) remainingCountsDown(t *trial) {
	l := s.make(t, trypema.Options{})
	for i := range uint64(100) {
		if d := l.allow("k", s.rate(100), 1); !d.Allowed || d.Remaining != 99-i {
			t.Fatalf("call %d: %+v", i, d)
		}
	}
	if d := l.allow("k", s.rate(100), 1); d.Allowed || d.Remaining != 0 {
		t.Fatalf("call 100: %+v", d)
	}
}

// boundInAnyWindow offers what breaks others: nothing for a while, then a burst at the end of a window and
// one right after it, at every phase, with random costs and pauses in between.
func (s *Subject) boundInAnyWindow(t *trial) {
	for _, o := range some(s, trypema.Options{}, trypema.Options{Bucket: s.Window},
		trypema.Options{Bucket: s.Window / 3}, trypema.Options{HardLimitFactor: 1}) {
		t.Logf("bucket %v", o.Bucket)
		rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
		l := s.make(t, o)
		const c = 50
		var log []anywindow.Admission
		burst := func() {
			for range 2 * c {
				n := 1 + rng.Uint64N(3)
				before := time.Now()
				if l.allow("k", s.rate(c), n).Allowed {
					log = append(log, anywindow.Admission{From: before, To: time.Now(), Cost: n})
				}
			}
		}
		phases := time.Duration(4)
		if s.Jitter == 0 && explore.Long() {
			phases = 10
		}
		for phase := range phases {
			burst()
			t.sleep(s.Window * phase / phases)
			burst()
			t.sleep(time.Duration(rng.Int64N(int64(s.Window / 20))))
			burst()
			t.sleep(s.Window - s.Window*phase/phases)
		}
		if got, want := anywindow.Most(log, s.Window), s.bound(c, o); got > want {
			t.T.Errorf("bucket %v: %d admitted in a window, want at most %d", o.Bucket, got, want)
		}
		if len(log) < int(phases)*c/4 {
			t.Errorf("bucket %v: only %d calls admitted", o.Bucket, len(log))
		}
	}
}

func (s *Subject) boundUnderConcurrency(t *trial) {
	l := s.make(t, trypema.Options{HardLimitFactor: 1})
	const c, callers = 1000, 16
	logs := make([][]anywindow.Admission, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range 2 * c / callers {
				n := uint64(j%3 + 1)
				before := time.Now()
				if d, err := l.AllowN(ctx, "k", s.rate(c), n); err == nil && d.Allowed {
					logs[i] = append(logs[i], anywindow.Admission{From: before, To: time.Now(), Cost: n})
				}
			}
		})
	}
	wg.Wait()
	log := slices.Concat(logs...)
	if got := anywindow.Most(log, s.Window); got != c && s.Jitter == 0 || got > c {
		t.T.Errorf("%d admitted to %d callers at once, want %d", got, callers, c)
	}
}

// greedyCaller always wants more, and gets at least 1 − B/W of the capacity per window.
func (s *Subject) greedyCaller(t *trial) {
	for _, parts := range some(s, 100, 10, 2, 1) {
		o := trypema.Options{Window: s.Window, Bucket: max(s.Window/time.Duration(parts), time.Millisecond)}
		l := s.make(t, o)
		const c, windows = 100, 3
		admitted := 0
		start := time.Now()
		for time.Since(start) < windows*s.Window {
			d := l.allow("k", s.rate(c), 1)
			if d.Allowed {
				admitted++
			} else {
				t.sleep(min(d.RetryAfter, s.Window/200))
			}
		}
		share := float64(admitted) / (c * windows)
		if want := s.Use * (1 - float64(o.Bucket)/float64(o.Window)); share < want {
			t.Errorf("bucket of W/%d: %.3f of the capacity, want at least %.3f", parts, share, want)
		}
	}
}

func (s *Subject) evenCaller(t *trial) {
	l := s.make(t, trypema.Options{})
	const c = 100
	pace := time.Duration(float64(s.Window) / c / 0.95)
	next := time.Now()
	for i := range 3 * c {
		d := l.allow("k", s.rate(c), 1)
		if !d.Allowed {
			t.Fatalf("call %d at 0.95 of the rate: %+v", i, d)
		}
		next = next.Add(pace)
		t.sleep(time.Until(next))
	}
}

// retryAfter waits exactly as long as it was told, and looks one step earlier.
func (s *Subject) retryAfter(t *trial) {
	rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
	l := s.make(t, trypema.Options{})
	const c = 40
	rate := s.rate(c)
	rounds := 6
	if s.Jitter == 0 {
		rounds = max(10, explore.Size(20, 500))
	}
	for round := range rounds {
		for l.peek("k", rate, 1).Allowed || rng.IntN(4) > 0 {
			l.allow("k", rate, 1+rng.Uint64N(4))
			if s.Jitter == 0 || rng.IntN(8) == 0 {
				t.sleep(time.Duration(rng.Int64N(int64(s.Window / 100))))
			}
		}
		n := 1 + rng.Uint64N(c)
		d := l.peek("k", rate, n)
		if d.Allowed {
			continue
		}
		start := time.Now()
		if early := d.RetryAfter - s.Resolution - s.Jitter - s.Lag; early > 0 {
			t.sleep(early)
			// Suppressed may let a call pass by chance before it is certain to.
			e := l.peek("k", rate, n)
			inTime := time.Since(start) < d.RetryAfter-s.Lag-s.Jitter/2 // where time is real, it may not be
			if inTime && (!s.Suppressed && e.Allowed || s.Suppressed && e.SuppressionFactor == 0) {
				t.Fatalf("round %d: cost %d passes %v before its RetryAfter: %+v, then %+v", round, n,
					s.Resolution+s.Jitter, d, e)
			}
		}
		t.sleep(d.RetryAfter - time.Since(start))
		after := l.peek("k", rate, n)
		// where time is real, what was recorded may have been judged later than it was said
		if wait := after.RetryAfter; wait <= s.Jitter {
			t.sleep(wait)
		}
		if s.Jitter == 0 && s.Lag == 0 && after.Remaining != d.RemainingAfterWaiting {
			t.Fatalf("round %d: %d remains after waiting, %d was promised", round, after.Remaining,
				d.RemainingAfterWaiting)
		}
		if got := l.allow("k", rate, n); !got.Allowed {
			t.Fatalf("round %d: cost %d denied after its RetryAfter: %+v, then %+v", round, n, d, got)
		}
	}
}

func (s *Subject) moreThanCapacity(t *trial) {
	l := s.make(t, trypema.Options{})
	for _, n := range []uint64{11, 16, 1 << 40} {
		if d := l.allow("k", s.rate(10), n); d.Allowed || d.RetryAfter != trypema.Never || d.Remaining != 10 {
			t.Errorf("cost %d of capacity 10: %+v", n, d)
		}
	}
	if d := l.allow("k", s.rate(10), 10); !s.Suppressed && !d.Allowed {
		t.Errorf("cost 10 of capacity 10: %+v", d)
	}
}

func (s *Subject) denialCostsNothing(t *trial) {
	l := s.make(t, trypema.Options{})
	l.allow("k", s.rate(10), 8)
	before := l.usage("k", s.rate(10))
	for range 100 {
		if d := l.allow("k", s.rate(10), 3); d.Allowed || d.Remaining != 2 {
			t.Fatalf("cost 3 with 2 left: %+v", d)
		}
	}
	if after := l.usage("k", s.rate(10)); after != before {
		t.Errorf("%+v after denials, %+v before", after, before)
	}
	if d := l.allow("k", s.rate(10), 2); !d.Allowed {
		t.Errorf("cost 2 with 2 left: %+v", d)
	}
}

func (s *Subject) denialIsCounted(t *trial) {
	l := s.make(t, trypema.Options{})
	var total, declined uint64
	for i := range uint64(200) {
		n := i%3 + 1
		total += n
		if !l.allow("k", s.rate(20), n).Allowed {
			declined += n
		}
	}
	if u := l.usage("k", s.rate(20)); u.Total != total || u.Declined != declined || declined == 0 {
		t.Errorf("usage %+v, want Total %d and Declined %d", u, total, declined)
	}
}

func (s *Subject) burstFromCold(t *trial) {
	l := s.make(t, trypema.Options{})
	const c = 500
	for i := range int(0.8 * c) {
		if d := l.allow("k", s.rate(c), 1); !d.Allowed || d.SuppressionFactor != 0 {
			t.Fatalf("call %d of a burst from cold: %+v", i, d)
		}
	}
}

// settlesAtTheLimit offers Poisson arrivals. More than twenty times the limit, and what only virtual time
// makes cheap, is for the tests of the law.
func (s *Subject) settlesAtTheLimit(t *trial) {
	most := 3.
	if explore.Long() {
		most = 5
	}
	for _, load := range some(s, 1.5, 0.5, most) {
		t.Logf("load %v", load)
		rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
		l := s.make(t, trypema.Options{})
		const c = 200
		windows := time.Duration(6)
		if load > 1.5 && !explore.Long() { // many arrivals, of which chance makes less
			windows = 3
		}
		var log []anywindow.Admission
		var offered, admitted int
		start, next := time.Now(), time.Now()
		for time.Since(start) < windows*s.Window {
			next = next.Add(time.Duration(rng.ExpFloat64() / (c * load) * float64(s.Window)))
			t.sleep(time.Until(next))
			before := time.Now()
			d := l.allow("k", s.rate(c), 1)
			if d.Allowed {
				log = append(log, anywindow.Admission{From: before, To: time.Now(), Cost: 1})
			}
			if time.Since(start) >= s.Window {
				offered++
				if d.Allowed {
					admitted++
				}
			}
		}
		if got, want := anywindow.Most(log, s.Window), s.bound(c, trypema.Options{}); got > want {
			t.T.Errorf("load %v: %d admitted in a window, the hard capacity is %d", load, got, want)
		}
		limit := float64(c * (windows - 1))
		if got := float64(offered) / limit; got < 0.9*load {
			t.Logf("the machine is too busy to offer %v times the limit: %v", load, got)
			continue
		}
		// Of so few arrivals, chance alone makes some percent.
		rate := float64(admitted) / limit
		if load < 0.9 && offered-admitted > offered/1000 || load > 1 && (rate < 0.93 || rate > 1.07) {
			t.Errorf("load %v: %d of %d admitted, %.3f of the limit", load, admitted, offered, rate)
		}
	}
}

func (s *Subject) noHeadroom(t *trial) {
	l := s.make(t, trypema.Options{HardLimitFactor: 1})
	for i := range 30 {
		d := l.allow("k", s.rate(20), 1)
		if d.Allowed != (i < 20) || d.SuppressionFactor != map[bool]float64{true: 0, false: 1}[i < 20] {
			t.Fatalf("call %d of capacity 20 with a hard limit factor of 1: %+v", i, d)
		}
	}
}

func (s *Subject) rateBelongsToTheCall(t *trial) {
	l := s.make(t, trypema.Options{HardLimitFactor: 1})
	for range 10 {
		l.allow("k", s.rate(10), 1)
	}
	if l.allow("k", s.rate(10), 1).Allowed {
		t.Errorf("allowed beyond 10")
	}
	if d := l.allow("k", s.rate(15), 1); !d.Allowed || d.Limit != 15 || d.Remaining != 4 {
		t.Errorf("at a raised rate: %+v", d)
	}
	if d := l.allow("k", s.rate(5), 1); d.Allowed || d.Limit != 5 || d.Remaining != 0 {
		t.Errorf("at a lowered rate: %+v", d)
	}
	if d := l.allow("k", s.rate(15), 4); !d.Allowed || d.Remaining != 0 {
		t.Errorf("at the raised rate again: %+v", d)
	}
	if d := l.allow("k", trypema.Unlimited, 1000); !d.Allowed {
		t.Errorf("unlimited: %+v", d)
	}
	if u := l.usage("k", s.rate(15)); u.Total-u.Declined != 1015 || u.Remaining != 0 {
		t.Errorf("unlimited calls must be counted: %+v", u)
	}
	if d := l.allow("k", s.rate(15), 1); d.Allowed {
		t.Errorf("limited after unlimited: %+v", d)
	}
}

func (s *Subject) readsRecordNothing(t *trial) {
	l := s.make(t, trypema.Options{HardLimitFactor: 1})
	l.allow("k", s.rate(10), 9)
	before := l.usage("k", s.rate(10))
	for range 50 {
		if d := l.peek("k", s.rate(10), 1); !d.Allowed || d.Remaining != 1 {
			t.Fatalf("peek: %+v", d)
		}
		if d := l.peek("k", s.rate(10), 0); !d.Allowed {
			t.Fatalf("is anything left? %+v", d)
		}
		if d := l.peek("k", s.rate(10), 2); d.Allowed {
			t.Fatalf("peek of 2 with 1 left: %+v", d)
		}
	}
	if after := l.usage("k", s.rate(10)); after != before {
		t.Errorf("usage %+v, then %+v", before, after)
	}
	l.allow("k", s.rate(10), 1)
	if d := l.peek("k", s.rate(10), 0); d.Allowed {
		t.Errorf("is anything left of nothing? %+v", d)
	}
	if u := l.usage("unknown", s.rate(10)); u.Total != 0 {
		t.Errorf("unknown key: %+v", u)
	}
}

func (s *Subject) keysAreIndependent(t *trial) {
	l := s.make(t, trypema.Options{})
	names := []string{
		"a", "A", "a ", "a:b", "a:", ":a", "{a}", "{a}b", "2001:db8::1", "\x00", "\x00\x00", "\xff\xfe", "ключ", "a\nb",
		strings.Repeat("k", 23), strings.Repeat("k", 24), strings.Repeat("k", 25), strings.Repeat("k", 200),
		strings.Repeat("long", 10_000), strings.Repeat("long", 10_000) + "x",
	}
	if s.EmptyKey {
		names = append(names, "")
	}
	for i, name := range names {
		l.allow(name, s.rate(1000), uint64(i+1))
	}
	for i, name := range names {
		if u := l.usage(name, s.rate(1000)); u.Total != uint64(i+1) {
			t.Errorf("key %.20q: %+v, want Total %d", name, u, i+1)
		}
	}
}

func (s *Subject) badInput(t *trial) {
	l := s.make(t, trypema.Options{})
	l.allow("k", s.rate(10), 1)
	zero := 0.0
	type input struct {
		key  string
		rate trypema.Rate
		n    uint64
		want error
		says string
	}
	inputs := []input{
		{"k", trypema.Rate(zero / zero), 1, trypema.ErrInvalidRate, "NaN"},
		{"k", trypema.Rate(1 / zero), 1, trypema.ErrInvalidRate, "Inf"},
		{"k", trypema.Rate(-1 / zero), 1, trypema.ErrInvalidRate, "Inf"},
		{"k", 0, 1, trypema.ErrInvalidRate, "above 0"},
		{"k", -3, 1, trypema.ErrInvalidRate, "-3"},
		{"k", trypema.Per(1, 1000*s.Window), 1, trypema.ErrInvalidRate, "less than one event"},
		{"k", trypema.Per(1, 0), 1, trypema.ErrInvalidRate, "NaN"},
		{"k", s.rate(10), 0, trypema.ErrInvalidCost, "0"},
	}
	if !s.EmptyKey {
		inputs = append(inputs, input{"", s.rate(10), 1, trypema.ErrInvalidKey, "empty"})
	}
	for _, in := range inputs {
		check := func(verb string, err error) {
			t.Helper()
			if !errors.Is(err, in.want) || !strings.Contains(err.Error(), in.says) {
				t.Errorf("%s(%q, %v, %d): %v, want %v that says %q", verb, in.key, in.rate, in.n, err,
					in.want, in.says)
			}
		}
		d, err := l.AllowN(ctx, in.key, in.rate, in.n)
		check("AllowN", err)
		if d.Allowed {
			t.Errorf("allowed with error %v", err)
		}
		if in.n == 0 { // Peek takes it
			continue
		}
		_, err = l.Allow(ctx, in.key, in.rate)
		check("Allow", err)
		_, err = l.Peek(ctx, in.key, in.rate, in.n)
		check("Peek", err)
		_, err = l.Usage(ctx, in.key, in.rate)
		check("Usage", err)
		if errors.Is(in.want, trypema.ErrInvalidKey) {
			_, err = l.Set(ctx, in.key, trypema.Always(), 1, trypema.Replace)
			check("Set", err)
			check("Delete", l.Delete(ctx, in.key))
		}
	}
	if _, err := l.Set(ctx, "k", trypema.Always(), 5, trypema.History(99)); err == nil {
		t.Error("Set took an unknown History")
	}
	if u := l.usage("k", s.rate(10)); u.Total != 1 {
		t.Errorf("bad input was counted: %+v", u)
	}
}

func (s *Subject) largeNumbers(t *trial) {
	l := s.make(t, trypema.Options{})
	most := l.peek("k", trypema.Unlimited, 1).Limit
	if d := l.allow("k", trypema.Unlimited, most); !d.Allowed || d.Remaining != 0 {
		t.Fatalf("all of an unlimited window: %+v", d)
	}
	for _, n := range []uint64{1, most, ^uint64(0)} {
		if d := l.allow("k", s.rate(10), n); d.Allowed {
			t.Errorf("cost %d on a full window: %+v", n, d)
		}
	}
	if u := l.usage("k", s.rate(10)); u.Total < most || u.Remaining != 0 {
		t.Errorf("the total wrapped: %+v", u)
	}
}

// setGroups makes three groups of 4, 5 and 6.
func (s *Subject) setGroups(l subject) {
	for _, n := range []uint64{4, 5, 6} {
		l.allow("k", s.rate(1000), n)
		l.sleep(s.Window / 10)
	}
}

func (s *Subject) setHistory(t *trial) {
	for _, test := range []struct {
		keep   trypema.History
		totals []uint64
		ages   []uint64 // what is live when the groups before the first, second and third have expired
	}{
		{trypema.KeepNewest, []uint64{8}, []uint64{8, 8, 6}},
		{trypema.KeepNewest, []uint64{8, 11}, []uint64{11, 11, 9}},
		{trypema.KeepOldest, []uint64{8}, []uint64{8, 4, 0}},
		{trypema.KeepOldest, []uint64{8, 11}, []uint64{11, 4, 0}},
		{trypema.Replace, []uint64{8}, []uint64{8, 8, 8}},
	} {
		l := s.make(t, trypema.Options{Bucket: max(s.Window/100, time.Millisecond)})
		start := time.Now()
		s.setGroups(l)
		previous := uint64(15)
		for _, total := range test.totals {
			want := trypema.SetResult{Matched: true, Previous: previous, Current: total}
			if got := l.set("k", trypema.Always(), total, test.keep); got != want {
				t.Errorf("%v: %+v, want %+v", test.keep, got, want)
			}
			previous = total
		}
		for i, want := range test.ages {
			t.sleep(time.Until(start.Add(s.Window - s.Window/20 + time.Duration(i)*s.Window/10)))
			if got := l.usage("k", s.rate(1000)); got.Total != want || got.Declined != 0 {
				t.Errorf("%v to %v: %+v when %d groups have expired, want Total %d", test.keep, test.totals,
					got, i, want)
			}
		}
	}
}

func (s *Subject) setConditions(t *trial) {
	l := s.make(t, trypema.Options{})
	for _, test := range []struct {
		when  trypema.Condition
		match bool
	}{
		{trypema.Always(), true},
		{trypema.Equal(5), true}, {trypema.Equal(4), false},
		{trypema.NotEqual(5), false}, {trypema.NotEqual(4), true},
		{trypema.Less(5), false}, {trypema.Less(6), true}, {trypema.Less(0), false},
		{trypema.Greater(5), false}, {trypema.Greater(4), true}, {trypema.Greater(^uint64(0)), false},
	} {
		for _, keep := range []trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest} {
			for _, total := range []uint64{0, 3, 5, 9} {
				l.set("k", trypema.Always(), 5, trypema.Replace)
				want := trypema.SetResult{Matched: test.match, Previous: 5, Current: 5}
				if test.match {
					want.Current = total
				}
				if got := l.set("k", test.when, total, keep); got != want {
					t.Errorf("Set(%v, %d, %v) on 5: %+v, want %+v", test.when, total, keep, got, want)
				}
				if u := l.usage("k", s.rate(10)); u.Total != want.Current {
					t.Errorf("Set(%v, %d, %v) on 5: then %+v", test.when, total, keep, u)
				}
			}
		}
	}
	if got, want := l.set("new", trypema.Greater(0), 7, trypema.Replace), (trypema.SetResult{}); got != want {
		t.Errorf("a miss on an unknown key: %+v", got)
	}
	if u := l.usage("new", s.rate(10)); u.Total != 0 {
		t.Errorf("a miss on an unknown key wrote %+v", u)
	}
	for i, keep := range []trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest} {
		key := fmt.Sprint("new", i)
		got, want := l.set(key, trypema.Equal(0), 7, keep), (trypema.SetResult{Matched: true, Current: 7})
		if got != want {
			t.Errorf("%v on an unknown key: %+v, want %+v", keep, got, want)
		}
		if d := l.peek(key, s.rate(7), 1); d.Remaining != 0 {
			t.Errorf("%v on an unknown key: the window must be full: %+v", keep, d)
		}
	}
}

// setTimes checks that events set by Replace are as old as the call, and that Set does not reach back to
// forget a limit.
func (s *Subject) setTimes(t *trial) {
	l := s.make(t, trypema.Options{})
	l.allow("k", s.rate(10), 1)
	t.sleep(s.Window / 2)
	l.set("k", trypema.Always(), 10, trypema.Replace)
	d := l.peek("k", s.rate(10), 1)
	if d.Allowed || d.RetryAfter > s.Window+s.Lag || d.RetryAfter < s.Window-s.Jitter-s.Resolution {
		t.Errorf("after Replace with the capacity: %+v, want a RetryAfter of %v", d, s.Window)
	}
}

func (s *Subject) delete(t *trial) {
	l := s.make(t, trypema.Options{})
	l.allow("k", s.rate(10), 7)
	for range 2 {
		must.OK(t, l.Delete(ctx, "k"))
		if u := l.usage("k", s.rate(10)); u.Total != 0 {
			t.Fatalf("after Delete: %+v", u)
		}
	}
	if d := l.allow("k", s.rate(10), 7); !d.Allowed || d.Remaining != 3 {
		t.Fatalf("after Delete: %+v", d)
	}
}
