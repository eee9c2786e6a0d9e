// Package replay shows what limits would have done to the calls of access logs: it reads the logs, and lets
// their calls pass through the windows of the library, in the time of the logs.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
)

// Command is the flags of trypema replay.
type Command struct {
	Files []string `arg:"" optional:"" placeholder:"FILE" help:"Access logs, also gzip, the oldest first. Default: standard input."`

	Key      string        `default:"ip" help:"Who shares a limit: ip, user, path, a field of JSON, or as in ip+path."`
	Limit    []string      `sep:"none" placeholder:"LIMIT" help:"Limits to try, as in 100/1m or 10/s,1000/h. Repeatable."`
	Strategy string        `default:"absolute" help:"absolute, suppressed or both."`
	Suggest  *float64      `placeholder:"PERCENT" help:"Propose limits that never deny a call of so many of the keys."`
	Reorder  time.Duration `default:"1m" help:"Put lines in order that are late by up to this."`
	MaxKeys  int           `default:"1000000" help:"Keys that are held at once; beyond, the longest idle are forgotten."`
	HTML     string        `name:"html" placeholder:"FILE" help:"Write a page with plots."`
	JSON     bool          `name:"json" help:"Print one JSON document."`
	Seed     int           `default:"1" help:"Of the random numbers by which Suppressed denies."`
}

// Help is the text of trypema replay --help.
func (Command) Help() string {
	return `Reads access logs and shows whom limits would have limited: how many calls, how many keys, and
which. Formats are found by themselves: common and combined (Apache, nginx), JSON lines (nginx, Caddy,
Envoy), Envoy's default, and ALB.

  trypema replay access.log --limit 100/1m
  zcat logs/*.gz | trypema replay --key user --limit 10/s,1000/h --strategy both
  trypema replay access.log --suggest 99.9

The exit status is 1 if no line can be read or a log breaks off, 2 for a wrong flag. Ctrl-C prints what there
is so far.`
}

// Run replays the logs.
func (c *Command) Run(ctx context.Context, out screen.Streams) error {
	report, broken := c.replay(ctx, out)
	if report == nil {
		return broken
	}
	if c.HTML != "" {
		if err := report.writePage(c.HTML); err != nil {
			return err
		}
	}
	if c.JSON {
		return errors.Join(screen.JSON(out.Out, report), broken)
	}
	if !report.Complete {
		fmt.Fprintln(out.Out, "Stopped before the end: this is what there is so far.")
	}
	return errors.Join(report.write(out.Out), broken)
}

// replay reads the logs, and reports what the limits would have done. If a log breaks off, it reports what
// there is up to there, and why.
func (c *Command) replay(ctx context.Context, out screen.Streams) (*Report, error) {
	rules, err := c.rules()
	if err != nil {
		return nil, err
	}
	sources, total, err := c.open()
	if err != nil {
		return nil, err
	}
	e := newEngine(rules, c.Suggest != nil, c.MaxKeys, uint64(c.Seed))
	r := &reader{key: c.Key, reorder: c.Reorder, total: total, bar: screen.NewBar(out.Err)}
	broken := r.run(ctx, sources, e)
	switch {
	case r.lines == 0 && broken != nil:
		return nil, broken
	case r.lines == 0 && ctx.Err() == nil:
		return nil, errors.New("there is no line to read")
	case r.lines > 0 && r.wrong == r.lines:
		l := r.first[0]
		return nil, fmt.Errorf("no line can be read; %s:%d: %s", l.File, l.Line, l.Why)
	}
	report := e.report(flags.Or(c.Suggest, 0))
	report.Sorted, report.Complete = r.sorted, ctx.Err() == nil && broken == nil
	report.Files, report.Lines, report.Wrong, report.WrongLines = r.names, r.lines, r.wrong, r.first
	return report, broken
}

// rules are the limits to try, by each strategy.
func (c *Command) rules() (rules []*rule, err error) {
	if err := flags.First(
		flags.OneOf("strategy", c.Strategy, "absolute", "suppressed", "both"),
		flags.Check(c.Key != "", "key", `""`, "ip, user, path, or a field of JSON"),
		flags.Check(c.Reorder >= 0 && c.Reorder <= 24*time.Hour, "reorder", c.Reorder, "at least 0s and at most 24h"),
		flags.Check(c.MaxKeys >= 100, "max-keys", c.MaxKeys, "at least 100"),
		flags.Check(c.Suggest == nil || *c.Suggest > 0 && *c.Suggest <= 100, "suggest", flags.Or(c.Suggest, 0),
			"above 0 and at most 100"),
		flags.Check(len(c.Limit) > 0 || c.Suggest != nil, "limit", `""`,
			"a limit to try, as in 100/1m, unless --suggest is given"),
	); err != nil {
		return nil, err
	}
	for _, text := range c.Limit {
		for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
			if c.Strategy != "both" && c.Strategy != s.String() {
				continue
			}
			r, err := parseRule(text, s)
			if err != nil {
				what, rule, ok := strings.Cut(err.Error(), "; it must be ")
				if !ok || !strings.Contains(what, "limit is ") { // what is wrong is not the text
					rule = "limits that can be kept: " + err.Error()
				}
				return nil, &flags.Error{Name: "limit", Value: text, Rule: rule}
			}
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// source is a log.
type source struct {
	name string
	io.ReadCloser
}

// open opens all files, so that one that is missing is told before the first is read. total is how many bytes
// there are, or 0 if that is not known.
func (c *Command) open() (sources []source, total int64, err error) {
	names := c.Files
	if len(names) == 0 {
		names = []string{"-"}
	}
	known := true
	for _, name := range names {
		if name == "-" {
			sources, known = append(sources, source{"standard input", io.NopCloser(os.Stdin)}), false
			continue
		}
		f, err := os.Open(name)
		if err == nil {
			var info os.FileInfo
			if info, err = f.Stat(); err == nil && info.IsDir() {
				err = fmt.Errorf("%s is a folder; it must be a log", name)
			} else if err == nil {
				known = known && info.Mode().IsRegular()
				total += info.Size()
			}
		}
		if err != nil {
			for _, s := range sources {
				_ = s.Close()
			}
			return nil, 0, err
		}
		sources = append(sources, source{name, f})
	}
	if !known {
		total = 0
	}
	return sources, total, nil
}
