// Package httplimit puts a limiter in front of net/http handlers, and behind net/http clients.
//
// New makes a func(http.Handler) http.Handler. Who shares a limit is for a [KeyFunc] to say, which trusts
// nobody by itself: an address in a header counts only when the proxies are named that may set it. What the
// client is told follows draft-ietf-httpapi-ratelimit-headers-11, or the older X-RateLimit headers.
//
// A request that does not reach the handler is answered with a status that says so: 429 if it was denied, 503
// if it could not be judged, 500 if one of the functions of the options panics. The panic then goes on.
//
// It works with all that takes such middleware, chi included, and by their adapters with echo and gin.
package httplimit

import (
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/middleware"
)

// Options say what New limits, and how. Limiter and one of Rate and RateOf are required, or Decide; all else
// has a default.
type Options struct {
	// Limiter decides. It may be shared with others: requests with the same key then count together. If it
	// has a method Window() time.Duration, as those of this module have, New refuses a Rate that does not fit
	// its window.
	Limiter trypema.Limiter

	// Rate is that of every request.
	Rate trypema.Rate

	// RateOf is the rate of a request, by plan or path, say. With trypema.Unlimited a request is counted and
	// passes. A rate that does not fit the window of the limiter fails the request: see Failed.
	RateOf func(*http.Request) trypema.Rate

	// Decide decides instead of Limiter, on a request with a key and a cost, which Cost may have made 0: by a
	// trypema.Bound, or by policies.
	Decide func(r *http.Request, key string, cost uint64) (trypema.Decision, error)

	// Limits returns the limits that Decide keeps for a request, so that clients are told all of them by
	// their names, which then take the place of Name. A name that is not printable ASCII, or has quotes or
	// backslashes, is told as the window. Default none: clients are told Name, with the capacity of the limit
	// that the decision is about.
	Limits func(*http.Request) []trypema.Limit

	// Key says who shares a limit. Default ByIP().
	Key KeyFunc

	// Keyless says what becomes of requests for which Key finds none. Default KeylessShare.
	Keyless Keyless

	// Cost is that of a request. Default 1 for each. A request of cost 0 is judged as if it had cost 1, and
	// counted as nothing: it passes if there is any room.
	Cost func(*http.Request) uint64

	// Skip names requests that are not limited: health checks, networks of one's own. Default none.
	Skip func(*http.Request) bool

	// Shadow lets every request pass, also if one of these functions panics. Decisions are made, counted and
	// seen by Seen; clients are told nothing.
	Shadow bool

	// Headers are what clients are told with each answer. Default StandardHeaders.
	Headers Headers

	// Name is the name of the policy, for clients. Default "default"; printable ASCII without quotes and
	// backslashes. Where a request passes several limits they need names of their own. A name that another
	// one has already told is told with a number: "default-2".
	Name string

	// Window is that of the limiter, for clients, who are told it if it is a whole number of seconds. Default
	// what the method Window of Limiter says, if it has one; it must not say something else. With Decide the
	// default is none.
	Window time.Duration

	// Denied answers a request that was denied. The headers that Headers asks for have been set, Retry-After
	// among them. The status that it does not write is 429; if it writes nothing, the default answers.
	// Default status 429 with a problem document.
	Denied func(http.ResponseWriter, *http.Request, trypema.Decision)

	// Failed answers a request on which the limiter could not decide: the error is one of package trypema,
	// such as ErrInvalidRate for what RateOf returned, or that of the request's context. A Redis that does
	// not answer is not an error: the provider's failure policy decides, and Decision.Fallback says so. The
	// status that it does not write is 503; if it writes nothing, the default answers.
	//
	// Default status 503 with a problem document, also if the context of the request has ended. A client that
	// has gone does not see it; one that has not, because the server shuts down, may send the request again.
	Failed func(http.ResponseWriter, *http.Request, error)

	// Logger is told why requests could not be judged, without Failed or with Shadow: the first error, and
	// then at most one a minute. That the context of a request has ended is not logged. Default
	// slog.Default().
	Logger *slog.Logger

	// Seen is told of each decision, before it is answered. It must not block. Default nil.
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
func New(o Options) (func(http.Handler) http.Handler, error) {
	bad := func(format string, args ...any) (func(http.Handler) http.Handler, error) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "httplimit.Options."+format, args...)
	}
	if o.Name == "" {
		o.Name = "default"
	}
	if err := middleware.Check("httplimit.Options", o.Limiter, o.Rate, o.RateOf != nil, o.Decide != nil); err != nil {
		return nil, err
	}
	window := middleware.WindowOf(o.Limiter)
	switch {
	case o.Limits != nil && o.Decide == nil:
		return bad("Limits is set, but not Decide, which keeps them; it must be left out")
	case o.Keyless > KeylessPass:
		return bad("Keyless is %d; it must be KeylessShare, KeylessDeny or KeylessPass", o.Keyless)
	case o.Headers > NoHeaders:
		return bad("Headers is %d; it must be StandardHeaders, LegacyHeaders or NoHeaders", o.Headers)
	case !quotable(o.Name):
		return bad("Name is %q; it must be printable ASCII without quotes and backslashes", o.Name)
	case o.Window < 0:
		return bad("Window is %v; it must be that of the limiter, or 0", o.Window)
	case o.Window != 0 && window != 0 && o.Window != window:
		return bad("Window is %v; it must be that of the limiter, which is %v, or 0", o.Window, window)
	}
	if o.Window == 0 {
		o.Window = window
	}
	if o.Key == nil {
		o.Key = ByIP()
	}
	m := &limit{Options: o, failures: failures{made: time.Now()}}
	return m.wrap, nil
}

