package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
)

// Ratios is the flags of bench ratios.
type Ratios struct {
	Rounds int           `default:"7" help:"Rounds in which the limiters of a row take turns."`
	Round  time.Duration `default:"120ms" help:"How long each limiter is called in a round."`
	Only   []string      `sep:"none" placeholder:"ROW" help:"Measure the rows whose names begin so, and not the memory. May be given several times."`
	JSON   bool          `name:"json" help:"Print one JSON document."`

	keys int // instead of a million, for tests; 0 for that
}

// Help is the text of bench ratios --help.
func (Ratios) Help() string {
	return `A table of what a call on Local takes, and how many times as long one of other limiters takes, in
three minutes. Limiters take turns in short rounds; what is shown is the median of the ratios of all rounds,
and half the distance between their quartiles. On Linux it compares the time of processors that calls take,
and other programs disturb less; elsewhere the calls in a second. bench report measures everything, with
pictures.

The exit status is 1 if a run of any limiter failed its premises: then its ratio is left out.`
}

// ratioRow is a row of the table: a command line of bench measure.
type ratioRow struct{ name, args, limiters string }

// columns are the limiters of the table after ours.
var columns = []string{"xtime-syncmap", "xtime-xsync", "go-limiter", "throttled", "governor"}

func (r *Ratios) rows() []ratioRow {
	const ours = "trypema,"
	all, few := ours+strings.Join(columns, ","), ours+"xtime-syncmap,governor"
	uniform := func(keys int) string { return fmt.Sprint("--keys uniform --warm-up 1200ms --key-space ", keys) }
	million := r.million()
	return []ratioRow{
		{"hot key, over", "--keys hot --key-space 1000 --warm-up 200ms", all},
		{"hot key, under", "--keys hot --key-space 1000 --rate 1e8 --warm-up 200ms", few},
		{"canonical", "--warm-up 1200ms", all},
		{"1 k keys", uniform(1000) + " --rate 1e5", few},
		{"1 k keys, fresh", uniform(1000) + " --rate 1e5 --fresh", few},
		{"1 k keys, over", uniform(1000) + " --window 1s", few},
		{"100 k keys", uniform(100_000), all},
		{"100 k keys, fresh", uniform(100_000) + " --fresh", all},
		{"100 k keys, 16 at a time", uniform(100_000) + " --many 16", few},
		{"1 M keys", uniform(million), few},
		{"1 M keys, fresh", uniform(million) + " --fresh", few},
		{"suppressed, hot key, over", "--strategy suppressed --keys hot --key-space 1000 --warm-up 200ms",
			"trypema,xtime-syncmap,rust-trypema"},
		{"suppressed, 100 k keys", "--strategy suppressed " + uniform(100_000), "trypema,xtime-syncmap"},
	}
}

func (r *Ratios) million() int { return cmp.Or(r.keys, 1_000_000) }

// ratios is what was measured.
type ratios struct {
	Machine machine         `json:"machine"`
	Began   time.Time       `json:"began"`
	Rows    []measuredRow   `json:"rows"`
	Memory  []memoryOf      `json:"memory"`
	Adding  []measure.Added `json:"adding"`
	LeftOut []string        `json:"left_out"`
}

// measuredRow is a row with what was measured.
type measuredRow struct {
	Name   string                 `json:"name"`
	Args   string                 `json:"arguments"`
	Ours   float64                `json:"ns_per_call"`
	P999   int64                  `json:"p999_ns"`
	Ratios map[string]ratioSpread `json:"ratios"`
}

type ratioSpread struct {
	Median float64 `json:"median"`
	Spread float64 `json:"half_interquartile_range"`
	P999   int64   `json:"p999_ns"`
}

type memoryOf struct {
	Limiter     string  `json:"limiter"`
	Keys        int     `json:"keys"`
	BytesPerKey float64 `json:"bytes_per_key"`
	Allocations float64 `json:"allocations_per_call"`
	Collection  float64 `json:"added_to_a_collection_ms"`
}

// Run measures and prints.
func (r *Ratios) Run(ctx context.Context, out screen.Streams) error {
	var names []string
	for _, x := range r.rows() {
		names = append(names, x.name)
	}
	for _, name := range r.Only {
		if !slices.ContainsFunc(names, func(row string) bool { return strings.HasPrefix(row, name) }) {
			return flags.Check(false, "only", strconv.Quote(name), "the beginning of one of "+strings.Join(names, "; "))
		}
	}
	bar := screen.NewBar(out.Err)
	defer bar.Clear()
	all := ratios{Machine: thisMachine(""), Began: time.Now()}
	rows := slices.DeleteFunc(r.rows(), func(x ratioRow) bool {
		return len(r.Only) > 0 &&
			!slices.ContainsFunc(r.Only, func(name string) bool { return strings.HasPrefix(x.name, name) })
	})
	var failed []error
	for i, x := range rows {
		row, leftOut, err := r.measure(ctx, x, func(part float64, doing string) {
			bar.Set((float64(i)+part)/float64(len(rows)+2), x.name+": "+doing)
		})
		if ctx.Err() != nil {
			return err
		}
		failed = append(failed, err)
		all.Rows = append(all.Rows, row)
		all.LeftOut = unique(append(all.LeftOut, leftOut...))
	}
	if len(r.Only) == 0 {
		bar.Set(0.9, "memory")
		err := r.memory(ctx, &all)
		if ctx.Err() != nil {
			return err
		}
		failed = append(failed, err)
	}
	bar.Clear()
	var err error
	if r.JSON {
		err = screen.JSON(out.Out, all)
	} else {
		err = all.table(out.Out)
	}
	return errors.Join(append(failed, err)...)
}

