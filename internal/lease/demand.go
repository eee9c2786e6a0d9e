package lease

import "math"

// demand is how much an account needs.
type demand struct {
	since       int64   // when the last answer came
	rate        float64 // cost per unit of time
	soon        uint64  // cost that mostly comes until a message is answered
	keptSince   int64   // since then nothing was settled
	nearUntil   int64   // until then the account wants no lease far from the limit: there was none
	growAt      int64   // a lease far from the limit may grow again then
	surplus     uint64  // a tight lease goes back in part if more than that of it is unused; or 0
	exhaustedAt int64   // when the budget first did not suffice since then, or 0
	halfFull    bool    // Suppressed: more than half of the capacity was observed, so others matter

	// Both since the last message.
	missedCost    uint64 // the largest cost of a call that found the budget too small and did not wait
	unchargedCost uint64 // admitted by a policy: the ledger does not know it when it grants
}

const (
	// coldPart is the part of the capacity, as a divisor, that an account wants far from the limit while its
	// demand is not known.
	coldPart = 16

	// A lease far from the limit is tight when others have some, too, and less than the tightPart of the
	// capacity is free, as a divisor. It then allows for how far the demand may drift in the driftPart of a
	// window, as a divisor.
	tightPart = 4
	driftPart = 10
	// slackPart is the part of what is free, as a divisor, that such a lease has beyond what the holder's
	// window holds, at most; but enough for an interval.
	slackPart = 16
	// holdoffPart is for which part of a window, as a divisor, an account wants no lease far from the limit
	// after it got none.
	holdoffPart = 4

	// smallPart is the part of the capacity, as a divisor, up to which a lease far from the limit is small.
	smallPart = 64

	// newLeast is what an account wants at least while its demand is not known.
	newLeast = 8

	// fewCalls is the least lease far from the limit that the account renews before it is used up.
	fewCalls = 4

	// surplusIntervals is for how many intervals after a message no surplus goes back.
	surplusIntervals = 2

	// growIntervals is for how many intervals a holder far from the limit does not ask for more after it got
	// nothing.
	growIntervals = 4

	// lookPart is the part of a window, as a divisor, in which an account settles once at most because a
	// call has a lower capacity than its lease.
	lookPart = 10

	// settlePart is the part of a window, as a divisor, after which an account settles what it has admitted
	// in turns, if its next turn does not come before that.
	settlePart = 4

	// surgeSigmas is by how many standard deviations more than expected is a surge.
	surgeSigmas = 2
	// memory is how many intervals the estimate of the demand looks back.
	memory = 32
)

// A slow account has less than slowDemand calls in an interval. Its lease near the limit lives for
// slowIntervals; for cheapIntervals if an interval needs only a small part of the capacity; for
// crowdedIntervals if others hold more than a part of the capacity, and more than there is free.
const (
	slowDemand       = .5
	slowIntervals    = 20
	cheapIntervals   = 60
	cheapPart        = 256 // as a divisor
	crowdedIntervals = 5
	crowdedPart      = 16 // as a divisor
	slowPart         = 16 // of what is free, as a divisor: what a slow account may have
)

// Miss notes that a call of cost n does not wait for what it needs. It may come again.
func (a *Account) Miss(n uint64) { a.demand.missedCost = max(a.demand.missedCost, n) }

// exhaust notes that the budget was not enough for a call.
func (d *demand) exhaust(now int64) {
	if d.exhaustedAt == 0 {
		d.exhaustedAt = now
	}
}

// estimate estimates the rate, from what was admitted since the last answer. Once the budget was not enough,
// only what was admitted until then tells of it.
func (d *demand) estimate(t *Terms, now int64, admitted uint64) {
	until := now
	if d.exhaustedAt > 0 {
		until = d.exhaustedAt
	}
	elapsed := float64(until - d.since)
	if elapsed <= 0 || admitted == 0 && d.exhaustedAt > 0 {
		return
	}
	rate := float64(admitted) / max(elapsed, float64(t.Interval)/2)
	// A surge is more than chance explains, and believed at once.
	if expected := d.rate * elapsed; float64(admitted) > expected+surgeSigmas*math.Sqrt(expected+1)+1 {
		d.rate = max(d.rate, rate)
		return
	}
	d.rate += (rate - d.rate) * min(1, elapsed/float64(memory*t.Interval))
}

// enough returns what is nearly always enough for a demand of so much on average; or, where little is free,
// the average.
func (a *Account) enough(mean float64) uint64 {
	sigmas := 2 + 2*min(1, 16*float64(a.knowledge.free)/float64(a.capacity+1))
	n := uint64(min(math.Ceil(mean+sigmas*math.Sqrt(mean)), float64(a.capacity)))
	return max(n, 1)
}

