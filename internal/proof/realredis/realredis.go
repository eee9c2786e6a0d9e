// Package realredis starts real Redis or Valkey servers, for tests and for benchmarks. Nothing is shared:
// every server has a port and a directory of its own.
package realredis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Patience is how long a server may take for anything that is asked of it, on a slow machine.
const Patience = 2 * time.Minute

// Ports of servers are from 10000 on, and those of their cluster buses, by the custom of Redis, from 20000
// on. No system gives these to the near end of a connection. So no connection can take the port of a server
// that is down, not even one that was meant for it and would then connect to itself.
const (
	firstPort = 10000
	ports     = 10000
)

// Server is one redis-server process at a time, on one port. It is not safe for concurrent use.
type Server struct {
	command []string
	dir     string
	port    int
	process *process // nil if there is none
}

// Start returns a server that answers, on a free port of 127.0.0.1. It keeps nothing on disk unless args,
// which are options as on the command line of redis-server, say so. The caller must Close it. On Linux it
// also ends when this process does, however that happens.
func Start(ctx context.Context, args ...string) (*Server, error) {
	return StartWith(ctx, func(port int, dir string) ([]string, error) {
		return append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save",
			"", "--appendonly", "no"}, args...), nil
	})
}

// StartWith is Start for a server whose whole command line depends on its port and its directory.
func StartWith(ctx context.Context, args func(port int, dir string) ([]string, error)) (*Server, error) {
	program, err := Find()
	if err != nil {
		return nil, err
	}
	for range 10 { // another may take the port between the look and the start
		var s *Server
		if s, err = start(ctx, program, args); err == nil || ctx.Err() != nil {
			return s, err
		}
	}
	return nil, err
}

func start(
	ctx context.Context, program string, args func(port int, dir string) ([]string, error),
) (*Server, error) {
	s := &Server{port: firstPort + rand.IntN(ports)}
	if err := free(s.port); err != nil {
		return nil, err
	}
	var err error
	if s.dir, err = os.MkdirTemp("", "trypema-redis-"); err != nil {
		return nil, err
	}
	more, err := args(s.port, s.dir)
	if err == nil {
		s.command = append([]string{program}, more...)
		err = s.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// MissingError says that there is no Redis server to start.
type MissingError struct{ programs []string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not on PATH; install it (apt-get install redis-server, "+
		"brew install redis) or name it (REDIS_SERVER=/path/to/redis-server)",
		strings.Join(e.programs, " or "))
}

// Find returns the path of the server: what $REDIS_SERVER names, or else redis-server or valkey-server of
// PATH. The error is a *MissingError.
func Find() (string, error) {
	programs := []string{"redis-server", "valkey-server"}
	if named := os.Getenv("REDIS_SERVER"); named != "" {
		programs = []string{named}
	}
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			return path, nil
		}
	}
	return "", &MissingError{programs}
}

// free reports why nothing can listen on the port, nor on that of its cluster bus.
func free(port int) error {
	for _, p := range []int{port, port + ports} {
		l, err := net.Listen("tcp", addr(p))
		if err != nil {
			return err
		}
		_ = l.Close()
	}
	return nil
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Addr returns where the server listens, as host:port. It stays the same for life.
func (s *Server) Addr() string { return addr(s.port) }

// Port returns the port of Addr.
func (s *Server) Port() int { return s.port }

// Kill ends the process by SIGKILL, and its children with it. It may already have ended.
func (s *Server) Kill() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.process.ended
	s.process = nil
	return nil
}

// Restart kills the process, if there is one, and starts another with the same port, directory and options.
// It knows only what the options have made its predecessor write down: by default, nothing.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	return s.start(ctx)
}

// Close kills the process and removes its directory.
func (s *Server) Close() error { return errors.Join(s.Kill(), os.RemoveAll(s.dir)) }

// Pause stops the process where it stands (SIGSTOP). Connections stay open, and new ones are taken, but get
// no answer.
func (s *Server) Pause() error { return s.signal(stop) }

// Resume lets a process that is paused go on.
func (s *Server) Resume() error { return s.signal(resume) }

func (s *Server) signal(sig os.Signal) error {
	if s.process == nil {
		return os.ErrProcessDone
	}
	return s.process.command.Process.Signal(sig)
}

func (s *Server) outputPath() string { return filepath.Join(s.dir, "output") }

// Output returns what the server has printed.
func (s *Server) Output() string {
	output, err := os.ReadFile(s.outputPath())
	if err != nil {
		return err.Error()
	}
	return string(output)
}

// start starts the process and waits until it answers. It reports why it does not, and ends it in that case.
func (s *Server) start(ctx context.Context) error {
	output, err := os.OpenFile(s.outputPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	command := exec.Command(s.command[0], s.command[1:]...)
	command.Stdout, command.Stderr = output, output
	if s.process, err = launch(command); err != nil {
		return err
	}
	if err := Eventually(ctx, s.answers); err != nil {
		return fmt.Errorf("%s: %w\n%s", s.Addr(), errors.Join(err, s.Kill()), s.Output())
	}
	return nil
}

// answers returns nil when this very process, and not another that has its port, answers, and has loaded its
// data.
func (s *Server) answers() error {
	select {
	case <-s.process.ended:
		return &final{errors.New("the server has ended")}
	default:
	}
	c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "INFO server\r\nPING\r\n"); err != nil {
		return err
	}
	lines, us := bufio.NewScanner(c), fmt.Sprint("process_id:", s.process.command.Process.Pid)
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "-"):
			return errors.New(line)
		case strings.HasPrefix(line, "process_id:") && line != us:
			return &final{errors.New("another server answers")}
		case line == "+PONG": // which a server that loads its data does not say
			return nil
		}
	}
	return errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}

// final is an error that does not go away.
type final struct{ error }

// Eventually tries until there is no error, ctx has ended, or for Patience. It returns the last error.
func Eventually(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for {
		err := try()
		var f *final
		if err == nil || errors.As(err, &f) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// process is a command that was started.
type process struct {
	command *exec.Cmd
	ended   chan struct{} // closed when it has, and has been waited for
}

// launch starts a command. On Linux it ends when this process does, however that happens.
func launch(command *exec.Cmd) (*process, error) {
	command.SysProcAttr = attributes()
	p := &process{command: command, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The thread that starts it is the one whose end is its end, so that thread has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait() // how it ended is of no interest
			close(p.ended)
		}
	}()
	return p, <-started
}
