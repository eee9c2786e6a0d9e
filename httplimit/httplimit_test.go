package httplimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// fixed is a limiter that always says the same.
type fixed struct {
	trypema.Limiter
	d    trypema.Decision
	err  error
	key  *string
	cost *uint64
}

func (f fixed) AllowN(_ context.Context, key string, _ trypema.Rate, n uint64) (trypema.Decision, error) {
	if f.key != nil {
		*f.key = key
	}
	if f.cost != nil {
		*f.cost = n
	}
	return f.d, f.err
}

func (f fixed) Peek(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	return f.AllowN(ctx, key, rate, n)
}

var (
	allowed    = trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: 100, Remaining: 41}
	rejected   = trypema.Decision{Outcome: trypema.OutcomeRejected, Limit: 100, RetryAfter: 1001 * time.Millisecond}
	suppressed = trypema.Decision{Outcome: trypema.OutcomeSuppressed, Limit: 100, Remaining: 3,
		RetryAfter: time.Millisecond}
	hopeless = trypema.Decision{Outcome: trypema.OutcomeRejected, Limit: 100, Remaining: 100,
		RetryAfter: trypema.Never}
)

func handler(t testing.TB, o httplimit.Options) http.Handler {
	t.Helper()
	through := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "through") }
	return limit(t, o)(http.HandlerFunc(through))
}

// limit returns a middleware.
func limit(t testing.TB, o httplimit.Options) func(http.Handler) http.Handler {
	t.Helper()
	m, err := httplimit.New(o)
	must.OK(t, err)
	return m
}

