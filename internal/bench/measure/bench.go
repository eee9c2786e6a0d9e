// Package measure measures limiters: how fast, at what latency, with how much memory, and how exactly. Every
// run proves its own premise: its decisions add up, it touched the keys it says, and it admitted what it
// should.
package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
)

// Command is the flags of bench measure.
type Command struct {
	Peer     string `default:"trypema" help:"Limiter to measure: ${peers}."`
	Compare  string `placeholder:"A,B,…" help:"Measure these in turn, with ratios to the first. Also trypema-PROVIDER."`
	Rounds   int    `default:"10" help:"With --compare: rounds into which the duration of each limiter is cut."`
	Strategy string `default:"absolute" help:"Strategy of trypema: absolute or suppressed."`

	store.Flags

	Keys        string  `default:"skewed" help:"Distribution of calls over keys: hot (one key), uniform, or skewed."`
	KeySpace    int     `default:"100000" help:"Number of keys. With --keys hot the others are only stored."`
	HotFraction float64 `default:"0.2" help:"With --keys skewed: part of the calls that goes to one key."`
	Fresh       bool    `help:"Write a key just before its call, as a server does. Default: it is in no cache."`
	Many        int     `default:"1" help:"Calls of trypema that are made at a time, by AllowMany."`

	Rate            float64        `default:"1000" help:"Limit of each key, in calls per second."`
	Window          time.Duration  `default:"10s" help:"Length of the sliding window."`
	Bucket          *time.Duration `help:"Calls so close may share a counter. Default: window / 100, at least 1ms."`
	HardLimitFactor float64        `default:"1.5" help:"Most that Suppressed admits in any window ÷ the limit."`

	Mode     string         `default:"max" help:"max: what is possible. target: --qps, with latency since a call was due."`
	QPS      *float64       `name:"qps" help:"With --mode target: calls per second of all workers. Default: 100000."`
	Burst    *int           `help:"With --mode target: calls that are due at the same instant. Default: 1."`
	Workers  int            `help:"Goroutines that call. Default: one per processor; 256 with --provider redis."`
	Procs    int            `help:"Processors for Go code; also the default of --workers. Default: all."`
	WarmUp   *time.Duration `help:"How long a limiter is called before it is timed. Default: 1.2 windows, at most 3s."`
	Duration time.Duration  `default:"5s" help:"How long calls are timed, for each limiter."`

	JSON bool `name:"json" help:"Print one JSON document."`
	CSV  bool `name:"csv" help:"Print comma-separated values with a header line."`

	adjust func(*plan) // for tests; nil for what the flags say
}

// Parse returns the command that the arguments of bench measure are.
func Parse(args ...string) (*Command, error) {
	c := new(Command)
	parser, err := kong.New(c, append(flags.Mappers(), Vars())...)
	if err == nil {
		_, err = parser.Parse(args)
	}
	return c, err
}

// Wrong returns the first flag that is wrong, or nil. It asks no server.
func (c *Command) Wrong() error {
	_, _, err := c.check()
	return err
}

// Vars is what the help of Command refers to.
func Vars() kong.Option { return kong.Vars{"peers": strings.Join(peer.Names(), ", ")} }

// Help is the text of bench measure --help.
func (Command) Help() string {
	return `Without flags it runs the canonical workload: a fifth of the calls to one key that is far over its
limit of 1000/s, the rest evenly over 100,000 keys that are under theirs, one worker per processor, as fast
as they can, for 5s.

--compare also takes trypema-local, trypema-redis and trypema-hybrid, which are trypema with another --provider.

With --provider redis the limiters are trypema, redis_rate and redis-cell; to --compare them with those that
count in this process is allowed too. The names of keys are those of the run; keys go by their time to live.
With --instances each worker stays with one of them, in turn.

With --provider hybrid it is checked at the end that Redis has been told of every call. To see what not
waiting costs:
  go run ./internal/bench --provider hybrid --redis URL --keys hot --compare trypema-local,trypema
While another limiter has its turn, one that is hybrid goes on settling, until its keys have been idle for a
while.

The exit status is 1 if the counts of a run do not add up or trypema admitted more than it promises, 2 for a
wrong flag.`
}

// plan is what the flags amount to.
type plan struct {
	limit peer.Limit
	work  *workload
	qps   float64 // 0: as many as possible
	burst int
	procs int // 0: all
	fresh bool
	many  int // calls at a time, where the limiter can

	warmUp   time.Duration // before the timed calls
	duration time.Duration // of the timed calls to each limiter

	traps   int           // that are sprung in the accuracy pass; 0: no such pass
	counted int           // calls of which the allocations are counted
	settles time.Duration // that calls of hybrid are made, before it is compared what Redis was told
}

