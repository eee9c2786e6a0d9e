package sim

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
)

// varying are the flags that --vary can set.
var varying = map[string]func(c *Command, text string) error{
	"instances":  setter("a whole number", strconv.Atoi, func(c *Command) *int { return &c.Instances }),
	"keys":       setter("a whole number", strconv.Atoi, func(c *Command) *int { return &c.Keys }),
	"seed":       setter("a whole number", strconv.Atoi, func(c *Command) *int { return &c.Seed }),
	"rate":       setter("a number", number64, func(c *Command) *float64 { return &c.Rate }),
	"load":       setter("a number", number64, func(c *Command) *float64 { return &c.Load }),
	"loss":       setter("a number", number64, func(c *Command) *float64 { return &c.Loss }),
	"hot-keys":   setter("a number", number64, func(c *Command) *float64 { return &c.HotKeys }),
	"skew":       setter("a number", number64, func(c *Command) *float64 { c.Skew = new(float64); return c.Skew }),
	"delay":      setter("a duration", time.ParseDuration, func(c *Command) *time.Duration { return &c.Delay }),
	"die-at":     setter("a duration", time.ParseDuration, func(c *Command) *time.Duration { return &c.DieAt }),
	"outage-for": setter("a duration", time.ParseDuration, func(c *Command) *time.Duration { return &c.OutageFor }),
	"shape":      setter("a word", word, func(c *Command) *string { return &c.Shape }),
	"sync-interval": setter("a duration", time.ParseDuration, func(c *Command) *time.Duration {
		c.SyncInterval = new(time.Duration)
		return c.SyncInterval
	}),
}

func word(s string) (string, error) { return s, nil }

func number64(s string) (float64, error) { return strconv.ParseFloat(s, 64) }

func setter[T any](
	rule string, parse func(string) (T, error), field func(*Command) *T,
) func(*Command, string) error {
	return func(c *Command, text string) error {
		v, err := parse(text)
		if err != nil {
			return flags.Check(false, "vary", strconv.Quote(text), rule)
		}
		*field(c) = v
		return nil
	}
}

// variants are the commands that --vary asks for; this one alone without it.
func (c Command) variants() (name string, values []string, all []Command, err error) {
	if c.Vary == "" {
		return "", nil, []Command{c}, nil
	}
	name, list, _ := strings.Cut(c.Vary, "=")
	set := varying[name]
	if set == nil || list == "" {
		names := slices.Sorted(maps.Keys(varying))
		return "", nil, nil, flags.Check(false, "vary", c.Vary,
			"a flag, = and values with a comma between them; the flag one of "+strings.Join(names, ", "))
	}
	for _, value := range strings.Split(list, ",") {
		v := c
		if err := set(&v, value); err != nil {
			return "", nil, nil, err
		}
		values, all = append(values, value), append(all, v)
	}
	return name, values, all, nil
}

// comparison is the result of several runs.
type comparison struct {
	Command string   `json:"command"`
	Varied  string   `json:"varied"`
	Runs    []report `json:"runs"`

	values []string
}

// table writes a line for each run.
func (c comparison) table(w io.Writer) error {
	var rows [][]string
	for i, r := range c.Runs {
		value := c.values[i]
		if r.Interrupted {
			value += " ✂"
		}
		if !r.OK {
			value += " ✗"
		}
		perMillion := "–"
		if r.Nodes != nil {
			perMillion = some(r.Nodes.PerMillion)
		}
		rows = append(rows, []string{
			value,
			number(r.Use, "%.3f", 1), number(r.AdmittedToReference, "%.3f", 1),
			fmt.Sprintf("%.3f", r.FullestRatio), number(r.WaitedSettled, "%.2f%%", 100),
			number(r.Settlements, "%.0f", 1), number(r.SettlementsPerCall, "%.3f", 1), perMillion,
		})
	}
	first := c.Runs[0]
	fmt.Fprintf(w, "%s\nthat is the first line; the others differ in %s\n", first.Settings, c.Varied)
	err := screen.Table(w,
		[]string{c.Varied, "use", "ref ¹", "any ²", "waits ³", "per s ⁴", "a call", "nodes ⁵"}, rows)
	fmt.Fprintln(w, "   use: admitted ÷ limit; all but ¹ and ² without the first window")
	fmt.Fprintln(w, " ¹ admitted ÷ that of", first.footnote())
	fmt.Fprintln(w, " ² most in any window of any key, over all instances ÷ C")
	fmt.Fprintln(w, " ³ calls that waited for Redis")
	fmt.Fprintln(w, " ⁴ keys settled by Redis, per second and per call")
	fmt.Fprintf(w, " ⁵ of Redis, for a million decisions a second: %v for a settlement is assumed,\n   and "+
		"nodes that are used to %.0f%%\n",
		first.settleCost, 100*nodeUse)
	if slices.ContainsFunc(c.Runs, func(r report) bool { return r.Interrupted }) {
		fmt.Fprintln(w, " ✂ INTERRUPTED: a part of that run")
	}
	return err
}
