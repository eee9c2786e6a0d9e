package limittest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

// RunBind runs the suite of [Run] on what a provider binds: one limit, where time is virtual, and one with
// another that is so far away that it has no say. Then come the requirements of several limits, of waiting,
// and of All. New of the subject is not used.
func RunBind(t *testing.T, s Subject, open func(t *testing.T, o trypema.Options) trypema.Provider) {
	with := func(other bool) Subject {
		of := s
		of.New = func(t *testing.T, o trypema.Options) trypema.Limiter {
			p := open(t, o)
			return single{p, s.strategy(p), s.kind(), o.Window, other}
		}
		return of
	}
	s.brief = !explore.Long() // Run has looked at all cases
	if s.In != nil {
		t.Run("Alone", func(t *testing.T) { Run(t, with(false)) })
	}
	Run(t, with(true))
	s = s.withDefaults()
	for _, test := range []struct {
		name string
		run  func(*multiSubject)
	}{
		{"AllOrNothing", (*multiSubject).allOrNothing},
		{"BoundOfEachInAnyWindow", (*multiSubject).bounds},
		{"RetryAfterIsThatOfAll", (*multiSubject).retryAfter},
		{"NewRatesGoOn", (*multiSubject).newRates},
		{"ReservationsSettleExactly", (*multiSubject).settles},
		{"ReservationsExpire", (*multiSubject).expires},
		{"WhatHasLeftIsNotSettled", (*multiSubject).settlesTooLate},
		{"LivesOfReservations", (*multiSubject).livesOfReservations},
		{"ReservationsUnderOtherLimits", (*multiSubject).otherLimits},
		{"ReservationsOutliveTheirInstance", (*multiSubject).outlives},
		{"WhatIsGivenBackIsTheOldest", (*multiSubject).givesBack},
		{"MultiBadInput", (*multiSubject).badInput},
		{"WaitersTakeTurns", (*multiSubject).waitersTakeTurns},
		{"WaitFailsAtOnce", (*multiSubject).waitFailsAtOnce},
		{"WaitersOfAClosedProvider", (*multiSubject).waitersOfAClosedProvider},
		{"AllIsAllOrNothing", (*multiSubject).allIsAllOrNothing},
		{"AllUnderConcurrency", (*multiSubject).allUnderConcurrency},
		{"ManyAreAsEach", (*multiSubject).manyAreAsEach},
		{"LimitsThatDoNotCount", (*multiSubject).limitsThatDoNotCount},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.In(t, func(t *testing.T) {
				test.run(&multiSubject{s.trial(t), open(t, trypema.Options{Window: s.Window})})
			})
		})
	}
}

func (s *Subject) strategy(p trypema.Provider) trypema.Limiter {
	if s.Suppressed {
		return p.Suppressed()
	}
	return p.Absolute()
}

func (s *Subject) kind() trypema.Strategy {
	if s.Suppressed {
		return trypema.StrategySuppressed
	}
	return trypema.StrategyAbsolute
}

// single is a Limiter that keeps one limit, and perhaps another one that has no say.
type single struct {
	trypema.Provider
	trypema.Limiter
	kind   trypema.Strategy
	window time.Duration
	other  bool
}

// with asks what the limits of a rate are bound to, and returns the decision as one limit would give it.
func (l single) with(
	rate trypema.Rate, ask func(*trypema.Bound) (trypema.Decision, error),
) (d trypema.Decision, err error) {
	b, err := l.bind(rate)
	if err == nil {
		d, err = ask(b)
	}
	d.RefusedBy = ""
	return d, err
}

func (l single) bind(rate trypema.Rate) (*trypema.Bound, error) {
	limits := []trypema.Limit{{Rate: rate, Window: l.window}}
	if l.other {
		limits = append(limits, trypema.Limit{Name: "far", Rate: trypema.Unlimited, Window: 2 * l.window})
	}
	return l.Bind(l.kind, limits...)
}

