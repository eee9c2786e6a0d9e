package redislimit

import (
	"strconv"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/window"
)

// absolute is the strategy Absolute: absolute.lua.
func absolute(span window.Span) *strategy {
	return &strategy{
		letter: "a",
		denial: trypema.OutcomeRejected,
		decide: operation{
			script: func(s *scripts) script { return s.absolute },
			args: func(calls []*call) []string {
				args := spanArgs(span)
				for run := range runs(calls) {
					args = appendRun(args, run)
				}
				// What is 1 can be left out at the end.
				for n := 2; n > 0 && args[len(args)-1] == "1"; n-- {
					args = args[:len(args)-1]
				}
				return args
			},
			read: readAbsolute,
		},
	}
}

// runs yields the calls in runs of equal ones.
func runs(calls []*call) func(func([]*call) bool) {
	return func(yield func([]*call) bool) {
		for len(calls) > 0 {
			n := 1
			for n < len(calls) && calls[n].like(calls[0]) {
				n++
			}
			if !yield(calls[:n]) {
				return
			}
			calls = calls[n:]
		}
	}
}

func (c *call) like(d *call) bool {
	return c.capacity == d.capacity && c.cost == d.cost && c.record == d.record
}

// appendRun appends capacity, cost and count of a run.
func appendRun(args []string, run []*call) []string {
	count := 0
	if run[0].record {
		count = len(run)
	}
	return append(args,
		strconv.FormatUint(run[0].capacity, 10),
		strconv.FormatUint(run[0].cost, 10),
		strconv.Itoa(count))
}

func readAbsolute(calls []*call, reply []any) error {
	r := reader{reply: reply}
	for run := range runs(calls) {
		have, fit := r.count(most), r.count(uint64(len(run)))
		var wait int64
		var left uint64
		if r.more() {
			wait, left = r.number(), r.count(most)
		}
		if r.err != nil {
			break
		}
		cost := run[0].cost
		for i, c := range run {
			c.counts.Admitted = have
			v := &c.verdict
			switch {
			case uint64(i) < fit:
				v.Allowed = true
				v.Now = have + uint64(i+1)*cost
				v.Then = v.Now
			case !c.record && wait == 0:
				v.Allowed = true
				v.Now, v.Then = have, have
			default:
				v.Now, v.Then, v.Wait = have+fit*cost, left, wait
				if wait < 0 {
					v.Wait = window.Never
				}
			}
		}
	}
	return r.done()
}
