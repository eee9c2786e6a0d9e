package thirdparty

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/trypema/trypema"
)

// This file proves that Local is linearizable: whatever goroutines ask of it at the same time, with all six verbs, every
// answer is the one that some order of the calls gives, in which no call comes before one that had returned when it was
// made. So a decision and its record are one step, no read sees half of a change, and what callers add to a hot key
// without a lock is never lost, counted twice, or missed by who takes the key back.
//
// Real goroutines make many short histories on several numbers of processors; porcupine looks for such an order. The
// window is longer than a history, so that the specification (counter_test.go) needs no clock. That the search finds what
// is wrong is proved with limiters that are.

var firstSeed = flag.Uint64("seed", 0, "of the first history, 0 to draw it; replays what is asked, not how it is scheduled")

func seeds(t *testing.T, n uint64) (first, last uint64) {
	first = *firstSeed
	if first == 0 {
		first = rand.Uint64() >> 1
	}
	t.Logf("-seed %d", first)
	if testing.Short() {
		n = n/10 + 1
	}
	return first, first + n
}

// withProcessors runs Go code on n processors for the rest of the test.
func withProcessors(t *testing.T, n int) {
	before := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// subject is a limiter, and the rules that it must follow.
type subject struct {
	name   string
	bucket time.Duration
	rules
}

const longWindow = time.Hour

var subjects = []subject{
	{"Absolute", longWindow, rules{window: longWindow, oneGroup: true}},
	{"AbsoluteInManyGroups", time.Millisecond, rules{window: longWindow}},
	{"Suppressed", longWindow, rules{window: longWindow, oneGroup: true, suppressed: true}},
}

// history lets the traffic loose on a limiter, or on what wrap makes of it, and returns what happened.
func (s subject) history(t *testing.T, traffic traffic, wrap func(trypema.Limiter) trypema.Limiter) []porcupine.Operation {
	o := trypema.Options{Window: s.window, Bucket: s.bucket, HardLimitFactor: 1}
	if traffic.bounded {
		o.MaxKeys = traffic.keys // nobody has to go, but the order of use is kept
	}
	local, err := trypema.NewLocal(o)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	limiter := local.Absolute()
	if s.suppressed {
		limiter = local.Suppressed()
	}
	return traffic.record(wrap(limiter))
}

func itself(l trypema.Limiter) trypema.Limiter { return l }

func TestLocalIsLinearizable(t *testing.T) {
	for _, s := range subjects {
		// One processor takes turns, two overlap, and with more than there are one is stopped in the midst of a call.
		for _, processors := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%s/%d", s.name, processors), func(t *testing.T) {
				withProcessors(t, processors)
				model := s.model()
				first, last := seeds(t, 100)
				for seed := first; seed != last; seed++ {
					traffic := drawTraffic(seed, s.window)
					history := s.history(t, traffic, itself)
					if got := porcupine.CheckOperationsTimeout(model, history, time.Minute); got != porcupine.Ok {
						t.Fatalf("history is %v, see %s\n%v", got, draw(t, model, history), traffic)
					}
				}
			})
		}
	}
}

// draw writes a picture of a history that stays when the test is over, and returns the name of the file.
func draw(t *testing.T, model porcupine.Model, history []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(model, history, time.Minute)
	f, err := os.CreateTemp("", "trypema-history-*.html")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(porcupine.Visualize(model, info, f), f.Close()); err != nil {
		t.Error(err)
	}
	return f.Name()
}

// A limiter that does in two steps what must be one is found out, whichever verb it is.
func TestBrokenLimitersAreRejected(t *testing.T) {
	const bound = 2000 // histories; most need far fewer
	for name, wrap := range map[string]func(trypema.Limiter) trypema.Limiter{
		"AllowN": func(l trypema.Limiter) trypema.Limiter { return tornAllow{l} },
		"Set":    func(l trypema.Limiter) trypema.Limiter { return tornSet{l} },
		"Usage":  func(l trypema.Limiter) trypema.Limiter { return tornUsage{l} },
	} {
		for _, s := range subjects {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				withProcessors(t, 2)
				model := s.model()
				first, _ := seeds(t, bound)
				for seed := first; seed != first+bound; seed++ {
					traffic := drawTraffic(seed, s.window)
					traffic.keys, traffic.others = 1, 4
					history := s.history(t, traffic, wrap)
					if porcupine.CheckOperationsTimeout(model, history, time.Minute) == porcupine.Illegal {
						t.Logf("rejected by history %d", seed-first+1)
						return
					}
				}
				t.Fatalf("not rejected by %d histories", bound)
			})
		}
	}
}

// between is where a broken limiter lets others in. On a machine with one processor they would seldom come by themselves.
func between() {
	if runtime.NumCPU() == 1 {
		runtime.Gosched()
	}
}

// tornAllow looks first and records then.
type tornAllow struct{ trypema.Limiter }

func (l tornAllow) Allow(ctx context.Context, key string, rate trypema.Rate) (trypema.Decision, error) {
	return l.AllowN(ctx, key, rate, 1)
}

func (l tornAllow) AllowN(ctx context.Context, key string, rate trypema.Rate, n uint64) (trypema.Decision, error) {
	u, err := l.Usage(ctx, key, rate)
	if err != nil || n > u.Remaining {
		return l.Limiter.AllowN(ctx, key, rate, n)
	}
	between()
	d, err := l.Limiter.AllowN(ctx, key, trypema.Unlimited, n)
	d.Limit, d.Remaining = u.Limit, u.Remaining-n
	d.RemainingAfterWaiting = d.Remaining
	return d, err
}

// tornSet compares first and writes then.
type tornSet struct{ trypema.Limiter }

func (l tornSet) Set(ctx context.Context, key string, when trypema.Condition, total uint64, keep trypema.History) (trypema.SetResult, error) {
	u, err := l.Usage(ctx, key, trypema.Unlimited)
	if err != nil || !when.Holds(u.Total) {
		return trypema.SetResult{Previous: u.Total, Current: u.Total}, err
	}
	between()
	return l.Limiter.Set(ctx, key, trypema.Always(), total, keep)
}

// tornUsage reads the total at one instant and what remains at another.
type tornUsage struct{ trypema.Limiter }

func (l tornUsage) Usage(ctx context.Context, key string, rate trypema.Rate) (trypema.Usage, error) {
	before, err := l.Limiter.Usage(ctx, key, rate)
	if err != nil {
		return before, err
	}
	between()
	after, err := l.Limiter.Usage(ctx, key, rate)
	after.Total = before.Total
	return after, err
}
