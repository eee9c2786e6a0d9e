package limittest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/must"
)

// atMost binds n in a window of the suite.
func (m *multiSubject) atMost(n uint64) *trypema.Bound {
	m.Helper()
	return m.bind(trypema.AtMost(n, m.s.Window))
}

// waitersTakeTurns: calls that wait are admitted in the order in which they came, and none before there is
// room.
func (m *multiSubject) waitersTakeTurns() {
	const n = 8
	b := m.atMost(n)
	for range n {
		d, err := b.Wait(ctx, "k")
		if err != nil || !d.Allowed {
			m.Fatal(d, err)
		}
		m.sleep(m.s.Window / (2 * n))
	}
	var mu sync.Mutex
	var order []int
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if _, err := b.Wait(ctx, "k"); err != nil {
				m.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
		})
		m.sleep(m.s.Window / 1000) // it stands in the line
	}
	all.Wait()
	if m.s.virtual && !m.s.Suppressed && !slices.IsSorted(order) {
		m.Errorf("admitted in the order %v", order)
	}
	if len(order) != n {
		m.Errorf("%d of %d are admitted", len(order), n)
	}
}

// waitFailsAtOnce: a wait that cannot end in time does not wait, and records nothing.
func (m *multiSubject) waitFailsAtOnce() {
	b := m.atMost(10)
	for range 2 {
		if d, err := b.AllowN(ctx, "k", 5); err != nil || !d.Allowed && !m.s.Suppressed {
			m.Fatal(d, err)
		}
	}
	if m.s.Suppressed {
		return // which may admit it
	}
	until, cancel := context.WithTimeout(ctx, m.s.Window/2)
	defer cancel()
	d, err := b.Wait(until, "k")
	if !errors.Is(err, trypema.ErrWouldExceedDeadline) || d.Allowed || d.RetryAfter <= m.s.Window/3 {
		m.Errorf("%+v, %v, want ErrWouldExceedDeadline", d, err)
	}
	if until.Err() != nil {
		m.Errorf("it waited for the deadline")
	}
	if _, err := b.WaitN(ctx, "k", 11); !errors.Is(err, trypema.ErrInvalidCost) {
		m.Errorf("more than the limit: %v, want ErrInvalidCost", err)
	}
	if u, err := b.Usage(ctx, "k"); err != nil || u[0].Total != 10 {
		m.Errorf("%+v, %v, want a total of 10", u, err)
	}
}

// waitersOfAClosedProvider: what waits ends with the provider.
func (m *multiSubject) waitersOfAClosedProvider() {
	b := m.atMost(1)
	if d, err := b.Allow(ctx, "k"); err != nil || !d.Allowed {
		m.Fatal(d, err)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			d, err := b.Wait(ctx, "k")
			if !errors.Is(err, trypema.ErrClosed) && (!d.Allowed || !m.s.Suppressed) {
				m.Errorf("%+v, %v, want ErrClosed", d, err)
			}
		})
	}
	m.sleep(m.s.Window / 100)
	must.Report(m, m.p.Close())
	all.Wait()
}

// allIsAllOrNothing: All takes from each limit or from none.
func (m *multiSubject) allIsAllOrNothing() {
	tenant, user := m.atMost(100), m.atMost(10)
	ask := func(n uint64, key string) trypema.Decision {
		m.Helper()
		d, err := trypema.All(ctx, tenant.Ask("acme", n), user.Ask(key, n))
		must.OK(m, err)
		return d
	}
	if d := ask(6, "ann"); !d.Allowed || d.Limit != 10 || d.Remaining != 4 {
		m.Errorf("the first: %+v", d)
	}
	if d := ask(6, "bob"); !d.Allowed {
		m.Errorf("another user: %+v", d)
	}
	if m.s.Suppressed {
		return // which may go beyond the limit, and counts what it declines
	}
	if d := ask(6, "ann"); d.Allowed || d.Limit != 10 || d.RetryAfter <= 0 || d.RefusedBy == "" {
		m.Errorf("more than the user may: %+v", d)
	}
	if d := ask(11, "cid"); d.Allowed || d.RetryAfter != trypema.Never {
		m.Errorf("more than a user ever may: %+v", d)
	}
	for b, want := range map[*trypema.Bound]map[string]uint64{tenant: {"acme": 12},
		user: {"ann": 6, "bob": 6, "cid": 0}} {
		for key, total := range want {
			if u, err := b.Usage(ctx, key); err != nil || u[0].Total != total {
				m.Errorf("%s: %+v, %v, want a total of %d", key, u, err, total)
			}
		}
	}
}

