// Package sim lets virtual time pass for any number of instances of the Hybrid provider that share limits by
// one Redis: the accounts and ledgers are the library's own, the callers, the clocks and the network are
// simulated. What would take a thousand machines takes one, and comes out the same each time.
package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/redislimit"
)

// Command is the flags of trypema sim.
type Command struct {
	Instances int `default:"8" help:"Instances that share the limits."`
	Keys      int `default:"1" help:"Keys that are simulated."`

	Strategy        string         `default:"absolute" help:"absolute or suppressed."`
	Rate            float64        `default:"100" help:"Limit of each key, in calls per second."`
	Window          time.Duration  `default:"10s" help:"Length of the sliding window."`
	Bucket          *time.Duration `help:"Calls so close may share a counter. Default: window / 100, at least 1ms."`
	HardLimitFactor float64        `default:"1.5" help:"Most that Suppressed admits in any window ÷ the limit."`
	SyncInterval    *time.Duration `help:"How often keys settle. Default: window / 200, from 5ms to 100ms."`

	Load    float64  `default:"2" help:"Calls for a key by all instances ÷ its limit; a Poisson process."`
	HotKeys float64  `default:"0" help:"Part of the keys that get --hot-load instead."`
	HotLoad float64  `default:"10" help:"With --hot-keys: the load of these."`
	Shape   string   `default:"steady" help:"How the load changes: steady, step, spike or on-off."`
	Skew    *float64 `help:"Part of the calls that goes to the first instance. Default: an equal share."`

	SkewMoves time.Duration `default:"0s" help:"With --skew: how often that part goes to the next instance; 0s: not at all."`

	Delay   time.Duration `default:"500us" help:"From an instance to Redis, and back again."`
	Jitter  time.Duration `default:"100us" help:"Mean of what chance adds to the delay."`
	Timeout time.Duration `default:"250ms" help:"How long to wait for Redis."`
	Loss    float64       `default:"0" help:"Part of the requests that never arrive, and of the replies."`

	OutageAt  time.Duration `default:"0s" help:"When Redis stops answering."`
	OutageFor time.Duration `default:"0s" help:"For how long."`
	Policy    string        `default:"closed" help:"Without Redis: closed denies, local enforces a share of the limit."`
	DieAt     time.Duration `default:"0s" help:"When the first instance is killed and replaced; 0s: not at all."`
	PauseAt   time.Duration `default:"0s" help:"When the first instance stands still."`
	PauseFor  time.Duration `default:"0s" help:"For how long."`

	SettleCost time.Duration `default:"8us" help:"Time of a Redis node to settle one key, for the number of nodes."`
	ScaleKeys  float64       `default:"0" placeholder:"KEYS" help:"Multiply the traffic to so many keys; 0: do not."`

	Vary string `placeholder:"FLAG=A,B,…" help:"Run once for each of these values, a line each."`

	Duration *time.Duration `help:"Virtual time. Default: six windows."`
	Seed     int            `default:"1" help:"Of all that is random."`
	JSON     bool           `name:"json" help:"Print one JSON document."`
}

// Help is the text of trypema sim --help.
func (Command) Help() string {
	return `Simulates instances that share limits by leases from one Redis, in virtual time. The lease code is that of
hybridlimit; calls, clocks and network follow from --seed. Redis itself takes no time: how much of it the traffic needs
is in the result.

Shapes of the load: step is half the limit, and --load after a third of the duration; spike is half the limit,
and --load for half a window in the middle; on-off is --load and nothing, a window each.

The exit status is 1 if any window of any key admitted more than it may, 2 for a wrong flag. Ctrl-C prints what there is
so far.`
}

const (
	absolute   = "absolute"
	suppressed = "suppressed"

	policyClosed = "closed"
	policyLocal  = "local"

	maxInstances = 1000
	maxKeys      = 10_000
	maxAccounts  = 1_000_000     // instances × keys
	maxEvents    = 20_000_000    // that windows hold, of all keys
	maxCalls     = 1_000_000_000 // in a run

	defaultWindows = 6 // of the duration
	minWindows     = 2 // the first is for settling
	longest        = 1000 * time.Hour
)

// setup is the flags, and what they amount to.
type setup struct {
	Command
	suppressed bool
	options    trypema.Options
	capacity   uint64 // C
	bound      uint64 // the most that any window may admit
	interval   time.Duration
	hotKeys    int
	shape      shape
	skew       float64 // of the first instance; negative: none
	retry      time.Duration
	scale      float64 // keys that there are for each that is simulated
	duration   time.Duration
}

