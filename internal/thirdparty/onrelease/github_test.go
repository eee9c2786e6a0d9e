package onrelease

import (
	"os"
	slash "path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/trypema/trypema/internal/proof/must"
)

// parse reads a YAML file of the repository.
func parse(t *testing.T, file string, into any) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	must.OK(t, err)
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return string(text)
}

type step struct {
	Uses string            `yaml:"uses"`
	Run  string            `yaml:"run"`
	With map[string]string `yaml:"with"`
}

type workflow struct {
	Permissions map[string]string `yaml:"permissions"`
	Jobs        map[string]struct {
		RunsOn   string `yaml:"runs-on"`
		Timeout  int    `yaml:"timeout-minutes"`
		Strategy struct {
			Matrix map[string][]string `yaml:"matrix"`
		} `yaml:"strategy"`
		Steps []step `yaml:"steps"`
	} `yaml:"jobs"`
}

var (
	pinned   = regexp.MustCompile(`^[\w.-]+/[\w.-]+@[0-9a-f]{40}$`)
	uses     = regexp.MustCompile(`(?m)^.*\buses: .*$`)
	comment  = regexp.MustCompile(`uses: \S+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	made     = regexp.MustCompile(`\bmake ([a-z-]+)`)
	expanded = regexp.MustCompile(`\$\{\{ matrix\.(\w+) \}\}`)
	target   = regexp.MustCompile(`(?m)^([a-z-]+):`)
)

// Workflows parse, take actions by a commit and make targets that exist, end by themselves, and may write
// only where they say so.
func TestWorkflows(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	must.OK(t, err)
	var targets []string
	for _, found := range target.FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, found[1])
	}
	files, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	ran := make(map[string]bool)
	for _, file := range files {
		name := filepath.Base(file)
		var w workflow
		text := parse(t, ".github/workflows/"+name, &w)
		if len(w.Permissions) != 1 || w.Permissions["contents"] != "read" || len(w.Jobs) == 0 {
			t.Errorf("%s: permissions %v, %d jobs", name, w.Permissions, len(w.Jobs))
		}
		for _, line := range uses.FindAllString(text, -1) {
			if !comment.MatchString(line) {
				t.Errorf("%s: %q has no version in a comment behind its commit", name, strings.TrimSpace(line))
			}
		}
		for id, job := range w.Jobs {
			if job.Timeout == 0 || job.RunsOn == "" || len(job.Steps) == 0 {
				t.Errorf("%s: %s runs on %q, for %d minutes, %d steps", name, id, job.RunsOn, job.Timeout, len(job.Steps))
			}
			for _, s := range job.Steps {
				if s.Uses != "" && !pinned.MatchString(s.Uses) {
					t.Errorf("%s: %s uses %s, which is not a commit", name, id, s.Uses)
				}
				if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != "false" {
					t.Errorf("%s: %s leaves its token to what it runs", name, id)
				}
				for _, command := range commands(s.Run, job.Strategy.Matrix) {
					for _, found := range made.FindAllStringSubmatch(command, -1) {
						ran[found[1]] = true
						if !slices.Contains(targets, found[1]) {
							t.Errorf("%s: %s makes %s, which is not in the Makefile", name, id, found[1])
						}
					}
				}
			}
		}
	}
	for _, want := range []string{"test", "test-short", "test-long", "test-servers", "check", "cover", "mutants", "fuzz", "soak", "release-proof", "binaries"} {
		if !ran[want] {
			t.Errorf("no workflow makes %s", want)
		}
	}
}

// commands returns a command for each value of the first variable of the matrix in it.
func commands(run string, matrix map[string][]string) (all []string) {
	found := expanded.FindStringSubmatch(run)
	if found == nil {
		return []string{run}
	}
	for _, value := range matrix[found[1]] {
		all = append(all, strings.ReplaceAll(run, found[0], value))
	}
	return all
}

// The matrix has the versions of Go, the systems and the servers that are supported.
func TestMatrix(t *testing.T) {
	var w workflow
	parse(t, ".github/workflows/ci.yml", &w)
	servers, err := os.ReadFile(filepath.Join(root, "scripts", "servers.sh"))
	must.OK(t, err)
	var versions []string
	for _, found := range regexp.MustCompile(`(?:Redis|Valkey) ([\d.]+)\|v=`).FindAllStringSubmatch(string(servers), -1) {
		versions = append(versions, found[1])
	}
	goes := []string{"1.25.x", "stable"}
	for _, tt := range []struct {
		job, variable string
		want          []string
	}{
		{"test", "go", goes},
		{"systems", "go", goes},
		{"systems", "os", []string{"macos-latest", "windows-latest"}},
		{"servers", "server", versions},
	} {
		got := slices.Sorted(slices.Values(w.Jobs[tt.job].Strategy.Matrix[tt.variable]))
		if !slices.Equal(got, slices.Sorted(slices.Values(tt.want))) || len(got) == 0 {
			t.Errorf("%s: %s is %v, want %v", tt.job, tt.variable, got, tt.want)
		}
	}
}

// Dependabot looks at every module, and at everything else that requires versions.
func TestDependabot(t *testing.T) {
	var d struct {
		Version int `yaml:"version"`
		Updates []struct {
			Ecosystem   string   `yaml:"package-ecosystem"`
			Directory   string   `yaml:"directory"`
			Directories []string `yaml:"directories"`
		} `yaml:"updates"`
	}
	parse(t, ".github/dependabot.yml", &d)
	c := here(t)
	want := []string{"github-actions /"}
	for ecosystem, file := range map[string]string{"gomod": "go.mod", "npm": "package.json", "cargo": "Cargo.toml"} {
		for _, path := range c.files("*" + file) {
			want = append(want, ecosystem+" "+slash.Clean("/"+filepath.ToSlash(filepath.Dir(path))))
		}
	}
	var got []string
	for _, u := range d.Updates {
		for _, directory := range append(u.Directories, u.Directory) {
			if directory != "" {
				got = append(got, u.Ecosystem+" "+directory)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d.Version != 2 || !slices.Equal(got, want) {
		t.Errorf("version %d, looks at\n%v, want\n%v", d.Version, got, want)
	}
}

// Templates of issues have what their forms need.
func TestIssueForms(t *testing.T) {
	for _, file := range []string{"bug.yml", "idea.yml"} {
		var form struct {
			Name        string `yaml:"name"`
			Description string `yaml:"description"`
			Body        []struct {
				Type       string `yaml:"type"`
				ID         string `yaml:"id"`
				Attributes struct {
					Label string `yaml:"label"`
					Value string `yaml:"value"`
				} `yaml:"attributes"`
			} `yaml:"body"`
		}
		parse(t, ".github/ISSUE_TEMPLATE/"+file, &form)
		if form.Name == "" || form.Description == "" || len(form.Body) < 2 {
			t.Errorf("%s: %+v", file, form)
		}
		for _, field := range form.Body {
			if field.Type == "markdown" && field.Attributes.Value == "" ||
				field.Type != "markdown" && (field.ID == "" || field.Attributes.Label == "") {
				t.Errorf("%s: %+v", file, field)
			}
		}
	}
}
