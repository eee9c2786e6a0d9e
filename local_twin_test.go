package trypema_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/internal/window"
)

// agreement drives Local through its public verbs, in virtual time, and the naive twin of each key beside it.
type agreement struct {
	*testing.T
	in         model.Tape
	o          trypema.Options
	suppressed bool
	local      *trypema.Local
	limiter    trypema.Limiter
	twins      map[string]model.Of
	start      time.Time
	dice       float64
}

func agree(t *testing.T, data []byte) {
	synctest.Test(t, func(t *testing.T) {
		a := agreement{T: t, in: model.Tape{Data: data}, twins: map[string]model.Of{}, start: time.Now()}
		a.o.Window = model.Pick(&a.in, 100*time.Millisecond, time.Second, 10*time.Second)
		a.o.Bucket = model.Pick(&a.in, time.Millisecond, a.o.Window/100, a.o.Window/7, a.o.Window)
		a.o.HardLimitFactor = model.Pick(&a.in, 1.5, 1, 1.1, 4)
		a.suppressed = model.Pick(&a.in, false, true)
		local := newLocal(t, a.o)
		a.local = local
		local.SetDice(func() float64 { return a.dice })
		a.limiter = local.Absolute()
		if a.suppressed {
			a.limiter = local.Suppressed()
		}
		for len(a.in.Data) > 0 {
			a.step()
		}
	})
}

func (a *agreement) now() int64 { return int64(time.Since(a.start)) }

func (a *agreement) span() window.Span {
	return window.Span{Window: int64(a.o.Window), Bucket: int64(a.o.Bucket)}
}

func (a *agreement) twin(key string) model.Of {
	if a.twins[key] == nil {
		a.twins[key], _ = model.OfLocal(a.span())
	}
	return a.twins[key]
}

// sleep moves the clock. A hot key does not know when events were added to it: it takes the instant at which
// it is looked at for that of the last. So it is looked at before or after, and the twin is told.
func (a *agreement) sleep(d time.Duration) {
	before := a.in.Next() < 128
	for range 2 {
		for key, twin := range a.twins {
			grid, ok := twin.(*model.Grid)
			if a.local.Added(a.suppressed, key) > 0 && (before || !ok) {
				if _, err := a.limiter.Usage(a.Context(), key, 1e6); err != nil {
					a.Fatal(err)
				}
				if ok {
					grid.Touch(a.now())
				}
			}
		}
		time.Sleep(d)
		before, d = true, 0
	}
}

func (a *agreement) step() {
	in := &a.in
	switch b := in.Next(); {
	case b < 128: // at once
	case b < 200:
		a.sleep(time.Duration(b) * a.o.Bucket / 250)
	case b < 230:
		a.sleep(model.Pick(in, a.o.Bucket-1, a.o.Bucket, a.o.Window-a.o.Bucket, a.o.Window-1, a.o.Window))
	default:
		a.sleep(time.Duration(b-200) * a.o.Window / 40)
	}
	key := model.Pick(in, "k", "k", "k", "another", "a key that is too long to be stored in an entry")
	capacity := model.Pick[uint64](in, 1, 5, 20, 20, 20, 100, 1e6, math.MaxInt64)
	n := model.Pick[uint64](in, 1, 1, 1, 2, 3, 7, capacity, capacity+1, math.MaxUint64)
	rate := trypema.Per(float64(capacity), a.o.Window)
	if capacity == math.MaxInt64 {
		rate = trypema.Unlimited
	}
	op := in.Next()
	switch {
	case op < 160:
		for range 1 + op%32 { // often enough on one key to make it hot
			a.take(key, rate, capacity, n, true)
		}
	case op < 190:
		a.take(key, rate, capacity, n, false)
	case op < 215:
		a.usage(key, rate, capacity)
	case op < 245:
		a.set(key, n)
	default:
		if err := a.limiter.Delete(a.Context(), key); err != nil {
			a.Fatal(err)
		}
		a.twin(key).Delete()
	}
}

