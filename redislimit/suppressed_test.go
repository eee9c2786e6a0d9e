package redislimit_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// groups is the log of a window as suppressed.lua sends it: last event, admitted and declined, running.
func groups(numbers ...uint64) string {
	var log strings.Builder
	for _, n := range numbers {
		log.Write(binary.LittleEndian.AppendUint64(nil, n)[:7])
	}
	return log.String()
}

// What the replies of suppressed.lua mean, at a capacity of 100 in 10 s. That it sends them is tested on real
// servers.
func TestSuppressedReplies(t *testing.T) {
	const now, second = 1_800_000_000_000_000, 1_000_000
	for _, test := range []struct {
		name  string
		n     uint64
		peek  bool
		reply []any
		want  trypema.Decision // with Limit
	}{
		{
			"the first call", 3, false, []any{int64(0), int64(0), int64(0), int64(0), int64(1), int64(0)},
			trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Remaining: 97, RemainingAfterWaiting: 97},
		},
		{
			"at the hard capacity, in two groups", 1, false,
			[]any{
				int64(150), int64(0), int64(50), int64(50), int64(0),
				int64(now), int64(7), int64(0), groups(now-5*second, 107, 0, now, 157, 1),
			},
			// In five seconds the first group goes, and with it the load.
			trypema.Decision{Outcome: trypema.OutcomeSuppressed, SuppressionFactor: 1,
				RetryAfter: 5 * time.Second, RemainingAfterWaiting: 50},
		},
		{
			"more than the capacity", 101, false,
			[]any{int64(0), int64(0), int64(0), int64(0), int64(0), int64(now), int64(0), int64(0),
				groups(now, 0, 101)},
			trypema.Decision{Outcome: trypema.OutcomeSuppressed, Remaining: 100, SuppressionFactor: 1,
				RetryAfter: trypema.Never},
		},
		{
			"a peek at an empty window", 1, true, []any{int64(0), int64(0), int64(0), int64(0), int64(0)},
			trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Remaining: 100,
				RemainingAfterWaiting: 100},
		},
		{
			"a peek at a full one", 1, true,
			[]any{int64(150), int64(0), int64(150), int64(150), int64(now), int64(0), int64(0),
				groups(now, 150, 0)},
			trypema.Decision{Outcome: trypema.OutcomeSuppressed, SuppressionFactor: 1,
				RetryAfter: 10 * time.Second, RemainingAfterWaiting: 100},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fakeredis.New()
			f.Fault = func(string) ([]any, error) { return test.reply, nil }
			l := open(t, f, redislimit.Options{OnFailure: redislimit.FailClosed}).Suppressed()
			verb := l.AllowN
			if test.peek {
				verb = l.Peek
			}
			test.want.Limit = 100
			if d, err := verb(t.Context(), "k", perSecond10, test.n); err != nil || d != test.want {
				t.Errorf("%+v, %v\nwant %+v", d, err, test.want)
			}
			for i := range test.reply { // and no part of it will do
				test.reply = test.reply[:len(test.reply)-1]
				if d, err := verb(t.Context(), "k", perSecond10, test.n); err != nil || d.Allowed || !d.Fallback {
					if test.n <= 100 || i != 3 { // who never passes needs no groups
						t.Errorf("of %d elements: %+v, %v", len(test.reply), d, err)
					}
				}
			}
		})
	}
}

func TestSuppressedRepliesOfTheWrongShape(t *testing.T) {
	start := []any{int64(150), int64(0), int64(150), int64(150), int64(0)}
	for _, end := range [][]any{
		{}, {int64(1), int64(0), int64(0), int64(1)},
		{int64(1), int64(-1), int64(0), groups(1, 1, 0)}, {int64(1), int64(0), int64(0), groups(1, 150, 0), int64(1)},
	} {
		f := fakeredis.New()
		f.Fault = func(string) ([]any, error) { return append(start[:5:5], end...), nil }
		l := open(t, f, redislimit.Options{OnFailure: redislimit.FailClosed}).Suppressed()
		if d, err := l.Allow(t.Context(), "k", perSecond10); err != nil || d.Allowed || !d.Fallback {
			t.Errorf("%v: %+v, %v", end, d, err)
		}
	}
}