// manyAreAsEach: AllowMany decides as AllowN would for one call after the other. If one of the calls is
// wrong, it returns an error and decides none.
func (m *multiSubject) manyAreAsEach() {
	for name, b := range map[string]*trypema.Bound{"one": m.atMost(10), "several": m.limits(10, 20, 4)} {
		var calls []trypema.Call
		for i, n := range []uint64{3, 4, 3, 4, 11, 1, 3, 4, 2, 2, 1, 1, 1, 1} {
			calls = append(calls, trypema.Call{Key: name + []string{"ann", "bob"}[i%2], Cost: n})
		}
		wrong := append(slices.Clone(calls), trypema.Call{Key: "k"})
		if got, err := b.AllowMany(ctx, wrong, nil); !errors.Is(err, trypema.ErrInvalidCost) || len(got) != 0 {
			m.Errorf("a cost of 0: %d decisions, %v", len(got), err)
		}
		got, err := b.AllowMany(ctx, calls, []trypema.Decision{{Limit: 7}})
		if err != nil || len(got) != len(calls)+1 || got[0].Limit != 7 {
			m.Fatalf("%d decisions for %d calls, %v", len(got), len(calls), err)
		}
		used := make(map[string]uint64)
		for i, d := range got[1:] {
			c := calls[i]
			fits := used[c.Key]+c.Cost <= 10
			if d.Allowed {
				used[c.Key] += c.Cost
			}
			if m.s.Suppressed {
				continue // which may go beyond the limit, by chance
			}
			if d.Allowed != fits || d.Limit != 10 || d.Remaining != 10-used[c.Key] {
				m.Errorf("%s, call %d, %+v: %+v, want allowed %v and %d left", name, i, c, d, fits, 10-used[c.Key])
			}
		}
		for key, n := range used {
			if u, err := b.Usage(ctx, key); err != nil || u[0].Total-u[0].Declined != n {
				m.Errorf("%s: %+v, %v, want a total of %d", key, u, err, n)
			}
		}
	}
}

// allUnderConcurrency: many calls by All at once pass no limit, and what is admitted is what is counted.
func (m *multiSubject) allUnderConcurrency() {
	if m.s.Suppressed {
		return
	}
	tenant, user := m.atMost(60), m.atMost(25)
	keys := []string{"u1", "u2", "u3"}
	var mu sync.Mutex
	admitted := make(map[string]uint64)
	var all sync.WaitGroup
	for g := range 6 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 3))
			for range 20 {
				key := keys[rng.IntN(len(keys))]
				asks := []trypema.Ask{tenant.Ask("t", 1), user.Ask(key, 1)}
				rng.Shuffle(2, func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
				d, err := trypema.All(ctx, asks...)
				if err != nil {
					m.Error(err)
					return
				}
				if d.Allowed {
					mu.Lock()
					admitted[key]++
					admitted["t"]++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if admitted["t"] > 60 || admitted["u1"] > 25 || admitted["u2"] > 25 || admitted["u3"] > 25 {
		m.Errorf("admitted %v of limits of 60 and 25", admitted)
	}
	if admitted["t"] == 0 {
		m.Errorf("nothing is admitted")
	}
	for _, key := range append(keys, "t") {
		b := user
		if key == "t" {
			b = tenant
		}
		if u, err := b.Usage(ctx, key); err != nil || u[0].Total != admitted[key] {
			m.Errorf("%s: %+v, %v, but %d are admitted", key, u, err, admitted[key])
		}
	}
}

// limitsThatDoNotCount: a limit of 0 denies, and NoLimit passes.
func (m *multiSubject) limitsThatDoNotCount() {
	for _, of := range []struct {
		limit  trypema.Limit
		passes bool
	}{{trypema.AtMost(0, m.s.Window), false}, {trypema.NoLimit, true}} {
		d, err := m.bind(of.limit).AllowN(ctx, "k", 1000)
		if err != nil || d.Allowed != of.passes || d.Allowed == (d.RetryAfter == trypema.Never) {
			m.Errorf("%v: %+v, %v", of.limit, d, err)
		}
	}
}
