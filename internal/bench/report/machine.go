package report

import (
	"cmp"
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/klauspost/cpuid/v2"
)

// machine is what the numbers depend on that nobody chose. Numbers of different ones are not put together.
type machine struct {
	Processor  string            `json:"processor"`
	Processors int               `json:"processors"`
	System     string            `json:"system"`
	Go         string            `json:"go"`
	Rust       string            `json:"rust"`    // empty without
	Redis      string            `json:"redis"`   // empty without
	Trypema    string            `json:"trypema"` // version of the source
	Modules    map[string]string `json:"modules"` // what is compared, and its versions
}

// compared are the modules whose versions matter.
var compared = []string{
	"golang.org/x/time", "github.com/puzpuzpuz/xsync/v4", "github.com/sethvargo/go-limiter",
	"github.com/throttled/throttled/v2",
	"github.com/ulule/limiter/v3", "github.com/go-chi/httprate", "github.com/RussellLuo/slidingwindow",
	"github.com/didip/tollbooth/v8",
	"github.com/go-redis/redis_rate/v10", "github.com/redis/go-redis/v9",
}

func thisMachine(redis string) machine {
	m := machine{
		Processor:  Processor(),
		Processors: runtime.NumCPU(),
		System:     strings.TrimSpace(runtime.GOOS + " " + output("uname", "-r") + " " + runtime.GOARCH),
		Go:         runtime.Version(),
		Rust:       output("rustc", "--version"),
		Redis:      redis,
		// which go run does not note in the program
		Trypema: cmp.Or(output("git", "describe", "--always", "--dirty"), "unknown"),
		Modules: make(map[string]string),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return m
	}
	for _, d := range info.Deps {
		if slices.Contains(compared, d.Path) {
			m.Modules[d.Path] = d.Version
		}
	}
	changed := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			m.Trypema = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				changed = ", with changes"
			}
		}
	}
	m.Trypema += changed
	return m
}

// Processor is what it calls itself.
func Processor() string { return cmp.Or(cpuid.CPU.BrandName, "unknown") }

// output is what a program prints; empty if it is not there.
func output(name string, args ...string) string {
	text, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// String is the machine in a line.
func (m machine) String() string {
	s := fmt.Sprintf("%d × %s, %s, %s", m.Processors, m.Processor, m.System, m.Go)
	for _, more := range []string{m.Rust, m.Redis} {
		if more != "" {
			s += ", " + more
		}
	}
	return s
}

// processors are the numbers of them that are tried: powers of two, and all.
func processors() (n []int) {
	for k := 1; k < runtime.NumCPU(); k *= 2 {
		n = append(n, k)
	}
	return append(n, runtime.NumCPU())
}
