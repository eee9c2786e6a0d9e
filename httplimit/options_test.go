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
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

func local(t testing.TB) *trypema.Local {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{Window: time.Minute})
	return limits
}

func bind(t testing.TB, limits ...trypema.Limit) *trypema.Bound {
	t.Helper()
	b := fixture.Bind(t, local(t), trypema.StrategyAbsolute, limits...)
	return b
}

func policies(t testing.TB, list ...trypema.Policy) *trypema.Policies {
	t.Helper()
	p := fixture.Policies(t, local(t), list...)
	return p
}

func plan(r *http.Request) string { return r.Header.Get("X-Plan") }

// client returns a client with a Transport whose requests are answered by a function.
func client(t testing.TB, o httplimit.TransportOptions, answer func(*http.Request) *http.Response) *http.Client {
	t.Helper()
	o.Base = roundTrip(func(r *http.Request) (*http.Response, error) { return answer(r), nil })
	transport, err := httplimit.NewTransport(o)
	must.OK(t, err)
	return &http.Client{Transport: transport}
}

func answer(status int, headers ...string) *http.Response {
	r := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func ok(*http.Request) *http.Response { return answer(200) }

// Who decides is said once, and so that it can; the middleware and the Transport agree.
func TestWhoDecides(t *testing.T) {
	b, l := bind(t, trypema.AtMost(3, time.Minute)), local(t).Absolute()
	p := policies(t, trypema.Policy{Name: "free", Limits: b.Limits()})
	decide := func(*http.Request, string, uint64) (trypema.Decision, error) { return allowed, nil }
	rate := func(*http.Request) trypema.Rate { return 1 }
	var none *trypema.Bound
	for _, tt := range []struct {
		o    httplimit.TransportOptions
		says string // "" if all is well
	}{
		{httplimit.TransportOptions{}, "Limiter is nil, and so are Bound, Policies and Decide"},
		{httplimit.TransportOptions{Bound: none}, "Limiter is nil, and so are Bound, Policies and Decide"},
		{httplimit.TransportOptions{Bound: new(trypema.Bound)}, "Bound has no limits"},
		{httplimit.TransportOptions{Bound: b, Rate: 1}, "Bound is set, and"},
		{httplimit.TransportOptions{Bound: b, Limiter: l, Rate: 1}, "Bound is set, and"},
		{httplimit.TransportOptions{Bound: b, Policies: p, PolicyOf: plan}, "Bound is set, and"},
		{httplimit.TransportOptions{Bound: b, Decide: decide}, "Decide is set, and"},
		{httplimit.TransportOptions{Bound: b, PolicyOf: plan}, "PolicyOf is set, but not Policies"},
		{httplimit.TransportOptions{Policies: p}, "PolicyOf is nil"},
		{httplimit.TransportOptions{Policies: new(trypema.Policies), PolicyOf: plan}, "Policies has no policies"},
		{httplimit.TransportOptions{Policies: p, PolicyOf: plan, RateOf: rate}, "Policies is set, and"},
		{httplimit.TransportOptions{Policies: p, PolicyOf: plan, Decide: decide}, "Decide is set, and"},
		{httplimit.TransportOptions{Bound: b, Keyless: 3}, "Keyless is 3"},
		{httplimit.TransportOptions{Bound: b}, ""},
		{httplimit.TransportOptions{Policies: p, PolicyOf: plan}, ""},
		{httplimit.TransportOptions{Decide: decide}, ""},
		{httplimit.TransportOptions{Limiter: l, RateOf: rate}, ""},
	} {
		o := httplimit.Options{
			Bound: tt.o.Bound, Policies: tt.o.Policies, PolicyOf: tt.o.PolicyOf, Limiter: tt.o.Limiter,
			Rate: tt.o.Rate, RateOf: tt.o.RateOf, Decide: tt.o.Decide, Keyless: tt.o.Keyless,
		}
		_, err := httplimit.New(o)
		_, err2 := httplimit.NewTransport(tt.o)
		for name, err := range map[string]error{"httplimit.Options.": err, "httplimit.TransportOptions.": err2} {
			if wrong := errors.Is(err, trypema.ErrInvalidOptions) && strings.Contains(err.Error(), name+tt.says) &&
				strings.Contains(err.Error(), "must"); (tt.says == "") != (err == nil) || err != nil && !wrong {
				t.Errorf("%v, want %q", err, name+tt.says)
			}
		}
	}
	if _, err := httplimit.New(httplimit.Options{Bound: b,
		Window: time.Minute}); !errors.Is(err, trypema.ErrInvalidOptions) ||
		!strings.Contains(err.Error(), "Window is 1m0s; it must be left out") {
		t.Error(err)
	}
}

// A policy is found for each request, costs what it says unless Cost says something else, and follows Swap.
func TestPolicyOf(t *testing.T) {
	free := trypema.Policy{Name: "free", Cost: 2, Limits: []trypema.Limit{trypema.AtMost(10, time.Minute)}}
	p := policies(t, free)
	o := httplimit.Options{Policies: p, PolicyOf: plan, Logger: quiet}
	ask := func(plan string) string {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header.Set("X-Plan", plan)
		w := httptest.NewRecorder()
		handler(t, o).ServeHTTP(w, r)
		return fmt.Sprint(w.Code, " ", w.Header().Get("RateLimit-Policy"), " ", w.Header().Get("RateLimit"))
	}
	for _, tt := range []struct{ plan, want string }{
		{"free", `200 "default";q=10;w=60 "default";r=8`},
		{"none", `503  `},
		{"", `503  `},
	} {
		if got := ask(tt.plan); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.plan, got, tt.want)
		}
	}
	o.Cost = func(*http.Request) uint64 { return 5 }
	if got := ask("free"); got != `200 "default";q=10;w=60 "default";r=3` {
		t.Errorf("at a cost of its own: %s", got)
	}
	o.Cost = func(*http.Request) uint64 { return 0 }
	if got := ask("free"); got != `200 "default";q=10;w=60 "default";r=3` {
		t.Errorf("at no cost: %s", got)
	}
	o.Cost = nil
	free.Limits = []trypema.Limit{trypema.AtMost(8, time.Minute).Named("less")}
	must.OK(t, p.Swap(free, trypema.Policy{Name: "none", Limits: []trypema.Limit{trypema.NoLimit}}))
	if got := ask("free"); !strings.HasPrefix(got, `429 "less";q=8;w=60 "less";r=1;t=`) {
		t.Errorf("after Swap: %s", got)
	}
	if got := ask("none"); got != "200  " {
		t.Errorf("after Swap: %s", got)
	}
}

