package httplimit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/proof/fixture"
)

var quoted = regexp.MustCompile(`"([^"]*)"`)

// names returns the names of the items in a field.
func names(h http.Header, field string) (all []string) {
	for _, item := range quoted.FindAllStringSubmatch(strings.Join(h[field], ", "), -1) {
		all = append(all, item[1])
	}
	return all
}

// Clients are told the same policy when they are allowed and when they are denied: all limits, each by its
// name and with its window. RateLimit and the problem document name one of them.
func TestPolicyIsStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := fixture.Local(t, trypema.Options{Window: time.Minute})
		second := trypema.Limit{Name: "second", Rate: 2, Window: time.Second}
		hour := trypema.Limit{Name: "hour", Rate: trypema.PerHour(3), Window: time.Hour}
		const odd = time.Hour + time.Millisecond
		for _, tt := range []struct {
			name     string
			limits   []trypema.Limit
			policy   string
			rooms    string // RateLimit of four requests, the third after a second
			violated string // by the last one
		}{
			{"two", []trypema.Limit{second, hour}, `"second";q=2;w=1, "hour";q=3;w=3600`,
				`"second";r=1|"second";r=0|"hour";r=0|"hour";r=0;t=3600`, "hour"},
			{"the other order", []trypema.Limit{hour, second}, `"hour";q=3;w=3600, "second";q=2;w=1`,
				`"second";r=1|"second";r=0|"hour";r=0|"hour";r=0;t=3600`, "hour"},
			{"one", []trypema.Limit{hour}, `"hour";q=3;w=3600`,
				`"hour";r=2|"hour";r=1|"hour";r=0|"hour";r=0;t=3600`, "hour"},
			{"without a name", []trypema.Limit{{Rate: trypema.PerMinute(3), Window: time.Minute}}, `"default";q=3;w=60`,
				`"default";r=2|"default";r=1|"default";r=0|"default";r=0;t=60`, "default"},
			{"two without a name", []trypema.Limit{
				trypema.AtMost(2, time.Second), trypema.AtMost(3, time.Hour),
			}, `"1s";q=2;w=1, "1h0m0s";q=3;w=3600`,
				`"1s";r=1|"1s";r=0|"1h0m0s";r=0|"1h0m0s";r=0;t=3600`, "1h0m0s"},
			{"with names that cannot be told", []trypema.Limit{
				{Name: `a"b`, Rate: 2, Window: time.Second},
				{Name: "stündlich", Rate: trypema.PerHour(3), Window: time.Hour},
			}, `"1s";q=2;w=1, "1h0m0s";q=3;w=3600`,
				`"1s";r=1|"1s";r=0|"1h0m0s";r=0|"1h0m0s";r=0;t=3600`, "1h0m0s"},
			{"with a name that is told for another", []trypema.Limit{
				{Name: "1h0m0s", Rate: 2, Window: time.Second},
				{Name: "é", Rate: trypema.PerHour(3), Window: time.Hour},
			}, `"1h0m0s";q=2;w=1, "1h0m0s-2";q=3;w=3600`,
				`"1h0m0s";r=1|"1h0m0s";r=0|"1h0m0s-2";r=0|"1h0m0s-2";r=0;t=3600`, "1h0m0s-2"},
			{"with windows that are no whole seconds", []trypema.Limit{
				{Name: "short", Rate: 4, Window: time.Second / 2},
				{Name: "long", Rate: trypema.Per(3, odd), Window: odd},
			}, `"short";q=2, "long";q=3`, `"short";r=1|"short";r=0|"long";r=0|"long";r=0;t=3601`, "long"},
			{"of the same capacity", []trypema.Limit{
				{Name: "second", Rate: 3, Window: time.Second},
				{Name: "minute", Rate: trypema.PerMinute(3), Window: time.Minute},
			}, `"second";q=3;w=1, "minute";q=3;w=60`,
				`"minute";r=2|"minute";r=1|"minute";r=0|"minute";r=0;t=60`, "minute"},
			{"beside none", []trypema.Limit{trypema.NoLimit, hour, trypema.NoLimit}, `"hour";q=3;w=3600`,
				`"hour";r=2|"hour";r=1|"hour";r=0|"hour";r=0;t=3600`, "hour"},
			{"beside one that is unlimited", []trypema.Limit{
				hour,
				{Name: "free", Rate: trypema.Unlimited, Window: time.Second},
			}, `"hour";q=3;w=3600`,
				`"hour";r=2|"hour";r=1|"hour";r=0|"hour";r=0;t=3600`, "hour"},
		} {
			m := fixture.Bind(t, limits, trypema.StrategyAbsolute, tt.limits...)
			policies := fixture.Policies(t, limits, trypema.Policy{Name: "free", Limits: tt.limits})
			for i := range 3 * (httplimit.NoHeaders + 1) {
				headers := i % 3
				key := fmt.Sprint(tt.name, i)
				o := httplimit.Options{Headers: headers, Key: func(*http.Request) (string, bool) { return key, true }}
				switch i / 3 {
				case 0:
					o.Bound = m
				case 1:
					o.Policies, o.PolicyOf = policies, func(*http.Request) string { return "free" }
				case 2:
					o.Decide = func(r *http.Request, key string, n uint64) (trypema.Decision, error) {
						return m.AllowN(r.Context(), key, n)
					}
					o.Limits = func(*http.Request) []trypema.Limit { return tt.limits }
				}
				h := handler(t, o)
				var rooms []string
				var body string
				for i, status := range []int{200, 200, 200, 429} {
					if i == 2 {
						time.Sleep(time.Second)
					}
					w := get(h)
					if w.Code != status {
						t.Errorf("%s: request %d: %d", tt.name, i, w.Code)
					}
					policy := strings.Join(w.Header()["Ratelimit-Policy"], "|")
					want := ""
					if headers == httplimit.StandardHeaders {
						want = tt.policy
					}
					if policy != want {
						t.Errorf("%s: request %d: %s, want %s", tt.name, i, policy, want)
					}
					rooms = append(rooms, strings.Join(w.Header()["Ratelimit"], ","))
					body = w.Body.String()
				}
				if got := strings.Join(rooms, "|"); headers == httplimit.StandardHeaders && got != tt.rooms {
					t.Errorf("%s: %s, want %s", tt.name, got, tt.rooms)
				}
				if want := `"violated-policies":["` + tt.violated + `"]`; !strings.Contains(body, want) {
					t.Errorf("%s: %s, want %s", tt.name, body, want)
				}
			}
		}
	})
}

