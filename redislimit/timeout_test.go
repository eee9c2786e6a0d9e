package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// Options.Timeout is what each call has, from its own arrival: whatever it travels with, and however old the
// batch is that it joins. It has no less, and no more.
func TestTimeoutIsThatOfEachCall(t *testing.T) {
	const timeout = 250 * time.Millisecond
	type ask struct {
		at    time.Duration // when it is made
		key   string
		delay time.Duration // of the exchange that leaves then
		takes time.Duration
		alone bool // the policy decides it
	}
	for name, asks := range map[string][]ask{
		"beside an older batch": {
			{0, "a", 200 * time.Millisecond, 200 * time.Millisecond, false},
			// behind it: leaves at 200ms, is there at 310ms
			{1 * time.Millisecond, "a", 245 * time.Millisecond, timeout, true},
			{1 * time.Millisecond, "c", 245 * time.Millisecond, 245 * time.Millisecond, false},
			{1 * time.Millisecond, "d", 245 * time.Millisecond, 245 * time.Millisecond, false},
			// now all flights are in the air
			{1 * time.Millisecond, "e", 245 * time.Millisecond, 245 * time.Millisecond, false},
			{199 * time.Millisecond, "b", 110 * time.Millisecond, 111 * time.Millisecond, false},
		},
		"in an older batch": {
			{0, "a", 200 * time.Millisecond, 200 * time.Millisecond, false},
			{1 * time.Millisecond, "a", 240 * time.Millisecond, timeout, true},
			{40 * time.Millisecond, "a", 240 * time.Millisecond, timeout, true},
			// all of these leave at 200ms
			{199 * time.Millisecond, "a", 240 * time.Millisecond, 241 * time.Millisecond, false},
		},
		"in a batch that does not leave in time": {
			{0, "a", time.Second, timeout, true},
			{100 * time.Millisecond, "a", time.Second, timeout, true},
			{240 * time.Millisecond, "a", time.Second, timeout, true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				l := open(t, f,
					redislimit.Options{OnFailure: redislimit.FailClosed, Timeout: timeout}).Absolute()
				began := time.Now()
				var all sync.WaitGroup
				for i, a := range asks {
					time.Sleep(a.at - time.Since(began))
					synctest.Wait()
					f.Delay = a.delay
					all.Go(func() {
						d, err := l.Allow(t.Context(), a.key, perSecond10)
						if took := time.Since(began) - a.at; err != nil || d.Fallback != a.alone || took != a.takes {
							t.Errorf("call %d: %+v, %v after %v; want Fallback %v after %v", i, d, err, took,
								a.alone, a.takes)
						}
					})
					synctest.Wait()
				}
				all.Wait()
				time.Sleep(2 * time.Second) // until the last answers are there
			})
		})
	}
}

// endless is a Conn to a server that never answers. Its client returns when the exchange ends, with the error
// of the context.
type endless struct{}

func (endless) OneServer() bool { return true }

func (endless) Run(ctx context.Context, _, _ string, keys, _ [][]string, answer func(int, []any, error)) {
	<-ctx.Done()
	for i := range keys {
		answer(i, nil, ctx.Err())
	}
}

// Callers and OnChange read how long Redis was waited for, and not the error of a context that is not theirs.
func TestNoAnswerIsSaid(t *testing.T) {
	const want = "redislimit: Redis is unavailable: no answer within 250ms"
	for range 20 { // either the timer of the call is first, or that of the exchange
		synctest.Test(t, func(t *testing.T) {
			var changes []error
			l := open(t, endless{}, redislimit.Options{
				OnChange: func(h redislimit.Health) { changes = append(changes, h.Err) },
			}).Absolute()
			for range 4 { // the circuit breaker opens, and answers the last one
				err := l.Delete(t.Context(), "key")
				if !errors.Is(err, redislimit.ErrUnavailable) || err.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
			}
			synctest.Wait()
			if len(changes) != 1 || changes[0].Error() != "no answer within 250ms" {
				t.Errorf("changes: %v", changes)
			}
		})
	}
}

// A Redis that takes nearly as long as the timeout is not gone: calls that had to wait for others and have no
// time left are decided by the policy, but they are no reason to stop asking. One that answers nothing for a
// timeout is gone.
func TestSlowIsNotGone(t *testing.T) {
	const timeout = 250 * time.Millisecond
	for _, test := range []struct {
		delay time.Duration
		gone  bool
	}{{240 * time.Millisecond, false}, {260 * time.Millisecond, true}} {
		for _, keys := range []int{1, 3, 9} {
			t.Run(fmt.Sprintf("%v, %d keys", test.delay, keys), func(t *testing.T) {
				var gone, alone, calls atomic.Int64
				outage(t, redislimit.Options{
					Timeout: timeout, OnFailure: redislimit.FailClosed,
				}, func(t *testing.T, f *fakeredis.Server, l trypema.Limiter, health func() []bool) {
					f.Delay = test.delay
					var all sync.WaitGroup
					for k := range keys {
						all.Go(func() { // more than one call for each key in the time that an answer takes
							time.Sleep(time.Duration(k) * 7 * time.Millisecond)
							for range 40 {
								time.Sleep(50 * time.Millisecond)
								all.Go(func() {
									d, err := l.Allow(t.Context(), fmt.Sprint(k), perSecond10)
									if err != nil {
										t.Error(err)
									}
									calls.Add(1)
									if d.Fallback {
										alone.Add(1)
									}
								})
							}
						})
					}
					all.Wait()
					time.Sleep(timeout)
					gone.Store(int64(len(health())))
				})
				t.Logf("%d of %d calls decided by the policy, %d changes", alone.Load(), calls.Load(),
					gone.Load())
				if (gone.Load() > 0) != test.gone {
					t.Errorf("OnChange was called %d times", gone.Load())
				}
				if all := alone.Load() == calls.Load(); all != test.gone || alone.Load() == 0 {
					t.Errorf("%d of %d calls decided by the policy", alone.Load(), calls.Load())
				}
			})
		}
	}
}
