package onmodel

import (
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/redislimit"
)

// drawHybrid draws options of instances that share a server.
func drawHybrid(t *rapid.T) hybridlimit.Options {
	var o hybridlimit.Options
	o.Options.Options = drawOptions(t)
	w := o.Window
	o.Bucket = o.Bucket.Truncate(time.Microsecond) // as Redis counts
	// Ten thousand exchanges in a window show no more than a thousand.
	shortest := max(time.Millisecond, w/time.Duration(explore.Length(1000, 10_000)))
	o.SyncInterval = rapid.SampledFrom([]time.Duration{0, 0, shortest, w / 10, w}).Draw(t, "interval")
	o.Timeout = rapid.SampledFrom([]time.Duration{0, 20 * time.Millisecond}).Draw(t, "timeout")
	o.RetryInterval = rapid.SampledFrom([]time.Duration{0, 50 * time.Millisecond}).Draw(t, "retry interval")
	o.OnFailure = redislimit.FailClosed
	return o
}

// runFleet makes runs on one processor: with several, the race detector of Go 1.26 may crash where a timer of
// a bubble is run by the bubble and by who receives from it at the same time.
func runFleet(t *testing.T, draw func(t *rapid.T) (Setup, int)) *Figures {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	figures := &Figures{Faults: map[string]int{}}
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			setup, n := draw(t)
			f := NewFleet(t, setup, n, figures)
			defer f.end()
			f.Run(t)
		})
	})
	t.Logf("%+v", *figures)
	if f := figures; f.Full == 0 || f.Exact == 0 || f.Events == 0 || f.Usages == 0 || f.Whole == 0 ||
		f.Denied == 0 || f.Settled == 0 {
		t.Errorf("something has not happened at all: %+v", *f)
	}
	return figures
}

// All verbs of one instance of Hybrid, single limits and several, with a server that answers: it admits
// nothing that the naive twin would not, denies nothing for longer than settling takes, and the ledger has
// every event once.
func TestHybridAlone(t *testing.T) {
	f := runFleet(t, func(t *rapid.T) (Setup, int) {
		o := drawHybrid(t)
		// With longer ones, a key may be forgotten here before its lease has gone back.
		o.SyncInterval = min(o.SyncInterval, o.Window/20)
		return Setup{Options: o, Strategy: drawStrategy(t), Calm: true}, 1
	})
	if f.Twins == 0 || f.Fallbacks+f.Errors > 0 {
		t.Errorf("%d answers of twins, %d fallbacks, %d errors", f.Twins, f.Fallbacks, f.Errors)
	}
}

// One to four instances, and a server that goes and comes back, forgets, is far away, loses answers or gets
// messages twice, while instances are cut off, end or die: the bound holds, of all together by FailClosed and
// of each by FailLocal; no event is lost or counted twice; no call takes longer than Timeout, or has an error
// or a fallback that nobody has caused; and when all is well again the whole capacity is there.
func TestHybrid(t *testing.T) {
	f := runFleet(t, func(t *rapid.T) (Setup, int) {
		o := drawHybrid(t)
		if rapid.Bool().Draw(t, "local") {
			o.OnFailure = redislimit.FailLocal
			o.Instances = rapid.SampledFrom([]int{1, 2, 4}).Draw(t, "instances that share")
		}
		o.OnEmpty = rapid.SampledFrom([]hybridlimit.EmptyPolicy{hybridlimit.EmptyWait, hybridlimit.EmptyWait, hybridlimit.EmptyReject}).Draw(t, "on empty")
		mixed := rapid.Bool().Draw(t, "mixed")
		setup := Setup{Options: o, Strategy: drawStrategy(t), Mixed: mixed}
		return setup, rapid.IntRange(1, 4).Draw(t, "instances")
	})
	for _, fault := range []string{"the server goes", "the server forgets", "a long line", "a line that is cut", "a line that loses answers", "a line with echoes", "closed", "dies"} {
		if f.Faults[fault] == 0 {
			t.Errorf("not once: %s", fault)
		}
	}
}
