package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const (
	mostPages     = 14     // in the folder docs
	mostWords     = 20_000 // of README.md and docs together, with code; a brace or a rule of a table is none
	longest       = 40     // words of a sentence
	mostOnAverage = 18     // words of a sentence, over a page
)

// unwanted are words and phrases that hide who does what, or that have a plain form.
var unwanted = regexp.MustCompile(`(?i)\b(?:anew|can not|besides|taken for gone|be had|nobody|alike|who waits|` +
	`what is to be|untold|no such|limits no more)\b`)

// allowed are sentences that may break a rule, by their beginning, each with a reason.
var allowed = map[string]string{}

// TestLanguage holds pages and the comments of public packages to plain English: no unwanted words, and in
// pages and package comments short sentences.
func TestLanguage(t *testing.T) {
	used := make(map[string]bool)
	judge := func(where string, text []string, longest int) (sentences, words int) {
		for _, block := range text {
			for _, s := range sentencesOf(block) {
				n := wordsIn(s)
				sentences, words = sentences+1, words+n
				wrong := unwanted.FindString(s)
				if wrong == "" && n <= longest {
					continue
				}
				if start := allowance(s); start != "" {
					used[start] = true
					continue
				}
				if wrong != "" {
					t.Errorf("%s: %q in %q", where, wrong, s)
				}
				if n > longest {
					t.Errorf("%s: %d words, more than %d, in %q", where, n, longest, s)
				}
			}
		}
		return sentences, words
	}
	for path, text := range held(t) {
		sentences, words := judge(path, proseOf(text), longest)
		if words > mostOnAverage*sentences {
			t.Errorf("%s: a sentence has %.1f words on average, more than %d",
				path, float64(words)/float64(sentences), mostOnAverage)
		}
		judge(path, tablesOf(text), math.MaxInt)
	}
	comments, packages := 0, 0
	for path, text := range files(t, ".go") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		public, mode := !strings.Contains("/"+path, "/internal/"), parser.ParseComments|parser.SkipObjectResolution
		if !public {
			mode |= parser.PackageClauseOnly
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, mode)
		if err != nil {
			t.Fatal(err)
		}
		if public {
			for _, c := range file.Comments {
				comments++
				judge(path, proseOfComment(c.Text()), math.MaxInt)
			}
		}
		if file.Doc != nil {
			packages++
			judge(path, proseOfComment(file.Doc.Text()), longest)
		}
	}
	if packages < 40 || comments < 1_200 {
		t.Errorf("%d comments and %d package comments were looked at, want more", comments, packages)
	}
	for start, reason := range allowed {
		if !used[start] || reason == "" {
			t.Errorf("the sentence %q needs no allowance, or has no reason", start)
		}
	}
	if len(allowed) > 10 {
		t.Errorf("%d sentences are allowed to break a rule, more than 10", len(allowed))
	}
}

// TestTextsOfPrograms: what programs print, errors and help included, has no unwanted words either.
func TestTextsOfPrograms(t *testing.T) {
	texts := 0
	for path, source := range files(t, ".go") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		places := token.NewFileSet()
		file, err := parser.ParseFile(places, path, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				texts++
				if wrong := unwanted.FindString(text.Value); wrong != "" {
					t.Errorf("%v: a text with %q", places.Position(text.Pos()), wrong)
				}
			}
			return true
		})
	}
	if texts < 5_000 {
		t.Errorf("%d texts were looked at, want more", texts)
	}
}

// TestPagesAreFewAndShort: a reader finds a page, and gets to its end.
func TestPagesAreFewAndShort(t *testing.T) {
	pages, words := 0, 0
	for path, text := range held(t) {
		words += wordsIn(text)
		if path != "README.md" {
			pages++
		}
	}
	if pages < 7 || pages > mostPages {
		t.Errorf("there are %d pages in docs, want at most %d", pages, mostPages)
	}
	if words > mostWords {
		t.Errorf("README.md and docs have %d words, want at most %d", words, mostWords)
	}
}

