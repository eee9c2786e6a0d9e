// Package onrelease tests what makes releases: scripts/release.sh and scripts/binaries.sh on copies of the
// repository, and the files under .github.
package onrelease

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

const (
	root = "../../.."
	ours = "github.com/trypema/trypema"
)

// tree is a copy of the repository in a git repository of its own.
type tree struct {
	t   *testing.T
	dir string
}

// here is the repository itself, whose files are listed without a copy.
func here(t *testing.T) tree {
	t.Helper()
	explore.ReadsRepository()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	c := tree{t, root}
	if _, err := c.run("git", "rev-parse"); err != nil {
		t.Skip("not a git repository")
	}
	return c
}

// files lists what git knows, or would add, and what is not deleted. Patterns select some of it.
func (c tree) files(patterns ...string) (files []string) {
	c.t.Helper()
	args := append([]string{"ls-files", "-z", "--cached", "--others", "--exclude-standard"}, patterns...)
	for file := range strings.SplitSeq(c.must("git", args...), "\x00") {
		if _, err := os.Stat(filepath.Join(c.dir, file)); file != "" && err == nil {
			files = append(files, file)
		}
	}
	return files
}

// original is the copy that all others are clones of. It is removed after the tests.
var original struct {
	once sync.Once
	dir  string
}

// copied copies the files of the repository, and commits them.
func copied(t *testing.T) tree {
	t.Helper()
	repository := here(t)
	original.once.Do(func() {
		dir, err := os.MkdirTemp("", "trypema-release")
		must.OK(t, err)
		original.dir = dir
		c := tree{t, dir}
		for _, file := range repository.files() {
			from, to := filepath.Join(root, file), filepath.Join(dir, file)
			text, errRead := os.ReadFile(from)
			info, errInfo := os.Stat(from)
			must.OK(t, errors.Join(errRead, errInfo, os.MkdirAll(filepath.Dir(to), 0o700)))
			must.OK(t, os.WriteFile(to, text, info.Mode()))
		}
		c.must("git", "init", "-q", "-b", "main")
		c.commit()
	})
	c := tree{t, t.TempDir()}
	c.must("git", "clone", "-q", "--shared", original.dir, ".")
	c.must("git", "remote", "remove", "origin")
	return c
}

