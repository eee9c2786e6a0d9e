package hybridlimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// line is the connection of one instance to a server. It decides for each exchange what becomes of it.
type line struct {
	*fakeredis.Server
	fault fault

	mu  sync.Mutex
	rnd *rand.Rand
	bad bool
}

// fault is what happens to exchanges: a share of them is lost, on the way there or back; or the answers are
// late.
type fault struct {
	name     string
	lost     float64
	requests bool          // they are lost, or else the answers
	silent   bool          // the caller hears nothing, or else that the connection broke
	from, to time.Duration // how late answers are
}

var faults = []fault{
	{name: "half of the answers lost", lost: .5},
	{name: "answers late", from: 100 * time.Millisecond, to: 400 * time.Millisecond},
	{name: "nine tenths of the requests lost in silence", lost: .9, requests: true, silent: true},
	{name: "a tenth of the answers lost in silence", lost: .1, silent: true},
	// Those that follow are tried at length.
	{name: "nine tenths of the answers lost", lost: .9},
	{name: "half of the requests lost", lost: .5, requests: true},
	{name: "half of the answers lost in silence", lost: .5, silent: true},
	{name: "a tenth of the answers lost", lost: .1},
}

func (c *line) setBad(bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bad = bad
}

// Run implements redislimit.Conn, as a client that ends its exchanges with ctx.
func (c *line) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	c.mu.Lock()
	lost := c.bad && c.rnd.Float64() < c.fault.lost
	var delay time.Duration
	if c.bad && c.fault.to > 0 {
		delay = c.fault.from + time.Duration(c.rnd.Int64N(int64(c.fault.to-c.fault.from)))
	}
	c.mu.Unlock()
	fail := func(err error) {
		for i := range keys {
			answer(i, nil, err)
		}
	}
	wait := func(d time.Duration) bool {
		if d == 0 {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	lose := func() {
		err := errors.New("connection reset by peer")
		if c.fault.silent {
			<-ctx.Done()
			err = ctx.Err()
		}
		fail(err)
	}
	if lost && c.fault.requests {
		lose()
		return
	}
	if !wait(delay / 2) {
		fail(ctx.Err())
		return
	}
	replies, errs := make([][]any, len(keys)), make([]error, len(keys))
	c.Server.Run(ctx, source, sha1, keys, args, func(i int, reply []any, err error) { replies[i], errs[i] = reply, err })
	switch {
	case lost:
		lose()
	case !wait(delay / 2):
		fail(ctx.Err())
	default:
		for i := range keys {
			answer(i, replies[i], errs[i])
		}
	}
}

const (
	flapWindow   = 5 * time.Second
	flapRate     = 20 // per second
	flapCapacity = 100
	flapTimeout  = 250 * time.Millisecond

	// Redis flaps from one window after the beginning until flapEnd. What is used of the limit is judged from
	// one window later on.
	flapEnd  = 25 * time.Second
	flapOver = 40 * time.Second
)

// While Redis answers now and then, FailLocal admits what it promises: with Instances set, all together the
// limit, and otherwise at least that, and each at most that. Suppressed makes no pauses. FailClosed never
// passes the limit, and FailOpen denies nothing by itself. A window after Redis is well again, all is as
// before.
func TestFlappingRedis(t *testing.T) {
	for _, provider := range []string{"Redis", "Hybrid"} {
		for _, suppressed := range []bool{false, true} {
			for _, o := range []redislimit.Options{
				{OnFailure: redislimit.FailLocal, Instances: 1},
				{OnFailure: redislimit.FailLocal, Instances: 2},
				{OnFailure: redislimit.FailOpen, Instances: 1},
				{OnFailure: redislimit.FailClosed, Instances: 1},
			} {
				if suppressed && (o.Instances == 1 || provider == "Redis") && !explore.Long() { // as Absolute
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, %v, Instances %d", provider, name(suppressed), o.OnFailure, o.Instances), func(t *testing.T) {
					t.Parallel()
					tries := 1
					if o.OnFailure == redislimit.FailLocal {
						tries = 2*o.Instances - 1
					}
					if explore.Long() {
						tries = len(faults)
					}
					seed := explore.Seed(t)
					var during, after float64
					for i, what := range faults[:tries] {
						synctest.Test(t, func(t *testing.T) {
							f := &flap{T: t, Options: o, seed: seed + uint64(i), fault: what}
							f.Window, f.Timeout = flapWindow, flapTimeout
							f.run(provider, suppressed)
							f.judge(suppressed)
							during, after = during+f.use(2*flapWindow, flapEnd), after+f.use(flapEnd+flapWindow, flapOver)
						})
					}
					// A tenth is promised, and the rest is for chance: some hundred calls are not many.
					const least, most = .87, 1.13
					during, after = during/float64(tries), after/float64(tries)
					t.Logf("on average %.2f of the limit while it flaps, %.2f afterwards", during, after)
					if o.OnFailure == redislimit.FailLocal && (during < least || o.Instances > 1 && during > most) {
						t.Errorf("%.2f of the limit admitted while Redis flaps", during)
					}
					if after < .85 || after > 1.15 {
						t.Errorf("%.2f of the limit admitted once Redis is well", after)
					}
				})
			}
		}
	}
}

// flap is two instances, each of which is offered a quarter more than their limit.
type flap struct {
	*testing.T
	redislimit.Options
	seed  uint64
	fault fault
	began time.Time

	mu    sync.Mutex
	calls []flapCall
}

type flapCall struct {
	anywindow.Admission
	instance          int
	allowed, fallback bool
}

