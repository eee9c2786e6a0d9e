package redislimit

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// suppressed is the strategy Suppressed: suppressed.lua. The dice are thrown here; those of Peek by dice, a
// number in [0, 1).
func suppressed(span window.Span, factor float64, dice func() float64) *strategy {
	law := lawOf(span, factor)
	hardFactor := strconv.FormatFloat(factor, 'g', -1, 64)
	return &strategy{
		letter: "s",
		denial: trypema.OutcomeSuppressed,
		decide: operation{
			dice:    true,
			windows: windowsOf("s", span),
			script:  func(s *redisproto.Scripts) redisproto.Script { return s.Suppressed },
			args: func(batches []*batch) []string {
				var thrown []byte
				for _, b := range batches {
					thrown = append(thrown, b.dice...)
				}
				args := append(redisproto.SpanArgs(span), hardFactor, string(thrown))
				for _, run := range batches[0].runs {
					args = run.append(args)
				}
				return args
			},
			read: func(r *redisproto.Reader, runs []run, calls []*call) error {
				return readSuppressed(r, span, law, dice, runs, calls)
			},
		},
	}
}

// lawOf returns the law at a capacity.
func lawOf(span window.Span, factor float64) func(capacity uint64) *window.Law {
	return func(capacity uint64) *window.Law {
		l := window.NewLaw(span, capacity, factor)
		l.Hard = min(l.Hard, redisproto.Most)
		return l
	}
}

// diceOf returns three bytes for each call that is recorded.
func diceOf(calls []*call) (dice []byte) {
	for _, c := range calls {
		if c.record {
			dice = append(dice, byte(c.dice>>16), byte(c.dice>>8), byte(c.dice))
		}
	}
	return dice
}

// readSuppressed takes the answers to the calls, as suppressed.lua gives them. The law of a run depends on
// its capacity, and only calls that are not recorded throw dice. calls is nil when their callers are gone.
func readSuppressed(
	r *redisproto.Reader, span window.Span, law func(uint64) *window.Law, dice func() float64, runs []run,
	calls []*call,
) error {
	rest := calls
	for _, run := range runs {
		counts := window.Counts{Admitted: r.Count(redisproto.Most), Declined: r.Count(redisproto.Most)}
		recent, joined := r.Count(2*redisproto.Most), r.Count(2*redisproto.Most)
		l := law(run.capacity)
		var bits uint64
		for i := range run.n {
			if run.record && i%32 == 0 {
				bits = r.Count(1<<32 - 1)
			}
			if calls == nil || r.Err() != nil {
				continue
			}
			c := rest[i]
			c.counts = counts
			v := &c.verdict
			v.Factor = 1
			if run.cost <= run.capacity {
				v.Factor = l.Factor(counts, recent, run.cost)
			}
			v.Now = counts.Admitted
			if !run.record {
				v.Allowed = dice() >= v.Factor
				v.Then = v.Now
				continue
			}
			v.Allowed = bits>>(i%32)&1 == 1
			n := run.cost
			if v.Allowed {
				counts.Admitted += n
				v.Now, v.Then = counts.Admitted, counts.Admitted
			} else {
				n = min(n, redisproto.Most-min(redisproto.Most, counts.Observed()))
				counts.Declined += n
				v.Factor = max(v.Factor, 1e-9) // in case Lua rounds differently from Go
			}
			joined += n
			recent = joined
		}
		if calls != nil {
			rest = rest[run.n:]
		}
	}
	return readWaits(r, span, law, runs, calls)
}

// readWaits gives denied calls their time to wait, by the groups at the end of the reply. These are the
// groups after the whole batch, because each call of the batch counts for the others.
func readWaits(
	r *redisproto.Reader, span window.Span, law func(uint64) *window.Law, runs []run, calls []*call,
) error {
	var groups window.Groups
	var w window.Window
	var odd error
	now := int64(r.Count(1 << 53))
	if now != 0 {
		before := window.Counts{Admitted: r.Count(4 * redisproto.Most), Declined: r.Count(4 * redisproto.Most)}
		log := r.Text()
		if len(log)%groupSize != 0 {
			odd = fmt.Errorf("NOTAWINDOW the key holds groups of %d bytes in all: %w", len(log), redisproto.ErrAnswered)
		}
		// A bucket of 1 keeps the groups apart, as they are in Redis.
		apart := window.Span{Window: span.Window, Bucket: 1}
		for ; len(log) >= groupSize && calls != nil; log = log[groupSize:] {
			last := int64(number(log))
			upto := window.Counts{Admitted: number(log[7:]), Declined: number(log[14:])}
			if last > now || upto.Admitted < before.Admitted || upto.Declined < before.Declined {
				odd = fmt.Errorf("NOTAWINDOW the key holds groups that are not in order: %w", redisproto.ErrAnswered)
				break
			}
			w.Record(&groups, apart, w.Advance(&groups, apart, last), window.Counts{
				Admitted: upto.Admitted - before.Admitted,
				Declined: upto.Declined - before.Declined,
			})
			before = upto
		}
	}
	if r.Err() != nil || calls == nil {
		return r.Err()
	}
	for _, run := range runs {
		var wait int64
		var then uint64
		for _, c := range calls[:run.n] {
			v := &c.verdict
			switch {
			case v.Allowed:
				continue
			case run.cost > run.capacity:
				v.Wait = window.Never
				continue
			case wait == 0 && odd == nil && w.Counts() == (window.Counts{}):
				odd = fmt.Errorf("NOTAWINDOW the key holds no groups, and a call was denied: %w", redisproto.ErrAnswered)
				fallthrough
			case odd != nil:
				v.Wait, v.Then = span.Window, 0
				continue
			case wait == 0:
				var at int64
				at, then = w.Calms(&groups, span, law(run.capacity), run.cost)
				wait = max(at-now, 1)
			}
			v.Wait, v.Then = wait, then
		}
		calls = calls[run.n:]
	}
	return odd
}

// groupSize is that of a group in the log of a window: three numbers of seven bytes.
const groupSize = 21

// number reads a number of the log.
func number(s string) uint64 {
	var b [8]byte
	copy(b[:], s[:7])
	return binary.LittleEndian.Uint64(b[:])
}
