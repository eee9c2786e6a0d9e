// Command mutants shows that the tests would notice: it breaks the core in small ways, one at a time, and
// runs the tests that ought to fail. A mutant that survives, or that the code no longer has a place for, ends
// it with status 1.
//
// Nothing is changed on disk: the go command is given another text for one file, by its flag -overlay.
//
//	go run ./internal/proof/mutants            all of them
//	go run ./internal/proof/mutants -run lua   those whose file or description contains a word
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// mutant is one way to break the code.
type mutant struct {
	what     string
	file     string
	packages string // whose tests ought to fail
	run      string // which of them, if not all
	old      string // must be in the file once
	new      string
}

func main() {
	only := flag.String("run", "", "only mutants whose file or description contains this")
	timeout := flag.Duration("timeout", 3*time.Minute, "of one mutant")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, mutants, *only, *timeout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, all []mutant, only string, timeout time.Duration) error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what stays is in the folder for such things
	chosen := slices.DeleteFunc(slices.Clone(all), func(m mutant) bool {
		return !strings.Contains(m.file+" "+m.what, only)
	})
	if len(chosen) == 0 {
		return fmt.Errorf("no mutant has %q in its file or description", only)
	}
	alive := 0
	for i, m := range chosen {
		began := time.Now()
		how, err := m.meet(ctx, dir, timeout)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		verdict := "caught"
		if err != nil {
			verdict, how = "ALIVE ", err.Error()
			alive++
		}
		fmt.Fprintf(out, "%2d/%d %s %5.1fs  %s: %s (%s)\n", i+1, len(chosen), verdict,
			time.Since(began).Seconds(), m.file, m.what, how)
	}
	if alive > 0 {
		return fmt.Errorf("%d of %d mutants were not caught", alive, len(chosen))
	}
	fmt.Fprintf(out, "all %d mutants were caught\n", len(chosen))
	return nil
}

var (
	failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	crash  = regexp.MustCompile(`(?m)^(panic: .*|fatal error: .*)$`)
)

// meet runs the tests on the mutant, and returns which of them failed.
func (m *mutant) meet(ctx context.Context, dir string, timeout time.Duration) (how string, err error) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", fmt.Errorf("the file has %d places like %q, not one", n, m.old)
	}
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	other := filepath.Join(dir, filepath.Base(m.file))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: other}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	mutated := strings.Replace(string(text), m.old, m.new, 1)
	for name, data := range map[string][]byte{other: []byte(mutated), list: overlay} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return "", err
		}
	}
	args := []string{"test", "-overlay", list, "-count=1", "-short", "-failfast", "-timeout", timeout.String()}
	if m.run != "" {
		args = append(args, "-run", m.run)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, strings.Fields(m.packages)...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "", fmt.Errorf("the tests pass")
	case bytes.Contains(out, []byte("[build failed]")) || bytes.Contains(out, []byte("[setup failed]")):
		return "", fmt.Errorf("it does not compile: %s", bytes.TrimSpace(out))
	}
	if tests := failed.FindAllSubmatch(out, -1); tests != nil {
		return string(tests[len(tests)-1][1]), nil
	}
	if what := crash.Find(out); what != nil {
		return string(what), nil
	}
	return "", fmt.Errorf("no test failed, but: %s", bytes.TrimSpace(out))
}
