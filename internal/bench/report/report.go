// Package report measures this library beside all others in every respect, in one run, and writes a page with
// pictures and a table. What is measured is a list of command lines of bench measure (steps.go). Each is a
// step, after which all that was measured is on disk; so a report can be interrupted at any time, and goes on
// when the same command is given again.
package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/bench/figure"
	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/bench/rustpeer"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/realredis"
)

// Command is the flags of bench report.
type Command struct {
	Out    string   `default:"trypema-report" placeholder:"DIR" help:"Folder to write to. A report there goes on."`
	Quick  bool     `help:"A shorter look, in a few minutes: fewer and shorter rounds, no grid of keys and rates."`
	Full   bool     `help:"The long one, in forty minutes or so: more and longer rounds, ten million keys."`
	Redis  *string  `name:"redis" placeholder:"URL" help:"Default: redis-server of PATH or $REDIS_SERVER, started for this."`
	Only   []string `placeholder:"STEP,…" help:"Measure these steps alone; --list names them."`
	List   bool     `help:"List the steps with the commands that they stand for, and measure nothing."`
	Redraw bool     `help:"Measure nothing; write page and table again from what was measured."`
	JSON   bool     `name:"json" help:"Print all measurements as one JSON document."`

	brief func() (effort, []step) // for tests; nil for what the flags say
}

// Help is the text of bench report --help.
func (Command) Help() string {
	return `It measures Trypema beside the limiters that its users would pick, in Go and in Rust, in this
process and in Redis: throughput, latency, memory, and what they admit of what they are offered. Limiters
take turns in short rounds, and every number comes with its spread. Without --quick and --full it takes
about twenty minutes. Use the machine for nothing else meanwhile.

DIR/report.html needs nothing but a browser; DIR/report.md is the same in tables; DIR/measurements.json is
every number.

Peers in Rust are built by cargo from internal/bench/rust of the repository, and redis-cell with them;
without cargo or that folder they are left out, as everything with Redis is where there is no server; then
the report is marked partial.

The exit status is 1 if the report is partial, if a run of Trypema failed, or if it was interrupted; 2 for a
wrong flag.`
}

func (c *Command) effort() effort {
	switch {
	case c.Quick:
		return quick
	case c.Full:
		return full
	}
	return standard
}

// errPartial is what the report itself says at length.
var errPartial = errors.New("the report is partial: see its beginning")

// Run measures what is missing, and writes.
func (c *Command) Run(ctx context.Context, out screen.Streams) error {
	e := c.effort()
	all := e.steps()
	if c.brief != nil {
		e, all = c.brief()
	}
	steps, err := c.resolve(all)
	if err != nil {
		return err
	}
	if c.List {
		return list(out.Out, e, steps)
	}
	if c.Redraw {
		d, err := load(c.Out)
		if err != nil {
			return err
		}
		if d == nil {
			return flags.Check(false, "redraw", c.Redraw,
				"left out unless there is a report in --out ("+c.Out+")")
		}
		return c.publish(d, out)
	}
	if err := os.MkdirAll(c.Out, 0o777); err != nil {
		return err
	}
	r := &runner{Command: c, effort: e, out: out, steps: steps}
	d, measured := r.run(ctx)
	if d == nil {
		return measured
	}
	return errors.Join(c.publish(d, out), measured)
}

// resolve checks the flags, and returns those of the steps that they name.
func (c *Command) resolve(steps []step) ([]step, error) {
	var names []string
	for _, s := range steps {
		names = append(names, s.ID)
	}
	err := flags.First(
		flags.Check(c.Out != "", "out", c.Out, "a folder"),
		flags.Check(!c.Quick || !c.Full, "full", c.Full, "left out with --quick"),
	)
	if err == nil && c.Redis != nil {
		err = store.Flags{Provider: store.Redis, Redis: c.Redis}.Check()
	}
	for _, id := range c.Only { // a step is in names once for each pass
		err = flags.First(err, flags.OneOf("only", id, unique(names)...))
	}
	if len(c.Only) > 0 {
		steps = slices.DeleteFunc(steps, func(s step) bool { return !slices.Contains(c.Only, s.ID) })
	}
	return steps, err
}

func list(w io.Writer, e effort, steps []step) error {
	var total time.Duration
	var text strings.Builder
	for _, s := range steps {
		total += s.took
		fmt.Fprintf(&text, "%s: %s, about %v\n", s.ID, s.Title, s.took.Round(time.Second))
		for _, l := range e.commands(s) {
			fmt.Fprintf(&text, "    %s\n", l)
		}
	}
	_, err := fmt.Fprintf(w, "%s%d steps, about %v\n", &text, len(steps), total.Round(time.Minute))
	return err
}