func (c *Command) resolve() (setup, error) {
	limit := flags.Limit{Rate: c.Rate, Window: c.Window, Bucket: c.Bucket, HardLimitFactor: c.HardLimitFactor}
	options, capacity, err := limit.Resolve()
	// err has been seen to
	hybrid, _ := hybridlimit.Options{Options: redislimit.Options{Options: options}}.WithDefaults()
	interval := flags.Or(c.SyncInterval, hybrid.SyncInterval)
	duration := flags.Or(c.Duration, defaultWindows*c.Window)
	skew := flags.Or(c.Skew, -1)
	part := func(name string, x float64) error { return flags.Check(x >= 0 && x <= 1, name, x, "from 0 to 1") }
	positive := func(name string, x float64) error {
		return flags.Check(x > 0 && !math.IsInf(x, 1), name, x, "above 0")
	}
	span := func(name string, least, d time.Duration) error {
		return flags.Check(d >= least && d <= longest, name, d, fmt.Sprintf("from %v to %v", least, longest))
	}
	hot := int(math.Round(c.HotKeys * float64(c.Keys)))
	form := newShape(c.Shape, c.Window, duration)
	peak := float64(c.Keys-hot)*max(c.Load, form.base) + float64(hot)*max(c.HotLoad, form.base)
	calls := c.Rate * duration.Seconds() * peak
	err = flags.First(
		flags.Check(c.Instances >= 1 && c.Instances <= maxInstances, "instances", c.Instances,
			fmt.Sprintf("from 1 to %d", maxInstances)),
		flags.Check(c.Keys >= 1 && c.Keys <= maxKeys, "keys", c.Keys, fmt.Sprintf("from 1 to %d", maxKeys)),
		flags.Check(c.Instances*c.Keys <= maxAccounts, "keys", c.Keys,
			fmt.Sprintf("at most %d with that many --instances (%d)", maxAccounts/max(1, c.Instances), c.Instances)),
		flags.OneOf("strategy", c.Strategy, absolute, suppressed),
		err,
		flags.Check(c.Window <= longest, "window", c.Window, fmt.Sprintf("at most %v", longest)),
		flags.Check(capacity <= maxEvents/uint64(max(1, c.Keys)), "rate", c.Rate,
			fmt.Sprintf("at most %d events in the --window (%v) of all --keys (%d)", maxEvents, c.Window, c.Keys)),
		flags.Check(interval >= time.Millisecond && interval <= c.Window, "sync-interval", interval,
			fmt.Sprintf("from 1ms to --window (%v)", c.Window)),
		positive("load", c.Load),
		part("hot-keys", c.HotKeys),
		positive("hot-load", c.HotLoad),
		flags.OneOf("shape", c.Shape, shapes...),
		part("skew", max(skew, 0)),
		flags.Check(c.Skew == nil || skew >= 0, "skew", skew, "from 0 to 1"),
		span("skew-moves", 0, c.SkewMoves),
		span("delay", 0, c.Delay),
		span("jitter", 0, c.Jitter),
		span("timeout", time.Millisecond, c.Timeout),
		part("loss", c.Loss),
		span("outage-at", 0, c.OutageAt),
		span("outage-for", 0, c.OutageFor),
		flags.OneOf("policy", c.Policy, policyClosed, policyLocal),
		span("die-at", 0, c.DieAt),
		span("pause-at", 0, c.PauseAt),
		span("pause-for", 0, c.PauseFor),
		flags.Check(c.SettleCost > 0 && c.SettleCost <= time.Second, "settle-cost", c.SettleCost,
			"above 0s and at most 1s"),
		flags.Check(c.ScaleKeys == 0 || c.ScaleKeys >= float64(c.Keys) && c.ScaleKeys <= 1e12,
			"scale-keys", c.ScaleKeys, fmt.Sprintf("from --keys (%d) to 1e12", c.Keys)),
		flags.Check(duration >= minWindows*c.Window && duration <= longest, "duration", duration,
			fmt.Sprintf("from %d windows (%v) to %v", minWindows, minWindows*c.Window, longest)),
		flags.Check(calls <= maxCalls, "duration", duration,
			fmt.Sprintf("short enough for at most %.0g calls; these would be %.2g", float64(maxCalls), calls)),
		flags.Check(c.Seed >= 0, "seed", c.Seed, "at least 0"),
	)
	s := setup{
		Command:    *c,
		suppressed: c.Strategy == suppressed,
		options:    options,
		capacity:   capacity,
		bound:      capacity,
		interval:   interval,
		hotKeys:    hot,
		shape:      form,
		skew:       skew,
		retry:      hybrid.RetryInterval,
		scale:      1,
		duration:   duration,
	}
	if s.suppressed {
		s.bound = flags.HardCapacity(capacity, options)
	}
	if c.ScaleKeys > 0 {
		s.scale = c.ScaleKeys / float64(c.Keys)
	}
	return s, err
}

// Run simulates, prints, and returns an error if the bound was broken.
func (c *Command) Run(ctx context.Context, out screen.Streams) error {
	name, values, variants, err := c.variants()
	if err != nil {
		return err
	}
	var setups []setup
	for _, v := range variants {
		s, err := v.resolve()
		if err != nil {
			return err
		}
		setups = append(setups, s)
	}
	p := newProgress(out.Err)
	all := comparison{Command: "sim", Varied: name, values: values}
	var broken error
	for n, s := range setups {
		if n > 0 && ctx.Err() != nil {
			break
		}
		w := newWorld(s)
		w.run(ctx, func(part float64) { p.set((float64(n) + part) / float64(len(setups))) })
		r := w.report()
		all.Runs = append(all.Runs, r)
		broken = errors.Join(broken, r.broken())
	}
	p.bar.Clear()
	switch {
	case c.JSON && name != "":
		err = screen.JSON(out.Out, all)
	case c.JSON:
		err = screen.JSON(out.Out, all.Runs[0])
	case name != "":
		err = all.table(out.Out)
	default:
		err = all.Runs[0].table(out.Out)
	}
	return errors.Join(err, broken)
}

// progress tells how far a run is: on a terminal by a bar, elsewhere by a line now and then.
type progress struct {
	err   io.Writer
	bar   *screen.Bar
	lines bool
	began time.Time
	said  time.Time
}

func newProgress(w io.Writer) *progress {
	now := time.Now()
	return &progress{w, screen.NewBar(w), !screen.IsTerminal(w), now, now}
}

const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

func (p *progress) set(part float64) {
	every := barEvery
	if p.lines {
		every = lineEvery
	}
	if time.Since(p.said) < every || part == 0 {
		return
	}
	p.said = time.Now()
	took := p.said.Sub(p.began)
	left := fmt.Sprintf("%v left", time.Duration(float64(took)/part*(1-part)).Round(time.Second))
	if p.lines {
		fmt.Fprintf(p.err, "%.0f%%, %s\n", 100*part, left)
		return
	}
	p.bar.Set(part, left)
}
