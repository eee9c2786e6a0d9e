// Package resp serves limits by the protocol of Redis, versions 2 and 3, so that any client of Redis can ask:
// CL.THROTTLE as the module redis-cell has it, and the commands that begin with TRYPEMA.
//
// The protocol is small and is read here, with a bound for everything that a client can send.
package resp

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
)

// Options configure a Server.
type Options struct {
	Engine *engine.Engine
	// Tokens are the passwords of which AUTH must give one. Without any, no one is needed.
	Tokens []string
	// Idle is how long a connection may send nothing, and up to a second more; 0 is no bound.
	Idle time.Duration
	// Patience is how long a client may take to send the rest of a command, or to read answers, and up to a
	// second more. Default 10s.
	Patience time.Duration
	// Logger is told of what is wrong with the server itself. Default slog.Default().
	Logger *slog.Logger
	// Served is told the name of each command, in lower case, and whether its answer was an error. Default
	// nil.
	Served func(command string, failed bool)
}

// Server serves the connections of its listeners.
type Server struct {
	Options
	tokens [][sha256.Size]byte

	closing atomic.Bool
	lastID  atomic.Int64
	started time.Time
	ctx     context.Context // ends with the patience of Shutdown
	cancel  context.CancelFunc

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	group     sync.WaitGroup
}

// New returns a server without listeners.
func New(o Options) *Server {
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Server{
		Options: o, started: time.Now(),
		listeners: make(map[net.Listener]struct{}), conns: make(map[*conn]struct{}),
	}
	for _, token := range o.Tokens {
		s.tokens = append(s.tokens, sha256.Sum256([]byte(token)))
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// knows reports whether a token is one of those wanted, in a time that does not depend on them.
func (s *Server) knows(token []byte) bool {
	sum, known := sha256.Sum256(token), 0
	for i := range s.tokens {
		known |= subtle.ConstantTimeCompare(sum[:], s.tokens[i][:])
	}
	return known == 1
}

// Serve serves the connections of a listener until it fails, or Shutdown, after which it returns nil.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return errors.Join(l.Close())
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	var pause time.Duration
	for {
		one, err := l.Accept()
		switch {
		case s.closing.Load():
			if err == nil {
				_ = one.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // too many open files, perhaps
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.Logger.Error("resp: a connection could not be accepted", "err", err)
			time.Sleep(pause)
			continue
		}
		pause = 0
		c := &conn{Conn: one, server: s, id: s.lastID.Add(1), isAuthenticated: len(s.tokens) == 0}
		c.in = bufio.NewReaderSize(c, bufferSize)
		s.mu.Lock()
		if s.closing.Load() { // and Shutdown does not know it
			s.mu.Unlock()
			return errors.Join(one.Close())
		}
		s.conns[c] = struct{}{}
		s.group.Add(1)
		s.mu.Unlock()
		go s.serve(c)
	}
}

func (s *Server) serve(c *conn) {
	defer s.group.Done()
	defer func() {
		if v := recover(); v != nil { // a fault of ours must not end the other connections
			s.Logger.Error("resp: a command caused a panic", "panic", v, "stack", string(debug.Stack()))
		}
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	for !c.isLast {
		err := c.readCommand()
		var wrong protocolError
		switch {
		case errors.As(err, &wrong):
			c.fail("ERR %s", wrong.Error())
			_ = c.flush() // it is the last word
			return
		case err != nil:
			_ = c.flush()
			return
		}
		if len(c.args) > 0 {
			c.serveCommand()
		}
		if c.in.Buffered() > 0 && len(c.out) < flushAt && !c.isLast {
			continue
		}
		if err := c.flush(); err != nil {
			return
		}
	}
}

// Conns returns the number of connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Shutdown ends the listeners, lets commands that were read be answered, and ends the connections. With the
// end of ctx it ends them at once. It returns when nothing of the server runs.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing.Store(true)
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		_ = c.SetReadDeadline(time.Now()) // one that waits for a command ends
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.group.Wait()
		close(done)
	}()
	var err error
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

var _ io.Reader = (*conn)(nil)
