package httplimit

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/middleware"
)

// TransportOptions say what a Transport limits, and how. One of Bound, Policies, Limiter and Decide decides;
// all else has a default.
type TransportOptions struct {
	// Bound decides, by the limits that were given to Bind. It may be shared with others: requests with the
	// same key then count together. Requests that wait are made in the order in which they came.
	Bound *trypema.Bound

	// Policies decide, each request by the policy that PolicyOf names, and in turn, too. A request costs what
	// the policy says, unless there is Cost.
	Policies *trypema.Policies

	// PolicyOf is the policy of a request. One that Policies do not have fails the request with
	// trypema.ErrUnknownPolicy: see Failed.
	PolicyOf func(*http.Request) string

	// Limiter decides, by Rate or RateOf. It may be shared with others. A request that waits may be overtaken
	// by others, which count; then it waits again, for MaxWait in all.
	Limiter trypema.Limiter

	// Rate is the rate of every request.
	Rate trypema.Rate

	// RateOf is the rate of a request. A rate that does not fit the window of the limiter fails the request:
	// see Failed.
	RateOf func(*http.Request) trypema.Rate

	// Decide decides on a request with a key and a cost, which Cost may have made 0: by trypema.All, say. A
	// request that waits is decided on again.
	Decide func(r *http.Request, key string, cost uint64) (trypema.Decision, error)

	// Key says which requests share a limit. Default those to one host and port, however it is spelled: in
	// upper case, with the default port, with a dot at its end, or in punycode.
	Key KeyFunc

	// Keyless says what becomes of requests for which Key finds none. Default KeylessShare. With KeylessDeny
	// they fail with trypema.ErrInvalidKey.
	Keyless Keyless

	// Cost is the cost of a request. Default 1, or what its policy says. A request of cost 0 is judged as if
	// it had cost 1, and counted as nothing: it passes if there is any room.
	Cost func(*http.Request) uint64

	// Skip names requests that are not limited, and are made whatever their server has said. Default none.
	Skip func(*http.Request) bool

	// MaxWait is how long a request may wait for its turn. A request that would have to wait longer, or
	// beyond the deadline of its context, fails at once with a *DeniedError. Default 0: none waits.
	MaxWait time.Duration

	// MaxRetryAfter is how long a server is obeyed at most. A server that answers 429 or 503 with
	// Retry-After, or says in RateLimit or X-RateLimit headers that nothing is left, gets no more requests of
	// the same key until then: they wait as for a turn, or fail. Default 5 minutes; a negative value obeys no
	// server.
	MaxRetryAfter time.Duration

	// Shadow makes every request at once. Decisions are made, counted and given to Seen.
	Shadow bool

	// Denied returns how a request fails that was denied. Default, also where it returns nil: a *DeniedError.
	Denied func(*http.Request, trypema.Decision) error

	// Failed returns how a request fails on which the limiter could not decide: the error is one of package
	// trypema, or that of the request's context. Default, also where it returns nil: that error.
	Failed func(*http.Request, error) error

	// Logger gets the errors of requests that could not be judged, without Failed or with Shadow: the first,
	// and then at most one a minute. The end of a request's context is not logged. Default slog.Default().
	Logger *slog.Logger

	// Seen is called with each decision. It must not block. Default nil.
	Seen func(*http.Request, trypema.Decision, error)

	// Base makes the requests. Default http.DefaultTransport.
	Base http.RoundTripper
}

// Transport is an http.RoundTripper that keeps a limit. It is made by NewTransport.
type Transport struct {
	o        TransportOptions
	judge    middleware.Options[*http.Request]
	failures *middleware.Failures
	servers  pauses
}

const defaultMaxRetryAfter = 5 * time.Minute

// NewTransport returns a Transport, or an error that wraps trypema.ErrInvalidOptions and names the field.
func NewTransport(o TransportOptions) (*Transport, error) {
	const options = "httplimit.TransportOptions"
	if o.Base != nil && invalid.Nil(o.Base) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			options+".Base is a nil %T; it must make requests, or be left out", o.Base)
	}
	if o.Key == nil {
		o.Key = byHost
	}
	if o.Base == nil {
		o.Base = http.DefaultTransport
	}
	if o.MaxRetryAfter == 0 {
		o.MaxRetryAfter = defaultMaxRetryAfter
	}
	t := &Transport{
		o: o,
		judge: middleware.Options[*http.Request]{
			Name: options, Context: (*http.Request).Context,
			Bound: o.Bound, Policies: o.Policies, PolicyOf: o.PolicyOf,
			Limiter: o.Limiter, Rate: o.Rate, RateOf: o.RateOf, Decide: o.Decide,
			Key: o.Key, Keyless: middleware.Keyless(o.Keyless), Cost: o.Cost, Skip: o.Skip,
			MaxWait: o.MaxWait, Shadow: o.Shadow, Seen: o.Seen,
		},
		failures: middleware.NewFailures(o.Logger, "httplimit: requests cannot be judged"),
	}
	if err := t.judge.Check(); err != nil {
		return nil, err
	}
	return t, nil
}

