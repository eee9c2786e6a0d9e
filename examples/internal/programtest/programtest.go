// Package programtest runs the examples in their tests.
package programtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/trypema/trypema/examples/internal/program"
)

// Flags returns a function that runs a program with the arguments that a text has, and fails unless it exits
// with the status, prints nothing, and says the text to stderr; "secret" may be said by none.
func Flags(t *testing.T, run program.Run) func(args string, status int, says string) {
	return func(args string, status int, says string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), strings.Fields(args), &stdout, &stderr); got != status {
			t.Errorf("%s: exit status %d, want %d", args, got, status)
		}
		said := stderr.String()
		if !strings.Contains(said, says) || strings.Contains(said, "secret") || stdout.Len() > 0 {
			t.Errorf("%s: says %q and %q, want %q", args, stdout.String(), said, says)
		}
	}
}

// Serve runs a program that serves until it is interrupted, and then gives its exit status.
func Serve(t *testing.T, run program.Run, args ...string) (url string, interrupt func(), status <-chan int) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	t.Cleanup(interrupt)
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, append(args, "--addr", "localhost:0"), in, t.Output()) }()
	if _, err := fmt.Fscanf(out, "listening on %s\n", &url); err != nil {
		t.Fatal(err)
	}
	return url, interrupt, ended
}
