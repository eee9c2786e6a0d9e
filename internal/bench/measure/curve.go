package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/anywindow"
)

// Accuracy is what a limiter admits of what it is offered.
type Accuracy struct {
	Limiter string `json:"limiter"`
	store.Where
	Strategy string  `json:"strategy"` // empty for other libraries
	Failed   string  `json:"failed"`
	Capacity uint64  `json:"capacity"`
	Window   float64 `json:"window_ms"`
	Windows  int     `json:"windows"` // that were looked at, after one to settle

	Loads []Load   `json:"loads"`
	Step  Timeline `json:"step"`
}

// Load is a key to which calls come as a Poisson process.
type Load struct {
	Load     float64 `json:"load_ratio"` // asked for, of the limit
	Offered  uint64  `json:"offered"`
	Admitted uint64  `json:"admitted"`
	Exact    uint64  `json:"admitted_by_an_exact_log"` // of the same calls

	OfferedToLimit  float64 `json:"offered_to_limit_ratio"`
	AdmittedToLimit float64 `json:"admitted_to_limit_ratio"`
	LeastToLimit    float64 `json:"least_admitted_in_a_window_to_limit_ratio"` // of the windows one after the other
	MostToLimit     float64 `json:"most_admitted_in_a_window_to_limit_ratio"`
	Fullest         uint64  `json:"largest_any_window"`
	Pause           float64 `json:"longest_pause_ms"` // without an admission
}

// Timeline is a key that was offered half of its limit for two windows, and ten times as much as that limit
// from then on.
type Timeline struct {
	Bin      float64 `json:"bin_ms"`
	Steps    float64 `json:"step_at_ms"`
	Offered  []int   `json:"offered"` // in each bin
	Admitted []int   `json:"admitted"`
	Pause    float64 `json:"longest_pause_after_step_ms"`
}

var loads = []float64{0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 5, 10, 20, 50, 100}

const (
	stepWindows   = 2   // before the step
	stepFrom      = 0.5 // of the limit
	stepTo        = 10
	binsPerWindow = 20
	clientCallers = 64 // who call a server; else it is one
	latest        = 0.25
)

// arrival is a call that is due.
type arrival struct {
	due time.Duration
	key int // of loads; the one after them is the step
}

// schedule draws the arrivals of all keys over so many windows of the limit, the same ones for the same
// limit.
func schedule(l peer.Limit, windows int, maxLoad float64) (all []arrival) {
	rng := rand.New(rand.NewPCG(2, l.Capacity))
	w := l.Options.Window
	add := func(key int, load float64, from, until time.Duration) {
		mean := float64(time.Second) / (load * l.Rate)
		for due := from; ; {
			if due += time.Duration(rng.ExpFloat64() * mean); due >= until {
				return
			}
			all = append(all, arrival{due, key})
		}
	}
	end := time.Duration(windows) * w
	for i, load := range loads {
		if load <= maxLoad {
			add(i, load, 0, end)
		}
	}
	add(len(loads), stepFrom, 0, stepWindows*w)
	add(len(loads), stepTo, stepWindows*w, end)
	slices.SortFunc(all, func(a, b arrival) int { return cmp.Compare(a.due, b.due) })
	return all
}

// observed is what is seen of one key.
type observed struct {
	settle, until time.Duration // what is counted lies between
	window        time.Duration
	capacity      int

	offered, admitted, exact uint64
	byWindow                 []uint64
	windows                  *anywindow.Counter
	log                      []time.Duration // what an exact limiter would have admitted in the last window
	last                     time.Duration   // admission
	pause                    time.Duration

	line  *Timeline // of the step
	steps time.Duration
	bin   time.Duration
}

// note takes a decision, in the order of after.
func (o *observed) note(before, after time.Duration, ok bool) {
	for len(o.log) > 0 && o.log[0] <= before-o.window {
		o.log = o.log[1:]
	}
	exact := len(o.log) < o.capacity
	if exact {
		o.log = append(o.log, before)
	}
	if ok {
		o.windows.Add(before, after, 1)
	}
	if i := int(before / o.bin); o.line != nil && i < len(o.line.Offered) {
		o.line.Offered[i]++
		if ok {
			o.line.Admitted[i]++
		}
	}
	if ok && before >= o.steps {
		if from := max(o.last, o.steps); before < o.until {
			o.pause = max(o.pause, before-from)
		}
		o.last = before
	}
	if before < o.settle || before >= o.until {
		return
	}
	o.offered++
	if exact {
		o.exact++
	}
	if ok {
		o.admitted++
		o.byWindow[(before-o.settle)/o.window]++
	}
}

// longestPause is the longest time without an admission, that up to the end included, in milliseconds.
func (o *observed) longestPause() float64 {
	return screen.Milliseconds(max(o.pause, o.until-max(o.last, o.steps)))
}

