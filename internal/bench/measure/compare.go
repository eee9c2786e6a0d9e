package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
)

// Comparison is several limiters measured in turn.
type Comparison struct {
	conditions
	Rounds   int        `json:"rounds"`
	Limiters []Compared `json:"limiters"`
	LeftOut  []string   `json:"left_out"` // limiters that do not run here, each with the reason
}

// Compared is one limiter among others. The ratios are to the first limiter in the same round.
type Compared struct {
	Case    string `json:"case"` // of several that were compared; empty for one
	Limiter string `json:"limiter"`
	store.Where
	Failed          string  `json:"failed"` // what of its run is wrong; then its numbers prove nothing
	OpsPerSecond    float64 `json:"median_ops_per_second"`
	Ratio           float64 `json:"median_ratio"`
	RatioMin        float64 `json:"min_ratio"`
	RatioMax        float64 `json:"max_ratio"`
	RatioP25        float64 `json:"p25_ratio"`
	RatioP75        float64 `json:"p75_ratio"`
	Allowed         uint64  `json:"allowed"`
	Denied          uint64  `json:"denied"`
	Skipped         uint64  `json:"skipped"`
	AdmittedToLimit float64 `json:"admitted_to_limit_ratio"`
	latency.Percentiles
	redisCost

	Curve   []latency.Point `json:"latency_curve"` // of all rounds together
	ByRound []Round         `json:"by_round"`
}

// Round is what a limiter did in one of its turns.
type Round struct {
	OpsPerSecond float64 `json:"ops_per_second"`
	Ratio        float64 `json:"ratio"`
	Processor    float64 `json:"processor_ns_per_op"` // of the process of the limiter; 0 where that is not known
	latency.Percentiles
}

// Failures are the rows that failed, as errors.
func (c *Comparison) Failures() (errs []error) {
	for _, x := range c.Limiters {
		if x.Failed != "" {
			errs = append(errs, errors.New(x.Failed))
		}
	}
	return errs
}

// Case is a command line with limiters to compare, which can take turns with other ones: with other keys,
// say.
type Case struct {
	Label   string
	Command *Command
}

// Add takes the rounds of another run of the same, or of some of its limiters. Latencies over all rounds stay
// those of the first.
func (c *Comparison) Add(o *Comparison) {
	for i := range c.Limiters {
		x := &c.Limiters[i]
		for _, y := range o.Limiters {
			if x.Limiter != y.Limiter || x.Case != y.Case {
				continue
			}
			x.Failed = cmp.Or(x.Failed, y.Failed)
			x.Allowed, x.Denied, x.Skipped = x.Allowed+y.Allowed, x.Denied+y.Denied, x.Skipped+y.Skipped
			x.ByRound = append(x.ByRound, y.ByRound...)
			x.summarize()
		}
	}
}

// PerRound is a number of each round; none for a limiter that was not measured.
func (x *Compared) PerRound(of func(Round) float64) (values []float64) {
	if x == nil {
		return nil
	}
	for _, r := range x.ByRound {
		values = append(values, of(r))
	}
	return values
}

// summarize sets what is said of all rounds.
func (x *Compared) summarize() {
	ratios := slices.DeleteFunc(x.PerRound(func(r Round) float64 { return r.Ratio }),
		func(ratio float64) bool { return ratio <= 0 })
	x.OpsPerSecond = Median(x.PerRound(func(r Round) float64 { return r.OpsPerSecond }))
	x.Ratio, x.RatioMin, x.RatioMax = Median(ratios), quantile(ratios, 0), quantile(ratios, 1)
	x.RatioP25, x.RatioP75 = quantile(ratios, 0.25), quantile(ratios, 0.75)
}

// contender is a limiter in a comparison.
type contender struct {
	*session // nil if it failed so early
	label    string
	name     string
	failed   error
	runs     []run // by round
}

// fails notes that something of the contender's run is wrong. What is wrong with the whole comparison is
// returned.
func (c *contender) fails(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	c.failed = err
	return nil
}

// Compare measures limiters in rounds, each round all of them shortly after one another, so that a machine
// that is slow for a while is slow for all. Each round starts with another one, so that none always follows
// the same. One whose run fails takes no further part, and its row says why.
//
// The keys of one that is hybrid settle while others have their turn, until they have been idle for a while.
// That takes time from the others.
//
// A limiter that needs what is not here is left out, unless it is the only one. The conditions of the result
// are those of the first case, and the number of rounds, too.
func Compare(
	ctx context.Context, cases []Case, progress func(part float64, doing string),
) (_ *Comparison, err error) {
	var all []*contender
	var ends []func() error
	defer func() {
		for _, end := range slices.Backward(ends) {
			err = errors.Join(err, end())
		}
	}()
	out := &Comparison{LeftOut: []string{}}
	var missing *peer.MissingError
	for i, c := range cases {
		p, names, err := c.Command.prepare(ctx, c.Command.Window)
		if err != nil {
			return nil, err
		}
		ends = append(ends, p.limit.Server.Close)
		if i == 0 {
			out.conditions, out.Rounds = c.Command.conditions(p), c.Command.Rounds
		}
		for _, name := range names {
			progress(0, "making "+name)
			s, err := p.open(ctx, name)
			if errors.As(err, &missing) {
				out.LeftOut = append(out.LeftOut, missing.Error())
				continue
			}
			one := &contender{session: s, label: c.Label, name: name}
			all = append(all, one)
			if err == nil {
				ends = append(ends, s.limiter.Close)
				progress(0, "warming up "+name)
				err = s.warm(ctx)
			}
			if err := one.fails(ctx, err); err != nil {
				return nil, err
			}
		}
	}
	n := len(all)
	if n == 0 {
		return nil, missing
	}
	for i := range out.Rounds * n {
		c := all[(i/n+i)%n]
		r, err := run{}, c.failed
		if err == nil {
			err = c.wake(ctx)
		}
		if err == nil {
			r, err = c.drive(ctx, c.duration/time.Duration(out.Rounds), func(part float64) {
				progress((float64(i)+part)/float64(out.Rounds*n),
					fmt.Sprintf("round %d of %d: %s", i/n+1, out.Rounds, c.name))
			})
		}
		if err := c.fails(ctx, err); err != nil {
			return nil, err
		}
		c.runs = append(c.runs, r)
	}
	for _, c := range all {
		row, err := c.row(ctx, all[0])
		if err != nil {
			return nil, err
		}
		out.Limiters = append(out.Limiters, row)
	}
	return out, nil
}