// measure measures a row. An error is that of a limiter that has failed; its ratio is left out.
func (r *Ratios) measure(
	ctx context.Context, x ratioRow, progress func(part float64, doing string),
) (row measuredRow, leftOut []string, err error) {
	args := append(strings.Fields(x.args), "--compare", x.limiters, "--rounds", fmt.Sprint(r.Rounds), "--duration",
		(time.Duration(r.Rounds) * r.Round).String())
	row = measuredRow{Name: x.name, Args: strings.Join(args, " "), Ratios: make(map[string]ratioSpread)}
	c, err := measure.Parse(args...)
	if err != nil {
		return row, nil, err
	}
	result, err := measure.Compare(ctx, []measure.Case{{Command: c}}, progress)
	if err != nil {
		return row, nil, err
	}
	ours := &result.Limiters[0]
	cost := func(r measure.Round) float64 { return took(r, result.Workers) }
	row.Ours, row.P999 = measure.Median(ours.PerRound(cost)), ours.P999
	for i := range result.Limiters[1:] {
		peer := &result.Limiters[i+1]
		if ours.Failed != "" || peer.Failed != "" {
			continue
		}
		per := perRound(peer, ours, cost)
		row.Ratios[peer.Limiter] = ratioSpread{
			Median: measure.Median(per), Spread: measure.HalfQuartiles(per), P999: peer.P999,
		}
	}
	return row, result.LeftOut, errors.Join(result.Failures()...)
}

// took is how many nanoseconds of a processor a call took, or of a caller where that is not known.
func took(r measure.Round, workers int) float64 {
	if r.Processor > 0 {
		return r.Processor
	}
	return float64(workers) * 1e9 / r.OpsPerSecond
}

// memory measures memory, collections, and calls while keys are added.
func (r *Ratios) memory(ctx context.Context, all *ratios) error {
	c, err := measure.Parse("--keys", "uniform", "--key-space", fmt.Sprint(r.million()), "--window", "1m", "--compare",
		"trypema,xtime-syncmap,xtime-xsync,go-limiter,throttled")
	if err != nil {
		return err
	}
	foot, err := c.Footprints(ctx, 1, func(float64, string) {})
	if err != nil {
		return err
	}
	var failed []error
	alone := measure.Median(foot[0].Collection)
	for _, f := range foot[1:] {
		if f.Failed != "" {
			failed = append(failed, errors.New(f.Failed))
			continue
		}
		all.Memory = append(all.Memory, memoryOf{
			Limiter: f.Limiter, Keys: f.Keys, BytesPerKey: measure.Median(f.BytesPerKey),
			Allocations: measure.Median(f.AllocsPerOp), Collection: max(0, measure.Median(f.Collection)-alone),
		})
	}
	all.Adding, err = c.Adding(ctx)
	for _, a := range all.Adding {
		if a.Failed != "" {
			failed = append(failed, fmt.Errorf("%s: %s", a.Limiter, a.Failed))
		}
	}
	return errors.Join(append(failed, err)...)
}

// table writes all of it for a person.
func (all *ratios) table(w io.Writer) error {
	fmt.Fprintf(w, "%s; %s; source %s\n", all.Began.UTC().Format("2006-01-02"), all.Machine, all.Machine.Trypema)
	head := append([]string{"", "ns", "p99.9"}, columns...)
	others := slices.ContainsFunc(all.Rows, func(r measuredRow) bool { _, ok := r.Ratios["rust-trypema"]; return ok })
	if others {
		head = append(head, "rust-trypema")
	}
	var rows [][]string
	for _, r := range all.Rows {
		row := []string{r.Name, fmt.Sprintf("%.0f", r.Ours), screen.Nanoseconds(r.P999)}
		for _, name := range head[3:] {
			cell := ""
			if x, ok := r.Ratios[name]; ok && !math.IsNaN(x.Median) {
				cell = fmt.Sprintf("%.2f ± %.2f", x.Median, x.Spread)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	err := screen.Table(w, head, rows)
	fmt.Fprintln(w, " ns: for a call of trypema, of a processor (Linux) or a caller; "+
		"then how many times as long a call of the others takes")
	if small, large := all.ours("1 k keys, fresh"), all.ours("1 M keys, fresh"); small > 0 && large > 0 {
		fmt.Fprintf(w, " growth, 1 k keys to 1 M, fresh: %.1f ×\n", large/small)
	}
	if len(all.Memory) > 0 {
		fmt.Fprintln(w)
		rows = nil
		for _, m := range all.Memory {
			row := []string{m.Limiter, fmt.Sprintf("%.0f", m.BytesPerKey), fmt.Sprintf("%.2f", m.Allocations),
				fmt.Sprintf("%.1f ms", m.Collection)}
			for _, a := range all.Adding {
				if a.Limiter == m.Limiter && a.Failed == "" {
					row = append(row, screen.Nanoseconds(a.Known.P999), screen.Nanoseconds(a.Known.Max),
						screen.Nanoseconds(a.New.Max))
				}
			}
			rows = append(rows, row)
		}
		head := []string{screen.Count(uint64(all.Memory[0].Keys)) + " keys", "B per key", "allocs",
			"adds to a GC", "known, p99.9", "known, max", "new, max"}
		err = errors.Join(err, screen.Table(w, head, rows))
		fmt.Fprintln(w, " known and new: calls for such keys while one caller adds all of them")
	}
	for _, why := range all.LeftOut {
		fmt.Fprintln(w, " left out:", why)
	}
	return err
}

// ours is how long a call of ours took in a row; 0 if that was not measured.
func (all *ratios) ours(name string) float64 {
	for _, r := range all.Rows {
		if r.Name == name {
			return r.Ours
		}
	}
	return 0
}
