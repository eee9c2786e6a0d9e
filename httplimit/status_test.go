package httplimit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// quiet is a logger for errors that a test brings about.
var quiet = slog.New(slog.DiscardHandler)

// waiting is a limiter whose decisions end with the context of the call.
type waiting struct{ trypema.Limiter }

// brokenLimiter is a limiter that panics at each call.
type brokenLimiter struct{ trypema.Limiter }

// Window is not known, so New cannot check rates against it.
func (brokenLimiter) Window() time.Duration { return 0 }

func (waiting) AllowN(ctx context.Context, _ string, _ trypema.Rate, _ uint64) (trypema.Decision, error) {
	<-ctx.Done()
	return trypema.Decision{}, ctx.Err()
}

// On every path on which the handler is not called, the client gets a status that says so.
func TestNoAnswerLooksLikeSuccess(t *testing.T) {
	limits := fixture.Local(t, trypema.Options{Window: time.Second})
	closed, err := trypema.NewLocal(trypema.Options{})
	must.OK(t, err)
	_ = closed.Close()
	type (
		options = httplimit.Options
		request = *http.Request
		writer  = http.ResponseWriter
	)
	none := trypema.Decision{}
	decide := func(d trypema.Decision, err error) options {
		return options{Limiter: fixed{d: d, err: err}, Rate: 1}
	}
	rate := func(rate trypema.Rate) options {
		return options{Limiter: limits.Absolute(), RateOf: func(request) trypema.Rate { return rate }}
	}
	byDecide := func(d trypema.Decision, err error) options {
		return options{Decide: func(request, string, uint64) (trypema.Decision, error) { return d, err }}
	}
	with := func(o options, change func(*options)) options { change(&o); return o }
	plain := options{Limiter: limits.Absolute(), Rate: trypema.Unlimited}
	noKey := func(request) (string, bool) { return "", false }
	broken := func() { panic("broken") }

	type row struct {
		name   string
		o      options
		status int
	}
	rows := []row{
		{"denied", decide(rejected, nil), 429},
		{"denied by Suppressed", decide(suppressed, nil), 429},
		{"denied for good", decide(hopeless, nil), 429},
		{"denied by the zero value", decide(none, nil), 429},
		{"keyless", with(plain, func(o *options) { o.Key, o.Keyless = noKey, httplimit.KeylessDeny }), 400},
		{"keyless, shared and denied", with(decide(rejected, nil), func(o *options) { o.Key = noKey }), 429},
		{"closed", options{Limiter: closed.Absolute(), Rate: 1}, 503},
		{"an error", decide(none, errors.New("broken")), 503},
		{"an error beside an admission", decide(allowed, errors.New("broken")), 503},
		{"a rate of 0", rate(0), 503},
		{"a rate that is no number", rate(trypema.Rate(math.NaN())), 503},
		{"a rate too small", rate(.5), 503},
		{"canceled", decide(none, context.Canceled), 503},
		{"too late", decide(none, context.DeadlineExceeded), 503},
		{"an error of Decide", byDecide(none, trypema.ErrUnknownPolicy), 503},
		{"panic in the limiter", options{Limiter: brokenLimiter{}, Rate: 1}, 500},
		{"panic in Key", with(plain, func(o *options) {
			o.Key = func(request) (string, bool) { broken(); return "", true }
		}), 500},
		{"panic in RateOf", with(rate(1), func(o *options) {
			o.RateOf = func(request) trypema.Rate { broken(); return 1 }
		}), 500},
		{"panic in Cost", with(plain, func(o *options) {
			o.Cost = func(request) uint64 { broken(); return 1 }
		}), 500},
		{"panic in Skip", with(plain, func(o *options) {
			o.Skip = func(request) bool { broken(); return true }
		}), 500},
		{"panic in Seen", with(plain, func(o *options) {
			o.Seen = func(request, trypema.Decision, error) { broken() }
		}), 500},
		{"panic in Decide", options{Decide: func(request, string, uint64) (trypema.Decision, error) {
			broken()
			return allowed, nil
		}}, 500},
		{"panic in Limits", with(byDecide(allowed, nil), func(o *options) {
			o.Limits = func(request) []trypema.Limit { broken(); return nil }
		}), 500},
	}
	for _, own := range []struct {
		name           string
		answer         func(writer)
		denied, failed int
	}{
		{"does nothing", func(writer) {}, 429, 503},
		{"sets a header", func(w writer) { w.Header().Set("Content-Type", "text/plain") }, 429, 503},
		{"gives a hint", func(w writer) { w.WriteHeader(http.StatusEarlyHints) }, 429, 503},
		{"writes", func(w writer) { _, _ = io.WriteString(w, "slow down") }, 429, 503},
		{"flushes", func(w writer) { w.(http.Flusher).Flush() }, 429, 503},
		{"flushes by a controller", func(w writer) { _ = http.NewResponseController(w).Flush() }, 429, 503},
		{"has a status", func(w writer) { w.WriteHeader(http.StatusTeapot) }, 418, 418},
		{"panics", func(writer) { broken() }, 429, 503},
		{"panics after its answer", func(w writer) {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusTeapot)
			_ = http.NewResponseController(w).Flush()
			broken()
		}, 418, 418},
	} {
		rows = append(rows,
			row{"Denied " + own.name, with(decide(rejected, nil), func(o *options) {
				o.Denied = func(w writer, _ request, _ trypema.Decision) { own.answer(w) }
			}), own.denied},
			row{"Failed " + own.name, with(decide(none, trypema.ErrClosed), func(o *options) {
				o.Failed = func(w writer, _ request, _ error) { own.answer(w) }
			}), own.failed})
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Logger = quiet
			limit, err := httplimit.New(tt.o)
			must.OK(t, err)
			ran := false
			s := httptest.NewUnstartedServer(limit(http.HandlerFunc(func(writer, request) { ran = true })))
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.Start()
			defer s.Close()
			response, err := http.Get(s.URL)
			must.OK(t, err)
			_, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
			if response.StatusCode != tt.status || err != nil || ran {
				t.Errorf("status %d, want %d; body: %v; the handler ran: %v", response.StatusCode, tt.status,
					err, ran)
			}
		})
	}
}

