package trypema_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/race"
)

// The first example of the README is a program that prints what stands below it, and is short.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	must.OK(t, err)
	_, program, _ := strings.Cut(string(readme), "```go\n")
	program, rest, found := strings.Cut(program, "```\n\n```text\n")
	want, _, _ := strings.Cut(rest, "```")
	if !found || !strings.Contains(program, ".Bind(") {
		t.Fatal("no program with its output in README.md")
	}
	lines := strings.Count(program, "\n")
	program = `package main
		import ("context"; "fmt"; "log"; "time"; "github.com/trypema/trypema")
		func main() {` + program + "}"
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	here, err := filepath.Abs("readme_program/main.go") // a package that is in this module only for the compiler
	must.OK(t, err)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {here: file}})
	must.OK(t, err)
	for name, content := range map[string][]byte{file: []byte(program), filepath.Join(dir, "overlay.json"): overlay} {
		must.OK(t, os.WriteFile(name, content, 0o600))
	}
	args := append([]string{"build"}, race.Flags()...)
	build := exec.Command("go", append(args, "-o", filepath.Join(dir, "program"),
		"-overlay", filepath.Join(dir, "overlay.json"), "./readme_program")...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if lines > 20 {
		t.Errorf("the program has %d lines", lines)
	}
	for tries := 1; ; tries++ { // its calls may take a second on a busy machine, which it then waits less
		out, err := exec.Command(filepath.Join(dir, "program")).CombinedOutput()
		if err == nil && string(out) == want {
			break
		}
		if err != nil || tries == 20 {
			t.Fatalf("%v\n%s\nwant\n%s", err, out, want)
		}
	}
}
