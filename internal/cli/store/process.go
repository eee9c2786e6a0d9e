package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNoProgram is the error of StartProcess where there is no Redis server to start.
var ErrNoProgram = errors.New("neither redis-server nor valkey-server is on PATH")

const (
	startTime = time.Minute // in which a server of our own has to answer, on a machine that is busy
	endTime   = 5 * time.Second
)

// Process is a real Redis server that was started for this program alone.
type Process struct {
	command *exec.Cmd
	dir     string
	port    int
	said    bytes.Buffer
}

// StartProcess starts the redis-server or valkey-server that is on PATH, on a free port of 127.0.0.1, with nothing kept on disk, and
// with those modules that it accepts. It returns when the server answers.
func StartProcess(ctx context.Context, modules ...string) (*Process, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		if program, err = exec.LookPath("valkey-server"); err != nil {
			return nil, ErrNoProgram
		}
	}
	p, err := startProcess(ctx, program, modules)
	if err != nil && len(modules) > 0 && ctx.Err() == nil { // a module made for another server
		p, err = startProcess(ctx, program, nil)
	}
	return p, err
}

func startProcess(ctx context.Context, program string, modules []string) (_ *Process, err error) {
	p := new(Process)
	if p.port, err = freePort(); err != nil {
		return nil, err
	}
	if p.dir, err = os.MkdirTemp("", "trypema-redis-"); err != nil {
		return nil, err
	}
	args := []string{"--port", strconv.Itoa(p.port), "--bind", "127.0.0.1", "--dir", p.dir, "--save", "", "--appendonly", "no"}
	for _, m := range modules {
		args = append(args, "--loadmodule", m)
	}
	p.command = exec.Command(program, args...)
	p.command.Stdout, p.command.Stderr = &p.said, &p.said
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	if err := p.answers(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// freePort is one that nobody listens on. Another program may take it before we do; then the server does not start.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close() //nolint:errcheck // nobody has used it
	return l.Addr().(*net.TCPAddr).Port, nil
}

// answers waits for the server's first answer.
func (p *Process) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	silenceGoRedis()
	client := redis.NewClient(&redis.Options{Addr: p.address(), MaxRetries: -1, DialerRetries: 1})
	defer client.Close() //nolint:errcheck // nothing is under way
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not start: %w", p.command.Path, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *Process) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// URL is what --redis takes.
func (p *Process) URL() string { return "redis://" + p.address() }

// Close ends the server and removes its folder.
func (p *Process) Close() error {
	_ = p.command.Process.Signal(os.Interrupt) // it may have ended
	timer := time.AfterFunc(endTime, func() { _ = p.command.Process.Kill() })
	defer timer.Stop()
	_ = p.command.Wait() // how it ended is of no interest
	return os.RemoveAll(p.dir)
}
