package thirdparty

// The documents keep their word: every block of Go in README.md and docs compiles, against the libraries of
// others, too; the programs of the quickstart print what stands below them, on a real server; and what is
// linked to is there.
//
// A block that begins with "package" is a file by itself. Another one is wrapped: declarations into a
// package, statements into a function that returns an error. What it takes for granted is declared, and
// imported, by the tables below; or else by Go in a comment before it, which readers do not see:
//
//	<!-- go
//	var users map[string]User
//	-->
//
// An ellipsis in a block stands for code that is the reader's.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/internal/metrics"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/race"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
)

// packages are those that a block needs not import, by the names that it uses.
var packages = map[string]string{
	"trypema":     "github.com/trypema/trypema",
	"redislimit":  "github.com/trypema/trypema/redislimit",
	"hybridlimit": "github.com/trypema/trypema/hybridlimit",
	"goredisconn": "github.com/trypema/trypema/goredisconn",
	"redigoconn":  "github.com/trypema/trypema/redigoconn",
	"rueidisconn": "github.com/trypema/trypema/rueidisconn",
	"httplimit":   "github.com/trypema/trypema/httplimit",
	"grpclimit":   "github.com/trypema/trypema/grpclimit",
	"policyfile":  "github.com/trypema/trypema/policyfile",
	"promlimit":   "github.com/trypema/trypema/promlimit",
	"otellimit":   "github.com/trypema/trypema/otellimit",
	"sloglimit":   "github.com/trypema/trypema/sloglimit",
	"prometheus":  "github.com/prometheus/client_golang/prometheus",
	"promhttp":    "github.com/prometheus/client_golang/prometheus/promhttp",
	"grpc":        "google.golang.org/grpc",
	"codes":       "google.golang.org/grpc/codes",
	"status":      "google.golang.org/grpc/status",
	"limittest":   "github.com/trypema/trypema/limittest",
	"redis":       "github.com/redis/go-redis/v9",
	"redigo":      "github.com/gomodule/redigo/redis",
	"rueidis":     "github.com/redis/rueidis",
}

func init() {
	for _, path := range strings.Fields("cmp context errors expvar fmt io log log/slog math net net/http net/netip os strconv strings sync testing testing/synctest time") {
		packages[path[strings.LastIndex(path, "/")+1:]] = path
	}
}

// given is what a block needs not declare.
var given = map[string]string{
	"ctx":      "var ctx = context.Background()",
	"key":      `var key = "user:42"`,
	"rate":     "var rate = trypema.PerMinute(100)",
	"limits":   "var limits interface { Absolute() trypema.Limiter; Suppressed() trypema.Limiter; trypema.Binder }",
	"policies": "var policies *trypema.Policies",
	"list":     "var list []trypema.Policy",
	"limiter":  "var limiter trypema.Limiter",
	"limited":  "var limited trypema.Observer",
	"meters":   "var meters trypema.Meters",
	"client":   "var client redis.UniversalClient",
	"conn":     "var conn redislimit.Conn",
	"next":     "var next http.Handler",
	"w":        "var w http.ResponseWriter",
	"r":        "var r *http.Request",
}

// block is one block of code in a document.
type block struct {
	file     string // its document
	line     int    // of its first line there
	language string
	hidden   string // what a comment before it says
	code     string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

var fence = regexp.MustCompile("(?m)^(?:<!-- go\n((?:.*\n)*?)-->\n+)?```(\\w*)\n((?:.*\n)*?)```\n")

// blocksOf returns the blocks of a document of the repository.
func blocksOf(t *testing.T, file string) (blocks []block) {
	t.Helper()
	text := document(t, file)
	for _, at := range fence.FindAllStringSubmatchIndex(text, -1) {
		b := block{file: file, line: 1 + strings.Count(text[:at[6]], "\n"), language: text[at[4]:at[5]], code: text[at[6]:at[7]]}
		if at[2] >= 0 {
			b.hidden = text[at[2]:at[3]]
		}
		blocks = append(blocks, b)
	}
	return blocks
}

const root = "../.."

func document(t *testing.T, file string) string {
	t.Helper()
	explore.ReadsRepository()
	text, err := os.ReadFile(filepath.Join(root, file))
	must.OK(t, err)
	return string(text)
}

// documents are those of the repository, by their paths in it.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d documents, %v", len(files), err)
	}
	for i, file := range files {
		files[i] = "docs/" + filepath.Base(file)
	}
	others, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil || len(others) < 6 {
		t.Fatalf("found %d documents beside the folder docs, %v", len(others), err)
	}
	for _, file := range others {
		files = append(files, filepath.Base(file))
	}
	return files
}

