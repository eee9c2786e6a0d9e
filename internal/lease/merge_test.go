package lease_test

import (
	"testing"

	"github.com/trypema/trypema/internal/lease"
)

// TestMergeKeepsTheOrder: groups that the ledger may have stay in their order, or it would skip others in
// their place, which would then leave the window too early.
func TestMergeKeepsTheOrder(t *testing.T) {
	w := newWorld(1, 1, 1000, false)
	w.pace.Brief = w.pace.Far
	a := w.accounts[0]
	w.now = 1000
	w.call(0, 1)
	ask := a.Message(w.at(a), 200, lease.More)
	a.Hear(w.at(a), w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask))
	take := func(n uint64) {
		t.Helper()
		var v lease.Decision
		a.Decide(&v, w.at(a), w.question(n, lease.Record))
		if !v.Allowed {
			t.Fatal(w.now, v)
		}
	}
	for range 20 {
		w.now += 20_000
		take(2)
	}
	w.now += 1000
	a.MustTell()
	ask = a.Message(w.at(a), 0, lease.More)
	w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask)
	a.Lost()
	w.now += 19_000
	b := w.now
	take(2) // which must count for a window
	w.now += 1000
	a.Reserve(w.terms.Window - (w.now - 41_100)) // leaves with the second
	take(2)
	a.EndReserve()
	w.now += 1000
	a.Message(w.at(a), 0, lease.More) // never arrives
	a.Lost()
	w.now += 3000
	take(2)
	w.now += 1000
	ask = a.Message(w.at(a), 0, lease.More)
	a.Hear(w.at(a), w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask))
	live, _ := w.ledger.Live(w.terms.Span, b+w.terms.Window-1000)
	if live.Admitted < 4 {
		t.Errorf("%d live a millisecond before the call of %d is a window old, want it and the last one", live.Admitted, b)
	}
}
