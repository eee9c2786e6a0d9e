package httplimit

import (
	"fmt"
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

// TransportOptions say what a Transport limits. Limiter and Rate are required.
type TransportOptions struct {
	// Limiter decides when requests go out.
	Limiter trypema.Limiter

	// Rate is that of every request.
	Rate trypema.Rate

	// Key says which requests share a limit. Default those to one host and port, however it is spelled: in
	// upper case, with the default port, with a dot at its end, or in punycode.
	Key KeyFunc

	// MaxWait is how long a request may wait for its turn. A request that would have to wait longer, or
	// beyond the deadline of its context, fails at once with a *DeniedError. Default 0: none waits.
	MaxWait time.Duration

	// Base makes the requests. Default http.DefaultTransport.
	Base http.RoundTripper
}

// Transport is an http.RoundTripper that keeps a limit. It is made by NewTransport.
type Transport struct{ o TransportOptions }

// NewTransport returns a Transport, or an error that wraps trypema.ErrInvalidOptions and names the field.
func NewTransport(o TransportOptions) (*Transport, error) {
	bad := func(format string, args ...any) (*Transport, error) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "httplimit.TransportOptions."+format, args...)
	}
	switch {
	case invalid.Nil(o.Limiter):
		return bad("Limiter is nil; it must be the limiter that decides")
	case o.MaxWait < 0:
		return bad("MaxWait is %v; it must be at least 0", o.MaxWait)
	case o.Base != nil && invalid.Nil(o.Base):
		return bad("Base is a nil %T; it must make requests, or be left out", o.Base)
	}
	if err := middleware.CheckRate("httplimit.TransportOptions", o.Limiter, o.Rate); err != nil {
		return nil, err
	}
	if o.Key == nil {
		o.Key = byHost
	}
	if o.Base == nil {
		o.Base = http.DefaultTransport
	}
	return &Transport{o}, nil
}

// DeniedError is a request that was not made, because its limit has no room for it in time.
type DeniedError struct{ trypema.Decision }

func (e *DeniedError) Error() string {
	if e.RetryAfter == trypema.Never {
		return "httplimit: the request can never pass its limit"
	}
	return fmt.Sprintf("httplimit: the request was %v by its limit; it fits in %v", e.Outcome, e.RetryAfter)
}

// RoundTrip makes a request when the limit has room for it. While it waits it may be overtaken: what others
// ask for in the meantime counts, too, and it waits again, MaxWait in all.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.wait(r); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	return t.o.Base.RoundTrip(r)
}

// CloseIdleConnections closes the connections of Base that are idle, if it can.
// http.Client.CloseIdleConnections calls it.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.o.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// wait returns when the request may be made.
func (t *Transport) wait(r *http.Request) error {
	key, ok := t.o.Key(r)
	if !ok {
		key = middleware.Keyless
	}
	d, err := middleware.Allow(r.Context(), t.o.MaxWait, func() (trypema.Decision, error) {
		return t.o.Limiter.Allow(r.Context(), key, t.o.Rate)
	})
	if err == nil && !d.Allowed {
		err = &DeniedError{d}
	}
	return err
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
