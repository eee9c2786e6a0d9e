package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/bench/rustpeer"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/realredis"
)

// stage has the programs, and the folder of their files.
type stage struct {
	command *Command
	bar     *screen.Bar
	dir     string // is removed at the end
	missing map[string]string

	trypema, self string // programs
	redis         *realredis.Server
}

// contender is a server that runs, and where it is reached.
type contender struct {
	name    string
	peer    bool // what trypema serve is compared with
	address string
	pid     int
	request string // of the client, where that depends on the server
	path    string // of HTTP
	ends    []func()
}

func (c *contender) stop() {
	for _, end := range c.ends {
		end()
	}
}

// newStage builds trypema.
func newStage(ctx context.Context, c *Command, bar *screen.Bar) (_ *stage, err error) {
	s := &stage{command: c, bar: bar, missing: make(map[string]string)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "trypema-bench-"); err != nil {
		return nil, err
	}
	s.bar.Set(0, "building trypema")
	s.trypema = filepath.Join(s.dir, "trypema")
	build := exec.CommandContext(ctx, "go", "build", "-o", s.trypema, "github.com/trypema/trypema/cmd/trypema")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, trimmed(out))
	}
	return s, nil
}

func (s *stage) close() error {
	var err error
	if s.redis != nil {
		err = s.redis.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// server returns the address of a redis-server for the limiters that count in one.
func (s *stage) server(ctx context.Context) (string, error) {
	if s.redis == nil {
		r, err := realredis.Start(ctx)
		if err := found(err); err != nil {
			return "", err
		}
		s.redis = r
	}
	return s.redis.Addr(), nil
}

// found makes the error of a redis-server that is not installed a MissingError.
func found(err error) error {
	var none *realredis.MissingError
	if errors.As(err, &none) {
		return missing("redis-server", err.Error())
	}
	return err
}

func missing(what, why string) error { return &peer.MissingError{Name: what, Why: why} }

// The programs that can be installed, and how. They go to a folder of the user's cache, where the tests look,
// too.
const (
	ratelimitPackage = "github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36"
	ghzPackage       = "github.com/bojand/ghz/cmd/ghz@v0.93.0"
)

// program returns the path of a program: the one that is given, or that is on PATH, or that was installed.
func (s *stage) program(ctx context.Context, name, given string, install ...string) (string, error) {
	if given != "" {
		if _, err := os.Stat(given); err != nil {
			return "", missing(name, err.Error())
		}
		return given, nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil || len(install) == 0 {
		return "", missing(name, "it is not on PATH")
	}
	dir := filepath.Join(cache, "trypema-tests", install[0])
	path := filepath.Join(dir, name)
	if install[0] == "cargo" {
		path = filepath.Join(dir, "bin", name)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if !s.command.Install {
		return "", missing(name, "it is not installed; --install installs it")
	}
	s.bar.Line("installing " + name)
	c := exec.CommandContext(ctx, "go", "install", install[1])
	c.Env = append(os.Environ(), "GOBIN="+dir, "GOWORK=off", "GOFLAGS=")
	if install[0] == "cargo" {
		c = exec.CommandContext(ctx, "cargo", "install", "--locked", "--root", dir, install[1])
	}
	if out, err := c.CombinedOutput(); err != nil {
		return "", missing(name, fmt.Sprintf("it cannot be installed: %v: %s", err, trimmed(out)))
	}
	return path, nil
}

// cell returns the path of redis-cell.
func (s *stage) cell(ctx context.Context) (string, error) {
	if s.command.Cell != "" {
		return s.command.Cell, nil
	}
	dir, err := rustpeer.Build(ctx)
	if paths := rustpeer.Cell(dir); len(paths) > 0 {
		return paths[0], nil
	}
	if err == nil {
		err = errors.New("it could not be built")
	}
	return "", missing("redis-cell", trimmed([]byte(err.Error())))
}

// free returns an address of the loopback that nothing listens at.
func free(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close() //nolint:errcheck // it was asked
	return l.Addr().String(), nil
}

// patience is how long a server may take to start, on a slow machine.
const patience = 2 * time.Minute

// start starts the process of a server at an address of its own, and returns when it listens there.
func start(ctx context.Context, one contender, command func(address string) *exec.Cmd) (*contender, error) {
	address, err := free(ctx)
	if err != nil {
		return nil, err
	}
	var said head
	c := command(address)
	c.Stdout, c.Stderr = &said, &said
	c.WaitDelay = 10 * time.Second
	if err := c.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // it is killed
		close(ended)
	}()
	stop := func() {
		_ = c.Process.Signal(syscall.SIGKILL)
		<-ended
	}
	for end := time.Now().Add(patience); ; {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			one.address, one.pid, one.ends = address, c.Process.Pid, []func(){stop}
			return &one, conn.Close()
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%s has ended: %s", filepath.Base(c.Path), trimmed(said))
		case <-time.After(20 * time.Millisecond):
		}
		if ctx.Err() != nil || time.Now().After(end) {
			stop()
			return nil, fmt.Errorf("%s does not listen at %s: %w: %s", filepath.Base(c.Path), address, err,
				trimmed(said))
		}
	}
}

// head keeps the beginning of what a process prints. It may be read when the process has ended.
type head []byte

const mostSaid = 64 << 10

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), mostSaid-len(*h))]...)
	return len(p), nil
}

// trimmed is the end of what a process has said, in one line.
func trimmed(out []byte) string {
	const most = 500
	text := bytes.Join(bytes.Fields(out), []byte(" "))
	return string(text[max(0, len(text)-most):])
}