// source returns the block as a file that compiles.
func (b block) source() (string, error) {
	line := fmt.Sprintf("//line %s:%d\n", b.file, b.line)
	code := strings.ReplaceAll(b.code, "…", "")
	if strings.HasPrefix(code, "package ") {
		return line + code, nil
	}
	var body string
	if _, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+code, parser.SkipObjectResolution); err == nil {
		body = line + code
	} else {
		unused, err := variables(code)
		if err != nil {
			return "", fmt.Errorf("%v: %w", b, err)
		}
		for _, name := range unused {
			code += "_ = " + name + "\n"
		}
		body = "func _() error {\n" + line + code + "return nil\n}\n"
	}
	imports := ""
	body = b.hidden + "\n" + body
	for known := make(map[string]bool); ; {
		names, err := undefined("package p\n" + imports + body)
		if err != nil {
			return "", fmt.Errorf("%v: %w", b, err)
		}
		before := len(known)
		for _, name := range names {
			switch path, declaration := packages[name], given[name]; {
			case known[name]:
			case declaration != "":
				body += declaration + "\n"
				known[name] = true
			case path != "":
				imports += fmt.Sprintf("import %s %q\n", name, path)
				known[name] = true
			}
		}
		if len(known) == before {
			return "package p\n" + imports + body, nil
		}
	}
}

// undefined returns the names that a file does not declare. Imports are taken to have the last part of their
// path for a name.
func undefined(source string) (names []string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	config := types.Config{Error: func(err error) {
		var wrong types.Error
		if errors.As(err, &wrong) {
			if name, ok := strings.CutPrefix(wrong.Msg, "undefined: "); ok {
				names = append(names, name)
			}
		}
	}}
	_, _ = config.Check("p", fset, []*ast.File{file}, nil) // whatever else is wrong is for the compiler to say
	return names, nil
}

// variables returns those that statements declare for what might follow.
func variables(statements string) (names []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), "",
		"package p\nfunc _() error {\n"+statements+"\nreturn nil\n}", parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	add := func(e ast.Expr) {
		if name, ok := e.(*ast.Ident); ok && name.Name != "_" && !slices.Contains(names, name.Name) {
			names = append(names, name.Name)
		}
	}
	for _, s := range file.Decls[0].(*ast.FuncDecl).Body.List {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				for _, e := range s.Lhs {
					add(e)
				}
			}
		case *ast.DeclStmt:
			for _, spec := range s.Decl.(*ast.GenDecl).Specs {
				if v, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range v.Names {
						add(name)
					}
				}
			}
		}
	}
	return names, nil
}

