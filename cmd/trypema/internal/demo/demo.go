// Package demo runs the main job of the library on real traffic: HTTP servers that are guarded by limiters,
// clients that ask for more than the limit, and a judge that looks for a broken guarantee. It shows all six
// limiters on a page, where people turn the knobs, or lets one provider run for a while and reports.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/redislimit"
)

// Command is the flags of trypema demo.
type Command struct {
	store.Flags

	Rate            *float64       `help:"Limit of each route, in requests per second. Default: 100; 50 for the page."`
	Load            float64        `default:"3" help:"Load offered to each route, as a multiple of the limit."`
	Window          *time.Duration `help:"Length of the sliding window. Default: duration / 4, at most 5s."`
	Bucket          *time.Duration `help:"Calls so close may share a counter. Default: window / 100, at least 1ms."`
	HardLimitFactor float64        `default:"1.5" help:"Most that Suppressed admits in any window ÷ the limit."`
	Duration        time.Duration  `default:"20s" help:"How long load is offered."`
	Clients         int            `default:"32" help:"HTTP clients per route, each with one request at a time."`
	Headless        bool           `help:"No page, but a table. Also without a terminal, unless --addr is given."`
	JSON            bool           `name:"json" help:"Like --headless, with one JSON document instead of the table."`
	Addr            *string        `placeholder:"HOST:PORT" help:"Where to serve the page. Default: 127.0.0.1:8080."`
	Open            bool           `default:"true" negatable:"" help:"Open the page in a browser, when there is one."`

	// For tests.
	web  *web                                                           // nil for loopback
	open func(trypema.Options) ([]trypema.Provider, store.Where, error) // nil for the instances that the flags name
	// of the page; nil for the server that the flags name
	redis backend
}

// Help is the text of trypema demo --help.
func (Command) Help() string {
	return `Serves a page on which all six limiters stand side by side, under the same HTTP traffic, until
Ctrl-C: three scenes that play on a click, live charts of what is admitted and declined with a verdict in
words, sliders for the load and the limits, and buttons that kill Redis or pause an instance. --rate,
--load, --window, --bucket, --hard-limit-factor and --instances are what the sliders begin with; --provider,
--duration and --clients are for --headless. Without --redis there is an embedded miniredis.

With --headless it starts an HTTP server on a free loopback port. One route is guarded by Absolute, one by
Suppressed, with the same limit. Clients offer Poisson load to both, independently of the answers as far as
they can keep up.

With --provider redis Redis makes every decision, under keys of this run, which go by their time to live. With --provider hybrid decisions are made in this process, from what Redis has leased to it.
What was decided without Redis, because it did not answer within 250ms, is counted as fallback; the embedded
server has longer, as it shares the processors.

With --instances there are as many servers, each with an instance of the provider and with its share of the
clients. They are judged together.

At the end, or after Ctrl-C, the guarantees are judged by what was measured. The exit status is 1 if one was
broken, 2 for a wrong flag.`
}

const (
	defaultWindow   = 5 * time.Second
	defaultRate     = 100
	defaultPageRate = 50

	// Each admission of the last window is kept for the exact check of any window, and each call that was due
	// and not made is counted one by one.
	maxCapacity = 1_000_000
	maxOffered  = 1_000_000
)

// setup is what the flags amount to.
type setup struct {
	rate     trypema.Rate
	load     float64
	options  trypema.Options
	where    store.Where
	capacity uint64 // C
	hard     uint64 // the capacity that Suppressed never passes
	duration time.Duration
	clients  int
}

// limit is what the capacity allows per second: the rate, but for what rounding down the capacity takes off.
func (s setup) limit() float64   { return float64(s.capacity) / s.options.Window.Seconds() }
func (s setup) offered() float64 { return float64(s.rate) * s.load }

func (c *Command) resolve() (setup, error) {
	longest := min(defaultWindow, max(c.Duration/rateWindows, time.Millisecond)).Truncate(time.Millisecond)
	window, rate := flags.Or(c.Window, longest), flags.Or(c.Rate, defaultRate)
	limit := flags.Limit{Rate: rate, Window: window, Bucket: c.Bucket, HardLimitFactor: c.HardLimitFactor}
	options, capacity, err := limit.Resolve()
	err = flags.First(
		c.Check(),
		flags.Check(c.Addr == nil, "addr", c.addr(), "left out with --headless and --json"),
		flags.Check(c.Duration > 0, "duration", c.Duration, "above 0s"),
		err,
		c.CheckFor(window),
		flags.Check(capacity <= maxCapacity, "rate", rate,
			fmt.Sprintf("at most %d events per --window (%v)", maxCapacity, window)),
		flags.Check(c.Load > 0, "load", c.Load, "above 0"),
		flags.Check(c.Load*rate <= maxOffered, "load", c.Load,
			fmt.Sprintf("at most %d requests per second, together with --rate (%v)", maxOffered, rate)),
		flags.Check(c.Clients >= 1 && c.Clients <= 4096, "clients", c.Clients, "from 1 to 4096"),
		flags.Check(c.Instances == nil || c.Clients >= *c.Instances, "clients", c.Clients,
			"at least one for each of --instances"),
	)
	return setup{
		rate:     trypema.Rate(rate),
		load:     c.Load,
		options:  options,
		capacity: capacity,
		hard:     flags.HardCapacity(capacity, options),
		duration: c.Duration,
		clients:  c.Clients,
	}, err
}

