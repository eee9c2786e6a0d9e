package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestProgramHoldsNoPeer: the program is compiled from nothing that only the benchmarks need, such as other
// limiters and what draws plots, and its go.mod does not require it.
func TestProgramHoldsNoPeer(t *testing.T) {
	internal := filepath.Join("..", "..", "internal")
	benchmarks := required(t, filepath.Join(internal, "bench", "go.mod"))
	shared := append(required(t, filepath.Join(internal, "cli", "go.mod")),
		"github.com/trypema/trypema/internal/cli")
	shared = append(shared, // the protocol of Envoy, which serve speaks, and a server that serve is measured by
		"github.com/envoyproxy/go-control-plane/envoy", "google.golang.org/grpc", "google.golang.org/protobuf",
		"github.com/cncf/xds/go", "github.com/envoyproxy/protoc-gen-validate", "github.com/planetscale/vtprotobuf",
		"google.golang.org/genproto/googleapis/rpc", "golang.org/x/net", "golang.org/x/text")
	only := slices.DeleteFunc(benchmarks, func(module string) bool { return slices.Contains(shared, module) })
	if !slices.Contains(only, "gonum.org/v1/plot") || !slices.Contains(only, "github.com/ulule/limiter/v3") {
		t.Fatalf("only the benchmarks need %v; the plots and the peers are not in there", only)
	}
	only = append(only, "github.com/trypema/trypema/internal/bench")
	compiled := strings.Fields(output(t, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "."))
	for what, modules := range map[string][]string{"compiled from": compiled, "required": required(t, "go.mod")} {
		if !slices.Contains(modules, "github.com/alecthomas/kong") {
			t.Errorf("%s: %v, which is not all", what, modules)
		}
		for _, module := range only {
			if slices.Contains(modules, module) {
				t.Errorf("%s: %s, which only the benchmarks need", what, module)
			}
		}
	}
}

// required returns the modules that a go.mod names.
func required(t *testing.T, file string) (modules []string) {
	t.Helper()
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal([]byte(output(t, "mod", "edit", "-json", file)), &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		modules = append(modules, r.Path)
	}
	return modules
}

// output returns what the go command prints.
func output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}