// What no limit keeps is not told, and neither is a policy in shadow, which lets all pass. A handler is told
// of each decision.
func TestFromContext(t *testing.T) {
	var all httplimit.Options
	all.Policies = policies(t,
		trypema.Policy{Name: "one", Limits: []trypema.Limit{trypema.AtMost(1, time.Minute)}},
		trypema.Policy{Name: "none", Limits: []trypema.Limit{trypema.NoLimit}},
		trypema.Policy{Name: "endless", Limits: []trypema.Limit{{Rate: trypema.Unlimited, Window: time.Minute}}},
		trypema.Policy{Name: "blocked", Limits: []trypema.Limit{trypema.AtMost(0, time.Minute)}},
		trypema.Policy{Name: "shadow", Shadow: true, Limits: []trypema.Limit{trypema.AtMost(0, time.Minute)}})
	all.PolicyOf = plan
	all.Skip = func(r *http.Request) bool { return plan(r) == "skipped" }
	shadow := all
	shadow.Shadow = true
	for _, tt := range []struct {
		o        httplimit.Options
		plan     string
		status   int
		told     string
		decision string // what the handler knows
	}{
		{all, "one", 200, `"default";r=0`, "allowed false 1"},
		{all, "one", 429, `"default";r=0;t=60`, ""},
		{shadow, "one", 200, "", "rejected false 1"},
		{all, "none", 200, "", fmt.Sprint("allowed false ", uint64(math.MaxInt64))},
		{all, "endless", 200, "", fmt.Sprint("allowed false ", uint64(math.MaxInt64))},
		{all, "blocked", 429, `"default";r=0`, ""},
		{all, "shadow", 200, "", "allowed true 0"},
		{all, "skipped", 200, "", "none"},
		{shadow, "unknown", 200, "", "none"},
	} {
		for headers := range httplimit.NoHeaders {
			if headers == httplimit.LegacyHeaders && tt.told != "" {
				continue // they are other ones
			}
			tt.o.Headers, tt.o.Logger = headers, quiet
			got := ""
			h := limit(t, tt.o)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = "none"
				if d, ok := trypema.FromContext(r.Context()); ok {
					got = fmt.Sprint(d.Outcome, " ", d.Shadowed, " ", d.Limit)
				}
			}))
			r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
			r.Header.Set("X-Plan", tt.plan)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			told := w.Header().Get("RateLimit") + w.Header().Get("X-RateLimit-Limit")
			if w.Code != tt.status || strings.Split(told, ";t=6")[0] != strings.Split(tt.told, ";t=6")[0] ||
				got != tt.decision {
				t.Errorf("%s: %d, %s, the handler knows %q; want %d, %s, %q", tt.plan, w.Code, told, got, tt.status,
					tt.told, tt.decision)
			}
		}
	}
}

