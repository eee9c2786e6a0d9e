// Package house holds the rules of this repository that no tool knows.
package house

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const root = "../../.."

const (
	width    = 110 // columns of a line of a comment or a document, with tabs of four columns
	wide     = 120 // columns of a line of code that a reader does not scroll for
	mostWide = 8   // lines of code in 1,000 that may be longer: texts that are one word, and struct tags
)

// files yields the path and the text of each file of the repository with one of the endings.
func files(t *testing.T, endings ...string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == "target" || entry.Name() == ".git"):
			return fs.SkipDir
		}
		for _, ending := range endings {
			if strings.HasSuffix(path, ending) {
				text, err := os.ReadFile(path)
				all[strings.TrimPrefix(path, root+"/")] = string(text)
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func columns(line string) int {
	return utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
}

// comment is a line of prose in Go or in Lua: not one that is indented, as in tables and lists.
var comment = map[string]*regexp.Regexp{
	".go":  regexp.MustCompile(`^\s*// ?[^\s-]`),
	".lua": regexp.MustCompile(`^\s*-- ?(?:[^\sAK]|A[^R]|K[^E])`),
}

// free is what of a document may be wider: tables, code, headings, links and pictures.
var free = regexp.MustCompile(`^(\|| {4}|#|<|\[[^\]]+\]:|!\[)`)

// Comments and documents keep the width. The report is written by a program.
func TestWidth(t *testing.T) {
	n := 0
	for path, text := range files(t, ".go", ".lua") {
		for i, line := range strings.Split(text, "\n") {
			// Most lines have no mark of a comment, and are not matched, which takes long.
			if !strings.Contains(line, "//") && !strings.Contains(line, "--") ||
				!comment[filepath.Ext(path)].MatchString(line) || strings.HasPrefix(line, "//go:") {
				continue
			}
			n++
			if columns(line) > width && !isOutput(path, line) {
				t.Errorf("%s:%d: a comment of %d columns, more than %d", path, i+1, columns(line), width)
			}
		}
	}
	for path, text := range files(t, ".md") {
		if strings.HasPrefix(path, "docs/benchmarks/") {
			continue
		}
		code := false
		for i, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				code = !code
			}
			n++
			if !code && !free.MatchString(line) && columns(line) > width && strings.Contains(line, " ") {
				t.Errorf("%s:%d: %d columns, more than %d", path, i+1, columns(line), width)
			}
		}
	}
	if n < 9_000 {
		t.Errorf("%d lines were looked at, want more", n)
	}
}

// TestCodeIsNarrow: a reader sees two files beside each other.
func TestCodeIsNarrow(t *testing.T) {
	lines, long := 0, 0
	worst := make(map[string]int)
	for path, text := range files(t, ".go") {
		for line := range strings.Lines(text) {
			lines++
			if columns(strings.TrimSuffix(line, "\n")) > wide {
				long++
				worst[path]++
			}
		}
	}
	if 1000*long > mostWide*lines {
		first := slices.SortedFunc(maps.Keys(worst), func(a, b string) int { return worst[b] - worst[a] })
		t.Errorf("%d of %d lines have more than %d columns, more than %d in 1,000; the most are in %v",
			long, lines, wide, mostWide, first[:min(10, len(first))])
	}
	if lines < 90_000 {
		t.Errorf("%d lines were looked at, want more", lines)
	}
}

// isOutput reports whether a line may be output of an example, which is as long as it is.
func isOutput(path, line string) bool {
	return strings.HasSuffix(path, "_test.go") && strings.HasPrefix(line, "\t// ")
}