// row is what the contender did, beside the first of them.
func (c *contender) row(ctx context.Context, first *contender) (Compared, error) {
	var a audit
	err := c.failed
	if err == nil {
		a, err = c.verify(ctx)
	}
	if err := c.fails(ctx, err); err != nil {
		return Compared{}, err
	}
	if c.session == nil {
		return Compared{Case: c.label, Limiter: c.name, Failed: c.failed.Error()}, nil
	}
	total := c.sum()
	x := Compared{
		Case:            c.label,
		Limiter:         c.name,
		Where:           c.where(),
		Allowed:         total.allowed,
		Denied:          total.denied,
		Skipped:         total.skipped,
		AdmittedToLimit: a.admittedToLimit,
		Percentiles:     c.latency.Percentiles(),
		Curve:           c.latency.Curve(),
		redisCost:       costOf(c.runs...),
	}
	if c.failed != nil {
		x.Failed = c.failed.Error()
	}
	for i, r := range c.runs {
		if r.ops == 0 {
			continue // it has failed by then
		}
		round := Round{OpsPerSecond: r.opsPerSecond(), Processor: float64(r.processor) / float64(r.ops),
			Percentiles: r.latency.Percentiles()}
		if to := first.runs[i]; to.ops > 0 {
			round.Ratio = round.OpsPerSecond / to.opsPerSecond()
		}
		x.ByRound = append(x.ByRound, round)
	}
	x.summarize()
	return x, nil
}

// Median is the middle of the values, or between the two there; 0 if there are none.
func Median(values []float64) float64 { return quantile(values, 0.5) }

// HalfQuartiles is half the distance between the quartiles of the values.
func HalfQuartiles(values []float64) float64 {
	return (quantile(values, 0.75) - quantile(values, 0.25)) / 2
}

// quantile is the value at a part of the sorted values, between two of them in proportion; 0 if there are
// none.
func quantile(values []float64, part float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	at := part * float64(len(v)-1)
	low := int(at)
	high := min(low+1, len(v)-1)
	return v[low] + (at-float64(low))*(v[high]-v[low])
}

// ratio writes x with three digits, or all before the point.
func ratio(x float64) string {
	return strconv.FormatFloat(x, 'f', max(0, 3-len(strconv.Itoa(int(x)))), 64)
}

func (c *Comparison) table(w io.Writer) error {
	shared := c.conditions
	mixed := c.Client == store.Rueidis // but for those that need the other
	if mixed {
		shared.Client = ""
	}
	fmt.Fprintln(w, shared)
	head := []string{"", "calls", "ratio", "min – max", "admitted ²"}
	var rows, slow [][]string
	for _, x := range c.Limiters {
		if x.Failed != "" {
			rows = append(rows, []string{c.Label(x), "failed", "", "", ""})
			continue
		}
		rows = append(rows, []string{
			c.Label(x),
			screen.PerSecond(x.OpsPerSecond),
			ratio(x.Ratio),
			ratio(x.RatioMin) + " – " + ratio(x.RatioMax),
			fmt.Sprintf("%.3f", x.AdmittedToLimit),
		})
		slow = append(slow, []string{
			c.Label(x),
			screen.Nanoseconds(x.P50), screen.Nanoseconds(x.P99), screen.Nanoseconds(x.P999), screen.Nanoseconds(x.Max),
		})
	}
	err := errors.Join(
		screen.Table(w, head, rows),
		screen.Table(w, []string{"latency of a call ¹", "p50", "p99", "p99.9", "max"}, slow),
	)
	first := c.Limiters[0]
	fmt.Fprintf(w, " medians of %d rounds; ratio: of the calls in a round to those of\n   %s\n", c.Rounds,
		c.Label(first))
	c.footnotes(w)
	rows = nil
	if mixed {
		fmt.Fprintf(w, " trypema by %s; other limiters in Redis by %s\n", c.Client, store.GoRedis)
	}
	for _, x := range c.Limiters {
		if x.RedisCommands != nil {
			rows = append(rows,
				[]string{c.Label(x), number(x.RedisCommands, nanoseconds), number(x.RedisCPU, nanoseconds)})
		}
	}
	if len(rows) > 0 {
		err = errors.Join(err,
			screen.Table(w, []string{"Redis, for each decision", "in its commands ³", "processor ³"}, rows))
		fmt.Fprintf(w, " ³ %s\n", costMethod)
	}
	return err
}

func (c *Comparison) csv(w io.Writer) error { return writeCSV(w, c.Limiters) }
