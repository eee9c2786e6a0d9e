package pages

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/race"
)

func TestMain(m *testing.M) { leak.Main(m) }

// TestPages runs the tests in JavaScript, each as a test of its own. REPORT names the folder of a report
// whose page is to be looked at; TRYPEMA_EXPLORE=1 runs all of them.
func TestPages(t *testing.T) {
	uncached(t)
	t.Cleanup(func() { uncached(t) })
	chromium := browser(t)
	npm, node := program(t, "npm"), program(t, "node")
	install(t, npm)
	env := append(os.Environ(), "CHROMIUM="+chromium, "TRYPEMA="+build(t, "cmd/trypema"),
		"BENCH="+build(t, "internal/bench"))
	for _, file := range []string{"demo.test.js", "replay.test.js", "report.test.js"} {
		t.Run(strings.TrimSuffix(file, ".test.js"), func(t *testing.T) {
			t.Parallel() // the page of the demo is waited for, most of the time
			look(t, node, file, env)
		})
	}
}

// uncached has go test keep no result: it does not know that it depends on the program, on the scripts and on
// the browser. It keeps none of a test that has looked at a file as new as this.
func uncached(t *testing.T) {
	t.Helper()
	const stamp = "screenshots/stamp"
	err := os.MkdirAll(filepath.Dir(stamp), 0o777)
	if err == nil {
		err = os.WriteFile(stamp, []byte(time.Now().String()), 0o600)
	}
	if err == nil {
		_, err = os.Stat(stamp)
	}
	must.OK(t, err)
}

// browser returns the path of Chromium, which CHROMIUM names, or which is on PATH.
func browser(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if named := os.Getenv("CHROMIUM"); named != "" {
		names = []string{named}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("The pages are not looked at: there is no Chromium (%s).", strings.Join(names, ", "))
	return ""
}

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("The pages are not looked at: there is no %s.", name)
	}
	return path
}

// install sees to it that the packages are there which package-lock.json names.
func install(t *testing.T, npm string) {
	t.Helper()
	var want struct{ DevDependencies map[string]string }
	read(t, "package.json", &want)
	missing := false
	for name, version := range want.DevDependencies {
		var have struct{ Version string }
		installed := filepath.Join("node_modules", name, "package.json")
		if _, err := os.Stat(installed); err == nil {
			read(t, installed, &have)
		}
		missing = missing || have.Version != version
	}
	if !missing {
		return
	}
	ci := exec.CommandContext(t.Context(), npm, "ci", "--no-audit", "--no-fund", "--prefer-offline")
	said, err := ci.CombinedOutput()
	switch {
	case err == nil:
	case isNetwork(said):
		t.Skipf("The pages are not looked at: npm cannot fetch what package-lock.json names.\n%s", said)
	default:
		t.Fatalf("npm ci: %v\n%s", err, said)
	}
}

func isNetwork(said []byte) bool {
	for _, code := range []string{"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT"} {
		if bytes.Contains(said, []byte(code)) {
			return true
		}
	}
	return false
}

func read(t *testing.T, file string, v any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// build returns a program.
func build(t *testing.T, folder string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(folder))
	must.OK(t, race.Build(t.Context(), "github.com/trypema/trypema/"+folder, path))
	return path
}

// result is a line of reporter.js.
type result struct {
	Name    string
	Nesting int
	Skip    string
	Error   string
	Took    float64 `json:"took_ms"`
}

// look runs a file of tests.
func look(t *testing.T, node, file string, env []string) {
	c := exec.CommandContext(t.Context(), node, "--test-reporter=./reporter.js", file)
	c.Env = env
	var stderr bytes.Buffer
	c.Stderr = &stderr
	stdout, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	must.OK(t, err)
	var rest []string
	tests, failed := 0, 0
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r result
		switch err := json.Unmarshal(lines.Bytes(), &r); {
		case err != nil:
			rest = append(rest, lines.Text())
		case r.Nesting > 0: // a part of one that is to come
		default:
			tests++
			if r.Error != "" {
				failed++
			}
			t.Run(cmp.Or(r.Name, file), r.report)
		}
	}
	ended := errors.Join(lines.Err(), c.Wait())
	if tests == 0 || ended != nil && failed == 0 {
		t.Errorf("%s: %d tests, and node says: %v\n%s\n%s", file, tests, ended, strings.Join(rest, "\n"),
			&stderr)
	} else if t.Failed() {
		t.Logf("%s\n%s", strings.Join(rest, "\n"), &stderr)
	}
}

func (r result) report(t *testing.T) {
	switch {
	case r.Error != "":
		t.Errorf("after %.1fs: %s", r.Took/1000, r.Error)
	case r.Skip != "":
		t.Skip(r.Skip)
	default:
		t.Logf("it took %.1fs", r.Took/1000)
	}
}
