package httplimit_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

// However the host of a request is spelled, it has one limit.
func TestSpellingsOfOneHost(t *testing.T) {
	var key string
	transport, err := httplimit.NewTransport(httplimit.TransportOptions{
		Limiter: spy{key: &key}, Rate: 1,
		Base: roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}),
	})
	must.OK(t, err)
	for want, urls := range map[string][]string{
		"example.com": {
			"http://example.com/", "http://EXAMPLE.com/", "http://example.com:80/", "http://example.com:080",
			"http://example.com:/", "http://example.com./", "http://Example.Com.:80/", "https://example.com/",
			"https://example.com:443/", "http://u:p@example.com/a?b",
		},
		"example.com:8080": {"http://example.com:8080/", "https://EXAMPLE.COM:8080", "http://example.com.:08080/"},
		"example.com:443":  {"http://example.com:443/"},
		"example.com:80":   {"https://example.com:80/"},
		"xn--bcher-kva.example": {
			"http://bücher.example/", "http://BÜCHER.example:80", "http://bücher.example.",
			"http://xn--bcher-kva.example", "https://XN--BCHER-KVA.example", "http://bücher\u3002example/",
			"http://b%C3%BCcher.example/",
		},
		"xn--bcher-kva.example:8080": {"http://bücher.example:8080/", "http://xn--bcher-kva.example.:8080/"},
		"192.0.2.7": {
			"http://192.0.2.7/", "http://192.0.2.7:80/", "https://192.0.2.7:443", "http://[::ffff:192.0.2.7]/",
		},
		"2001:db8::1": {
			"http://[2001:db8::1]/", "http://[2001:DB8:0:0::1]:80/", "https://[2001:db8::0001]:443",
		},
		"[2001:db8::1]:8080": {"http://[2001:db8::1]:8080/", "http://[2001:DB8:0::1]:8080"},
		"fe80::1%eth0":       {"http://[fe80::1%25eth0]/", "http://[FE80::1%25eth0]:80/"},
		"fe80::1%eth1":       {"http://[fe80::1%25eth1]/"},
		":8080":              {"http://:8080/"},
		"\x00keyless":        {"http:///path", "/path"},
	} {
		for _, u := range urls {
			parsed, err := url.Parse(u)
			must.OK(t, err)
			response, err := transport.RoundTrip(&http.Request{Method: http.MethodGet, URL: parsed})
			must.OK(t, err)
			_ = response.Body.Close()
			if key != want {
				t.Errorf("%s is %q, want %q", u, key, want)
			}
		}
	}
	// A name that cannot be sent is as it stands.
	odd := &url.URL{Scheme: "http", Host: "ü\x00" + strings.Repeat("ü", 3000)}
	if response, err := transport.RoundTrip(&http.Request{URL: odd}); err != nil || key == "" {
		t.Errorf("%q, %v", key, err)
	} else {
		_ = response.Body.Close()
	}
}

// spy is a limiter that notes the key and allows it.
type spy struct {
	trypema.Limiter
	key *string
}

func (s spy) AllowN(_ context.Context, key string, _ trypema.Rate, _ uint64) (trypema.Decision, error) {
	*s.key = key
	return allowed, nil
}

// http.Client.CloseIdleConnections closes those of the base, through any number of limits.
func TestCloseIdleConnections(t *testing.T) {
	limits := fixture.Local(t, trypema.Options{})
	closed := make(chan struct{}, 10)
	empty := func(http.ResponseWriter, *http.Request) {} // a connection is not reused before its answer was read
	s := httptest.NewUnstartedServer(http.HandlerFunc(empty))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	s.Start()
	defer s.Close()
	wrap := func(base http.RoundTripper) http.RoundTripper {
		o := httplimit.TransportOptions{Limiter: limits.Absolute(), Rate: 1000, Base: base}
		transport, err := httplimit.NewTransport(o)
		must.OK(t, err)
		return transport
	}
	for name, transport := range map[string]http.RoundTripper{
		"one": wrap(new(http.Transport)), "two": wrap(wrap(new(http.Transport))),
	} {
		c := &http.Client{Transport: transport}
		must.OK(t, ask(c, to(t.Context(), s.URL)))
		c.CloseIdleConnections()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			t.Fatalf("%s: the connection is open", name)
		}
	}
	without := roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("broken") })
	(&http.Client{Transport: wrap(without)}).CloseIdleConnections()
}
