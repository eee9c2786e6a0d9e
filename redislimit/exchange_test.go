package redislimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

var perSecond10 = trypema.PerSecond(10)

func open(t *testing.T, c redislimit.Conn, o redislimit.Options) *redislimit.Provider {
	t.Helper()
	p, err := redislimit.New(c, o)
	must.OK(t, err)
	t.Cleanup(func() {
		must.Report(t, p.Close())
	})
	return p
}

// The suite in virtual time.
func TestConformance(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		t.Run(map[bool]string{false: "Absolute", true: "Suppressed"}[suppressed], func(t *testing.T) {
			limittest.Run(t, limittest.Subject{
				New: func(t *testing.T, o trypema.Options) trypema.Limiter {
					p := open(t, fakeredis.New(),
						redislimit.Options{Options: o, OnFailure: redislimit.FailClosed})
					if suppressed {
						return p.Suppressed()
					}
					return p.Absolute()
				},
				Suppressed: suppressed,
				In:         synctest.Test,
				Resolution: time.Microsecond,
			})
		})
	}
}

// Calls for one key that come while others are under way travel together, and each is answered as if it had
// come in turn.
func TestCallsOfAKeyShareARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = time.Millisecond
		l := open(t, f, redislimit.Options{}).Absolute()
		const callers, capacity = 200, 100
		remaining := make(chan uint64, callers)
		denied := 0
		var mu sync.Mutex
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				d, err := l.Allow(t.Context(), "k", perSecond10)
				if err != nil || d.Fallback {
					t.Error(d, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if d.Allowed {
					remaining <- d.Remaining
				} else {
					denied++
				}
			})
		}
		all.Wait()
		close(remaining)
		seen := map[uint64]bool{}
		for r := range remaining {
			seen[r] = true
		}
		if len(seen) != capacity || denied != callers-capacity {
			t.Errorf("%d of %d admitted, each with another remainder; %d denied", len(seen), capacity, denied)
		}
		// One for those that came before the first exchange began, one for all that came while it was under
		// way.
		if f.Runs > 2 || f.Calls > 2 {
			t.Errorf("%d exchanges of %d scripts; want two at most", f.Runs, f.Calls)
		}
	})
}

func TestKeysSharePipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = time.Millisecond
		l := open(t, f, redislimit.Options{}).Absolute()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() {
				if d, err := l.Allow(t.Context(), fmt.Sprint(i), perSecond10); err != nil || !d.Allowed ||
					d.Remaining != 99 {
					t.Error(d, err)
				}
			})
		}
		all.Wait()
		if f.Runs > 8 || f.Calls > 12 || f.Keys != 500 {
			t.Errorf("%d exchanges of %d scripts with %d keys", f.Runs, f.Calls, f.Keys)
		}
	})
}

// cancellation of one of many calls in a batch: of one that was not sent, and of one that was.
func TestCancel(t *testing.T) {
	for _, test := range []struct {
		name    string
		after   time.Duration
		inDoubt bool
		counted uint64
	}{
		{"before it is sent", 500 * time.Microsecond, false, 10},
		{"while Redis decides", 1500 * time.Microsecond, true, 11},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeredis.New()
				f.Delay = time.Millisecond
				l := open(t, f, redislimit.Options{}).Absolute()
				var all sync.WaitGroup
				for i := range 10 {
					all.Go(func() {
						if i == 0 {
							synctest.Wait() // the others come later
						}
						if d, err := l.Allow(t.Context(), "k", perSecond10); err != nil || !d.Allowed {
							t.Error(d, err)
						}
					})
				}
				time.Sleep(100 * time.Microsecond)
				ctx, cancel := context.WithTimeout(t.Context(), test.after)
				defer cancel()
				d, err := l.Allow(ctx, "k", perSecond10)
				if !errors.Is(err, context.DeadlineExceeded) ||
					errors.Is(err, redislimit.ErrInDoubt) != test.inDoubt || d.Allowed {
					t.Errorf("%+v, %v", d, err)
				}
				all.Wait()
				if u, err := l.Usage(t.Context(), "k", perSecond10); err != nil || u.Total != test.counted {
					t.Errorf("%+v, %v; want %d", u, err, test.counted)
				}
			})
		})
	}
}