func get(h http.Handler) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	const quota, reduced = "https://iana.org/assignments/http-problem-types#quota-exceeded",
		"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
	for _, tt := range []struct {
		name    string
		d       trypema.Decision
		err     error
		headers httplimit.Headers
		status  int
		want    string // headers
		problem string
	}{
		{"allowed", allowed, nil, httplimit.StandardHeaders, 200,
			`Ratelimit: "default";r=41|Ratelimit-Policy: "default";q=100;w=60`, ""},
		{"rejected", rejected, nil, httplimit.StandardHeaders, 429,
			`Ratelimit: "default";r=0;t=2|Ratelimit-Policy: "default";q=100;w=60|Retry-After: 2`, quota},
		{"suppressed", suppressed, nil, httplimit.StandardHeaders, 429,
			`Ratelimit: "default";r=3;t=1|Ratelimit-Policy: "default";q=100;w=60|Retry-After: 1`, reduced},
		{"never", hopeless, nil, httplimit.StandardHeaders, 429,
			`Ratelimit: "default";r=100|Ratelimit-Policy: "default";q=100;w=60`, quota},
		{"legacy", allowed, nil, httplimit.LegacyHeaders, 200, `X-Ratelimit-Limit: 100|X-Ratelimit-Remaining: 41`, ""},
		{"legacy, rejected", rejected, nil, httplimit.LegacyHeaders, 429,
			`Retry-After: 2|X-Ratelimit-Limit: 100|X-Ratelimit-Remaining: 0|X-Ratelimit-Reset: 2`, quota},
		{"no headers", rejected, nil, httplimit.NoHeaders, 429, `Retry-After: 2`, quota},
		{"error", trypema.Decision{}, trypema.ErrClosed, httplimit.StandardHeaders, 503, ``, "about:blank"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := get(handler(t, httplimit.Options{
				Limiter: fixed{d: tt.d, err: tt.err}, Rate: 1, Headers: tt.headers, Window: time.Minute, Logger: quiet,
			}))
			var got []string
			for _, name := range []string{"Ratelimit", "Ratelimit-Policy", "Retry-After", "X-Ratelimit-Limit",
				"X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
				for _, v := range w.Header()[name] {
					got = append(got, name+": "+v)
				}
			}
			if s := strings.Join(got, "|"); w.Code != tt.status || s != tt.want {
				t.Errorf("%d, %s\nwant %d, %s", w.Code, s, tt.status, tt.want)
			}
			if tt.problem == "" {
				if w.Body.String() != "through" {
					t.Errorf("body %q", w.Body)
				}
				return
			}
			var p struct {
				Type, Title string
				Status      int
				Violated    []string `json:"violated-policies"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Type != tt.problem ||
				p.Status != tt.status || p.Title == "" {
				t.Errorf("%v: %s", err, w.Body)
			}
			violated := strings.Join(p.Violated, ",")
			if violated != map[bool]string{true: "default"}[tt.status == 429] {
				t.Errorf("violated: %q", violated)
			}
			if kind := w.Header().Get("Content-Type"); kind != "application/problem+json" {
				t.Errorf("it is %s", kind)
			}
		})
	}
}

// TestPoliciesAddUp: behind one another, each has its say.
func TestPoliciesAddUp(t *testing.T) {
	inner := handler(t, httplimit.Options{Limiter: fixed{d: allowed}, Rate: 1, Name: "second"})
	h := limit(t, httplimit.Options{Limiter: fixed{d: allowed}, Rate: 1, Name: "minute"})(inner)
	for range 2 { // the values that responses share stay as they are
		w := get(h)
		if got := strings.Join(w.Header()["Ratelimit-Policy"], ", "); got != `"minute";q=100, "second";q=100` {
			t.Error(got)
		}
	}
}

// FuzzForwarded: whatever a stranger sends, the key is his own address. Behind a proxy it is what the proxy
// appends.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{
		"", "198.51.100.1", "[::1]", "1.2.3.4, 5.6.7.8", ",", "\x00", "[[[::", "::ffff:10.0.0.1", "10.0.0.1%1",
		"for=1.2.3.4", `for="[::1]"`, `for="`, `for=1.2.3.4;x="\"`, `"\`,
	} {
		f.Add(s, s)
	}
	keys := make(map[string]httplimit.KeyFunc)
	for _, header := range []string{"X-Forwarded-For", "Forwarded"} {
		keys[header] = mustKey(f)(httplimit.ByForwardedIP(header, networks("10.0.0.0/8")...))
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		for header, forwarded := range keys {
			r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
			r.Header[header] = []string{one, two}
			r.RemoteAddr = "192.0.2.7:1"
			if key, ok := forwarded(r); key != "192.0.2.7" || !ok {
				t.Errorf("a stranger is %q", key)
			}
			r.RemoteAddr = "10.0.0.1:1"
			if key, ok := forwarded(r); key == "" || !ok {
				t.Errorf("behind a proxy there is no key: %q", key)
			}
			item := "198.51.100.1"
			if header == "Forwarded" {
				item = `for="198.51.100.1:80";host="a\\\", \"b"`
			}
			second := strings.ReplaceAll(item, "198.51.100.1", "10.0.0.2")
			for _, lines := range [][]string{
				{one, two + "," + item}, {one, two, item},
				{one, two + "," + item, second}, {one, two + "," + item + "," + second},
			} {
				r.Header[header] = lines
				if key, ok := forwarded(r); key != "198.51.100.1" || !ok {
					t.Errorf("%s: %q is %q", header, lines, key)
				}
			}
		}
	})
}

func TestKeys(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(http.ResponseWriter, *http.Request) {})
	huge := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name   string
		key    httplimit.KeyFunc
		change func(*http.Request)
		want   string
	}{
		{"header", httplimit.ByHeader("x-tenant"), func(r *http.Request) { r.Header.Set("X-Tenant", " ada ") }, "ada"},
		{"no header", httplimit.ByHeader("x-tenant"), func(*http.Request) {}, "none"},
		{"empty header", httplimit.ByHeader("x-tenant"),
			func(r *http.Request) { r.Header.Set("X-Tenant", "  ") }, "none"},
		{"huge header", httplimit.ByHeader("x-tenant"),
			func(r *http.Request) { r.Header.Set("X-Tenant", huge) }, "4c9ad2ce2d0f1b5d"},
		{"hashed", httplimit.ByHashedHeader("authorization"),
			func(r *http.Request) { r.Header.Set("Authorization", "secret") },
			"2bb80d537b1da3e38bd30361aa855686"},
		{"nothing to hash", httplimit.ByHashedHeader("authorization"), func(*http.Request) {}, "none"},
		{"pattern of a mux", httplimit.ByPattern(mux), func(r *http.Request) { r.URL.Path = "/users/7" },
			"GET /users/{id}"},
		{"no pattern", httplimit.ByPattern(mux), func(r *http.Request) { r.URL.Path = "/other" }, "none"},
		{"pattern of the request", httplimit.ByPattern(nil), func(r *http.Request) { r.Pattern = "/x" }, "/x"},
		{"combined", httplimit.Combine(httplimit.ByIP(), httplimit.ByHeader("a")),
			func(r *http.Request) { r.Header.Set("A", "b:c") }, "9:192.0.2.13:b:c"},
		{"combined, one missing", httplimit.Combine(httplimit.ByIP(), httplimit.ByHeader("a")),
			func(*http.Request) {}, "none"},
		{"nothing combined", httplimit.Combine(), func(*http.Request) {}, "none"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.RemoteAddr = "192.0.2.1:1"
		tt.change(r)
		got, ok := tt.key(r)
		if !ok {
			got = "none"
		}
		if tt.name == "huge header" {
			if len(got) != 32 {
				t.Errorf("%s: %d bytes", tt.name, len(got))
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestKeyless(t *testing.T) {
	var key string
	o := httplimit.Options{Limiter: fixed{d: rejected, key: &key}, Rate: 1, Key: httplimit.ByHeader("X-Tenant")}
	if w := get(handler(t, o)); w.Code != http.StatusTooManyRequests || key == "" {
		t.Errorf("they share a limit: %d, %q", w.Code, key)
	}
	o.Keyless = httplimit.KeylessDeny
	if w := get(handler(t, o)); w.Code != http.StatusBadRequest {
		t.Errorf("they are denied: %d", w.Code)
	}
	o.Keyless = httplimit.KeylessPass
	if w := get(handler(t, o)); w.Code != http.StatusOK {
		t.Errorf("they pass: %d", w.Code)
	}
	o.Keyless, o.Shadow = httplimit.KeylessDeny, true
	if w := get(handler(t, o)); w.Code != http.StatusOK {
		t.Errorf("in shadow all pass: %d", w.Code)
	}
}

func TestShadowSkipAndCost(t *testing.T) {
	seen := 0
	var cost uint64 = 99
	o := httplimit.Options{
		Limiter: fixed{d: rejected, cost: &cost}, Rate: 1, Shadow: true,
		Seen: func(_ *http.Request, d trypema.Decision, err error) {
			if d != rejected || err != nil {
				t.Errorf("seen %+v, %v", d, err)
			}
			seen++
		},
	}
	// its type
	if w := get(handler(t, o)); w.Code != http.StatusOK || len(w.Header()) != 1 || seen != 1 || cost != 1 {
		t.Errorf("%d, %v, seen %d times, cost %d", w.Code, w.Header(), seen, cost)
	}
	o.Shadow = false
	o.Skip = func(r *http.Request) bool { return r.URL.Path == "/" }
	if w := get(handler(t, o)); w.Code != http.StatusOK || seen != 1 {
		t.Errorf("skipped: %d, seen %d times", w.Code, seen)
	}
	o.Skip = nil
	o.Cost = func(*http.Request) uint64 { return 0 }
	if w := get(handler(t, o)); w.Code != http.StatusTooManyRequests || cost != 0 {
		t.Errorf("cost %d is judged: %d", cost, w.Code)
	}
	o.Denied = func(w http.ResponseWriter, _ *http.Request, _ trypema.Decision) { w.WriteHeader(http.StatusTeapot) }
	if w := get(handler(t, o)); w.Code != http.StatusTeapot || w.Header().Get("Retry-After") != "2" {
		t.Errorf("an answer of one's own: %d, %v", w.Code, w.Header())
	}
}

func TestWrongOptions(t *testing.T) {
	l := fixed{}
	nan, inf := trypema.Rate(math.NaN()), trypema.Rate(math.Inf(1))
	limits := fixture.Local(t, trypema.Options{Window: time.Second})
	second := limits.Absolute()
	none := func(*http.Request) []trypema.Limit { return nil }
	byRate := func(*http.Request) trypema.Rate { return 1 }
	for _, tt := range []struct {
		o    httplimit.Options
		says string
	}{
		{httplimit.Options{Rate: 1}, "Limiter is nil"},
		{httplimit.Options{Limiter: l}, "Rate is 0 and RateOf is nil"},
		{httplimit.Options{Limiter: l, Rate: 1, RateOf: byRate}, "Rate is 1 and RateOf is set"},
		{httplimit.Options{Limiter: l, Rate: -1}, "Rate is -1"},
		{httplimit.Options{Limiter: l, Rate: nan}, "Rate is NaN"},
		{httplimit.Options{Limiter: l, Rate: inf}, "Rate is +Inf"},
		{httplimit.Options{Limiter: l, Rate: -inf}, "Rate is -Inf"},
		{httplimit.Options{Limiter: (*fixed)(nil), Rate: 1}, "Limiter is nil"},
		{httplimit.Options{Limiter: second, Rate: .5}, "Rate is 30/m"},
		{httplimit.Options{Limiter: second, Rate: 1, Window: time.Minute}, "Window is 1m0s; it must be that of"},
		{httplimit.Options{Limiter: l, Rate: 1, Limits: none}, "Limits is set, but not Decide"},
		{httplimit.Options{Rate: 1,
			Decide: func(*http.Request, string, uint64) (trypema.Decision, error) { return allowed, nil }},
			"Decide is set"},
		{httplimit.Options{Limiter: l, Rate: 1, Keyless: 3}, "Keyless is 3"},
		{httplimit.Options{Limiter: l, Rate: 1, Headers: 3}, "Headers is 3"},
		{httplimit.Options{Limiter: l, Rate: 1, Name: `a"b`}, `Name is "a\"b"`},
		{httplimit.Options{Limiter: l, Rate: 1, Name: "a\nb"}, `Name is "a\nb"`},
		{httplimit.Options{Limiter: l, Rate: 1, Window: -1}, "Window is -1ns"},
	} {
		if _, err := httplimit.New(tt.o); !errors.Is(err, trypema.ErrInvalidOptions) ||
			!strings.Contains(err.Error(), "httplimit.Options."+tt.says) {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
	for _, tt := range []struct {
		header  string
		proxies []netip.Prefix
		says    string
	}{
		{"", nil, `header is ""`}, {"a b", nil, `header is "a b"`}, {"X-Forwarded-For", nil, "proxies is empty"},
		{"X-Forwarded-For", []netip.Prefix{{}}, "proxies[0] is invalid Prefix"},
	} {
		_, err := httplimit.ByForwardedIP(tt.header, tt.proxies...)
		if !errors.Is(err, trypema.ErrInvalidOptions) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
	for _, tt := range []struct {
		o    httplimit.TransportOptions
		says string
	}{
		{httplimit.TransportOptions{Rate: 1}, "Limiter is nil"},
		{httplimit.TransportOptions{Limiter: (*fixed)(nil), Rate: 1}, "Limiter is nil"},
		{httplimit.TransportOptions{Limiter: l}, "Rate is 0"},
		{httplimit.TransportOptions{Limiter: l, Rate: -1}, "Rate is -1"},
		{httplimit.TransportOptions{Limiter: l, Rate: nan}, "Rate is NaN"},
		{httplimit.TransportOptions{Limiter: l, Rate: inf}, "Rate is +Inf"},
		{httplimit.TransportOptions{Limiter: limits.Suppressed(), Rate: .5}, "Rate is 30/m"},
		{httplimit.TransportOptions{Limiter: l, Rate: 1, Base: (*http.Transport)(nil)}, "Base is a nil *http"},
		{httplimit.TransportOptions{Limiter: l, Rate: 1, MaxWait: -1}, "MaxWait is -1ns"},
	} {
		if _, err := httplimit.NewTransport(tt.o); !errors.Is(err, trypema.ErrInvalidOptions) ||
			!strings.Contains(err.Error(), "httplimit.TransportOptions."+tt.says) {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
}

func to(ctx context.Context, url string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		panic(err)
	}
	return r
}

// ask makes a request, and closes its answer.
func ask(c *http.Client, r *http.Request) error {
	response, err := c.Do(r)
	if err == nil {
		_ = response.Body.Close()
	}
	return err
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type body struct{ closed bool }

func (*body) Read([]byte) (int, error) { return 0, io.EOF }
func (b *body) Close() error           { b.closed = true; return nil }

func TestTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := fixture.Local(t, trypema.Options{Window: time.Second})
		made := 0
		transport := func(wait time.Duration) *http.Client {
			tr, err := httplimit.NewTransport(httplimit.TransportOptions{
				Limiter: limits.Absolute(), Rate: trypema.PerSecond(2), MaxWait: wait,
				Base: roundTrip(func(*http.Request) (*http.Response, error) {
					made++
					return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
				}),
			})
			must.OK(t, err)
			return &http.Client{Transport: tr}
		}
		began := time.Now()
		patient := transport(time.Minute)
		for range 5 { // 2 at once, 2 after a second, 1 after another
			must.OK(t, ask(patient, to(t.Context(), "http://example.com/")))
		}
		if took := time.Since(began); took != 2*time.Second || made != 5 {
			t.Errorf("%d made in %v", made, took)
		}
		if err := ask(patient, to(t.Context(), "http://other.example/")); err != nil ||
			time.Since(began) != 2*time.Second {
			t.Errorf("another host has a limit of its own: %v", err)
		}

		if err := ask(patient, to(t.Context(), "http://example.com/")); err != nil { // fills the window
			t.Error(err)
		}
		sent := new(body)
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.com/", sent)
		err := ask(transport(time.Second/2), request)
		var denied *httplimit.DeniedError
		if !errors.As(err, &denied) || denied.RetryAfter != time.Second || !sent.closed {
			t.Errorf("too long to wait: %v, closed %v", err, sent.closed)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		before := time.Now()
		if err = ask(patient, to(ctx, "http://example.com/")); !errors.As(err, &denied) || time.Since(before) != 0 {
			t.Errorf("beyond the deadline: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second/4, cancel)
		if err = ask(patient, to(ctx, "http://example.com/")); !errors.Is(err, context.Canceled) ||
			time.Since(before) != time.Second/4 {
			t.Errorf("canceled: %v after %v", err, time.Since(before))
		}
	})
}

// TestAllocations holds what a request with Local costs: two allocations, its copy with a context, and what
// that context and the headers are in. How many limits or plans there are does not matter.
func TestAllocations(t *testing.T) {
	limits := fixture.Local(t, trypema.Options{})
	much := trypema.AtMost(1e12, time.Minute)
	plans := []trypema.Policy{
		{Name: "free", Limits: []trypema.Limit{much}},
		{Name: "pro", Limits: []trypema.Limit{much.Named("pro"), trypema.NoLimit}},
	}
	for name, tt := range map[string]struct {
		o    httplimit.Options
		most float64
	}{
		"allowed": {httplimit.Options{Limiter: limits.Absolute(), Rate: 1e12}, 2},
		"by header": {httplimit.Options{Limiter: limits.Absolute(), Rate: 1e12,
			Key: httplimit.ByHeader("X-Tenant")}, 2},
		"bound":    {httplimit.Options{Bound: bind(t, much, trypema.AtMost(1e12, time.Hour))}, 2},
		"policies": {httplimit.Options{Policies: policies(t, plans...), PolicyOf: plan}, 2},
	} {
		h := limit(t, tt.o)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header.Set("X-Tenant", "ada")
		w := &discard{h: make(http.Header)}
		i, chosen := 0, [][]string{{"free"}, {"pro"}}
		if n := testing.AllocsPerRun(1000, func() {
			r.Header["X-Plan"] = chosen[i%2]
			i++
			clear(w.h)
			h.ServeHTTP(w, r)
		}); n > tt.most {
			t.Errorf("%s: %v allocations, want at most %v", name, n, tt.most)
		}
	}
}

// discard is a ResponseWriter.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

func BenchmarkHandler(b *testing.B) {
	limits := fixture.Local(b, trypema.Options{})
	h := handler(b, httplimit.Options{Limiter: limits.Absolute(), Rate: 1e12})
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	w := &discard{h: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}
