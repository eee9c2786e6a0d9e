// Package httplimit puts a limiter in front of net/http handlers, and behind net/http clients.
//
// New makes a func(http.Handler) http.Handler. A [KeyFunc] says which requests share a limit. It believes no
// header by itself: an address in a header counts only if the proxies are named that may set it. Clients are
// told their limits as in draft-ietf-httpapi-ratelimit-headers-11, or by the older X-RateLimit headers.
//
// A request that does not reach the handler is answered with a status that says so: 429 if it was denied, 503
// if it could not be judged, 500 if one of the functions of the options panics. The panic then goes on.
//
// It works with all that takes such middleware, chi included, and by their adapters with echo and gin.
package httplimit

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/contextkey"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/middleware"
)

// Options say what New limits, and how. One of Bound, Policies, Limiter and Decide decides; all else has a
// default.
type Options struct {
	// Bound decides, by the limits that were given to Bind, and clients are told these. It may be shared with
	// others: requests with the same key then count together.
	Bound *trypema.Bound

	// Policies decide, each request by the policy that PolicyOf names. Clients are told its limits. A request
	// costs what the policy says, unless there is Cost.
	Policies *trypema.Policies

	// PolicyOf is the policy of a request: the plan of a customer, say. One that Policies do not have fails
	// the request with trypema.ErrUnknownPolicy: see Failed.
	PolicyOf func(*http.Request) string

	// Limiter decides, by Rate or RateOf. It may be shared with others. If it has a method Window()
	// time.Duration, as those of this module have, New refuses a Rate that does not fit its window.
	Limiter trypema.Limiter

	// Rate is the rate of every request.
	Rate trypema.Rate

	// RateOf is the rate of a request, by plan or path, say. With trypema.Unlimited a request is counted and
	// passes. A rate that does not fit the window of the limiter fails the request: see Failed.
	RateOf func(*http.Request) trypema.Rate

	// Decide decides on a request with a key and a cost, which Cost may have made 0: by trypema.All, say.
	Decide func(r *http.Request, key string, cost uint64) (trypema.Decision, error)

	// Limits returns the limits that Decide keeps for a request, for the headers. Default none: the headers
	// have Name, with the capacity of the limit that the decision is about.
	Limits func(*http.Request) []trypema.Limit

	// Key says which requests share a limit. Default ByIP().
	Key KeyFunc

	// Keyless says what becomes of requests for which Key finds none. Default KeylessShare.
	Keyless Keyless

	// Cost is the cost of a request. Default 1, or what its policy says. A request of cost 0 is judged as if
	// it had cost 1, and counted as nothing: it passes if there is any room.
	Cost func(*http.Request) uint64

	// Skip names requests that are not limited: health checks, or some networks, by SkipNetworks. Default
	// none.
	Skip func(*http.Request) bool

	// Shadow lets every request pass, also if one of these functions panics. Decisions are made, counted and
	// given to Seen. Answers have no headers of the limit.
	Shadow bool

	// Headers are those that each answer has about the limit. Default StandardHeaders.
	Headers Headers

	// Name is the name of the limit in the headers. Default "default"; printable ASCII without quotes and
	// backslashes. If a request passes several limits, each needs a name. A name that an earlier limit has
	// used gets a number: "default-2".
	//
	// Limits that a Bound, a policy or Limits name have these names in the headers. A single limit without a
	// name has Name. Several limits without a name have their window as a name, and so has a limit whose name
	// has quotes, backslashes, or other than printable ASCII.
	Name string

	// Window is the window of the limiter, for the headers, which have it if it is a whole number of seconds.
	// Default what the method Window of Limiter returns, if it has one; another value is an error. With
	// Decide the default is none. A Bound and Policies have their own windows.
	Window time.Duration

	// Denied answers a request that was denied. The headers that Headers asks for have been set, Retry-After
	// among them. If it writes no status, that is 429; if it writes nothing, the default answers. Default
	// status 429 with a problem document.
	Denied func(http.ResponseWriter, *http.Request, trypema.Decision)

	// Failed answers a request on which the limiter could not decide: the error is one of package trypema,
	// such as ErrInvalidRate for what RateOf returned, or that of the request's context. A Redis that does
	// not answer is not an error: the provider's failure policy decides, and Decision.Fallback says so. If
	// it writes no status, that is 503; if it writes nothing, the default answers.
	//
	// Default status 503 with a problem document, also if the context of the request has ended. A client that
	// has gone does not see it; one that has not, because the server shuts down, may send the request again.
	Failed func(http.ResponseWriter, *http.Request, error)

	// Logger gets the errors of requests that could not be judged, without Failed or with Shadow: the first,
	// and then at most one a minute. The end of a request's context is not logged. Default slog.Default().
	Logger *slog.Logger

	// Seen is called with each decision, before the answer. It must not block. Default nil.
	Seen func(*http.Request, trypema.Decision, error)
}

