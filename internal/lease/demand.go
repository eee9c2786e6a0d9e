package lease

import "math"

// demand is how much an account needs.
type demand struct {
	since       int64   // when the last answer came
	rate        float64 // cost per unit of time
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
