// Command fetch gets URLs one after the other, and is polite: it never asks a host more often than it may.
//
//	go run ./examples/fetch https://example.com/ https://example.com/about
//	go run ./examples/fetch --calls 30 --per 1m $(cat urls.txt)
//
// It prints the status, the size and the time of each. A host that answers 429 or 503 with a Retry-After is
// asked again when that has passed, up to --tries times. Ctrl-C ends it. The exit status is 1 if a URL
// could not be fetched.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/program"
)

func main() { program.Main(run) }

// run is a program.Run.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := program.Flags("fetch", stderr)
	calls := flags.Int("calls", 2, "how many calls a host gets")
	per := flags.Duration("per", time.Second, "in what time")
	slack := flags.Duration("slack", 100*time.Millisecond,
		"by how much longer one call may travel than another")
	tries := flags.Int("tries", 3, "how often to ask for a URL whose host says that it is too busy")
	timeout := flags.Duration("timeout", 30*time.Second, "how long to wait until an answer begins")
	if status, ok := program.Parse(flags, args); !ok {
		return status
	}
	err := cmp.Or(
		program.Check(*calls >= 1, "--calls is %d; it must be at least 1", *calls),
		program.Check(*per >= time.Millisecond, "--per is %v; it must be at least 1ms", *per),
		program.Check(*slack >= 0, "--slack is %v; it must be at least 0s", *slack),
		program.Check(*tries >= 1, "--tries is %d; it must be at least 1", *tries),
		program.Check(*timeout > 0, "--timeout is %v; it must be above 0s", *timeout),
		program.Check(flags.NArg() > 0, "no URL to fetch"),
	)
	if err != nil {
		return program.Fail(flags, 2, err)
	}

	// A host counts calls when they arrive. One that travels longer than those after it comes closer to them,
	// so the window is a little longer than what was asked for.
	window := *per + *slack
	limits, err := trypema.NewLocal(trypema.Options{Window: window})
	if err != nil {
		return program.Fail(flags, 2, err)
	}
	defer limits.Close()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = *timeout
	defer transport.CloseIdleConnections()
	f := fetcher{
		client: &http.Client{Transport: &polite{transport, limits.Absolute(), trypema.Per(float64(*calls), window)}},
		tries:  *tries,
	}

	status := 0
	for _, url := range flags.Args() {
		began := time.Now()
		a, err := f.fetch(ctx, url)
		if ctx.Err() != nil {
			return 1
		}
		if err != nil {
			status = program.Fail(flags, 1, err)
			continue
		}
		fmt.Fprintf(stdout, "%d %8d bytes %8v  %s\n", a.status, a.size,
			time.Since(began).Round(time.Millisecond), url)
		if a.status >= http.StatusBadRequest {
			status = 1
		}
	}
	return status
}

// polite is a transport that waits until the host of a request may be asked again. A client sends all that it
// sends through its transport, also where it follows a redirect.
type polite struct {
	next    http.RoundTripper
	limiter trypema.Limiter
	rate    trypema.Rate
}

func (p *polite) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		d, err := p.limiter.Allow(r.Context(), hostOf(r.URL), p.rate)
		if err != nil {
			return nil, err
		}
		if d.Allowed {
			return p.next.RoundTrip(r)
		}
		if err := program.Sleep(r.Context(), d.RetryAfter); err != nil {
			return nil, err
		}
	}
}

// hostOf is a host and its port, however the URL spells them.
func hostOf(u *url.URL) string {
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return net.JoinHostPort(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), port)
}

type fetcher struct {
	client *http.Client
	tries  int
}

// answer is what a host said.
type answer struct {
	status int
	size   int64
	retry  time.Duration // what Retry-After says; 0 if there is none
}

// fetch gets a URL, again if the host says so.
func (f *fetcher) fetch(ctx context.Context, url string) (answer, error) {
	for try := 1; ; try++ {
		a, err := f.once(ctx, url)
		busy := a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
		if err != nil || !busy || a.retry == 0 || try == f.tries {
			return a, err
		}
		if err := program.Sleep(ctx, a.retry); err != nil {
			return a, err
		}
	}
}

func (f *fetcher) once(ctx context.Context, url string) (a answer, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return a, err
	}
	response, err := f.client.Do(r)
	if err != nil {
		return a, err
	}
	defer func() { err = cmp.Or(err, response.Body.Close()) }()
	a.status, a.retry = response.StatusCode, retryAfter(response.Header.Get("Retry-After"))
	a.size, err = io.Copy(io.Discard, response.Body)
	return a, err
}

// retryAfter reads a Retry-After: seconds, or a date.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(date))
	}
	return 0
}
