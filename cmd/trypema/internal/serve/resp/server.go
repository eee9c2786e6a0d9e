// Package resp serves limits by the protocol of Redis, versions 2 and 3, so that any client of Redis can ask:
// CL.THROTTLE as the module redis-cell has it, and the commands that begin with TRYPEMA.
//
// The protocol is small and is read here, with a bound for everything that a client can send.
package resp

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/conns"
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
	tokens engine.Tokens

	conns   *conns.Set
	lastID  atomic.Int64
	started time.Time
}

// New returns a server without listeners.
func New(o Options) *Server {
	o.Patience, o.Logger = cmp.Or(o.Patience, 10*time.Second), cmp.Or(o.Logger, slog.Default())
	return &Server{
		Options: o, tokens: engine.HashTokens(o.Tokens), started: time.Now(),
		conns: conns.New("resp", "command", o.Logger),
	}
}

// Serve serves the connections of a listener until it fails, or Shutdown, after which it returns nil.
func (s *Server) Serve(l net.Listener) error {
	return s.conns.Serve(l, func(one net.Conn) (end func()) {
		c := &conn{
			Conn:   s.conns.Conn(one, s.Idle, s.Patience),
			server: s, id: s.lastID.Add(1), isAuthenticated: len(s.tokens) == 0,
		}
		c.in = bufio.NewReaderSize(c, bufferSize)
		s.serve(c)
		return func() { _ = one.Close() }
	})
}

func (s *Server) serve(c *conn) {
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
func (s *Server) Conns() int { return s.conns.Len() }

// Shutdown ends the listeners, lets commands that were read be answered, and ends the connections. With the
// end of ctx it ends them at once. It returns when nothing of the server runs.
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Shutdown(ctx) }