const (
	defaultQPS  = 100_000
	maxKeySpace = 50_000_000
	maxRounds   = 1000
	maxMany     = 1000
	maxCapacity = 1_000_000_000 // any limiter here can hold it, and twice as much over many windows

	remoteWorkers = 256

	shortestRound = 10 * time.Millisecond
	maxWarmUp     = 3 * time.Second
)

// prepare checks the flags, opens the server and makes the workload; and returns the names of the limiters to
// measure. The server forgets no key before the time shortest; it is for the caller to close.
func (c *Command) prepare(ctx context.Context, shortest time.Duration) (plan, []string, error) {
	p, names, err := c.check()
	if err == nil {
		p.limit.Server, err = c.Open(ctx, shortest)
	}
	if err == nil { // the workload takes a while
		hot := map[string]float64{"hot": 1, "uniform": 0, "skewed": c.HotFraction}[c.Keys]
		p.work = newWorkload(c.KeySpace, c.workers(), hot)
	}
	return p, names, err
}

// workers is how many goroutines call.
func (c *Command) workers() int {
	switch {
	case c.Workers > 0:
		return c.Workers
	case c.Provider == store.Redis:
		return remoteWorkers
	}
	return max(cmp.Or(c.Procs, runtime.GOMAXPROCS(0)), c.instances())
}

// check returns the first flag that is wrong, or the plan without its workload.
func (c *Command) check() (plan, []string, error) {
	names := []string{c.Peer}
	if c.Compare != "" {
		names = strings.Split(c.Compare, ",")
	}
	limit := flags.Limit{Rate: c.Rate, Window: c.Window, Bucket: c.Bucket, HardLimitFactor: c.HardLimitFactor}
	options, capacity, err := limit.Resolve()
	target, rounds := c.Mode == "target", 1
	if c.Compare != "" {
		rounds = c.Rounds
	}
	err = flags.First(
		flags.OneOf("peer", c.Peer, peer.Names()...),
		checkNames(c.Compare, names),
		c.Check(),
		c.checkHomes(names),
		flags.Check(c.Rounds >= 1 && c.Rounds <= maxRounds, "rounds", c.Rounds, fmt.Sprintf("from 1 to %d", maxRounds)),
		flags.OneOf("strategy", c.Strategy, "absolute", "suppressed"),
		flags.OneOf("keys", c.Keys, "hot", "uniform", "skewed"),
		flags.Check(c.KeySpace >= 1 && c.KeySpace <= maxKeySpace, "key-space", c.KeySpace,
			fmt.Sprintf("from 1 to %d", maxKeySpace)),
		flags.Check(c.HotFraction >= 0 && c.HotFraction <= 1, "hot-fraction", c.HotFraction, "from 0 to 1"),
		err,
		c.CheckFor(options.Window),
		flags.Check(capacity <= maxCapacity, "rate", c.Rate,
			fmt.Sprintf("at most %d events per --window (%v)", maxCapacity, c.Window)),
		c.checkFresh(names),
		flags.Check(c.Many >= 1 && c.Many <= maxMany, "many", c.Many, fmt.Sprintf("from 1 to %d", maxMany)),
		flags.Check(c.Many == 1 || !c.Remote() && !target, "many", c.Many,
			"left out with --provider redis or hybrid, and with --mode target"),
		flags.OneOf("mode", c.Mode, "max", "target"),
		flags.Check(c.QPS == nil || target, "qps", deref(c.QPS), "left out unless --mode is target"),
		flags.Check(c.QPS == nil || (*c.QPS > 0 && *c.QPS <= 1e9), "qps", deref(c.QPS), "above 0 and at most 1e9"),
		flags.Check(c.Burst == nil || target, "burst", deref(c.Burst), "left out unless --mode is target"),
		flags.Check(c.Burst == nil || (*c.Burst >= 1 && *c.Burst <= 1_000_000), "burst", deref(c.Burst),
			"from 1 to 1000000"),
		flags.Check(c.Workers >= 0 && c.Workers <= 4096, "workers", c.Workers, "from 1 to 4096"),
		flags.Check(c.Workers == 0 || c.Workers >= c.instances(), "workers", c.Workers,
			"at least one for each of --instances"),
		flags.Check(c.Procs >= 0 && c.Procs <= 4096, "procs", c.Procs, "from 1 to 4096"),
		flags.Check(c.WarmUp == nil || *c.WarmUp >= 0, "warm-up", deref(c.WarmUp), "at least 0s"),
		flags.Check(c.Duration >= shortestRound*time.Duration(rounds), "duration", c.Duration,
			fmt.Sprintf("at least %v for each round", shortestRound)),
		flags.Check(!c.JSON || !c.CSV, "csv", c.CSV, "left out with --json"),
	)
	if err != nil {
		return plan{}, nil, err
	}
	p := plan{
		limit: peer.Limit{
			Capacity: capacity, Rate: c.Rate, Suppressed: c.Strategy == "suppressed", Options: options,
		},
		burst:    cmp.Or(deref(c.Burst), 1),
		procs:    c.Procs,
		fresh:    c.Fresh,
		many:     c.Many,
		warmUp:   min(maxWarmUp, c.Window*6/5),
		duration: c.Duration,
		traps:    traps,
		counted:  countedOps,
		settles:  settlementTook,
	}
	if c.WarmUp != nil {
		p.warmUp = *c.WarmUp
	}
	if target {
		p.qps = cmp.Or(deref(c.QPS), defaultQPS)
	}
	if c.adjust != nil {
		c.adjust(&p)
	}
	return p, names, nil
}

