package hybridlimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// crowd is some instances whose callers all wait on one key.
type crowd struct {
	instances int
	callers   func(instance int) int
	dear      uint64 // cost of the calls of the first instance, if it is not 0; others cost 1
	rate      float64
	window    time.Duration
	loss      float64       // part of the answers that get lost
	loops     bool          // the callers come again after RetryAfter, or else they call Wait
	late      time.Duration // by how much they come later, at most

	rng *rand.Rand

	seed  uint64
	ends  time.Duration // since began
	began time.Time
	mu    sync.Mutex
	log   []event
	all   []anywindow.Admission
	runs  int
}

func (c *crowd) String() string {
	how := "Wait"
	if c.loops {
		how = "RetryAfter"
	}
	return fmt.Sprintf("%d instances, %v/s in %v, %s, %v of the answers lost, %v late, costs to %d", c.instances, c.rate, c.window, how, c.loss, c.late, max(c.dear, 1))
}

func (c *crowd) run(t *testing.T, windows int) {
	server := fakeredis.New()
	server.Delay = time.Millisecond
	rng := rand.New(rand.NewPCG(c.seed, 0))
	c.rng = rand.New(rand.NewPCG(c.seed, 1))
	starts := rand.New(rand.NewPCG(c.seed, 2))
	var mu sync.Mutex
	server.Lose = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.Float64() < c.loss
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(windows)*c.window)
	defer cancel()
	c.began, c.ends = time.Now(), time.Duration(windows)*c.window
	limit := trypema.Limit{Rate: trypema.Rate(c.rate), Window: c.window}
	var all sync.WaitGroup
	var providers []*hybridlimit.Provider
	for i := range c.instances {
		o := redislimit.Options{Options: trypema.Options{Window: c.window}, OnFailure: redislimit.FailClosed}
		p, err := hybridlimit.New(server, hybridlimit.Options{Options: o})
		if err != nil {
			t.Fatal(err)
		}
		providers = append(providers, p)
		b, err := p.Bind(trypema.StrategyAbsolute, limit)
		if err != nil {
			t.Fatal(err)
		}
		for range c.callers(i) {
			late := time.Duration(starts.Int64N(int64(c.window / 10)))
			all.Go(func() {
				time.Sleep(late)
				cost := uint64(1)
				if i == 0 {
					cost = max(c.dear, 1)
				}
				for c.wait(ctx, t, b, cost) {
					now := time.Now()
					c.mu.Lock()
					for range cost {
						c.log = append(c.log, event{now, i})
					}
					c.all = append(c.all, anywindow.Admission{From: now, To: now, Cost: cost})
					c.mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	for _, p := range providers {
		_ = p.Close() // its last answer may get lost
	}
	c.runs = server.Runs
}

// wait returns when a call is admitted; false if ctx has ended.
func (c *crowd) wait(ctx context.Context, t *testing.T, b *trypema.Bound, cost uint64) bool {
	if !c.loops {
		_, err := b.WaitN(ctx, "k", cost)
		if err != nil && ctx.Err() == nil && !errors.Is(err, trypema.ErrWouldExceedDeadline) {
			t.Error(err)
		}
		return err == nil
	}
	for {
		d, err := b.AllowN(ctx, "k", cost)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			t.Error(err)
			return false
		case d.Allowed:
			return true
		}
		select {
		case <-time.After(d.RetryAfter + c.lateness()):
		case <-ctx.Done():
			return false
		}
	}
}

// lateness is by how much a caller comes later than it was told to.
func (c *crowd) lateness() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.late == 0 {
		return 0
	}
	return time.Duration(c.rng.Int64N(int64(c.late)))
}

// judged is how a crowd fared from some instant on.
type judged struct {
	use         float64       // of the limit
	least, most float64       // share of an instance over any ten windows, of a fair one
	gap         time.Duration // longest time without an admission of one instance
	fullest     uint64        // the most in a window
}

func (c *crowd) judge(from time.Duration) (j judged) {
	const span = 10 // windows
	j.least, j.fullest = 1e9, anywindow.Most(c.all, c.window)
	step := c.window / 4
	n := 0
	for i := range c.instances {
		last, at := c.began.Add(from), []time.Time(nil)
		for _, e := range c.log {
			if e.instance == i && !e.at.Before(last) {
				at = append(at, e.at)
				j.gap = max(j.gap, e.at.Sub(last))
				last = e.at
			}
		}
		j.gap = max(j.gap, c.began.Add(c.ends).Sub(last))
		n += len(at)
		fair := c.rate * c.window.Seconds() * span / float64(c.instances)
		for began := from; began+span*c.window <= c.ends; began += step {
			got := 0
			for _, t := range at {
				if since := t.Sub(c.began); since >= began && since < began+span*c.window {
					got++
				}
			}
			j.least, j.most = min(j.least, float64(got)/fair), max(j.most, float64(got)/fair)
		}
	}
	j.use = float64(n) / (c.rate * (c.ends - from).Seconds())
	return j
}

// Of instances whose callers always wait, each gets an equal share of the limit, and together they use it. No
// instance waits for longer than two windows, and no window holds more than the capacity. That holds whether
// the callers call Wait or come again after RetryAfter, a little late on a machine that is busy; while
// answers get lost; and however many callers an instance has, and whatever their calls cost.
func TestTurns(t *testing.T) {
	few := func(int) int { return 4 }
	one := func(int) int { return 1 }
	greedy := func(i int) int { return 1 + 63*(i%2) }
	var crowds []*crowd
	for i, window := range []time.Duration{time.Second, 10 * time.Second} {
		for j, rate := range []float64{5, 10, 50} {
			for k, instances := range []int{2, 3, 8} {
				for kind := range 4 {
					// Each rate, number of instances and kind comes at least once.
					if !explore.Long() && (i == 1 || (j+k)%2 == 1 || kind != (3*j+k)/2%4) {
						continue
					}
					c := &crowd{instances: instances, callers: few, rate: rate, window: window, loops: kind%2 == 0}
					if c.loops {
						c.callers = one
					}
					if kind >= 2 {
						c.loss = .02
					}
					crowds = append(crowds, c)
				}
			}
		}
	}
	if explore.Long() {
		crowds = append(crowds, &crowd{instances: 2, callers: greedy, rate: 50, window: time.Second})
	}
	for _, c := range append(crowds,
		&crowd{instances: 2, callers: greedy, rate: 5, window: time.Second},
		&crowd{instances: 2, callers: few, rate: 1000, window: 3 * time.Second}, // much between two messages
		&crowd{instances: 2, callers: few, rate: 50, window: time.Second, dear: 20},
		&crowd{instances: 3, callers: one, rate: 50, window: time.Second, loops: true, dear: 20},
		&crowd{instances: 3, callers: one, rate: 50, window: time.Second, loops: true, late: 5 * time.Millisecond},
		&crowd{instances: 2, callers: one, rate: 5, window: 10 * time.Second, loops: true, late: 20 * time.Millisecond},
	) {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			c.seed = explore.Seed(t)
			synctest.Test(t, func(t *testing.T) { c.run(t, max(14, explore.Size(14, 40))) })
			j := c.judge(4 * c.window)
			t.Logf("use %.3f, shares %.2f to %.2f, the longest gap %v, %d of %v in a window; %.1f exchanges a second",
				j.use, j.least, j.most, j.gap, j.fullest, c.capacity(), float64(c.runs)/c.ends.Seconds())
			use, off, gap := .965, .25, 2*c.window
			if c.loss > 0 {
				use, off, gap = .94, .35, 3*c.window
			}
			if c.dear > 0 { // what is kept free for such a call is not used meanwhile
				use, off = .7, .35
			}
			if j.use < use {
				t.Errorf("use %.3f, want %.3f", j.use, use)
			}
			if j.least < 1-off || j.most > 1+off {
				t.Errorf("shares %.2f to %.2f of a fair one", j.least, j.most)
			}
			if j.gap > gap {
				t.Errorf("an instance got nothing for %v", j.gap)
			}
			if float64(j.fullest) > c.capacity() {
				t.Errorf("%d in a window of at most %v", j.fullest, c.capacity())
			}
		})
	}
}

