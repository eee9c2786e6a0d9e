// Package rest serves limits by HTTP: a small API in JSON under /v1, described by openapi.yaml, and
// authorization for proxies under /auth: auth_request of nginx, ForwardAuth of Traefik, forward_auth of Caddy
// and ext_authz of Envoy.
package rest

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/httplimit"
)

// OpenAPI describes the API.
//
//go:embed openapi.yaml
var OpenAPI []byte

// maxBody bounds the body of a request.
const maxBody = 16 << 10

// Options configure the handler.
type Options struct {
	Engine *engine.Engine
	// Tokens are those of which a request to /v1 must have one, as a bearer in Authorization. Without any,
	// none is needed. Requests to /auth come with the Authorization of the client, and give a token in
	// X-Trypema-Token.
	Tokens []string
	// Key says who shares a limit under /auth. Default KeyAddress.
	Key Key
	// Proxies are the networks of the proxies whose X-Forwarded-For is believed under /auth. Default the
	// loopback.
	Proxies []netip.Prefix
	// OnUnixSocket has peers on unix sockets be proxies, too.
	OnUnixSocket bool
	// IPv6Bits is the length of the network that is one client. Default 64.
	IPv6Bits int
	// Logger is told why requests could not be judged. Default slog.Default().
	Logger *slog.Logger
}

// Key says what a client is known by under /auth: "address", "authorization", which is a hash of that header,
// or "header:NAME".
type Key string

// The keys that need no name.
const (
	KeyAddress       Key = "address"
	KeyAuthorization Key = "authorization"
)

// Loopback are the networks of proxies on this machine.
var Loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// API is the handler of /v1, /auth and /openapi.yaml.
type API struct {
	http.Handler
	Options
	tokens engine.Tokens
	key    httplimit.KeyFunc
	guards sync.Map // http.Handler by policy; see guard

	told atomic.Int64 // the last minute in which the log was told of an unknown policy
}

// New returns the API.
func New(o Options) (*API, error) {
	o.Key, o.Logger = cmp.Or(o.Key, KeyAddress), cmp.Or(o.Logger, slog.Default())
	if o.Proxies == nil {
		o.Proxies = Loopback
	}
	h := &API{Options: o, tokens: engine.HashTokens(o.Tokens)}
	var err error
	if h.key, err = o.keyFunc(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /v1/allow", h.api(h.allow))
	mux.Handle("POST /v1/reserve", h.api(h.reserve))
	mux.Handle("POST /v1/commit", h.api(h.commit))
	mux.Handle("GET /v1/usage", h.api(h.usage))
	mux.HandleFunc("/auth/{policy}", h.auth)
	mux.HandleFunc("/auth/{policy}/{path...}", h.auth) // ext_authz of Envoy adds the path of the client
	mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(OpenAPI)
	})
	h.Handler = mux
	return h, nil
}

func (o *Options) keyFunc() (httplimit.KeyFunc, error) {
	switch name, isHeader := strings.CutPrefix(string(o.Key), "header:"); {
	case o.Key == KeyAddress:
		peers := httplimit.PeersInProxies
		if o.OnUnixSocket {
			peers = httplimit.PeersOnUnixSockets
		}
		return httplimit.ByClientIP(httplimit.ClientIPOptions{
			Header: "X-Forwarded-For", Proxies: o.Proxies, Peers: peers, IPv6Bits: o.IPv6Bits,
		})
	case o.Key == KeyAuthorization:
		return httplimit.ByHashedHeader("Authorization"), nil
	case isHeader && isToken(name):
		return httplimit.ByHeader(name), nil
	}
	return nil, fmt.Errorf("key is %q; it must be address, authorization or header:NAME", o.Key)
}

func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}) < 0
}

// wrong is an error of a request that has a status.
type wrong struct {
	status int
	title  string
}

func (w *wrong) Error() string { return w.title }

