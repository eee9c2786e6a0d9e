package trypema_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

func bind(t testing.TB, p trypema.Binder, s trypema.Strategy, limits ...trypema.Limit) *trypema.Bound {
	t.Helper()
	b := fixture.Bind(t, p, s, limits...)
	return b
}

// TestWaitInTurn: waiters of any cost are admitted in the order in which they came, each when an exact limit
// has room for it.
func TestWaitInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bind(t, newLocal(t, trypema.Options{}), trypema.StrategyAbsolute, trypema.AtMost(10, time.Second))
		costs := []uint64{10, 1, 7, 1, 1, 10, 2, 2, 2, 2, 2, 9, 1, 3}
		at := make([]time.Duration, len(costs))
		started := time.Now()
		for i, n := range costs {
			go func() {
				if _, err := b.WaitN(t.Context(), "k", n); err != nil {
					t.Error(err)
				}
				at[i] = time.Since(started)
			}()
			synctest.Wait() // it stands in the line
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.IsSorted(at) {
			t.Fatalf("admitted at %v", at)
		}
		// The naive twin: each is admitted at the first instant, not before the last one, at which it fits.
		var events []struct {
			at time.Duration
			n  uint64
		}
		now := time.Duration(0)
		for i, n := range costs {
			for {
				var have uint64
				next := time.Duration(0)
				for _, e := range events {
					if e.at > now-time.Second {
						have += e.n
						if next == 0 {
							next = e.at + time.Second
						}
					}
				}
				if have+n <= 10 {
					break
				}
				now = next
			}
			events = append(events, struct {
				at time.Duration
				n  uint64
			}{now, n})
			if at[i] < now || at[i] > now+now/20+20*time.Millisecond { // a group is a bucket of 10ms
				t.Errorf("waiter %d was admitted at %v, want %v", i, at[i], now)
			}
		}
	})
}

// TestWaitShares: callers that always wait get equal numbers.
func TestWaitShares(t *testing.T) {
	for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		for _, callers := range []int{4, 64} {
			synctest.Test(t, func(t *testing.T) {
				b := bind(t, newLocal(t, trypema.Options{}), s, trypema.AtMost(100, time.Second))
				for range 100 { // so that there is room for one after the other, and all wait
					time.Sleep(10 * time.Millisecond)
					if _, err := b.Allow(t.Context(), "k"); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				counts := make([]int, callers)
				var all sync.WaitGroup
				for i := range counts {
					all.Go(func() {
						for {
							if _, err := b.Wait(ctx, "k"); err != nil {
								return
							}
							counts[i]++
						}
					})
				}
				all.Wait()
				sum := 0
				for _, n := range counts {
					sum += n
				}
				apart := 1
				if s == trypema.StrategySuppressed { // which may admit several at once, with none in the line
					apart = sum / 100
				}
				if least, most := slices.Min(counts), slices.Max(counts); most-least > apart {
					t.Errorf("%v, %d callers: from %d to %d admissions", s, callers, least, most)
				}
				if sum < 5500 || sum > 6200 {
					t.Errorf("%v, %d callers: %d admissions in a minute, want about 6000", s, callers, sum)
				}
			})
		}
	}
}

// TestWaitDeadline: a wait that cannot end in time fails at once, whether it is the first of its line or not.
func TestWaitDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bind(t, newLocal(t, trypema.Options{}), trypema.StrategyAbsolute, trypema.AtMost(10, time.Second))
		if _, err := b.AllowN(t.Context(), "k", 10); err != nil {
			t.Fatal(err)
		}
		wait := func(n uint64, left time.Duration) (trypema.Decision, time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			began := time.Now()
			d, err := b.WaitN(ctx, "k", n)
			return d, time.Since(began), err
		}
		d, took, err := wait(1, 999*time.Millisecond)
		if !errors.Is(err, trypema.ErrWouldExceedDeadline) || took != 0 || d.RetryAfter != time.Second {
			t.Errorf("the first: %+v, %v after %v", d, err, took)
		}
		for range 25 { // 10 are admitted after 1s, 10 after 2s, 5 after 3s
			go b.Wait(t.Context(), "k") //nolint:errcheck // it is admitted
			synctest.Wait()
		}
		d, took, err = wait(6, 3990*time.Millisecond)
		if !errors.Is(err, trypema.ErrWouldExceedDeadline) || took != 0 ||
			d.RetryAfter < 3990*time.Millisecond || d.RetryAfter > 4*time.Second {
			t.Errorf("the last: %+v, %v after %v", d, err, took)
		}
		if _, took, err := wait(5, 3*time.Second+50*time.Millisecond); err != nil || took < 3*time.Second {
			t.Errorf("in time: %v after %v", err, took)
		}
	})
}