// Run offers the load, shows it, and returns an error for each guarantee that was broken.
func (c *Command) Run(ctx context.Context, out screen.Streams) (err error) {
	if !c.Headless && !c.JSON && (c.Addr != nil || screen.IsTerminal(out.Out)) {
		return c.show(ctx, out)
	}
	s, err := c.resolve()
	if err != nil {
		return err
	}
	server, err := c.Flags.Open(ctx, s.options.Window)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	s.where = server.Where(c.Provider, s.options.Window)
	instances, end, err := c.limits(server, &s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()

	run, err := start(ctx, c.network(), s, instances)
	if err != nil {
		return err
	}
	run.log(out.Err)
	if err := run.stop(); err != nil {
		return err
	}
	report := run.report()
	if c.JSON {
		err = screen.JSON(out.Out, report)
	} else {
		err = report.table(out.Out)
	}
	return errors.Join(err, report.broken())
}

func (c *Command) network() web { return flags.Or(c.web, loopback) }

// limits returns the instances that guard the servers, and what ends them.
func (c *Command) limits(server *store.Server, s *setup) (instances []trypema.Provider, end func() error, err error) {
	nothing, o := func() error { return nil }, s.options
	switch {
	case c.open != nil:
		instances, s.where, err = c.open(o)
		return instances, nothing, err
	case server != nil:
		limits, err := server.Limits(c.Provider,
			redislimit.Options{Options: o, Timeout: timeout(server, embeddedTimeout)})
		if err != nil {
			return nil, nothing, err
		}
		return limits.Instances, limits.Close, nil
	}
	local, err := trypema.NewLocal(o)
	if err != nil {
		return nil, nothing, err
	}
	return []trypema.Provider{local}, local.Close, nil
}

// route is one guarded path with its accounts: the servers' and the clients'.
type route struct {
	path     string
	strategy string
	bound    uint64 // the most that any window may admit
	meter    *meter
	sent     sent
}

// traffic is a run in progress.
type traffic struct {
	setup   setup
	servers servers
	routes  []*route
	end     context.CancelFunc
	// closed when the clients have ended; after that the fields below and routes[…].sent are complete
	done chan struct{}
	took time.Duration // how long load was offered
}

// start opens a server for each instance and lets the clients loose, until the duration is over or ctx ends.
func start(ctx context.Context, w web, s setup, instances []trypema.Provider) (*traffic, error) {
	guarded := func(strategy string, bound uint64) *route {
		return &route{path: "/" + strategy, strategy: strategy, bound: bound,
			meter: newMeter(s.options.Window, s.offered())}
	}
	absolute, suppressed := guarded("absolute", s.capacity), guarded("suppressed", s.hard)
	t := &traffic{setup: s, routes: []*route{absolute, suppressed}, done: make(chan struct{})}
	for _, i := range instances {
		mux := http.NewServeMux()
		a, err := guard(i.Absolute(), s.rate, s.options.Window, absolute.meter)
		b, wrong := guard(i.Suppressed(), s.rate, s.options.Window, suppressed.meter)
		if err := errors.Join(err, wrong); err != nil {
			return nil, errors.Join(err, t.servers.close())
		}
		mux.Handle(absolute.path, a)
		mux.Handle(suppressed.path, b)
		one, err := w.serve(mux)
		if err != nil {
			return nil, errors.Join(err, t.servers.close())
		}
		t.servers = append(t.servers, one)
	}
	ctx, t.end = context.WithTimeout(ctx, s.duration)
	began := time.Now()
	var clients sync.WaitGroup
	for _, r := range t.routes {
		clients.Go(func() { r.sent = w.offer(ctx, t.servers.urls(r.path), s.offered(), s.clients) })
	}
	go func() {
		<-ctx.Done()
		t.took = time.Since(began)
		clients.Wait()
		close(t.done)
	}()
	return t, nil
}

// stop ends the load and the servers, and returns after all have ended.
func (t *traffic) stop() error {
	t.end()
	<-t.done
	return t.servers.close()
}