// RateLimit is of the limit that refused, by its name, whatever the decision says of its capacity.
func TestRefusedBy(t *testing.T) {
	limits := []trypema.Limit{
		{Name: "second", Rate: 3, Window: time.Second},
		{Name: "minute", Rate: trypema.PerMinute(3), Window: time.Minute},
	}
	for _, tt := range []struct {
		refusedBy string
		capacity  uint64
		want      string
	}{
		{"second", 3, "second"}, {"minute", 3, "minute"}, {"second", 7, "second"}, {"another", 3, "minute"},
		{"", 7, "minute"},
	} {
		w := get(handler(t, httplimit.Options{
			Decide: func(*http.Request, string, uint64) (trypema.Decision, error) {
				return trypema.Decision{Limit: tt.capacity, RefusedBy: tt.refusedBy}, nil
			},
			Limits: func(*http.Request) []trypema.Limit { return limits },
		}))
		told := names(w.Header(), "Ratelimit")
		if !slices.Equal(told, []string{tt.want}) || !strings.Contains(w.Body.String(), `["`+tt.want+`"]`) {
			t.Errorf("%+v: %q %s", tt, told, w.Body)
		}
	}
}

// Without Limits clients know the policy by one name, whichever limit the decision is about. The document
// says which one refused.
func TestDecideWithoutLimits(t *testing.T) {
	limits := fixture.Local(t, trypema.Options{})
	both := fixture.Bind(t, limits, trypema.StrategyAbsolute,
		trypema.Limit{Name: "second", Rate: 10, Window: time.Second},
		trypema.Limit{Name: "hour", Rate: trypema.PerHour(3), Window: time.Hour})
	h := handler(t, httplimit.Options{
		Name:   "api",
		Window: time.Hour,
		Decide: func(r *http.Request, key string, n uint64) (trypema.Decision, error) {
			return both.AllowN(r.Context(), key, n)
		},
		Cost:   func(*http.Request) uint64 { return 2 },
		Limits: func(*http.Request) []trypema.Limit { return nil }, // as for a plan that is not known
	})
	for i, want := range []string{`"api";r=1`, `"api";r=1;t=3600`} {
		w := get(h)
		const policy = `"api";q=3;w=3600`
		if w.Header().Get("RateLimit-Policy") != policy || w.Header().Get("RateLimit") != want {
			t.Errorf("request %d: %v, want %s", i, w.Header(), want)
		}
		if i == 1 && !strings.Contains(w.Body.String(), `"violated-policies":["hour"]`) {
			t.Error(w.Body)
		}
	}
}