func (c *Command) instances() int { return max(1, deref(c.Instances)) }

// checkNames checks the names given to --compare.
func checkNames(value string, names []string) error {
	for i, name := range names {
		err := flags.OneOf("compare", name, append(peer.Names(), peer.Variants()...)...)
		if value != "" && err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return flags.Check(false, "compare", value, "a list without repetition")
		}
	}
	return flags.Check(value == "" || len(names) > 1, "compare", value,
		"at least two names with a comma between them")
}

// checkHomes checks that the limiters can count where the provider says.
func (c *Command) checkHomes(names []string) error {
	if c.Compare == "" && c.Remote() {
		there := peer.NamesIn(c.Provider)
		return flags.First(
			flags.Check(slices.Contains(there, c.Peer), "peer", c.Peer,
				"one of "+strings.Join(there, ", ")+" with --provider "+c.Provider),
			flags.Check(c.Client == nil || c.Peer == peer.Ours, "client", deref(c.Client),
				"left out with --peer "+c.Peer+", which uses "+store.GoRedis),
		)
	}
	if c.Remote() {
		return nil
	}
	flag, rule := "peer", "left out unless --provider is redis"
	if c.Compare != "" {
		flag, rule = "compare", rule+" or hybrid"
	}
	for _, name := range names {
		if peer.NeedsServer(name) {
			return flags.Check(false, flag, name, rule)
		}
	}
	return nil
}

// checkFresh checks that no limiter keeps a text that is written over.
func (c *Command) checkFresh(names []string) error {
	const rule = "left out with --provider redis or hybrid, and with limiters that may keep the string of a call"
	return flags.Check(!c.Fresh || !c.Remote() && !slices.ContainsFunc(names, peer.KeepsKeys), "fresh", c.Fresh, rule)
}

func ptr[T any](v T) *T { return &v }

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

var errIdle = errors.New("no call was made")

var errInterrupted = errors.New("interrupted; a part of a measurement is not reported")

// Run measures and prints.
func (c *Command) Run(ctx context.Context, out screen.Streams) (err error) {
	r, failed, err := c.measure(ctx, out)
	if err != nil {
		return err
	}
	switch {
	case c.JSON:
		err = screen.JSON(out.Out, r)
	case c.CSV:
		err = r.csv(out.Out)
	default:
		err = r.table(out.Out)
	}
	return errors.Join(append(failed, err)...)
}

// measure measures what the flags say. The rows that failed are also errors.
func (c *Command) measure(ctx context.Context, out screen.Streams) (r printable, failed []error, err error) {
	bar := screen.NewBar(out.Err)
	defer bar.Clear()
	if c.Compare == "" {
		r, err := c.single(ctx, bar)
		return r, nil, err
	}
	all, err := Compare(ctx, []Case{{"", c}}, bar.Set)
	if err != nil {
		return nil, nil, err
	}
	bar.Clear()
	for _, why := range all.LeftOut {
		out.Complain(errors.New("left out: " + why))
	}
	failed = all.Failures()
	return all, failed, nil
}

// single measures one limiter in every respect.
func (c *Command) single(ctx context.Context, bar *screen.Bar) (_ *result, err error) {
	p, names, err := c.prepare(ctx, min(c.Window, remoteTrap.window))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.limit.Server.Close()) }()
	name := names[0]
	var foot footprint
	weigh := func() (err error) {
		bar.Set(0, "memory")
		foot, err = p.footprint(ctx, name, func() {})
		return err
	}
	remote := p.limit.Server != nil
	if !remote {
		if err := weigh(); err != nil {
			return nil, err
		}
	}
	bar.Set(0, "a call for every key")
	r, err := p.measure(ctx, name, p.duration, func(part float64) { bar.Set(0.8*part, "throughput") })
	if err != nil {
		return nil, err
	}
	fullest, err := p.fullestWindow(ctx, name, p.traps, func(part float64) { bar.Set(0.8+0.2*part, "accuracy") })
	if err != nil {
		return nil, err
	}
	settled, err := p.settlement(ctx, name, func(float64) { bar.Set(1, "settlement") })
	if err != nil {
		return nil, err
	}
	if remote { // last, as the keys stay in Redis for a while
		if err := weigh(); err != nil {
			return nil, err
		}
	}
	out := newResult(name, c.conditions(p), r, foot, fullest)
	out.Settled = settled
	return out, nil
}
