package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
)

// update writes the tables: see make docs.
var update = flag.Bool("update", false, "write what trypema sim gives into the documents")

// columns are those of tables in documents, by their heads.
var columns = map[string]func(r report) string{
	"of the limit used":    func(r report) string { return number(r.Use, "%.3f", 1) },
	"of an exact log":      func(r report) string { return number(r.AdmittedToReference, "%.3f", 1) },
	"fullest window":       func(r report) string { return fmt.Sprintf("%.3f", r.FullestRatio) },
	"calls that wait":      func(r report) string { return number(r.WaitedSettled, "%.2f %%", 100) },
	"settlements a second": func(r report) string { return number(r.Settlements, "%.0f", 1) },
	"settlements a call":   func(r report) string { return number(r.SettlementsPerCall, "%.3f", 1) },
	"decisions a second":   func(r report) string { return fmt.Sprintf("%.3g M", r.Nodes.Decisions/1e6) },
	"nodes of Redis":       func(r report) string { return some(r.Nodes.Nodes) },
	"nodes for 1 M/s":      func(r report) string { return some(r.Nodes.PerMillion) },
}

// simulated is a command and the table below it. A command with --vary has a line in the table for each
// value. Otherwise each line begins with the flags that it adds to the command.
var simulated = regexp.MustCompile(`(?m)^ {4}trypema sim(.*)\n\n((?:\|.*\|\n)+)`)

// TestDocumentedSimulations: tables in documents are what the command above them gives. Small runs are made
// each time, and all of them by make test-long.
func TestDocumentedSimulations(t *testing.T) {
	const (
		root = "../../../../docs"
		most = 3_000 // calls of a run that is made each time
	)
	files, err := filepath.Glob(filepath.Join(root, "*.md"))
	must.OK(t, err)
	if len(files) == 0 {
		t.Skip("the documents are not here: the module is by itself")
	}
	explore.ReadsRepository()
	differs := t.Errorf
	if *update {
		differs = t.Logf
	}
	tables, skipped := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		must.OK(t, err)
		written := simulated.ReplaceAllStringFunc(string(text), func(found string) string {
			tables++
			parts := simulated.FindStringSubmatch(found)
			lines := strings.Split(strings.TrimSpace(parts[2]), "\n")
			heads := cells(lines[0])
			vary := flagOf(parts[1], "vary")
			of, values, _ := strings.Cut(vary, "=")
			if n := len(lines) - 2; of != "" && n != len(strings.Split(values, ",")) {
				t.Errorf("%s:%s: %d lines in the table", file, parts[1], n)
			}
			for i, line := range lines[2:] {
				row := cells(line)
				args := strings.ReplaceAll(parts[1], " --vary "+vary, "")
				if of != "" {
					args += " --" + of + " " + row[0]
				} else {
					args += " " + strings.Trim(row[0], "`–")
				}
				c := command(t, args)
				s, err := c.resolve()
				if err != nil {
					t.Fatalf("%s: %s: %v", file, args, err)
				}
				if calls := s.Load * s.Rate * s.duration.Seconds() * float64(s.Keys); calls > most &&
					!explore.Long() && !*update {
					skipped++
					continue
				}
				r := simulate(t, args)
				for j, head := range heads[1:] {
					column := columns[head]
					if column == nil {
						t.Fatalf("%s: there is no column %q", file, head)
					}
					if want := column(r); row[j+1] != want {
						row[j+1] = want
						differs("%s: %s: %s is %s, not %s", file, args, head, want, cells(line)[j+1])
					}
				}
				lines[i+2] = "| " + strings.Join(row, " | ") + " |"
			}
			return "    trypema sim" + parts[1] + "\n\n" + strings.Join(lines, "\n") + "\n"
		})
		if *update && written != string(text) {
			must.OK(t, os.WriteFile(file, []byte(written), 0o600))
		}
	}
	if tables < 8 {
		t.Errorf("%d tables, want more", tables)
	}
	t.Logf("%d tables; %d runs are left to make test-long", tables, skipped)
}

// cells returns those of a line of a table.
func cells(line string) (texts []string) {
	for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
		texts = append(texts, strings.TrimSpace(cell))
	}
	return texts
}

// flagOf returns the value of a flag in a command line, or "".
func flagOf(args, name string) string {
	_, after, _ := strings.Cut(args, "--"+name+" ")
	value, _, _ := strings.Cut(after, " ")
	return value
}
