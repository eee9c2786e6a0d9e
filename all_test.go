package trypema_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
)

// TestAllIsAllOrNothing compares random calls by All with what each limit would have to say by an exact list.
func TestAllIsAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, trypema.Options{Bucket: time.Millisecond})
		other := newLocal(t, trypema.Options{Bucket: time.Millisecond})
		type of struct {
			b    *trypema.Bound
			name string
			p    int // whose
			w    time.Duration
			c    uint64
		}
		bounds := []of{
			{bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(20, time.Second).Named("A")), "A", 0, time.Second, 20},
			{bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(7, time.Second).Named("B")), "B", 0, time.Second, 7},
			{bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(30, 5*time.Second).Named("C")), "C", 0,
				5 * time.Second, 30},
			{bind(t, other, trypema.StrategyAbsolute, trypema.AtMost(9, time.Second).Named("D")), "D", 1,
				time.Second, 9},
		}
		type event struct {
			at time.Time
			n  uint64
		}
		events := make(map[string][]event) // by window and key
		rng := rand.New(rand.NewPCG(7, 11))
		admitted := 0
		for step := range 4000 {
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
			now := time.Now()
			var asks []trypema.Ask
			costs, capacities := make(map[string]uint64), make(map[string]uint64)
			spans := make(map[string]time.Duration)
			for range 1 + rng.IntN(4) {
				b, key, n := bounds[rng.IntN(len(bounds))], fmt.Sprint(rng.IntN(3)), 1+rng.Uint64N(3)
				asks = append(asks, b.b.Ask(key, n))
				in := fmt.Sprint(b.p, b.w, key)
				costs[in] += n
				if c, ok := capacities[in]; !ok || b.c < c {
					capacities[in] = b.c
				}
				spans[in] = b.w
			}
			want := true
			for in, n := range costs {
				have := uint64(0)
				for _, e := range events[in] {
					if now.Sub(e.at) < spans[in] {
						have += e.n
					}
				}
				want = want && have+n <= capacities[in]
			}
			d, err := trypema.All(t.Context(), asks...)
			if err != nil || d.Allowed != want {
				t.Fatalf("step %d: %+v, %v, want %v", step, d, err, want)
			}
			if !d.Allowed {
				if d.RefusedBy == "" || d.RetryAfter <= 0 {
					t.Fatalf("step %d: %+v", step, d)
				}
				continue
			}
			admitted++
			for in, n := range costs {
				events[in] = append(events[in], event{now, n})
			}
		}
		if admitted < 100 || admitted > 3900 {
			t.Errorf("%d of 4000 are admitted: that tells nothing", admitted)
		}
	})
}

// TestAllWaitsInNoCircle: many that ask for the same keys in other orders, in tables with a bound on the
// keys, all get an answer, and no limit is passed.
func TestAllWaitsInNoCircle(t *testing.T) {
	l := newLocal(t, trypema.Options{MaxKeys: 4, Window: time.Hour})
	tight := newLocal(t, trypema.Options{Window: time.Hour})
	a := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(1e6, time.Hour))
	b := bind(t, l, trypema.StrategySuppressed, trypema.AtMost(1e6, time.Minute), trypema.AtMost(1e7, time.Hour))
	c := bind(t, tight, trypema.StrategyAbsolute, trypema.AtMost(500, time.Hour))
	var all sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for g := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 500 {
				asks := []trypema.Ask{c.Ask("k", 1)}
				for range 3 {
					asks = append(asks, a.Ask(fmt.Sprint(rng.IntN(9)), 1), b.Ask(fmt.Sprint(rng.IntN(9)), 1))
				}
				rng.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
				d, err := trypema.All(t.Context(), asks...)
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					mu.Lock()
					admitted++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if admitted != 500 {
		t.Errorf("%d are admitted of a limit of 500", admitted)
	}
	if n := l.Len(); n > 3*4 {
		t.Errorf("%d keys, with a bound of 4 for each of three windows", n)
	}
}