// TestLanguageIsRead shows what the rules see of a page.
func TestLanguageIsRead(t *testing.T) {
	page := "# A heading\n\nIt is `one word`, see [the link](https://example.com/a.b). It\n" +
		"goes on! Version 1.2, e.g. this, is `x`. `Y` begins. redigo too.\n\n" +
		"- a point\n  of two lines\n- another one: no end\n\n| a | table is |\n|---|---|\n| no | sentence. |\n\n" +
		"```go\ncode. Here\n```\n\n    more code\n\n<!-- hidden. Comment\n-->\n![picture](a.svg)\nThe end"
	var got []string
	for _, block := range proseOf(page) {
		got = append(got, sentencesOf(block)...)
	}
	want := []string{
		"It is code, see the link.", "It goes on!", "Version 1.2, e.g. this, is code.", "code begins.", "redigo too.",
		"a point of two lines",
		"another one: no end", "The end",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := wordsIn("B/W is — of course — 1 × C."); n != 6 {
		t.Errorf("%d words, want 6", n)
	}
	for _, s := range []string{"Anew.", "it can not be", "untold"} {
		if !unwanted.MatchString(s) {
			t.Errorf("%q passes", s)
		}
	}
}

// held are README.md and the pages of docs, by their paths.
func held(t *testing.T) map[string]string {
	t.Helper()
	pages := files(t, ".md")
	for path := range pages {
		if path != "README.md" && filepath.Dir(path) != "docs" {
			delete(pages, path)
		}
	}
	return pages
}

func allowance(sentence string) string {
	for start := range allowed {
		if strings.HasPrefix(sentence, start) {
			return start
		}
	}
	return ""
}

var (
	notProse = regexp.MustCompile("(?ms)^```.*?\n```$|<!--.*?-->|" +
		"^(?:    |\\t|#|<|\\||!\\[|\\[!|\\[[^\\]]+\\]:)[^\n]*$")
	fenced      = regexp.MustCompile("(?ms)^```.*?\n```$")
	point       = regexp.MustCompile(`^(?:[-*]|\d+\.) `)
	linked      = regexp.MustCompile(`!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])`)
	code        = regexp.MustCompile("`[^`]*`")
	abbreviated = regexp.MustCompile(`\b(?:e\.g|i\.e|etc|vs)\.$`)
	ends        = regexp.MustCompile(`[.!?]["”)*_]*\s+`)
)

// proseOf returns the paragraphs and points of a page, without code, tables and headings.
func proseOf(text string) (blocks []string) {
	text = notProse.ReplaceAllString(text, "")
	text = linked.ReplaceAllString(text, "$1")
	text = code.ReplaceAllString(text, "code")
	return paragraphs(text)
}

// tablesOf returns the rows of tables, without code.
func tablesOf(text string) (rows []string) {
	text = code.ReplaceAllString(fenced.ReplaceAllString(text, ""), "code")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") {
			rows = append(rows, line)
		}
	}
	return rows
}

// proseOfComment is proseOf for the text of a doc comment.
func proseOfComment(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "  - "):
			line = strings.TrimPrefix(line, "  ")
		case strings.HasPrefix(line, "\t"), strings.HasPrefix(line, "#"):
			line = "\n"
		}
		lines = append(lines, line)
	}
	return paragraphs(strings.Join(lines, ""))
}

func paragraphs(text string) (blocks []string) {
	var block []string
	end := func() {
		if len(block) > 0 {
			blocks = append(blocks, strings.Join(block, " "))
		}
		block = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "> "))
		if line == "" || point.MatchString(line) {
			end()
			line = point.ReplaceAllString(line, "")
		}
		if line != "" {
			block = append(block, line)
		}
	}
	end()
	return blocks
}

// sentencesOf splits a paragraph where sentences end, which is not after an abbreviation.
func sentencesOf(block string) (sentences []string) {
	from := 0
	for _, at := range ends.FindAllStringIndex(block, -1) {
		sentence := strings.TrimSpace(block[from:at[1]])
		if abbreviated.MatchString(sentence) {
			continue
		}
		sentences = append(sentences, sentence)
		from = at[1]
	}
	if rest := strings.TrimSpace(block[from:]); rest != "" {
		sentences = append(sentences, rest)
	}
	return sentences
}

// wordsIn counts the words of a sentence: what has a letter or a digit.
func wordsIn(sentence string) (n int) {
	for _, word := range strings.Fields(sentence) {
		if strings.ContainsFunc(word, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			n++
		}
	}
	return n
}
