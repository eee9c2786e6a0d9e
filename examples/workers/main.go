// Command workers does jobs with a limit that all workers share, in this process and in every other one that
// uses the same Redis: a supplier, say, who takes 100 orders a second from the whole company.
//
//	redis-server &
//	go run ./examples/workers
//	go run ./examples/workers        in another terminal, at the same time
//	go run ./examples/workers --redis redis://user:password@host:6379/0 --workers 16 --rate 1000
//
// Each worker has a hybrid provider of its own, as a process of its own would have: it decides by itself, and
// settles with Redis in the background. Once in a second the program says how many jobs were done here and,
// of one window, how many by all. Start it again, and what is done here goes down; what is done by all stays
// at the limit. Ctrl-C ends it, and gives what was not used back to the others.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/program"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/redislimit"
)

func main() { program.Main(run) }

// run is a program.Run.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := program.Flags("workers", stderr)
	server := flags.String("redis", "",
		"the URL of the Redis `server` (default $REDIS_URL, or redis://localhost:6379)")
	workers := flags.Int("workers", 4, "how many workers this process has")
	rate := flags.Float64("rate", 100, "how many jobs all workers of all processes may do in a second")
	window := flags.Duration("window", time.Second, "the length of the window")
	job := flags.Duration("job", 5*time.Millisecond, "how long a job takes")
	duration := flags.Duration("duration", 0, "how long to work (default until Ctrl-C)")
	if status, ok := program.Parse(flags, args); !ok {
		return status
	}
	capacity, tooFew := trypema.Rate(*rate).Capacity(*window)
	options, wrong := parseURL(cmp.Or(*server, os.Getenv("REDIS_URL"), "redis://localhost:6379"))
	err := cmp.Or(
		program.Check(flags.NArg() == 0, "unexpected argument %q", flags.Arg(0)),
		program.Check(*workers >= 1 && *workers <= 1000, "--workers is %d; it must be from 1 to 1000", *workers),
		program.Check(*window >= 100*time.Millisecond, "--window is %v; it must be at least 100ms", *window),
		program.Check(*rate > 0 && tooFew == nil,
			"--rate is %v; it must be a number above 0, and at least one job in --window (%v)", *rate, *window),
		program.Check(*job > 0, "--job is %v; it must be above 0s", *job),
		program.Check(*duration >= 0, "--duration is %v; it must be at least 0s", *duration),
		wrong,
	)
	if err != nil {
		return program.Fail(flags, 2, err)
	}

	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Ping(ctx).Err(); err != nil {
		err = fmt.Errorf("no Redis at %s, name one with --redis or REDIS_URL: %w", options.Addr, err)
		return program.Fail(flags, 1, err)
	}
	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	f := &fleet{
		conn:    goredisconn.New(client),
		workers: *workers,
		rate:    trypema.Rate(*rate),
		window:  *window,
		job:     func(ctx context.Context, _ time.Time) { _ = program.Sleep(ctx, *job) },
		report: func(here uint64, all trypema.Usage) {
			fmt.Fprintf(stdout, "%6d jobs here in the last second; by all, %d of %d in the last %v\n", here,
				all.Total, all.Limit, *window)
		},
	}
	fmt.Fprintf(stdout, "%d workers here, and at most %d jobs in any %v by all\n", *workers, capacity, *window)
	if err := f.run(ctx); err != nil {
		return program.Fail(flags, 1, err)
	}
	fmt.Fprintf(stdout, "%d jobs done here\n", f.done.Load())
	return 0
}

// parseURL reads the URL of a server. What it says is wrong does not show the password.
func parseURL(text string) (*redis.Options, error) {
	options, err := redis.ParseURL(text)
	var bad *url.Error
	if errors.As(err, &bad) {
		err = errors.New("it is no URL")
	}
	if err != nil {
		return nil, fmt.Errorf("--redis or REDIS_URL must be a URL such as redis://user:password@host:6379/0: %w", err)
	}
	options.ContextTimeoutEnabled = true // an exchange ends when the limiter no longer waits for it
	return options, nil
}

// fleet is the workers of this process.
type fleet struct {
	conn    redislimit.Conn
	workers int
	rate    trypema.Rate
	window  time.Duration
	job     func(ctx context.Context, asked time.Time) // asked is when its worker asked for it
	report  func(here uint64, all trypema.Usage)       // once in a second

	done atomic.Uint64 // jobs
}

// key is what is limited.
const key = "orders"

// run works until ctx ends.
func (f *fleet) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	providers := make([]*hybridlimit.Provider, f.workers)
	for i := range providers {
		limits, err := hybridlimit.New(f.conn, hybridlimit.Options{Options: redislimit.Options{
			Options:   trypema.Options{Window: f.window},
			Prefix:    "workers",
			OnFailure: redislimit.FailClosed, // without Redis no worker knows what the others do
		}})
		if err != nil {
			cancel(err)
			break
		}
		providers[i] = limits
		all.Go(func() {
			if err := f.work(ctx, limits.Absolute()); err != nil {
				cancel(err)
			}
		})
	}
	if limits := providers[0]; limits != nil {
		all.Go(func() { f.tell(ctx, limits.Absolute()) })
	}
	all.Wait()

	var failed error
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		failed = cause
	}
	for _, limits := range providers {
		if limits != nil {
			failed = errors.Join(failed, limits.Close())
		}
	}
	return failed
}

// work does one job after the other, each when the limiter says so.
func (f *fleet) work(ctx context.Context, limiter trypema.Limiter) error {
	for ctx.Err() == nil {
		asked := time.Now()
		d, err := limiter.Allow(ctx, key, f.rate)
		switch {
		case err != nil && ctx.Err() != nil: // it ended while Redis was asked
		case err != nil:
			return err
		case d.Allowed:
			f.job(ctx, asked)
			f.done.Add(1)
		default:
			_ = program.Sleep(ctx, d.RetryAfter)
		}
	}
	return nil
}

// tell reports once in a second what was done.
func (f *fleet) tell(ctx context.Context, limiter trypema.Limiter) {
	for before := uint64(0); program.Sleep(ctx, time.Second) == nil; {
		done := f.done.Load()
		if all, err := limiter.Usage(ctx, key, f.rate); err == nil { // or there will be one in a second
			f.report(done-before, all)
		}
		before = done
	}
}