// TestWaitCancelled: a waiter whose context ends leaves no trace, wherever it stands.
func TestWaitCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bind(t, newLocal(t, trypema.Options{}), trypema.StrategyAbsolute, trypema.AtMost(1, time.Second))
		if _, err := b.Allow(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		const n = 9
		cancels, done := make([]context.CancelFunc, n), make([]time.Duration, n)
		began := time.Now()
		for i := range n {
			ctx, cancel := context.WithCancel(t.Context())
			cancels[i] = cancel
			go func() {
				if _, err := b.Wait(ctx, "k"); err == nil {
					done[i] = time.Since(began)
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		for _, i := range []int{0, 4, 8, 1} { // the first, one between, the last, the first again
			cancels[i]()
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := time.Second
		for i, at := range done {
			if i == 0 || i == 1 || i == 4 || i == 8 {
				if at != 0 {
					t.Errorf("waiter %d was admitted", i)
				}
				continue
			}
			if at < want || at > want+100*time.Millisecond {
				t.Errorf("waiter %d was admitted at %v, want %v", i, at, want)
			}
			want += time.Second
		}
		for _, cancel := range cancels {
			cancel()
		}
	})
}

// TestWaitClosed: thousands that wait end with the provider, at once.
func TestWaitClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, trypema.Options{})
		b := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(1, time.Hour))
		if _, err := b.Allow(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 5000 {
			all.Go(func() {
				if _, err := b.Wait(t.Context(), "k"); !errors.Is(err, trypema.ErrClosed) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		must.OK(t, l.Close())
		all.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("the last ended %v after Close", took)
		}
	})
}

// TestWaitNever: what can never be admitted does not wait.
func TestWaitNever(t *testing.T) {
	l := newLocal(t, trypema.Options{})
	b := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(10, time.Second))
	blocked := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(0, time.Second))
	free := bind(t, l, trypema.StrategyAbsolute, trypema.NoLimit)
	if _, err := b.WaitN(t.Context(), "k", 11); !errors.Is(err, trypema.ErrInvalidCost) {
		t.Error(err)
	}
	if _, err := b.WaitN(t.Context(), "k", 0); !errors.Is(err, trypema.ErrInvalidCost) {
		t.Error(err)
	}
	if _, err := blocked.Wait(t.Context(), "k"); !errors.Is(err, trypema.ErrInvalidCost) {
		t.Error(err)
	}
	if d, err := free.Wait(t.Context(), "k"); err != nil || !d.Allowed {
		t.Error(d, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := free.Wait(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if l.Len() != 0 {
		t.Errorf("%d keys are stored", l.Len())
	}
}

// TestWaitCountsOnce: a call that waits under Suppressed is observed once, however often it tries.
func TestWaitCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bind(t, newLocal(t, trypema.Options{}), trypema.StrategySuppressed, trypema.AtMost(10, 10*time.Second))
		if _, err := b.AllowN(t.Context(), "k", 8); err != nil {
			t.Fatal(err)
		}
		for { // until one is declined
			d, err := b.Allow(t.Context(), "k")
			must.OK(t, err)
			if !d.Allowed {
				break
			}
		}
		before, err := b.Usage(t.Context(), "k")
		must.OK(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, waited := b.Wait(ctx, "k")
		after, err := b.Usage(t.Context(), "k")
		if err != nil || after[0].Total > before[0].Total+2 {
			t.Errorf("waited with %v: from %+v to %+v, %v", waited, before, after, err)
		}
	})
}

// TestWaitersAreSmall holds the number in the doc comment of WaitN.
func TestWaitersAreSmall(t *testing.T) {
	n := max(4000, explore.Size(8000, 100_000))
	l := newLocal(t, trypema.Options{})
	b := bind(t, l, trypema.StrategyAbsolute, trypema.AtMost(1, time.Hour))
	if _, err := b.Allow(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all, started sync.WaitGroup
	gate := make(chan struct{})
	wait := func() { _, _ = b.Wait(ctx, "k") }
	for range n {
		started.Add(1)
		all.Go(func() {
			started.Done()
			<-gate
			wait()
		})
	}
	started.Wait()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	close(gate)
	for b.Waiting("k") < n {
		time.Sleep(10 * time.Millisecond)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(n); each > 1024 {
		t.Errorf("a waiter has %d bytes", each)
	}
	cancel()
	all.Wait()
	if b.Waiting("k") != 0 {
		t.Errorf("%d still wait", b.Waiting("k"))
	}
}

// TestWaitInACrowd: under Suppressed a call that waits is admitted as often as the calls of others, though
// its RetryAfter, the time of certainty, never comes while they go on.
func TestWaitInACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bind(t, newLocal(t, trypema.Options{}), trypema.StrategySuppressed, trypema.AtMost(100, time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		var crowd sync.WaitGroup
		crowd.Go(func() { // ten times the limit
			for ctx.Err() == nil {
				if _, err := b.Allow(ctx, "k"); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		})
		time.Sleep(3 * time.Second)
		began := time.Now()
		for range 20 {
			if _, err := b.Wait(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
		// One try in ten passes, a hundred tries are made in a second: 2 s, with a deviation of 0.5 s.
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("20 calls waited for %v", took)
		}
		cancel()
		crowd.Wait()
	})
}
