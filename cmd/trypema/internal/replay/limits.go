package replay

import (
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/window"
)

// rule is some limits that are kept together by a strategy.
type rule struct {
	text     string
	strategy trypema.Strategy
	limits   []limit
}

// limit is one of them, in the unit of the log.
type limit struct {
	capacity uint64
	span     window.Span
	law      *window.Law // of Suppressed
}

// defaults are the options of a provider that has none.
var defaults = func() trypema.Options {
	o, err := trypema.Options{}.WithDefaults()
	if err != nil {
		panic(err)
	}
	return o
}()

// spanOf is a window as the library keeps it.
func spanOf(w time.Duration) window.Span {
	return window.Span{Window: int64(w), Bucket: int64(defaults.BucketOf(w))}
}

// parseRule reads limits as in 10/s,1000/h.
func parseRule(text string, s trypema.Strategy) (*rule, error) {
	r := &rule{text: text, strategy: s}
	var limits []trypema.Limit
	for one := range strings.SplitSeq(text, ",") {
		l, err := trypema.ParseLimit(strings.TrimSpace(one))
		if err != nil {
			return nil, err
		}
		limits = append(limits, l)
	}
	if err := trypema.CheckLimits(s, limits); err != nil {
		return nil, err
	}
	for _, l := range limits {
		if l.IsNoLimit() {
			continue
		}
		c, _ := l.Capacity() // it was checked
		one := limit{capacity: c, span: spanOf(l.Window)}
		if s == trypema.StrategySuppressed {
			one.law = window.NewLaw(one.span, max(c, 1), defaults.HardLimitFactor)
		}
		r.limits = append(r.limits, one)
	}
	return r, nil
}

// judge is the windows of one key under one rule, as the library decides by them, and what other algorithms
// would have admitted.
type judge struct {
	calls, denied uint64
	limits        []judged
}

// judged is one limit of a judge.
type judged struct {
	window window.Window

	tokens   float64 // of a bucket of C that fills at C a window
	filled   int64   // when
	inBucket window.Window

	fixed, fixedCount uint64 // the window of a clock, and what it has admitted
	inFixed           window.Window
}

// decide decides a call at an instant, and reports how full the fullest window is after it, of its capacity.
func (j *judge) decide(r *rule, g *window.Groups, now int64, dice float64) (allowed bool, full float64) {
	allowed = true
	var at [trypema.MaxLimits]int64 // by the clock of each window
	for i := range r.limits {
		l, w := &r.limits[i], &j.limits[i].window
		at[i] = w.Advance(g, l.span, now)
		var v window.Verdict
		if l.law == nil {
			w.Absolute(&v, g, l.span, l.capacity, at[i], 1, false)
		} else {
			w.Throw(&v, g, l.span, l.law, at[i], 1, dice)
		}
		allowed = allowed && v.Allowed && l.capacity > 0
	}
	j.calls++
	for i := range r.limits {
		l, w := &r.limits[i], &j.limits[i].window
		switch {
		case allowed:
			w.Record(g, l.span, at[i], window.Counts{Admitted: 1})
		case l.law != nil:
			w.Record(g, l.span, at[i], window.Counts{Declined: 1})
		}
		full = max(full, float64(w.Counts().Admitted)/float64(max(l.capacity, 1)))
	}
	if !allowed {
		j.denied++
	}
	return allowed, full
}

// peers decides the call by a token bucket and by a fixed window for each limit, and returns the most that a
// window of the length of a limit has seen of what they admitted, of its capacity.
func (j *judge) peers(r *rule, g *window.Groups, now int64) (bucket, fixed peer) {
	bucket.allowed, fixed.allowed = true, true
	for i := range r.limits {
		l, of := &r.limits[i], &j.limits[i]
		capacity := float64(l.capacity)
		of.tokens = min(capacity, of.tokens+capacity*float64(now-of.filled)/float64(l.span.Window))
		of.filled = now
		bucket.allowed = bucket.allowed && of.tokens >= 1-1e-9
		if number := uint64(now / l.span.Window); number != of.fixed {
			of.fixed, of.fixedCount = number, 0
		}
		fixed.allowed = fixed.allowed && of.fixedCount < l.capacity
	}
	for i := range r.limits {
		l, of := &r.limits[i], &j.limits[i]
		if bucket.allowed {
			of.tokens--
		}
		if fixed.allowed {
			of.fixedCount++
		}
		bucket.most = max(bucket.most, inWindow(&of.inBucket, g, l, now, bucket.allowed))
		fixed.most = max(fixed.most, inWindow(&of.inFixed, g, l, now, fixed.allowed))
	}
	return bucket, fixed
}

// peer is what another algorithm makes of a call.
type peer struct {
	allowed bool
	most    float64
}

// inWindow records a call that another algorithm admitted, and returns what the window then holds, of its
// capacity.
func inWindow(w *window.Window, g *window.Groups, l *limit, now int64, allowed bool) float64 {
	if !allowed {
		return 0
	}
	now = w.Advance(g, l.span, now)
	w.Record(g, l.span, now, window.Counts{Admitted: 1})
	return float64(w.Counts().Admitted) / float64(max(l.capacity, 1))
}

// clear gives back what the windows hold.
func (j *judge) clear(g *window.Groups) {
	for i := range j.limits {
		of := &j.limits[i]
		of.window.Clear(g)
		of.inBucket.Clear(g)
		of.inFixed.Clear(g)
	}
}

// busiest is the most calls of a key in any window of some lengths.
type busiest struct {
	windows [len(suggested)]window.Window
	most    [len(suggested)]uint64
}

// suggested are the windows for which limits are proposed.
var suggested = [...]time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour, 24 * time.Hour}

func (b *busiest) see(g *window.Groups, now int64) {
	for i, w := range suggested {
		span := spanOf(w)
		at := b.windows[i].Advance(g, span, now)
		b.windows[i].Record(g, span, at, window.Counts{Admitted: 1})
		b.most[i] = max(b.most[i], b.windows[i].Counts().Admitted)
	}
}

func (b *busiest) clear(g *window.Groups) {
	for i := range b.windows {
		b.windows[i].Clear(g)
	}
}

// round returns a round number that is not below n: one or two digits and zeros.
func round(n uint64) uint64 {
	unit := uint64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	if up := (n + unit - 1) / unit * unit; up >= n {
		return up
	}
	return math.MaxUint64
}

// dice is the chance of Suppressed, the same in each run.
func dice(seed uint64) func() float64 { return rand.New(rand.NewPCG(seed, 0)).Float64 }
