package onmodel

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// call is one that was drawn.
type call struct {
	by      *member
	key     string
	windows []time.Duration // of several limits, or nil
	cost    uint64
	peek    bool
	holds   bool          // reserves
	expiry  time.Duration // of that
	after   time.Duration // to wait before
	patient time.Duration // when the caller gives up; 0 for never
}

func (f *Fleet) drawCall(t *rapid.T) call {
	c := call{by: f.drawMember(t), key: rapid.SampledFrom(keys[:3]).Draw(t, "key"), peek: rapid.IntRange(0, 5).Draw(t, "peek") == 5}
	capacity := f.capacity[f.Options.Window]
	c.cost = rapid.SampledFrom([]uint64{1, 1, 2, 3, 7, capacity/2 + 1, capacity, capacity + 1}).Draw(t, "cost")
	if !f.Calm && rapid.IntRange(0, 9).Draw(t, "gives up") == 9 {
		c.patient = rapid.SampledFrom([]time.Duration{time.Microsecond, f.Options.Timeout / 8, f.Options.Timeout / 2}).Draw(t, "after")
	}
	return c
}

func (f *Fleet) drawSeveral(t *rapid.T) call {
	c := f.drawCall(t)
	c.windows = drawWindows(t, f.Options.Window)
	return c
}

func (f *Fleet) one(t *rapid.T) { f.do(f.drawCall(t)) }

func (f *Fleet) several(t *rapid.T) { f.do(f.drawSeveral(t)) }

func (f *Fleet) many(t *rapid.T) {
	c := f.drawCall(t)
	c.cost = rapid.Uint64Range(1, 2).Draw(t, "cost of each")
	pause := rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, f.Options.Bucket, f.Options.SyncInterval / 3}).Draw(t, "pause")
	for range rapid.IntRange(2, 40).Draw(t, "times") {
		f.do(c)
		if pause > 0 {
			f.sleep(pause)
		}
	}
}

func (f *Fleet) reserve(t *rapid.T) {
	c := f.drawSeveral(t)
	w := f.Options.Window
	c.peek, c.patient, c.holds, c.cost = false, 0, true, rapid.Uint64Range(1, 8).Draw(t, "estimate")
	c.expiry = rapid.SampledFrom([]time.Duration{0, f.Options.SyncInterval, w / 2, w - time.Millisecond, 2 * w}).Draw(t, "expiry")
	f.do(c)
}

// atOnce makes several calls at once, and something may happen meanwhile.
func (f *Fleet) atOnce(t *rapid.T) {
	var all sync.WaitGroup
	var calls []call
	for range rapid.IntRange(2, 12).Draw(t, "calls") {
		c := f.drawCall(t)
		if rapid.Bool().Draw(t, "several") {
			c = f.drawSeveral(t)
		}
		c.after = rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, f.Options.Timeout / 16, f.Options.SyncInterval}).Draw(t, "later")
		calls = append(calls, c)
	}
	happens := rapid.SampledFrom([]func(){nil, nil, f.takeAway, f.restore}).Draw(t, "meanwhile")
	when := rapid.SampledFrom([]time.Duration{time.Microsecond, f.Options.Timeout / 16, f.Options.Timeout / 8}).Draw(t, "then")
	for _, c := range calls {
		all.Go(func() {
			time.Sleep(c.after)
			f.do(c)
		})
	}
	if happens != nil {
		time.Sleep(when)
		happens()
	}
	all.Wait()
}

