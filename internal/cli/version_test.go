package cli

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	build := " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "abc123"},
			{Key: "vcs.modified", Value: modified}}
	}
	for _, tt := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, "p (devel)"},
		{&debug.BuildInfo{}, "p (devel)"},
		{&debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}}, "p v0.1.0"},
		{&debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}, Settings: vcs("false")}, "p v0.1.0 (commit abc123)"},
		{&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs("true")},
			"p (devel) (commit abc123, modified)"},
	} {
		if got := describe("p", tt.info); got != tt.want+build {
			t.Errorf("got %q, want %q", got, tt.want+build)
		}
	}
}
