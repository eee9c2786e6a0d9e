// Package program is what the examples have around the limiter that they show: signals, flags, an exit status
// and an HTTP server.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Run is a program but for the process around it. It returns the exit status: 2 if the command line is wrong,
// 1 if something failed.
type Run func(ctx context.Context, args []string, stdout, stderr io.Writer) int

// Main runs a program, whose context ends with Ctrl-C, and exits with its status.
func Main(run Run) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the end
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Flags returns the flags of a program, which complain to stderr.
func Flags(name string, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	return flags
}

// Parse parses the command line. If it is not ok, the program exits with the status.
func Parse(flags *flag.FlagSet, args []string) (status int, ok bool) {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0, false
	case err != nil: // which flags has told
		return 2, false
	}
	return 0, true
}

// Check returns an error that says what is wrong, unless all is well.
func Check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// Fail says to whom flags complain why a program ends, and returns its exit status.
func Fail(flags *flag.FlagSet, status int, err error) int {
	fmt.Fprintf(flags.Output(), "%s: %v\n", flags.Name(), err)
	return status
}

// Serve serves until ctx ends, and then lets the calls that are under way come to their end, for as long as
// grace.
func Serve(ctx context.Context, addr string, h http.Handler, grace time.Duration, stdout io.Writer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err = server.Shutdown(ending)
	if cause := <-ended; !errors.Is(cause, http.ErrServerClosed) {
		err = errors.Join(err, cause)
	}
	return err
}

// Sleep returns after d, or with an error when ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