func bad(format string, args ...any) error {
	return &wrong{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// problem is a problem document (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
}

// api returns the handler of an operation.
func (h *API) api(do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.admits(r.Header.Get("Authorization")) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="trypema"`)
			writeProblem(w, http.StatusUnauthorized, "A token is missing or wrong.")
			return
		}
		answer, err := do(r)
		if err != nil {
			h.fail(r.Context(), w, r.URL.Path, err)
			return
		}
		w.Header()["Content-Type"], w.Header()["Cache-Control"] = isJSON, noStore
		// To a client that has gone, perhaps.
		if d, ok := answer.(*decision); ok {
			_, _ = w.Write(d.append(make([]byte, 0, 192)))
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

// admits reports whether a request to /v1 has a token, if it must, by its Authorization.
func (h *API) admits(authorization string) bool {
	if len(h.tokens) == 0 {
		return true
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	return strings.EqualFold(scheme, "bearer") && h.tokens.Have(strings.TrimSpace(token))
}

// Headers of answers, which are the same for all.
var (
	isJSON  = []string{"application/json"}
	noStore = []string{"no-store"}
)

func writeProblem(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem{"about:blank", title, status})
}

func (h *API) fail(ctx context.Context, w http.ResponseWriter, path string, err error) {
	var own *wrong
	var large *http.MaxBytesError
	text, isClients := engine.Problem(err)
	switch {
	case errors.As(err, &large):
		writeProblem(w, http.StatusRequestEntityTooLarge,
			fmt.Sprintf("The body has more than %d bytes.", maxBody))
	case errors.As(err, &own):
		writeProblem(w, own.status, own.title)
	case errors.Is(err, engine.ErrUnknownPolicy), errors.Is(err, engine.ErrUnknownReservation):
		writeProblem(w, http.StatusNotFound, text)
	case isClients:
		writeProblem(w, http.StatusBadRequest, text)
	default:
		if ctx.Err() == nil {
			h.Logger.Warn("rest: a request failed", "path", path, "err", err)
		}
		writeProblem(w, http.StatusServiceUnavailable, text)
	}
}

// question is the body of a request: a policy, or a limit and a window.
type question struct {
	Key    string  `json:"key"`
	Policy string  `json:"policy"`
	Limit  *uint64 `json:"limit"`
	Window string  `json:"window"`
	// Cost is that of the call; for /v1/reserve its estimate.
	Cost *uint64 `json:"cost"`
	// Peek has /v1/allow record nothing.
	Peek bool `json:"peek"`
	// Expiry is how long a reservation holds, for /v1/reserve.
	Expiry string `json:"expiry"`
	// Reservation is what /v1/commit settles.
	Reservation string `json:"reservation"`
}

// read reads the body of a request into a question, of which only some fields may be there.
func read(r *http.Request, allowed ...string) (*question, error) {
	if kind := r.Header.Get("Content-Type"); kind != "" && kind != "application/json" {
		if media, _, err := mime.ParseMediaType(kind); err != nil ||
			media != "application/json" &&
				media != "application/x-www-form-urlencoded" { // which curl -d says
			return nil, &wrong{http.StatusUnsupportedMediaType, "The body must be application/json."}
		}
	}
	buffer, _ := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buffer)
	buffer.Reset()
	if _, err := buffer.ReadFrom(http.MaxBytesReader(nil, r.Body, maxBody)); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, err
		}
		return nil, bad("The body cannot be read to its end.") // its client was too slow, or has gone
	}
	q := new(question)
	if q.scan(buffer.Bytes(), allowed) {
		return q, nil
	}
	return parse(buffer.Bytes(), allowed)
}

// buffers are for the bodies of requests.
var buffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 1024)) }}

// scan reads a body that is as most are, in one pass: an object with fields of the right types, whose texts
// have no escapes. It reports false for any other, of which it may have read a part.
func (q *question) scan(body []byte, allowed []string) (ok bool) {
	if !utf8.Valid(body) || bytes.IndexByte(body, '\\') >= 0 || !gjson.ValidBytes(body) {
		return false
	}
	object := gjson.ParseBytes(body)
	if !object.IsObject() {
		return false
	}
	ok = true
	object.ForEach(func(key, value gjson.Result) bool {
		ok = slices.Contains(allowed, key.Str) && q.set(key.Str, value)
		return ok
	})
	return ok
}

// set sets a field, if the value has its type.
func (q *question) set(name string, value gjson.Result) (ok bool) {
	var text *string
	var number **uint64
	switch name {
	case "key":
		text = &q.Key
	case "policy":
		text = &q.Policy
	case "window":
		text = &q.Window
	case "expiry":
		text = &q.Expiry
	case "reservation":
		text = &q.Reservation
	case "limit":
		number = &q.Limit
	case "cost":
		number = &q.Cost
	}
	switch {
	case text != nil && value.Type == gjson.String:
		*text = value.Str
	case number != nil && value.Type == gjson.Number:
		n, err := strconv.ParseUint(value.Raw, 10, 64)
		if err != nil {
			return false
		}
		*number = &n
	case name == "peek" && value.IsBool():
		q.Peek = value.Bool()
	default:
		return false
	}
	return true
}

// parse reads any body, or says what is wrong with it.
func parse(body []byte, allowed []string) (*question, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, bad("The body is not a JSON object: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(allowed, name) {
			return nil, bad("the body has a field %.64q; it may have %s", name, strings.Join(allowed, ", "))
		}
	}
	q := new(question)
	if err := json.Unmarshal(body, q); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return nil, bad("%s is %s; it must be %s", kind.Field, kind.Value, fieldRules[kind.Field])
		}
		return nil, bad("The body is not a JSON object: %v", err)
	}
	return q, nil
}

var fieldRules = map[string]string{
	"key": "a text", "policy": "a text", "reservation": "a text", "peek": "true or false",
	"limit": "a whole number, 0 or more", "cost": "a whole number, 0 or more",
	"window": `a text with a duration, such as "1m"`, "expiry": `a text with a duration, such as "1m"`,
}

// target is what a question is judged by.
func (q *question) target() (t engine.Target, err error) {
	t = engine.Target{Policy: q.Policy, Key: q.Key}
	switch {
	case q.Policy == "" && q.Limit == nil:
		return t, bad("policy is missing; there must be a policy, or a limit and a window")
	case q.Policy != "" && (q.Limit != nil || q.Window != ""):
		return t, bad("policy is %q, and there is a limit or a window; there must be a policy or these",
			q.Policy)
	case q.Policy != "":
		return t, nil
	}
	window, err := duration("window", q.Window)
	if err != nil {
		return t, err
	}
	t.Limit = engine.Limit{Capacity: *q.Limit, Window: window}
	return t, nil
}

func duration(name, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, bad("%s is %.64q; it must be a duration such as 500ms, 10s or 1h", name, text)
	}
	return d, nil
}

// decision is the answer to /v1/allow and /v1/reserve.
type decision struct {
	Allowed   bool   `json:"allowed"`
	Limit     uint64 `json:"limit"`
	Remaining uint64 `json:"remaining"`
	// RetryAfter is 0 for a call that was allowed, and null for one that can never be.
	RetryAfter  *int64 `json:"retry_after_ms"`
	RefusedBy   string `json:"refused_by,omitempty"`
	Fallback    bool   `json:"fallback,omitempty"`
	Reservation string `json:"reservation,omitempty"`
}

func answer(d *trypema.Decision) *decision {
	a := &decision{
		Allowed:   d.Allowed,
		Limit:     d.Limit,
		Remaining: d.Remaining,
		RefusedBy: d.RefusedBy,
		Fallback:  d.Fallback,
	}
	if d.RetryAfter != trypema.Never {
		ms := int64((d.RetryAfter + time.Millisecond - 1) / time.Millisecond)
		a.RetryAfter = &ms
	}
	return a
}

// append appends the JSON of a decision, as json.Encoder writes it.
func (a *decision) append(to []byte) []byte {
	to = append(to, `{"allowed":`...)
	to = strconv.AppendBool(to, a.Allowed)
	to = append(to, `,"limit":`...)
	to = strconv.AppendUint(to, a.Limit, 10)
	to = append(to, `,"remaining":`...)
	to = strconv.AppendUint(to, a.Remaining, 10)
	to = append(to, `,"retry_after_ms":`...)
	if a.RetryAfter == nil {
		to = append(to, "null"...)
	} else {
		to = strconv.AppendInt(to, *a.RetryAfter, 10)
	}
	if a.RefusedBy != "" {
		text, _ := json.Marshal(a.RefusedBy) // which every text can be
		to = append(append(to, `,"refused_by":`...), text...)
	}
	if a.Fallback {
		to = append(to, `,"fallback":true`...)
	}
	if a.Reservation != "" {
		to = append(append(append(to, `,"reservation":"`...), a.Reservation...), '"') // hexadecimal
	}
	return append(to, "}\n"...)
}

// ofAllow are the fields of /v1/allow.
var ofAllow = []string{"key", "policy", "limit", "window", "cost", "peek"}

func (h *API) allow(r *http.Request) (any, error) {
	q, err := read(r, ofAllow...)
	if err != nil {
		return nil, err
	}
	t, cost, err := q.call()
	if err != nil {
		return nil, err
	}
	d, err := h.decide(r.Context(), q, &t, cost)
	if err != nil {
		return nil, err
	}
	return answer(&d), nil
}

// call is what a question to /v1/allow asks for, or what is wrong with it.
func (q *question) call() (t engine.Target, cost uint64, err error) {
	if t, err = q.target(); err != nil {
		return t, 0, err
	}
	switch {
	case q.Cost != nil && *q.Cost == 0 && !q.Peek:
		return t, 0, bad("cost is 0; it must be at least 1, unless peek is true")
	case q.Cost != nil:
		cost = *q.Cost
	case t.Policy == "":
		cost = 1
	}
	return t, cost, nil
}

func (h *API) decide(
	ctx context.Context, q *question, t *engine.Target, cost uint64,
) (trypema.Decision, error) {
	if q.Peek {
		return h.Engine.Peek(ctx, t, cost)
	}
	return h.Engine.Allow(ctx, t, cost)
}

func (h *API) reserve(r *http.Request) (any, error) {
	q, err := read(r, "key", "policy", "limit", "window", "cost", "expiry")
	if err != nil {
		return nil, err
	}
	t, err := q.target()
	if err != nil {
		return nil, err
	}
	if q.Cost == nil {
		return nil, bad("cost is missing; it must be the estimate")
	}
	expiry := engine.DefaultExpiry
	if q.Expiry != "" {
		if expiry, err = duration("expiry", q.Expiry); err != nil {
			return nil, err
		}
		if expiry == 0 {
			return nil, bad("expiry is 0s; it must be above 0s")
		}
	}
	name, d, err := h.Engine.Reserve(r.Context(), &t, *q.Cost, expiry)
	if err != nil {
		return nil, err
	}
	a := answer(&d)
	a.Reservation = name
	return a, nil
}

func (h *API) commit(r *http.Request) (any, error) {
	q, err := read(r, "reservation", "cost")
	switch {
	case err != nil:
		return nil, err
	case q.Reservation == "":
		return nil, bad("reservation is missing; it must be what /v1/reserve has answered")
	case q.Cost == nil:
		return nil, bad("cost is missing; it must be the true cost, or 0 to give everything back")
	}
	// The cost has come about, whether the client waits for the answer or not.
	if err := h.Engine.Commit(context.WithoutCancel(r.Context()), q.Reservation, *q.Cost); err != nil {
		return nil, err
	}
	return map[string]uint64{"committed": *q.Cost}, nil
}

// used is what a window holds.
type used struct {
	Limit     uint64 `json:"limit"`
	Window    string `json:"window"`
	Used      uint64 `json:"used"`
	Remaining uint64 `json:"remaining"`
}

func (h *API) usage(r *http.Request) (any, error) {
	query := r.URL.Query()
	q := &question{Key: query.Get("key"), Policy: query.Get("policy"), Window: query.Get("window")}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains([]string{"key", "policy", "limit", "window"}, name) {
			return nil, bad("the query has a parameter %.64q; it may have key, policy, limit, window", name)
		}
	}
	if text := query.Get("limit"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, bad("limit is %.64q; it must be a whole number, 0 or more", text)
		}
		q.Limit = &n
	}
	t, err := q.target()
	if err != nil {
		return nil, err
	}
	all, limits, err := h.Engine.Usage(r.Context(), &t)
	if err != nil {
		return nil, err
	}
	windows := []used{}
	for i, l := range limits {
		n := min(all[i].Total, math.MaxInt64)
		windows = append(windows, used{l.Capacity, l.Window.String(), n, l.Capacity - min(n, l.Capacity)})
	}
	return map[string][]used{"limits": windows}, nil
}