// A panic goes on once the client has a status, so that who looks for panics sees it.
func TestPanicsGoOn(t *testing.T) {
	o := httplimit.Options{Limiter: fixed{}, Rate: 1, Cost: func(*http.Request) uint64 { panic("broken") }}
	h := handler(t, o)
	w := httptest.NewRecorder()
	defer func() {
		if v := recover(); v != "broken" || w.Code != http.StatusInternalServerError {
			t.Errorf("panic %v, status %d", v, w.Code)
		}
	}()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
}

// A server that shuts down ends the contexts of its requests. Their clients are there, and may send them
// again.
func TestShutdownIsNoSuccess(t *testing.T) {
	for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"canceled": context.WithCancel,
		"too late": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithDeadline(ctx, time.Now())
			return ctx, cancel
		},
	} {
		base, stop := end(t.Context())
		stop()
		ran := false
		limit, err := httplimit.New(httplimit.Options{Limiter: waiting{}, Rate: 1})
		must.OK(t, err)
		h := limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true }))
		s := httptest.NewUnstartedServer(h)
		s.Config.BaseContext = func(net.Listener) context.Context { return base }
		s.Start()
		response, err := http.Get(s.URL)
		must.OK(t, err)
		_ = response.Body.Close()
		s.Close()
		if response.StatusCode != http.StatusServiceUnavailable || ran {
			t.Errorf("%s: %s, and the handler ran: %v", name, response.Status, ran)
		}
	}
}

