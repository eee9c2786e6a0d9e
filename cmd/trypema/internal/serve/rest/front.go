package rest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/conns"
)

// Front is a listener for a http.Server, which answers POST /v1/allow by itself in a third of the time that
// net/http takes. It answers a request only if that has the form that nearly all have: HTTP/1.1, a few
// kilobytes, a Content-Length, no header that asks for something, and a right body. With any other request
// the connection goes to the http.Server for good, with all that was read of the request. So what is wrong or
// rare is judged by net/http alone.
type Front struct {
	o      FrontOptions
	api    *API
	conns  *conns.Set
	passed chan net.Conn

	once    sync.Once
	failure error // why the listener has ended, once conns are closed
}

// FrontOptions configure a Front.
type FrontOptions struct {
	Listener net.Listener
	// Idle is how long a connection may be without a request, and Patience how long the rest of a request,
	// or reading an answer, may take. Both can take a second more.
	Idle, Patience time.Duration
	// IsDraining reports that connections should end with the next answer. Default never.
	IsDraining func() bool
	// Served is told the status of each answer. Default nil.
	Served func(status int)
}

// Front returns a listener in front of the API. Shutdown ends it.
func (h *API) Front(o FrontOptions) *Front {
	f := &Front{o: o, api: h, passed: make(chan net.Conn), conns: conns.New("http", "request", h.Logger)}
	f.conns.Go(func() { _ = f.end(f.conns.Serve(o.Listener, f.serve)) })
	return f
}

var _ net.Listener = (*Front)(nil)

// Accept returns the next connection that is for the http.Server.
func (f *Front) Accept() (net.Conn, error) {
	select {
	case c := <-f.passed:
		return c, nil
	case <-f.conns.Closed:
		return nil, f.failure
	}
}

// Addr implements net.Listener.
func (f *Front) Addr() net.Addr { return f.o.Listener.Addr() }

// Close ends the listener and the connections that wait for a request. It does not wait for the others.
func (f *Front) Close() error { return f.end(net.ErrClosed) }

func (f *Front) end(why error) (err error) {
	f.once.Do(func() {
		f.failure = why
		err = f.conns.Close()
	})
	return err
}

// Shutdown is Close, and waits for the requests that are being answered. With the end of ctx it ends them.
func (f *Front) Shutdown(ctx context.Context) error {
	return errors.Join(f.Close(), f.conns.Shutdown(ctx))
}

func (f *Front) serve(one net.Conn) (end func()) {
	bounded := f.conns.Conn(one, f.o.Idle, f.o.Patience)
	c := &frontConn{Conn: bounded, front: f, buffer: make([]byte, 0, frontBuffer)}
	c.Begin(true) // a client that connects has a request
	for {
		switch next, err := c.answerNext(); {
		case err != nil, next == ends:
			return func() { _ = c.Close() }
		case next == passes:
			return func() { _ = f.pass(c) }
		}
	}
}

// pass gives a connection to the http.Server, with what was read of its request.
func (f *Front) pass(c *frontConn) error {
	if err := c.SetDeadline(time.Time{}); err != nil {
		return errors.Join(err, c.Close())
	}
	select {
	case f.passed <- &begun{Conn: c.Conn.Conn, rest: c.buffer}:
		return nil
	case <-f.conns.Closed:
		return c.Close()
	}
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	rest []byte
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		b.rest = nil
	}
	return n, nil
}

// frontBuffer bounds a request that the Front answers.
const frontBuffer = 4 << 10

// frontConn is a connection whose requests the Front answers.
type frontConn struct {
	*conns.Conn
	front  *Front
	buffer []byte // what was read, from the beginning of a request
	out    []byte
	body   []byte
	ask    question
}

// next is what becomes of a connection.
type next int

const (
	goesOn next = iota
	passes      // to the http.Server
	ends
)

// answerNext answers the next request, or leaves all of it in the buffer if it is for the http.Server.
func (c *frontConn) answerNext() (next, error) {
	var r frontRequest
	for {
		switch is := r.read(c.buffer); {
		case is == other:
			return passes, nil
		case is == whole:
			return c.answer(&r)
		case len(c.buffer) == cap(c.buffer):
			return passes, nil
		}
		if err := c.fill(); err != nil {
			return ends, err
		}
	}
}

// fill reads more of a request.
func (c *frontConn) fill() error {
	n, err := c.Read(c.buffer[len(c.buffer):cap(c.buffer)])
	c.buffer = c.buffer[:len(c.buffer)+n]
	if n > 0 {
		return nil
	}
	return err
}

// answer answers a request that is at the beginning of the buffer.
func (c *frontConn) answer(r *frontRequest) (next, error) {
	h := c.front.api
	if !h.admits(string(r.authorization)) {
		return passes, nil
	}
	c.ask = question{}
	if !c.ask.scan(c.buffer[r.head:r.size], ofAllow) {
		return passes, nil
	}
	t, cost, err := c.ask.call()
	if err != nil {
		return passes, nil //nolint:nilerr // the http.Server tells what is wrong
	}
	isLast := c.front.o.IsDraining != nil && c.front.o.IsDraining()
	status := http.StatusOK
	d, err := h.decide(c.front.conns.Context, &c.ask, &t, cost)
	if err != nil {
		status = c.refuse(err, isLast)
	} else {
		c.body = answer(&d).append(c.body[:0])
		c.out = append(c.out, "HTTP/1.1 200 OK\r\n"+
			"Cache-Control: no-store\r\nContent-Type: application/json\r\n"...)
		c.finish(c.body, isLast)
	}
	if c.front.o.Served != nil {
		c.front.o.Served(status)
	}
	c.buffer = c.buffer[:copy(c.buffer, c.buffer[r.size:])]
	c.Begin(len(c.buffer) > 0)
	_, err = c.Write(c.out)
	c.out = c.out[:0]
	if err != nil || isLast {
		return ends, err
	}
	return goesOn, nil
}

