package replay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/screen"
)

// Report is what limits would have done to the calls of logs.
type Report struct {
	Files []string `json:"files"`
	Lines uint64   `json:"lines"`
	Wrong uint64   `json:"wrong_lines"`
	// WrongLines are the first of them.
	WrongLines []WrongLine `json:"wrong_lines_first,omitempty"`

	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Calls uint64    `json:"calls"`
	Keys  uint64    `json:"keys"`
	// KeysForgotten are keys that went because there were more than --max-keys. One that came again counts
	// twice.
	KeysForgotten uint64 `json:"keys_forgotten"`
	// Sorted are lines that were late by up to --reorder. TimesBack are those that were later: they count at
	// the time of the line before, by up to FarthestBackSeconds after their own.
	Sorted              uint64  `json:"lines_sorted"`
	TimesBack           uint64  `json:"times_back"`
	FarthestBackSeconds float64 `json:"farthest_back_s"`

	Rules       []Rule       `json:"rules"`
	Suggestions []Suggestion `json:"suggestions,omitempty"`
	Complete    bool         `json:"complete"`

	suggest float64 // percent of the keys
	series  series
	busiest [len(suggested)]spread // by window: the most calls of each key
}

// WrongLine is a line that cannot be read.
type WrongLine struct {
	File string `json:"file"`
	Line uint64 `json:"line"`
	Why  string `json:"why"`
}

// Rule is what limits that are kept together would have done.
type Rule struct {
	Limit         string  `json:"limit"`
	Strategy      string  `json:"strategy"`
	Denied        uint64  `json:"denied"`
	DeniedShare   float64 `json:"denied_share"`
	KeysLimited   uint64  `json:"keys_limited"`
	MostInAWindow float64 `json:"most_in_a_window"` // of the capacity
	FullnessP50   float64 `json:"fullness_p50"`     // how full the window was after a call, of the capacity
	FullnessP99   float64 `json:"fullness_p99"`
	Worst         []Key   `json:"worst_keys"`
	TokenBucket   *Peer   `json:"token_bucket,omitempty"`
	FixedWindow   *Peer   `json:"fixed_window,omitempty"`
}

// Peer is what another algorithm would have done with the same limits.
type Peer struct {
	Denied        uint64  `json:"denied"`
	DeniedShare   float64 `json:"denied_share"`
	MostInAWindow float64 `json:"most_in_a_window"`
}

// Key is one of the keys that were denied most.
type Key struct {
	Key    string `json:"key"`
	Calls  uint64 `json:"calls"`
	Denied uint64 `json:"denied"`
}

// Suggestion is a limit that leaves nearly all keys alone.
type Suggestion struct {
	Limit    string `json:"limit"`
	KeysOver uint64 `json:"keys_over"`
	Busiest  uint64 `json:"busiest"` // the most calls of a key in such a window
}

// limitText is a limit as --limit takes it.
func limitText(n uint64, w time.Duration) string {
	text, err := trypema.AtMost(n, w).MarshalText()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func percent(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) }

// times is from when to when the calls are.
func (r *Report) times() string {
	return fmt.Sprintf("%s to %s UTC (%s)", r.From.Format(time.DateTime), r.To.Format(time.DateTime),
		spanText(r.To.Sub(r.From)))
}

// notes say what was not as it should be in the logs.
func (r *Report) notes() (all []string) {
	if r.Wrong > 0 {
		all = append(all, fmt.Sprintf("%s of %s lines cannot be read, such as",
			screen.Count(r.Wrong), screen.Count(r.Lines)))
		for _, l := range r.WrongLines {
			all = append(all, fmt.Sprintf("  %s:%d: %s", l.File, l.Line, l.Why))
		}
	}
	if r.Sorted > 0 {
		all = append(all, fmt.Sprintf("%s lines were late, and were put in order.", screen.Count(r.Sorted)))
	}
	if r.TimesBack > 0 {
		all = append(all, fmt.Sprintf("%s lines were too late to be put in order (--reorder): "+
			"they count up to %s after their time.",
			screen.Count(r.TimesBack), screen.Duration(time.Duration(r.FarthestBackSeconds*float64(time.Second)))))
	}
	if r.KeysForgotten > 0 {
		all = append(all, fmt.Sprintf("%s keys were forgotten, because there were more than --max-keys.",
			screen.Count(r.KeysForgotten)))
	}
	return all
}

