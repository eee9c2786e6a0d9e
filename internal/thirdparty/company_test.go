package thirdparty

import (
	"fmt"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
)

// This file proves that what a limiter says of a key does not depend on the keys beside it. Two limiters are
// asked the same of the same few keys, at the same instants of virtual time; one of them also sees crowds of
// others come, share its shards, pages and memory, go idle, and be swept out, upon which the few that stay
// are moved together. Every answer must be the same in all its fields, of keys that are called too seldom to
// become the hot one of their shard: whether a key is hot depends on others, and what a hot key has admitted
// may count for up to a bucket longer.
//
// The fuzz targets, which compare with a naive twin of each key, never have more than a handful of keys, and
// the tests of the table have states without memory of their own; so nothing else moves windows that hold
// groups.

// visit is a step of a program: a wait, then a call of each key of a crowd, then calls of one of the few
// keys.
type visit struct {
	wait  time.Duration
	crowd int
	times int
	call
}

func (v visit) GoString() string {
	return fmt.Sprintf("\n\tafter %v, a call of %d others, %d × %v", v.wait, v.crowd, v.times, v.call)
}

// program is a run of both limiters.
type program struct {
	bucket     time.Duration
	suppressed bool // with a HardLimitFactor of 1: by need and never by chance
	visits     []visit
}

const (
	companyWindow = 10 * time.Second
	worthIt       = 16 // calls until a key can be hot
	fewKeys       = 10
)

// crowd is the keys of the others. So many that, spread over the shards, they fill more than a page of each.
var crowd = func() (keys [12_000]string) {
	for i := range keys {
		keys[i] = key(fewKeys + i)
	}
	return keys
}()

func drawVisit(t *rapid.T) visit {
	draw := func(label string, values ...int) int { return rapid.SampledFrom(values).Draw(t, label) }
	v := visit{
		wait: rapid.SampledFrom([]time.Duration{
			0, 0, 1, time.Millisecond, companyWindow / 100, companyWindow / 30, companyWindow / 10, companyWindow / 2, companyWindow,
		}).Draw(t, "wait"),
		crowd: draw("crowd", 0, 0, 0, 0, 0, 1, 30, 1000),
		times: draw("times", 1, 1, 2, 20), // often enough to make it hot
	}
	if v.crowd == 1000 && draw("all", 0, 0, 1) == 1 {
		v.crowd = len(crowd)
	}
	v.verb = rapid.SampledFrom([]verb{allow, allowN, allowN, allowN, peek, usage, set, remove}).Draw(t, "verb")
	v.key = key(draw("key", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
	v.capacity = uint64(draw("limit", 20, 5, 100, unlimited))
	v.n = uint64(draw("cost", 1, 2, 3, 7, 21))
	if v.verb == set {
		near := uint64(draw("near", 0, 1, 2, 5, 20, 60))
		v.when = rapid.SampledFrom([]trypema.Condition{
			trypema.Always(), trypema.Equal(near), trypema.NotEqual(near), trypema.Less(near), trypema.Greater(near),
		}).Draw(t, "when")
		v.total = uint64(draw("total", 0, 1, 2, 5, 20, 60))
		v.keep = rapid.SampledFrom([]trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}).Draw(t,
			"keep")
	}
	return v
}

// run returns the first difference, or nothing.
func (p program) run() (difference string) {
	// A panic leaves locks behind, so only a run without one closes what it made.
	defer func() {
		if r := recover(); r != nil {
			difference = fmt.Sprintf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	alone, crowded := p.limiter(), p.limiter()
	strategy := (*trypema.Local).Absolute
	if p.suppressed {
		strategy = (*trypema.Local).Suppressed
	}
	calls := make(map[string]int)
	for i, v := range p.visits {
		time.Sleep(v.wait)
		for _, other := range crowd[:v.crowd] {
			single{strategy(crowded)}.send(call{verb: allow, key: other}, 1)
		}
		r := rate(v.capacity, companyWindow)
		for range v.times {
			want, got := single{strategy(alone)}.send(v.call, r), single{strategy(crowded)}.send(v.call, r)
			calls[v.key]++
			if got != want && difference == "" && calls[v.key] < worthIt {
				difference = fmt.Sprintf("visit %d:\n   alone: %s\nin crowd: %s", i, v.describe(want),
					v.describe(got))
			}
		}
	}
	alone.Close()
	crowded.Close()
	return difference
}

func (p program) limiter() *trypema.Local {
	l, err := trypema.NewLocal(trypema.Options{Window: companyWindow, Bucket: p.bucket, HardLimitFactor: 1})
	if err != nil {
		panic(err)
	}
	return l
}

func TestCompanyDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := program{
			bucket: rapid.SampledFrom([]time.Duration{
				time.Millisecond, companyWindow / 100, companyWindow / 7, companyWindow,
			}).Draw(rt, "bucket"),
			suppressed: rapid.Bool().Draw(rt, "suppressed"),
		}
		n := rapid.SampledFrom([]int{1, 20, 60, 60}).Draw(rt, "visits")
		p.visits = rapid.SliceOfN(rapid.Custom(drawVisit), n, n).Draw(rt, "program")
		// The program is drawn before and judged after: rapid works outside the bubble in which time is
		// virtual.
		var difference string
		synctest.Test(t, func(*testing.T) { difference = p.run() })
		if difference != "" {
			rt.Fatal(difference)
		}
	})
}
