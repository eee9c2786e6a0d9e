// Package redisserver starts real Redis servers for tests, alone, as a Cluster or watched by Sentinels, and proxies
// that lose what passes through them. Nothing is shared: every server has a port and a directory of its own, and ends with its test.
package redisserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is how long a server may take for anything that is asked of it, on a slow machine.
const patience = 2 * time.Minute

// Ports of servers are from 10000 on, and those of their cluster buses, by the custom of Redis, from 20000 on. No system
// gives these to the near end of a connection. So no connection can take the port of a server that is down, not even one
// that was meant for it and, finding nobody, would have met itself.
const (
	firstPort = 10000
	ports     = 10000
)

// T is what a server wants of its test, a testing.TB; or of a program that stands in for one.
type T interface {
	Helper()
	TempDir() string
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Error(args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// Server is one redis-server process at a time, on one port. Its methods are for the goroutine of its test.
type Server struct {
	t       T
	command []string
	dir     string
	port    int

	client  *redis.Client
	process *process
}

// Start returns a server that answers, on a free port of 127.0.0.1. It keeps nothing on disk unless args, which are
// options as on the command line of redis-server, say so. It is killed when t ends, and what it has printed is shown if
// t has failed.
//
// The program is what $REDIS_SERVER names, or else redis-server or valkey-server of PATH. Without one t fails; it is skipped if
// INSTALL=0 says that the program must not be installed.
func Start(t T, args ...string) *Server {
	t.Helper()
	return launchOn(t, func(port int, dir string) []string {
		return append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no"}, args...)
	})
}

// launchOn starts a server on a free port with a directory of its own, and with the arguments for these.
func launchOn(t T, args func(port int, dir string) []string) *Server {
	t.Helper()
	program := find(t)
	var err error
	for range 10 {
		port := firstPort + rand.IntN(ports)
		if err = free(port); err != nil {
			continue
		}
		dir := t.TempDir()
		s := &Server{t: t, dir: dir, port: port, client: client(port)}
		s.command = append([]string{program}, args(port, dir)...)
		if err = s.start(); err != nil { // another may have taken the port meanwhile
			_ = s.client.Close()
			continue
		}
		t.Cleanup(func() {
			_ = s.client.Close()
			s.Kill()
			if t.Failed() {
				t.Logf("output of %s:\n%s", s.Addr(), s.output())
			}
		})
		return s
	}
	t.Fatal("redisserver:", err)
	return nil
}

// WithDebug returns the options with which Start makes a server that takes the command DEBUG. Before 7.0 all did.
func WithDebug(t T) []string {
	t.Helper()
	version, err := exec.Command(find(t), "--version").Output()
	if err != nil {
		t.Fatal("redisserver:", err)
	}
	if regexp.MustCompile(`\bv=[0-6]\.`).Match(version) {
		return nil
	}
	return []string{"--enable-debug-command", "yes"}
}

func find(t T) string {
	t.Helper()
	programs, named := []string{"redis-server", "valkey-server"}, os.Getenv("REDIS_SERVER")
	if named != "" {
		programs = []string{named}
	}
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			return path
		}
	}
	if named == "" && os.Getenv("INSTALL") == "0" {
		t.Skip("redisserver: neither redis-server nor valkey-server is in PATH, REDIS_SERVER names no other, and INSTALL=0 forbids to install one")
		return ""
	}
	t.Fatalf("redisserver: this test needs a Redis server, but %s is not to be found. "+
		"Install it (apt-get install redis-server, brew install redis) or name it (REDIS_SERVER=/path/to/redis-server).",
		strings.Join(programs, " or "))
	return ""
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

// Client returns a client of the server, for the test itself. It is closed when the test ends.
func (s *Server) Client() *redis.Client { return s.client }

func client(port int) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr(port), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience,
	})
}

// Kill ends the process by SIGKILL, and its children with it. It may already have ended.
func (s *Server) Kill() {
	s.t.Helper()
	if s.process == nil {
		return
	}
	if err := s.process.kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error("redisserver:", err)
		return
	}
	<-s.process.ended
	s.process = nil
}

// Restart kills the process, if there is one, and starts another with the same port, directory and options. It knows
// only what the options have made its predecessor write down: by default, nothing.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatal("redisserver:", err)
	}
}

// Pause stops the process where it stands (SIGSTOP). Connections stay open, and new ones are taken, but get no answer.
func (s *Server) Pause() { s.signal(stop) }

// Resume lets a process that is paused go on.
func (s *Server) Resume() { s.signal(resume) }

func (s *Server) signal(sig os.Signal) {
	s.t.Helper()
	if s.process == nil {
		s.t.Fatal("redisserver: there is no process to signal")
	}
	if err := s.process.command.Process.Signal(sig); err != nil {
		s.t.Fatal("redisserver:", err)
	}
}

func (s *Server) outputPath() string { return filepath.Join(s.dir, "output") }

func (s *Server) output() string {
	output, err := os.ReadFile(s.outputPath())
	if err != nil {
		return err.Error()
	}
	return string(output)
}

// start starts the process and waits until it answers. It reports why it does not, and ends it in that case.
func (s *Server) start() error {
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
	if err := s.answers(); err != nil {
		s.Kill()
		return fmt.Errorf("%s: %w\n%s", s.Addr(), err, s.output())
	}
	return nil
}

// answers returns when this very process, and not another that has its port, answers.
func (s *Server) answers() error {
	us := fmt.Sprintf("process_id:%d\r\n", s.process.command.Process.Pid)
	return eventually(func() error {
		select {
		case <-s.process.ended:
			return &final{errors.New("the server has ended")}
		default:
		}
		dialed, err := net.DialTimeout("tcp", s.Addr(), time.Second) // go-redis logs what it can not dial
		if err != nil {
			return err
		}
		_ = dialed.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.client.Ping(ctx).Err(); err != nil {
			return err
		}
		info, err := s.client.Info(ctx, "server").Result()
		if err == nil && !strings.Contains(info, us) {
			err = &final{errors.New("another server answers")}
		}
		return err
	})
}

// final is an error that waiting does not help against.
type final struct{ error }

// eventually tries until there is no error, a final one, or no more patience.
func eventually(try func() error) error {
	give := time.Now().Add(patience)
	for {
		err := try()
		var f *final
		if err == nil || errors.As(err, &f) || time.Now().After(give) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
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
	var started sync.WaitGroup
	var err error
	started.Add(1)
	go func() {
		// The thread that starts it is the one whose end is its end, so that thread has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err = command.Start()
		started.Done()
		if err == nil {
			_ = command.Wait() // how it ended is of no interest
			close(p.ended)
		}
	}()
	started.Wait()
	return p, err
}
