package rest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

const policies = `
policies:
  - {name: example, limits: [{rate: 2/m}]}
  - {name: both, cost: 2, limits: [{name: burst, rate: 4/s}, {name: daily, rate: 6/d}]}
`

// start returns the API on Local. It is ended with the test.
func start(t testing.TB, o Options) *API {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{})
	o.Engine = engine.New(limits, engine.Options{})
	t.Cleanup(o.Engine.Close)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	set, err := rules.Compile([]rules.File{{Name: "policies.yaml", Data: []byte(policies)}}, rules.Options{})
	if err == nil {
		err = o.Engine.Use(set)
	}
	must.OK(t, err)
	h, err := New(o)
	must.OK(t, err)
	return h
}

func do(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAPI(t *testing.T) {
	type step struct {
		request string // method, path, body
		status  int
		want    string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"policy", []step{
			{
				`POST /v1/allow {"policy":"example","key":"k"}`,
				200,
				`{"allowed":true,"limit":2,"remaining":1,"retry_after_ms":0}`,
			},
			{
				`POST /v1/allow {"policy":"example","key":"k","cost":2}`,
				200,
				`{"allowed":false,"limit":2,"remaining":1,"retry_after_ms":60000,"refused_by":"1m0s"}`,
			},
			{
				`POST /v1/allow {"policy":"example","key":"k","peek":true,"cost":0}`,
				200,
				`{"allowed":true,"limit":2,"remaining":1,"retry_after_ms":0}`,
			},
			{
				`POST /v1/allow {"policy":"example","key":"k","cost":3}`,
				200,
				`{"allowed":false,"limit":2,"remaining":1,"retry_after_ms":null,"refused_by":"1m0s"}`,
			},
			{
				`GET /v1/usage?policy=example&key=k `,
				200,
				`{"limits":[{"limit":2,"window":"1m0s","used":1,"remaining":1}]}`,
			},
		}},
		{"several limits", []step{
			{
				`POST /v1/allow {"policy":"both","key":"k"}`,
				200,
				`{"allowed":true,"limit":4,"remaining":2,"retry_after_ms":0}`,
			},
			{
				`GET /v1/usage?policy=both&key=k `,
				200,
				`{"limits":[{"limit":4,"window":"1s","used":2,"remaining":2},{"limit":6,"window":"24h0m0s","used":2,"remaining":4}]}`,
			},
		}},
		{"limit of the call", []step{
			{
				`POST /v1/allow {"limit":5,"window":"10s","key":"k","cost":5}`,
				200,
				`{"allowed":true,"limit":5,"remaining":0,"retry_after_ms":0}`,
			},
			{
				`POST /v1/allow {"limit":5,"window":"10s","key":"k"}`,
				200,
				`{"allowed":false,"limit":5,"remaining":0,"retry_after_ms":10000,"refused_by":"10s"}`,
			},
			{
				`POST /v1/allow {"limit":7,"window":"10s","key":"k"}`,
				200,
				`{"allowed":true,"limit":7,"remaining":1,"retry_after_ms":0}`,
			},
			{
				`POST /v1/allow {"limit":0,"window":"10s","key":"z"}`,
				200,
				`{"allowed":false,"limit":0,"remaining":0,"retry_after_ms":null,"refused_by":"10s"}`,
			},
			{
				`GET /v1/usage?limit=7&window=10s&key=k `,
				200,
				`{"limits":[{"limit":7,"window":"10s","used":6,"remaining":1}]}`,
			},
		}},
		{"wrong", []step{
			{`POST /v1/allow {`, 400, `The body is not a JSON object: unexpected end of JSON input`},
			{`POST /v1/allow []`, 400, `The body is not a JSON object`},
			{`POST /v1/allow {"policy":"example","key":"k"}{}`, 400, `The body is not a JSON object`},
			{
				`POST /v1/allow {"policy":"example","key":"k","more":1}`,
				400,
				`the body has a field \"more\"; it may have key, policy, limit, window, cost, peek`,
			},
			{`POST /v1/allow {"policy":"example","Key":"k"}`, 400, `the body has a field \"Key\"`},
			{
				`POST /v1/allow {"policy":"example","key":""}`,
				400,
				`key is empty; it must have from 1 to 4096 bytes`,
			},
			{
				`POST /v1/allow {"policy":"example","key":"k","cost":-1}`,
				400,
				`cost is number -1; it must be a whole number, 0 or more`,
			},
			{
				`POST /v1/allow {"policy":"example","key":"k","cost":1.5}`,
				400,
				`cost is number 1.5; it must be a whole number`,
			},
			{
				`POST /v1/allow {"policy":"example","key":"k","cost":0}`,
				400,
				`cost is 0; it must be at least 1, unless peek is true`,
			},
			{`POST /v1/allow {"policy":"example","key":7}`, 400, `key is number; it must be a text`},
			{`POST /v1/allow {"key":"k"}`, 400, `policy is missing`},
			{
				`POST /v1/allow {"policy":"example","limit":1,"key":"k"}`,
				400,
				`policy is \"example\", and there is a limit or a window`,
			},
			{`POST /v1/allow {"limit":1,"key":"k"}`, 400, `window is \"\"; it must be a duration`},
			{`POST /v1/allow {"limit":1,"window":"0s","key":"k"}`, 400, `window is 0s; it must be from 1ms`},
			{`POST /v1/allow {"policy":"none","key":"k"}`, 404, `there is no policy \"none\"`},
			{
				`POST /v1/reserve {"policy":"example","key":"k"}`,
				400,
				`cost is missing; it must be the estimate`,
			},
			{`POST /v1/reserve {"policy":"example","key":"k","cost":1,"expiry":"0s"}`, 400, `expiry is 0s`},
			{
				`POST /v1/reserve {"policy":"example","key":"k","cost":1,"expiry":"25h"}`,
				400,
				`expiry is 25h0m0s; it must be from 1ms to 24h0m0s`,
			},
			{`POST /v1/commit {"reservation":"x"}`, 400, `cost is missing`},
			{`POST /v1/commit {"cost":1}`, 400, `reservation is missing`},
			{
				`POST /v1/commit {"reservation":"x","cost":1}`,
				404,
				`the reservation is unknown, settled or expired`,
			},
			{`GET /v1/usage?policy=example `, 400, `key is empty`},
			{`GET /v1/usage?policy=example&key=k&extra=1 `, 400, `the query has a parameter \"extra\"`},
			{`GET /v1/usage?limit=x&window=1m&key=k `, 400, `limit is \"x\"`},
			{`GET /v1/allow `, 405, `Method Not Allowed`},
			{`POST /v2/allow {}`, 404, `not found`},
			{
				`POST /v1/allow {"key":"` + strings.Repeat("k", maxBody) + `"}`,
				413,
				`The body has more than 16384 bytes.`,
			},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := start(t, Options{})
				for _, s := range tt.steps {
					method, rest, _ := strings.Cut(s.request, " ")
					path, body, _ := strings.Cut(rest, " ")
					w := do(h, method, path, body)
					if got := strings.TrimSpace(w.Body.String()); w.Code != s.status ||
						!strings.Contains(got, s.want) {
						t.Errorf("%.100s:\n got %d %s\nwant %d %s", s.request, w.Code, got, s.status, s.want)
					}
				}
			})
		})
	}
}