// compile builds files, each in a package of its own, as if they were in this module. If they are programs to
// be run, it returns their paths. What go build writes are programs only, and it does not so much as compile
// the rest then.
func compile(t *testing.T, sources map[string]string, run bool) map[string]string {
	t.Helper()
	dir := t.TempDir()
	replaced := make(map[string]string)
	args := []string{"build", "-overlay", filepath.Join(dir, "overlay.json")}
	args = append(args, race.Flags()...)
	if run {
		args = append(args, "-o", dir+"/")
	}
	programs := make(map[string]string)
	for name, source := range sources {
		file := filepath.Join(dir, name+".go")
		must.OK(t, os.WriteFile(file, []byte(source), 0o600))
		here, err := filepath.Abs(filepath.Join("snippets", name, "snippet.go"))
		must.OK(t, err)
		replaced[here] = file
		args = append(args, "./snippets/"+name)
		programs[name] = filepath.Join(dir, name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	must.OK(t, err)
	must.OK(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return programs
}

// Every block of Go in a document compiles.
func TestDocumentsCompile(t *testing.T) {
	sources := make(map[string]string)
	for _, file := range documents(t) {
		for _, b := range blocksOf(t, file) {
			if b.language != "go" {
				continue
			}
			source, err := b.source()
			if err != nil {
				t.Error(err)
				continue
			}
			// A program would be linked, too. TestQuickstart and TestReadmeProgram run theirs.
			source = strings.Replace(source, "\npackage main\n", "\npackage p\n", 1)
			name := fmt.Sprintf("%s_%d", strings.TrimSuffix(filepath.Base(file), ".md"), b.line)
			sources[strings.ToLower(name)] = source
		}
	}
	if len(sources) < 30 {
		t.Errorf("%d blocks of Go, want more", len(sources))
	}
	compile(t, sources, false)
}

// The programs of the quickstart print what it says. Those that need Redis get a server. At length, it is
// followed word for word in empty folders: the programs as main.go, and the commands below them, with the
// modules as they would be published, which takes long to compile.
func TestQuickstart(t *testing.T) {
	const file, address = "docs/quickstart.md", "localhost:6379"
	server := redisserver.Start(t)
	sources, commands, wants := make(map[string]string), make(map[string]string), make(map[string]string)
	for i, part := range strings.Split(document(t, file), "\n## ") {
		at := regexp.MustCompile("(?s)```go\n(package main\n.*?)```\n.*?\n((?:    [^\n]+\n)+)\nIt prints\n\n```text\n(.*?)```").FindStringSubmatch(part)
		if at != nil {
			name := fmt.Sprint("quickstart", i)
			sources[name], commands[name], wants[name] = strings.ReplaceAll(at[1], address, server.Addr()), at[2], at[3]
		}
	}
	if len(sources) != 3 {
		t.Errorf("%d programs with commands and output, want 3: Local, Redis, Hybrid", len(sources))
	}
	programs := compile(t, sources, true)
	for name, want := range wants {
		prints(t, exec.CommandContext(t.Context(), programs[name]), want)
	}
	if !explore.Long() {
		return
	}
	for _, released := range []bool{false, true} {
		env := append(os.Environ(), published(t, released)...)
		for name, want := range wants {
			dir := t.TempDir()
			must.OK(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(sources[name]), 0o600))
			sh := exec.CommandContext(t.Context(), "sh", "-e")
			sh.Dir, sh.Env, sh.Stdin = dir, env, strings.NewReader(commands[name])
			prints(t, sh, want)
		}
	}
}

// prints fails unless a command prints what it should. On a machine that is too busy for the Timeout in a
// program, or takes a second for four calls, the program is run once more.
func prints(t *testing.T, c *exec.Cmd, want string) {
	t.Helper()
	for began := time.Now(); ; {
		again := exec.CommandContext(t.Context(), c.Path, c.Args[1:]...)
		again.Dir, again.Env, again.Stdin = c.Dir, c.Env, c.Stdin
		var said strings.Builder
		again.Stderr = &said
		out, err := again.Output()
		if err == nil && string(out) == want {
			return
		}
		slow := err == nil || strings.Contains(said.String(), "no answer within") // Redis, on a busy machine
		if !slow || c.Stdin != nil || time.Since(began) > rig.Patience {
			t.Errorf("%v: %v\n%s\nsaid\n%s\nwant\n%s", c.Args, err, &said, out, want)
			return
		}
	}
}

// published puts the modules that the quickstart gets, as they are here, where the go command finds them, and
// returns the environment for that. They are released, or else a commit without a tag. The environment has a
// cache of modules of its own, in which they do not outlive the test; other modules come from the usual one,
// if they are there.
func published(t *testing.T, released bool) (env []string) {
	t.Helper()
	cache, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE", "GOPROXY").Output()
	must.OK(t, err)
	usual := strings.Split(string(cache), "\n")
	proxy := t.TempDir()
	version, list := "v0.0.0-20260101000000-0123456789ab", ""
	if released {
		version, list = "v0.1.0", "v0.1.0\n"
	}
	for _, folder := range []string{".", "goredisconn", "rueidisconn"} {
		m := module.Version{Path: strings.TrimSuffix("github.com/trypema/trypema/"+folder, "/."), Version: version}
		at := filepath.Join(proxy, m.Path, "@v")
		must.OK(t, os.MkdirAll(at, 0o700))
		mod := document(t, filepath.Join(folder, "go.mod"))
		var zipped bytes.Buffer
		must.OK(t, zip.Create(&zipped, m, moduleFiles(t, filepath.Join(root, folder))))
		info := `{"Version": "` + version + `"}`
		for name, content := range map[string]string{
			"list": list, "../@latest": info, version + ".info": info, version + ".mod": mod, version + ".zip": zipped.String(),
		} {
			must.OK(t, os.WriteFile(filepath.Join(at, name), []byte(content), 0o600))
		}
	}
	return []string{
		"GOPROXY=file://" + filepath.ToSlash(proxy) + ",file://" + filepath.ToSlash(filepath.Join(usual[0], "cache", "download")) + "," + usual[1],
		"GOMODCACHE=" + t.TempDir(), "GOFLAGS=-modcacherw", "GONOSUMDB=github.com/trypema/*", "GOWORK=off",
	}
}

// moduleFile is a file of a module, to be published.
type moduleFile struct{ path, file string }

func (f moduleFile) Path() string                 { return f.path }
func (f moduleFile) Lstat() (os.FileInfo, error)  { return os.Lstat(f.file) }
func (f moduleFile) Open() (io.ReadCloser, error) { return os.Open(f.file) }

// moduleFiles are those of the module in a folder that others need.
func moduleFiles(t *testing.T, dir string) (files []zip.File) {
	t.Helper()
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path, _ := filepath.Rel(dir, file)
		_, nested := os.Stat(filepath.Join(file, "go.mod"))
		switch {
		case entry.IsDir() && file != dir && (nested == nil || strings.HasPrefix(entry.Name(), ".")):
			return fs.SkipDir
		case slices.Contains([]string{".go", ".lua", ".mod", ""}, filepath.Ext(file)) && entry.Type().IsRegular():
			files = append(files, moduleFile{filepath.ToSlash(path), file})
		}
		return nil
	})
	must.OK(t, err)
	return files
}

