package lease_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
)

// Instances whose ledger answers now and then, some calls being decided from leases and some by the policy:
// what the policy admits is at most the capacity in any window, of all that share it, and so is what each
// instance admits. Where all have something to do and the policy decides alone, it admits that, whatever is
// heard in between: nothing counts twice, and nothing for longer than a window.
func TestAlone(t *testing.T) {
	seed := explore.Seed(t)
	for run := range uint64(explore.Runs(16, 3000)) {
		rng := rand.New(rand.NewPCG(seed, run))
		share := 1 + rng.Uint64N(4)
		w := newWorld(rng.Uint64(), int(share), 40+rng.Uint64N(400), false)
		loss, gap := []float64{0, .1, .5, .9, 1}[rng.IntN(5)], []int64{5_000, 60_000, 500_000, 2_500_000}[rng.IntN(4)]
		leases := rng.IntN(2) == 0
		name := fmt.Sprintf("seed %d, run %d: %d instances, C = %d, %v of the messages lost, one in %vs, leases %v",
			seed, run, share, w.capacity, loss, float64(gap)/1e6, leases)
		if explore.Long() && testing.Verbose() {
			t.Log(name)
		}
		var policy []anywindow.Admission
		each := make([][]anywindow.Admission, share)
		again := make([]int64, share)
		admit := func(i int) {
			a := w.accounts[i]
			var v lease.Decision
			if leases && a.Fresh(w.now) {
				a.Decide(&v, w.at(a), w.question(1, lease.Record))
			}
			alone := v.AskLedger || !leases || !a.Fresh(w.now)
			if alone {
				v = lease.Decision{}
				a.DecideOffline(&v, w.at(a), w.question(1, lease.Record), share)
				if !v.Allowed && v.Wait <= 0 {
					t.Fatalf("%s: denied, with %d to wait", name, v.Wait)
				}
			}
			if !v.Allowed {
				return
			}
			at := time.UnixMicro(w.now)
			one := anywindow.Admission{From: at, To: at, Cost: 1}
			each[i] = append(each[i], one)
			if alone {
				policy = append(policy, one)
			}
		}
		const windows = 6
		for ; w.now < windows*w.terms.Window; w.now += 1000 {
			for i := range w.accounts {
				for rng.Float64() < 2*float64(w.capacity)/float64(share)/1000 {
					admit(i)
				}
				a := w.accounts[i]
				if w.now < again[i] {
					continue
				}
				again[i] = w.now + gap/2 + rng.Int64N(gap)
				want := lease.Same
				if leases && rng.IntN(2) == 0 {
					want = lease.More
				}
				ask := a.Message(w.at(a), 0, want)
				if rng.Float64() < loss/2 {
					a.Lost()
					continue
				}
				answer := w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask)
				if rng.Float64() < loss/2 {
					a.Lost()
					continue
				}
				a.Hear(w.at(a), answer)
			}
		}
		window := time.Duration(w.terms.Window) * time.Microsecond
		if most := anywindow.Most(policy, window); most > w.capacity {
			t.Fatalf("%s: the policy admitted %d in a window", name, most)
		}
		total := 0
		for i, log := range each {
			total += len(log)
			if most := anywindow.Most(log, window); most > w.capacity {
				t.Fatalf("%s: instance %d admitted %d in a window", name, i, most)
			}
		}
		if use := float64(total) / float64(w.capacity) / windows; !leases && use < .85 {
			t.Fatalf("%s: %.2f of the limit", name, use)
		}
	}
}

