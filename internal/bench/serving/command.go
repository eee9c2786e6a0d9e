// Package serving measures trypema serve beside other servers of rate limits, each as a process: redis-cell
// in a redis-server, throttlecrab-server, envoyproxy/ratelimit, and a gRPC server that answers without
// looking. The clients are redis-benchmark, ghz, and for HTTP one of this package.
package serving

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
)

// Command is the flags of bench serve.
type Command struct {
	Quick    bool           `help:"Three rounds of a second each: the numbers are rough."`
	Rounds   *int           `help:"Rounds in which the servers of a case take turns. Default: 7, or 3 with --quick."`
	Duration *time.Duration `help:"How long a turn takes. Default: 3s, or 1s with --quick."`
	Only     []string       `placeholder:"CASE" help:"Measure these cases alone; --list shows their names."`
	List     bool           `help:"Print the names of the cases, and what each needs, and measure nothing."`
	Install  bool           `help:"Install ghz, envoyproxy/ratelimit and throttlecrab-server where they are missing."`
	JSON     bool           `name:"json" help:"Print one JSON document instead of a table in Markdown."`

	Cell         string `placeholder:"FILE" help:"Module redis-cell of Redis. Default: built in internal/bench/rust."`
	Throttlecrab string `placeholder:"FILE" help:"throttlecrab-server. Default: on PATH, or by --install."`
	Ratelimit    string `placeholder:"FILE" help:"envoyproxy/ratelimit. Default: by --install, as in tests."`
	GHZ          string `name:"ghz" placeholder:"FILE" help:"ghz. Default: on PATH, or by --install."`
}

// Help is the text of bench serve --help.
func (Command) Help() string {
	return `Compares trypema serve with other servers on this machine, in one run and by the same clients. In
each round every server of a case has one turn; a ratio is that of two turns of the same round. All servers
of a case run at the same time, and those that are not asked are idle. A server or client that is not
installed is named, and its rows are left out.

The exit status is 1 if a server answers with errors or does not start, 2 for a wrong flag.`
}

func (c *Command) check() error {
	rounds, duration := c.effort()
	var names []string
	for _, one := range cases() {
		names = append(names, one.name)
	}
	for _, name := range c.Only {
		if err := flags.OneOf("only", name, names...); err != nil {
			return err
		}
	}
	return flags.First(
		flags.Check(rounds >= 1 && rounds <= 1000, "rounds", rounds, "from 1 to 1000"),
		flags.Check(duration >= 100*time.Millisecond, "duration", duration, "at least 100ms"),
	)
}

// effort is how many rounds there are, and how long a turn takes.
func (c *Command) effort() (rounds int, duration time.Duration) {
	rounds, duration = 7, 3*time.Second
	if c.Quick {
		rounds, duration = 3, time.Second
	}
	if c.Rounds != nil {
		rounds = *c.Rounds
	}
	if c.Duration != nil {
		duration = *c.Duration
	}
	return rounds, duration
}

// Run measures the cases.
func (c *Command) Run(ctx context.Context, out screen.Streams) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.List {
		for _, one := range cases() {
			fmt.Fprintf(out.Out, "%-14s %s\n", one.name, one.title)
		}
		return nil
	}
	s, err := newStage(ctx, c, screen.NewBar(out.Err))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	d, err := s.measure(ctx)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case err != nil:
		return err
	}
	if c.JSON {
		return screen.JSON(out.Out, d)
	}
	return d.markdown(out.Out)
}

// measure measures the cases, one after the other.
func (s *stage) measure(ctx context.Context) (*document, error) {
	rounds, duration := s.command.effort()
	d := &document{Machine: machine(), Rounds: rounds, Seconds: duration.Seconds(), Cases: []result{}}
	chosen := slices.DeleteFunc(cases(), func(c measured) bool {
		return len(s.command.Only) > 0 && !slices.Contains(s.command.Only, c.name)
	})
	for i, one := range chosen {
		progress := func(part float64) { s.bar.Set((float64(i)+part)/float64(len(chosen)), one.name) }
		r, err := s.run(ctx, one, rounds, duration, progress)
		if err != nil {
			s.bar.Clear()
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		d.Cases = append(d.Cases, *r)
	}
	s.bar.Clear()
	for _, name := range slices.Sorted(maps.Keys(s.missing)) {
		d.LeftOut = append(d.LeftOut, name+": "+s.missing[name])
	}
	return d, nil
}

// run lets the servers of a case take turns.
func (s *stage) run(
	ctx context.Context, c measured, rounds int, duration time.Duration, progress func(float64),
) (*result, error) {
	r := &result{Case: c.name, Title: c.title, Client: c.client, Asked: c.asked}
	if c.alone != nil {
		var err error
		r.Found, err = c.alone(ctx, s)
		var missing *peer.MissingError
		if errors.As(err, &missing) {
			r.LeftOut, err = err.Error(), nil
		}
		return r, err
	}
	var running []*contender
	defer func() {
		for _, one := range running {
			one.stop()
		}
	}()
	for i, with := range c.servers {
		one, err := with(ctx, s)
		var missing *peer.MissingError
		switch {
		case errors.As(err, &missing):
			s.missing[missing.Name] = missing.Why
			if i == 0 {
				r.LeftOut = missing.Name + " is missing"
				return r, nil
			}
			continue
		case err != nil:
			return nil, err
		}
		one.peer = one.peer || i > 0 && c.beside
		running = append(running, one)
		if _, err := c.turn(ctx, s, one, duration/3); err != nil { // to warm up
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
	}
	turns := make([][]turn, len(running))
	for round := range rounds {
		for i := range running { // each is first, second … in turn
			at := (round + i) % len(running)
			progress((float64(round) + float64(i)/float64(len(running))) / float64(rounds))
			t, err := c.turn(ctx, s, running[at], duration)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", running[at].name, err)
			}
			turns[at] = append(turns[at], t)
		}
	}
	r.Rows = rowsOf(running, turns)
	return r, ctx.Err()
}