func (l single) Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error) {
	return l.with(rate, func(b *trypema.Bound) (trypema.Decision, error) { return b.Allow(ctx, key) })
}

func (l single) AllowN(
	ctx context.Context, key string, rate trypema.Rate, n uint64,
) (trypema.Decision, error) {
	return l.with(rate, func(b *trypema.Bound) (trypema.Decision, error) { return b.AllowN(ctx, key, n) })
}

func (l single) Peek(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	return l.with(rate, func(b *trypema.Bound) (trypema.Decision, error) { return b.Peek(ctx, key, n) })
}

func (l single) Usage(ctx context.Context, key string, rate trypema.Rate) (u trypema.Usage, err error) {
	m, err := l.bind(rate)
	if err != nil {
		return u, err
	}
	all, err := m.Usage(ctx, key)
	if err != nil {
		return u, err
	}
	return all[0], nil
}

// multiSubject is a provider with the helpers that make tests short.
type multiSubject struct {
	*trial
	p trypema.Provider
}

// limits returns a limiter of c in a window, and of more in a longer one.
func (m *multiSubject) limits(c, more uint64, times int) *trypema.Bound {
	m.Helper()
	return m.bind(
		trypema.Limit{Name: "long", Rate: trypema.Per(float64(more), time.Duration(times)*m.s.Window),
			Window: time.Duration(times) * m.s.Window},
		trypema.Limit{Name: "short", Rate: m.s.rate(c), Window: m.s.Window})
}

func (m *multiSubject) bind(limits ...trypema.Limit) *trypema.Bound {
	m.Helper()
	l, err := m.p.Bind(m.s.kind(), limits...)
	must.OK(m, err)
	return l
}

func (m *multiSubject) allow(l *trypema.Bound, n uint64) trypema.Decision {
	m.Helper()
	defer m.took(time.Now())
	d, err := l.AllowN(ctx, "k", n)
	must.OK(m, err)
	if d.Allowed != (d.RefusedBy == "") {
		m.T.Fatalf("cost %d: a denial, and no other, names who refused: %+v", n, d)
	}
	return d
}

// used returns the admitted cost in the long and in the short window.
func (m *multiSubject) used(l *trypema.Bound) (u [2]uint64) {
	m.Helper()
	defer m.took(time.Now())
	all, err := l.Usage(ctx, "k")
	if err != nil || len(all) != 2 {
		m.Fatal(all, err)
	}
	for i := range u {
		u[i] = all[i].Total - all[i].Declined
	}
	return u
}

func (m *multiSubject) allOrNothing() {
	l := m.limits(100, 20, 4) // the long one is the tight one
	if d := m.allow(l, 15); !d.Allowed || d.Limit != 20 || d.Remaining != 5 {
		m.Fatalf("cost 15 of 20 and 100: %+v", d)
	}
	d := m.allow(l, 6)
	if m.s.Suppressed {
		return // it may pass, up to the hard capacity
	}
	if d.RefusedBy != "long" || d.Limit != 20 || d.Remaining != 5 || d.RemainingAfterWaiting != 20 {
		m.Errorf("cost 6 with 5 left of the long one: %+v", d)
	}
	if u := m.used(l); u != [2]uint64{15, 15} {
		m.Errorf("%d used, want nothing of what was refused", u)
	}
	// Both refuse: who takes longest.
	tight := m.limits(16, 20, 4)
	if d := m.allow(tight, 8); d.RefusedBy != "long" {
		m.Errorf("both refuse: %+v, want the long one", d)
	}
	if d := m.allow(tight, 17); d.RefusedBy != "short" || d.RetryAfter != trypema.Never {
		m.Errorf("more than the short one can ever have: %+v", d)
	}
	if d, err := l.Peek(ctx, "k", 6); err != nil || d.Allowed || d.RefusedBy != "long" {
		m.Errorf("peek: %+v, %v", d, err)
	}
	must.OK(m, l.Delete(ctx, "k"))
	if u := m.used(l); u != [2]uint64{} {
		m.Errorf("%d used after Delete", u)
	}
}