// TestPartOfABody: a client that does not send all of its body is at fault, not the server.
func TestPartOfABody(t *testing.T) {
	for _, path := range []string{"/v1/allow", "/v1/reserve", "/v1/commit"} {
		r := httptest.NewRequest("POST", path, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("{}"))))
		w := httptest.NewRecorder()
		if start(t, Options{}).ServeHTTP(w, r); w.Code != 400 || !strings.Contains(w.Body.String(), "cannot be read") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestReserveAndCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, Options{})
		var d decision
		w := do(h, "POST", "/v1/reserve", `{"limit":10,"window":"1h","key":"k","cost":8,"expiry":"30s"}`)
		if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || !d.Allowed || d.Reservation == "" {
			t.Fatalf("%s, %v", w.Body, err)
		}
		w = do(h, "POST", "/v1/commit", fmt.Sprintf(`{"reservation":%q,"cost":3}`, d.Reservation))
		if w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"committed":3}` {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w = do(h, "GET", "/v1/usage?limit=10&window=1h&key=k", ""); !strings.Contains(
			w.Body.String(),
			`"used":3`,
		) {
			t.Errorf("%s", w.Body)
		}
	})
}

// TestAuth: forward auth admits a client as often as its policy says, whatever it writes into its headers.
func TestAuth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(
			t,
			Options{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}},
		) // where httptest comes from
		ask := func(forwarded string) *httptest.ResponseRecorder {
			return do(h, "GET", "/auth/example", "", "X-Forwarded-For", forwarded)
		}
		for i, want := range []int{200, 200, 429} {
			w := ask(
				fmt.Sprintf("198.51.100.%d, 203.0.113.7", i),
			) // what a client claims is before what the proxy says
			if w.Code != want {
				t.Fatalf("request %d: %d, want %d", i+1, w.Code, want)
			}
		}
		w := ask("203.0.113.7")
		for name, want := range map[string]string{
			"Retry-After": "60", "Ratelimit": `"example";r=0;t=60`, "Ratelimit-Policy": `"example";q=2;w=60`,
			"Content-Type": "application/problem+json",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !strings.Contains(w.Body.String(), `"violated-policies":["example"]`) {
			t.Errorf("%s", w.Body)
		}
		if w := ask("203.0.113.8"); w.Code != 200 || w.Header().Get("Ratelimit") != `"example";r=1` {
			t.Errorf("another client: %d %v", w.Code, w.Header())
		}
		if w := do(h, "GET", "/auth/example?denied=403", "", "X-Forwarded-For", "203.0.113.7"); w.Code != 403 ||
			w.Header().Get("Retry-After") != "60" {
			t.Errorf("with a status for nginx: %d %v", w.Code, w.Header())
		}
		if w := do(h, "GET", "/auth/example?denied=200", ""); w.Code != 400 {
			t.Errorf("with a status that is no denial: %d", w.Code)
		}
		if w := do(h, "GET", "/auth/example?denied=503", ""); w.Code != 400 {
			t.Errorf("with a status that says that the limiter is at fault: %d", w.Code)
		}
		w = do(h, "PUT", "/auth/example/a/b?denied=403&c=d", "", "X-Forwarded-For", "203.0.113.7")
		if w.Code != 429 {
			t.Errorf("with the path and the query of the client: %d, want 429", w.Code)
		}
		if w := do(h, "GET", "/auth/none/a", ""); w.Code != 404 {
			t.Errorf("an unknown policy, and a path: %d", w.Code)
		}
		if w := do(h, "GET", "/auth/none", ""); w.Code != 404 {
			t.Errorf("an unknown policy: %d, which must not be a pass", w.Code)
		}
		if w := do(h, "POST", "/auth/example", "", "X-Forwarded-For", "203.0.113.9"); w.Code != 200 {
			t.Errorf("POST: %d", w.Code)
		}
		time.Sleep(time.Minute)
		if w := ask("203.0.113.7"); w.Code != 200 {
			t.Errorf("after Retry-After: %d", w.Code)
		}
	})
}

// A proxy that asks for a policy that is not there is a fault of its configuration, which the log says once a
// minute.
func TestUnknownPolicyIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		for i, want := range []int{1, 1, 2} {
			do(h, "GET", "/auth/unknown", "", "X-Forwarded-For", "198.51.100.1")
			if n := strings.Count(log.String(), "policy=unknown"); n != want {
				t.Errorf("request %d: the log names the policy %d times, want %d", i+1, n, want)
			}
			time.Sleep(30 * time.Second)
		}
	})
}

func TestAuthKeys(t *testing.T) {
	tests := []struct {
		key             Key
		one, two, three string // header: the same client, another one
	}{
		{KeyAuthorization, "Authorization: Bearer a", "Authorization: Bearer a", "Authorization: Bearer b"},
		{"header:X-Tenant", "X-Tenant: a", "X-Tenant: a", "X-Tenant: b"},
		{KeyAddress, "X-Forwarded-For: 203.0.113.1", "X-Forwarded-For: 203.0.113.2", ""}, // from a stranger
	}
	for _, tt := range tests {
		h := start(t, Options{Key: tt.key})
		code := func(header string) int {
			name, value, _ := strings.Cut(header, ": ")
			if name == "" {
				return 200
			}
			return do(h, "GET", "/auth/example", "", name, value).Code
		}
		if a, b, c, d := code(tt.one), code(tt.two), code(tt.one), code(tt.three); a != 200 || b != 200 ||
			c != 429 ||
			d != 200 {
			t.Errorf("%s: %d, %d, %d, and another client %d", tt.key, a, b, c, d)
		}
	}
	for _, wrong := range []Key{"cookie", "header:", "header:a b", "header:X:Y"} {
		if _, err := New(Options{Key: wrong}); err == nil || !strings.Contains(err.Error(), "key is") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestTokens(t *testing.T) {
	h := start(t, Options{Tokens: []string{"secret", "other"}})
	tests := []struct {
		path, header, value string
		status              int
	}{
		{"/v1/usage?policy=example&key=k", "X", "y", 401},
		{"/v1/usage?policy=example&key=k", "Authorization", "Bearer wrong", 401},
		{"/v1/usage?policy=example&key=k", "Authorization", "secret", 401},
		{"/v1/usage?policy=example&key=k", "Authorization", "Bearer secret", 200},
		{"/v1/usage?policy=example&key=k", "Authorization", "bearer other", 200},
		{"/auth/example", "Authorization", "Bearer secret", 401}, // that is the client's
		{"/auth/example", "X-Trypema-Token", "secret", 200},
		{"/openapi.yaml", "X", "y", 200},
	}
	for _, tt := range tests {
		if w := do(h, "GET", tt.path, "", tt.header, tt.value); w.Code != tt.status {
			t.Errorf("%s with %s: %s: %d, want %d", tt.path, tt.header, tt.value, w.Code, tt.status)
		}
	}
}

// FuzzAllow: whatever the body is, the answer is JSON, and no status of the 500s.
func FuzzAllow(f *testing.F) {
	f.Add(`{"policy":"example","key":"k"}`)
	f.Add(`{"limit":18446744073709551615,"window":"1ns","key":"\ud800","cost":18446744073709551615}`)
	f.Add(`{"limit":1e3,"window":null,"peek":true}`)
	h := start(f, Options{})
	f.Fuzz(func(t *testing.T, body string) {
		w := do(h, "POST", "/v1/allow", body)
		if w.Code >= 500 && !strings.Contains(w.Body.String(), "too many different limits") ||
			!json.Valid(w.Body.Bytes()) {
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}

// FuzzScan: what one pass reads of a body is what encoding/json reads of it.
func FuzzScan(f *testing.F) {
	for _, body := range []string{
		`{"key":"k","policy":"p","limit":7,"window":"1m","cost":0,"peek":true,"expiry":"1s","reservation":"r"}`,
		` { "limit" : 18446744073709551615 , "limit" : 3 } `, `{"limit":null}`, `{"limit":1.0}`, `{"limit":1e3}`, `{"limit":-0}`,
		`{"limit":01}`, `{"limit":"1"}`, `{"Limit":1}`, `{"key":"\u00e9"}`, `{"key":"é"}`, "{\"key\":\"\xff\"}", "{\"key\":\"\x01\"}",
		`{}`, `[]`, `null`, `{"key":"k"}{`, `{"key":"k",}`, `{"peek":1}`, `{"key":{"key":"k"}}`, `{"key":"k","key":null}`,
		"{\"key\":\"\u2028\"}", `{"cost":18446744073709551616}`, `{"":1}`,
	} {
		f.Add(body)
	}
	allowed := []string{"key", "policy", "limit", "window", "cost", "peek", "expiry", "reservation"}
	f.Fuzz(func(t *testing.T, body string) {
		got := new(question)
		if !got.scan([]byte(body), allowed) {
			return
		}
		want, err := parse([]byte(body), allowed)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v, %v", body, got, want, err)
		}
	})
}

// TestScan: bodies as clients send them are read in one pass.
func TestScan(t *testing.T) {
	for _, body := range []string{
		`{"policy":"example","key":"user:42"}`, `{"limit":100,"window":"1m","key":"é","cost":3,"peek":false}`, `{"reservation":"0f","cost":0}`,
	} {
		if !new(question).scan([]byte(body), []string{"policy", "key", "limit", "window", "cost", "peek", "reservation"}) {
			t.Errorf("%s is not", body)
		}
	}
}

// TestDecisionJSON: a decision is written as encoding/json writes it.
func TestDecisionJSON(t *testing.T) {
	ms := int64(-5)
	for _, d := range []decision{
		{}, {Allowed: true, Limit: math.MaxUint64, Remaining: 3, RetryAfter: new(int64)}, {RetryAfter: &ms, RefusedBy: "1m0s"},
		{RefusedBy: "<\"é\u2028\xff", Fallback: true, Reservation: "0123456789abcdef"},
	} {
		var want bytes.Buffer
		must.OK(t, json.NewEncoder(&want).Encode(&d))
		if got := d.append(nil); string(got) != want.String() {
			t.Errorf("%s, want %s", got, &want)
		}
	}
}

// FuzzForwarded: whatever a client claims, it is admitted at most as often as its policy says, since the
// proxy adds where it is.
func FuzzForwarded(f *testing.F) {
	f.Add("203.0.113.7")
	f.Add(`for="[2001:db8::1]", 127.0.0.1, ::1, unknown`)
	f.Add(",,,\x00,")
	f.Fuzz(func(t *testing.T, claimed string) {
		synctest.Test(t, func(t *testing.T) {
			h := start(t, Options{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}})
			passed := 0
			for i := range 4 {
				r := httptest.NewRequest("GET", "/auth/example", http.NoBody)
				if i%2 == 0 {
					r.Header["X-Forwarded-For"] = []string{claimed + ", 203.0.113.7"}
				} else {
					r.Header["X-Forwarded-For"] = []string{claimed, "203.0.113.7"}
				}
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code == 200 {
					passed++
				}
			}
			if passed != 2 {
				t.Fatalf("%q: %d passed, want 2", claimed, passed)
			}
		})
	})
}

// TestOpenAPI: each operation of the document is served, its examples are admitted, and what is answered is
// as its schema says; a field that it does not name is refused.
func TestOpenAPI(t *testing.T) {
	var doc map[string]any
	must.OK(t, yaml.Unmarshal(OpenAPI, &doc))
	h := start(t, Options{})
	reservation := ""
	for path, item := range at(doc, "paths").(map[string]any) {
		for method, op := range item.(map[string]any) {
			operation := op.(map[string]any)
			target := strings.Replace(path, "{policy}", "example", 1)
			schema, _ := at(operation, "requestBody", "content", "application/json", "schema").(map[string]any)
			var bodies []any
			if examples, ok := at(operation, "requestBody", "content", "application/json", "examples").(map[string]any); ok {
				for _, e := range examples {
					bodies = append(bodies, at(e, "value"))
				}
			}
			switch path {
			case "/v1/commit":
				continue // below
			case "/v1/usage":
				target += "?key=k&policy=example"
			}
			if len(bodies) == 0 {
				bodies = []any{nil}
			}
			for _, body := range bodies {
				text := ""
				if body != nil {
					b, _ := json.Marshal(body)
					text = string(b)
					conforms(t, doc, path+" example", schema, jsonOf(t, b))
				}
				w := do(h, strings.ToUpper(method), target, text)
				if w.Code != 200 {
					t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
					continue
				}
				response := follow(doc, at(operation, "responses", "200"))
				if schema, ok := at(response, "content", "application/json", "schema").(map[string]any); ok {
					value := jsonOf(t, w.Body.Bytes())
					conforms(t, doc, path, schema, value)
					if name, ok := at(value, "reservation").(string); ok {
						reservation = name
					}
				}
				if body != nil {
					extra := strings.Replace(text, "{", `{"unheard_of":1,`, 1)
					if w := do(h, strings.ToUpper(method), target, extra); w.Code != 400 {
						t.Errorf("%s with an unknown field: %d", path, w.Code)
					}
				}
			}
		}
	}
	body := fmt.Sprintf(`{"reservation":%q,"cost":1}`, reservation)
	commit := at(doc, "components", "schemas", "Commit").(map[string]any)
	conforms(t, doc, "/v1/commit request", commit, jsonOf(t, []byte(body)))
	w := do(h, "POST", "/v1/commit", body)
	if w.Code != 200 {
		t.Fatalf("commit: %d %s", w.Code, w.Body)
	}
	conforms(t, doc, "/v1/commit", at(doc, "components", "schemas", "Committed").(map[string]any),
		jsonOf(t, w.Body.Bytes()))
	w = do(h, "POST", "/v1/allow", "{}")
	conforms(t, doc, "a problem", at(doc, "components", "schemas", "Problem").(map[string]any),
		jsonOf(t, w.Body.Bytes()))
	if w := do(h, "GET", "/openapi.yaml", ""); !bytes.Equal(w.Body.Bytes(), OpenAPI) {
		t.Error("/openapi.yaml is not the document")
	}
}

func jsonOf(t *testing.T, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

// at returns what is at a path of fields, or nil.
func at(v any, path ...string) any {
	for _, field := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[field]
	}
	return v
}

func follow(doc, v any) any {
	if ref, ok := at(v, "$ref").(string); ok {
		return at(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return v
}

// conforms checks a value by a schema, as far as the document uses schemas.
func conforms(t *testing.T, doc any, what string, schema map[string]any, v any) {
	t.Helper()
	schema, _ = follow(doc, schema).(map[string]any)
	var kinds []string
	switch kind := schema["type"].(type) {
	case string:
		kinds = []string{kind}
	case []any:
		for _, k := range kind {
			kinds = append(kinds, k.(string))
		}
	}
	is := "null"
	switch v := v.(type) {
	case bool:
		is = "boolean"
	case float64:
		is = "number"
		if v == float64(int64(v)) {
			is = "integer"
		}
	case string:
		is = "string"
	case []any:
		is = "array"
		for _, e := range v {
			conforms(t, doc, what+"[]", schema["items"].(map[string]any), e)
		}
	case map[string]any:
		is = "object"
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				t.Errorf("%s: %s is missing", what, name)
			}
		}
		for name, value := range v {
			property, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("%s: %s is not in the document", what, name)
				continue
			}
			conforms(t, doc, what+"."+name, property, value)
		}
	}
	if !slices.Contains(kinds, is) {
		t.Errorf("%s is %s, want %v", what, is, kinds)
	}
}
