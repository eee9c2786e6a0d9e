// Package clitest is what the tests of programs of package cli have in common. Each check runs a program in
// the process of the test.
package clitest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/cli"
)

// Refusal is a wrong command line, and what the program says of it.
type Refusal = struct{ Args, Message string }

// Output is a command line, and what the program prints among other things.
type Output = struct {
	Args string
	Want []string
}

// Run runs a program.
func Run(ctx context.Context, p cli.Program, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = p.Run(ctx, args, &out, &err)
	return code, out.String(), err.String()
}

// Refuses checks that a program refuses each command line with one line on stderr and ExitWrong.
func Refuses(t *testing.T, program func() cli.Program, tests []Refusal) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.Args, func(t *testing.T) {
			code, stdout, stderr := Run(t.Context(), program(), strings.Fields(tt.Args)...)
			if code != cli.ExitWrong {
				t.Errorf("exit status %d, want %d", code, cli.ExitWrong)
			}
			if want := program().Name + ": " + tt.Message + "\n"; stderr != want {
				t.Errorf("stderr:\n got %q\nwant %q", stderr, want)
			}
			if stdout != "" {
				t.Errorf("stdout: %q, want nothing", stdout)
			}
		})
	}
}

// Prints checks that a program succeeds with each command line and prints what it should.
func Prints(t *testing.T, program func() cli.Program, tests []Output) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.Args, func(t *testing.T) { prints(t, program(), tt) })
	}
}

// Helps is Prints for command lines that ask for help: nothing goes to stderr.
func Helps(t *testing.T, program func() cli.Program, tests []Output) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.Args, func(t *testing.T) {
			if stderr := prints(t, program(), tt); stderr != "" {
				t.Errorf("stderr: %q, want nothing", stderr)
			}
		})
	}
}

func prints(t *testing.T, p cli.Program, o Output) (stderr string) {
	t.Helper()
	code, stdout, stderr := Run(t.Context(), p, strings.Fields(o.Args)...)
	if code != cli.ExitOK {
		t.Fatalf("exit status %d\n%s\n%s", code, stderr, stdout)
	}
	for _, want := range o.Want {
		if !strings.Contains(stdout, want) {
			t.Errorf("nothing says %q:\n%s", want, stdout)
		}
	}
	return stderr
}

// NeedsRedis checks that a command which takes --provider and --redis fails where there is no server, and
// says so in one line without the password.
func NeedsRedis(t *testing.T, program func() cli.Program, command ...string) {
	t.Helper()
	for _, provider := range []string{"redis", "hybrid"} {
		where := []string{"--provider", provider, "--redis", "redis://user:secret@127.0.0.1:1/2"}
		code, stdout, stderr := Run(t.Context(), program(), slices.Concat(command, where)...)
		want := program().Name + ": --redis is redis://127.0.0.1:1/2, which cannot be used: "
		if code != cli.ExitBroken || stdout != "" || strings.Count(stderr, "\n") != 1 ||
			!strings.HasPrefix(stderr, want) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q", provider, code, stdout, stderr)
		}
	}
}
