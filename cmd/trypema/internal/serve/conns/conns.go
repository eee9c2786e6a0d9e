// Package conns accepts and ends the connections of the servers that read their protocol by themselves.
package conns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// Set is the connections that are being served.
type Set struct {
	Context context.Context // ends with the patience of Shutdown
	Closed  chan struct{}   // is closed by Close

	protocol, unit string // for the log: what a panic is caused by
	logger         *slog.Logger
	cancel         context.CancelFunc

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{}
	group     sync.WaitGroup
}

// New returns an empty Set. Its log speaks of the protocol, and of the unit in which it is served: a request,
// say.
func New(protocol, unit string, logger *slog.Logger) *Set {
	s := &Set{
		Closed: make(chan struct{}), protocol: protocol, unit: unit, logger: logger,
		listeners: make(map[net.Listener]struct{}), conns: make(map[net.Conn]struct{}),
	}
	s.Context, s.cancel = context.WithCancel(context.Background())
	return s
}

// IsClosed reports whether the Set is closed. Then a read must not begin: Close has set a deadline, which the
// reader may have replaced.
func (s *Set) IsClosed() bool {
	select {
	case <-s.Closed:
		return true
	default:
		return false
	}
}

// Len returns the number of connections.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Go calls f on a goroutine that Shutdown waits for.
func (s *Set) Go(f func()) { s.group.Go(f) }

// Serve serves each connection of a listener on a goroutine of its own, until the listener is closed, whose
// error it returns, or the Set is, after which it returns nil. When serve has returned, the connection is not
// in the Set any more, and end is called; if serve panics, the connection is closed.
func (s *Set) Serve(l net.Listener, serve func(net.Conn) (end func())) error {
	s.mu.Lock()
	if s.IsClosed() {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	var pause time.Duration
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.start(c, serve)
		case s.IsClosed():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // too many open files, perhaps
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.logger.Error(s.protocol+": a connection could not be accepted", "err", err)
			select {
			case <-s.Closed:
			case <-time.After(pause):
			}
		}
	}
}

func (s *Set) start(c net.Conn, serve func(net.Conn) (end func())) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.IsClosed() { // and does not know it
		_ = c.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.group.Go(func() {
		end := func() { _ = c.Close() }
		defer func() {
			if v := recover(); v != nil { // a fault of ours must not end the other connections
				s.logger.Error(s.protocol+": a "+s.unit+" caused a panic", "panic", v, "stack", string(debug.Stack()))
			}
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			end()
		}()
		end = serve(c)
	})
}

// Conn is a connection whose client has some time for each request: idle to begin it, patience to send the
// rest of it, and patience to read the answer. Each can take up to slack more; an idle of 0 is no bound.
type Conn struct {
	net.Conn
	set             *Set
	idle, patience  time.Duration
	readBy, writeBy time.Time // the deadlines that are set; zero is none
	isReading       bool      // a part of a request has come
	isHurried       bool      // the rest of it has a deadline
}

// Conn returns a connection of the Set with bounds for its client.
func (s *Set) Conn(c net.Conn, idle, patience time.Duration) *Conn {
	return &Conn{Conn: c, set: s, idle: idle, patience: patience}
}

// Begin says that what is read next belongs to another request, of which a part may have come.
func (c *Conn) Begin(hasPart bool) { c.isReading, c.isHurried = hasPart, false }

// Read implements net.Conn. A request has one deadline, however many reads it takes.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.isHurried {
		after := c.idle
		if c.isReading {
			after = c.patience
		}
		if err := move(&c.readBy, after, c.SetReadDeadline); err != nil {
			return 0, err
		}
		c.isHurried = c.isReading
	}
	if c.set.IsClosed() { // which sets a deadline that this one may have replaced
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	c.isReading = c.isReading || n > 0
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if err := move(&c.writeBy, c.patience, c.SetWriteDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// slack is how much later than asked for a deadline may be. A busy connection sets one once in that time: to
// set one for each request costs about a twentieth of a small request.
const slack = time.Second

// move sets a deadline that is at least so far away, or none for 0, unless by, the one that is set, will do.
func move(by *time.Time, after time.Duration, set func(time.Time) error) error {
	var first, last time.Time
	if after > 0 {
		first = time.Now().Add(after)
		last = first.Add(slack)
	}
	if by.Before(first) || by.After(last) {
		*by = last
		return set(last)
	}
	return nil
}

// Close closes the listeners, and ends the connections that wait for a client. It does not wait for the
// others.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.IsClosed() {
		return nil
	}
	close(s.Closed)
	var errs []error
	for l := range s.listeners {
		errs = append(errs, l.Close())
	}
	for c := range s.conns {
		_ = c.SetReadDeadline(time.Now())
	}
	return errors.Join(errs...)
}

// Shutdown is Close, and waits for what is being answered. With the end of ctx it ends that. It returns when
// nothing of the Set runs.
func (s *Set) Shutdown(ctx context.Context) (err error) {
	_ = s.Close()
	done := make(chan struct{})
	go func() {
		s.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.cancel()
		s.mu.Lock()
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		<-done
	}
	s.cancel()
	return err
}
