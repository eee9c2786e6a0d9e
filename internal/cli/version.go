package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version describes a program: its version, the commit if it was built from a checkout, Go, and the system.
func version(name string) string {
	info, _ := debug.ReadBuildInfo()
	return describe(name, info)
}

func describe(name string, info *debug.BuildInfo) string {
	number, commit := "", ""
	if info != nil {
		number = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = " (commit " + s.Value
			case s.Key == "vcs.modified" && s.Value == "true" && commit != "":
				commit += ", modified"
			}
		}
	}
	if commit != "" {
		commit += ")"
	}
	return fmt.Sprintf("%s %s%s %s %s/%s", name, cmp.Or(number, "(devel)"), commit, runtime.Version(),
		runtime.GOOS, runtime.GOARCH)
}
