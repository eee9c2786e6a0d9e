package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/sloglimit"
)

// This file has the root module's part of one table: what panics, and where. On a goroutine of the package,
// the panic of code that was passed in is an error of the call, if there is one, and the program goes on. On
// the caller's own goroutine it is what it always is. A panic that is not caught ends the test binary, so
// there is nothing to assert about that. The modules grpclimit, promlimit, otellimit, policyfile and
// internal/thirdparty, for the adapters, have the rest.

type answer = func(i int, reply []any, err error)

// brokenConns are what a Conn can do other than what it promises.
var brokenConns = map[string]func(c *conn, keys [][]string, answer answer){
	"panics":              func(*conn, [][]string, answer) { panic("broken") },
	"panics with nothing": func(*conn, [][]string, answer) { panic(nil) },
	"has no client":       func(*conn, [][]string, answer) { struct{ redislimit.Conn }{}.OneServer() },
	"panics after its first answer": func(_ *conn, _ [][]string, answer answer) {
		answer(0, nil, errors.New("first"))
		panic("broken")
	},
	"panics after all answers": func(_ *conn, keys [][]string, answer answer) {
		for i := range keys {
			answer(i, nil, errors.New("gone"))
		}
		panic("broken")
	},
	"answers nothing": func(*conn, [][]string, answer) {},
	"answers others than were asked": func(_ *conn, keys [][]string, answer answer) {
		answer(-1, nil, nil)
		answer(len(keys), nil, nil)
	},
	"answers twice": func(_ *conn, keys [][]string, answer answer) {
		for range 2 {
			for i := range keys {
				answer(i, nil, errors.New("gone"))
			}
		}
	},
	"answers when it has returned": func(c *conn, keys [][]string, answer answer) {
		c.later(func() {
			for i := range keys {
				answer(i, []any{int64(1)}, nil)
			}
		})
	},
	"ends its goroutine": func(*conn, [][]string, answer) { runtime.Goexit() },
	"answers with a nil pointer for an error": func(_ *conn, keys [][]string, answer answer) {
		for i := range keys {
			answer(i, nil, (*net.OpError)(nil))
		}
	},
	"answers with an error that panics": func(_ *conn, keys [][]string, answer answer) {
		for i := range keys {
			answer(i, nil, brokenError{})
		}
	},
	"answers with an error that panics, on its own goroutine": func(_ *conn, keys [][]string, answer answer) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range keys {
				answer(i, nil, brokenError{})
			}
		}()
		<-done
	},
	"panics in OneServer": nil,
}

type brokenError struct{}

func (brokenError) Error() string { panic("the error is broken, too") }

// conn is a Conn that is broken from time to time.
type conn struct {
	*fakeredis.Server
	run     func(c *conn, keys [][]string, answer answer) // nil for OneServer
	broken  atomic.Bool
	mu      sync.Mutex
	delayed []func() // guarded by mu
}

func (c *conn) later(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delayed = append(c.delayed, f)
}

// answerLate makes the answers that were delayed.
func (c *conn) answerLate() {
	c.mu.Lock()
	delayed := c.delayed
	c.delayed = nil
	c.mu.Unlock()
	for _, f := range delayed {
		f()
	}
}

func (c *conn) OneServer() bool {
	if c.broken.Load() && c.run == nil {
		panic("broken")
	}
	return true
}

func (c *conn) Run(ctx context.Context, script, sha1 string, keys, args [][]string, answer answer) {
	if c.broken.Load() && c.run != nil {
		c.run(c, keys, answer)
		return
	}
	c.Server.Run(ctx, script, sha1, keys, args, answer)
}

func strategies(p trypema.Provider) map[string]trypema.Limiter {
	return map[string]trypema.Limiter{"Absolute": p.Absolute(), "Suppressed": p.Suppressed()}
}

func providers(t *testing.T, c redislimit.Conn, o redislimit.Options) map[string]trypema.Provider {
	t.Helper()
	hybrid := fixture.Hybrid(t, c, hybridlimit.Options{Options: o})
	return map[string]trypema.Provider{"redis": fixture.Redis(t, c, o), "hybrid": hybrid}
}

const rate = trypema.Rate(100)

