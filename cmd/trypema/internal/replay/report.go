package replay

import (
	"fmt"
	"io"
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
	KeysForgotten       uint64  `json:"keys_forgotten"`
	TimesBack           uint64  `json:"times_back"` // lines with a time before that of an earlier line
	FarthestBackSeconds float64 `json:"farthest_back_s"`

	Rules       []Rule       `json:"rules"`
	Suggestions []Suggestion `json:"suggestions,omitempty"`
	Complete    bool         `json:"complete"`

	series  series
	busiest [len(suggested)][]uint64 // by window: the most calls of each key, in order
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

// write prints the report for people.
func (r *Report) write(w io.Writer) error {
	fmt.Fprintf(w, "%s calls of %s keys, from %s to %s (%s).\n", screen.Count(r.Calls), screen.Count(r.Keys),
		r.From.Format(time.DateTime), r.To.Format(time.DateTime), r.To.Sub(r.From).Round(time.Second))
	if r.Wrong > 0 {
		fmt.Fprintf(w, "%s of %s lines cannot be read.\n", screen.Count(r.Wrong), screen.Count(r.Lines))
		for _, l := range r.WrongLines {
			fmt.Fprintf(w, "  %s:%d: %s\n", l.File, l.Line, l.Why)
		}
	}
	if r.TimesBack > 0 {
		fmt.Fprintf(w, "%s lines have a time before that of an earlier line, by up to %s: "+
			"they count at the later time.\n",
			screen.Count(r.TimesBack), screen.Duration(time.Duration(r.FarthestBackSeconds*float64(time.Second))))
	}
	if r.KeysForgotten > 0 {
		fmt.Fprintf(w, "%s keys were forgotten, because there were more than --max-keys.\n",
			screen.Count(r.KeysForgotten))
	}
	if len(r.Rules) > 0 {
		fmt.Fprintln(w)
		if err := screen.Table(w,
			[]string{"limit", "strategy", "denied", "of calls", "keys limited", "window p50", "p99",
				"most in a window"},
			r.rows()); err != nil {
			return err
		}
		fmt.Fprintln(w, "A window is the share of the limit that it held after a call. "+
			"A fixed window and a token bucket are what\n"+
			"the same limit admits by these algorithms: more than 1.00 in a window is more than the limit says.")
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
		fmt.Fprintln(w, "\nLimits that leave as many keys alone as you asked for:")
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
			x.Limit, x.Strategy, screen.Count(x.Denied), percent(x.DeniedShare), screen.Count(x.KeysLimited),
			fmt.Sprintf("%.2f", x.FullnessP50), fmt.Sprintf("%.2f", x.FullnessP99),
			fmt.Sprintf("%.2f", x.MostInAWindow),
		})
		for _, of := range []struct {
			name string
			*Peer
		}{{"token bucket", x.TokenBucket}, {"fixed window", x.FixedWindow}} {
			if of.Peer != nil {
				rows = append(rows, []string{
					"", of.name, screen.Count(of.Denied), percent(of.DeniedShare), "", "", "",
					fmt.Sprintf("%.2f", of.MostInAWindow),
				})
			}
		}
	}
	return rows
}
