// Package race says whether a test was built with the race detector. Only tests use it.
package race

import (
	"runtime/debug"
	"slices"
)

// Flags returns -race where the test was built with it, for programs that the test builds: then most of what
// they import has been compiled for the tests already.
func Flags() []string {
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return []string{"-race"}
	}
	return nil
}
