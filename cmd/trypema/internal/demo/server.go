package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
)

// server is an HTTP server.
type server struct {
	http http.Server
	url  string
	done chan error
}

// serve is serveOn a free port.
func (w web) serve(h http.Handler) (*server, error) {
	l, err := w.listen(freeAddr)
	if err != nil {
		return nil, err
	}
	return serveOn(l, h, func() {}), nil
}

// serveOn answers by the handler until the server is closed, and calls ended then, or when it has failed.
func serveOn(l net.Listener, h http.Handler, ended func()) *server {
	s := &server{
		http: http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second},
		url:  "http://" + l.Addr().String(),
		done: make(chan error, 1),
	}
	go func() {
		err := s.http.Serve(l)
		ended()
		s.done <- err
	}()
	return s
}

// close ends the server, after the requests in flight, and returns what ended it before its time, if anything
// did.
func (s *server) close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

const freeAddr = "127.0.0.1:0"

// servers are alike, each with an instance of the limits.
type servers []*server

// urls are those of a path.
func (all servers) urls(path string) (urls []string) {
	for _, s := range all {
		urls = append(urls, s.url+path)
	}
	return urls
}

// String is the address of the first, and how many more there are.
func (all servers) String() string {
	if len(all) > 1 {
		return fmt.Sprintf("%s and %d more", all[0].url, len(all)-1)
	}
	return all[0].url
}

// close ends all of them, after the requests in flight, within the time that a request may take.
func (all servers) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.close(ctx))
	}
	return errors.Join(errs...)
}

// limited is a handler behind the middleware of the library, with its default headers.
func limited(
	window time.Duration, decide func(*http.Request) (trypema.Decision, error),
) (http.Handler, error) {
	wrap, err := httplimit.New(httplimit.Options{
		Window: window,
		Decide: func(r *http.Request, _ string, _ uint64) (trypema.Decision, error) { return decide(r) },
		Failed: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		},
	})
	if err != nil {
		return nil, err
	}
	return wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // to a client that has gone, perhaps
	})), nil
}

// guard is a handler whose calls all share one key and one limit, and that keeps account of each decision.
func guard(l decider, rate trypema.Rate, window time.Duration, m *meter) (http.Handler, error) {
	return limited(window, func(r *http.Request) (trypema.Decision, error) {
		d, _, err := m.ask(r.Context(), l, r.URL.Path, func() trypema.Rate { return rate })
		return d, err
	})
}

// ask has a limiter decide, which takes so long, and keeps account. The rate is read after the call has
// begun.
func (m *meter) ask(
	ctx context.Context, l decider, key string, rate func() trypema.Rate,
) (d trypema.Decision, took time.Duration, err error) {
	before := m.clock()
	d, err = l.Allow(ctx, key, rate())
	took = m.clock() - before
	if err != nil {
		m.errored(err)
		return d, took, err
	}
	m.decided(before, took, d.Allowed, d.Fallback)
	return d, took, nil
}
