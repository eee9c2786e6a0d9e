package onredis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// What a process needs to know, in its environment.
const (
	childVariable  = "TRYPEMA_TEST_CHILD" // where the server is
	hybridVariable = "TRYPEMA_TEST_HYBRID"
)

func isChild() bool { return os.Getenv(childVariable) != "" }

// child is the program of another process: callers who want all they can get, until its input ends. It prints
// each call at once.
func child() {
	client := redis.NewClient(&redis.Options{Addr: os.Getenv(childVariable), ReadTimeout: rig.Patience})
	o := redislimit.Options{
		Options: trypema.Options{Window: sharedWindow, Bucket: sharedBucket}, Prefix: "processes", OnFailure: redislimit.FailClosed, Timeout: rig.Patience,
	}
	rate, callers, pause := trypema.Per(sharedCap, sharedWindow), 8, 4*time.Millisecond
	var p trypema.Provider
	var err error
	if os.Getenv(hybridVariable) == "" {
		p, err = redislimit.New(goredisconn.New(client), o)
	} else {
		o.Options = trypema.Options{Window: fleetWindow}
		rate, callers, pause = trypema.Per(fleetCap, fleetWindow), 1, 10*time.Millisecond
		p, err = hybridlimit.New(goredisconn.New(client), hybridlimit.Options{Options: o})
	}
	if err != nil {
		panic(err)
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for !stop.Load() {
				from := time.Now()
				d, err := p.Absolute().Allow(context.Background(), "k", rate)
				to := time.Now()
				if err != nil || d.Fallback {
					panic(fmt.Sprint(d, err))
				}
				fmt.Printf("%d %d %v\n", from.UnixNano(), to.UnixNano(), d.Allowed)
				time.Sleep(pause)
			}
		})
	}
	all.Wait()
	if err := errors.Join(p.Close(), client.Close()); err != nil {
		panic(err)
	}
}

// process is a child under way.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.Closer
	read  sync.WaitGroup

	mu               sync.Mutex // guards the below
	admitted, denied []anywindow.Admission
}

// start starts a child, of the Hybrid provider if hybrid says something.
func start(t *testing.T, s *redisserver.Server, hybrid string) *process {
	p := &process{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0])}
	p.cmd.Env = append(os.Environ(), childVariable+"="+s.Addr(), hybridVariable+"="+hybrid)
	p.cmd.Stderr = os.Stderr
	input, err := p.cmd.StdinPipe()
	output, err2 := p.cmd.StdoutPipe()
	if err := errors.Join(err, err2, p.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	p.input = input
	p.read.Go(func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var from, to int64
			var allowed bool
			if n, _ := fmt.Sscan(lines.Text(), &from, &to, &allowed); n != 3 {
				continue // it was killed in the middle of a line
			}
			a := anywindow.Admission{From: time.Unix(0, from), To: time.Unix(0, to), Cost: 1}
			p.mu.Lock()
			if allowed {
				p.admitted = append(p.admitted, a)
			} else {
				p.denied = append(p.denied, a)
			}
			p.mu.Unlock()
		}
	})
	return p
}

// calls returns what it has said so far.
func (p *process) calls() (admitted, denied []anywindow.Admission) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.admitted[:len(p.admitted):len(p.admitted)], p.denied[:len(p.denied):len(p.denied)]
}

// end ends it, and returns when it has ended.
func (p *process) end() {
	_ = p.input.Close()
	p.read.Wait()
	_ = p.cmd.Wait()
}

func (p *process) signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Error(err)
	}
}