// auth answers a proxy whether the request of a client may pass: 200, or 429 with a problem document. With
// the parameter denied the status is that, for nginx, which takes only 401 and 403 for a denial.
func (h *API) auth(w http.ResponseWriter, r *http.Request) {
	if len(h.tokens) > 0 && !h.tokens.Have(r.Header.Get("X-Trypema-Token")) {
		writeProblem(w, http.StatusUnauthorized, "X-Trypema-Token is missing or wrong.")
		return
	}
	policy, denied := r.PathValue("policy"), http.StatusTooManyRequests
	// With the path of the client comes its query, which must not say what a denial is.
	if text := r.URL.Query().Get("denied"); text != "" && !strings.Contains(r.URL.Path[len("/auth/"):], "/") {
		status, err := strconv.Atoi(text)
		if err != nil || status < 400 || status > 499 {
			writeProblem(w, http.StatusBadRequest,
				fmt.Sprintf("denied is %.64q; it must be a status from 400 to 499", text))
			return
		}
		denied = status
	}
	if _, known := h.Engine.Policies().Get(policy); !known {
		// The configuration of the proxy is wrong, and its clients see only that a request failed.
		if minute := time.Now().Unix() / 60; h.told.Swap(minute) != minute {
			h.Logger.Warn("rest: a proxy asks for a policy that is not known", "policy", policy)
		}
		h.fail(r.Context(), w, r.URL.Path, engine.ErrUnknownPolicy)
		return
	}
	guard, err := h.guard(policy)
	if err != nil {
		h.fail(r.Context(), w, r.URL.Path, err)
		return
	}
	if denied != http.StatusTooManyRequests {
		w = &denying{w, denied}
	}
	guard.ServeHTTP(w, r)
}