func (f *flap) run(provider string, suppressed bool) {
	server := fakeredis.New()
	server.Delay = time.Millisecond
	var lines []*line
	var all sync.WaitGroup
	f.began = time.Now()
	for i := range 2 {
		c := &line{Server: server, fault: f.fault, rnd: rand.New(rand.NewPCG(f.seed, uint64(i)))}
		lines = append(lines, c)
		var p interface {
			Absolute() trypema.Limiter
			Suppressed() trypema.Limiter
			Close() error
		}
		var err error
		if provider == "Redis" {
			p, err = redislimit.New(c, f.Options)
		} else {
			p, err = hybridlimit.New(c, hybridlimit.Options{Options: f.Options})
		}
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() {
			if err := p.Close(); err != nil {
				f.Error(err)
			}
		})
		l := p.Absolute()
		if suppressed {
			l = p.Suppressed()
		}
		all.Go(func() { f.offer(&all, i, l) })
	}
	for _, at := range []time.Duration{flapWindow, flapEnd} {
		time.Sleep(at - time.Since(f.began))
		for _, c := range lines {
			c.setBad(at == flapWindow)
		}
	}
	all.Wait()
}

func (f *flap) offer(all *sync.WaitGroup, instance int, l trypema.Limiter) {
	rnd := rand.New(rand.NewPCG(f.seed, uint64(instance)+100))
	for next := f.began; time.Since(f.began) < flapOver; {
		next = next.Add(time.Duration(rnd.ExpFloat64() / (1.25 * flapRate) * 1e9))
		time.Sleep(time.Until(next))
		all.Go(func() {
			c := flapCall{instance: instance, Admission: anywindow.Admission{From: time.Now(), Cost: 1}}
			d, err := l.Allow(ctx, "k", flapRate)
			if err != nil {
				f.Error(err)
			}
			c.To, c.allowed, c.fallback = time.Now(), d.Allowed, d.Fallback
			f.mu.Lock()
			defer f.mu.Unlock()
			f.calls = append(f.calls, c)
		})
	}
}

// admitted returns the admissions in a time by calls for which a condition holds.
func (f *flap) admitted(from, to time.Duration, of func(flapCall) bool) (log []anywindow.Admission) {
	for _, c := range f.calls {
		if c.allowed && of(c) && c.To.Sub(f.began) >= from && c.To.Sub(f.began) < to {
			log = append(log, c.Admission)
		}
	}
	return log
}

func (f *flap) use(from, to time.Duration) float64 {
	return float64(len(f.admitted(from, to, anybody))) / (flapRate * (to - from).Seconds())
}

func anybody(flapCall) bool { return true }

func (f *flap) judge(suppressed bool) {
	most := func(from time.Duration, of func(flapCall) bool) uint64 {
		return anywindow.Most(f.admitted(from, flapOver, of), flapWindow)
	}
	var by [2]uint64
	for i := range by {
		by[i] = most(0, func(c flapCall) bool { return c.instance == i })
	}
	policy := most(0, func(c flapCall) bool { return c.fallback })
	together, after := most(0, anybody), most(flapEnd+flapWindow, anybody)
	var alone, denied, still int
	var longest, pause time.Duration
	for _, c := range f.calls {
		longest = max(longest, c.To.Sub(c.From))
		if c.fallback {
			alone++
			if !c.allowed {
				denied++
			}
			if c.From.Sub(f.began) >= flapEnd+flapWindow+2*time.Second { // FailLocal has a say for a window
				still++
			}
		}
	}
	log := f.admitted(flapWindow, flapEnd, anybody)
	slices.SortFunc(log, func(a, b anywindow.Admission) int { return a.To.Compare(b.To) })
	last := f.began.Add(flapWindow)
	for _, a := range append(log, anywindow.Admission{To: f.began.Add(flapEnd)}) {
		pause, last = max(pause, a.To.Sub(last)), a.To
	}
	f.Logf("%s: %.2f of the limit, and %.2f afterwards; the longest pause %v; in a window %d of %d together, %d and %d by each, %d by the policy, %d afterwards; "+
		"%d of %d calls decided by the policy; the longest took %v", f.fault.name, f.use(2*flapWindow, flapEnd), f.use(flapEnd+flapWindow, flapOver),
		pause.Round(time.Millisecond), together, flapCapacity, by[0], by[1], policy, after, alone, len(f.calls), longest)

	hard := uint64(flapCapacity)
	if suppressed {
		hard = hard * 3 / 2
	}
	if longest > flapTimeout {
		f.Errorf("%s: a call took %v", f.fault.name, longest)
	}
	if after > hard || still > 0 {
		f.Errorf("%s: a window after the end, %d of %d admitted in a window; later %d calls decided by the policy",
			f.fault.name, after, hard, still)
	}
	switch f.OnFailure {
	case redislimit.FailLocal:
		if max(by[0], by[1]) > hard {
			f.Errorf("%s: one instance admitted %d of %d in a window", f.fault.name, max(by[0], by[1]), hard)
		}
		if f.Instances > 1 && policy > hard {
			f.Errorf("%s: the policy admitted %d of %d in a window", f.fault.name, policy, hard)
		}
		// A pause is about as long as answers take and chance makes it: with answers that are late by up to
		// 400 ms, some are a little longer than a second.
		if suppressed && pause > 2*time.Second {
			f.Errorf("%s: a pause of %v", f.fault.name, pause)
		}
	case redislimit.FailOpen:
		if denied > 0 {
			f.Errorf("%s: the policy denied %d calls", f.fault.name, denied)
		}
	default:
		if together > hard {
			f.Errorf("%s: %d of %d admitted in a window", f.fault.name, together, hard)
		}
	}
}