// commands are the lines of a step as one would type them.
func (e effort) commands(s step) (all []string) {
	for _, l := range s.lines {
		all = append(all, "go run ./internal/bench "+strings.Join(e.args(l, s.kind), " "))
	}
	return all
}

// publish writes page and table, and says what matters most of them.
func (c *Command) publish(d *document, out screen.Streams) error {
	figures, err := d.figures()
	if err != nil {
		return err
	}
	page, table, err := d.pages(figures)
	if err != nil {
		return err
	}
	err = errors.Join(write(c.Out, pageFile, page), write(c.Out, tableFile, table))
	for _, f := range figures {
		err = errors.Join(err, write(c.Out, f.File(), figure.Alone(f.svg)))
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = screen.JSON(out.Out, d)
	} else {
		err = d.summary(out.Out, c.Out, len(c.Only) > 0)
	}
	if len(d.Partial()) > 0 {
		err = errors.Join(err, errPartial)
	}
	return errors.Join(err, d.broken())
}

// broken says what of Trypema's own runs failed.
func (d *document) broken() error {
	var errs []error
	for _, r := range d.Steps {
		for _, f := range r.failures() {
			if ours(f.limiter) {
				errs = append(errs, fmt.Errorf("%s: %s: %s", r.ID, f.limiter, f.why))
			}
		}
	}
	return errors.Join(errs...)
}

type failure struct{ limiter, why string }

// failures are the rows of a step that failed.
func (r *result) failures() (all []failure) {
	add := func(limiter, why string) {
		if why != "" {
			all = append(all, failure{limiter, why})
		}
	}
	if r.Comparison != nil {
		for _, x := range r.Comparison.Limiters {
			add(x.Limiter, x.Failed)
		}
	}
	for _, x := range r.Accuracy {
		add(x.Limiter, x.Failed)
	}
	for _, x := range r.Fullest {
		add(x.Limiter, x.Failed)
	}
	for _, x := range r.Memory {
		add(x.Limiter, x.Failed)
	}
	return all
}

// runner measures.
type runner struct {
	*Command
	effort effort
	out    screen.Streams
	steps  []step

	server string // a URL, or empty
	began  time.Time
	bar    *screen.Bar
}

// run measures the steps that the folder has no result of, and returns all that is known then; nil if nothing
// was to be had.
func (r *runner) run(ctx context.Context) (_ *document, err error) {
	r.bar = screen.NewBar(r.out.Err)
	defer r.bar.Clear()
	var missing []string
	r.bar.Set(0, "building the limiters in Rust, with cargo")
	built, err := rustpeer.Build(ctx)
	var noRust *rustpeer.MissingError
	switch {
	case ctx.Err() != nil:
		return nil, errInterrupted
	case errors.As(err, &noRust):
		missing = append(missing, "limiters in Rust: "+noRust.Why)
	case err != nil:
		return nil, err
	}
	version := ""
	if r.Redis != nil {
		r.server = *r.Redis
	} else {
		var server *realredis.Server
		server, err = startServer(ctx, rustpeer.Cell(built)...)
		var noServer *realredis.MissingError
		switch {
		case err == nil:
			r.server = "redis://" + server.Addr()
			defer func() { err = errors.Join(err, server.Close()) }()
		case errors.As(err, &noServer):
			missing = append(missing, "everything with Redis: "+err.Error()+", and --redis names no other")
		case ctx.Err() == nil:
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, errInterrupted
		}
	}
	if r.server != "" {
		if version, err = store.Version(ctx, r.server); err != nil {
			return nil, err
		}
	}
	d, err := r.resume(thisMachine(version))
	if err != nil {
		return nil, err
	}
	d.Missing = missing
	d.Expected = len(r.steps)
	return d, r.measure(ctx, d)
}

// startServer starts a Redis server with those modules that it accepts.
func startServer(ctx context.Context, modules ...string) (*realredis.Server, error) {
	var args []string
	for _, m := range modules {
		args = append(args, "--loadmodule", m)
	}
	server, err := realredis.Start(ctx, args...)
	if err != nil && len(modules) > 0 && ctx.Err() == nil { // a module made for another server
		server, err = realredis.Start(ctx)
	}
	return server, err
}

var errInterrupted = errors.New("interrupted; the same command goes on from here")