// do makes a call and judges the answer.
func (f *Fleet) do(c call) *promise {
	ctx, end := context.Background(), func() {}
	if c.patient > 0 {
		ctx, end = context.WithTimeout(ctx, c.patient)
	}
	defer end()
	windows := c.windows
	var d trypema.Decision
	var r *trypema.Reservation
	var err error
	from, verb := time.Now(), "AllowN"
	switch {
	case c.holds:
		verb = "Reserve"
		if r, err = f.multi(c.by, windows).Reserve(ctx, c.key, c.cost, c.expiry); err == nil {
			d = r.Decision
		}
	case windows != nil && c.peek:
		verb = "Peek"
		d, err = f.multi(c.by, windows).Peek(ctx, c.key, c.cost)
	case windows != nil:
		d, err = f.multi(c.by, windows).AllowN(ctx, c.key, c.cost)
	default:
		windows = []time.Duration{f.Options.Window}
		l := f.limiter(c.by)
		if c.peek {
			verb = "Peek"
			d, err = l.Peek(ctx, c.key, rateOf(f.capacity[windows[0]], windows[0]), c.cost)
		} else {
			d, err = l.AllowN(ctx, c.key, rateOf(f.capacity[windows[0]], windows[0]), c.cost)
		}
	}
	to := time.Now()

	f.mu.Lock()
	defer f.mu.Unlock()
	f.Figures.Calls++
	excused := f.excused(c.by, from, to)
	f.note(c.key, "%s: %s(%q, %v, %d) since %v: %+v, %v", c.by.name, verb, c.key, windows, c.cost,
		from.Sub(f.began), d, err)
	if to.Sub(from) > f.Options.Timeout {
		f.fault("%s of %q took %v", verb, c.key, to.Sub(from))
	}
	if err != nil {
		f.Figures.Errors++
		if c.patient == 0 || !errors.Is(err, context.DeadlineExceeded) || to.Sub(from) < c.patient {
			f.fault("%s of %q: %v", verb, c.key, err)
		}
		return &promise{}
	}
	if problem := f.incoherent(d, c.cost, windows); problem != "" {
		f.fault("%s of %q, cost %d: %+v: %s", verb, c.key, c.cost, d, problem)
	}
	if d.Fallback {
		f.Figures.Fallbacks++
		if !excused {
			f.fault("%s of %q: a fallback without a fault: %+v", verb, c.key, d)
		}
	}
	if f.Calm {
		f.checkTwins(verb, c, windows, d)
	}
	p := &promise{Reservation: r, decision: d, by: c.by, key: c.key, estimate: c.cost}
	if c.peek {
		return p
	}
	if d.Allowed {
		f.Figures.Allowed++
	} else {
		f.Figures.Denied++
	}
	for _, w := range windows {
		e := &event{at: place{c.key, w}, from: from, to: to, by: c.by, fallback: d.Fallback}
		if d.Allowed && c.expiry < w {
			e.life = c.expiry
		}
		switch {
		case d.Allowed:
			e.admitted, e.charged = span{c.cost, c.cost}, c.cost
		case f.suppressed() && (!d.Fallback || f.Options.OnFailure != redislimit.FailClosed):
			e.declined = span{c.cost, c.cost}
		default:
			continue
		}
		f.enter(e)
		p.events = append(p.events, e)
	}
	if r == nil {
		return p
	}
	if !d.Allowed {
		if err := r.Commit(context.Background(), 1); !errors.Is(err, trypema.ErrDenied) {
			f.fault("a reservation of %q that was denied was committed: %v", c.key, err)
		}
		return p
	}
	if c.expiry > 0 {
		p.expires = from.Add(c.expiry)
	}
	f.promises = append(f.promises, p)
	return p
}

// incoherent says how a decision contradicts itself.
func (f *Fleet) incoherent(d trypema.Decision, n uint64, windows []time.Duration) string {
	limits := make([]uint64, 0, 3)
	for _, w := range windows {
		limits = append(limits, f.capacity[w])
	}
	switch {
	case !fakeredis.Sane(d) || d == trypema.Decision{}:
		return "it contradicts itself"
	case !d.Allowed && d.Outcome != denial(f.Strategy):
		return "another outcome"
	case !slices.Contains(limits, d.Limit):
		return "another limit"
	case !f.suppressed() && d.Allowed && n > slices.Min(limits):
		return "more than a limit was admitted"
	case d.Allowed && d.RemainingAfterWaiting != d.Remaining:
		return "an admitted call has nothing to wait for"
	case !d.Allowed && !d.Fallback && d.RetryAfter == trypema.Never && n <= slices.Min(limits):
		return "it fits some day"
	case !d.Allowed && n > slices.Max(limits) && d.RetryAfter != trypema.Never:
		return "it never fits"
	case !d.Allowed && !f.suppressed() && !d.Fallback && d.RetryAfter != trypema.Never && d.RemainingAfterWaiting < n:
		return "it does not fit after waiting"
	case d.SuppressionFactor > 0 && !f.suppressed():
		return "a suppression factor"
	}
	return ""
}
