package serving

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/bench/report"
	"github.com/trypema/trypema/internal/cli/screen"
)

// turn is what one server did in one turn.
type turn struct {
	PerSecond float64       `json:"requests_per_second"`
	P99       time.Duration `json:"p99_ns"`
}

// document is the result of a run.
type document struct {
	Machine string   `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds_per_turn"`
	Cases   []result `json:"cases"`
	LeftOut []string `json:"left_out"` // what is not installed, each with the reason
}

// result is what became of one case.
type result struct {
	Case    string `json:"case"`
	Title   string `json:"title"`
	Client  string `json:"client"`
	Asked   string `json:"asked"` // of the first server
	LeftOut string `json:"left_out,omitempty"`
	Found   string `json:"found,omitempty"` // of a case that is no comparison
	Rows    []row  `json:"servers"`
}

// row is one server of a case.
type row struct {
	Server    string        `json:"server"`
	PerSecond float64       `json:"median_requests_per_second"`
	Least     float64       `json:"least_requests_per_second"`
	Most      float64       `json:"most_requests_per_second"`
	P99       time.Duration `json:"median_p99_ns"`
	Ratios    []ratio       `json:"ratios,omitempty"` // of a peer: what trypema serve does beside it
	Turns     []turn        `json:"turns"`
}

// ratio is the throughput of a server divided by that of a peer in the same round.
type ratio struct {
	Of     string  `json:"of"`
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// rowsOf returns the rows of servers that have had their turns.
func rowsOf(servers []*contender, turns [][]turn) []row {
	var rows []row
	for i, one := range servers {
		r := row{Server: one.name, Turns: turns[i]}
		var rates, latencies []float64
		for _, t := range turns[i] {
			rates, latencies = append(rates, t.PerSecond), append(latencies, float64(t.P99))
		}
		r.PerSecond, r.Least, r.Most = measure.Median(rates), slices.Min(rates), slices.Max(rates)
		r.P99 = time.Duration(measure.Median(latencies))
		for j, ours := range servers {
			if one.peer && !ours.peer {
				r.Ratios = append(r.Ratios, ratioOf(ours.name, turns[j], turns[i]))
			}
		}
		rows = append(rows, r)
	}
	return rows
}

func ratioOf(name string, ours, theirs []turn) ratio {
	var all []float64
	for i := range ours {
		all = append(all, ours[i].PerSecond/theirs[i].PerSecond)
	}
	return ratio{name, measure.Median(all), slices.Min(all), slices.Max(all)}
}

// markdown writes a section for each case.
func (d *document) markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %d rounds, %gs a turn. Throughput is the median of the rounds, "+
		"with the least and the most; a ratio is the throughput of trypema serve ÷ that of the server of the row, "+
		"in the same round.\n", d.Machine, d.Rounds, d.Seconds)
	for _, c := range d.Cases {
		fmt.Fprintf(&b, "\n### %s\n\n", c.Title)
		if c.LeftOut != "" {
			fmt.Fprintf(&b, "Not measured: %s.\n", c.LeftOut)
			continue
		}
		if c.Found != "" {
			fmt.Fprintf(&b, "%s. Asked: %s.\n", c.Found, c.Asked)
			continue
		}
		fmt.Fprintf(&b, "By %s. Asked: %s.\n\n| server | requests/s | ratio | p99 |\n|---|---|---|---|\n",
			c.Client, c.Asked)
		for _, r := range c.Rows {
			var ratios []string
			for _, of := range r.Ratios {
				text := fmt.Sprintf("%.2f (%.2f…%.2f)", of.Median, of.Least, of.Most)
				if len(r.Ratios) > 1 {
					text = of.Of + ": " + text
				}
				ratios = append(ratios, text)
			}
			fmt.Fprintf(&b, "| %s | %s (%s…%s) | %s | %s |\n", r.Server, number(r.PerSecond), number(r.Least),
				number(r.Most), cmp.Or(strings.Join(ratios, "<br>"), "–"), screen.Duration(r.P99))
		}
	}
	if len(d.LeftOut) > 0 {
		b.WriteString("\nNot installed:\n\n")
		for _, what := range d.LeftOut {
			b.WriteString("- " + what + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func number(x float64) string { return screen.Count(uint64(x + .5)) }

// machine describes what the numbers are of.
func machine() string {
	return fmt.Sprintf("%s, %d processors, %s, %s", report.Processor(), runtime.NumCPU(), runtime.GOOS,
		runtime.Version())
}