// DeniedError is a request that was not made, because its limit has no room for it in time.
type DeniedError struct {
	trypema.Decision
	// ByServer reports that the server has asked for no more requests until RetryAfter has passed. The
	// decision then has no other field.
	ByServer bool
}

func (e *DeniedError) Error() string {
	switch {
	case e.ByServer:
		return fmt.Sprintf("httplimit: the server has asked for no more requests for %v", e.RetryAfter)
	case e.RetryAfter == trypema.Never:
		return "httplimit: the request can never pass its limit"
	}
	return fmt.Sprintf("httplimit: the request was %v by its limit; it fits in %v", e.Outcome, e.RetryAfter)
}

// RoundTrip makes a request when the limit, and what the server has said before, have room for it. The
// context of the request that is made carries the decision: see trypema.FromContext.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	v, err := t.admit(r)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	if !v.Decided {
		return t.o.Base.RoundTrip(r)
	}
	response, err := t.o.Base.RoundTrip(r.WithContext(trypema.NewContext(r.Context(), v.Decision)))
	if err == nil && t.o.MaxRetryAfter > 0 {
		if d := pauseOf(response); d > 0 {
			t.servers.pause(v.Key, min(d, t.o.MaxRetryAfter))
		}
	}
	return response, err
}

// KeyOf returns the key by which a request is limited, as the limiter stores it, and whether it has one: for
// programs that ask for the usage of a host, or delete it.
func (t *Transport) KeyOf(r *http.Request) (key string, ok bool) { return t.judge.KeyOf(r) }

// CloseIdleConnections closes the connections of Base that are idle, if it can.
// http.Client.CloseIdleConnections calls it.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.o.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// admit returns when a request may be made.
func (t *Transport) admit(r *http.Request) (v middleware.Verdict, err error) {
	if t.o.Shadow {
		if broken := panicked(func() { v, err = t.judge.Judge(r) }); broken != nil {
			err = broken
		}
		v.Decided = v.Decided && err == nil
		t.log(r, err)
		return v, nil
	}
	end := time.Now().Add(t.o.MaxWait)
	v = t.judge.Identify(r)
	switch {
	case v.Keyless:
		return v, invalid.Errorf(trypema.ErrInvalidKey,
			"httplimit: TransportOptions.Key finds none for the request; it must have one")
	case !v.Decided:
		return v, nil
	}
	if err := t.obey(r, v.Key, end); err != nil {
		return v, err
	}
	if err := t.judge.DecideOn(r, &v, max(0, time.Until(end))); err != nil {
		return v, t.failed(r, err)
	}
	if !v.Allowed {
		return v, t.denied(r, &DeniedError{Decision: v.Decision})
	}
	return v, t.obey(r, v.Key, end) // what it has said meanwhile
}

// obey returns nil when a server wants requests of a key.
func (t *Transport) obey(r *http.Request, key string, end time.Time) error {
	d, err := t.servers.wait(r.Context(), key, end)
	switch {
	case err != nil:
		return err
	case d > 0:
		return t.denied(r, &DeniedError{trypema.Decision{RetryAfter: d}, true})
	}
	return nil
}

func (t *Transport) denied(r *http.Request, denial *DeniedError) error {
	if t.o.Denied != nil {
		if err := t.o.Denied(r, denial.Decision); err != nil {
			return err
		}
	}
	return denial
}

func (t *Transport) failed(r *http.Request, err error) error {
	if t.o.Failed == nil {
		t.log(r, err)
	} else if own := t.o.Failed(r, err); own != nil {
		return own
	}
	return err
}

// log logs that a request could not be judged, but not that its context has ended.
func (t *Transport) log(r *http.Request, err error) {
	if err != nil && !ended(r.Context(), err) {
		t.failures.Log(r.Context(), err, slog.String("host", r.URL.Host))
	}
}

// byHost is the host and port that a request goes to, in one spelling. The default port of the scheme is left
// out.
func byHost(r *http.Request) (string, bool) {
	host, port := asciiHost(strings.ToLower(r.URL.Hostname())), r.URL.Port()
	if n, err := strconv.Atoi(port); err == nil {
		port = strconv.Itoa(n) // without zeros before it
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	} else if name := strings.TrimSuffix(host, "."); name != "" {
		host = name
	}
	switch scheme := strings.ToLower(r.URL.Scheme); {
	case host == "":
		return r.URL.Host, r.URL.Host != ""
	case port == "", scheme == "http" && port == "80", scheme == "https" && port == "443":
		return host, true
	}
	return net.JoinHostPort(host, port), true
}

// dots are what separates the labels of a name, in other scripts.
var dots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

// asciiHost is a host as net/http sends it: a name that is not ASCII in punycode. Names that only Unicode
// normalization makes equal stay different, as the standard library does not export one.
func asciiHost(host string) string {
	if strings.IndexFunc(host, func(r rune) bool { return r > '~' }) < 0 {
		return host
	}
	var sent strings.Builder
	if (&http.Request{URL: &url.URL{Host: dots.Replace(host)}}).Write(&sent) != nil {
		return host
	}
	_, after, _ := strings.Cut(sent.String(), "\r\nHost: ")
	ascii, _, _ := strings.Cut(after, "\r\n")
	if ascii == "" {
		return host
	}
	return ascii
}
