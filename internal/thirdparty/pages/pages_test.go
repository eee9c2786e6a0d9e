package pages

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPages runs the tests of *.test.js, each as a subtest. It is skipped where a program is missing: INSTALL=0 make test.
func TestPages(t *testing.T) {
	chromium := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if chromium == "" {
			chromium, _ = exec.LookPath(name)
		}
	}
	if chromium == "" {
		t.Skip("the pages are not looked at: there is no chromium, chromium-browser or google-chrome")
	}
	for _, name := range []string{"npm", "node"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("the pages are not looked at: there is no %s", name)
		}
	}
	program := filepath.Join(t.TempDir(), "trypema")
	for _, command := range [][]string{
		{"go", "build", "-o", program, "../../../cmd/trypema"},
		{"npm", "ci", "--silent", "--no-audit", "--no-fund"},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}

	node := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=./reporter.js")
	node.Env = append(os.Environ(), "CHROMIUM="+chromium, "TRYPEMA="+program)
	node.Stderr = os.Stderr
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	ran := 0
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var result struct {
			Name, Error, Skipped string
			Passed               bool
		}
		if err := json.Unmarshal(lines.Bytes(), &result); err != nil {
			t.Errorf("%v: %s", err, lines.Text())
			continue
		}
		ran++
		t.Run(result.Name, func(t *testing.T) {
			switch {
			case result.Skipped != "":
				t.Skip(result.Skipped)
			case !result.Passed:
				t.Error(result.Error)
			}
		})
	}
	if err := node.Wait(); err != nil && !t.Failed() {
		t.Error("node --test: ", err)
	}
	if ran == 0 {
		t.Error("node --test ran no test")
	}
}