// What was done while the ledger did not answer is told with its age, in few groups, however long that was.
func TestSilence(t *testing.T) {
	for _, windows := range []int64{1, 2, 10} {
		w := newWorld(1, 1, 1_000_000, false)
		a := w.accounts[0]
		var at []int64
		for ; w.now < windows*w.terms.Window; w.now += w.terms.Bucket + 1 {
			var v lease.Decision
			a.DecideOffline(&v, w.at(a), w.question(1, lease.Record), 1)
			at = append(at, w.now)
			if w.now/100_000 > (w.now-w.terms.Bucket)/100_000 { // it is asked now and then
				a.Message(w.at(a), 0, lease.Same)
				a.Lost()
			}
		}
		ask := a.Message(w.at(a), 0, lease.Same)
		at = at[ask.Base.Admitted:]
		if len(ask.Groups) > 20 {
			t.Errorf("%d windows: a message has %d groups", windows, len(ask.Groups))
		}
		var sum, most int64
		n := int64(0)
		for _, g := range ask.Groups {
			for range g.Admitted {
				late := w.now - g.Age - at[0]
				sum, most, n, at = sum+late, max(most, late), n+1, at[1:]
				if late < 0 {
					t.Fatalf("%d windows: an event is told as older than it is", windows)
				}
			}
		}
		t.Logf("%d windows: %d events in %d groups, %d%% of a window later than they were, and at most %d%%",
			windows, n, len(ask.Groups), 100*sum/n/w.terms.Window, 100*most/w.terms.Window)
		if len(at) > 0 || n < 95 || sum/n > w.terms.Window/20 || most > w.terms.Window/5 {
			t.Errorf("%d windows: %d events are not told", windows, len(at))
		}
	}
}

// What another was late to settle counts from when it happened, and not from when it was heard of.
func TestHeardLate(t *testing.T) {
	for _, late := range []int64{0, 100_000, 500_000, 900_000} {
		w := newWorld(1, 2, 100, false)
		a, b := w.accounts[0], w.accounts[1]
		settle := func(x *account, want lease.Want) {
			ask := x.Message(w.at(x), 0, want)
			x.Hear(w.at(x), w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask))
			x.due = x.Due(w.at(x))
		}
		w.now = 1
		settle(a, lease.More)
		used := 0
		for w.call(0, 1).Allowed {
			used++
		}
		for range 100 - used {
			var v lease.Decision
			b.DecideOffline(&v, w.at(b), w.question(1, lease.Record), 1)
		}
		w.now += late
		settle(b, lease.Nothing) // it has nothing on lease
		settle(a, lease.More)
		full := w.now
		for admitted := false; !admitted && w.now < 3*w.terms.Window; w.now += 1000 {
			v := w.call(0, 1)
			admitted = v.Allowed
			if a.wait = nil; w.now >= a.due {
				settle(a, lease.More)
			}
		}
		if want := w.terms.Window + 50_000; w.now > want {
			t.Errorf("settled %dms late: full from %dms to %dms, want until %dms", late/1000, full/1000,
				w.now/1000, want/1000)
		}
	}
}