// refuse writes the answer to a request that could not be decided.
func (c *frontConn) refuse(err error, isLast bool) (status int) {
	w := &answering{header: make(http.Header), status: http.StatusOK}
	c.front.api.fail(c.front.conns.Context, w, "/v1/allow", err)
	c.out = append(c.out, "HTTP/1.1 "...)
	c.out = strconv.AppendInt(c.out, int64(w.status), 10)
	c.out = append(append(append(c.out, ' '), http.StatusText(w.status)...), "\r\n"...)
	var head bytes.Buffer
	_ = w.header.Write(&head) // to memory
	c.out = append(c.out, head.Bytes()...)
	c.finish(w.body.Bytes(), isLast)
	return w.status
}

// answering takes an answer that is written for net/http.
type answering struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answering) Header() http.Header         { return w.header }
func (w *answering) WriteHeader(status int)      { w.status = status }
func (w *answering) Write(p []byte) (int, error) { return w.body.Write(p) }

// finish writes the headers that every answer has, and its body.
func (c *frontConn) finish(body []byte, isLast bool) {
	if isLast {
		c.out = append(c.out, "Connection: close\r\n"...)
	}
	c.out = append(append(c.out, "Date: "...), date()...)
	c.out = append(c.out, "\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(append(c.out, "\r\n\r\n"...), body...)
}

// dated is the text of a second.
type dated struct {
	second int64
	text   []byte
}

var lastDate atomic.Pointer[dated]

// date returns the date as a header has it.
func date() []byte {
	now := time.Now()
	if d := lastDate.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dated{now.Unix(), now.UTC().AppendFormat(nil, http.TimeFormat)}
	lastDate.Store(d)
	return d.text
}

// frontRequest is a request as far as it was read.
type frontRequest struct {
	head, size    int // in bytes: where the body begins and ends
	authorization []byte
}

// form is what is known of the form of a request.
type form int

const (
	part  form = iota // more is needed to know
	whole             // it is for the Front, and all there
	other             // it is for the http.Server
)

const requestLine = "POST /v1/allow HTTP/1.1\r\n"

// read reads the head of a request. Its answer is whole only if net/http takes the same bytes for the same
// request.
func (r *frontRequest) read(b []byte) form {
	if n := min(len(b), len(requestLine)); string(b[:n]) != requestLine[:n] {
		return other
	}
	if r.head == 0 {
		end := bytes.Index(b, []byte("\r\n\r\n"))
		switch {
		case end < 0 && hasBareLF(b):
			return other // to net/http this, too, is the end of a line
		case end < 0:
			return part
		}
		length, ok := r.readHeaders(b[len(requestLine) : end+2])
		if !ok {
			return other
		}
		r.head = end + 4
		r.size = r.head + length
	}
	switch {
	case r.size > frontBuffer:
		return other
	case len(b) < r.size:
		return part
	}
	return whole
}

// readHeaders reads headers, and returns the length of the body. It reports false if a header has a meaning
// that is not known here, or may be wrong.
func (r *frontRequest) readHeaders(b []byte) (length int, ok bool) {
	var hasHost, hasLength, hasType, hasAuthorization bool
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\r\n"))
		b = rest
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 {
			return 0, false
		}
		value = bytes.Trim(value, " \t")
		var lower [32]byte
		for i, c := range name {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			if !isNameByte[c] {
				return 0, false
			}
			if i < len(lower) {
				lower[i] = c
			}
		}
		for _, c := range value {
			if c < ' ' && c != '\t' || c >= 0x7f {
				return 0, false
			}
		}
		switch string(lower[:min(len(name), len(lower))]) {
		case "host":
			if hasHost || !isHost(value) {
				return 0, false
			}
			hasHost = true
		case "content-length":
			if length, ok = wholeNumber(value); !ok || hasLength {
				return 0, false
			}
			hasLength = true
		case "content-type":
			if hasType || string(value) != "application/json" {
				return 0, false
			}
			hasType = true
		case "authorization":
			if hasAuthorization {
				return 0, false
			}
			r.authorization, hasAuthorization = value, true
		case "connection":
			if !bytes.EqualFold(value, []byte("keep-alive")) {
				return 0, false
			}
		case "transfer-encoding", "expect", "upgrade", "trailer", "te", "http2-settings", "content-encoding":
			return 0, false
		}
	}
	return length, hasHost && hasLength
}

// hasBareLF reports whether a line feed has no carriage return before it.
func hasBareLF(b []byte) bool {
	return bytes.Count(b, []byte("\n")) > bytes.Count(b, []byte("\r\n"))
}

// isNameByte has the bytes that names of headers have, in lower case.
var isNameByte = func() (is [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~" {
		is[c] = true
	}
	return is
}()

// isHost reports whether a Host is plainly a name or an address, perhaps with a port.
func isHost(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return len(b) > 0
}

// wholeNumber parses a number of one to four digits.
func wholeNumber(b []byte) (n int, ok bool) {
	whole, err := strconv.ParseUint(string(b), 10, 16)
	return int(whole), err == nil && len(b) <= 4
}