// run runs a command in the tree, and returns what it says on both streams.
func (c tree) run(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), name, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@example.com", "GIT_CONFIG_GLOBAL=/dev/null", "GOWORK=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c tree) must(name string, args ...string) string {
	c.t.Helper()
	out, err := c.run(name, args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (c tree) release(args ...string) (string, error) { return c.run("scripts/release.sh", args...) }

func (c tree) commit() {
	c.must("git", "add", "-A")
	c.must("git", "commit", "-q", "--allow-empty", "-m", "x")
}

func (c tree) read(file string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

func (c tree) write(file, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// modules are the folders of all modules, sorted.
func (c tree) modules() (folders []string) {
	for _, file := range c.files("*go.mod") {
		folders = append(folders, filepath.ToSlash(filepath.Dir(file)))
	}
	slices.Sort(folders)
	return folders
}

func (c tree) released() []string {
	return slices.DeleteFunc(c.modules(), func(folder string) bool {
		return slices.Contains([]string{"examples", "internal/bench", "internal/thirdparty"}, folder)
	})
}

// set prepares a release.
func (c tree) set(version string) {
	c.t.Helper()
	if out, err := c.release("set", version); err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	c.commit()
}

func TestSetWritesTheVersionEverywhere(t *testing.T) {
	c := copied(t)
	c.set("v0.7.0-rc.1")
	required := 0
	for _, folder := range c.modules() {
		file, err := modfile.Parse(folder, []byte(c.read(folder+"/go.mod")), nil)
		must.OK(t, err)
		for _, r := range file.Require {
			if r.Mod.Path == ours || strings.HasPrefix(r.Mod.Path, ours+"/") {
				required++
				if r.Mod.Version != "v0.7.0-rc.1" {
					t.Errorf("%s requires %v", folder, r.Mod)
				}
			}
		}
	}
	if required < 15 {
		t.Errorf("%d requirements, want more", required)
	}
	if strings.Contains(c.read("go.work"), ours+" v0.1.0") {
		t.Error("go.work replaces v0.1.0")
	}
	c.must("go", "list", "-m") // the workspace is whole
	if !regexp.MustCompile(`(?m)^## v0\.7\.0-rc\.1 \(\d{4}-\d\d-\d\d\)$`).MatchString(c.read("CHANGELOG.md")) {
		t.Error("CHANGELOG.md has no section of the version")
	}
	for _, document := range []string{"README.md", "docs/quickstart.md"} {
		if strings.Contains(c.read(document), "no release yet") {
			t.Errorf("%s says that there is no release yet", document)
		}
	}
	if out, err := c.release("check", "v0.7.0-rc.1"); err != nil || out != "ready for v0.7.0-rc.1\n" {
		t.Errorf("%v\n%s", err, out)
	}
	before := c.must("git", "rev-parse", "HEAD^{tree}")
	c.set("v0.7.0-rc.1")
	if again := c.must("git", "rev-parse", "HEAD^{tree}"); again != before {
		t.Error("a second time changed something")
	}
}

func TestCheckNamesWhatIsNotReady(t *testing.T) {
	c := copied(t)
	c.set("v0.7.0")
	ready := strings.TrimSpace(c.must("git", "rev-parse", "HEAD"))
	for _, tt := range []struct {
		name string
		harm func()
		says string
	}{
		{"a change", func() { c.write("README.md", "x") }, "the work tree has changes that are not committed"},
		{"an old requirement", func() { c.must("go", "mod", "edit", "-require", ours+"@v0.6.0", "policyfile/go.mod"); c.commit() },
			"policyfile/go.mod: requires " + ours + " v0.6.0; it must require v0.7.0"},
		{"an old requirement of what is not released", func() { c.must("go", "mod", "edit", "-require", ours+"@v0.6.0", "examples/go.mod"); c.commit() },
			"examples/go.mod: requires " + ours + " v0.6.0; it must require v0.7.0"},
		{"a replacement", func() { c.must("go", "mod", "edit", "-replace", ours+"=../", "grpclimit/go.mod"); c.commit() },
			"grpclimit/go.mod: has a line that must not be released"},
		{"an old workspace", func() { c.write("go.work", strings.Replace(c.read("go.work"), "v0.7.0", "v0.6.0", 1)); c.commit() },
			"go.work: replaces " + ours + " v0.6.0; it must replace v0.7.0"},
		{"no section", func() { c.write("CHANGELOG.md", "# Changelog\n"); c.commit() }, `CHANGELOG.md: has no section "## v0.7.0" with a date`},
		{"changes that are in no release", func() { c.write("CHANGELOG.md", c.read("CHANGELOG.md")+"\n## Unreleased\n"); c.commit() },
			`CHANGELOG.md: has a section "## Unreleased" without a date`},
		{"a version without a date", func() { c.write("CHANGELOG.md", c.read("CHANGELOG.md")+"\n## v0.8.0\n"); c.commit() },
			`CHANGELOG.md: has a section "## v0.8.0" without a date`},
		{"an old document", func() { c.write("README.md", "<!-- before v0.7.0 -->\n<!-- end -->\n"); c.commit() },
			"documents say what is true only before v0.7.0"},
		{"a tag", func() { c.must("git", "tag", "policyfile/v0.7.0") }, "the tag policyfile/v0.7.0 exists"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.harm()
			out, err := c.release("tag", "v0.7.0") // which checks first
			if err == nil || !strings.Contains(out, "release: "+tt.says+"\n") || strings.Count(out, "release: ") != 1 {
				t.Errorf("%v\n%s", err, out)
			}
			if tags := strings.Fields(c.must("git", "tag")); len(tags) > 1 {
				t.Errorf("there are the tags %v", tags)
			}
			c.must("git", "reset", "-q", "--hard", ready)
			_, _ = c.run("git", "tag", "-d", "policyfile/v0.7.0")
		})
	}
}

func TestWrongArguments(t *testing.T) {
	c := tree{t, root}
	for _, tt := range []struct{ command, version, says string }{
		{"", "", `release: the command is ""; it must be one of set, check, prove, tag, untag`},
		{"publish", "v0.1.0", `release: the command is "publish"; it must be one of set, check, prove, tag, untag`},
		{"check", "", `release: VERSION is ""; it must be like v0.2.0 or v1.0.0-rc.1, and v0 or v1`},
		{"check", "0.1.0", `release: VERSION is "0.1.0"; it must be like`},
		{"check", "v0.1", `release: VERSION is "v0.1"; it must be like`},
		{"check", "v0.01.0", `release: VERSION is "v0.01.0"; it must be like`},
		{"check", "v2.0.0", `release: VERSION is "v2.0.0"; it must be like`}, // needs another module path
		{"tag", "v0.1.0 x", `release: VERSION is "v0.1.0 x"; it must be like`},
	} {
		out, err := c.release(tt.command, tt.version)
		if err == nil || !strings.HasPrefix(out, tt.says) {
			t.Errorf("%s %s: %v\n%s", tt.command, tt.version, err, out)
		}
	}
}

func TestTagsAndTheirUndo(t *testing.T) {
	c := copied(t)
	c.set("v0.7.0")
	var want []string
	for _, folder := range c.released() {
		want = append(want, strings.TrimPrefix(folder+"/v0.7.0", "./"))
	}
	slices.Sort(want)
	tags := func() []string {
		found := strings.Fields(c.must("git", "tag", "--points-at", "HEAD"))
		slices.Sort(found)
		return found
	}
	for range 2 {
		if out, err := c.release("tag", "v0.7.0"); err != nil || !strings.Contains(out, "  git push --atomic origin main cmd/trypema/v0.7.0 ") {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := tags(); len(got) < 11 || !slices.Equal(got, want) {
			t.Fatalf("tagged %v, want %v", got, want)
		}
		if out, err := c.release("untag", "v0.7.0"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := tags(); len(got) > 0 {
			t.Fatalf("%v are left", got)
		}
	}
	origin := t.TempDir()
	c.must("git", "init", "-q", "--bare", origin)
	c.must("git", "remote", "add", "origin", origin)
	if out, err := c.release("tag", "v0.7.0"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.must("git", "push", "-q", "origin", "policyfile/v0.7.0")
	out, err := c.release("untag", "v0.7.0")
	if err == nil || !strings.HasPrefix(out, "release: origin has policyfile/v0.7.0; ") || !slices.Equal(tags(), want) {
		t.Errorf("%v\n%s\ntags: %v", err, out, tags())
	}
}

// The modules work from their tags. The proof compiles everything anew, so it runs only at length.
func TestProof(t *testing.T) {
	if !explore.Long() {
		t.Skip("make test-long and make release-proof run it")
	}
	c := copied(t)
	out := c.must("scripts/release.sh", "prove", "v0.7.0")
	for _, folder := range c.released() {
		module := strings.TrimSuffix(ours+"/"+folder, "/.")
		if !strings.Contains(out, module+"@v0.7.0") {
			t.Errorf("nothing is said of %s:\n%s", module, out)
		}
	}
}

// From a tag, the program says its version and the commit, and is the same each time.
func TestBinaries(t *testing.T) {
	if !explore.Long() {
		t.Skip("it compiles the program twice")
	}
	c := copied(t)
	c.must("git", "tag", "cmd/trypema/v0.7.0")
	system := strings.TrimSpace(c.must("go", "env", "GOOS")) + "/" + strings.TrimSpace(c.must("go", "env", "GOARCH"))
	var programs [][]byte
	for range 2 {
		c.must("rm", "-rf", "dist")
		c.must("env", "SBOM=0", "TARGETS="+system, "scripts/binaries.sh", "dist")
		name := "trypema_" + strings.ReplaceAll(system, "/", "_")
		if sums := c.read("dist/checksums.txt"); !strings.Contains(sums, name+".tar.gz\n") {
			t.Errorf("checksums: %s", sums)
		}
		programs = append(programs, unpacked(t, c.read("dist/"+name+".tar.gz"), name+"/trypema"))
	}
	if !bytes.Equal(programs[0], programs[1]) {
		t.Error("two builds differ")
	}
	file := filepath.Join(t.TempDir(), "trypema")
	if err := os.WriteFile(file, programs[0], 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	commit := strings.TrimSpace(c.must("git", "rev-parse", "HEAD"))
	if said := c.must(file, "--version"); !strings.HasPrefix(said, "trypema v0.7.0 (commit "+commit+") go1.") {
		t.Errorf("it says %q", said)
	}
}

func unpacked(t *testing.T, archive, name string) []byte {
	t.Helper()
	unzipped, err := gzip.NewReader(strings.NewReader(archive))
	must.OK(t, err)
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Name == name {
			content, err := io.ReadAll(r)
			must.OK(t, err)
			return content
		}
	}
}

// The Makefile, go.work and git agree on the modules.
func TestListsOfModules(t *testing.T) {
	c := here(t)
	found := regexp.MustCompile(`(?m)^RELEASED := (.*)$`).FindStringSubmatch(c.read("Makefile"))
	if found == nil {
		t.Fatal("the Makefile has no list RELEASED")
	}
	list := strings.Fields(found[1])
	for i := range list {
		list[i] = filepath.Clean(list[i])
	}
	slices.Sort(list)
	if !slices.Equal(list, c.released()) {
		t.Errorf("the Makefile has %v, git %v", list, c.released())
	}
	work, err := modfile.ParseWork("go.work", []byte(c.read("go.work")), nil)
	must.OK(t, err)
	var used []string
	for _, u := range work.Use {
		used = append(used, filepath.Clean(u.Path))
	}
	slices.Sort(used)
	if !slices.Equal(used, c.modules()) {
		t.Errorf("go.work uses %v, git has %v", used, c.modules())
	}
}