// The files of policies in docs/limits.md are right.
func TestDocumentedPolicies(t *testing.T) {
	program, files := `package main

import (
	"fmt"

	"github.com/trypema/trypema/policyfile"
)

func main() {
`, 0
	for _, b := range blocksOf(t, "docs/limits.md") {
		if b.language == "yaml" {
			files++
			program += fmt.Sprintf("\t_, err%d := policyfile.Parse(%q, []byte(%q))\n\tfmt.Println(err%[1]d)\n", files, b, b.code)
		}
	}
	if files == 0 {
		t.Fatal("no file")
	}
	programs := compile(t, map[string]string{"policies": program + "}\n"}, true)
	if out, err := exec.CommandContext(t.Context(), programs["policies"]).CombinedOutput(); err != nil ||
		string(out) != strings.Repeat("<nil>\n", files) {
		t.Errorf("%v\n%s", err, out)
	}
}

// The answer that docs/http.md shows is the one that a client gets.
func TestDocumentedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := fixture.Local(t, trypema.Options{})
		perUser := fixture.Bind(t, limits, trypema.StrategyAbsolute, trypema.AtMost(100, time.Minute))
		limit, err := httplimit.New(httplimit.Options{Bound: perUser, Key: httplimit.ByHeader("X-User")})
		must.OK(t, err)
		handler := limit(http.NotFoundHandler())
		var w *httptest.ResponseRecorder
		for range 101 {
			w = httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/users/42", http.NoBody))
		}
		var headers strings.Builder
		must.OK(t, w.Header().Write(&headers))
		got := fmt.Sprintf("HTTP/1.1 %d %s\n%s", w.Code, http.StatusText(w.Code), strings.ReplaceAll(headers.String(), "\r", ""))
		if !strings.Contains(document(t, "docs/http.md"), "```text\n"+got+"```\n") {
			t.Errorf("docs/http.md does not show\n%s", got)
		}
	})
}