// Whatever a Conn does, each verb returns: those that decide by the failure policy, the others with
// ErrUnavailable. Once the Conn is as it should be, Redis decides again.
func TestBrokenConn(t *testing.T) {
	for name, run := range brokenConns {
		for _, which := range []string{"redis", "hybrid"} {
			t.Run(name+"/"+which, func(t *testing.T) {
				said := logged(t)
				defer func() {
					// A panic that is no call's answer must not be lost.
					if name == "panics after all answers" &&
						!strings.Contains(said.String(), "the Conn panicked: broken") {
						t.Errorf("the log says %q", said)
					}
				}()
				synctest.Test(t, func(t *testing.T) {
					var meters trypema.Meters
					var causes []string
					c := &conn{Server: fakeredis.New(), run: run}
					o := redislimit.Options{OnFailure: redislimit.FailClosed}
					o.OnChange = func(h redislimit.Health) {
						if !h.Available {
							causes = append(causes, h.Err.Error())
						}
					}
					o.Observer = &meters
					all := providers(t, c, o)
					p := all[which]
					for other, o := range all {
						if other != which {
							must.OK(t, o.Close())
						}
					}
					testBrokenConn(t, p, c)
					causes = append(causes, "nothing")
					want := causeOf(name)
					if !strings.Contains(causes[0], want) &&
						(causes[0] != "nothing" || name != "ends its goroutine") {
						t.Errorf("OnChange was told of %q, want %q", causes, want)
					}
					fallbacks := uint64(0)
					for _, m := range meters.All() {
						fallbacks += m.Read().Fallbacks
					}
					if fallbacks == 0 {
						t.Error("no fallback was counted")
					}
					must.Report(t, p.Close())
					c.answerLate()
				})
			})
		}
	}
}

// causeOf is what OnChange is told of a Conn.
func causeOf(name string) string {
	switch name {
	case "panics after its first answer":
		return "first"
	case "panics after all answers", "answers twice":
		return "gone"
	case "answers with a nil pointer for an error":
		return "the Conn has answered with an error that is a nil *net.OpError"
	case "answers with an error that panics", "answers with an error that panics, on its own goroutine":
		return "the Conn has answered with a guard_test.brokenError, which panicked: the error is broken, too"
	case "answers nothing", "answers others than were asked", "answers when it has returned",
		"ends its goroutine":
		return "the Conn has not answered"
	case "panics with nothing":
		return "the Conn panicked: panic called with nil argument"
	case "has no client":
		return "the Conn panicked: runtime error: invalid memory address or nil pointer dereference"
	}
	return "the Conn panicked: broken"
}