// denying replaces the status of a denial.
type denying struct {
	http.ResponseWriter
	status int
}

func (w *denying) WriteHeader(status int) {
	if status == http.StatusTooManyRequests {
		status = w.status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *denying) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// toldName is what clients are told a limit without a name by: its policy, where a header can have that.
func toldName(policy string) string {
	for i := range len(policy) {
		if c := policy[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return ""
		}
	}
	return policy
}

// guard returns the middleware of a policy in front of a handler that says yes.
func (h *API) guard(policy string) (http.Handler, error) {
	if one, ok := h.guards.Load(policy); ok {
		return one.(http.Handler), nil
	}
	middleware, err := httplimit.New(httplimit.Options{
		Decide: func(r *http.Request, key string, _ uint64) (trypema.Decision, error) {
			return h.Engine.Allow(r.Context(), &engine.Target{Policy: policy, Key: key}, 0)
		},
		Limits: func(*http.Request) []trypema.Limit {
			one, _ := h.Engine.Policies().Get(policy)
			return one.Limits
		},
		Key:  h.key,
		Name: toldName(policy),
		Failed: func(w http.ResponseWriter, r *http.Request, err error) {
			h.fail(r.Context(), w, r.URL.Path, err)
		},
	})
	if err != nil {
		return nil, err
	}
	one := middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
	}))
	h.guards.Store(policy, one)
	return one, nil
}