// capacity returns that of a window.
func (c *crowd) capacity() float64 { return c.rate * c.window.Seconds() }

// Calls that cost all of a small capacity and calls that cost less of it do not wait for each other for ever:
// what an instance has of a call goes back.
func TestTurnsOfPartsOfACall(t *testing.T) {
	for range 8 { // the numbers of holders are random, and so is who comes first
		c := &crowd{instances: 2, callers: func(int) int { return 2 }, rate: 2, window: time.Second, dear: 2}
		synctest.Test(t, func(t *testing.T) { c.run(t, 20) })
		if j := c.judge(4 * c.window); j.use < .7 || j.fullest > 2 {
			t.Fatalf("use %.3f, %d of 2 in a window", j.use, j.fullest)
		}
	}
}

// Room that an instance gives back is there within sixty intervals for those that take turns, although the
// next turn of each is further away.
func TestTurnsNoticeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = time.Millisecond
		const window, interval = time.Minute, 50 * time.Millisecond
		bind := func() *trypema.Bound {
			o := hybridlimit.Options{SyncInterval: interval, Options: redislimit.Options{Options: trypema.Options{Window: window}}}
			b, err := open(t, f, o).Bind(trypema.StrategyAbsolute, trypema.Limit{Rate: 100. / 60, Window: window})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		one, others := bind(), []*trypema.Bound{bind(), bind()}
		for _, b := range others {
			for range 5 {
				if d, err := b.Allow(ctx, "k"); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
			}
		}
		time.Sleep(window * 2 / 3) // the others have given back what they have not used
		r, err := one.Reserve(ctx, "k", 85, 0)
		if err != nil || !r.Allowed {
			t.Fatal(r, err)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, b := range others {
			go func() {
				for {
					if _, err := b.Wait(ctx, "k"); err != nil {
						return
					}
				}
			}()
		}
		time.Sleep(window/2 + 5*time.Second) // what the others had used has expired, and is used again
		if d, err := others[0].Allow(ctx, "k"); err != nil || d.Allowed || d.RetryAfter < 300*interval {
			t.Fatal(d, err)
		}
		if err := r.Refund(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for allowed := false; !allowed; time.Sleep(interval) {
			d, err := others[0].Allow(ctx, "k")
			if allowed = d.Allowed; err != nil || time.Since(began) > 100*interval {
				t.Fatalf("%+v, %v after %v", d, err, time.Since(began))
			}
		}
		cancel()
		synctest.Wait()
	})
}

// Instances whose callers wait use most of the limit in a short window, too, in which they settle only a few
// times. From twenty intervals on they use nine tenths.
func TestShortWindows(t *testing.T) {
	for _, test := range []struct {
		window time.Duration
		least  float64
	}{{20 * time.Millisecond, .55}, {50 * time.Millisecond, .75}, {100 * time.Millisecond, .85}} {
		for _, capacity := range []float64{10, 100} {
			synctest.Test(t, func(t *testing.T) {
				const windows = 30
				c := &crowd{
					instances: 2, callers: func(int) int { return 16 },
					rate: capacity / test.window.Seconds(), window: test.window, seed: explore.Seed(t),
				}
				c.run(t, windows)
				use := float64(len(c.all)) / capacity / windows
				if most := anywindow.Most(c.all, test.window); use < test.least || most > uint64(capacity) {
					t.Errorf("%v: use %.3f, want %v; %d of %v in a window", c, use, test.least, most, capacity)
				}
			})
		}
	}
}
