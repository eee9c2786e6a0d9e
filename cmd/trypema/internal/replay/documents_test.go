package replay

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

// update writes the pictures: see make docs.
var update = flag.Bool("update", false, "write the pictures of the documents")

const documents = "../../../../docs/"

// command parses the flags of a command line, in which files are named from the root of the repository.
func command(t *testing.T, line string) (c Command) {
	t.Helper()
	p, err := kong.New(&c, append(flags.Mappers(), kong.Exit(func(int) {}))...)
	must.OK(t, err)
	if _, err := p.Parse(strings.Fields(line)); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for i := range c.Files {
		c.Files[i] = "../../../../" + c.Files[i]
	}
	return c
}

// shown is a command in a document, and what it prints. A line of … stands for what is left out.
var shown = regexp.MustCompile("(?m)^ {4}go run ./cmd/trypema replay (cmd/.*)\n\n((?: {4}.*\n|\n)+)")

// TestDocumentedReplays: each output in the documents is that of the command above it.
func TestDocumentedReplays(t *testing.T) {
	text, err := os.ReadFile(documents + "choosing.md")
	if err != nil {
		t.Skip("the documents are not here: the module is by itself")
	}
	explore.ReadsRepository()
	found := shown.FindAllSubmatch(text, -1)
	if len(found) < 2 {
		t.Errorf("%d commands, want more", len(found))
	}
	for _, match := range found {
		c := command(t, string(match[1]))
		c.HTML = ""
		var out bytes.Buffer
		must.OK(t, c.Run(t.Context(), screen.Streams{Name: "trypema", Out: &out, Err: &out}))
		said := out.String()
		block := regexp.MustCompile(`(?m)^ {4}`).ReplaceAllString(string(match[2]), "")
		for part := range strings.SplitSeq(block, "\n…\n") {
			_, rest, ok := strings.Cut(said, strings.Trim(part, "\n"))
			if !ok {
				t.Fatalf("%s prints\n%s\nnot\n%s", match[1], &out, part)
			}
			said = rest
		}
	}
}

// style is that of a picture that stands alone, and follows the theme of the reader.
const style = `<style>svg{font:12px system-ui,sans-serif;fill:#57606a}path{fill:none;stroke:#1b1f24;stroke-width:1.5}` +
	`.grid{stroke:#d8dee4;stroke-width:1}.admitted{fill:#0072b2;stroke:none}.denied{fill:#f0b27d;stroke:none}` +
	`.second{stroke-dasharray:1.5 2.5}.hour{stroke-dasharray:6 3}.asked{stroke:#57606a;stroke-width:5;opacity:.35}` +
	`@media(prefers-color-scheme:dark){svg{fill:#9aa4af}path{stroke:#e6edf3}.grid{stroke:#30363d}` +
	`.admitted{fill:#4a9eff}.denied{fill:#8f5a26}.asked{stroke:#9aa4af}}</style>`

// TestDocumentedPictures: the pictures in the documents are those of the public logs.
func TestDocumentedPictures(t *testing.T) {
	if _, err := os.Stat(documents); err != nil {
		t.Skip("the documents are not here: the module is by itself")
	}
	explore.ReadsRepository()
	report := func(file, limit string, percent float64) *Report {
		c := Command{
			Files: []string{file}, Key: keyIP, Limit: []string{limit}, Strategy: "absolute",
			Suggest: &percent, Reorder: time.Minute, MaxKeys: 10_000,
		}
		r, err := c.replay(t.Context(), screen.Streams{Err: new(bytes.Buffer)})
		must.OK(t, err)
		return r
	}
	for name, svg := range map[string]string{
		"replay-calls.svg": string(report("testdata/apache.log.gz", "30/1m", 99).callsPlot(0, true)),
		"replay-keys.svg":  string(report("testdata/nasa.log.gz", "10/1m", 99).keysPlot(true)),
	} {
		head, rest, _ := strings.Cut(svg, ">")
		want := head + ">" + style + rest + "\n"
		if *update {
			must.OK(t, os.WriteFile(documents+name, []byte(want), 0o600))
		}
		if got, err := os.ReadFile(documents + name); err != nil || string(got) != want {
			t.Errorf("docs/%s is not what make docs writes: %v", name, err)
		}
	}
}
