// Package check is trypema check: it reads files of limits, and prints what is wrong with them or the rules
// as they were understood. trypema serve --check is the same.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
	"github.com/trypema/trypema/internal/cli/screen"
)

// Command is the flags of trypema check.
type Command struct {
	Paths        []string `arg:"" name:"path" help:"Files, or folders with files *.yaml, *.yml and *.json."`
	MergeDomains bool     `help:"Several files may add to one domain of the Envoy rate limit service."`
	JSON         bool     `name:"json" help:"Print one JSON document."`
}

// Help is the text of trypema check --help.
func (Command) Help() string {
	return `Checks files of policies, and the configuration of the Envoy rate limit service, as trypema serve
reads them. Prints the rules as they were understood, or everything that is wrong, each as file:line:column:
problem.

The exit status is 0 if nothing is wrong, 1 if something is, 2 for a wrong flag.`
}

// Run checks the files.
func (c *Command) Run(_ context.Context, out screen.Streams) error {
	return Print(out, rules.Options{MergeDomains: c.MergeDomains}, c.JSON, c.Paths...)
}

// Print checks what is at some paths, and prints the rules or what is wrong. The error is ErrWrong, or one of
// printing.
func Print(out screen.Streams, o rules.Options, asJSON bool, paths ...string) error {
	var set *rules.Set
	files, wrong := rules.Read(paths...)
	if wrong == nil {
		set, wrong = rules.Compile(files, o)
	}
	var err error
	switch {
	case asJSON:
		err = screen.JSON(out.Out, documentOf(files, set, wrong))
	case wrong == nil:
		_, err = fmt.Fprintf(out.Out, "%s%s, %s, %s: no errors\n", set,
			count(len(set.Files), "file", "files"), count(len(set.Rules()), "rule", "rules"),
			count(len(set.Policies), "policy", "policies"))
	default:
		for _, one := range rules.Errors(wrong) {
			_, e := fmt.Fprintln(out.Out, one)
			err = errors.Join(err, e)
		}
	}
	if err == nil && wrong != nil {
		err = ErrWrong
	}
	return err
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// ErrWrong says that something is wrong with the files, which has been printed: it has no text of its own,
// and a program that ends with it prints nothing more.
var ErrWrong error = printed{}

type printed struct{}

func (printed) Error() string   { return "the files are wrong" }
func (printed) Unwrap() []error { return nil } // what screen.Streams prints of it

// document is what --json prints.
type document struct {
	OK       bool      `json:"ok"`
	Files    []string  `json:"files"`
	Errors   []problem `json:"errors"`
	Rules    []rule    `json:"rules"`
	Policies []policy  `json:"policies"`
}

type problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Problem string `json:"problem"`
}

type rule struct {
	Path      string         `json:"path"`
	Place     string         `json:"place"`
	Limit     string         `json:"limit"`
	Unlimited bool           `json:"unlimited,omitempty"`
	Requests  uint32         `json:"requests_per_unit"`
	Unit      string         `json:"unit,omitempty"`
	Name      string         `json:"name,omitempty"`
	Replaces  []string       `json:"replaces,omitempty"`
	Shadow    bool           `json:"shadow_mode,omitempty"`
	Quota     bool           `json:"quota_mode,omitempty"`
	Detailed  bool           `json:"detailed_metric,omitempty"`
	Metadata  map[string]any `json:"metadata,omitempty"`
}

type policy struct {
	Name     string           `json:"name"`
	Limits   []trypema.Limit  `json:"limits"`
	Strategy trypema.Strategy `json:"strategy"`
	Cost     uint64           `json:"cost"`
	Group    string           `json:"group"`
	Shadow   bool             `json:"shadow,omitempty"`
}

func documentOf(files []rules.File, set *rules.Set, wrong error) *document {
	d := &document{
		OK: wrong == nil, Files: []string{}, Errors: []problem{}, Rules: []rule{}, Policies: []policy{},
	}
	for _, f := range files {
		d.Files = append(d.Files, f.Name)
	}
	for _, err := range rules.Errors(wrong) {
		d.Errors = append(d.Errors, problemOf(err))
	}
	if set == nil {
		return d
	}
	for _, r := range set.Rules() {
		one := rule{
			Path: r.Path, Place: r.Place, Limit: r.Limit(), Unlimited: r.Unlimited, Requests: r.Requests,
			Name: r.Name, Replaces: r.Replaces, Shadow: r.Shadow, Quota: r.Quota, Detailed: r.Detailed,
			Metadata: r.Metadata,
		}
		if !r.Unlimited {
			one.Unit = r.Unit.String()
		}
		d.Rules = append(d.Rules, one)
	}
	for _, p := range set.Policies {
		d.Policies = append(d.Policies,
			policy{p.Name, p.Limits, p.Strategy, max(p.Cost, 1), cmp.Or(p.Group, p.Name), p.Shadow})
	}
	return d
}

func problemOf(err error) problem {
	var of *rules.Error
	if errors.As(err, &of) {
		return problem{of.File, of.Line, of.Column, of.Problem}
	}
	return problem{Problem: strings.TrimPrefix(err.Error(), "trypema: ")}
}
