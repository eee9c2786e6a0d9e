package httplimit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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

func ten(*http.Request) uint64 { return 10 }

func reserver(t testing.TB, o httplimit.Options, expiry time.Duration) *httplimit.Reserver {
	t.Helper()
	if o.Cost == nil {
		o.Cost = ten
	}
	v, err := httplimit.NewReserver(o, expiry)
	must.OK(t, err)
	return v
}

// total is what a key has used.
func total(t testing.TB, b *trypema.Bound) uint64 {
	t.Helper()
	u, err := b.Usage(t.Context(), "192.0.2.1")
	must.OK(t, err)
	return u[0].Total
}

// serve has a handler answer a request, also one that panics.
func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }()
		h.ServeHTTP(w, r)
	}()
	return w
}

// An estimate counts while a request is handled, and then what it has cost, however it ends.
func TestReserver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, tt := range []struct {
		name   string
		handle func(v *httplimit.Reserver, r *http.Request)
		want   uint64
	}{
		{"as much", func(v *httplimit.Reserver, r *http.Request) { v.Spent(r.Context(), 10) }, 10},
		{"less", func(v *httplimit.Reserver, r *http.Request) { v.Spent(r.Context(), 3) }, 3},
		{"more", func(v *httplimit.Reserver, r *http.Request) { v.Spent(r.Context(), 30) }, 30},
		{"bit by bit", func(v *httplimit.Reserver, r *http.Request) {
			for range 7 {
				v.Spent(r.Context(), 1)
			}
		}, 7},
		{"nothing", func(v *httplimit.Reserver, r *http.Request) { v.Spent(r.Context(), 0) }, 0},
		{"without a report", func(*httplimit.Reserver, *http.Request) {}, 10},
		{"panics", func(v *httplimit.Reserver, r *http.Request) { v.Spent(r.Context(), 4); panic("broken") }, 4},
		{"panics without a report", func(*httplimit.Reserver, *http.Request) { panic(http.ErrAbortHandler) }, 10},
		{"the client hangs up", func(v *httplimit.Reserver, r *http.Request) {
			v.Spent(r.Context(), 5)
			cancel()
			<-r.Context().Done()
		}, 5},
		{"by the context of another request",
			func(v *httplimit.Reserver, _ *http.Request) { v.Spent(t.Context(), 5) }, 10},
		{"more than there is", func(v *httplimit.Reserver, r *http.Request) {
			v.Spent(r.Context(), math.MaxUint64)
			v.Spent(r.Context(), math.MaxUint64)
		}, math.MaxInt64},
	} {
		b := bind(t, trypema.AtMost(100, time.Hour))
		v := reserver(t, httplimit.Options{Bound: b}, time.Minute)
		var meanwhile uint64
		h := v.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if d, ok := trypema.FromContext(r.Context()); !ok || d.Remaining != 90 {
				t.Errorf("%s: the handler knows %+v, %v", tt.name, d, ok)
			}
			meanwhile = total(t, b)
			tt.handle(v, r)
		}))
		w := serve(h, httptest.NewRequest(http.MethodGet, "/", http.NoBody).WithContext(ctx))
		got := total(t, b)
		if got != tt.want || meanwhile != 10 || w.Header().Get("RateLimit") != `"default";r=90` {
			t.Errorf("%s: %d, and %d meanwhile, want %d and 10; %v", tt.name, got, meanwhile, tt.want, w.Header())
		}
		ctx, cancel = context.WithCancel(t.Context())
	}
	cancel()
}

