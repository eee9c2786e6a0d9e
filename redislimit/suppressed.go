package redislimit

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/window"
)

// suppressed is the strategy Suppressed: suppressed.lua. The dice are thrown here; those of Peek by dice, a number in [0, 1).
func suppressed(span window.Span, factor float64, dice func() float64) *strategy {
	law := func(capacity uint64) *window.Law {
		l := window.NewLaw(span, capacity, factor)
		l.Hard = min(l.Hard, most)
		return l
	}
	hardFactor := strconv.FormatFloat(factor, 'g', -1, 64)
	return &strategy{
		letter: "s",
		denial: trypema.OutcomeSuppressed,
		decide: operation{
			script: func(s *scripts) script { return s.suppressed },
			args: func(calls []*call) []string {
				thrown := make([]byte, 0, 3*len(calls))
				for _, c := range calls {
					if c.record {
						thrown = append(thrown, byte(c.dice>>16), byte(c.dice>>8), byte(c.dice))
					}
				}
				args := append(spanArgs(span), hardFactor, string(thrown))
				for run := range runs(calls) {
					args = appendRun(args, run)
				}
				return args
			},
			read: func(calls []*call, reply []any) error {
				return readSuppressed(span, law, dice, calls, reply)
			},
		},
	}
}

func readSuppressed(span window.Span, law func(uint64) *window.Law, dice func() float64, calls []*call, reply []any) error {
	r := reader{reply: reply}
	for run := range runs(calls) {
		l := law(run[0].capacity)
		counts := window.Counts{Admitted: r.count(most), Declined: r.count(most)}
		recent, joined := r.count(2*most), r.count(2*most)
		var bits uint64
		for i, c := range run {
			c.counts, c.recent = counts, recent
			v := &c.verdict
			v.Factor = 1
			if c.cost <= c.capacity {
				v.Factor = l.Factor(counts, recent, c.cost)
			}
			v.Now = counts.Admitted
			if !c.record {
				v.Allowed = dice() >= v.Factor
				v.Then = v.Now
				continue
			}
			if i%32 == 0 {
				bits = r.count(1<<32 - 1)
			}
			v.Allowed = bits>>(i%32)&1 == 1
			n := c.cost
			if v.Allowed {
				counts.Admitted += n
				v.Now, v.Then = counts.Admitted, counts.Admitted
			} else {
				n = min(n, most-min(most, counts.Observed()))
				counts.Declined += n
				v.Factor = max(v.Factor, 1e-9) // should Lua have rounded otherwise than Go
			}
			joined += n
			recent = joined
		}
	}
	if r.err != nil {
		return r.err
	}
	return readWaits(&r, span, law, calls)
}

// readWaits gives those who were denied the time to wait, from the groups at the end of the reply. It is that from the state
// after the whole batch: what came with a call has happened, too.
func readWaits(r *reader, span window.Span, law func(uint64) *window.Law, calls []*call) error {
	var groups window.Groups
	var w window.Window
	var now int64
	if r.more() {
		now = r.number()
		before := window.Counts{Admitted: r.count(4 * most), Declined: r.count(4 * most)}
		log := r.text()
		if len(log)%groupSize != 0 {
			r.fail("%d bytes, not groups of %d", len(log), groupSize)
		}
		// The groups are as they are; none may join another.
		apart := window.Span{Window: span.Window, Bucket: 1}
		for ; len(log) >= groupSize; log = log[groupSize:] {
			last := int64(number(log))
			upto := window.Counts{Admitted: number(log[7:]), Declined: number(log[14:])}
			w.Record(&groups, apart, w.Advance(&groups, apart, last), window.Counts{
				Admitted: upto.Admitted - before.Admitted,
				Declined: upto.Declined - before.Declined,
			})
			before = upto
		}
	}
	if err := r.done(); err != nil {
		return err
	}
	for run := range runs(calls) {
		var wait int64
		var then uint64
		for _, c := range run {
			v := &c.verdict
			switch {
			case v.Allowed:
				continue
			case c.cost > c.capacity:
				v.Wait = window.Never
				continue
			case wait == 0:
				if w.Counts() == (window.Counts{}) {
					return errors.New("reply without groups, though a call was denied")
				}
				var at int64
				at, then = w.Calms(&groups, span, law(c.capacity), c.cost)
				wait = max(at-now, 1)
			}
			v.Wait, v.Then = wait, then
		}
	}
	return nil
}

// groupSize is that of a group in the log of a window: three numbers of seven bytes.
const groupSize = 21

// number reads a number of the log.
func number(s string) uint64 {
	var b [8]byte
	copy(b[:], s[:7])
	return binary.LittleEndian.Uint64(b[:])
}
