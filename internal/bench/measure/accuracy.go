package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/proof/anywindow"
)

// The accuracy pass has a limit of its own, small enough to see whole windows in a short time. The limit of
// the benchmark plays no part in how an algorithm treats the edge of a window.
const (
	trapCapacity = 100
	trapPace     = 50 * time.Microsecond
	traps        = 3
	trapKey      = "trap"
)

// trap is how calls are timed that come as a window ends.
type trap struct {
	window   time.Duration
	margin   time.Duration // before the end of a window; the burst has to be over by then
	attempts int           // on a machine, or a network, that is too slow to be in time
}

var (
	localTrap  = trap{window: 200 * time.Millisecond, margin: 5 * time.Millisecond, attempts: 30}
	remoteTrap = trap{window: 500 * time.Millisecond, margin: 100 * time.Millisecond, attempts: 8}
)

// trapFor is the trap for a limiter, that runs here or on a server.
func trapFor(name string, remote bool) trap {
	t := localTrap
	if remote {
		t = remoteTrap
	}
	if peer.InWholeSeconds(name) {
		t.window = time.Second
	}
	return t
}

func (t trap) String() string {
	return fmt.Sprintf("measured apart, with C = %d in %v: a call as a window opens, one shortly\n"+
		"   before it ends, 2 C at once %v before that, more for a window; worst of %d", trapCapacity,
		t.window, t.margin, traps)
}

// resized is the limit l with another capacity and window.
func resized(l peer.Limit, capacity uint64, window time.Duration) (peer.Limit, error) {
	l.Capacity = capacity
	l.Rate = float64(capacity) / window.Seconds()
	options, err := trypema.Options{Window: window, HardLimitFactor: l.Options.HardLimitFactor}.WithDefaults()
	l.Options = options
	return l, err
}

// fullestWindow returns the most that the limiter lets through in any window when callers come at the worst
// time, of so many times; nil if they never came in time, as the machine was too busy or the server too far
// away. It fails when ours lets more through than it promises.
//
// Time is real. A call counts for a window only if it began and ended in it, so neither the clock of a server
// nor the way to it can make the count too high.
func (p plan) fullestWindow(
	ctx context.Context, name string, times int, progress func(part float64),
) (*uint64, error) {
	remote := p.limit.Server != nil
	t := trapFor(name, remote)
	limit, err := resized(p.limit, trapCapacity, t.window)
	if err != nil {
		return nil, err
	}
	if times == 0 {
		return nil, nil
	}
	fullest, sprung := uint64(0), 0
	for attempt := 0; sprung < times && attempt <= t.attempts; attempt++ {
		progress(float64(sprung) / float64(times))
		n, inTime, err := t.spring(ctx, name, limit)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		case ctx.Err() != nil:
			return nil, errInterrupted
		case inTime:
			sprung++
		}
		fullest = max(fullest, n)
	}
	bound := limit.Capacity
	if limit.Suppressed {
		bound = flags.HardCapacity(bound, limit.Options)
	}
	if peer.IsOurs(name) && fullest > bound {
		return nil, fmt.Errorf("%d admitted in one window, which may hold %d", fullest, bound)
	}
	if sprung < times {
		return nil, nil
	}
	return &fullest, nil
}

// spring asks at the worst time for a limiter that counts in fixed windows, weighs two of them, refills a
// bucket, or forgets what it counted together by its first event. Fixed windows begin at a multiple of their
// length, when the limiter is made, or at the first call of the key: here these are the same instant. It
// reports whether the first burst came before the window ended; if it did not, the count is as true as ever,
// but nothing was put to the test.
func (t trap) spring(
	ctx context.Context, name string, limit peer.Limit,
) (fullest uint64, inTime bool, err error) {
	opening := time.Now().Truncate(t.window).Add(t.window)
	sleep(ctx, time.Until(opening)+time.Millisecond)
	l, err := peer.Open(ctx, name, limit)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	var (
		base    = time.Now()
		mu      sync.Mutex // guards the two below
		windows = anywindow.NewCounter(t.window)
		failed  error
	)
	call := func(i int, keys ...string) {
		before := time.Since(base)
		admitted, err := decide(ctx, l.Bound(i), keys)
		mu.Lock()
		defer mu.Unlock()
		after := time.Since(base)
		for _, ok := range admitted {
			if ok {
				windows.Add(before, after, 1)
			}
		}
		failed = cmp.Or(failed, err)
	}
	call(0, trapKey)
	closing := opening.Add(t.window)
	most := limit.Options.Bucket * 8 / 10
	sleep(ctx, time.Until(closing.Add(-t.margin-most)))
	call(0, trapKey) // begins a bucket, if there are any, that the burst will still find open
	sleep(ctx, time.Until(closing.Add(-t.margin)))
	var burst sync.WaitGroup
	if l.Process != nil { // which would take them one after the other
		call(0, slices.Repeat([]string{trapKey}, 2*trapCapacity)...)
	} else {
		for i := range 2 * trapCapacity {
			burst.Go(func() { call(i, trapKey) })
		}
	}
	burst.Wait()
	inTime = time.Now().Before(closing)
	end := closing.Add(t.window + t.margin)
	for i := 0; time.Now().Before(end) && failed == nil && ctx.Err() == nil; i++ {
		call(i, trapKey)
		sleep(ctx, trapPace)
	}
	return windows.Max(), inTime, failed
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// FullestWindows measures, for each limiter that the command compares, what it lets through in the fullest
// window when callers come at the worst time, of the capacity; the worst of so many times. It leaves out what
// can not be had here.
func (c *Command) FullestWindows(
	ctx context.Context, times int, progress func(part float64, doing string),
) (_ []Fullest, err error) {
	p, names, err := c.prepare(ctx, remoteTrap.window)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.limit.Server.Close()) }()
	var out []Fullest
	for i, name := range names {
		n, err := p.fullestWindow(ctx, name, times,
			func(part float64) { progress((float64(i)+part)/float64(len(names)), name) })
		if ctx.Err() != nil {
			return nil, errInterrupted
		}
		f := Fullest{Limiter: name}
		switch {
		case isMissing(err):
			continue
		case err != nil:
			f.Failed = err.Error()
		case n != nil:
			f.Ratio = ptr(float64(*n) / trapCapacity)
		}
		out = append(out, f)
	}
	return out, nil
}

// Fullest is what a limiter let through in the fullest window.
type Fullest struct {
	Limiter string   `json:"limiter"`
	Failed  string   `json:"failed"`
	Ratio   *float64 `json:"largest_any_window_to_capacity_ratio"` // null where callers never came in time
}