// By policies each plan has its limits.
func TestPoliciesOfPlans(t *testing.T) {
	limits := fixture.Local(t, trypema.Options{})
	policies := fixture.Policies(t, limits,
		trypema.Policy{Name: "free", Limits: []trypema.Limit{
			{Name: "minute", Rate: trypema.PerMinute(1), Window: time.Minute},
		}},
		trypema.Policy{Name: "pro", Limits: []trypema.Limit{
			{Name: "minute", Rate: trypema.PerMinute(60), Window: time.Minute},
			{Name: "day", Rate: trypema.PerDay(1000), Window: 24 * time.Hour},
		}})
	plan := ""
	h := handler(t, httplimit.Options{
		Logger: quiet, Policies: policies, PolicyOf: func(*http.Request) string { return plan },
	})
	for _, tt := range []struct {
		plan   string
		status int
		policy string
	}{
		{"free", 200, `"minute";q=1;w=60`},
		{"pro", 200, `"minute";q=60;w=60, "day";q=1000;w=86400`},
		{"free", 429, `"minute";q=1;w=60`},
		{"pro", 200, `"minute";q=60;w=60, "day";q=1000;w=86400`},
		{"none", 503, ``},
	} {
		plan = tt.plan
		if w := get(h); w.Code != tt.status || w.Header().Get("RateLimit-Policy") != tt.policy {
			t.Errorf("%s: %d %v", tt.plan, w.Code, w.Header())
		}
	}
}

// A window that Options does not name is the limiter's.
func TestWindowOfTheLimiter(t *testing.T) {
	for window, want := range map[time.Duration]string{
		time.Minute: `"default";q=60;w=60`, time.Second: `"default";q=1;w=1`,
		1500 * time.Millisecond: `"default";q=1`, 10 * time.Millisecond: `"default";q=1`,
	} {
		limits := fixture.Local(t, trypema.Options{Window: window})
		for _, l := range []trypema.Limiter{limits.Absolute(), limits.Suppressed()} {
			o := httplimit.Options{Limiter: l, Rate: max(1, trypema.Per(1, window))}
			if got := get(handler(t, o)).Header().Get("RateLimit-Policy"); got != want {
				t.Errorf("%T, %v: %s, want %s", l, window, got, want)
			}
		}
	}
}