// TestAllSuppressed: a call that one limit refuses is recorded as declined where the strategy counts that.
func TestAllSuppressed(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	s := bind(t, l, trypema.StrategySuppressed, trypema.AtMost(1000, time.Minute))
	a := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(1, time.Minute).Named("tight"))
	for i := range 3 {
		d, err := trypema.All(t.Context(), s.Ask("k", 2), a.Ask("k", 1))
		if err != nil || d.Allowed != (i == 0) || (d.RefusedBy == "tight") == d.Allowed ||
			d.Outcome == trypema.OutcomeSuppressed {
			t.Errorf("call %d: %+v, %v", i, d, err)
		}
	}
	if u, err := s.Usage(t.Context(), "k"); err != nil || u[0].Total != 6 || u[0].Declined != 4 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestAllBadInput: what is wrong changes nothing.
func TestAllBadInput(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	b := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(10, time.Minute))
	blocked := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(0, time.Minute))
	if _, err := trypema.All(t.Context(), b.Ask("k", 1), b.Ask("j", 0)); !errors.Is(err, trypema.ErrInvalidCost) {
		t.Error(err)
	}
	d, err := trypema.All(t.Context(), b.Ask("k", 1), blocked.Ask("k", 1))
	if err != nil || d.Allowed || d.RetryAfter != trypema.Never {
		t.Error(d, err)
	}
	d, err = trypema.All(t.Context(), b.Ask("k", 1<<63), b.Ask("k", 1<<63), b.Ask("j", 1))
	if err != nil || d.Allowed || d.RetryAfter != trypema.Never {
		t.Error(d, err)
	}
	_, err = trypema.All(t.Context(), make([]trypema.Ask, trypema.MaxAsks+1)...)
	if !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
	if l.Len() != 0 {
		t.Errorf("%d keys are stored", l.Len())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := trypema.All(t.Context(), b.Ask("k", 1), b.Ask("j", 1)); !errors.Is(err, trypema.ErrClosed) {
		t.Error(err)
	}
}

// TestAllOnNewKeys: two keys that are new and share a shard are both there when they are locked, also when
// the provider is older than a window, so that what is empty counts as idle.
func TestAllOnNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bind(t, newLocal(t, trypema.Options{}), trypema.StrategyAbsolute, trypema.AtMost(100, time.Second))
		time.Sleep(time.Minute)
		for i := range 500 {
			d, err := trypema.All(t.Context(), b.Ask(fmt.Sprint("a", i), 1), b.Ask(fmt.Sprint("b", i), 1))
			if err != nil || !d.Allowed {
				t.Fatal(i, d, err)
			}
		}
	})
}

// TestAllOnTwoProviders: each provider has a clock of its own.
func TestAllOnTwoProviders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older := bind(t, newLocal(t, trypema.Options{}), trypema.StrategyAbsolute, trypema.AtMost(1, time.Second))
		time.Sleep(time.Hour)
		younger := bind(t, newLocal(t, trypema.Options{}), trypema.StrategyAbsolute, trypema.AtMost(1, time.Second))
		for _, order := range [][]*trypema.Bound{{older, younger}, {younger, older}} {
			d, err := trypema.All(t.Context(), order[0].Ask("k", 1), order[1].Ask("k", 1))
			if err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
			time.Sleep(time.Second - 1)
			for _, b := range order {
				if d, err := b.Allow(t.Context(), "k"); err != nil || d.Allowed || d.RetryAfter != 1 {
					t.Errorf("before the window is over: %+v, %v", d, err)
				}
			}
			time.Sleep(time.Nanosecond)
			for _, b := range order {
				if d, err := b.Peek(t.Context(), "k", 1); err != nil || !d.Allowed {
					t.Errorf("after a window: %+v, %v", d, err)
				}
			}
		}
	})
}
