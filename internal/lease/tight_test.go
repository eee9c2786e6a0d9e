package lease

import (
	"testing"

	"github.com/trypema/trypema/internal/window"
)

// How much is left of a capacity when its key is near the limit.
func TestReserve(t *testing.T) {
	for _, test := range []struct{ capacity, reserve, goesOn uint64 }{
		{0, 0, 0}, {19, 0, 0}, {20, 1, 0}, {100, 5, 1},
		{1000, 50, 16}, {1020, 50, 16}, {6250, 50, 16}, {10_000, 80, 26},
	} {
		if r := reserve(test.capacity); r != test.reserve {
			t.Errorf("%d of %d in reserve, want %d", r, test.capacity, test.reserve)
		}
		for _, left := range []uint64{test.goesOn, test.goesOn + 1} {
			if test.capacity < 20 {
				continue
			}
			// The holder asks for nothing, and has all it needs: what it has may go on.
			m := Message{Capacity: test.capacity, Keeps: true, Hold: test.capacity / 2}
			_, _, far, _ := m.grant(room{taken: test.capacity - left, others: 1, window: 1000, farLife: 1000})
			if far != (left >= test.goesOn) {
				t.Errorf("with %d of %d left, far from the limit: %v", left, test.capacity, far)
			}
		}
	}
}

// tightAccount returns an account of two whose window lease has so much unused, and the moment.
func tightAccount(t *testing.T, capacity, mine, others uint64) (*Account, *Moment) {
	t.Helper()
	terms := &Terms{Span: window.Span{Window: 1_000_000, Bucket: 10_000}, Micro: 1, Interval: 5000}
	m := &Moment{Terms: terms, Groups: new(window.Groups), Pace: NewPace(terms, 500, terms.Interval, 1), Now: 1}
	a := &Account{Holder: 1, capacity: capacity}
	hear := func(far uint64) {
		a.Message(m, 0, More)
		a.exchange.farTarget = far
		a.Hear(m, Answer{
			Grant: far, Life: 1_100_000, Far: true, Next: -1, Others: others,
			Live: window.Counts{Admitted: a.knowledge.live.Admitted}, Whole: true,
		})
	}
	hear(mine)
	for range mine {
		var d Decision
		m.Now += 900_000 / int64(mine)
		if a.Decide(&d, m, &Call{Cost: 1, Capacity: capacity, Mode: Record}); !d.Allowed {
			t.Fatalf("%+v", d)
		}
	}
	hear(0)
	if !a.tight() || a.budget != 0 {
		t.Fatalf("%d unused, tight: %v", a.budget, a.tight())
	}
	return a, m
}

// When the load has moved to others, what leaves the holder's window goes back before the lease ends, a part
// at a time. In between the account says nothing.
func TestSurplusGoesBack(t *testing.T) {
	const capacity, mine = 10_000, 5000
	a, m := tightAccount(t, capacity, mine, 4500)
	a.leaseEnd += 10 * m.Window // but for the rule, it would say nothing
	said, held := 0, a.budget+a.unsettled.charged
	for end := m.Now + m.Window + 100_000; m.Now < end; m.Now += 1000 {
		var d Decision
		a.Decide(&d, m, &Call{Cost: 1, Capacity: capacity, Mode: Record})
		if !d.Allowed || d.SettleAt == 0 || d.SettleAt > m.Now {
			continue
		}
		if unused := a.budget; unused < capacity/smallPart {
			continue // it is low
		}
		out := a.Message(m, 0, More)
		if out.Hold >= held {
			t.Errorf("%d held, and then %d", held, out.Hold)
		}
		said, held = said+1, out.Hold
		a.Hear(m, Answer{Life: 10 * m.Window, Far: true, Next: -1, Others: 9500 - held})
	}
	if said < 10 || said > 40 || held > capacity/8 {
		t.Errorf("%d messages, and %d still held", said, held)
	}
}

// A holder with less than a call in two intervals has no window lease while hardly anything is left.
func TestSlowHolderLeavesRoom(t *testing.T) {
	for _, test := range []struct {
		free  uint64
		slow  bool
		needs bool // a window lease that it may get
	}{{100, true, false}, {100, false, true}, {200, true, true}} {
		a, m := tightAccount(t, 10_000, 50, 9950-test.free)
		a.knowledge.free = test.free
		if a.demand.rate = 1; test.slow {
			a.demand.rate = .4 * slowDemand / float64(m.Interval)
		}
		m.Now += 10 * m.Interval
		a.admitted = uint64(a.demand.rate * float64(10*m.Interval))
		out := a.Message(m, 0, More)
		if a.exchange.slow != test.slow || (out.FarLeast < maxCount) != test.needs {
			t.Errorf("%+v: slow: %v, and asks for %d at least", test, a.exchange.slow, out.FarLeast)
		}
	}
}

// A lease that others need lives briefly, however many keys there are.
func TestTightLeaseIsBrief(t *testing.T) {
	a, m := tightAccount(t, 10_000, 2000, 6000)
	m.Pace = NewPace(m.Terms, 500, m.Interval, 100_000)
	if out := a.Message(m, 0, More); !out.Keeps || out.Brief != m.Window {
		t.Errorf("others need the rest: %+v", out)
	}
	a.Hear(m, Answer{Life: m.Window, Far: true, Next: -1, Others: 1000})
	if out := a.Message(m, 0, More); a.tight() || out.Brief < 4*m.Window || out.Brief > 5*m.Window {
		t.Errorf("others do not need it: %+v", out)
	}
}