func testBrokenConn(t *testing.T, p trypema.Provider, c *conn) {
	ctx := t.Context()
	second, minute := trypema.Limit{Rate: rate, Window: time.Second}, trypema.Limit{Rate: rate, Window: time.Minute}
	multi := fixture.Bind(t, p, trypema.StrategyAbsolute, second, minute)
	reserve := func(expiry time.Duration) *trypema.Reservation {
		t.Helper()
		r, err := multi.Reserve(ctx, "reserved", 2, expiry)
		if err != nil || !r.Allowed || r.Fallback {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	committed, refunded := reserve(0), reserve(0)
	reserve(time.Second) // and expires meanwhile
	if f, ok := p.(*hybridlimit.Provider); ok {
		if _, err := p.Absolute().Allow(ctx, "settles", rate); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := f.Flush(ctx); err != nil {
				t.Errorf("Flush, once all is well: %v", err)
			}
		}()
	}

	c.broken.Store(true)
	decision := func(verb string, d trypema.Decision, err error) {
		t.Helper()
		if err != nil || d.Allowed || !d.Fallback {
			t.Errorf("%s: %+v, %v; want a denial by the policy", verb, d, err)
		}
	}
	failure := func(verb string, err error) {
		t.Helper()
		if !errors.Is(err, redislimit.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", verb, err)
		}
	}
	failure("Commit", committed.Commit(ctx, 1))
	for round := range 2 { // before and after the breaker opens
		for strategy, l := range strategies(p) {
			key := fmt.Sprint("k", round)
			d, err := l.Allow(ctx, key, rate)
			decision(strategy+".Allow", d, err)
			d, err = l.AllowN(ctx, key, rate, 3)
			decision(strategy+".AllowN", d, err)
			d, err = l.Peek(ctx, key, rate, 0)
			decision(strategy+".Peek", d, err)
			_, err = l.Usage(ctx, key, rate)
			failure(strategy+".Usage", err)
			_, err = l.Set(ctx, key, trypema.Always(), 5, trypema.Replace)
			failure(strategy+".Set", err)
			failure(strategy+".Delete", l.Delete(ctx, key))
		}
		d, err := multi.AllowN(ctx, fmt.Sprint("m", round), 1)
		decision("Multi.AllowN", d, err)
		d, err = multi.Peek(ctx, fmt.Sprint("m", round), 1)
		decision("Multi.Peek", d, err)
		r, err := multi.Reserve(ctx, fmt.Sprint("m", round), 1, time.Second)
		if err != nil {
			t.Errorf("Multi.Reserve: %v", err)
		} else {
			decision("Multi.Reserve", r.Decision, nil)
		}
		_, err = multi.Usage(ctx, fmt.Sprint("m", round))
		failure("Multi.Usage", err)
		failure("Multi.Delete", multi.Delete(ctx, fmt.Sprint("m", round)))
		time.Sleep(5 * time.Second) // what settles in the background, expires, or asks whether Redis is back
	}
	failure("Refund", refunded.Refund(ctx))
	if f, ok := p.(*hybridlimit.Provider); ok {
		if _, err := p.Absolute().Allow(ctx, "settles", rate); err != nil {
			t.Error(err)
		}
		_ = f.Flush(ctx) // there may be nothing to settle
	}

	c.broken.Store(false)
	for range 10 { // a call finds out that Redis is back, and is decided by the policy meanwhile
		time.Sleep(5 * time.Second)
		if d, err := p.Absolute().Peek(ctx, "recovers", rate, 1); err == nil && !d.Fallback {
			break
		}
	}
	for strategy, l := range strategies(p) {
		if d, err := l.Allow(ctx, "afterwards", rate); err != nil || !d.Allowed || d.Fallback {
			t.Errorf("afterwards, %s: %+v, %v", strategy, d, err)
		}
		if u, err := l.Usage(ctx, "afterwards", rate); err != nil || u.Total != 1 {
			t.Errorf("afterwards, %s: %+v, %v", strategy, u, err)
		}
	}
	if d, err := multi.Allow(ctx, "afterwards"); err != nil || !d.Allowed || d.Fallback {
		t.Errorf("afterwards, several limits: %+v, %v", d, err)
	}
}

// A panic of OnChange is logged. The next change is told, and calls know nothing of it.
func TestBrokenOnChange(t *testing.T) {
	for _, which := range []string{"redis", "hybrid"} {
		t.Run(which, func(t *testing.T) {
			said := logged(t)
			synctest.Test(t, func(t *testing.T) {
				var told atomic.Int64
				c := &conn{Server: fakeredis.New(), run: brokenConns["answers twice"]}
				o := redislimit.Options{OnFailure: redislimit.FailOpen, OnChange: func(redislimit.Health) {
					told.Add(1)
					panic("OnChange is broken")
				}}
				all := providers(t, c, o)
				allow := func(key string) trypema.Decision {
					d, err := all[which].Absolute().Allow(t.Context(), key, rate)
					if err != nil || !d.Allowed {
						t.Errorf("%+v, %v", d, err)
					}
					return d
				}
				for range 2 { // an outage by answers that are errors, and one by answers that do not come
					c.broken.Store(true)
					for i := range 20 {
						allow(fmt.Sprint(told.Load(), i))
						time.Sleep(time.Second / 10)
					}
					c.broken.Store(false)
					time.Sleep(15 * time.Second)
					allow("k")
					time.Sleep(time.Second)
					if d := allow("k"); d.Fallback {
						t.Errorf("once Redis is back: %+v", d)
					}
					c.run = func(*conn, [][]string, answer) { time.Sleep(time.Second) }
				}
				for name, p := range all {
					if err := p.Close(); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				if n := told.Load(); n != 4 || strings.Count(said.String(), "OnChange is broken") != int(n) {
					t.Errorf("OnChange was told %d times, want 4; the log says\n%s", n, said)
				}
			})
		})
	}
}

// A logger that panics costs lines of sloglimit, and nothing else; Close says so.
func TestBrokenLogger(t *testing.T) {
	for name, logger := range map[string]*slog.Logger{
		"a handler that panics": slog.New(brokenHandler{}), "no handler": new(slog.Logger),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := sloglimit.New(logger, sloglimit.Options{})
				l, err := trypema.NewLocal(trypema.Options{Observer: log})
				must.OK(t, err)
				for range 20 {
					for range 2 {
						if _, err := l.Absolute().Allow(t.Context(), "k", .1); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(time.Second)
				}
				for range 2 {
					if err := log.Close(); err == nil || !strings.Contains(err.Error(), "panicked") {
						t.Errorf("Close: %v", err)
					}
				}
				must.Report(t, l.Close())
			})
		})
	}
}

