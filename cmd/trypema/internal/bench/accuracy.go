package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/anywindow"
	"github.com/trypema/trypema/cmd/trypema/internal/flags"
	"github.com/trypema/trypema/cmd/trypema/internal/peer"
)

// The accuracy pass has a limit of its own, small enough to see whole windows in a short time. The limit of the
// benchmark plays no part in how an algorithm treats the edge of a window.
const (
	trapCapacity = 100
	trapWindow   = 200 * time.Millisecond
	trapMargin   = trapWindow / 40
	trapPace     = 50 * time.Microsecond
	traps        = 3
	trapAttempts = 30 // on a machine that is too busy to be in time
)

const accuracyMethod = "measured apart, with C = 100 in 200ms: a call as a window opens, none until\n" +
	"   5ms before it ends, then 2 C at once and more for a window; worst of 3 times"

// trapLimit is the limit of the accuracy pass, with the strategy of l.
func trapLimit(l peer.Limit) (peer.Limit, error) {
	l.Capacity = trapCapacity
	l.Rate = trapCapacity / trapWindow.Seconds()
	options, err := trypema.Options{Window: trapWindow, HardLimitFactor: l.Options.HardLimitFactor}.WithDefaults()
	l.Options = options
	return l, err
}

// fullestWindow returns the most that the limiter lets through in any window when callers come at the worst time. It
// fails when ours lets more through than it promises.
func (p plan) fullestWindow(ctx context.Context, name string, progress func(part float64)) (fullest int, err error) {
	limit, err := trapLimit(p.limit)
	if err != nil {
		return 0, err
	}
	for attempt, sprung := 0, 0; sprung < traps; attempt++ {
		progress(float64(sprung) / traps)
		n, inTime, err := trap(ctx, name, limit)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%s: %w", name, err)
		case ctx.Err() != nil:
			return 0, errInterrupted
		case inTime:
			sprung++
		case attempt == trapAttempts:
			return 0, errors.New("the machine is too busy to call at the instants that the accuracy pass needs")
		}
		fullest = max(fullest, n)
	}
	bound := limit.Capacity
	if limit.Suppressed {
		bound = flags.HardCapacity(bound, limit.Options)
	}
	if name == peer.Ours && uint64(fullest) > bound {
		return fullest, fmt.Errorf("%d admitted in one window, which may hold %d", fullest, bound)
	}
	return fullest, nil
}

// trap asks at the worst time for a limiter that counts in fixed windows, weighs two of them, or refills a bucket.
// Fixed windows begin at a multiple of their length, when the limiter is made, or at the first call of the key: here
// these are the same instant. It reports whether the first burst came before the window ended; if it did not, the count
// is as true as ever, but nothing was put to the test.
func trap(ctx context.Context, name string, limit peer.Limit) (fullest int, inTime bool, err error) {
	opening := time.Now().Truncate(trapWindow).Add(trapWindow)
	sleep(ctx, time.Until(opening)+time.Millisecond)
	l, err := peer.Open(name, limit)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	base := time.Now()
	windows := anywindow.New(trapWindow)
	call := func() error {
		before := time.Since(base)
		ok, err := l.Allow("trap")
		if ok {
			windows.Add(before, time.Since(base))
		}
		return err
	}
	if err := call(); err != nil {
		return 0, false, err
	}
	closing := opening.Add(trapWindow)
	sleep(ctx, time.Until(closing.Add(-trapMargin)))
	for range 2 * trapCapacity {
		if err := call(); err != nil {
			return 0, false, err
		}
	}
	inTime = time.Now().Before(closing)
	for end := closing.Add(trapWindow + trapMargin); time.Now().Before(end) && ctx.Err() == nil; {
		if err := call(); err != nil {
			return 0, false, err
		}
		sleep(ctx, trapPace)
	}
	return windows.Max(), inTime, nil
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
