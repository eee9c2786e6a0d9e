// Package cli runs a program of commands: how they are parsed, complained about, and what their exit status
// says. It and the packages below it are what trypema and the benchmarks share; their module is released
// because trypema requires it.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
)

// The exit statuses.
const (
	ExitOK     = 0
	ExitBroken = 1 // a guarantee was broken, or the run failed
	ExitWrong  = 2 // the command line is wrong
)

// Program is a program of commands.
type Program struct {
	Name, Description string
	// A pointer to a struct as kong takes it. Each command has a method
	// Run(context.Context, screen.Streams) error.
	Commands any
	Options  []kong.Option
}

// Main runs the program with the arguments and streams of this process, and ends it.
func (p Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the end
	os.Exit(p.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Run is the program without the process around it. It returns the exit status.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := screen.Streams{Name: p.Name, Out: stdout, Err: stderr}
	helped := false
	options := append(flags.Mappers(),
		kong.Name(p.Name),
		kong.Description(p.Description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }), // kong exits only after it has printed help
		kong.WithHyphenPrefixedParameters(true),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(out),
		kong.Vars{"version": version(p.Name)}, // what a flag of type kong.VersionFlag prints
	)
	parser, err := kong.New(p.Commands, append(options, p.Options...)...)
	if err != nil {
		out.Complain(err)
		return ExitBroken
	}
	switch {
	case len(args) == 0 && parser.Model.DefaultCmd == nil:
		args = []string{"--help"}
	case len(args) > 0 && args[0] == "help": // help, and help COMMAND
		args = append(slices.Clone(args[1:]), "--help")
	}
	parsed, err := parser.Parse(args)
	if helped {
		return ExitOK
	}
	if err != nil {
		var wrong *flags.Error
		if errors.As(err, &wrong) { // without the prefixes that the parser puts before it
			err = wrong
		}
		out.Complain(err)
		return ExitWrong
	}
	if err := parsed.Run(); err != nil {
		out.Complain(err)
		if flags.IsWrong(err) {
			return ExitWrong
		}
		return ExitBroken
	}
	return ExitOK
}
