// Command trypema shows the rate limiter at work and measures it.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/cmd/trypema/internal/bench"
	"github.com/trypema/trypema/cmd/trypema/internal/demo"
	"github.com/trypema/trypema/cmd/trypema/internal/flags"
	"github.com/trypema/trypema/cmd/trypema/internal/report"
	"github.com/trypema/trypema/cmd/trypema/internal/screen"
	"github.com/trypema/trypema/cmd/trypema/internal/sim"
)

// The exit statuses.
const (
	exitOK     = 0
	exitBroken = 1 // a guarantee was broken, or the run failed
	exitWrong  = 2 // the command line is wrong
)

type commands struct {
	Demo   demo.Command   `cmd:"" help:"Show all six limiters under the same HTTP traffic, on a page; or judge the guarantees of one provider, with --headless."`
	Bench  bench.Command  `cmd:"" help:"Measure speed, latency, memory and accuracy, of this library and of others."`
	Report report.Command `cmd:"" help:"Measure everything beside everybody, and write a page and a table of it."`
	Sim    sim.Command    `cmd:"" help:"Simulate many instances of the Hybrid provider, and size the Redis that they need."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the end
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	os.Exit(code)
}

// run is the program but for the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := screen.Streams{Out: stdout, Err: stderr}
	helped := false
	options := append(flags.Mappers(),
		kong.Name("trypema"),
		kong.Description("An exact sliding-window rate limiter at work, and measured."),
		bench.Vars(),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }), // kong exits only after it has printed help
		kong.WithHyphenPrefixedParameters(true),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(out),
	)
	parser, err := kong.New(&commands{}, options...)
	if err != nil {
		out.Complain(err)
		return exitBroken
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if helped {
		return exitOK
	}
	if err != nil {
		var wrong *flags.Error
		if errors.As(err, &wrong) { // without the prefixes that the parser puts before it
			err = wrong
		}
		out.Complain(err)
		return exitWrong
	}
	if err := parsed.Run(); err != nil {
		out.Complain(err)
		if flags.IsWrong(err) {
			return exitWrong
		}
		return exitBroken
	}
	return exitOK
}
