package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/trypema/trypema"
)

// server is an HTTP server on a free port.
type server struct {
	http http.Server
	url  string
	done chan error
}

// serve listens on a free port and answers by the handler until the server is closed.
func (w web) serve(h http.Handler) (*server, error) {
	l, err := w.listen(freeAddr)
	if err != nil {
		return nil, err
	}
	s := &server{
		http: http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second},
		url:  "http://" + l.Addr().String(),
		done: make(chan error, 1),
	}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
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

// guard is a handler whose calls all share one key and one limit, and that keeps account of each decision.
func guard(l trypema.Limiter, rate trypema.Rate, m *meter) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if d, _, ok := m.ask(w, r, l, r.URL.Path, func() trypema.Rate { return rate }); ok {
			reply(w, d)
		}
	}
}

// ask has a limiter decide, which takes so long, and keeps account; or answers that it could not. The rate is
// read after the call has begun.
func (m *meter) ask(
	w http.ResponseWriter, r *http.Request, l trypema.Limiter, key string, rate func() trypema.Rate,
) (d trypema.Decision, took time.Duration, ok bool) {
	before := m.clock()
	d, err := l.Allow(r.Context(), key, rate())
	took = m.clock() - before
	if err != nil {
		m.errored(err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return d, took, false
	}
	m.decided(before, took, d.Allowed, d.Fallback)
	return d, took, true
}

// reply tells the client of a decision. One that has gone is no concern of the limiter.
func reply(w http.ResponseWriter, d trypema.Decision) {
	if d.Allowed {
		_, _ = io.WriteString(w, "ok\n")
		return
	}
	if d.RetryAfter != trypema.Never {
		w.Header().Set("Retry-After", strconv.FormatInt(retryAfterSeconds(d.RetryAfter), 10))
	}
	http.Error(w, d.Outcome.String(), http.StatusTooManyRequests)
}

// retryAfterSeconds rounds up: a client that waits whole seconds must not come too early.
func retryAfterSeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