func (a *agreement) take(key string, rate trypema.Rate, capacity, n uint64, record bool) {
	a.dice = float64(a.in.Next()) / 256
	verb := a.limiter.Peek
	if record {
		verb = a.limiter.AllowN
	}
	got, err := verb(a.Context(), key, rate, n)
	if err != nil {
		a.Fatal(err)
	}
	var v window.Verdict
	want := trypema.Decision{Outcome: trypema.OutcomeRejected}
	if a.suppressed {
		want.Outcome = trypema.OutcomeSuppressed
		v = a.twin(key).Suppressed(a.law(capacity), a.now(), n, a.dice, record)
	} else {
		v = a.twin(key).Absolute(capacity, a.now(), n, record)
	}
	if v.Allowed {
		want.Outcome = trypema.OutcomeAllowed
	}
	// While the key is hot, the last event is not known, and taken for one at the end of its cell.
	grid, ok := a.twin(key).(*model.Grid)
	if ok && a.suppressed && record && !v.Allowed && a.local.Added(true, key) > 0 {
		later := grid.Clone()
		later.Touch(math.MaxInt64)
		if after := later.Suppressed(a.law(capacity), a.now(), n, 0, false); after.Wait != window.Never {
			v.Wait, v.Then = after.Wait+later.Last()-a.now(), after.Then
		}
	}
	want.Allowed = v.Allowed
	want.Limit = capacity
	want.Remaining = capacity - min(v.Now, capacity)
	want.RetryAfter = time.Duration(v.Wait)
	if want.RetryAfter != trypema.Never {
		want.RemainingAfterWaiting = capacity - min(v.Then, capacity)
	}
	want.SuppressionFactor = v.Factor
	if got != want {
		a.Fatalf("%v, %+v, key %q, cost %d, record %v:\n got %+v\nwant %+v", a.now(), a.o, key, n, record,
			got, want)
	}
}

func (a *agreement) law(capacity uint64) *window.Law {
	_, span := model.OfLocal(a.span())
	return window.NewLaw(span, capacity, a.o.HardLimitFactor)
}

func (a *agreement) usage(key string, rate trypema.Rate, capacity uint64) {
	got, err := a.limiter.Usage(a.Context(), key, rate)
	if err != nil {
		a.Fatal(err)
	}
	c := a.twin(key).Counts(a.now())
	want := trypema.Usage{Total: c.Observed(), Declined: c.Declined, Limit: capacity,
		Remaining: capacity - min(capacity, c.Admitted)}
	if a.suppressed {
		want.SuppressionFactor = a.twin(key).Suppressed(a.law(capacity), a.now(), 1, 0, false).Factor
	}
	if got != want {
		a.Fatalf("%v, %+v, key %q: usage %+v, want %+v", a.now(), a.o, key, got, want)
	}
}

func (a *agreement) set(key string, total uint64) {
	twin := a.twin(key)
	live := twin.Counts(a.now()).Observed()
	when := model.Pick(&a.in, trypema.Always(), trypema.Equal(live), trypema.Less(live), trypema.Greater(3),
		trypema.NotEqual(1))
	keep := model.Pick(&a.in, trypema.Replace, trypema.KeepNewest, trypema.KeepOldest)
	if a.in.Next() < 32 {
		total = 0
	}
	got, err := a.limiter.Set(a.Context(), key, when, total, keep)
	if err != nil {
		a.Fatal(err)
	}
	want := trypema.SetResult{Matched: when.Holds(live), Previous: live, Current: live}
	if want.Matched {
		want.Current = total
		switch {
		case total == 0:
			twin.Delete()
		case keep == trypema.Replace || live == 0:
			twin.Replace(a.now(), total)
		case keep == trypema.KeepNewest:
			twin.Resize(a.now(), total, window.Newest)
		default:
			twin.Resize(a.now(), total, window.Oldest)
		}
	}
	if got != want {
		a.Fatalf("%v: Set(%q, %v, %d, %v) = %+v, want %+v", a.now(), key, when, total, keep, got, want)
	}
}

func FuzzLocal(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(model.Noise(seed, 400))
	}
	f.Fuzz(agree)
}

func TestLocalAgreesWithTwin(t *testing.T) {
	first := explore.Seed(t)
	for run := range uint64(explore.Runs(25, 20_000)) {
		agree(t, model.Noise(first+run, 2000))
	}
}
