package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/proof/proxy"
	"github.com/trypema/trypema/internal/proof/realredis"
)

// run is a soak under way: the faults, the samples, the judging. All of it is in one goroutine; the callers
// are in others.
type run struct {
	*command
	*sampler
	*progress
	faulty
	samples []sample
	stalls  int
}

// faulty is what happens to Redis, in turn.
type faulty struct {
	server  *realredis.Server
	client  *redis.Client
	failed  error // to pause or resume the server
	proxy   *proxy.Proxy
	every   time.Duration
	count   int
	paused  time.Time // since when the server is stopped, or zero
	periods []period
}

// pause is how long the server is stopped.
const pause = time.Second

// strike does what comes next, and returns when strike is to be called again.
func (f *faulty) strike(now time.Time) (wait time.Duration) {
	if f.isPaused() {
		f.resume(now)
		return f.every - pause
	}
	f.count++
	switch f.count % 3 {
	case 1:
		f.failed = errors.Join(f.failed, f.server.Pause())
		f.paused = now
		f.periods = append(f.periods, period{"server stopped", now, now.Add(pause), true})
		return pause
	case 2:
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = f.client.ScriptFlush(ctx).Err() // of a server that is too busy nothing is asked
		f.periods = append(f.periods, period{"scripts flushed", now, now, false})
	default:
		f.proxy.Reset()
		f.periods = append(f.periods, period{"connections reset", now, now, true})
	}
	return f.every
}

func (f *faulty) isPaused() bool { return !f.paused.IsZero() }

func (f *faulty) resume(now time.Time) {
	f.failed = errors.Join(f.failed, f.server.Resume())
	f.paused = time.Time{}
	f.periods[len(f.periods)-1].to = now
}

func (f *faulty) latest() string {
	if len(f.periods) == 0 {
		return "none yet"
	}
	p := f.periods[len(f.periods)-1]
	return fmt.Sprintf("%s %.0f s ago", p.what, time.Since(p.from).Seconds())
}

const (
	tick  = 50 * time.Millisecond
	stall = 200 * time.Millisecond // a tick that comes so late says that the machine stood still
)

// run goes on until the context ends.
func (r *run) run(ctx context.Context) {
	every := min(max(r.For/300, window), 10*window).Round(window)
	next, second, fault := r.began.Add(every), r.began.Add(time.Second), r.began.Add(r.every)
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	before := time.Now()
	for ctx.Err() == nil {
		select {
		case <-ticks.C:
		case <-ctx.Done():
		}
		now := time.Now()
		if now.Sub(before) > stall {
			r.stalls++
			r.periods = append(r.periods, period{"the machine stood still", before, now, true})
		}
		if !now.Before(fault) {
			fault = now.Add(r.strike(now))
		}
		if !now.Before(second) {
			second = now.Add(time.Second)
			r.judge(now)
			r.set(r.standing(now))
		}
		if !now.Before(next) {
			next = next.Add(every)
			from := r.last
			s := r.take(r.isPaused())
			s.Excused = excused(r.periods, from, now)
			r.samples = append(r.samples, s)
		}
		before = time.Now()
	}
	if r.isPaused() {
		r.resume(time.Now())
	}
	time.Sleep(timeout) // for the last calls
	r.judge(time.Now())
}

func (r *run) judge(now time.Time) {
	for _, l := range r.lanes {
		for _, one := range l.watches {
			one.judge(now)
		}
	}
}

// standing is how things stand, in a line.
func (r *run) standing(now time.Time) string {
	var s sample
	if len(r.samples) > 0 {
		s = r.samples[len(r.samples)-1]
	}
	fullest, over := 0., ""
	for _, one := range bound(r.lanes) {
		fullest = max(fullest, one.Value/one.Bound)
		if one.Verdict == fail {
			over = " ABOVE THE BOUND"
		}
	}
	return fmt.Sprintf("%v left  %.0f calls/s  heap %.1f MB  %.0f goroutines  keys %.0f, Redis %.0f, %.1f MB  fullest window %.3f%s  fault: %s",
		r.For-now.Sub(r.began).Round(time.Second), s.Calls, s.Heap, s.Goroutines, s.LocalKeys+s.HybridKeys, s.RedisKeys, s.RedisMB, fullest, over, r.latest())
}

// counted judges what was counted, what was not explained, and whether things got well again.
func (r *run) counted() (rules []rule) {
	for i, l := range r.lanes {
		m := r.meter(l)
		rules = append(rules,
			judge("calls counted by the Observer", l.String(), float64(m.Allowed+m.Rejected+m.Suppressed+m.Errors), "=", float64(l.offered.Load())),
			judge("admissions counted by the Observer", l.String(), float64(m.Allowed), "=", float64(l.allowed.Load())),
		)
		l.mu.Lock()
		wrong := judge("errors", l.String(), float64(l.errors.Load()), "=", 0)
		if l.err != nil {
			wrong.Note = l.err.Error()
		}
		strange := judge("fallbacks without a fault", l.String(), float64(unexplained(l.strange, r.periods)),
			"=", 0)
		strange.Note = fmt.Sprintf("%d in all", l.fallbacks)
		l.mu.Unlock()
		rules = append(rules, wrong)
		if l.provider != "local" {
			rules = append(rules, strange, recovers(l.String(), i, r.samples, r.periods, r.began))
			if m.RedisErr != nil {
				rules = append(rules, rule{Name: "Redis is unavailable at the end", Where: l.String(), Value: 1, Verdict: fail, Note: m.RedisErr.Error()})
			}
		}
	}
	return rules
}

// recovers judges how long after a fault a lane was at work again, at the longest: until the first sample of
// a time without fallbacks in which the hot key was used.
func recovers(where string, lane int, samples []sample, periods []period, began time.Time) rule {
	longest, judged := 0., 0
	for _, p := range periods {
		ended := p.to.Sub(began).Seconds()
		for i, s := range samples {
			if i == 0 || samples[i-1].Seconds < ended {
				continue
			}
			if one := s.Lanes[lane]; one.Fallback == 0 && one.Hot >= 0.8 {
				longest = max(longest, samples[i-1].Seconds-ended)
				judged++
				break
			}
			if i == len(samples)-1 && s.Seconds-ended > 2*recovery.Seconds() {
				longest, judged = max(longest, s.Seconds-ended), judged+1
			}
		}
	}
	if judged == 0 {
		return tooShort("seconds to recover from a fault", where)
	}
	r := judge("seconds to recover from a fault", where, longest, "≤", 2*recovery.Seconds())
	r.Note = fmt.Sprintf("%d faults", judged)
	return r
}

// leaves judges how long the keys that are left in Redis stay there; one that does not expire stays for
// longer than any may.
func (r *run) leaves() rule {
	const name = "seconds until Redis has no key any more"
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	longest := 0.
	keys := r.sampler.server.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		left, err := r.sampler.server.PTTL(ctx, keys.Val()).Result()
		if err == nil && left == -1 {
			return rule{Name: name, Where: "Redis", Value: -1, Verdict: fail, Note: keys.Val() + " does not expire"}
		}
		longest = max(longest, left.Seconds())
	}
	if err := keys.Err(); err != nil {
		return rule{Name: name, Where: "Redis", Value: -1, Verdict: fail, Note: err.Error()}
	}
	return judge(name, "Redis", longest, "≤", 40) // a lease of 20 s, a window of 10 s, and what keeps keys for longer
}
