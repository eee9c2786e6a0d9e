package report

import (
	"bytes"
	"fmt"
	"strings"
)

// table is the report in Markdown.
func (d *document) table(figures []picture) []byte {
	v := d.view(figures)
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Trypema beside its peers\n\n%s. Trypema %s. %s, %s report.\n\n", d.Machine,
		d.Machine.Trypema, v.When, d.Effort)
	if len(v.Partial()) > 0 {
		fmt.Fprintf(&out, "**This report is partial.**\n\n")
		for _, why := range v.Partial() {
			fmt.Fprintf(&out, "- %s\n", why)
		}
		out.WriteString("\n")
	}
	for _, sentence := range v.Opening() {
		fmt.Fprintf(&out, "- %s\n", sentence)
	}
	out.WriteString("\n")
	pictures(&out, v.Overview)
	for _, p := range v.Parts {
		fmt.Fprintf(&out, "## %s\n\n%s\n\n", p.Title, p.About)
		for _, s := range p.Sections {
			s.markdown(&out)
		}
	}
	fmt.Fprintf(&out, "## What the design asks for\n\n")
	v.Promised().markdown(&out)
	for _, why := range v.LeftOut() {
		fmt.Fprintf(&out, "- left out: %s\n", why)
	}
	return out.Bytes()
}

func pictures(out *bytes.Buffer, all []picture) {
	for _, f := range all {
		fmt.Fprintf(out, "![%s](%s)\n\n", f.Title, f.File())
	}
}

// markdown writes a section. What is folded in the page is folded here, too.
func (s section) markdown(out *bytes.Buffer) {
	fmt.Fprintf(out, "### %s\n\n", s.Title)
	if s.About != "" {
		fmt.Fprintf(out, "%s\n\n", s.About)
	}
	if s.Failed != "" {
		fmt.Fprintf(out, "**This measurement failed: %s**\n\n", s.Failed)
	}
	pictures(out, s.Figures)
	for _, why := range s.Failing {
		fmt.Fprintf(out, "- failed: %s\n", why)
	}
	if len(s.Failing) > 0 {
		out.WriteString("\n")
	}
	fmt.Fprintf(out, "<details><summary>All numbers, and the command</summary>\n\n")
	pictures(out, s.More)
	for _, t := range s.Sheets {
		t.markdown(out)
	}
	fmt.Fprintf(out, "```\n%s\n```\n\n</details>\n\n", strings.Join(s.Commands, "\n"))
}

func (s sheet) markdown(out *bytes.Buffer) {
	line := func(cells []string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }
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
	out.WriteString("\n")
}