type brokenHandler struct{ slog.Handler }

func (brokenHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (brokenHandler) Handle(context.Context, slog.Record) error { panic("broken") }

// A reservation of somebody else's MultiLimiter that panics when it expires is logged.
func TestBrokenSettling(t *testing.T) {
	said := logged(t)
	synctest.Test(t, func(*testing.T) {
		settle := func(context.Context, uint64, uint64) error { panic("settling is broken") }
		trypema.NewReservation(trypema.Decision{Allowed: true}, 5, time.Second, settle)
		trypema.NewReservation(trypema.Decision{Allowed: true}, 5, time.Second, nil)
		time.Sleep(2 * time.Second)
	})
	if strings.Count(said.String(), "settling is broken") != 1 {
		t.Errorf("the log says\n%s", said)
	}
}

// What panics on the caller's own goroutine reaches the caller, who may have a use for it, as net/http has.
func TestPanicsOfCallers(t *testing.T) {
	local := fixture.Local(t, trypema.Options{})
	limits := []trypema.Limit{{Rate: 1, Window: time.Second}}
	policies := fixture.Policies(t, local, trypema.Policy{Name: "a", Limits: limits})
	c, o := fakeredis.New(), redislimit.Options{Options: trypema.Options{Observer: brokenObserver{}}}
	settle := func(context.Context, uint64, uint64) error { panic("broken") }
	request := func(o httplimit.Options) func() {
		return func() {
			if o.Decide == nil {
				o.Limiter, o.Rate = local.Absolute(), 1e9
			}
			limit, err := httplimit.New(o)
			must.OK(t, err)
			handler := limit(http.NotFoundHandler())
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", http.NoBody))
		}
	}
	for name, call := range map[string]func(){
		"Observer, NewLocal":         func() { _, _ = trypema.NewLocal(o.Options) },
		"Observer, redislimit.New":   func() { _, _ = redislimit.New(c, o) },
		"Observer, hybridlimit.New":  func() { _, _ = hybridlimit.New(c, hybridlimit.Options{Options: o}) },
		"Observer, Policies.Observe": func() { policies.Observe(brokenObserver{}) },
		"Commit": func() {
			_ = trypema.NewReservation(trypema.Decision{Allowed: true}, 5, 0, settle).Commit(t.Context(), 1)
		},
		"httplimit, Key":  request(httplimit.Options{Key: func(*http.Request) (string, bool) { panic("broken") }}),
		"httplimit, Cost": request(httplimit.Options{Cost: func(*http.Request) uint64 { panic("broken") }}),
		"httplimit, Skip": request(httplimit.Options{Skip: func(*http.Request) bool { panic("broken") }}),
		"httplimit, Seen": request(httplimit.Options{
			Seen: func(*http.Request, trypema.Decision, error) { panic("broken") },
		}),
		"httplimit, Decide": request(httplimit.Options{
			Decide: func(*http.Request, string, uint64) (trypema.Decision, error) { panic("broken") },
		}),
	} {
		func() {
			defer func() {
				if recover() != "broken" {
					t.Errorf("%s: the panic did not reach the caller", name)
				}
			}()
			call()
		}()
	}
	if d, err := policies.Allow(t.Context(), "a", "k"); err != nil || !d.Allowed {
		t.Errorf("policies, after an Observer panicked: %+v, %v", d, err)
	}
}

type brokenObserver struct{}

func (brokenObserver) Observe(trypema.Meter) { panic("broken") }

// logged has the default logger write to a text, until the test ends.
func logged(t *testing.T) fmt.Stringer {
	t.Helper()
	before, said := slog.Default(), new(strings.Builder)
	slog.SetDefault(slog.New(slog.NewTextHandler(said, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return said
}