func TestCancelledBeforeTheCall(t *testing.T) {
	f := fakeredis.New()
	l := open(t, f, redislimit.Options{}).Absolute()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := l.Allow(ctx, "k", perSecond10); !errors.Is(err, context.Canceled) || d.Allowed || f.Runs != 0 {
		t.Error(d, err, f.Runs)
	}
}

// outage runs a test with a Redis that can be taken away: calls then hang until it is back.
func outage(
	t *testing.T, o redislimit.Options,
	test func(t *testing.T, f *fakeredis.Server, l trypema.Limiter, health func() []bool),
) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		var mu sync.Mutex
		var changes []bool
		o.OnChange = func(h redislimit.Health) {
			mu.Lock()
			defer mu.Unlock()
			if h.Available != (h.Err == nil) {
				t.Errorf("%+v", h)
			}
			changes = append(changes, h.Available)
		}
		p, err := redislimit.New(f, o)
		must.OK(t, err)
		test(t, f, p.Absolute(), func() []bool {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return changes
		})
		f.Restore()
		must.Report(t, p.Close())
	})
}

// No call outlives its timeout, the breaker ends the waiting, the policy decides, and Redis is found again by
// itself.
func TestOutage(t *testing.T) {
	for _, test := range []struct {
		policy  redislimit.FailurePolicy
		n       int // instances
		allowed int // of 150 calls, after 20 that Redis has admitted, at a limit of 100
	}{
		{redislimit.FailLocal, 0, 80},
		{redislimit.FailLocal, 2, 30},
		{redislimit.FailLocal, 1000, 0},
		{redislimit.FailOpen, 0, 150},
		{redislimit.FailClosed, 0, 0},
	} {
		t.Run(fmt.Sprint(test.policy, test.n), func(t *testing.T) {
			o := redislimit.Options{OnFailure: test.policy, Instances: test.n, Timeout: 50 * time.Millisecond,
				RetryInterval: time.Second}
			outage(t, o, func(t *testing.T, f *fakeredis.Server, l trypema.Limiter, health func() []bool) {
				for range 20 {
					if d, err := l.Allow(t.Context(), "k", perSecond10); err != nil || !d.Allowed || d.Fallback {
						t.Fatal(d, err)
					}
				}
				f.TakeAway()
				allowed, waited := 0, 0
				for range 150 {
					start := time.Now()
					d, err := l.Allow(t.Context(), "k", perSecond10)
					took := time.Since(start)
					if err != nil || !d.Fallback || d.Limit != 100 || took > o.Timeout {
						t.Fatalf("%+v, %v, after %v", d, err, took)
					}
					if d.Allowed {
						allowed++
					} else if d.RetryAfter <= 0 {
						t.Fatalf("%+v", d)
					}
					if took > 0 {
						waited++
					}
				}
				if allowed != test.allowed || waited != 3 {
					t.Errorf("%d allowed, want %d; %d calls waited, want 3", allowed, test.allowed, waited)
				}
				if _, err := l.Usage(t.Context(), "k", perSecond10); !errors.Is(err, redislimit.ErrUnavailable) {
					t.Errorf("Usage: %v", err)
				}
				if err := l.Delete(t.Context(), "k"); !errors.Is(err, redislimit.ErrUnavailable) {
					t.Errorf("Delete: %v", err)
				}
				if got := health(); len(got) != 1 || got[0] {
					t.Errorf("changes %v", got)
				}

				// Half a minute later it is still gone, and nobody waits.
				for range 30 {
					time.Sleep(time.Second)
					start := time.Now()
					if d, err := l.Allow(t.Context(), "other", perSecond10); err != nil || !d.Fallback ||
						time.Since(start) > 0 {
						t.Fatalf("%+v, %v, after %v", d, err, time.Since(start))
					}
				}
				f.Restore()
				time.Sleep(2 * o.RetryInterval)
				// starts a probe, if none is under way
				if _, err := l.Allow(t.Context(), "k", perSecond10); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				d, err := l.Allow(t.Context(), "k", perSecond10)
				if err != nil || d.Fallback || !d.Allowed {
					t.Errorf("after the return: %+v, %v", d, err)
				}
				if got := health(); len(got) != 2 || !got[1] {
					t.Errorf("changes %v", got)
				}
			})
		})
	}
}