// A reservation that the policy admits counts until its expiry, or from then on what it is settled to, and
// what was there before counts beside it: for the policy, alone and as one of two, whatever is heard in
// between.
func TestReservationsAlone(t *testing.T) {
	const estimate = 20
	for _, c := range []struct {
		name   string
		share  uint64
		life   int64
		is     int // what it is settled to, or -1
		later  bool
		admits int
	}{
		{"expires", 1, 200_000, -1, false, 40},
		{"expires", 2, 200_000, -1, false, 20},
		{"stays", 1, 0, -1, false, 20},
		{"stays", 2, 0, -1, false, 0},
		{"committed above", 1, 0, 30, false, 10},
		{"committed below", 1, 0, 5, false, 35},
		{"committed below", 2, 0, 10, false, 10},
		{"refunded", 1, 0, 0, false, 40},
		{"expires, committed above", 1, 200_000, 30, false, 10},
		{"expires, committed below", 2, 200_000, 10, false, 10},
		{"expires, committed later", 1, 200_000, 30, true, 10},
		{"expires, committed later", 2, 200_000, 10, true, 10},
	} {
		for _, heard := range []bool{false, true} {
			name := fmt.Sprintf("%s, one of %d, heard %v", c.name, c.share, heard)
			w := newWorld(1, 1, 100, false)
			a := w.accounts[0]
			settle := func() {
				ask := a.Message(w.at(a), 0, lease.Same)
				a.Hear(w.at(a), w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask))
			}
			alone := func(n uint64, record bool) bool {
				var v lease.Decision
				mode := lease.Peek
				if record {
					mode = lease.Record
				}
				a.DecideOffline(&v, w.at(a), w.question(n, mode), c.share)
				return v.Allowed
			}
			w.now = 1
			settle()
			a.Admit(w.at(a), w.question(60, lease.Record))
			w.now = 50_000
			alone(1, false)
			w.now = 100_000
			h := a.Reserve(c.life)
			if !alone(estimate, true) {
				t.Fatalf("%s: the reservation is denied", name)
			}
			a.EndReserve()
			if room := (40 - c.share*estimate) / c.share; alone(room+1, false) || room > 0 && !alone(room, false) {
				t.Errorf("%s: until then, there is not room for %d", name, room)
			}
			switch w.now = 110_000; {
			case c.later:
				a.CommitLater(w.at(a), h, uint64(c.is))
			case c.is >= 0:
				settle()
				from, at, known := a.Locate(&w.terms, h)
				if !known {
					t.Fatalf("%s: the reservation is not settled", name)
				}
				removed, added := w.ledger.Commit(w.terms.Span, w.now, from, at, estimate, uint64(c.is))
				a.Commit(w.at(a), h,
					lease.Change{Was: estimate, Is: uint64(c.is), Removed: removed, Added: added})
			}
			w.now = 400_000
			if heard {
				settle()
			}
			w.now = 500_000
			admits := 0
			for alone(1, true) {
				admits++
			}
			if admits != c.admits {
				t.Errorf("%s: admits %d, want %d", name, admits, c.admits)
			}
		}
	}
}

// What was there when the policy began to decide counts also if the answer that comes then does not have it.
func TestAnswerOnceAlone(t *testing.T) {
	w := newWorld(1, 1, 100, false)
	a := w.accounts[0]
	w.now = 1
	answer := w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), a.Message(w.at(a), 0, lease.Same))
	w.now = 10_000
	a.Admit(w.at(a), w.question(60, lease.Record))
	admits := 0
	for w.now = 50_000; w.now < 500_000; w.now += 5_000 {
		var v lease.Decision
		a.DecideOffline(&v, w.at(a), w.question(1, lease.Record), 1)
		if v.Allowed {
			admits++
		}
		if w.now == 100_000 {
			a.Hear(w.at(a), answer)
		}
	}
	if admits != 40 {
		t.Errorf("admits %d, want 40", admits)
	}
}

// Reservations are told with their ages, too: none is told as younger by the time to its expiry, because it
// is told together with what was admitted next.
func TestSilenceAboutReservations(t *testing.T) {
	w := newWorld(1, 1, 1_000_000, false)
	a := w.accounts[0]
	var at []int64
	for w.now = 1; w.now < w.terms.Window; w.now += 50_000 {
		var v lease.Decision
		a.DecideOffline(&v, w.at(a), w.question(1, lease.Record), 1)
		a.Reserve(300_000)
		a.DecideOffline(&v, w.at(a), w.question(1, lease.Record), 1)
		a.EndReserve()
		at = append(at, w.now, w.now-700_000)
	}
	w.now = w.terms.Window
	at = slices.DeleteFunc(at, func(at int64) bool { return w.now-at >= w.terms.Window })
	slices.Sort(at)
	ask := a.Message(w.at(a), 0, lease.Same)
	slices.SortFunc(ask.Groups, func(a, b lease.Group) int { return cmp.Compare(b.Age, a.Age) })
	most := int64(0)
	for _, g := range ask.Groups {
		for range g.Admitted {
			if g.Age >= w.terms.Window {
				continue
			}
			if len(at) == 0 || w.now-g.Age < at[0] {
				t.Fatalf("an event is told as older than it is, or twice")
			}
			most, at = max(most, w.now-g.Age-at[0]), at[1:]
		}
	}
	if len(at) > 0 || most > w.terms.Window/5 {
		t.Errorf("%d events are not told, and some %d%% of a window later than they were", len(at),
			100*most/w.terms.Window)
	}
}
