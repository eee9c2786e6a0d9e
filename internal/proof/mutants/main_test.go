package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/must"
)

// Each mutant still has its place in the code, so that none goes out of use unnoticed until somebody runs
// them.
func TestMutantsHaveAPlace(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range mutants {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", m.file))
		must.Report(t, err)
		if n := strings.Count(string(text), m.old); n != 1 || m.old == m.new {
			t.Errorf("%s: %s: the file has %d places like %q, which becomes %q", m.file, m.what, n, m.old,
				m.new)
		}
		if name := m.file + m.old + m.new; seen[name] {
			t.Errorf("%s: %s: is there twice", m.file, m.what)
		} else {
			seen[name] = true
		}
	}
}

// What becomes of a mutant is told as it is.
func TestRun(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"go.mod": "module m\n\ngo 1.25\n",
		"m.go": "package m\n\nvar list = []int{1, 2}\n\nfunc first() int { return list[0] }\n\n" +
			"func spare() int { return list[1] }\n",
		"m_test.go": "package m\n\nimport \"testing\"\n\nfunc TestFirst(t *testing.T) {\n" +
			"\tif first() != 1 {\n\t\tt.Fatal()\n\t}\n}\n",
		"exit/e.go": "package exit\n\nvar Status = 0\n",
		"exit/e_test.go": "package exit\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n" +
			"func TestMain(m *testing.M) { os.Exit(m.Run() + Status) }\n",
	} {
		must.OK(t, os.MkdirAll(filepath.Dir(name), 0o700))
		must.OK(t, os.WriteFile(name, []byte(text), 0o600))
	}
	caught := mutant{what: "the first is another", file: "m.go", old: "list[0]", new: "list[1]", packages: "."}
	crashes := mutant{what: "there is no such", file: "m.go", old: "list[0]", new: "list[len(list)]", packages: "."}
	spare := mutant{what: "the spare", file: "m.go", old: "list[1]", new: "list[0]", packages: "."}
	other := mutant{what: "x", file: "m.go", old: "list[0]", new: "list[1]", packages: ".", run: "TestOther"}
	broken := mutant{what: "x", file: "m.go", old: "list[0]", new: "list[", packages: "."}
	nowhere := mutant{what: "x", file: "m.go", old: "nowhere", packages: "."}
	exits := mutant{what: "x", file: "exit/e.go", old: "0", new: "1", packages: "./exit"}
	for _, test := range []struct {
		what string
		all  []mutant
		only string
		err  string
		says string
	}{
		{"chosen, and by whom it is caught", []mutant{caught, {what: "other"}}, "first", "",
			"m.go: the first is another (TestFirst)\nall 1 mutants were caught"},
		{"by a panic", []mutant{crashes}, "", "", "TestFirst"},
		{"alive", []mutant{caught, spare}, "", "1 of 2 mutants were not caught", "(the tests pass)"},
		{"not chosen by its test", []mutant{other}, "", "1 of 1 mutants were not caught", "(the tests pass)"},
		{"does not compile", []mutant{broken}, "", "not caught", "it does not compile"},
		{"no place", []mutant{nowhere}, "", "not caught", `0 places like "nowhere"`},
		{"no file", []mutant{{what: "x", file: "n.go", packages: "."}}, "", "not caught", "no such file"},
		{"no test", []mutant{exits}, "", "not caught", "no test failed"},
		{"none chosen", []mutant{caught}, "lua", `no mutant has "lua"`, ""},
	} {
		var out bytes.Buffer
		err := run(t.Context(), &out, test.all, test.only, time.Minute)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) ||
			!strings.Contains(out.String(), test.says) {
			t.Errorf("%s: %v\n%s", test.what, err, out.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, new(bytes.Buffer), []mutant{caught}, "", time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
