package hybridlimit_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// threadTime is the processor time of the thread. What settles in the background has other threads.
func threadTime() time.Duration {
	const threadClock = 3 // CLOCK_THREAD_CPUTIME_ID
	var t syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadClock, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}

// BenchmarkBesideLocal is what a call of Hybrid costs its caller, beside one of Local: processor time of one
// thread, in turns of a few milliseconds. An iteration is a turn of each, so -benchtime=100x suits it. The
// ratio is Local's time through Hybrid's, the median and the quartiles of all turns.
func BenchmarkBesideLocal(b *testing.B) {
	for _, keys := range []int{1, 1000, 10_000, 100_000} {
		rate := trypema.Rate(1000)
		switch {
		case keys == 1: // or the keys are over their limit
			rate = trypema.Unlimited
		case keys <= 1000:
			rate = 1e6
		}
		for _, window := range []time.Duration{time.Second, 10 * time.Second} {
			b.Run(fmt.Sprint(keys, "/", window), func(b *testing.B) {
				besideLocal(b, trypema.StrategyAbsolute, keys, window, rate, .05)
			})
		}
	}
}

// BenchmarkSuppressedBesideLocal is that under Suppressed: keys far over their limit, and below it.
func BenchmarkSuppressedBesideLocal(b *testing.B) {
	for _, test := range []struct {
		keys int
		rate trypema.Rate
	}{{1, 1e6}, {10_000, 1}, {10_000, 1000}, {100_000, 1000}} {
		b.Run(fmt.Sprint(test.keys, "/", test.rate), func(b *testing.B) {
			besideLocal(b, trypema.StrategySuppressed, test.keys, time.Second, test.rate, 1)
		})
	}
}

// besideLocal is one case. No more than a part of the calls may be denied.
func besideLocal(
	b *testing.B, s trypema.Strategy, keys int, window time.Duration, rate trypema.Rate, most float64,
) {
	o := trypema.Options{Window: window}
	local, err := trypema.NewLocal(o)
	if err != nil {
		b.Fatal(err)
	}
	defer local.Close()
	hybrid := open(b, fakeredis.New(),
		hybridlimit.Options{Options: redislimit.Options{Options: o, Timeout: 10 * time.Second}})
	limiters := []trypema.Limiter{local.Absolute(), hybrid.Absolute()}
	if s == trypema.StrategySuppressed {
		limiters = []trypema.Limiter{local.Suppressed(), hybrid.Suppressed()}
	}
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprint("user:", i)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	x := rand.Uint64()
	const calls = 20_000
	turn := func(l trypema.Limiter) (each float64) {
		denied, began := 0, threadTime()
		for range calls {
			x = x*6364136223846793005 + 1442695040888963407
			d, err := l.Allow(ctx, names[x>>32*uint64(keys)>>32], rate)
			if err != nil || d.Fallback {
				b.Fatal(d, err)
			}
			if !d.Allowed {
				denied++
			}
		}
		each = float64(threadTime()-began) / calls
		if float64(denied) > calls*most {
			b.Errorf("%d of %d denied", denied, calls)
		}
		return each
	}
	for _, name := range names {
		limiters[1].Allow(ctx, name, rate) //nolint:errcheck // it makes the key known
	}
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		turn(limiters[0])
		turn(limiters[1])
	}
	var ns [2][]float64
	var ratios []float64
	b.ResetTimer()
	for i := range b.N {
		var each [2]float64
		for k := range limiters {
			who := (i + k) % 2
			each[who] = turn(limiters[who])
			ns[who] = append(ns[who], each[who])
		}
		ratios = append(ratios, each[0]/each[1])
	}
	at := func(all []float64, q float64) float64 {
		slices.Sort(all)
		return all[int(q*float64(len(all)-1))]
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(ns[0], .5), "local-ns")
	b.ReportMetric(at(ns[1], .5), "hybrid-ns")
	b.ReportMetric(at(ratios, .25), "p25")
	b.ReportMetric(at(ratios, .5), "ratio")
	b.ReportMetric(at(ratios, .75), "p75")
}
