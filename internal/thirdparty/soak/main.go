// Command soak runs all six limiters side by side for as long as one likes, with traffic of all shapes, keys
// without end and faults of Redis. It judges throughout what must hold for as long as a process lives: the
// bound in any window, memory, goroutines, keys and latencies that do not grow, and decisions that are
// counted exactly. At its end nothing may be left behind.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/trypema/trypema/internal/proof/proxy"
	"github.com/trypema/trypema/internal/proof/realredis"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
)

type command struct {
	For    time.Duration `default:"10m" help:"How long the traffic is to last."`
	Churn  int64         `help:"How many new keys are to come in that time; by default 2,800 a second, which is ten million an hour."`
	Flood  int64         `default:"10000000" help:"How many new keys Local is to take first, as fast as it can."`
	Faults time.Duration `default:"1m" help:"How often something happens to Redis."`
	JSON   bool          `help:"Print the verdict and all samples as JSON."`
	Out    string        `placeholder:"DIR" type:"path" help:"Write soak.json and soak.svg there."`
}

// errBroken is that of a run in which something did not hold.
var errBroken = errors.New("something did not hold")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the end
	var c command
	kong.Parse(&c,
		kong.Description("Soak all six limiters, and judge what must hold for as long as a process lives."))
	if err := c.run(ctx, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// silent keeps go-redis from telling of each connection that is lost.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// result is what is written for programs.
type result struct {
	Seconds     float64  `json:"seconds"`
	Interrupted bool     `json:"interrupted"`
	Calls       int64    `json:"calls"`
	NewKeys     int64    `json:"new_keys"`
	Faults      int      `json:"faults"`
	Stalls      int      `json:"stalls"` // of the machine
	Rules       []rule   `json:"rules"`
	Samples     []sample `json:"samples"`
}

func (c *command) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	if c.For < time.Second || c.Churn < 0 || c.Flood < 0 || c.Faults < time.Second {
		return errors.New("--for and --faults must be at least 1s, --churn and --flood at least 0")
	}
	if c.Churn == 0 {
		c.Churn = int64(2800 * c.For.Seconds())
	}
	redis.SetLogger(silent{})
	before := goleak.IgnoreCurrent()
	out, err := c.soak(ctx, newProgress(stderr))
	if err != nil {
		return err
	}
	left := 0.
	if goleak.Find(before) != nil {
		left = 1
	}
	out.Rules = append(out.Rules, judge("goroutines left at the end", "this process", left, "=", 0))
	if err := c.write(stdout, out); err != nil {
		return err
	}
	if failed(out.Rules) {
		return errBroken
	}
	return nil
}

// soak runs it all. What it has started has ended when it returns.
func (c *command) soak(ctx context.Context, p *progress) (out *result, err error) {
	server, err := realredis.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	client := redisserver.Client(server.Addr())
	defer func() { _ = client.Close() }()
	px, err := proxy.Start(server.Addr())
	if err != nil {
		return nil, err
	}
	defer func() { _ = px.Close() }()

	out = new(result)
	out.Rules = flood(ctx, c.Flood, p.line)
	f, err := newFleet(px.Addr(), float64(c.Churn)/c.For.Seconds())
	if err != nil {
		_, err2 := f.close()
		return nil, errors.Join(err, err2)
	}
	callers, stop := context.WithTimeout(ctx, c.For)
	defer stop()
	var all sync.WaitGroup
	s := &sampler{fleet: f, server: client, began: time.Now(), last: time.Now()}
	for _, l := range f.lanes {
		l.start(callers, &all)
	}
	r := &run{command: c, sampler: s, faulty: faulty{server: server, client: client, proxy: px, every: c.Faults}, progress: p}
	r.run(callers)
	out.Seconds, out.Interrupted = time.Since(s.began).Seconds(), ctx.Err() != nil
	all.Wait()
	p.clear()
	if r.failed != nil {
		_, err := f.close()
		return nil, errors.Join(r.failed, err)
	}

	for _, l := range f.lanes {
		out.Calls += l.offered.Load()
		out.NewKeys += l.fresh.Load()
	}
	out.Samples, out.Faults, out.Stalls = r.samples, r.count, r.stalls
	out.Rules = slices.Concat(out.Rules, bound(f.lanes), r.counted(), steady(r.samples, f.lanes))
	if ctx.Err() == nil {
		out.Rules = append(out.Rules, judge("new keys", "all", float64(out.NewKeys), "≥", 0.8*float64(c.Churn)))
	}
	took, err := f.close()
	closing := judge("seconds that closing took", "all", took.Seconds(), "≤", 5)
	if err != nil {
		closing.Verdict, closing.Note = fail, err.Error()
	}
	out.Rules = append(out.Rules, closing, r.leaves())
	if c.Out != "" {
		err := os.MkdirAll(c.Out, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.Out, "soak.svg"), picture(out.Samples, f.lanes), 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// write writes the result.
func (c *command) write(w io.Writer, out *result) error {
	text, err := json.MarshalIndent(out, "", "  ")
	if err == nil && c.Out != "" {
		err = os.WriteFile(filepath.Join(c.Out, "soak.json"), append(text, '\n'), 0o644)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		_, err = fmt.Fprintln(w, string(text))
		return err
	}
	fmt.Fprintf(w, "%.0f s, %d calls, %d new keys, %d faults, the machine stood still %d times\n\n",
		out.Seconds, out.Calls, out.NewKeys, out.Faults, out.Stalls)
	return table(w, out.Rules)
}
