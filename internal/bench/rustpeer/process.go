package rustpeer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/cli/latency"
)

const program = "trypema-peers"

// endTime is how long a process may take to end by itself.
const endTime = 2 * time.Second

// Settings are those of a limiter. Its counts are kept in the process, on a Redis server, or both.
type Settings struct {
	Limiter  string `json:"limiter"`  // governor or trypema
	Provider string `json:"provider"` // local, redis or hybrid

	Capacity        uint64        `json:"capacity"` // of a window
	Rate            float64       `json:"rate"`     // per second
	Suppressed      bool          `json:"suppressed"`
	Window          time.Duration `json:"window_ns"`
	Bucket          time.Duration `json:"bucket_ns"`
	HardLimitFactor float64       `json:"hard_limit_factor"`

	Redis        string        `json:"redis"` // a URL
	Prefix       string        `json:"prefix"`
	SyncInterval time.Duration `json:"sync_interval_ns"` // 0 for the default of the limiter
}

// Process is a limiter in a process. Its methods may be called by many goroutines; they take turns.
type Process struct {
	mu      sync.Mutex // guards the pipes: one request at a time
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	stderr  bytes.Buffer
	broken  error
	wait    func() error // for its end, as often as one likes
}

// Open starts a process with a new limiter. The error is a *MissingError where there can be none.
func Open(ctx context.Context, s Settings) (_ *Process, err error) {
	dir, err := Build(ctx)
	if err != nil {
		return nil, err
	}
	p := &Process{command: exec.Command(filepath.Join(dir, program))}
	p.wait = sync.OnceValue(p.command.Wait)
	p.command.Stderr = &p.stderr
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	request := struct {
		Do string `json:"do"`
		Settings
	}{"open", s}
	if err := p.ask(ctx, request, &struct{}{}); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// ID is the number of the process.
func (p *Process) ID() int { return p.command.Process.Pid }

// ask sends a request and reads its answer. When ctx ends, so does the process.
func (p *Process) ask(ctx context.Context, request, answer any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return p.broken
	}
	stop := context.AfterFunc(ctx, func() { _ = p.command.Process.Kill() })
	defer stop()
	line, err := json.Marshal(request)
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	if err == nil {
		line, err = p.out.ReadBytes('\n')
	}
	if err != nil {
		_ = p.command.Process.Kill() // it does not answer, or has ended
		_ = p.wait()                 // after which all is there that it has said
		if err = ctx.Err(); err == nil {
			err = fmt.Errorf("%s ended early: %s", program, lastLines(p.stderr.Bytes()))
		}
		p.broken = err
		return err
	}
	var refused struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(line, &refused); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	if refused.Error != "" {
		return errors.New(refused.Error)
	}
	return json.Unmarshal(line, answer)
}

// Workload gives the process a number of keys, and the sequence of indexes of them that each worker will
// walk.
func (p *Process) Workload(ctx context.Context, keys int, sequences [][]uint32) (err error) {
	f, err := os.CreateTemp("", program+"-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	w := bufio.NewWriterSize(f, 1<<20)
	for _, s := range sequences {
		if err := binary.Write(w, binary.LittleEndian, s); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return err
	}
	return p.ask(ctx,
		map[string]any{"do": "workload", "keys": keys, "workers": len(sequences), "sequences": f.Name()},
		&struct{}{})
}

// Fill calls every key once, and returns how many calls were allowed.
func (p *Process) Fill(ctx context.Context, callers int) (allowed uint64, err error) {
	var answer struct{ Allowed uint64 }
	err = p.ask(ctx, map[string]any{"do": "fill", "callers": callers}, &answer)
	return answer.Allowed, err
}

// Pass is a request to let the workers loose for a while.
type Pass struct {
	Duration    time.Duration `json:"duration_ns"`
	SampleEvery int           `json:"sample_every"`
	QPS         float64       `json:"qps"` // 0: as many as possible
	Burst       int           `json:"burst"`
	Fresh       bool          `json:"fresh"` // the text of each key is written just before its call
}

// Result is what a Pass came to.
type Result struct {
	Elapsed time.Duration     `json:"elapsed_ns"`
	Workers []Worker          `json:"workers"`
	Latency latency.Histogram `json:"-"`
}

// Worker is what one worker has done in a Pass.
type Worker struct {
	Calls     uint64 `json:"calls"`
	Allowed   uint64 `json:"allowed"`
	Denied    uint64 `json:"denied"`
	Skipped   uint64 `json:"skipped"`
	Failed    uint64 `json:"failed"`
	FirstFail string `json:"first_fail"`
}

// Drive makes a Pass.
func (p *Process) Drive(ctx context.Context, pass Pass) (r Result, err error) {
	request := struct {
		Do string `json:"do"`
		Pass
	}{"drive", pass}
	answer := struct {
		*Result
		Text string `json:"latency"`
	}{Result: &r}
	if err := p.ask(ctx, request, &answer); err != nil {
		return r, err
	}
	r.Latency, err = latency.Decode(answer.Text)
	return r, err
}

// Allow decides and records one call for each key, in order. It takes a trip through a pipe.
func (p *Process) Allow(ctx context.Context, keys ...string) ([]bool, error) {
	var answer struct{ Allowed []bool }
	err := p.ask(ctx, map[string]any{"do": "allow", "keys": keys}, &answer)
	if err == nil && len(answer.Allowed) != len(keys) {
		err = fmt.Errorf("%s decided %d of %d calls", program, len(answer.Allowed), len(keys))
	}
	return answer.Allowed, err
}

// Memory is the number of bytes that the process has allocated; nil where that is not known.
func (p *Process) Memory(ctx context.Context) (*uint64, error) {
	var answer struct{ Bytes *uint64 }
	err := p.ask(ctx, map[string]any{"do": "memory"}, &answer)
	return answer.Bytes, err
}

// Close ends the process.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = errors.New(program + " is closed")
	}
	err := p.in.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	timer := time.AfterFunc(endTime, func() { _ = p.command.Process.Kill() })
	defer timer.Stop()
	waited := p.wait()
	var exit *exec.ExitError
	if errors.As(waited, &exit) { // it was killed, or its end was reported before
		waited = nil
	}
	return errors.Join(err, waited)
}
