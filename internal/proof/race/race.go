// Package race says how tests build programs. Only tests use it.
package race

import (
	"runtime/debug"
	"slices"
)

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
