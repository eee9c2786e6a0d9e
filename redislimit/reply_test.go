package redislimit_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/redislimit"
)

// FuzzReply: whatever a server answers, a call ends in time with an error or a decision that makes sense; it
// does not panic, and nothing is admitted that the answer did not admit.
func FuzzReply(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(model.Noise(seed, 200))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			half := len(data) / 2
			in := model.Tape{Data: data[:half]}
			liar := fakeredis.NewLiar(&model.Tape{Data: data[half:]})
			liar.Delay = time.Millisecond
			p, err := redislimit.New(liar, redislimit.Options{
				OnFailure:     model.Pick(&in, redislimit.FailClosed, redislimit.FailLocal),
				RetryInterval: time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}()
			for len(in.Data) > 0 {
				ask(t, &in, liar, p)
				time.Sleep(time.Duration(in.Next()) * 100 * time.Millisecond)
			}
		})
	})
}

// ask makes one call, of any kind.
func ask(t *testing.T, in *model.Tape, liar *fakeredis.Liar, p *redislimit.Provider) {
	t.Helper()
	ctx, began := context.Background(), time.Now()
	strategy := model.Pick(in, trypema.StrategyAbsolute, trypema.StrategySuppressed)
	l := p.Absolute()
	if strategy == trypema.StrategySuppressed {
		l = p.Suppressed()
	}
	several := fixture.Bind(t, p, strategy, trypema.Limit{Rate: 1, Window: 10 * time.Second},
		trypema.Limit{Rate: 1, Window: time.Minute})
	n, rate := model.Pick(in, uint64(1), 1, 2, 10, 11, math.MaxUint64), model.Pick(in, trypema.Rate(1), 100,
		trypema.Unlimited)
	var d trypema.Decision
	var err error
	switch in.Next() % 12 {
	case 0:
		_, err = l.Set(ctx, "k", model.Pick(in, trypema.Always(), trypema.Less(5)), uint64(in.Next()),
			trypema.KeepNewest)
	case 1:
		var u trypema.Usage
		u, err = l.Usage(ctx, "k", rate)
		if u.Declined > u.Total || u.Remaining > u.Limit || !(u.SuppressionFactor >= 0 && u.SuppressionFactor <= 1) {
			t.Fatalf("%+v", u)
		}
	case 2:
		err = l.Delete(ctx, "k")
	case 3:
		d, err = l.Peek(ctx, "k", rate, n)
	case 4:
		d, err = several.Peek(ctx, "k", n)
	case 5:
		d, err = several.AllowN(ctx, "k", n)
	case 6:
		var r *trypema.Reservation
		if r, err = several.Reserve(ctx, "k", n, 0); err == nil {
			d = r.Decision
			_ = r.Commit(ctx, uint64(in.Next())) // it may fail
		}
	case 7:
		var all []trypema.Usage
		if all, err = several.Usage(ctx, "k"); err == nil && len(all) != 2 {
			t.Fatalf("%+v", all)
		}
	default:
		d, err = l.AllowN(ctx, "k", rate, n)
		if err == nil && d.Allowed && !d.Fallback && !admits(liar.Told(), strategy) {
			t.Fatalf("%v: %+v, by %v", strategy, d, liar.Told())
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Fatalf("it took %v", took)
	}
	if err == nil && !fakeredis.Sane(d) {
		t.Fatalf("%+v", d)
	}
}

// admits reports whether a reply admits the first call that it is about.
func admits(reply []any, s trypema.Strategy) bool {
	i := map[trypema.Strategy]int{trypema.StrategyAbsolute: 1, trypema.StrategySuppressed: 4}[s]
	if len(reply) <= i {
		return false
	}
	n, _ := reply[i].(int64)
	return n > 0 && (s == trypema.StrategyAbsolute || n&1 == 1)
}

// A reply that cannot be right counts as none, so that the failure policy decides. But groups of a key that
// contradict each other are damage of the key: the call is decided, and told to wait for a window.
func TestRepliesThatCanNotBe(t *testing.T) {
	group := func(last, admitted byte) string {
		return string(append([]byte{last, 0, 0, 0, 0, 0, 0, admitted}, make([]byte, 13)...))
	}
	for _, test := range []struct {
		name       string
		suppressed bool
		reply      []any
		right      bool
		foreign    bool
	}{
		{"admitted", false, []any{int64(0), int64(1)}, true, false},
		{"denied for a while", false, []any{int64(10), int64(0), int64(7), int64(0)}, true, false},
		{"denied for no time", false, []any{int64(10), int64(0), int64(0), int64(0)}, false, false},
		{"denied for longer than a duration", false,
			[]any{int64(10), int64(0), int64(math.MaxInt64), int64(0)}, false, false},
		{"denied for less than never", false, []any{int64(10), int64(0), int64(-2), int64(0)}, false, false},
		{"more admitted than asked", false, []any{int64(0), int64(2)}, false, false},
		{"groups in order", true,
			[]any{int64(15), int64(0), int64(15), int64(15), int64(0), int64(9), int64(0), int64(0),
				group(3, 5) + group(8, 15)}, true, false},
		{"counts that run backwards", true,
			[]any{int64(15), int64(0), int64(15), int64(15), int64(0), int64(9), int64(0), int64(0),
				group(3, 15) + group(8, 5)}, false, true},
		{"half a group", true, []any{int64(15), int64(0), int64(15), int64(15), int64(0), int64(9), int64(0),
			int64(0), group(3, 5) + "half"}, false, true},
		{"a group of the future", true,
			[]any{int64(15), int64(0), int64(15), int64(15), int64(0), int64(9), int64(0), int64(0),
				group(3, 5) + group(10, 15)}, false, true},
		{"an instant before all", true,
			[]any{int64(15), int64(0), int64(15), int64(15), int64(0), int64(math.MinInt64), int64(0),
				int64(0), group(3, 15)}, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeredis.New()
			f.Fault = func(string) ([]any, error) { return test.reply, nil }
			p := open(t, f, redislimit.Options{OnFailure: redislimit.FailClosed})
			l := p.Absolute()
			if test.suppressed {
				l = p.Suppressed()
			}
			d, err := l.Allow(t.Context(), "k", 1)
			if err != nil || d.Fallback == (test.right || test.foreign) || !fakeredis.Sane(d) ||
				test.foreign && (d.Allowed || d.RetryAfter != 10*time.Second) {
				t.Errorf("%s: %+v, %v", test.name, d, err)
			}
		})
	}
}

// Local counts further than Redis, and what it has left is no more than Redis could have.
func TestFailLocalRemaining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Lose = func() bool { return true }
		p := open(t, f, redislimit.Options{})
		if d, err := p.Absolute().Allow(t.Context(), "k", trypema.Unlimited); err != nil || !d.Allowed ||
			!d.Fallback || d.Remaining > d.Limit {
			t.Errorf("%+v, %v", d, err)
		}
	})
}