// What logs and metrics note of a client that has gone is the same status.
func TestClientGone(t *testing.T) {
	limit, err := httplimit.New(httplimit.Options{Limiter: waiting{}, Rate: 1})
	must.OK(t, err)
	arrived, noted := make(chan struct{}), make(chan int, 1)
	inner := limit(http.NotFoundHandler())
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		w := httptest.NewRecorder()
		inner.ServeHTTP(w, r)
		noted <- w.Code
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := ask(http.DefaultClient, to(ctx, s.URL)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if code := <-noted; code != http.StatusServiceUnavailable {
		t.Errorf("noted as %d", code)
	}
}

// The client sees that an answer is cut off if Denied panics in its midst, or gives up. It may take the
// connection.
func TestDeniedMayCutTheConnection(t *testing.T) {
	for name, denied := range map[string]func(http.ResponseWriter){
		"panics after it has begun": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, "slow")
			_ = http.NewResponseController(w).Flush()
			panic("broken")
		},
		"gives up": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"takes the connection": func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		},
		"takes the connection by a controller": func(w http.ResponseWriter) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		},
	} {
		var noted bytes.Buffer
		h := handler(t, httplimit.Options{
			Limiter: fixed{d: rejected}, Rate: 1,
			Denied: func(w http.ResponseWriter, _ *http.Request, _ trypema.Decision) { denied(w) },
		})
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = log.New(&noted, "", 0)
		s.Start()
		response, err := http.Get(s.URL)
		if err == nil {
			_, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		s.Close()
		if err == nil {
			t.Errorf("%s: the client saw a whole answer", name)
		}
		text := noted.String()
		logged := strings.Contains(text, "panic")
		if logged != strings.HasPrefix(name, "panics") || strings.Contains(text, "hijacked") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// With Shadow requests pass, whatever breaks, and it is logged.
func TestShadowLetsAllPass(t *testing.T) {
	for name, o := range map[string]httplimit.Options{
		"an error":       {Limiter: fixed{err: errors.New("broken")}},
		"a panic in Key": {Limiter: fixed{}, Key: func(*http.Request) (string, bool) { panic("broken") }},
		"a panic in Seen": {Limiter: fixed{}, Seen: func(*http.Request, trypema.Decision, error) {
			panic("broken")
		}},
		"a panic in Skip": {Limiter: fixed{}, Skip: func(*http.Request) bool { panic(errors.New("broken")) }},
		"a panic in Decide": {Decide: func(*http.Request, string, uint64) (trypema.Decision, error) {
			panic("broken")
		}},
	} {
		var noted bytes.Buffer
		o.Shadow, o.Logger = true, slog.New(slog.NewTextHandler(&noted, nil))
		if o.Decide == nil {
			o.Rate = 1
		}
		w := get(handler(t, o))
		if w.Code != http.StatusOK || w.Body.String() != "through" {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
		if !strings.Contains(noted.String(), "broken") {
			t.Errorf("%s is logged as %q", name, &noted)
		}
	}
}

// What New could not judge is logged when it first fails, without a line for each request. A client that goes
// is not logged.
func TestFailuresAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := fixture.Local(t, trypema.Options{Window: time.Second})
		var noted bytes.Buffer
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for name, o := range map[string]httplimit.Options{
			"a limiter without Window": {Limiter: brokenLimiter{limits.Absolute()}, Rate: .5},
			"RateOf": {Limiter: limits.Absolute(), RateOf: func(*http.Request) trypema.Rate {
				return trypema.Rate(math.NaN())
			}},
			"Decide": {Decide: func(r *http.Request, key string, n uint64) (trypema.Decision, error) {
				return limits.Absolute().AllowN(r.Context(), key, .5, n)
			}},
		} {
			noted.Reset()
			o.Logger = slog.New(slog.NewTextHandler(&noted, nil))
			h := handler(t, o)
			for range 3 {
				get(h)
			}
			text := noted.String()
			if strings.Count(text, "\n") != 1 || !strings.Contains(text, "rate is ") {
				t.Errorf("%s: %s", name, text)
			}
			time.Sleep(time.Minute)
			get(h)
			text = noted.String()
			if strings.Count(text, "\n") != 2 || !strings.Contains(text, "others=2") {
				t.Errorf("%s, later: %s", name, text)
			}
		}
		failed := func(http.ResponseWriter, *http.Request, error) {}
		for name, tt := range map[string]struct {
			o   httplimit.Options
			ctx context.Context
		}{
			"a client that has gone": {httplimit.Options{Limiter: waiting{}}, ended},
			"Failed": {
				httplimit.Options{Limiter: fixed{err: trypema.ErrClosed}, Failed: failed}, t.Context(),
			},
			"a denial": {httplimit.Options{Limiter: fixed{d: rejected}}, t.Context()},
		} {
			noted.Reset()
			tt.o.Rate, tt.o.Logger = 1, slog.New(slog.NewTextHandler(&noted, nil))
			handler(t, tt.o).ServeHTTP(httptest.NewRecorder(), to(tt.ctx, "/"))
			if noted.Len() > 0 {
				t.Errorf("%s is logged: %s", name, &noted)
			}
		}
		noted.Reset()
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&noted, nil)))
		defer slog.SetDefault(before)
		get(handler(t, httplimit.Options{Limiter: fixed{err: context.Canceled}, Rate: 1}))
		if !strings.Contains(noted.String(), "canceled") {
			t.Errorf("the default logger has %q", &noted)
		}
	})
}
