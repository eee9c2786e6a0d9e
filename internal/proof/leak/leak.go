// Package leak fails tests that leave goroutines running. Only tests use it.
package leak

import (
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long a goroutine may take to end after the last test, on a busy machine.
const patience = 2 * time.Minute

// Main runs the tests of a package and ends the process. The tests fail if goroutines are left whose stack
// contains none of the texts to ignore:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
func Main(m *testing.M, ignore ...string) { os.Exit(Run(m, ignore...)) }

// Run is Main for packages that have something to do after their tests: it returns the code to exit with.
// What TestMain defers is not done before os.Exit.
func Run(m *testing.M, ignore ...string) int {
	code := m.Run()
	if code == 0 {
		if left := await(patience, ignore); left != nil {
			fmt.Fprintf(os.Stderr, "%d goroutines are left:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	return code
}

// await returns the stacks of other goroutines that are left after d, or nil as soon as there are none.
func await(d time.Duration, ignore []string) []string {
	// Of the goroutines that a process has without a test, the profile shows those that wait for signals.
	ignore = append([]string{"os/signal.signal_recv", "os/signal.loop", "runtime.ensureSigM"}, ignore...)
	for give := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		left := others(ignore)
		if left == nil || time.Now().After(give) {
			return left
		}
	}
}

// others returns the stack of each goroutine, without the one that calls.
func others(ignore []string) (left []string) {
	var all strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&all, 2) // to memory
	for _, stack := range strings.Split(all.String(), "\n\n")[1:] {
		if !slices.ContainsFunc(ignore, func(text string) bool { return strings.Contains(stack, text) }) {
			left = append(left, strings.TrimSpace(stack))
		}
	}
	return left
}