// With FailLocal no window has more than the limit from one instance, though Redis forgets everything in the
// middle of it.
func TestFailLocalHoldsTheLimitAcrossAnOutage(t *testing.T) {
	o := redislimit.Options{Timeout: 10 * time.Millisecond, RetryInterval: 100 * time.Millisecond}
	outage(t, o, func(t *testing.T, f *fakeredis.Server, l trypema.Limiter, _ func() []bool) {
		var admitted []time.Time
		next := func() {
			d, err := l.Allow(t.Context(), "k", perSecond10)
			must.OK(t, err)
			if d.Allowed {
				admitted = append(admitted, time.Now())
			}
			time.Sleep(10 * time.Millisecond)
		}
		for range 3 {
			for range 500 {
				next()
			}
			f.TakeAway()
			for range 300 {
				next()
			}
			f.Restore()
			f.Forget()
		}
		for i, a := range admitted {
			if j := i + 100; j < len(admitted) && admitted[j].Sub(a) < 10*time.Second {
				t.Fatalf("101 admitted from %v to %v", a, admitted[j])
			}
		}
		if len(admitted) < 220 {
			t.Errorf("only %d admitted in 24 s at 10/s", len(admitted))
		}
	})
}

// Memory and goroutines stay bounded while Redis is gone, whoever calls.
func TestOutageIsBounded(t *testing.T) {
	o := redislimit.Options{OnFailure: redislimit.FailLocal, Options: trypema.Options{MaxKeys: 1000},
		Timeout: 10 * time.Millisecond}
	outage(t, o, func(t *testing.T, f *fakeredis.Server, l trypema.Limiter, _ func() []bool) {
		f.TakeAway()
		before := runtime.NumGoroutine()
		for i := range 20_000 {
			if _, err := l.Allow(t.Context(), fmt.Sprint(i), perSecond10); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
		}
		// Flights, those that are lost, and timers that have just fired.
		if n := runtime.NumGoroutine() - before; n > 4+16+4 {
			t.Errorf("%d goroutines more", n)
		}
	})
}

// What is wrong with one key is the business of those who ask for it.
func TestKeyFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Fault = func(key string) ([]any, error) {
			if strings.Contains(key, "bad") {
				return nil, fakeredis.ErrKey
			}
			return nil, nil
		}
		l := open(t, f, redislimit.Options{}).Absolute()
		for range 20 {
			d, err := l.Allow(t.Context(), "bad", perSecond10)
			if err == nil || d.Allowed || !strings.Contains(err.Error(), "WRONGTYPE") ||
				!strings.Contains(err.Error(), "bad") {
				t.Fatal(d, err)
			}
			if d, err := l.Allow(t.Context(), "good", perSecond10); err != nil || !d.Allowed || d.Fallback {
				t.Fatal(d, err)
			}
		}
	})
}

// A reply of the wrong shape never admits.
func TestWrongReplies(t *testing.T) {
	for _, reply := range [][]any{
		{}, {int64(1)}, {"1", "1"}, {int64(-1), int64(1)}, {int64(0), int64(2)}, {int64(0), int64(-1)},
		{int64(0), int64(1), int64(0)}, {int64(0), int64(1), int64(0), int64(0), int64(0)}, {int64(0), nil},
		{int64(0), 1.5},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			f.Fault = func(string) ([]any, error) { return reply, nil }
			l := open(t, f, redislimit.Options{OnFailure: redislimit.FailClosed}).Absolute()
			if d, err := l.Allow(t.Context(), "k", perSecond10); err != nil || d.Allowed || !d.Fallback {
				t.Errorf("%v: %+v, %v", reply, d, err)
			}
		})
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		p, err := redislimit.New(f, redislimit.Options{})
		must.OK(t, err)
		f.TakeAway()
		ended := make(chan error)
		go func() {
			_, err := p.Absolute().Allow(t.Context(), "k", perSecond10)
			ended <- err
		}()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- p.Close() }()
		if err := <-ended; !errors.Is(err, trypema.ErrClosed) {
			t.Errorf("a call under way: %v", err)
		}
		if err := <-closed; err == nil || !strings.Contains(err.Error(), "has not ended") {
			t.Errorf("Close with a client that hangs: %v", err)
		}
		f.Restore()
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
		for _, l := range []trypema.Limiter{p.Absolute(), p.Suppressed()} {
			if d, err := l.Allow(t.Context(), "k", perSecond10); !errors.Is(err, trypema.ErrClosed) || d.Allowed {
				t.Errorf("Allow after Close: %+v, %v", d, err)
			}
			if _, err := l.Usage(t.Context(), "k", perSecond10); !errors.Is(err, trypema.ErrClosed) {
				t.Errorf("Usage after Close: %v", err)
			}
			_, err := l.Set(t.Context(), "k", trypema.Always(), 1, trypema.Replace)
			if !errors.Is(err, trypema.ErrClosed) {
				t.Errorf("Set after Close: %v", err)
			}
		}
	})
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		o    redislimit.Options
		says string
	}{
		{redislimit.Options{Prefix: "a{b"}, `Prefix is "a{b"`},
		{redislimit.Options{Timeout: time.Microsecond}, "Timeout is 1µs"},
		{redislimit.Options{Timeout: -1}, "Timeout is -1ns"},
		{redislimit.Options{OnFailure: 7}, "OnFailure is FailurePolicy(7)"},
		{redislimit.Options{Instances: -1}, "Instances is -1"},
		{redislimit.Options{RetryInterval: 1}, "RetryInterval is 1ns"},
		{redislimit.Options{Options: trypema.Options{Bucket: time.Hour}}, "Bucket is 1h"},
	} {
		if _, err := redislimit.New(fakeredis.New(), test.o); !errors.Is(err, trypema.ErrInvalidOptions) ||
			!strings.Contains(err.Error(), test.says) {
			t.Errorf("%v, want an ErrInvalidOptions that says %q", err, test.says)
		}
	}
	if _, err := redislimit.New(nil, redislimit.Options{}); !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Errorf("no Conn: %v", err)
	}
}

