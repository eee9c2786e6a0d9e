// Package redisserver gives tests real Redis servers, alone, as a Cluster or watched by Sentinels, with
// clients of them, and proxies that lose what passes through them. All of these end with their test. Package
// realredis starts the servers.
package redisserver

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/proof/realredis"
)

// patience is how long a server may take for anything that is asked of it, on a slow machine.
const patience = realredis.Patience

// Server is one redis-server process at a time, on one port. Its methods are for the goroutine of its test.
type Server struct {
	t      testing.TB
	server *realredis.Server
	client *redis.Client
}

// Start returns a server that answers, on a free port of 127.0.0.1. It keeps nothing on disk unless args,
// which are options as on the command line of redis-server, say so. It is killed when t ends, and what it has
// printed is shown if t has failed.
//
// The program is that of realredis.Find. Without one t fails; it is skipped if INSTALL=0 says that the
// program must not be installed.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	server, err := realredis.Start(context.Background(), args...)
	return newServer(t, server, err)
}

// newServer is for a server that was started, or was not because of err.
func newServer(t testing.TB, server *realredis.Server, err error) *Server {
	t.Helper()
	check(t, err)
	s := &Server{t: t, server: server, client: Client(server.Addr())}
	t.Cleanup(func() {
		_ = s.client.Close()
		if t.Failed() {
			t.Logf("output of %s:\n%s", s.Addr(), server.Output())
		}
		if err := server.Close(); err != nil {
			t.Error("redisserver:", err)
		}
	})
	return s
}

// check ends the test if there is an error.
func check(t testing.TB, err error) {
	t.Helper()
	var missing *realredis.MissingError
	if errors.As(err, &missing) && os.Getenv("REDIS_SERVER") == "" && os.Getenv("INSTALL") == "0" {
		t.Skip("redisserver:", err, "and INSTALL=0 forbids to install it")
	}
	if err != nil {
		t.Fatal("redisserver:", err)
	}
}

// WithDebug returns the options with which Start makes a server that takes the command DEBUG. Before 7.0 all
// did.
func WithDebug(t testing.TB) []string {
	t.Helper()
	program, err := realredis.Find()
	check(t, err)
	version, err := exec.Command(program, "--version").Output()
	check(t, err)
	if regexp.MustCompile(`\bv=[0-6]\.`).Match(version) {
		return nil
	}
	return []string{"--enable-debug-command", "yes"}
}

// Addr returns where the server listens, as host:port. It stays the same for life.
func (s *Server) Addr() string { return s.server.Addr() }

// Client returns a client of the server, for the test itself. It is closed when the test ends.
func (s *Server) Client() *redis.Client { return s.client }

// Client returns a client that waits for patience and tries nothing again.
func Client(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience,
	})
}

// Kill ends the process by SIGKILL, and its children with it. It may already have ended.
func (s *Server) Kill() {
	s.t.Helper()
	check(s.t, s.server.Kill())
}

// Restart kills the process, if there is one, and starts another with the same port, directory and options.
// It knows only what the options have made its predecessor write down: by default, nothing.
func (s *Server) Restart() {
	s.t.Helper()
	check(s.t, s.server.Restart(context.Background()))
}

// Pause stops the process where it stands (SIGSTOP). Connections stay open, and new ones are taken, but get
// no answer.
func (s *Server) Pause() {
	s.t.Helper()
	check(s.t, s.server.Pause())
}

// Resume lets a process that is paused go on.
func (s *Server) Resume() {
	s.t.Helper()
	check(s.t, s.server.Resume())
}
