package lease_test

import (
	"testing"

	"github.com/trypema/trypema/internal/lease"
)

// TestWindowOfKey: callers use all of the window of a key, whatever the clock of the instance is. They admit
// what the account would have, within a bucket, and the account knows of all of it afterwards.
func TestWindowOfKey(t *testing.T) {
	for _, clock := range []int64{-500, 0, 500} {
		var admitted [2]int
		for with, lends := range []bool{false, true} {
			w := newWorld(1, 1, 1000, false)
			w.pace.Far, w.pace.Brief, w.lends = 5*w.terms.Window, 5*w.terms.Window, lends
			a := w.accounts[0]
			a.fast = clock
			for w.now = 1000; w.now < 20*w.terms.Window; w.now += 500 {
				w.call(0, 1)
				w.settle(func() int64 { return 100 })
			}
			if most := w.most(); most > 1000 || most < 990 {
				t.Errorf("clock %d, lends %v: %d admitted in a window of at most 1000", clock, lends, most)
			}
			if part := float64(w.taken) / float64(len(w.admitted)); lends != (part > .5) {
				t.Errorf("clock %d, lends %v: the window of the key admitted %.2f of all", clock, lends, part)
			}
			admitted[with] = len(w.admitted)
			// A message that settles has all that the ledger has not, and the window holds.
			w.network, w.now = nil, w.now+10
			a.Lost()
			a.MustTell()
			answer := w.ledger.Settle(w.terms.Span, w.now, 1, a.Message(w.at(a), 0, lease.Nothing))
			recent := uint64(0)
			for _, c := range w.admitted {
				if c.To.UnixMicro() > w.now-w.terms.Window {
					recent += c.Cost
				}
			}
			if have := answer.Live.Admitted; have < recent || have > recent+60 {
				t.Errorf("clock %d, lends %v: the ledger has %d, and %d were admitted", clock, lends, have, recent)
			}
		}
		if least := admitted[0] * 98 / 100; admitted[1] < least {
			t.Errorf("clock %d: %d admitted with the window of the key, %d without", clock, admitted[1], admitted[0])
		}
	}
}

// TestWindowOfKeyInBursts: what was admitted at one instant leaves the window of a key not sooner than it is
// a window old, by whatever clock.
func TestWindowOfKeyInBursts(t *testing.T) {
	for _, clock := range []int64{-500, 0, 500} {
		w := newWorld(1, 1, 1000, false)
		w.pace.Far, w.pace.Brief, w.lends = 50*w.terms.Window, 50*w.terms.Window, true
		w.accounts[0].fast = clock
		settle := func() { w.settle(func() int64 { return 100 }) }
		for w.now = 1000; len(w.admitted) < 100 || w.now < 2*w.terms.Window; w.now += 500 {
			if len(w.admitted) < 100 {
				w.call(0, 1)
			}
			settle()
		}
		for range 5 {
			for w.accounts[0].Leased() < 900 { // it has the rest
				w.call(0, 1)
				w.now += 10
				settle()
			}
			for range 900 {
				w.call(0, 1)
			}
			for at := w.now; w.now < at+w.terms.Window+2000; w.now += 50 {
				if w.now > at+w.terms.Window-400 { // a fast clock shows a window by then
					for w.call(0, 1).Allowed {
					}
				}
				settle()
			}
			w.now += w.terms.Window
		}
		if most := w.most(); most > 1000 {
			t.Errorf("clock %d: %d admitted in a window of at most 1000", clock, most)
		}
		if w.taken < 1000 {
			t.Errorf("clock %d: the window of the key admitted %d", clock, w.taken)
		}
	}
}