// The limits of a chain have names of their own, the same ones whichever of them denies.
func TestChainOfLimits(t *testing.T) {
	limits := fixture.Local(t, trypema.Options{Window: time.Hour})
	both := []trypema.Limit{
		{Name: "default", Rate: trypema.PerHour(1000), Window: time.Hour},
		{Name: "minute", Rate: trypema.PerMinute(1000), Window: time.Minute},
	}
	multi := fixture.Bind(t, limits, trypema.StrategyAbsolute, both...)
	decide := func(r *http.Request, key string, n uint64) (trypema.Decision, error) {
		return multi.AllowN(r.Context(), key, n)
	}
	for chain, tt := range map[string]struct {
		names []string
		want  []string
	}{
		"without names":    {[]string{"", "", ""}, []string{"default", "default-2", "default-3"}},
		"with names":       {[]string{"address", "customer", "route"}, []string{"address", "customer", "route"}},
		"of one name":      {[]string{"api", "api", "api"}, []string{"api", "api-2", "api-3"}},
		"with such a name": {[]string{"default", "default-2", ""}, []string{"default", "default-2", "default-3"}},
		"of parts":         {[]string{"a", "a-2", "a"}, []string{"a", "a-2", "a-3"}},
		"of several": {
			[]string{"", "several", "minute"}, []string{"default", "default-2", "minute", "minute-2"},
		},
	} {
		for denying := range tt.names {
			var h http.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
			for i, name := range slices.Backward(tt.names) {
				id := fmt.Sprint(chain, denying, i)
				o := httplimit.Options{
					Limiter: limits.Absolute(), Rate: trypema.PerHour(100), Name: name,
					Key: func(*http.Request) (string, bool) { return id, true },
				}
				switch {
				case name == "several":
					o.Limiter, o.Rate, o.Decide = nil, 0, decide
					o.Limits = func(*http.Request) []trypema.Limit { return both }
				case i == denying:
					o.Rate = trypema.PerHour(2)
				}
				h = limit(t, o)(h)
			}
			for request := range 3 {
				w := get(h)
				policies, rooms := names(w.Header(), "Ratelimit-Policy"), names(w.Header(), "Ratelimit")
				want := tt.want
				denied := w.Code == http.StatusTooManyRequests
				if denied { // those behind the one that denies are not asked
					want = want[:slices.Index(want, rooms[len(rooms)-1])+1]
				}
				if !slices.Equal(policies, want) {
					t.Errorf("%s, %d denies: %d %q, want %q", chain, denying, w.Code, policies, want)
				}
				if denied != (request == 2) && tt.names[denying] != "several" {
					t.Errorf("%s, %d denies: request %d: %d", chain, denying, request, w.Code)
				}
				for _, name := range rooms {
					if !slices.Contains(policies, name) {
						t.Errorf("%s: there is room in %q, which is none of %q", chain, name, policies)
					}
				}
			}
		}
	}
}

// Of a chain the older headers tell the limit with the least room, and in a denial the one that denied.
func TestChainOfLegacyHeaders(t *testing.T) {
	admits := func(limit, left uint64) trypema.Decision {
		return trypema.Decision{Allowed: true, Limit: limit, Remaining: left}
	}
	denies := func(limit, left uint64, wait time.Duration) trypema.Decision {
		return trypema.Decision{Limit: limit, Remaining: left, RetryAfter: wait}
	}
	by := func(d trypema.Decision) httplimit.Options {
		return httplimit.Options{Limiter: fixed{d: d}, Rate: 1, Headers: httplimit.LegacyHeaders}
	}
	for _, tt := range []struct {
		outer, inner trypema.Decision
		want         string
	}{
		{admits(2, 1), admits(100, 99), "2 1 "},
		{admits(200, 150), admits(100, 99), "100 99 "},
		{admits(2, 0), denies(5, 3, time.Second), "5 3 1"},
		{denies(2, 0, time.Minute), admits(100, 99), "2 0 60"},
	} {
		w := httptest.NewRecorder()
		inner := handler(t, by(tt.inner))
		limit(t, by(tt.outer))(inner).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		h := w.Header()
		got := h.Get("X-RateLimit-Limit") + " " + h.Get("X-RateLimit-Remaining") + " " + h.Get("X-RateLimit-Reset")
		if got != tt.want || len(h["X-Ratelimit-Limit"]) != 1 {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