// docs/metrics.md has each metric, and no other.
func TestDocumentedMetrics(t *testing.T) {
	var exported, documented []string
	for _, m := range append(slices.Clone(metrics.All), metrics.Duration) {
		name := "trypema_" + strings.ReplaceAll(m.Name, ".", "_")
		switch {
		case m.Unit == "s":
			name += "_seconds"
		case m.Counter:
			name += "_total"
		}
		exported = append(exported, name)
	}
	documented = regexp.MustCompile(`trypema_\w+`).FindAllString(document(t, "docs/metrics.md"), -1)
	for _, names := range []*[]string{&exported, &documented} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	if !slices.Equal(documented, exported) {
		t.Errorf("documented are %q, exported are %q", documented, exported)
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// What a document of the repository links to in it is there, headings included.
func TestDocumentLinks(t *testing.T) {
	for _, file := range documents(t) {
		for _, found := range link.FindAllStringSubmatch(document(t, file), -1) {
			path, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(document(t, target)), anchor) {
				t.Errorf("%s: %s has no heading %q", file, target, anchor)
			}
		}
	}
}

var reference = regexp.MustCompile(`https://pkg\.go\.dev/github\.com/trypema/trypema([/\w]*)(?:#([\w.]+))?`)

// What a document links to in the reference is exported there.
func TestDocumentReferences(t *testing.T) {
	exported := make(map[string][]string) // by folder
	n := 0
	for _, file := range documents(t) {
		for _, found := range reference.FindAllStringSubmatch(document(t, file), -1) {
			folder, name := filepath.Join(root, found[1]), found[2]
			if exported[folder] == nil {
				exported[folder] = exportedIn(t, folder)
			}
			if n++; name != "" && !slices.Contains(exported[folder], name) {
				t.Errorf("%s: %s has no %s", file, folder, name)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d links to the reference, want more", n)
	}
}

// exportedIn returns the names that the reference has for the package in a folder.
func exportedIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s has no package: %v", folder, err)
	}
	fset := token.NewFileSet()
	var all []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		must.OK(t, err)
		all = append(all, file)
	}
	p, err := doc.NewFromFiles(fset, all, folder)
	must.OK(t, err)
	add := func(functions []*doc.Func, of string) {
		for _, f := range functions {
			names = append(names, of+f.Name)
		}
	}
	addValues := func(values []*doc.Value) {
		for _, v := range values {
			names = append(names, v.Names...)
		}
	}
	add(p.Funcs, "")
	addValues(p.Consts)
	addValues(p.Vars)
	for _, typ := range p.Types {
		names = append(names, typ.Name)
		add(typ.Funcs, "")
		add(typ.Methods, typ.Name+".")
		addValues(typ.Consts)
		addValues(typ.Vars)
		ast.Inspect(typ.Decl, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok {
				for _, name := range field.Names {
					names = append(names, typ.Name+"."+name.Name)
				}
			}
			return true
		})
	}
	return names
}

var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// anchors returns the names by which headings can be linked to.
func anchors(text string) (names []string) {
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case strings.ContainsRune("`,.:;?!()'’÷/", r):
				return -1
			}
			return r
		}, strings.ToLower(h[1]))
		names = append(names, name)
	}
	return names
}

var namedTest = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")

// A test that a document names is there.
func TestNamedTestsExist(t *testing.T) {
	tests := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range declared.FindAllSubmatch(text, -1) {
			tests[string(found[1])] = true
		}
		return err
	})
	must.OK(t, err)
	named := 0
	for _, file := range documents(t) {
		for _, found := range namedTest.FindAllStringSubmatch(document(t, file), -1) {
			named++
			if !tests[found[1]] {
				t.Errorf("%s: there is no %s", file, found[1])
			}
		}
	}
	if named < 50 {
		t.Errorf("%d tests are named in documents, want more", named)
	}
}

var (
	filePath   = regexp.MustCompile("`((?:[a-z_]+/)*[a-z_]+\\.(?:go|lua))`")
	goFile     = regexp.MustCompile(`[a-z_]+\.go`)
	folderLine = regexp.MustCompile(`(?m)^( {2})?((?:[a-z/]+ ?)+)(?: {2}.*|$)`)
)

// Every file and folder that docs/design.md names is there: those of the map by their lines, others in code.
// The map has every folder with a package, but for those in modules of their own and in folders of folders.
func TestDocumentedPaths(t *testing.T) {
	text := document(t, "docs/design.md")
	exists := func(path string) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	_, after, _ := strings.Cut(text, "## The map\n\n```\n")
	lines, _, _ := strings.Cut(after, "```")
	named, files := make(map[string]bool), 0
	for line := range strings.Lines(lines) {
		if file := goFile.FindAllString(line, -1); file != nil {
			for _, f := range file {
				exists(f)
			}
			files += len(file)
			continue
		}
		names := folderLine.FindStringSubmatch(line)
		if names == nil {
			continue
		}
		for _, f := range strings.Fields(names[2]) {
			if names[1] != "" {
				f = "internal/proof/" + f
			}
			exists(f)
			named[f] = true
		}
	}
	for _, in := range []string{"*", "internal/*", "internal/proof/*"} {
		paths, err := filepath.Glob(filepath.Join(root, in, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("there is no package in %s: %v", in, err)
		}
		for _, path := range paths {
			folder, _ := filepath.Rel(root, filepath.Dir(path))
			if folder = filepath.ToSlash(folder); !named[folder] {
				t.Errorf("the map has no line for %s", folder)
				named[folder] = true
			}
		}
	}
	_, after, _ = strings.Cut(text, "## The walk of a call\n")
	walk, _, _ := strings.Cut(after, "\n## ")
	for _, found := range filePath.FindAllStringSubmatch(walk, -1) {
		exists(found[1])
		files++
	}
	if len(named) < 38 || files < 40 {
		t.Errorf("%d folders and %d files are named, want more", len(named), files)
	}
}
