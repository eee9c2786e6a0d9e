package httplimit

import (
	"fmt"
	"net/http"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/front"
	"github.com/trypema/trypema/internal/invalid"
)

// TransportOptions say what a Transport limits. Limiter and Rate are required.
type TransportOptions struct {
	// Limiter decides when requests go out.
	Limiter trypema.Limiter

	// Rate is that of every request.
	Rate trypema.Rate

	// Key says which requests share a limit. Default those to one host.
	Key KeyFunc

	// MaxWait is how long a request may wait for its turn. A request that would have to wait longer, or beyond the deadline of its
	// context, fails at once with a *DeniedError. Default 0: none waits.
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
	case o.Limiter == nil:
		return bad("Limiter is nil; it must be the limiter that decides")
	case !(o.Rate > 0):
		return bad("Rate is %v; it must be above 0", float64(o.Rate))
	case o.MaxWait < 0:
		return bad("MaxWait is %v; it must be at least 0", o.MaxWait)
	}
	if o.Key == nil {
		o.Key = func(r *http.Request) (string, bool) { return r.URL.Host, r.URL.Host != "" }
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

// RoundTrip makes a request when the limit has room for it. While it waits it may be overtaken: what others ask for in the meantime
// counts, too, and it waits again, MaxWait in all.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.wait(r); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	return t.o.Base.RoundTrip(r)
}

// wait returns when the request may be made.
func (t *Transport) wait(r *http.Request) error {
	key, ok := t.o.Key(r)
	if !ok {
		key = front.Keyless
	}
	d, err := front.Allow(r.Context(), t.o.MaxWait, func() (trypema.Decision, error) {
		return t.o.Limiter.Allow(r.Context(), key, t.o.Rate)
	})
	if err == nil && !d.Allowed {
		err = &DeniedError{d}
	}
	return err
}
