package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/programtest"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// admissions are the jobs of all workers. Each was admitted at some instant between when its worker asked and
// when it began.
type admissions struct {
	mu   sync.Mutex
	jobs []anywindow.Admission
}

func (a *admissions) add(_ context.Context, asked time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.jobs = append(a.jobs, anywindow.Admission{From: asked, To: time.Now(), Cost: 1})
}

// Two processes with three workers each together never do more than the limit, and not much less.
func TestLimitIsKeptOverAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window, rate, capacity, windows = 500 * time.Millisecond, 120, 60, 6
		server := fakeredis.New()
		server.Delay = time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), windows*window)
		defer cancel()
		var done admissions
		var mu sync.Mutex
		reports := 0
		var processes sync.WaitGroup
		for range 2 {
			processes.Go(func() {
				f := &fleet{
					conn: server, workers: 3, rate: rate, window: window, job: done.add,
					report: func(_ uint64, all trypema.Usage) {
						mu.Lock()
						defer mu.Unlock()
						reports++
						if all.Total > capacity || all.Limit != capacity {
							t.Errorf("%+v, though the limit is %d", all, capacity)
						}
					},
				}
				if err := f.run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		processes.Wait()
		if got := anywindow.Most(done.jobs, window); got > capacity {
			t.Errorf("%d jobs in some %v, the limit is %d", got, window, capacity)
		}
		if len(done.jobs) < (windows-1)*capacity || reports != 2*2 { // one a second from each process
			t.Errorf("only %d jobs in six windows of %d, and %d reports", len(done.jobs), capacity, reports)
		}
		t.Logf("%d jobs in six windows of %d", len(done.jobs), capacity)
	})
}

// A process that ends gives back what it did not use: the next one has all the rest at once.
func TestEndGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window, capacity = time.Minute, 60
		server := fakeredis.New()
		began := time.Now()
		work := func(enough int) int {
			ctx, cancel := context.WithTimeout(t.Context(), window/3)
			defer cancel()
			jobs := 0
			f := &fleet{conn: server, workers: 1, rate: trypema.Per(capacity, window), window: window,
				job: func(context.Context, time.Time) {
					if jobs++; jobs == enough {
						cancel()
					}
				},
				report: func(uint64, trypema.Usage) {},
			}
			if err := f.run(ctx); err != nil {
				t.Fatal(err)
			}
			return jobs
		}
		if first, second := work(5), work(capacity-5); first != 5 || second != capacity-5 ||
			time.Since(began) > window/3 {
			t.Errorf("%d jobs, then %d, after %v; want 5 and %d at once", first, second, time.Since(began),
				capacity-5)
		}
	})
}

func TestProgram(t *testing.T) {
	server := miniredis.RunT(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, in := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	t.Setenv("REDIS_URL", "redis://"+server.Addr())
	go func() {
		status <- run(ctx, []string{"--workers", "2", "--rate", "50"}, in, &stderr)
		_ = in.Close()
	}()

	var workers, limit, jobs, all int
	_, err := fmt.Fscanf(out, "%d workers here, and at most %d jobs in any 1s by all\n", &workers, &limit)
	if err != nil || workers != 2 || limit != 50 {
		t.Fatal(workers, limit, err)
	}
	for jobs == 0 { // while the machine is too busy, and Redis does not answer in time
		if _, err := fmt.Fscanf(out, "%d jobs here in the last second; by all, %d of %d in the last 1s\n",
			&jobs, &all, &limit); err != nil || all > 50 {
			t.Fatal(jobs, all, limit, err)
		}
	}
	interrupt()
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Error(err)
	}
	got := <-status
	// with Redis, within its timeout
	switch tooBusy := strings.Contains(stderr.String(), "not all could be settled"); {
	case tooBusy && got == 1:
	case got != 0 || stderr.Len() > 0:
		t.Errorf("exit status %d: %s", got, stderr.String())
	case !strings.HasSuffix(string(rest), " jobs done here\n"):
		t.Errorf("at the end it says %q", rest)
	}
}

// Without a Redis, the program says so at once.
func TestNoRedis(t *testing.T) {
	server := miniredis.RunT(t)
	addr := server.Addr()
	server.Close()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"--redis", "redis://ada:secret@" + addr}, &stdout, &stderr)
	if want := "workers: no Redis at " + addr + ", name one with --redis or REDIS_URL: "; status != 1 ||
		!strings.HasPrefix(stderr.String(), want) {
		t.Errorf("exit status %d: %q, want 1 and %q", status, stderr.String(), want)
	}
	if strings.Contains(stderr.String(), "secret") {
		t.Error("it shows the password")
	}
}

// What ends one worker ends all.
func TestErrorEndsAll(t *testing.T) {
	f := &fleet{
		conn: brokenKey{}, workers: 3, rate: 100, window: time.Second,
		job: func(context.Context, time.Time) {}, report: func(uint64, trypema.Usage) {},
	}
	if err := f.run(t.Context()); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("%v, want what is wrong with the key", err)
	}
}

// brokenKey is a server whose key holds something else.
type brokenKey struct{}

func (brokenKey) OneServer() bool { return true }

func (brokenKey) Run(
	_ context.Context, _, _ string, keys, _ [][]string, answer func(i int, reply []any, err error),
) {
	for i := range keys {
		answer(i, nil, errors.New("WRONGTYPE Operation against a key holding the wrong kind of value"))
	}
}

func TestFlags(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	test := programtest.Flags(t, run)
	test("--workers 0", 2, "workers: --workers is 0; it must be from 1 to 1000")
	test("--rate 0", 2, "workers: --rate is 0; it must be a number above 0, and at least one job in --window (1s)")
	test("--rate 0.5", 2, "workers: --rate is 0.5; it must be a number above 0, and at least one job in --window (1s)")
	test("--rate NaN", 2, "workers: --rate is NaN; it must be a number above 0, and at least one job in --window (1s)")
	test("--window 1ms", 2, "workers: --window is 1ms; it must be at least 100ms")
	test("--job 0s", 2, "workers: --job is 0s; it must be above 0s")
	test("--duration -1s", 2, "workers: --duration is -1s; it must be at least 0s")
	test("--redis redis://ada:secret@host:port", 2,
		"workers: --redis or REDIS_URL must be a URL such as redis://user:password@host:6379/0: "+
			"it is no URL")
	test("--redis http://ada:secret@host", 2,
		"workers: --redis or REDIS_URL must be a URL such as redis://user:password@host:6379/0: redis: "+
			"invalid URL scheme: http")
	test("--workers many", 2, `invalid value "many" for flag -workers`)
	test("more", 2, `workers: unexpected argument "more"`)
	test("--help", 0, "$REDIS_URL")
}