// KeyOf is the key by which a request is limited.
func TestKeyOf(t *testing.T) {
	b := bind(t, trypema.AtMost(10, time.Minute))
	noKey := func(*http.Request) (string, bool) { return "", false }
	for _, tt := range []struct {
		name string
		o    httplimit.Options
		ok   bool
	}{
		{"by address", httplimit.Options{}, true},
		{"by header", httplimit.Options{Key: httplimit.ByHashedHeader("X-Key")}, true},
		{"without a key, shared", httplimit.Options{Key: noKey}, true},
		{"without a key, denied", httplimit.Options{Key: noKey, Keyless: httplimit.KeylessDeny}, false},
		{"without a key, passing", httplimit.Options{Key: noKey, Keyless: httplimit.KeylessPass}, false},
	} {
		tt.o.Bound = b
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header.Set("X-Key", tt.name)
		r.RemoteAddr = "[2001:db8::1]:80"
		handler(t, tt.o).ServeHTTP(httptest.NewRecorder(), r)
		key, ok := tt.o.KeyOf(r)
		usage, err := b.Usage(t.Context(), key)
		if err != nil || ok != tt.ok || ok && usage[0].Total != 1 {
			t.Errorf("%s: %q, %v, which has used %v, %v", tt.name, key, ok, usage, err)
		}
	}
	o := httplimit.Options{Bound: b}
	if key, ok := o.KeyOf(&http.Request{RemoteAddr: "192.0.2.7"}); key != "192.0.2.7" || !ok {
		t.Errorf("%q, %v", key, ok)
	}
	transport, err := httplimit.NewTransport(httplimit.TransportOptions{Bound: b})
	must.OK(t, err)
	if key, ok := transport.KeyOf(to(t.Context(), "http://Example.com.:80/")); key != "example.com" || !ok {
		t.Errorf("%q, %v", key, ok)
	}
}