// quotable reports whether a text can stand in quotes in a structured field as it is.
func quotable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) < 0
}

// limit is a middleware.
type limit struct {
	Options
	policy atomic.Pointer[policyField] // the last one, which most requests share
	failures
}

func (m *limit) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.admits(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// judgement is what becomes of a request.
type judgement struct {
	d       trypema.Decision
	limits  []trypema.Limit // of d, if they are known
	passes  bool            // without a decision
	keyless bool            // it is denied for that
}

// admits decides on a request, and answers it unless it passes.
func (m *limit) admits(w http.ResponseWriter, r *http.Request) bool {
	var j judgement
	var err error
	if m.Shadow {
		if broken := panicked(func() { j, err = m.judge(r) }); broken != nil {
			err = broken
		}
		m.log(r, err)
		return true
	}
	var answered bool
	answering(w, http.StatusInternalServerError, &answered, func() { j, err = m.judge(r) })
	switch {
	case j.passes:
		return true
	case j.keyless:
		p := problem{Type: "about:blank", Title: "The request does not identify its client."}
		writeProblem(w, http.StatusBadRequest, p)
		return false
	case err != nil:
		m.failed(w, r, err)
		return false
	}
	name := m.tell(w.Header(), j.d, j.limits)
	if !j.d.Allowed {
		if len(j.limits) == 0 && j.d.RefusedBy != "" { // the headers do not have it
			name = j.d.RefusedBy
		}
		m.denied(w, r, j.d, name)
	}
	return j.d.Allowed
}

func (m *limit) judge(r *http.Request) (j judgement, err error) {
	if m.Skip != nil && m.Skip(r) {
		j.passes = true
		return j, nil
	}
	key, ok := m.Key(r)
	if !ok {
		j.passes = m.Keyless == KeylessPass
		j.keyless = m.Keyless == KeylessDeny && !m.Shadow
		if j.passes || j.keyless {
			return j, nil
		}
		key = middleware.Keyless
	}
	j.d, err = m.decide(r, key)
	if err == nil && m.Limits != nil && !m.Shadow {
		j.limits = m.Limits(r)
	}
	if m.Seen != nil {
		m.Seen(r, j.d, err)
	}
	return j, err
}

func (m *limit) decide(r *http.Request, key string) (trypema.Decision, error) {
	rate, cost := m.Rate, uint64(1)
	if m.RateOf != nil {
		rate = m.RateOf(r)
	}
	if m.Cost != nil {
		cost = m.Cost(r)
	}
	if m.Decide != nil {
		return m.Decide(r, key, cost)
	}
	if cost == 0 {
		return m.Limiter.Peek(r.Context(), key, rate, 0)
	}
	return m.Limiter.AllowN(r.Context(), key, rate, cost)
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