// A request that is denied further in has reserved nothing, whoever denies it.
func TestReserversInARow(t *testing.T) {
	noKey := func(*http.Request) (string, bool) { return "", false }
	for name, tt := range map[string]struct {
		tokens, money, inner httplimit.Options
		status               int
		used                 string
	}{
		"admitted": {status: 200, used: "3 300"},
		"denied by the first": {
			tokens: httplimit.Options{Bound: bind(t, trypema.AtMost(9, time.Hour))}, status: 429, used: "0 0",
		},
		"denied by the second": {
			money: httplimit.Options{Bound: bind(t, trypema.AtMost(9, time.Hour))}, status: 429, used: "0 0",
		},
		"not judged by the second": {
			money: httplimit.Options{
				Policies: policies(t, trypema.Policy{
					Name: "a", Limits: []trypema.Limit{trypema.AtMost(1, time.Hour)},
				}),
				PolicyOf: plan,
			},
			status: 503, used: "0 0",
		},
		"denied by another limit": {
			inner: httplimit.Options{Bound: bind(t, trypema.AtMost(0, time.Hour))}, status: 429, used: "0 0",
		},
		"without a key further in": {
			inner: httplimit.Options{Key: noKey, Keyless: httplimit.KeylessDeny}, status: 400, used: "0 0",
		},
		"skipped by the first": {
			tokens: httplimit.Options{Skip: func(*http.Request) bool { return true }}, status: 200, used: "0 300",
		},
		"in shadow": {
			tokens: httplimit.Options{Bound: bind(t, trypema.AtMost(9, time.Hour)), Shadow: true},
			status: 200, used: "0 300",
		},
	} {
		for _, o := range []*httplimit.Options{&tt.tokens, &tt.money, &tt.inner} {
			if o.Bound == nil && o.Policies == nil {
				o.Bound = bind(t, trypema.AtMost(1000, time.Hour))
			}
			o.Logger = quiet
		}
		tokens, money := reserver(t, tt.tokens, 0), reserver(t, tt.money, 0)
		h := tokens.Wrap(money.Wrap(limit(t, tt.inner)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			tokens.Spent(r.Context(), 3)
			money.Spent(r.Context(), 300)
		}))))
		w := serve(h, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		used := fmt.Sprint(total(t, tt.tokens.Bound), " ")
		if tt.money.Bound != nil {
			used += fmt.Sprint(total(t, tt.money.Bound))
		} else {
			used += "0"
		}
		if w.Code != tt.status || used != tt.used {
			t.Errorf("%s: %d, used %s; want %d, %s", name, w.Code, used, tt.status, tt.used)
		}
	}
}

// The estimate of a handler that does not end counts until its expiry. What it has cost counts, however late
// it is told, while the admission is within the window.
func TestReserverExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bind(t, trypema.AtMost(100, time.Hour))
		v := reserver(t, httplimit.Options{Bound: b}, time.Minute)
		h := v.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			time.Sleep(59 * time.Second)
			if n := total(t, b); n != 10 {
				t.Errorf("before the expiry: %d", n)
			}
			time.Sleep(time.Minute)
			if n := total(t, b); n != 0 {
				t.Errorf("after the expiry: %d", n)
			}
			v.Spent(r.Context(), 7)
		}))
		serve(h, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		if n := total(t, b); n != 7 {
			t.Errorf("in the end: %d", n)
		}
	})
}

// What cannot be settled is logged; what cannot reserve is refused.
func TestReserverTrouble(t *testing.T) {
	var said bytes.Buffer
	limits, err := trypema.NewLocal(trypema.Options{})
	must.OK(t, err)
	b := fixture.Bind(t, limits, trypema.StrategyAbsolute, trypema.AtMost(100, time.Hour))
	o := httplimit.Options{Bound: b, Name: "tokens", Logger: slog.New(slog.NewTextHandler(&said, nil))}
	v := reserver(t, o, 0)
	w := serve(v.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { _ = limits.Close() })),
		httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	if text := said.String(); w.Code != 200 || strings.Count(text, "\n") != 1 ||
		!strings.Contains(text, "cannot be settled") ||
		!strings.Contains(text, "policy=tokens") {
		t.Errorf("%d; the log says %q", w.Code, text)
	}
	l := local(t).Absolute()
	for _, tt := range []struct {
		o      httplimit.Options
		expiry time.Duration
		says   string
	}{
		{httplimit.Options{}, 0, "httplimit.Options.Limiter is nil, and so are Bound"},
		{httplimit.Options{Limiter: l, Rate: 1, Cost: ten}, 0, "httplimit.Options.Bound is nil, and so is Policies"},
		{httplimit.Options{Bound: b}, 0, "httplimit.Options.Cost is nil"},
		{httplimit.Options{Bound: b, Cost: ten}, -1, "httplimit.NewReserver: expiry is -1ns"},
		{httplimit.Options{Bound: b, Cost: ten, Headers: 3}, 0, "httplimit.Options.Headers is 3"},
	} {
		if _, err := httplimit.NewReserver(tt.o, tt.expiry); !errors.Is(err, trypema.ErrInvalidOptions) ||
			!strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "must") {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
}