// slowLife returns how long a slow lease lives.
func (a *Account) slowLife(t *Terms) int64 {
	others := a.others
	switch {
	case others > a.capacity/crowdedPart && a.knowledge.free < others:
		return crowdedIntervals * t.Interval
	case a.interval <= a.capacity/cheapPart:
		return cheapIntervals * t.Interval
	}
	return slowIntervals * t.Interval
}

// wantsWindowLease sets what a message wants far from the limit, for a holder that keeps its own window: what
// that window will nearly always be below, but only a quarter of a window ahead. kept is what it holds now.
// What the lease has beyond that goes back.
func (a *Account) wantsWindowLease(m *Moment, out *Message, kept, need uint64) {
	d := &a.demand
	window, keptFor := float64(m.Window), float64(0)
	if kept > 0 {
		keptFor = float64(m.Now - d.keptSince)
	}
	// If others do not need what is free, what a lease has to spare costs nothing. So it is for what came in
	// the last window, if that is more than expected, and it is low while some calls can still be made.
	tight := a.tight()
	rate, sigmas, spare := d.rate, 2., uint64(0)
	if !tight {
		rate, sigmas, spare = max(rate, float64(kept)/window), 4, 1
	}
	// A low lease is renewed at the next tick, also if keys near their limit settle less often for now.
	next := rate * float64(m.Interval+m.Pace.Trip)
	if d.soon = uint64(min(next+sigmas*math.Sqrt(next), float64(a.capacity))); d.soon > 0 {
		d.soon += spare
	}
	roomy := a.roomy(m)
	if roomy {
		d.soon = max(d.soon, 2) // the next call may come before the answer
	}
	mean := max(float64(kept)+d.rate*max(0, window-keptFor), rate*window)
	target := a.above(mean, 3) + 1
	soon := rate * window
	want := min(target, kept+a.above(soon/4, 4)+1)
	if out.New = !a.knowledge.answered; out.New {
		want = max(want, a.capacity/m.Pace.First, min(a.capacity, newLeast))
	}
	if need > 0 { // the demand is more than it was taken for
		want = min(a.capacity, max(want, 2*kept+need))
	}
	least := min(target, kept+a.above(soon/16, 2))
	if have := a.budget + kept; have > want && roomy && 2*a.windowLife(m, have) > a.windowLife(m, want) {
		want, target = have, max(target, have)
	}
	d.surplus = 0
	if tight {
		slack := uint64(math.Ceil(3*math.Sqrt(2*d.rate*window/driftPart))) + 1
		slack = min(slack, max(a.interval, a.knowledge.free/slackPart))
		target = min(a.capacity, kept+slack)
		d.surplus = max(2*slack, a.capacity/smallPart) + 1
		want = max(target, min(want, kept+need))
		least = min(target, kept+max(a.interval, (target-min(target, kept))/2))
	}
	a.exchange.farTarget = want - min(want, kept)
	if out.FarLeast = least + need; m.Now < d.nearUntil || a.leavesRoom() {
		out.FarLeast = maxCount
	}
	if a.kind == far && a.knowledge.answered {
		a.budget = min(a.budget, max(target-min(target, kept), need))
	}
}

// tight reports whether a lease far from the limit must be what the holder's window holds and little more:
// others need the rest.
func (a *Account) tight() bool { return a.others > 0 && a.knowledge.free < a.capacity/tightPart }

// roomy reports whether others do not need what a lease far from the limit has beyond what the account needs,
// as far as it knows, and there are so many keys that renewing all leases at once is a load. Then a lease
// shrinks only if it lives twice as long for that: a key that rests may soon be called as often as before.
func (a *Account) roomy(m *Moment) bool {
	return m.Pace.Spread > m.Window && (!a.knowledge.answered || a.knowledge.free >= a.capacity/2)
}

// leavesRoom reports whether the account needs so little that it does not settle often near the limit either.
// There may be many such holders. What each has beyond its window is missing where hardly anything is left.
func (a *Account) leavesRoom() bool {
	return a.exchange.slow && a.others > 0 && a.knowledge.free < a.capacity/startPart/goOnPart
}

// above returns what a demand of so much on average exceeds by so many standard deviations.
func (a *Account) above(mean, sigmas float64) uint64 {
	return uint64(min(math.Ceil(mean+sigmas*math.Sqrt(mean)), float64(a.capacity)))
}
