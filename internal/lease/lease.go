// Package lease is how instances share one limit without asking for every call: each leases a part of the window from a
// ledger, admits calls from that by itself, and settles now and then. It takes the time as an argument, holds no lock
// and does no I/O: the Hybrid provider drives it with Redis for a ledger, the simulator with a ledger in Go.
//
// # The bound
//
// The ledger of a key is a window of what was settled, and what its holders have on lease. A lease of some amount is
// granted at an instant g, for a life L:
//
//	(1) its holder admits from it until L after the instant at which it asked, which is not after g + L;
//	(2) until the holder settles it, the ledger charges all of it, up to g + L + W; what it says it still has is charged on,
//	    up to the latest end that it may have heard of;
//	(3) what the holder settles is recorded at the instant when it was admitted, or later; what it does not use is free
//	    at once;
//	(4) nothing is granted beyond capacity − settled − charged.
//
// Then no interval of length W holds more admissions than the capacity. Take any, and of the leases from which something
// was admitted in it, the one that was granted last, at g. Every other admission of the interval is younger than W at g,
// or later than g from a lease that was granted before. So at g it was counted, settled by (3) or charged by (2), and by
// (4) all of it together with the new lease was no more than the capacity.
//
// A reservation with an expiry is settled as if it had been admitted so long ago that it leaves the window at its expiry.
// Until then it is counted or charged as by (2) and (3); after that it is given back, and counts for nothing.
//
// Nothing in this needs the holder to be alive, or the clocks of holders to agree: ages and lives are durations. What it
// needs is that clocks run at the same speed, within a thousandth, by which a holder stops early.
//
// # Settling
//
// A holder says what it has admitted and declined since it was last heard, in groups with their ages, how much of its lease
// it still has, and how much it wants. All of this is state, not change: counts are totals since the beginning of the
// holder, of which the ledger knows how much it has recorded, and the lease is what the holder says it is. So a message
// whose answer is lost is not repeated; the next one says it all again. Messages have numbers, and one that comes after a
// later one is not heeded.
//
// # Size and life of a lease
//
// A key that is far from its limit, with less than a quarter of the window used or on lease, gives leases that live long and are
// large, up to half of what is left of that quarter: its holders settle rarely. Otherwise a lease lives for two intervals of
// settling, and a holder gets what it needs for one, but no more than half of what is free as long as others hold something; a
// holder with little to do keeps that little for some intervals more, and does not settle before it is used up.
package lease

import "github.com/trypema/trypema/internal/window"

// Ask is what a holder says about one key, and wants. Instants and durations are in µs.
type Ask struct {
	Holder   uint64 // not 0
	Seq      uint64 // number of this message
	Slot     uint64 // where the ledger keeps the holder, by its last answer
	Capacity uint64 // that leases must not pass: of a window, or the hard one

	Hold     uint64 // what the holder has of its lease, and goes on using until it is answered
	Near     uint64 // what it wants beyond that near the limit
	NearLife int64  // how long it wants that
	Far      uint64 // what it wants far from the limit, for the life that leases have there
	Need     uint64 // what calls cost that wait; Hold may be used up by then

	Base   window.Counts // settled before Groups, as far as the holder knows
	Groups []Group       // since then, the oldest first
	Whole  bool          // the answer is to contain all groups
}

// Group is a number of events: how old the last one is, and how much older the first.
type Group struct {
	Age, Span int64
	window.Counts
}

// Answer is what the ledger says.
type Answer struct {
	Stale bool // a later message of the holder was here before; nothing was done

	Grant  uint64 // beyond Hold; all of the lease may be used for Life from the instant of asking
	Life   int64
	Slot   uint64
	Live   window.Counts // what the window holds, that of the message included
	Others uint64        // on lease to others
	Before window.Counts // running counts, before and after what was in the message
	After  window.Counts
	Now    int64   // from which ages count, by the ledger's clock
	Whole  bool    // it was asked for Groups:
	Groups []Group // what the window holds
}

// farShare is the part of the capacity up to which a key is far from its limit, as a divisor.
const farShare = 4

// grant returns how much is leased to a holder, and for how long, when so much is taken: settled, on lease to others, or
// held by itself.
func (a *Ask) grant(taken, others uint64, farLife int64) (amount uint64, life int64) {
	free := a.Capacity - min(a.Capacity, taken)
	need := uint64(0)
	if a.Need <= free+a.Hold { // or they get nothing by it
		need = min(a.Need, free)
	}
	// Half of what is left until the limit is near, so that no lease brings it near by itself.
	far := a.Capacity / farShare
	far -= min(far, taken)
	if amount = max(min(a.Far, (far+1)/2), need); far > 0 && amount <= far {
		return amount, farLife
	}
	share := free
	if others > 0 {
		share = (free + 1) / 2
	}
	return max(min(a.Near, share), need), a.NearLife
}