// resume returns the document that is to be completed: a new one, unless the folder has one that was
// interrupted.
func (r *runner) resume(m machine) (*document, error) {
	d, err := load(r.Out)
	if err != nil {
		return nil, err
	}
	fresh := &document{Effort: r.effort.Name, Machine: m, Began: time.Now()}
	switch {
	case d == nil || d.complete():
		err := fresh.save(r.Out) // which tells at once if nothing can be written
		return fresh, err
	case d.Effort != r.effort.Name:
		return nil, fmt.Errorf("%s holds a %s report that was interrupted; go on with that, "+
			"or name another folder", r.Out, d.Effort)
	case !reflect.DeepEqual(d.Machine, m):
		return nil, fmt.Errorf("%s holds a report that was interrupted, of another machine or version "+
			"(%v); go on there, or name another folder", r.Out, d.Machine)
	}
	d.Interrupt++
	err = d.save(r.Out)
	return d, err
}

// measure takes the steps that are missing, one after the other.
func (r *runner) measure(ctx context.Context, d *document) error {
	r.began = time.Now()
	var known, left time.Duration // of the steps by what they should take: done here, and to do
	for _, s := range r.steps {
		if !d.has(s) {
			left += s.took
		}
	}
	for i, s := range r.steps { // in this order, so that those of one pass lie far from those of another
		if d.has(s) {
			continue
		}
		if s.needs != "" && r.server == "" {
			d.Expected--
			left -= s.took
			continue
		}
		began := time.Now()
		res, err := r.step(ctx, s, func(part float64, doing string) {
			todo := left - time.Duration(part*float64(s.took))
			r.bar.Set(float64(i)/float64(len(r.steps))+part/float64(len(r.steps)),
				fmt.Sprintf("%s left; %d of %d, %s: %s", r.remaining(known, todo), i+1, len(r.steps), s.ID, doing))
		})
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			res.Failed = err.Error()
		}
		res.Took = screen.Milliseconds(time.Since(began))
		d.add(s, res)
		d.Ended = time.Now()
		if err := d.save(r.Out); err != nil {
			return err
		}
		known += s.took
		left -= s.took
		r.bar.Line(fmt.Sprintf("%2d of %d  %-28s %5.1fs   %s left", i+1, len(r.steps), s.ID,
			time.Since(began).Seconds(), r.remaining(known, left)))
		runtime.GC()
	}
	return nil
}

// remaining corrects what is left to do by how long the part took that is done.
func (r *runner) remaining(done, left time.Duration) string {
	if done > 5*time.Second {
		left = time.Duration(float64(left) * float64(time.Since(r.began)) / float64(done))
	}
	return left.Round(time.Second).String()
}

// step measures one.
func (r *runner) step(
	ctx context.Context, s step, progress func(part float64, doing string),
) (res result, err error) {
	res = result{ID: s.ID, Title: s.Title, About: s.About, Commands: r.effort.commands(s)}
	var cases []measure.Case
	for _, l := range s.lines {
		c, err := r.effort.command(l, s.kind, r.server)
		if err != nil {
			return res, err
		}
		cases = append(cases, measure.Case{Label: l.label, Command: c})
	}
	c := cases[0].Command
	switch s.kind {
	case turns:
		res.Comparison, err = measure.Compare(ctx, cases, progress)
	case accuracy:
		res.Accuracy, err = c.AccuracyOf(ctx, r.effort.windows, r.effort.mostLoad(s),
			r.effort.together(s), progress)
	case fullest:
		res.Fullest, err = c.FullestWindows(ctx, r.effort.Times, progress)
	case memory:
		res.Memory, err = c.Footprints(ctx, r.effort.Times, progress)
	case floors:
		res.Floors, err = c.Floors(ctx, max(3, r.effort.Times), progress)
	}
	return res, err
}

// mostLoad is the highest load that is offered in an accuracy step.
func (e effort) mostLoad(s step) float64 {
	if s.needs == store.Redis {
		return e.remote
	}
	return 100
}

// together reports whether all limiters of an accuracy step can be offered their loads at the same time.
func (e effort) together(s step) bool { return s.needs != store.Redis || e.remote <= 10 }

// summary says in a few lines what came of it; of some steps, only that.
func (d *document) summary(w io.Writer, dir string, some bool) error {
	s := d.Promised()
	if some {
		s.Rows = slices.DeleteFunc(s.Rows, func(row []string) bool { return slices.Contains(row, notMeasured) })
	}
	if err := screen.Table(w, s.Head, s.Rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, " medians of rounds, and the least and the greatest of them\n %s\n",
		filepath.Join(dir, pageFile))
	return err
}
