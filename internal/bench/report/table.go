package report

import (
	_ "embed"
	"fmt"
	"strings"
	"text/template"
)

//go:embed table.tmpl
var tableText string

var tableTemplate = template.Must(template.New("table").Parse(tableText))

// Markdown is the sheet as a table.
func (s sheet) Markdown() string {
	var out strings.Builder
	line := func(cells []string) { fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | ")) }
	line(s.Head)
	rule := []string{"---"}
	for range s.Head[1:] {
		rule = append(rule, "---:")
	}
	line(rule)
	for _, row := range s.Rows {
		var cells []string
		for _, c := range row {
			cells = append(cells, strings.ReplaceAll(c, "|", "\\|"))
		}
		line(cells)
	}
	return out.String()
}
