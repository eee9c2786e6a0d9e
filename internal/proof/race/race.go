// Package race says how tests build programs. Only tests use it.
package race

import (
	"context"
	"fmt"
	"os/exec"
	"runtime/debug"
	"slices"
)

// Build builds the program of a package, with the race detector if the test has it, and writes it to path. It
// has the go command run cp instead of the program: go run keeps programs in its cache, and go build links
// them each time, which takes two seconds of processor time.
func Build(ctx context.Context, pkg, path string) error {
	args := append([]string{"run"}, Flags()...)
	args = append(args, "-exec", "cp", pkg, path)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go run -exec cp %s: %w: %s", pkg, err, out)
	}
	return nil
}

// Flags returns the flags of go build for programs that a test builds. They have no debug information, so
// that linking takes less time. They have the race detector if the test has it: then most of what they import
// has been compiled for the tests already.
func Flags() []string {
	flags := []string{"-ldflags=-s -w"}
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		flags = append(flags, "-race")
	}
	return flags
}