// Keyless says what becomes of requests without a key.
type Keyless uint8

const (
	// KeylessShare has all of them share one limit.
	KeylessShare Keyless = iota
	// KeylessDeny answers them with status 400.
	KeylessDeny
	// KeylessPass lets them pass, unlimited.
	KeylessPass
)

// maxInteger is what a structured field can say.
const maxInteger = 999_999_999_999_999

// New returns the middleware, or an error that wraps trypema.ErrInvalidOptions and names the field. It does
// no I/O.
//
// The context of a request that reaches the handler carries the decision: see trypema.FromContext.
func New(o Options) (func(http.Handler) http.Handler, error) {
	m, err := newLimit("httplimit.Options", o)
	if err != nil {
		return nil, err
	}
	return m.wrap, nil
}

// KeyOf returns the key by which a request is limited, as the limiter stores it, and whether it has one: for
// programs that ask for the usage of a client, or delete it. Of the request only that is needed which Key
// looks at: for ByIP, http.Request{RemoteAddr: "192.0.2.7"}.
func (o Options) KeyOf(r *http.Request) (key string, ok bool) {
	of := o.of("httplimit.Options")
	return of.KeyOf(r)
}

// of are the options that all middleware have in common.
func (o *Options) of(name string) middleware.Options[*http.Request] {
	key := o.Key
	if key == nil {
		key = ByIP()
	}
	return middleware.Options[*http.Request]{
		Name: name, Context: (*http.Request).Context,
		Bound: o.Bound, Policies: o.Policies, PolicyOf: o.PolicyOf,
		Limiter: o.Limiter, Rate: o.Rate, RateOf: o.RateOf, Decide: o.Decide, Limits: o.Limits,
		Key: key, Keyless: middleware.Keyless(o.Keyless), Cost: o.Cost, Skip: o.Skip,
		Shadow: o.Shadow, Seen: o.Seen,
	}
}

func newLimit(options string, o Options) (*limit, error) {
	bad := func(format string, args ...any) (*limit, error) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, options+"."+format, args...)
	}
	if o.Name == "" {
		o.Name = "default"
	}
	m := &limit{Options: o, judge: o.of(options)}
	if err := m.judge.Check(); err != nil {
		return nil, err
	}
	window := middleware.WindowOf(o.Limiter)
	switch {
	case o.Headers > NoHeaders:
		return bad("Headers is %d; it must be StandardHeaders, LegacyHeaders or NoHeaders", o.Headers)
	case !quotable(o.Name):
		return bad("Name is %q; it must be printable ASCII without quotes and backslashes", o.Name)
	case o.Window < 0:
		return bad("Window is %v; it must be that of the limiter, or 0", o.Window)
	case o.Window != 0 && (o.Bound != nil || o.Policies != nil):
		return bad("Window is %v; it must be left out, as each limit has its own", o.Window)
	case o.Window != 0 && window != 0 && o.Window != window:
		return bad("Window is %v; it must be that of the limiter, which is %v, or 0", o.Window, window)
	}
	if o.Window == 0 {
		m.Window = window
	}
	m.failures = middleware.NewFailures(o.Logger, "httplimit: requests cannot be judged")
	m.settling = middleware.NewFailures(o.Logger, "httplimit: the cost of requests cannot be settled")
	return m, nil
}