// accuracy offers a new limiter calls of many keys at once, each with another load, in real time.
func (p plan) accuracy(
	ctx context.Context, name string, windows int, maxLoad float64,
) (out Accuracy, err error) {
	l, err := peer.Open(ctx, name, p.limit)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	w := p.limit.Options.Window
	all := schedule(p.limit, windows+1, maxLoad)
	keys := make([]*observed, len(loads)+1)
	names := make([]string, len(keys))
	for i := range keys {
		names[i] = "load:" + strconv.Itoa(i)
		keys[i] = &observed{
			settle: w, until: time.Duration(windows+1) * w, window: w, capacity: int(p.limit.Capacity),
			byWindow: make([]uint64, windows), windows: anywindow.NewCounter(w), steps: w, bin: w / binsPerWindow,
		}
	}
	step := keys[len(loads)]
	step.steps = stepWindows * w
	step.line = &Timeline{
		Bin: screen.Milliseconds(step.bin), Steps: screen.Milliseconds(step.steps),
		Offered: make([]int, binsPerWindow*(windows+1)), Admitted: make([]int, binsPerWindow*(windows+1)),
	}

	late, err := play(ctx, l, all, names,
		func(key int, before, after time.Duration, ok bool) { keys[key].note(before, after, ok) })
	switch {
	case ctx.Err() != nil:
		return out, errInterrupted
	case err != nil:
		return out, fmt.Errorf("%s: %w", name, err)
	case float64(late) > latest*float64(w):
		return out, fmt.Errorf("%s: calls were made up to %v after they were due, in a window of %v: "+
			"that is too late to tell anything",
			name, screen.Duration(late), w)
	}

	total := float64(p.limit.Capacity) * float64(windows)
	for i, load := range loads {
		o := keys[i]
		if load > maxLoad {
			continue
		}
		out.Loads = append(out.Loads, Load{
			Load: load, Offered: o.offered, Admitted: o.admitted, Exact: o.exact,
			OfferedToLimit: float64(o.offered) / total, AdmittedToLimit: float64(o.admitted) / total,
			LeastToLimit: float64(slices.Min(o.byWindow)) / float64(p.limit.Capacity),
			MostToLimit:  float64(slices.Max(o.byWindow)) / float64(p.limit.Capacity),
			Fullest:      o.windows.Max(),
			Pause:        o.longestPause(),
		})
	}
	step.line.Pause = step.longestPause()
	out.Step = *step.line
	out.Capacity, out.Window, out.Windows = p.limit.Capacity, screen.Milliseconds(w), windows
	return out, nil
}

// play makes the calls when they are due, and has each noted, one after the other. It returns how late the
// latest was.
func play(
	ctx context.Context, l peer.Limiter, all []arrival, names []string,
	note func(key int, before, after time.Duration, ok bool),
) (late time.Duration, err error) {
	base := time.Now()
	var mu sync.Mutex // guards what note notes, and the two results
	call := func(now []arrival) {
		keys := make([]string, len(now))
		for i, a := range now {
			keys[i] = names[a.key]
		}
		before := time.Since(base)
		admitted, failed := decide(ctx, l, keys)
		mu.Lock()
		defer mu.Unlock()
		after := time.Since(base)
		err = cmp.Or(err, failed)
		for i := range admitted {
			late = max(late, before-now[i].due)
			note(now[i].key, before, after, admitted[i])
		}
	}
	var wg sync.WaitGroup
	due := make(chan []arrival)
	callers, together := 1, 1
	if l.Waits() {
		callers = clientCallers
	}
	if l.Process != nil { // which makes them one after the other, as they come
		callers, together = 1, math.MaxInt
	}
	for range callers {
		wg.Go(func() {
			for now := range due {
				call(now)
			}
		})
	}
	for len(all) > 0 && ctx.Err() == nil {
		if wait := all[0].due - time.Since(base); wait > 0 {
			sleep(ctx, max(wait, time.Millisecond))
		}
		n, now := 1, time.Since(base)
		for n < len(all) && n < together && all[n].due <= now {
			n++
		}
		due <- all[:n]
		all = all[n:]
	}
	close(due)
	wg.Wait()
	return late, err
}

// decide makes a call for each key, in order.
func decide(ctx context.Context, l peer.Limiter, keys []string) ([]bool, error) {
	if l.Process != nil {
		return l.Process.Allow(ctx, keys...)
	}
	admitted := make([]bool, len(keys))
	for i, key := range keys {
		ok, err := l.Allow(key)
		if err != nil {
			return nil, err
		}
		admitted[i] = ok
	}
	return admitted, nil
}

// AccuracyOf measures the limiters that the command compares, all at the same time or one after the other.
// After one window to settle it looks at so many, with loads up to maxLoad times the limit. It leaves out
// what can not be had here.
func (c *Command) AccuracyOf(
	ctx context.Context, windows int, maxLoad float64, together bool,
	progress func(part float64, doing string),
) (_ []Accuracy, err error) {
	p, names, err := c.prepare(ctx, min(c.Window, remoteTrap.window))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.limit.Server.Close()) }()
	out := make([]Accuracy, len(names))
	callers, took := 1, time.Duration(windows+1)*c.Window
	if together {
		callers = len(names)
		defer watch(ctx, took, func(part float64) { progress(part, "all limiters at once") })()
	}
	err = share(callers, len(names), func(i int) error {
		if !together {
			defer watch(ctx, took, func(part float64) { progress((float64(i)+part)/float64(len(names)), names[i]) })()
		}
		a, err := p.accuracy(ctx, names[i], windows, maxLoad)
		if ctx.Err() != nil {
			return errInterrupted
		}
		if isMissing(err) {
			return nil
		}
		a.Limiter = names[i]
		if peer.IsOurs(names[i]) {
			a.Strategy = c.Strategy
		}
		if err != nil {
			a.Failed = err.Error()
		}
		out[i] = a
		return nil
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(a Accuracy) bool { return a.Limiter == "" }), nil
}

// isMissing reports whether err says that a limiter can not be had here.
func isMissing(err error) bool {
	var missing *peer.MissingError
	return errors.As(err, &missing)
}