// Allow lists are of networks, and of addresses that are known.
func TestSkipNetworks(t *testing.T) {
	proxies := networks("10.0.0.0/8")
	behind := httplimit.ClientIPOptions{Header: "X-Forwarded-For", Proxies: proxies}
	for _, tt := range []struct {
		o               httplimit.ClientIPOptions
		networks        string
		remote, forward string
		want            bool
	}{
		{httplimit.ClientIPOptions{}, "192.0.2.0/24", "192.0.2.7:1", "", true},
		{httplimit.ClientIPOptions{}, "192.0.2.0/24", "192.0.3.7:1", "", false},
		{httplimit.ClientIPOptions{}, "192.0.2.0/24", "192.0.3.7:1", "192.0.2.7", false},
		{httplimit.ClientIPOptions{}, "198.51.100.0/24 192.0.2.7", "192.0.2.7:1", "", true},
		{httplimit.ClientIPOptions{}, "192.0.2.0/24", "[::ffff:192.0.2.7]:1", "", true},
		{httplimit.ClientIPOptions{}, "::ffff:192.0.2.0/120", "192.0.2.7:1", "", true},
		{httplimit.ClientIPOptions{}, "2001:db8::1", "[2001:db8::1]:1", "", true},
		{httplimit.ClientIPOptions{}, "2001:db8::1", "[2001:db8::2]:1", "", false},
		{httplimit.ClientIPOptions{}, "10.0.0.0/8", "@", "", false},
		{behind, "192.0.2.0/24", "10.0.0.1:1", "192.0.2.7", true},
		{behind, "192.0.2.0/24", "10.0.0.1:1", "192.0.2.7, 198.51.100.1", false},
		{behind, "10.0.0.0/8", "10.0.0.1:1", "198.51.100.1", false},
		{behind, "10.0.0.0/8", "10.0.0.1:1", "10.0.0.3", true},
		{behind, "10.0.0.0/8", "10.0.0.1:1", "unknown", false}, // whoever that is
		{behind, "10.0.0.0/8", "10.0.0.1:1", "", true},         // the proxy itself
	} {
		skip, err := httplimit.SkipNetworks(tt.o, strings.Fields(tt.networks)...)
		must.OK(t, err)
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.RemoteAddr = tt.remote
		if tt.forward != "" {
			r.Header.Set("X-Forwarded-For", tt.forward)
		}
		if got := skip(r); got != tt.want {
			t.Errorf("%s, for %s, is skipped by %s: %v", tt.remote, tt.forward, tt.networks, got)
		}
	}
	for _, tt := range []struct{ networks, says string }{
		{"", "networks is empty"},
		{"192.0.2.0/24 nonsense", `networks[1] is "nonsense"; it must be a network`},
		{"192.0.2.7/24", `networks[0] is "192.0.2.7/24"; it must be a network: 192.0.2.0/24 is one`},
		{"0.0.0.0/0", `it must not have every address`}, {"::/0", `it must not have every address`},
		{"fe80::1%eth0", `it must be a network`}, {"::ffff:0.0.0.0/96", `it must not have every address`},
	} {
		_, err := httplimit.SkipNetworks(httplimit.ClientIPOptions{}, strings.Fields(tt.networks)...)
		if !errors.Is(err, trypema.ErrInvalidOptions) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
	_, err := httplimit.SkipNetworks(httplimit.ClientIPOptions{IPv6Bits: 129}, "::1")
	if !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
}

// The Transport has what the middleware has.
func TestTransportOptions(t *testing.T) {
	ctx := t.Context()
	refused := errors.New("refused")
	var said bytes.Buffer
	seen, made := 0, 0
	o := httplimit.TransportOptions{
		Policies: policies(t, trypema.Policy{Name: "free", Cost: 4,
			Limits: []trypema.Limit{trypema.AtMost(10, time.Minute)}}),
		PolicyOf: plan,
		Key:      httplimit.ByHeader("X-Tenant"),
		Skip:     func(r *http.Request) bool { return r.URL.Path == "/health" },
		Logger:   slog.New(slog.NewTextHandler(&said, nil)),
		Seen:     func(*http.Request, trypema.Decision, error) { seen++ },
	}
	do := func(path, plan, tenant string) error {
		r := to(ctx, "http://example.com"+path)
		r.Header.Set("X-Plan", plan)
		r.Header.Set("X-Tenant", tenant)
		return ask(client(t, o, func(r *http.Request) *http.Response {
			made++
			if _, ok := trypema.FromContext(r.Context()); ok != (path != "/health" && tenant != "") && !o.Shadow {
				t.Errorf("%s %s: a decision in the context: %v", path, tenant, ok)
			}
			return answer(200)
		}), r)
	}
	check := func(name string, err error, want error, wantSeen, wantMade int) {
		t.Helper()
		if !errors.Is(err, want) || seen != wantSeen || made != wantMade {
			t.Errorf("%s: %v, seen %d, made %d; want %v, %d, %d", name, err, seen, made, want, wantSeen, wantMade)
		}
		seen, made = 0, 0
	}
	check("by its policy", do("/", "free", "a"), nil, 1, 1)
	check("skipped", do("/health", "none", "a"), nil, 0, 1)
	check("unknown", do("/", "none", "a"), trypema.ErrUnknownPolicy, 1, 0)
	if text := said.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `host=example.com`) {
		t.Errorf("the log says %q", text)
	}
	o.Failed = func(_ *http.Request, err error) error {
		if !errors.Is(err, trypema.ErrUnknownPolicy) {
			t.Error(err)
		}
		return refused
	}
	check("failed in its own way", do("/", "none", "a"), refused, 1, 0)
	o.Cost = func(*http.Request) uint64 { return 7 }
	var denied *httplimit.DeniedError
	err := do("/", "free", "a")
	if check("at another cost", err, err, 1, 0); !errors.As(err, &denied) || denied.Remaining != 6 || denied.ByServer {
		t.Error(err)
	}
	o.Denied = func(_ *http.Request, d trypema.Decision) error {
		if d.Remaining != 6 {
			t.Errorf("%+v", d)
		}
		return refused
	}
	check("denied in its own way", do("/", "free", "a"), refused, 1, 0)
	o.Denied = func(*http.Request, trypema.Decision) error { return nil }
	if err := do("/", "free", "a"); !errors.As(err, &denied) {
		t.Error(err)
	}
	seen, made = 0, 0
	o.Keyless = httplimit.KeylessDeny
	check("without a key", do("/", "free", ""), trypema.ErrInvalidKey, 0, 0)
	o.Keyless = httplimit.KeylessPass
	check("without a key, passing", do("/", "free", ""), nil, 0, 1)
	o.Shadow = true
	check("in shadow", do("/", "free", "a"), nil, 1, 1)
	check("in shadow, unknown", do("/", "none", "a"), nil, 1, 1)
	o.Cost = func(*http.Request) uint64 { panic("broken") }
	check("in shadow, broken", do("/", "free", "a"), nil, 0, 1)
}