// bounds offers bursts and pauses, more than either limit has room for.
func (m *multiSubject) bounds() {
	rng := rand.New(rand.NewPCG(explore.Seed(m), 0))
	const short, long = 40, 100
	l := m.limits(short, long, 4)
	var log []anywindow.Admission
	steps := 60
	if m.s.Jitter == 0 {
		steps = 50
		if explore.Long() {
			steps = 300
		}
	}
	for range steps {
		for range 1 + rng.IntN(30) {
			n := 1 + rng.Uint64N(5)
			before := time.Now()
			if m.allow(l, n).Allowed {
				log = append(log, anywindow.Admission{From: before, To: time.Now(), Cost: n})
			}
		}
		m.sleep(time.Duration(rng.Int64N(int64(m.s.Window / 8))))
	}
	for _, of := range []struct {
		c      uint64
		window time.Duration
	}{{short, m.s.Window}, {long, 4 * m.s.Window}} {
		got := anywindow.Most(log, of.window)
		want := m.s.bound(of.c, trypema.Options{})
		if got > want {
			m.T.Errorf("%d admitted in a window of %v, want at most %d", got, of.window, want)
		}
		if got < want/2 {
			m.Errorf("%d admitted in a window of %v, want at least half of %d", got, of.window, want)
		}
	}
}

func (m *multiSubject) retryAfter() {
	if m.s.Suppressed {
		return // by chance a call may pass sooner; Run has tested that it is certain then
	}
	l := m.limits(10, 20, 3)
	for i := range 2 {
		if d := m.allow(l, 10); !d.Allowed {
			m.Fatalf("burst %d: %+v", i, d)
		}
		if d := m.allow(l, 1); i == 0 && d.RefusedBy != "short" || i == 1 && d.RefusedBy != "long" {
			m.Fatalf("after burst %d: %+v", i, d)
		}
		if i == 0 {
			m.sleep(m.s.Window + m.s.Window/10 + m.s.Lag)
		}
	}
	d := m.allow(l, 1)
	start := time.Now()
	if early := d.RetryAfter - m.s.Resolution - m.s.Jitter - m.s.Lag; early > 0 {
		m.sleep(early)
		e, err := l.Peek(ctx, "k", 1)
		if err != nil || e.Allowed && time.Since(start) < d.RetryAfter-m.s.Lag-m.s.Jitter/2 {
			m.Errorf("passes before its RetryAfter: %+v, then %+v, %v", d, e, err)
		}
	}
	m.sleep(d.RetryAfter - time.Since(start))
	if got := m.allow(l, 1); !got.Allowed {
		m.Errorf("denied after its RetryAfter: %+v, then %+v", d, got)
	}
}

func (m *multiSubject) newRates() {
	if m.s.Suppressed {
		return
	}
	l := m.limits(10, 20, 4)
	m.allow(l, 10)
	if d := m.allow(l, 1); d.Allowed {
		m.Fatalf("full: %+v", d)
	}
	if d := m.allow(m.limits(15, 30, 4), 5); !d.Allowed || d.Remaining != 0 {
		m.Errorf("raised by 5: %+v, want 5 to fit", d)
	}
	if d := m.allow(m.limits(12, 30, 4), 1); d.Allowed {
		m.Errorf("lowered below what is used: %+v", d)
	}
	// The short window is that of the provider.
	if u, err := m.s.strategy(m.p).Usage(ctx, "k", m.s.rate(15)); err != nil || u.Total != 15 {
		m.Errorf("usage by the provider's own limiter: %+v, %v", u, err)
	}
}

func (m *multiSubject) reserve(l *trypema.Bound, n uint64, expiry time.Duration) *trypema.Reservation {
	m.Helper()
	defer m.took(time.Now())
	r, err := l.Reserve(ctx, "k", n, expiry)
	must.OK(m, err)
	return r
}

