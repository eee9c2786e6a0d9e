package httplimit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
)

// answering calls f. If f panics, answering sends the status before it panics again: net/http then closes the
// connection, and drops a status that was not sent. http.ErrAbortHandler leaves the request without a status,
// as it is meant to.
func answering(w http.ResponseWriter, status int, answered *bool, f func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v != http.ErrAbortHandler && !*answered { //nolint:errorlint // net/http compares in this way, too
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(status)
			_ = http.NewResponseController(w).Flush()
		}
		panic(v)
	}()
	f()
}

// answers has a function of the options answer a request, and reports whether it did. The status is sent
// where the function writes a body without one, which net/http would take for 200, or panics.
func answers(w http.ResponseWriter, status int, answer func(http.ResponseWriter)) bool {
	watched := &watchedWriter{ResponseWriter: w, status: status}
	answering(w, status, &watched.answered, func() { answer(watched) })
	return watched.answered
}

// watchedWriter notes whether a request was answered, and has a status for those who give none.
type watchedWriter struct {
	http.ResponseWriter
	status   int
	answered bool
}

// Unwrap is for http.ResponseController.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *watchedWriter) WriteHeader(status int) {
	w.answered = w.answered || status >= 200 || status == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

func (w *watchedWriter) begin() {
	if !w.answered {
		w.WriteHeader(w.status)
	}
}

func (w *watchedWriter) Flush() { _ = w.FlushError() }

func (w *watchedWriter) FlushError() error {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *watchedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.answered = w.answered || err == nil
	return conn, buffer, err
}

// panicked calls f, and returns its panic as an error.
func panicked(f func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("httplimit: panic: %v\n\n%s", v, debug.Stack())
		}
	}()
	f()
	return nil
}

// ended reports whether an error says that a context has ended.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}