// Requests that wait for a Bound, or for policies, are made in the order in which they came; none waits
// longer than it may, or beyond its deadline, and one that can never pass fails at once.
func TestTransportTurns(t *testing.T) {
	limit := trypema.AtMost(1, time.Second)
	for _, name := range []string{"bound", "policies"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var options httplimit.TransportOptions
				if name == "policies" {
					two := []trypema.Limit{trypema.AtMost(2, time.Second)}
					options.Policies = policies(t, trypema.Policy{Name: "free", Cost: 2, Limits: two})
					options.PolicyOf = func(*http.Request) string { return "free" }
				} else {
					options.Bound = bind(t, limit)
				}
				options.MaxWait = 30 * time.Second
				cost := func(r *http.Request) uint64 { return map[string]uint64{"/": 2, "/much": 3}[r.URL.Path] }
				var mu sync.Mutex
				var order []string
				began := time.Now()
				c := client(t, options, func(r *http.Request) *http.Response {
					mu.Lock()
					defer mu.Unlock()
					order = append(order, fmt.Sprint(r.URL.Query().Get("n"), " at ", time.Since(began)))
					return answer(200)
				})
				var want []string
				for i := range 20 {
					want = append(want, fmt.Sprint(i, " at ", time.Duration(i)*time.Second))
					go func() {
						if err := ask(c, to(t.Context(), fmt.Sprint("http://example.com/?n=", i))); err != nil {
							t.Errorf("request %d: %v", i, err)
						}
					}()
					synctest.Wait() // it has its turn
				}
				denied := func(err error, retry time.Duration) {
					t.Helper()
					var denied *httplimit.DeniedError
					if !errors.As(err, &denied) || denied.RetryAfter != retry || time.Since(began) != 0 {
						t.Errorf("%v after %v, want a denial for %v", err, time.Since(began), retry)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 19*time.Second)
				defer cancel()
				denied(ask(c, to(ctx, "http://example.com/")), 20*time.Second)
				impatient := options
				impatient.MaxWait = 19 * time.Second
				denied(ask(client(t, impatient, ok), to(t.Context(), "http://example.com/")), 20*time.Second)
				impatient.MaxWait, impatient.Cost = time.Hour, cost
				denied(ask(client(t, impatient, ok), to(t.Context(), "http://other.example/much")), trypema.Never)
				canceled, cancel := context.WithCancel(t.Context())
				cancel()
				if err := ask(c, to(canceled, "http://example.com/")); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(order, want) {
					t.Errorf("%q, want %q", order, want)
				}
			})
		})
	}
}