// sentence says what a rule would have done.
func (r *Report) sentence(x Rule) string {
	text := fmt.Sprintf("%s, %s: %s of %s calls are denied (%s), of %s of %s keys.", x.Limit, x.Strategy,
		screen.Count(x.Denied), screen.Count(r.Calls), percent(x.DeniedShare), screen.Count(x.KeysLimited),
		screen.Count(r.Keys))
	for _, of := range []struct {
		name string
		*Peer
	}{{"token bucket", x.TokenBucket}, {"fixed window", x.FixedWindow}} {
		if of.Peer != nil && of.MostInAWindow > 1 {
			text += fmt.Sprintf(" A %s would have let %s times the limit into one window.",
				of.name, two(of.MostInAWindow))
		}
	}
	return text
}

// What the table of the rules has, and what it means.
var (
	ruleHeads = []string{"limit", "denied", "of all calls", "keys limited", "used, p50", "p99", "most"}
	ruleNote  = []string{
		"Used is what a key has used of its limit after a call: the median, the 99th percentile, and the most of all.",
		"More than 1.00 is more than the limit, as a token bucket and a fixed window let it happen.",
	}
)

// write prints the report for people.
func (r *Report) write(w io.Writer) error {
	fmt.Fprintf(w, "%s calls of %s keys, %s.\n", screen.Count(r.Calls), screen.Count(r.Keys), r.times())
	for _, note := range r.notes() {
		fmt.Fprintln(w, note)
	}
	if len(r.Rules) > 0 {
		fmt.Fprintln(w)
		if err := screen.Table(w, ruleHeads, r.rows()); err != nil {
			return err
		}
		fmt.Fprintln(w, strings.Join(ruleNote, "\n"))
	}
	for _, rule := range r.Rules {
		if len(rule.Worst) == 0 {
			continue
		}
		fmt.Fprintf(w, "\nDenied most by %s, %s:\n", rule.Limit, rule.Strategy)
		var rows [][]string
		for _, k := range rule.Worst {
			rows = append(rows, []string{k.Key, screen.Count(k.Calls), screen.Count(k.Denied),
				percent(share(k.Denied, k.Calls))})
		}
		if err := screen.Table(w, []string{"key", "calls", "denied", "of its calls"}, rows); err != nil {
			return err
		}
	}
	if len(r.Suggestions) > 0 {
		fmt.Fprintf(w, "\nLimits that never deny a call of %s of the keys:\n", shareText(r.suggest/100))
		var rows [][]string
		for _, s := range r.Suggestions {
			rows = append(rows, []string{s.Limit, screen.Count(s.KeysOver), screen.Count(s.Busiest)})
		}
		return screen.Table(w, []string{"limit", "keys over it", "busiest key"}, rows)
	}
	return nil
}

// rows are the table of the rules, each with what other algorithms make of it.
func (r *Report) rows() (rows [][]string) {
	for _, x := range r.Rules {
		rows = append(rows, []string{
			x.Limit + ", " + x.Strategy, screen.Count(x.Denied), percent(x.DeniedShare), screen.Count(x.KeysLimited),
			two(x.FullnessP50), two(x.FullnessP99), two(x.MostInAWindow),
		})
		for _, of := range []struct {
			name string
			*Peer
		}{{"  as a token bucket", x.TokenBucket}, {"  as a fixed window", x.FixedWindow}} {
			if of.Peer != nil {
				rows = append(rows, []string{
					of.name, screen.Count(of.Denied), percent(of.DeniedShare), "", "", "", two(of.MostInAWindow),
				})
			}
		}
	}
	return rows
}

func two(x float64) string { return fmt.Sprintf("%.2f", x) }
