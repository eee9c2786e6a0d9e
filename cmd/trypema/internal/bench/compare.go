package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/latency"
	"github.com/trypema/trypema/cmd/trypema/internal/peer"
	"github.com/trypema/trypema/cmd/trypema/internal/redisserver"
	"github.com/trypema/trypema/cmd/trypema/internal/screen"
)

// comparison is several limiters measured in turn.
type comparison struct {
	conditions
	Rounds   int        `json:"rounds"`
	Limiters []compared `json:"limiters"`
}

// compared is one limiter among others. The ratios are to the first limiter in the same round.
type compared struct {
	Limiter string `json:"limiter"`
	redisserver.Where
	OpsPerSecond    float64 `json:"median_ops_per_second"`
	Ratio           float64 `json:"median_ratio"`
	RatioMin        float64 `json:"min_ratio"`
	RatioMax        float64 `json:"max_ratio"`
	RatioP25        float64 `json:"p25_ratio"`
	RatioP75        float64 `json:"p75_ratio"`
	AdmittedToLimit float64 `json:"admitted_to_limit_ratio"`
	latency.Percentiles
	redisCost
}

// compare measures the limiters in rounds, each round all of them shortly after one another, so that a machine that is
// slow for a while is slow for all. Each round starts with another one, so that none always follows the same.
//
// The keys of one that is hybrid settle while others have their turn, until they have been idle for a while. That takes
// from the others what it should take from it. So it is warmed up again before each of its rounds.
//
// A limiter that needs what the server does not have is left out, with a complaint, unless it is the only one.
func (p plan) compare(ctx context.Context, names []string, c conditions, rounds int, bar *screen.Bar, complain func(error)) (_ *comparison, err error) {
	var sessions []*session
	defer func() {
		for _, s := range sessions {
			err = errors.Join(err, s.limiter.Close())
		}
	}()
	var missing error
	for _, name := range names {
		s, err := p.open(ctx, name)
		if errors.Is(err, peer.ErrMissing) {
			missing = err
			continue
		}
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, s)
		if err := s.warm(ctx, func(float64) { bar.Set(0, "warming up "+name) }); err != nil {
			return nil, err
		}
	}
	if missing != nil {
		if len(sessions) == 0 {
			return nil, missing
		}
		bar.Clear()
		complain(fmt.Errorf("left out: %w", missing))
	}
	each := p.duration / time.Duration(rounds)
	n := len(sessions)
	runs := make([][]run, n) // of each limiter, by round
	for i := range rounds * n {
		round, which := i/n, (i/n+i)%n
		if err := sessions[which].wake(ctx); err != nil {
			return nil, err
		}
		r, err := sessions[which].drive(ctx, each, func(part float64) {
			bar.Set((float64(i)+part)/float64(rounds*n), fmt.Sprintf("round %d of %d: %s", round+1, rounds, sessions[which].name))
		})
		if err != nil {
			return nil, err
		}
		runs[which] = append(runs[which], r)
	}

	out := &comparison{conditions: c, Rounds: rounds}
	for i, s := range sessions {
		var ops, ratios []float64
		for round, r := range runs[i] {
			ops = append(ops, r.opsPerSecond())
			ratios = append(ratios, r.opsPerSecond()/runs[0][round].opsPerSecond())
		}
		audit, err := s.verify(ctx)
		if err != nil {
			return nil, err
		}
		out.Limiters = append(out.Limiters, compared{
			Limiter:         s.name,
			Where:           s.where(),
			OpsPerSecond:    quantile(ops, 0.5),
			Ratio:           quantile(ratios, 0.5),
			RatioMin:        slices.Min(ratios),
			RatioMax:        slices.Max(ratios),
			RatioP25:        quantile(ratios, 0.25),
			RatioP75:        quantile(ratios, 0.75),
			AdmittedToLimit: audit.admittedToLimit,
			Percentiles:     s.sum().latency.Percentiles(),
			redisCost:       costOf(runs[i]...),
		})
	}
	return out, nil
}

// quantile is the value at a part of the sorted values, between two of them in proportion.
func quantile(values []float64, part float64) float64 {
	v := slices.Sorted(slices.Values(values))
	at := part * float64(len(v)-1)
	low := int(at)
	high := min(low+1, len(v)-1)
	return v[low] + (at-float64(low))*(v[high]-v[low])
}

// ratio writes x with three digits, or all before the point.
func ratio(x float64) string {
	decimals := 2
	for limit := 10.0; x >= limit && decimals > 0; limit *= 10 {
		decimals--
	}
	return strconv.FormatFloat(x, 'f', decimals, 64)
}

func (c *comparison) table(w io.Writer) error {
	shared := c.conditions
	mixed := c.Client == redisserver.Rueidis // but for those that need the other
	if mixed {
		shared.Client = ""
	}
	fmt.Fprintln(w, shared)
	head := []string{"", "calls", "ratio", "min – max", "admitted ²"}
	var rows, slow [][]string
	for _, x := range c.Limiters {
		rows = append(rows, []string{
			c.label(x.Limiter, x.Where),
			screen.PerSecond(x.OpsPerSecond),
			ratio(x.Ratio),
			ratio(x.RatioMin) + " – " + ratio(x.RatioMax),
			fmt.Sprintf("%.3f", x.AdmittedToLimit),
		})
		slow = append(slow, []string{
			c.label(x.Limiter, x.Where),
			screen.Nanoseconds(x.P50), screen.Nanoseconds(x.P99), screen.Nanoseconds(x.P999), screen.Nanoseconds(x.Max),
		})
	}
	err := errors.Join(
		screen.Table(w, head, rows),
		screen.Table(w, []string{"latency of a call ¹", "p50", "p99", "p99.9", "max"}, slow),
	)
	first := c.Limiters[0]
	fmt.Fprintf(w, " medians of %d rounds; ratio: of the calls in a round to those of\n   %s\n", c.Rounds, c.label(first.Limiter, first.Where))
	c.footnotes(w)
	rows = nil
	if mixed {
		fmt.Fprintf(w, " trypema by %s; other limiters in Redis by %s\n", c.Client, redisserver.GoRedis)
	}
	for _, x := range c.Limiters {
		if x.RedisCommands != nil {
			rows = append(rows, []string{c.label(x.Limiter, x.Where), number(x.RedisCommands, nanoseconds), number(x.RedisCPU, nanoseconds)})
		}
	}
	if len(rows) > 0 {
		err = errors.Join(err, screen.Table(w, []string{"Redis, for each decision", "in its commands ³", "processor ³"}, rows))
		fmt.Fprintf(w, " ³ %s\n", costMethod)
	}
	return err
}

func (c *comparison) csv(w io.Writer) error { return writeCSV(w, c.Limiters) }
