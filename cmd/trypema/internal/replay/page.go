package replay

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trypema/trypema/internal/cli/screen"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"count": screen.Count, "percent": percent, "share": share,
}).Parse(pageText))

// writePage writes the report as one page. A page that is there is replaced when the new one is complete.
func (r *Report) writePage(name string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".replay-*.html")
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) { // without the name of a file that the user does not know
			err = failed.Err
		}
		return fmt.Errorf("--html is %q: %w", name, err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it has another name by then, or is not wanted
	if err := r.page(f); err != nil {
		return errors.Join(err, f.Close())
	}
	// Others may read it, such as a web server: a temporary file is its owner's alone.
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// maxPlots is for how many rules the calls are drawn.
const maxPlots = 6

// drawnRule is a rule and its picture.
type drawnRule struct {
	Rule
	Sentence string
	Plot     template.HTML
}

func (r *Report) page(w io.Writer) error {
	var rules []drawnRule
	for i, x := range r.Rules {
		of := drawnRule{Rule: x, Sentence: r.sentence(x)}
		if i < maxPlots {
			of.Plot = r.callsPlot(i, false)
		}
		rules = append(rules, of)
	}
	return page.Execute(w, struct {
		*Report
		Times, Asked, Slot string
		Notes              []string
		Drawn              []drawnRule
		Heads              []string
		RuleNote           string
		Rows               [][]string
		KeysPlot           template.HTML
		KeysNote           string
	}{
		r, r.times(), shareText(r.suggest / 100), spanText(r.series.slot()), r.notes(), rules, ruleHeads,
		strings.Join(ruleNote, " "), r.rows(), r.keysPlot(false), r.keysNote(),
	})
}

// keysNote reads a few points off the picture of the keys.
func (r *Report) keysNote() string {
	i := slices.Index(suggested[:], drawn[1].window)
	if i >= len(r.Suggestions) {
		i = 0
	}
	all := r.busiest[i]
	if all.len() == 0 {
		return ""
	}
	half, most := screen.Count(all.at((all.len()-1)/2)), screen.Count(all.at((all.len()-1)*99/100))
	return fmt.Sprintf("Half of the keys never made more than %s calls in a %s, 99 %% never more than %s, "+
		"and the busiest %s.", half, spanText(suggested[i]), most, screen.Count(all.most()))
}
