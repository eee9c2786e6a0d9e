package lease

import (
	"testing"

	"github.com/trypema/trypema/internal/window"
)

// In turns a lease lives for a quarter of a window, which may be longer than any lease far from the limit.
// What others have on lease counts until a window after that, and the account knows what is charged to it.
func TestLongTurns(t *testing.T) {
	const minute = 60_000_000
	terms := &Terms{Span: window.Span{Window: 60 * minute, Bucket: minute / 2}, Micro: 1, Interval: 100_000}
	var groups window.Groups
	m := &Moment{Terms: terms, Groups: &groups, Pace: NewPace(terms, 1000, terms.Interval, 2), Now: 100 * minute}
	var ledger Ledger
	settle := func(a *Account, waits bool, want Want) Answer {
		if a.waits.cost = 0; waits {
			a.waits.cost, a.waits.until = 1, m.Now+terms.Window
		}
		a.capacity = 100
		out := ledger.Settle(terms.Span, m.Now, m.Pace.FarLife(terms), a.Message(m, 0, want))
		a.Hear(m, out)
		return out
	}
	one, other, full := &Account{Holder: 1}, &Account{Holder: 2}, &Account{Holder: 3}
	for range 96 { // so that the next turn is far away
		full.Admit(m, &Call{Cost: 1, Capacity: 100, Mode: Record})
	}
	settle(full, false, Nothing)
	settle(one, true, More)
	var lent Answer
	for i := 0; lent.Grant == 0 || lent.Life < 10*minute; i++ {
		if i == 100 {
			t.Fatalf("no lease in turns lives for long: %+v", lent)
		}
		m.Now += terms.Interval
		lent = settle(other, true, More)
		settle(one, true, More)
	}
	if m.Now += lent.Life + terms.Window - minute; one.othersLease(m, 2) < lent.Grant {
		t.Errorf("%d on lease to the other a minute before it must have left the window, want %d", one.othersLease(m, 2), lent.Grant)
	}
	if h := ledger.holders[other.Holder]; m.Now < h.until+terms.Window && !other.Lent(m.Now) {
		t.Errorf("the ledger charges %d, and the account does not know", h.amount)
	}
}

// A small lease lives for as long as any: without Redis, it counts until a window after that.
func TestSmallLeaseCountsForLong(t *testing.T) {
	terms := &Terms{Span: window.Span{Window: 1_000_000, Bucket: 10_000}, Micro: 1, Interval: 5000}
	var groups window.Groups
	m := &Moment{Terms: terms, Groups: &groups, Pace: NewPace(terms, 1000, terms.Interval, 10_000), Now: 1_000_000}
	var ledger Ledger
	settle := func(a *Account) Answer {
		a.capacity = 1000
		out := ledger.Settle(terms.Span, m.Now, m.Pace.FarLife(terms), a.Message(m, 1, More))
		a.Hear(m, out)
		return out
	}
	one, other := &Account{Holder: 1}, &Account{Holder: 2}
	settle(one)
	lent := settle(other)
	settle(one)
	if lent.Grant != 1000/smallPart || lent.Life != m.Pace.Far {
		t.Fatalf("%+v", lent)
	}
	end := m.Now + lent.Life + terms.Window
	if at := one.othersLeaseEnds(m, 2, lent.Grant-1); at < end {
		t.Errorf("less than the other has on lease counts after %d, want %d", at-m.Now, end-m.Now)
	}
	if m.Now = end - 1; one.othersLease(m, 2) < lent.Grant {
		t.Errorf("%d on lease to the other, just before its charge ends, want %d", one.othersLease(m, 2), lent.Grant)
	}
	if m.Now = one.knowledge.othersAdmit; one.othersLease(m, 2) > 0 {
		t.Errorf("%d on lease to the other for ever", one.othersLease(m, 2))
	}
}

// Without Redis, what another has on lease counts until a window after the longest life that it may have with
// so many keys, however large it is. It does not count for ever.
func TestLeaseOfManyKeysCountsForLong(t *testing.T) {
	const capacity = 1000
	terms := &Terms{Span: window.Span{Window: 1_000_000, Bucket: 10_000}, Micro: 1, Interval: 5000}
	for _, keys := range []int{1, 2000, 10_000, 100_000} {
		for _, held := range []uint64{16, 20, 50, 100, 500, capacity} {
			m := &Moment{Terms: terms, Groups: new(window.Groups), Pace: NewPace(terms, 1000, terms.Interval, keys), Now: 1}
			other := &Account{capacity: capacity}
			life := windowLife(held, capacity, terms.Window, m.Pace.Far, other.brief(m, held))
			a := &Account{lease: lease{ceiling: capacity, others: held}, demand: demand{since: m.Now}}
			a.knowledge.othersAdmit = m.Now + max(m.Pace.Far, m.longest()) + terms.Window
			end := m.Now + life + terms.Window
			if at := a.othersLeaseEnds(m, 2, held-1); at < end {
				t.Errorf("%d keys: less than %d counts after %d, want %d", keys, held, at, end)
			}
			if m.Now = end - 1; a.othersLease(m, 2) < held {
				t.Errorf("%d keys: %d on lease for %d, and %d counts at its end", keys, held, life, a.othersLease(m, 2))
			}
			if m.Now = a.knowledge.othersAdmit; a.othersLease(m, 2) > 0 {
				t.Errorf("%d keys: %d counts for ever", keys, held)
			}
		}
	}
}

// What an account knows of its next turn is void once the window was set, a call was committed below its
// estimate, or the clock has missed some time. No call is denied because of it, not even while the ledger is
// asked.
func TestNoTurnAfterTheWindowChanged(t *testing.T) {
	const second = 1_000_000
	terms := &Terms{Span: window.Span{Window: 10 * second, Bucket: second / 10}, Micro: 1, Interval: 50_000}
	for name, change := range map[string]func(*Account, *Moment){
		"Forget":   func(a *Account, m *Moment) { a.Forget(m.Groups, terms) },
		"EndLease": func(a *Account, m *Moment) { a.EndLease(m.Now) },
		"Commit": func(a *Account, m *Moment) {
			r := &Reserved{admittedAt: m.Now - second, recordedAt: m.Now - second, ledgerAt: 1}
			a.Commit(m, r, Change{Was: 2, Is: 1, Removed: 1})
		},
	} {
		var groups window.Groups
		m := &Moment{Terms: terms, Groups: &groups, Pace: NewPace(terms, 1000, terms.Interval, 1), Now: 20 * second}
		a := &Account{Holder: 1, capacity: 10}
		a.waits.cost, a.waits.until = 1, m.Now+terms.Window
		a.Message(m, 1, More)
		m.Now += 1000
		a.Hear(m, Answer{
			Life: 200_000, Next: 4 * second, Others: 1, Whole: true, Live: window.Counts{Admitted: 9},
			Groups: []Group{{Age: second, Counts: window.Counts{Admitted: 9}}},
		})
		call := &Call{Cost: 1, Capacity: 10, Mode: Record, Again: true}
		var d Decision
		if a.Decide(&d, m, call); d.AskLedger || d.Wait < 3*second {
			t.Fatalf("%s: before its turn: %+v", name, d)
		}
		change(a, m)
		for _, when := range []string{"", ", while it is asked"} {
			d = Decision{}
			if a.Decide(&d, m, call); !d.AskLedger {
				t.Errorf("%s%s: %+v, want the ledger to be asked", name, when, d)
			}
			if when == "" {
				a.Message(m, 1, More)
				m.Now += 1000
			}
		}
	}
}