func (m *multiSubject) check(what string, l *trypema.Bound, want uint64) {
	m.Helper()
	if u := m.used(l); u != [2]uint64{want, want} {
		m.Fatalf("%s: %d used, want %d", what, u, want)
	}
}

func (m *multiSubject) settles() {
	l := m.limits(1000, 2000, 4)
	r := m.reserve(l, 100, 0)
	m.check("reserved", l, 100)
	m.sleep(m.s.Window / 4)
	m.allow(l, 7) // a later group
	must.OK(m, r.Commit(ctx, 30))
	m.check("committed at less", l, 37)
	if err := r.Commit(ctx, 30); !errors.Is(err, trypema.ErrSettled) {
		m.Errorf("committed again: %v", err)
	}
	if err := r.Refund(ctx); !errors.Is(err, trypema.ErrSettled) {
		m.Errorf("refunded after a commit: %v", err)
	}
	more, same, back := m.reserve(l, 10, 0), m.reserve(l, 5, 0), m.reserve(l, 20, 0)
	for _, err := range []error{more.Commit(ctx, 50), same.Commit(ctx, 5), back.Refund(ctx)} {
		must.OK(m, err)
	}
	m.check("at more, as estimated, and refunded", l, 37+50+5)
	// What was settled leaves with the group in which it was recorded.
	m.sleep(m.s.Window - m.s.Window/4 + m.s.Jitter/2)
	m.sleep(m.s.Window / 50)
	if u := m.used(l); u != [2]uint64{92, 62} {
		m.Errorf("%d used once the first has left the short window, want 92 and 62", u)
	}
	if m.s.Suppressed {
		return
	}
	denied := m.reserve(l, 1500, 0)
	if denied.Allowed {
		m.Fatalf("reserved more than there is: %+v", denied.Decision)
	}
	if err := denied.Commit(ctx, 5); !errors.Is(err, trypema.ErrDenied) {
		m.Errorf("commit of a denied reservation: %v", err)
	}
	// Refunded room is free at once.
	all := m.reserve(l, 938, 0)
	if !all.Allowed {
		m.Fatalf("what is left: %+v", all.Decision)
	}
	if d := m.allow(l, 1); d.Allowed {
		m.Errorf("full: %+v", d)
	}
	must.OK(m, all.Refund(ctx))
	if d := m.allow(l, 900); !d.Allowed {
		m.Errorf("after the refund: %+v", d)
	}
}

func (m *multiSubject) expires() {
	l := m.limits(1000, 2000, 4)
	expiry := m.s.Window / 4
	lost, late, kept := m.reserve(l, 100, expiry), m.reserve(l, 10, expiry), m.reserve(l, 1, expiry)
	must.OK(m, kept.Commit(ctx, 2))
	m.check("reserved", l, 112)
	m.sleep(expiry + m.s.Window/10 + m.s.Lag)
	m.check("expired", l, 2)
	must.OK(m, late.Commit(ctx, 20))
	m.check("committed after it expired", l, 22)
	if err := lost.Refund(ctx); err != nil {
		m.Errorf("refund of what has expired: %v", err)
	}
	m.check("refunded after it expired", l, 22)
}

func (m *multiSubject) settlesTooLate() {
	l := m.limits(1000, 2000, 4)
	r := m.reserve(l, 100, 0)
	m.sleep(m.s.Window + m.s.Window/10)
	m.allow(l, 7)
	must.OK(m, r.Commit(ctx, 40))
	if u := m.used(l); u != [2]uint64{47, 7} {
		m.Errorf("%d used, want 47 in the long window, and 7 in the short, which the rest has left", u)
	}
	// What was deleted is not there to be given back.
	r = m.reserve(l, 50, 0)
	must.OK(m, l.Delete(ctx, "k"))
	m.sleep(m.s.Window / 4)
	m.allow(l, 9)
	must.OK(m, r.Refund(ctx))
	m.check("deleted meanwhile", l, 9)
}

