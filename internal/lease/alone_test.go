package lease_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/anywindow"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/proof/explore"
)

// Instances whose ledger answers now and then, some calls being decided from leases and some by the policy: what the policy admits is
// at most the capacity in any window, of all that share it, and so is what each instance admits. Where all have something to do and
// the policy decides alone, it admits that, whatever is heard in between: nothing counts twice, and nothing for longer than a window.
func TestAlone(t *testing.T) {
	seed := explore.Seed(t)
	for run := range uint64(explore.Runs(16, 3000)) {
		rng := rand.New(rand.NewPCG(seed, run))
		share := 1 + rng.Uint64N(4)
		w := newWorld(rng.Uint64(), int(share), 40+rng.Uint64N(400), false)
		loss, gap := []float64{0, .1, .5, .9, 1}[rng.IntN(5)], []int64{5_000, 60_000, 500_000, 2_500_000}[rng.IntN(4)]
		leases := rng.IntN(2) == 0
		name := fmt.Sprintf("seed %d, run %d: %d instances, C = %d, %v of the messages lost, one in %vs, leases %v", seed, run, share, w.capacity, loss, float64(gap)/1e6, leases)
		if explore.Long() && testing.Verbose() {
			t.Log(name)
		}
		var policy []anywindow.Admission
		each := make([][]anywindow.Admission, share)
		again := make([]int64, share)
		admit := func(i int) {
			a := w.accounts[i]
			var v lease.Verdict
			if leases && a.Fresh(w.now) {
				a.Absolute(&v, &a.groups, &w.terms, w.pace, w.capacity, w.now, 1, lease.Record)
			}
			alone := v.Ask || !leases || !a.Fresh(w.now)
			if alone {
				v = lease.Verdict{}
				a.Alone(&v, &a.groups, &w.terms, w.capacity, nil, share, w.now, 1, 0, true)
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
				ask := a.Ask(&w.terms, w.pace, w.now, 0, want)
				if rng.Float64() < loss/2 {
					a.Lost()
					continue
				}
				answer := w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask)
				if rng.Float64() < loss/2 {
					a.Lost()
					continue
				}
				a.Hear(&a.groups, &w.terms, w.pace, w.now, answer)
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
			var v lease.Verdict
			a.Alone(&v, &a.groups, &w.terms, w.capacity, nil, 1, w.now, 1, 0, true)
			at = append(at, w.now)
			if w.now/100_000 > (w.now-w.terms.Bucket)/100_000 { // it is asked now and then
				a.Ask(&w.terms, w.pace, w.now, 0, lease.Same)
				a.Lost()
			}
		}
		ask := a.Ask(&w.terms, w.pace, w.now, 0, lease.Same)
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
		t.Logf("%d windows: %d events in %d groups, %d%% of a window later than they were, and at most %d%%", windows, n, len(ask.Groups), 100*sum/n/w.terms.Window, 100*most/w.terms.Window)
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
			ask := x.Ask(&w.terms, w.pace, w.now, 0, want)
			x.Hear(&x.groups, &w.terms, w.pace, w.now, w.ledger.Settle(w.terms.Span, w.now, w.pace.FarLife(&w.terms), ask))
			x.due = x.Due(&x.groups, &w.terms, w.pace, w.now)
		}
		w.now = 1
		settle(a, lease.More)
		used := 0
		for w.call(0, 1).Allowed {
			used++
		}
		for range 100 - used {
			var v lease.Verdict
			b.Alone(&v, &b.groups, &w.terms, w.capacity, nil, 1, w.now, 1, 0, true)
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
			t.Errorf("settled %dms late: full from %dms to %dms, want until %dms", late/1000, full/1000, w.now/1000, want/1000)
		}
	}
}
