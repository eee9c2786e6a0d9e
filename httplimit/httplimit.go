// Package httplimit puts a limiter in front of net/http handlers, and behind net/http clients.
//
// New makes a func(http.Handler) http.Handler. Who shares a limit is for a [KeyFunc] to say, which trusts nobody by itself: an
// address in a header counts only when the proxies are named that may set it. What the client is told follows
// draft-ietf-httpapi-ratelimit-headers-10, or the older X-RateLimit headers.
//
// It works with all that takes such middleware, chi included, and by their adapters with echo and gin.
package httplimit

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/front"
	"github.com/trypema/trypema/internal/invalid"
)

// Options say what New limits, and how. Limiter and one of Rate and RateOf are required, or Decide; all else has a default.
type Options struct {
	// Limiter decides. It may be shared with others: requests with the same key then count together.
	Limiter trypema.Limiter

	// Rate is that of every request.
	Rate trypema.Rate

	// RateOf is the rate of a request, by plan or path, say. With trypema.Unlimited a request is counted and passes.
	RateOf func(*http.Request) trypema.Rate

	// Decide decides instead of Limiter, on a request with a key and a cost, which Cost may have made 0: by a trypema.MultiLimiter, or by
	// policies. Where Decision.RefusedBy says who refused, that name takes the place of Name for the client.
	Decide func(r *http.Request, key string, cost uint64) (trypema.Decision, error)

	// Key says who shares a limit. Default ByIP().
	Key KeyFunc

	// Keyless says what becomes of requests for which Key finds none. Default KeylessShare.
	Keyless Keyless

	// Cost is that of a request. Default 1 for each. A request of cost 0 is judged as if it had cost 1, and counted as nothing: it
	// passes if there is any room.
	Cost func(*http.Request) uint64

	// Skip names requests that are not limited: health checks, networks of one's own. Default none.
	Skip func(*http.Request) bool

	// Shadow lets every request pass. Decisions are made, counted and seen by Seen; clients are told nothing.
	Shadow bool

	// Headers are what clients are told with each answer. Default StandardHeaders.
	Headers Headers

	// Name is the name of the policy, for clients. Default "default"; printable ASCII without quotes and backslashes.
	Name string

	// Window is that of the limiter, for clients: whole seconds of it stand in RateLimit-Policy. Default none.
	Window time.Duration

	// Denied answers a request that was denied. The headers that Headers asks for have been set, Retry-After among them. Default
	// status 429 with a problem document.
	Denied func(http.ResponseWriter, *http.Request, trypema.Decision)

	// Failed answers a request on which the limiter could not decide: the error is one of package trypema, such as ErrInvalidRate
	// for what RateOf returned, or that of the request's context. A Redis that does not answer is no such case: it is decided by
	// the provider's failure policy, and Decision.Fallback says so. Default status 503 with a problem document.
	Failed func(http.ResponseWriter, *http.Request, error)

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

// New returns the middleware, or an error that wraps trypema.ErrInvalidOptions and names the field.
func New(o Options) (func(http.Handler) http.Handler, error) {
	bad := func(format string, args ...any) (func(http.Handler) http.Handler, error) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "httplimit.Options."+format, args...)
	}
	if o.Name == "" {
		o.Name = "default"
	}
	if err := front.Check("httplimit.Options", o.Limiter, o.Rate, o.RateOf != nil, o.Decide != nil); err != nil {
		return nil, err
	}
	switch {
	case o.Keyless > KeylessPass:
		return bad("Keyless is %d; it must be KeylessShare, KeylessDeny or KeylessPass", o.Keyless)
	case o.Headers > NoHeaders:
		return bad("Headers is %d; it must be StandardHeaders, LegacyHeaders or NoHeaders", o.Headers)
	case !quotable(o.Name):
		return bad("Name is %q; it must be printable ASCII without quotes and backslashes", o.Name)
	case o.Window < 0:
		return bad("Window is %v; it must be that of the limiter, or 0", o.Window)
	}
	if o.Key == nil {
		o.Key = ByIP()
	}
	m := &middleware{Options: o}
	if m.Denied == nil {
		m.Denied = m.deny
	}
	if m.Failed == nil {
		m.Failed = m.fail
	}
	return m.wrap, nil
}

// quotable reports whether a text can stand in quotes in a structured field as it is.
func quotable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) < 0
}

type middleware struct {
	Options
	policy atomic.Pointer[policyField] // the last one, which most requests share
}

func (m *middleware) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.admits(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// admits decides on a request, and answers it if it is denied.
func (m *middleware) admits(w http.ResponseWriter, r *http.Request) bool {
	if m.Skip != nil && m.Skip(r) {
		return true
	}
	key, ok := m.Key(r)
	if !ok {
		switch {
		case m.Keyless == KeylessPass:
			return true
		case m.Keyless == KeylessDeny && !m.Shadow:
			writeProblem(w, http.StatusBadRequest, problem{Type: "about:blank", Title: "The request does not say who makes it."})
			return false
		}
		key = front.Keyless
	}
	d, err := m.decide(r, key)
	if m.Seen != nil {
		m.Seen(r, d, err)
	}
	switch {
	case m.Shadow:
		return true
	case err != nil:
		m.Failed(w, r, err)
		return false
	}
	m.tell(w.Header(), d)
	if !d.Allowed {
		m.Denied(w, r, d)
	}
	return d.Allowed
}

func (m *middleware) decide(r *http.Request, key string) (trypema.Decision, error) {
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

// nameOf is the name of the policy that a decision is by, as clients are told it.
func (m *middleware) nameOf(d trypema.Decision) string {
	if d.RefusedBy != "" && quotable(d.RefusedBy) {
		return d.RefusedBy
	}
	return m.Name
}

// deny is the default of Denied.
func (m *middleware) deny(w http.ResponseWriter, _ *http.Request, d trypema.Decision) {
	p := problem{
		Type:     "https://iana.org/assignments/http-problem-types#quota-exceeded",
		Title:    "The quota of requests is used up.",
		Policies: []string{m.nameOf(d)},
	}
	if d.Outcome == trypema.OutcomeSuppressed {
		p.Type = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
		p.Title = "A part of the requests is declined for now."
	}
	writeProblem(w, http.StatusTooManyRequests, p)
}

// fail is the default of Failed.
func (m *middleware) fail(w http.ResponseWriter, _ *http.Request, err error) {
	if errors.Is(err, context.Canceled) {
		return // nobody waits for an answer
	}
	writeProblem(w, http.StatusServiceUnavailable, problem{Type: "about:blank", Title: "The limit of requests can not be judged."})
}