// givesBack is for keepers with GiveBack.
func (m *multiSubject) givesBack() {
	l := m.limits(10, 100, 4)
	k, ok := l.Keeper().(interface {
		GiveBack(ctx context.Context, key string, n uint64) error
	})
	if !ok {
		return
	}
	giveBack := func(key string, n uint64) {
		m.Helper()
		defer m.took(time.Now())
		must.OK(m, k.GiveBack(ctx, key, n))
	}
	m.allow(l, 4)
	m.sleep(m.s.Window / 2)
	m.allow(l, 3)
	giveBack("other", 5)
	giveBack("k", 0)
	m.check("nothing was given back", l, 7)
	giveBack("k", 2)
	m.check("2 of 7 were given back", l, 5)
	m.sleep(m.s.Window/2 + m.s.Window/10 + m.s.Lag)
	if u := m.used(l); u != [2]uint64{5, 3} {
		m.Errorf("%d used, want 5 in the long window, and 3 in the short: the 3 of the second call", u)
	}
	if !m.s.Suppressed {
		m.allow(l, 7)
		if d := m.allow(l, 1); d.Allowed {
			m.Errorf("full: %+v", d)
		}
		giveBack("k", 1)
		if d := m.allow(l, 2); d.Allowed || d.Remaining != 1 {
			m.Errorf("1 was given back, 2 are asked for: %+v", d)
		}
		if d := m.allow(l, 1); !d.Allowed || d.Remaining != 0 {
			m.Errorf("1 was given back: %+v", d)
		}
	}
	giveBack("k", 1<<60)
	m.check("more was given back than was used", l, 0)
	if d := m.allow(l, 8); !d.Allowed {
		m.Errorf("everything was given back: %+v", d)
	}
	m.check("after everything was given back", l, 8)
}

func (m *multiSubject) badInput() {
	good := trypema.Limit{Rate: m.s.rate(10), Window: m.s.Window}
	long := trypema.Limit{Rate: m.s.rate(10), Window: 2 * m.s.Window}
	for _, bad := range []struct {
		strategy trypema.Strategy
		limits   []trypema.Limit
		want     error
	}{
		{9, []trypema.Limit{good}, trypema.ErrInvalidOptions},
		{m.s.kind(), nil, trypema.ErrInvalidOptions},
		{m.s.kind(), make([]trypema.Limit, trypema.MaxLimits+1), trypema.ErrInvalidOptions},
		{m.s.kind(), []trypema.Limit{good, good}, trypema.ErrInvalidOptions},
		{m.s.kind(), []trypema.Limit{good, {Name: good.Label(), Rate: 1, Window: time.Hour}},
			trypema.ErrInvalidOptions},
		{m.s.kind(), []trypema.Limit{good, {Rate: 1, Window: -1}}, trypema.ErrInvalidOptions},
		{m.s.kind(), []trypema.Limit{good, {Rate: 0, Window: long.Window}}, trypema.ErrInvalidRate},
		{m.s.kind(), []trypema.Limit{good, {Rate: 1e-9, Window: long.Window}}, trypema.ErrInvalidRate},
	} {
		if l, err := m.p.Bind(bad.strategy, bad.limits...); l != nil || !errors.Is(err, bad.want) {
			m.Errorf("%v %v: %v, want %v", bad.strategy, bad.limits, err, bad.want)
		}
	}
	l := m.bind(good, long)
	if _, err := l.AllowN(ctx, "k", 0); !errors.Is(err, trypema.ErrInvalidCost) {
		m.Errorf("a cost of 0: %v", err)
	}
	if r, err := l.Reserve(ctx, "k", 0, 0); r != nil || !errors.Is(err, trypema.ErrInvalidCost) {
		m.Errorf("an estimate of 0: %v", err)
	}
	if r, err := l.Reserve(ctx, "k", 1, -1); r != nil || !errors.Is(err, trypema.ErrInvalidOptions) {
		m.Errorf("an expiry of -1: %v", err)
	}
	m.check("after bad input", l, 0)
}
