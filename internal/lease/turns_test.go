package lease_test

import (
	"testing"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// asker is a holder whose calls of cost 1 wait, and that uses what it is granted at once.
type asker struct {
	id, seq uint64
	used    uint64 // and not settled
	usedAt  int64
	settled uint64
	life    int64 // of the leases that it wants
}

const turnsWindow, turnsCapacity = 1_000_000, 160

// ask settles what the asker has used, and asks for more.
func (a *asker) ask(l *lease.Ledger, now int64, near uint64) lease.Answer {
	a.seq++
	m := lease.Message{
		Holder: a.id, Seq: a.seq, Capacity: turnsCapacity, Near: near, NearLife: a.life, Keeps: true,
		FarLeast: 1 << 50, Waiting: min(near, 1), Base: window.Counts{Admitted: a.settled},
	}
	if a.used > 0 {
		m.Groups = []lease.Group{{Age: now - a.usedAt, Counts: window.Counts{Admitted: a.used}}}
	}
	out := l.Settle(window.Span{Window: turnsWindow, Bucket: 1000}, now, turnsWindow, m)
	a.settled, a.used, a.usedAt = a.settled+a.used, out.Grant, now
	return out
}

// What is free goes to the holder that was granted the least so far, whoever asks first.
func TestTurnOfAnother(t *testing.T) {
	var l lease.Ledger
	a, b := &asker{id: 1, life: 10 * turnsWindow}, &asker{id: 2, life: 10 * turnsWindow}
	now := int64(1e15)
	full := lease.Message{Holder: 3, Seq: 1, Capacity: turnsCapacity, Keeps: true, FarLeast: 1 << 50}
	const apart = 6000
	for i := range int64(turnsCapacity) { // from now on one expires at a time
		age := turnsWindow - apart*(i+1)
		full.Groups = append(full.Groups, lease.Group{Age: age, Counts: window.Counts{Admitted: 1}})
	}
	span := window.Span{Window: turnsWindow, Bucket: 1000}
	if l.Settle(span, now, turnsWindow, full); a.ask(&l, now, 1).Grant+b.ask(&l, now, 1).Grant > 0 {
		t.Fatal("granted from a full window")
	}
	var by [2]uint64
	for range 40 {
		now += apart
		by[0] += a.ask(&l, now, 1).Grant
		by[1] += b.ask(&l, now, 1).Grant
	}
	if by != [2]uint64{20, 20} {
		t.Errorf("%d to the one that asks first, and %d to the other, of 40", by[0], by[1])
	}
}

// What is handed out in turns is a sixteenth of the capacity at once, and five quarters of the limit.
func TestTurnsHaveAPace(t *testing.T) {
	var l lease.Ledger
	a, b := &asker{id: 1, life: 10}, &asker{id: 2, life: 10 * turnsWindow}
	now := int64(1e15)
	a.ask(&l, now, turnsCapacity)
	b.ask(&l, now, 1)
	now += 3 * turnsWindow
	sum := uint64(0)
	for range 100 {
		now += turnsWindow / 1000
		sum += a.ask(&l, now, turnsCapacity).Grant
	}
	if most := uint64(turnsCapacity/16 + turnsCapacity/8 + 1); sum == 0 || sum > most {
		t.Errorf("%d handed out in a tenth of a window, want at most %d", sum, most)
	}
}

// A holder that falls silent wants nothing once its lease has ended, and one that says so, at once.
func TestSilentHolderHasNoTurn(t *testing.T) {
	for _, says := range []bool{false, true} {
		var l lease.Ledger
		a, b := &asker{id: 1, life: 10_000}, &asker{id: 2, life: 10_000}
		now := int64(1e15)
		a.ask(&l, now, turnsCapacity)
		out := b.ask(&l, now+1, 1)
		if out.Next < 0 {
			t.Fatalf("the second holder is alone: %+v", out)
		}
		if says {
			b.ask(&l, now+2, 0)
		} else {
			now += out.Next + 20_000
		}
		if out := a.ask(&l, now+3, 1); out.Next >= 0 {
			t.Errorf("says so: %v: there is a turn in %d µs, of one holder", says, out.Next)
		}
	}
}

// A holder that wanted something for long, and did not come for it, does not take all for as long when it
// comes: two fair shares, and from then on as much as the other.
func TestTurnsForgetWhatIsLongAgo(t *testing.T) {
	var l lease.Ledger
	a, b := &asker{id: 1, life: 100 * turnsWindow}, &asker{id: 2, life: 10_000}
	now := int64(1e15)
	a.ask(&l, now, 1)
	step := func() { now += turnsWindow / turnsCapacity }
	for range 20 * turnsCapacity {
		step()
		b.ask(&l, now, 1)
	}
	var by [2]uint64
	for range 3 * turnsCapacity {
		step()
		by[0] += a.ask(&l, now, 1).Grant
		by[1] += b.ask(&l, now, 1).Grant
	}
	if most := by[1] + turnsCapacity + 20; by[0] > most || by[1] == 0 {
		t.Errorf("%d to the one that was away, and %d to the other", by[0], by[1])
	}
}

// What a holder gives back does not count as granted to it.
func TestTurnsGivenBack(t *testing.T) {
	var l lease.Ledger
	a, b := &asker{id: 1, life: 10_000}, &asker{id: 2, life: 10_000}
	now := int64(1e15)
	a.ask(&l, now, 1)
	var by [2]uint64
	for i := range 4 * turnsCapacity {
		now += turnsWindow / turnsCapacity
		by[0] += a.ask(&l, now, 1).Grant
		if out := b.ask(&l, now, 1); i%2 == 0 {
			b.used = 0 // all of it goes back
		} else {
			by[1] += out.Grant
		}
	}
	if by[1] < by[0]*19/20 {
		t.Errorf("%d to the one, and %d to the other, beside what it has given back", by[0], by[1])
	}
}
