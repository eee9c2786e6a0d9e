package check

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/cli"
	"github.com/trypema/trypema/internal/cli/clitest"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

func program() cli.Program {
	return cli.Program{Name: "trypema", Commands: &struct {
		Check Command `cmd:""`
	}{}}
}

// folder makes a folder of files, given as name and text, and has it be the working directory.
func folder(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must.OK(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		must.OK(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	t.Chdir(dir)
}

var files = map[string]string{
	"rls.yaml":  "domain: d\ndescriptors:\n  - {key: a, rate_limit: {unit: minute, requests_per_unit: 1}}\n",
	"free.yaml": "domain: f\ndescriptors:\n  - {key: a, value: b, rate_limit: {unlimited: true}}\n",
	"policies.yaml": "policies:\n  - {name: example, strategy: suppressed, cost: 2, shadow: true, " +
		"group: g, limits: [burst=10/s, 100/m]}\n",
	"bad.yaml":     "domain: e\ndescriptors:\n  - {key: a, rate_limit: {unit: minut}}\n  - {value: b}\n",
	"worse.yaml":   "policies:\n  - {name: example, limits: [x]}\n  - {name: other, limit: 5}\n",
	"more.yaml":    "domain: d\ndescriptors: []\n",
	"all/rls.yaml": "domain: d\ndescriptors: []\n",
}

func TestCheck(t *testing.T) {
	folder(t, files)
	tests := []struct {
		args string
		code int
		out  string
	}{
		{"rls.yaml", 0, "d.a: 1 per minute\n1 file, 1 rule, 0 policies: no errors\n"},
		{
			"rls.yaml free.yaml policies.yaml", 0,
			"d.a: 1 per minute\nf.a_b: unlimited\n" +
				"policy example: burst=10/s and 100/m, suppressed, cost 2, group \"g\", shadow\n" +
				"3 files, 2 rules, 1 policy: no errors\n",
		},
		{"all", 0, "1 file, 0 rules, 0 policies: no errors\n"},
		{
			"bad.yaml", 1,
			"bad.yaml:3:33: e.a: rate_limit: unit is \"minut\"; it must be second, minute, hour, day, " +
				"week, month or year\n" +
				"bad.yaml:4:5: descriptor 2 of e: key is missing or empty\n",
		},
		{"worse.yaml", 1, "worse.yaml:2:30: policy \"example\": limit 1: "},
		{"rls.yaml more.yaml", 1, "more.yaml:1:1: domain \"d\" is in rls.yaml, too; merge them with --merge-domains\n"},
		{"--merge-domains rls.yaml more.yaml", 0, "d.a: 1 per minute\n2 files, 1 rule, 0 policies: no errors\n"},
		{"absent.yaml", 1, "absent.yaml: "},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := append([]string{"check"}, strings.Fields(tt.args)...)
			code, stdout, stderr := clitest.Run(t.Context(), program(), args...)
			if code != tt.code || stderr != "" || !strings.HasPrefix(stdout, tt.out) {
				t.Errorf("exit status %d, want %d; stderr %q; stdout:\n%s\nwant\n%s", code, tt.code, stderr,
					stdout, tt.out)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	folder(t, files)
	tests := []struct{ name, args, want string }{
		{"good", "rls.yaml free.yaml policies.yaml", `{
			"ok": true, "files": ["rls.yaml", "free.yaml", "policies.yaml"], "errors": [],
			"rules": [
				{"path": "d.a", "place": "rls.yaml:3", "limit": "1 per minute",
					"requests_per_unit": 1, "unit": "minute"},
				{"path": "f.a_b", "place": "free.yaml:3", "limit": "unlimited",
					"unlimited": true, "requests_per_unit": 0}],
			"policies": [{"name": "example", "limits": ["burst=10/s", "100/m"], "strategy": "suppressed",
				"cost": 2, "group": "g", "shadow": true}]}`},
		{"bad", "bad.yaml rls.yaml", `{
			"ok": false, "files": ["bad.yaml", "rls.yaml"], "rules": [], "policies": [],
			"errors": [
				{"file": "bad.yaml", "line": 3, "column": 33, "problem": "e.a: rate_limit: unit is \"minut\"; ` +
			`it must be second, minute, hour, day, week, month or year"},
				{"file": "bad.yaml", "line": 4, "column": 5,
					"problem": "descriptor 2 of e: key is missing or empty"}]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := clitest.Run(t.Context(), program(),
				append([]string{"check", "--json"}, strings.Fields(tt.args)...)...)
			if (code == cli.ExitOK) != (tt.name == "good") || stderr != "" {
				t.Errorf("exit status %d, stderr %q", code, stderr)
			}
			if got, want := indented(t, stdout), indented(t, tt.want); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
	code, stdout, _ := clitest.Run(t.Context(), program(), "check", "--json", "worse.yaml")
	var d document
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != cli.ExitBroken {
		t.Fatal(code, err, stdout)
	}
	if len(d.Errors) < 2 || d.Errors[0].File != "worse.yaml" || d.Errors[0].Line != 2 || d.Errors[1].Line != 3 {
		t.Errorf("%+v, want each error of a file of policies with its line", d.Errors)
	}
}

// indented returns JSON in the form that each document of the same content has.
func indented(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	must.OK(t, err)
	return string(b)
}

func TestWrongFlags(t *testing.T) {
	clitest.Refuses(t, program, []clitest.Refusal{{"check", `expected "<path> ..."`}})
}