// quotable reports whether a text can stand in quotes in a structured field as it is.
func quotable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) < 0
}

// limit is a middleware.
type limit struct {
	Options
	judge    middleware.Options[*http.Request]
	failures *middleware.Failures // to judge
	settling *middleware.Failures // by a Reserver
	fields   fields
}

func (m *limit) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, decided, passes := m.admits(w, r)
		if !passes {
			abandon(r.Context())
			return
		}
		if decided != nil {
			r = r.WithContext(decided)
		}
		next.ServeHTTP(w, r)
	})
}

// admits decides on a request, and answers it unless it passes. The context is that of the request with the
// decision, if there is one.
func (m *limit) admits(w http.ResponseWriter, r *http.Request) (
	v middleware.Verdict, decided *decidedContext, passes bool,
) {
	var err error
	if m.Shadow {
		if broken := panicked(func() { v, err = m.judge.Judge(r) }); broken != nil {
			err = broken
		}
		m.log(r, err)
		if v.Decided && err == nil {
			decided = newDecided(r, &v)
		}
		return v, decided, true
	}
	var answered bool
	answering(w, http.StatusInternalServerError, &answered, func() { v, err = m.judge.Judge(r) })
	switch {
	case err != nil:
		m.failed(w, r, err)
		return v, nil, false
	case v.Keyless:
		p := problem{Type: "about:blank", Title: "The request does not identify its client."}
		writeProblem(w, http.StatusBadRequest, p)
		return v, nil, false
	case !v.Decided:
		return v, nil, true
	}
	decided = newDecided(r, &v)
	name := m.tell(w.Header(), &v, &decided.field)
	if !v.Allowed {
		if len(v.Limits) == 0 && v.RefusedBy != "" { // the headers do not have it
			name = v.RefusedBy
		}
		m.denied(w, r, v.Decision, name)
	}
	return v, decided, v.Allowed
}

// decidedContext is what a request needs in one allocation: the context that carries its decision, and the
// value of RateLimit.
type decidedContext struct {
	context.Context
	decision trypema.Decision
	field    limitField
}

func newDecided(r *http.Request, v *middleware.Verdict) *decidedContext {
	return &decidedContext{Context: r.Context(), decision: v.Decision}
}

func (c *decidedContext) Value(key any) any {
	if key == (contextkey.Decision{}) {
		return &c.decision
	}
	return c.Context.Value(key)
}

// log logs that a request could not be judged, but not that its context has ended.
func (m *limit) log(r *http.Request, err error) {
	if err != nil && !ended(r.Context(), err) {
		m.failures.Log(r.Context(), err, slog.String("policy", m.Name))
	}
}

// denied answers a request that was denied by the policy of that name.
func (m *limit) denied(w http.ResponseWriter, r *http.Request, d trypema.Decision, policy string) {
	own := func(w http.ResponseWriter) { m.Denied(w, r, d) }
	if m.Denied == nil || !answers(w, http.StatusTooManyRequests, own) {
		deny(w, d, policy)
	}
}

// deny is the default of Denied.
func deny(w http.ResponseWriter, d trypema.Decision, policy string) {
	p := problem{
		Type:     "https://iana.org/assignments/http-problem-types#quota-exceeded",
		Title:    "Rate limit exceeded.",
		Policies: []string{policy},
	}
	if d.Outcome == trypema.OutcomeSuppressed {
		p.Type = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
		p.Title = "Request shed under overload."
	}
	writeProblem(w, http.StatusTooManyRequests, p)
}

// failed answers a request that could not be judged.
func (m *limit) failed(w http.ResponseWriter, r *http.Request, err error) {
	own := func(w http.ResponseWriter) { m.Failed(w, r, err) }
	if m.Failed == nil {
		m.log(r, err)
	} else if answers(w, http.StatusServiceUnavailable, own) {
		return
	}
	p := problem{Type: "about:blank", Title: "Rate limiter unavailable."}
	writeProblem(w, http.StatusServiceUnavailable, p)
}