// A server that asks for no more requests gets none until the time that it has said, from any request of the
// same key, whatever the limit; others do.
func TestTransportObeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		epoch := func(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }
		says := func(headers ...string) func() []string { return func() []string { return headers } }
		for _, tt := range []struct {
			name    string
			status  int
			headers func() []string // at the time of the answer
			want    time.Duration
		}{
			{"429 with seconds", 429, says("Retry-After", "12"), 12 * time.Second},
			{"503 with seconds", 503, says("Retry-After", " 12 "), 12 * time.Second},
			{"429 with a date", 429, func() []string {
				return []string{"Retry-After", date(12 * time.Second)}
			}, 12 * time.Second},
			{"429 with a date by another clock", 429, func() []string {
				return []string{"Date", date(time.Hour), "Retry-After", date(time.Hour + 12*time.Second)}
			}, 12 * time.Second},
			{"429 with a date that has passed", 429, func() []string {
				return []string{"Retry-After", date(-time.Hour)}
			}, 0},
			{"429 without", 429, says(), 0},
			{"429 with nonsense", 429, says("Retry-After", "soon"), 0},
			{"429 with a negative number", 429, says("Retry-After", "-1"), 0},
			{"429 for ever", 429, says("Retry-After", strings.Repeat("9", 40)), 5 * time.Minute},
			{"429 for a century", 429, func() []string {
				return []string{"Retry-After", date(100 * 365 * 24 * time.Hour)}
			}, 5 * time.Minute},
			{"201 with seconds", 201, says("Retry-After", "12"), 0},
			{"nothing left", 200, says("RateLimit", `"default";r=0;t=12`), 12 * time.Second},
			{"nothing left, the other way",
				200, says("RateLimit", `"default"; t=12 ; r=0`), 12 * time.Second},
			{"nothing left of one", 200, func() []string {
				return []string{"RateLimit", `"a;r=0;t=99,\"";r=3;t=40, "b";r=0;t=12;pk=:x:,"c";r=0;t=7`}
			}, 12 * time.Second},
			{"nothing left in another line",
				200, says("RateLimit", `"a";r=3;t=40`, "RateLimit", `"b";r=0;t=12`), 12 * time.Second},
			{"something left", 200, says("RateLimit", `"default";r=1;t=12`), 0},
			{"nothing said", 200, says("RateLimit", `;;,"x`), 0},
			{"older headers",
				200, says("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "12"), 12 * time.Second},
			{"older headers with an instant", 403, func() []string {
				return []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", epoch(12 * time.Second)}
			}, 12 * time.Second},
			{"older headers of a draft",
				200, says("RateLimit-Remaining", "0", "RateLimit-Reset", "12"), 12 * time.Second},
			{"older headers with something left",
				200, says("X-RateLimit-Remaining", "1", "X-RateLimit-Reset", "12"), 0},
			{"the longest of all",
				429, says("Retry-After", "3", "RateLimit", `"default";r=0;t=12`), 12 * time.Second},
		} {
			var at []time.Duration
			began, first := time.Now(), true
			o := httplimit.TransportOptions{Bound: bind(t, trypema.NoLimit), MaxWait: time.Hour}
			c := client(t, o, func(*http.Request) *http.Response {
				at = append(at, time.Since(began))
				if first {
					first = false
					return answer(tt.status, tt.headers()...)
				}
				return answer(200)
			})
			for _, url := range []string{"http://example.com/", "http://other.example/", "http://example.com/next"} {
				must.Report(t, ask(c, to(t.Context(), url)))
			}
			want := []time.Duration{0, 0, tt.want}
			if len(at) != 3 || at[1] != 0 || (at[2]-tt.want).Abs() >= time.Second {
				t.Errorf("%s: requests at %v, want %v", tt.name, at, want)
			}
		}

		// One that may not wait so long fails at once, and says why.
		o := httplimit.TransportOptions{Bound: bind(t, trypema.NoLimit), MaxRetryAfter: time.Minute}
		busy := func(*http.Request) *http.Response { return answer(503, "Retry-After", "3600") }
		for name, tt := range map[string]struct {
			change func(*httplimit.TransportOptions)
			want   time.Duration // 0 if the second request is made
		}{
			"none waits":          {func(*httplimit.TransportOptions) {}, time.Minute},
			"it may not wait":     {func(o *httplimit.TransportOptions) { o.MaxWait = time.Second }, time.Minute},
			"no server is obeyed": {func(o *httplimit.TransportOptions) { o.MaxRetryAfter = -1 }, 0},
			"in shadow":           {func(o *httplimit.TransportOptions) { o.Shadow = true }, 0},
			"what is skipped": {func(o *httplimit.TransportOptions) {
				o.Skip = func(*http.Request) bool { return true }
			}, 0},
			"what passes keyless": {func(o *httplimit.TransportOptions) {
				o.Key, o.Keyless = httplimit.ByHeader("a"), httplimit.KeylessPass
			}, 0},
			"what is shared by all": {func(o *httplimit.TransportOptions) { o.Key = httplimit.ByHeader("a") },
				time.Minute},
		} {
			o := o
			tt.change(&o)
			c := client(t, o, busy)
			if err := ask(c, to(t.Context(), "http://example.com/")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			err := ask(c, to(t.Context(), "http://example.com/"))
			var denied *httplimit.DeniedError
			if tt.want == 0 && err != nil || tt.want > 0 && (!errors.As(err, &denied) || !denied.ByServer ||
				denied.RetryAfter != tt.want ||
				!strings.Contains(err.Error(), "the server has asked for no more requests for 1m0s")) {
				t.Errorf("%s: %v", name, err)
			}
		}

		// What it says while a request waits for its turn counts, too.
		slow := client(t, httplimit.TransportOptions{Bound: bind(t, trypema.AtMost(1, time.Second)),
			MaxWait: time.Minute},
			func(r *http.Request) *http.Response {
				if r.URL.Path == "/slow" {
					time.Sleep(time.Second / 2)
					return answer(429, "Retry-After", "10")
				}
				return answer(200)
			})
		began := time.Now()
		go func() {
			must.Report(t, ask(slow, to(t.Context(), "http://example.com/slow")))
		}()
		synctest.Wait()
		err := ask(slow, to(t.Context(), "http://example.com/"))
		if err != nil || time.Since(began) != 10500*time.Millisecond {
			t.Errorf("%v after %v, want 10.5s", err, time.Since(began))
		}

		// A request that waits ends with its context.
		o.MaxWait = time.Hour
		c := client(t, o, busy)
		must.Report(t, ask(c, to(t.Context(), "http://example.com/")))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		before := time.Now()
		err = ask(c, to(ctx, "http://example.com/"))
		if !errors.Is(err, context.Canceled) || time.Since(before) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(before))
		}
	})
}
