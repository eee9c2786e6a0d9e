package redislimit

import (
	"cmp"
	"errors"
	"strconv"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// absolute is the strategy Absolute: absolute.lua.
func absolute(span window.Span) *strategy {
	return &strategy{
		letter: "a",
		denial: trypema.OutcomeRejected,
		decide: operation{
			windows: windowsOf("a", span),
			script:  func(s *redisproto.Scripts) redisproto.Script { return s.Absolute },
			args: func(batches []*batch) []string {
				args := redisproto.SpanArgs(span)
				for _, run := range batches[0].runs {
					args = run.append(args)
				}
				// The script takes a count, or cost and count, that are missing at the end for 1.
				for n := 2; n > 0 && args[len(args)-1] == "1"; n-- {
					args = args[:len(args)-1]
				}
				return args
			},
			read: func(r *redisproto.Reader, runs []run, calls []*call) error {
				return cmp.Or(readAbsolute(r, runs, calls), unexplained(calls))
			},
		},
	}
}

// windowsOf returns what the windows of a batch are, by its key.
func windowsOf(kind string, span window.Span) func(key string) redisproto.Windows {
	return func(key string) redisproto.Windows {
		return redisproto.Windows{Kind: kind, Keys: []string{key}, Spans: []window.Span{span}}
	}
}

// runsOf returns the calls in runs of equal ones. Where dice are thrown, a call with a life is a run of its
// own, as multi.lua wants it.
func runsOf(calls []*call, dice bool) (runs []run) {
	for _, c := range calls {
		if n := len(runs) - 1; n >= 0 && runs[n].equals(c) && (!dice || c.life == 0) {
			runs[n].n++
			continue
		}
		runs = append(runs, run{c.capacity, c.cost, c.record, c.life, 1})
	}
	return runs
}

// equals reports whether a call asks what the calls of a run ask.
func (r *run) equals(c *call) bool {
	return r.capacity == c.capacity && r.cost == c.cost && r.record == c.record && r.life == c.life
}

// append appends capacity, cost and count of a run.
func (r run) append(args []string) []string {
	count := 0
	if r.record {
		count = r.n
	}
	return append(args,
		strconv.FormatUint(r.capacity, 10),
		strconv.FormatUint(r.cost, 10),
		strconv.Itoa(count))
}

// unexplained returns an error if a call was denied that need not wait.
func unexplained(calls []*call) error {
	for _, c := range calls {
		if !c.verdict.Allowed && c.verdict.Wait <= 0 {
			return errors.New("reply that denies a call, and has it wait for nothing")
		}
	}
	return nil
}

func readAbsolute(r *redisproto.Reader, runs []run, calls []*call) error {
	for _, run := range runs {
		have, fit := r.Count(redisproto.Most), r.Count(uint64(run.n))
		var wait int64
		var left uint64
		if !run.record || fit < uint64(run.n) {
			wait, left = r.Wait(), r.Count(redisproto.Most)
		}
		if r.Err() != nil || calls == nil {
			continue
		}
		for i, c := range calls[:run.n] {
			c.counts.Admitted = have
			v := &c.verdict
			switch {
			case uint64(i) < fit:
				v.Allowed = true
				v.Now = have + uint64(i+1)*run.cost
				v.Then = v.Now
			case !run.record && wait == 0:
				v.Allowed = true
				v.Now, v.Then = have, have
			default:
				v.Now, v.Then, v.Wait = have+fit*run.cost, left, wait
				if wait < 0 {
					v.Wait = window.Never
				}
			}
		}
		calls = calls[run.n:]
	}
	return r.Err()
}