// A failure policy is text in flags and files, and what is none is refused, with the rule.
func TestFailurePolicyIsText(t *testing.T) {
	for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen,
		redislimit.FailClosed} {
		text, err := json.Marshal(policy)
		read := redislimit.FailurePolicy(7)
		if err := errors.Join(err, json.Unmarshal(text, &read)); err != nil || read != policy {
			t.Errorf("%v is %s, which is read as %v, %v", policy, text, read, err)
		}
	}
	for _, text := range []string{"", "failopen", "FailOpen ", "1", "FailurePolicy(1)"} {
		read := redislimit.FailClosed
		err := read.UnmarshalText([]byte(text))
		if !errors.Is(err, trypema.ErrInvalidOptions) || read != redislimit.FailClosed ||
			!strings.Contains(err.Error(), fmt.Sprintf("%q; it must be FailLocal", text)) {
			t.Errorf("%q is read as %v, %v", text, read, err)
		}
	}
}

// Keys that are asked the same share a run of the script, and each has its own answer, or its own fault.
func TestKeysShareAScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = time.Millisecond
		f.Fault = func(key string) ([]any, error) {
			if strings.Contains(key, "bad") {
				return []any{fakeredis.ErrKey.Error()}, nil
			}
			return nil, nil
		}
		l := open(t, f, redislimit.Options{}).Absolute()
		ask := func(keys int) {
			var all sync.WaitGroup
			for i := range keys {
				all.Go(func() {
					key, n := fmt.Sprint("good", i), uint64(1)
					if i%10 == 3 {
						key = fmt.Sprint("bad", i)
					}
					if i%7 == 0 {
						n = 2
					}
					d, err := l.AllowN(t.Context(), key, perSecond10, n)
					if bad := i%10 == 3; bad != (err != nil) || d.Fallback || !bad && d.Remaining != 100-n {
						t.Errorf("%s: %+v, %v", key, d, err)
					}
					if err != nil && !strings.Contains(err.Error(), key) {
						t.Errorf("%s: %v", key, err)
					}
				})
			}
			all.Wait()
		}
		ask(100)
		if f.Calls > 12 || f.Keys != 100 {
			t.Errorf("%d runs of scripts with %d keys", f.Calls, f.Keys)
		}

		// A server that turns out to be many has each key alone, and nobody notices.
		f.Forget()
		f.CrossSlot = true
		f.Calls, f.Keys = 0, 0
		ask(100)
		f.Calls, f.Keys = 0, 0
		f.Forget()
		ask(100)
		if f.Calls != 100 || f.Keys != 100 {
			t.Errorf("after CROSSSLOT: %d runs of scripts with %d keys", f.Calls, f.Keys)
		}
	})
}
