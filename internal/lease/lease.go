// Package lease is how instances share one limit without asking for every call: each leases a part of the
// window from a ledger, admits calls from that by itself, and settles now and then. It takes the time as an
// argument, holds no lock and does no I/O: the Hybrid provider drives it with Redis for a ledger, the
// simulator with a ledger in Go.
//
// # The bound
//
// The ledger of a key is a window of what was settled, and what its holders have on lease. A lease of some
// amount is granted at an instant g, for a life L:
//
//	(1) its holder admits from it until L after the instant at which it asked, which is not after g + L;
//	(2) until the holder settles it, the ledger charges all of it, up to g + L + W; what the holder says
//	    it still has is charged on, up to the latest end that it may have heard of;
//	(3) what the holder settles is recorded at the instant when it was admitted, or later; what it does
//	    not use is free at once;
//	(4) nothing is granted beyond capacity − settled − charged.
//
// Then no interval of length W holds more admissions than the capacity. Take any, and of the leases from
// which something was admitted in it, the one that was granted last, at g. Every other admission of the
// interval is younger than W at g, or later than g from a lease that was granted before. So at g it was
// counted, settled by (3) or charged by (2). And by (4) all of it, together with the new lease, was no more
// than the capacity.
//
// A reservation with an expiry is settled as if it had been admitted so long ago that it leaves the window at
// its expiry. Until then it is counted or charged as by (2) and (3); after that it is given back, and counts
// for nothing.
//
// Nothing in this needs the holder to be alive, or the clocks of holders to agree: ages and lives are
// durations. What it needs is that clocks run at the same speed, within a thousandth: by that a holder stops
// early, and takes what it settles for younger than it is.
//
// # Settling
//
// A holder says what it has admitted and declined since it was last heard, in groups with their ages, how
// much of its lease it still has, and how much it wants. All of this is state, not change: counts are totals
// since the beginning of the holder, of which the ledger knows how much it has recorded, and the lease is
// what the holder says it is. So a message whose answer is lost is not repeated; the next one says it all
// again. Messages have numbers, and one that comes after a later one is ignored.
//
// # Size and life of a lease
//
// A key that is far from its limit, with less than a quarter of the window used or on lease, gives leases
// that live long and are large, up to half of what is left of that quarter: its holders settle rarely.
// Otherwise a lease lives for two intervals of settling, and a holder gets what it needs for one, but no more
// than half of what is free as long as others hold something; a holder with little to do keeps that little
// for some intervals more, and does not settle before it is used up.
package lease

import "github.com/trypema/trypema/internal/window"

// Terms are what the accounts of one limiter have in common. Instants and durations are in one unit that the
// caller chooses; a nanosecond for the Hybrid provider.
type Terms struct {
	window.Span
	Micro      int64 // a microsecond, in which messages count
	Interval   int64 // of settling
	Suppressed bool  // the strategy; otherwise it is Absolute
}

// clockError is how much faster or slower than the ledger's the clock of a holder may run, as a divisor. A
// holder ends its leases early by that, takes its events for younger than its clock says, and keeps what it
// has not settled for longer than a window.
const clockError = 1000

// ownWindow returns how long a holder keeps an event that it has not settled: by then it has left the window
// whatever the clocks of holder and ledger are.
func (t *Terms) ownWindow() int64 { return t.Window + t.Window/clockError + t.Micro }

// age returns in µs how old the ledger takes events for that happened at an instant and are settled at now,
// if they were recorded so much earlier than that.
func (t *Terms) age(now, at, backdated int64) int64 {
	elapsed := max(0, now-at-backdated)
	return max(0, now-at-elapsed/clockError) / t.Micro
}

// Moment is an instant, and what an account needs to act at it.
type Moment struct {
	*Terms
	Groups *window.Groups // the memory of the account's windows
	Pace   *Pace
	Now    int64
}

// Call is a question to an account.
type Call struct {
	Cost     uint64
	Capacity uint64
	Law      window.Law // of Suppressed, for the capacity
	Dice     float64    // of Suppressed, from 0 to below 1
	Mode     Mode
}

// Mode says what a decision is for.
type Mode uint8

// The modes: Peek asks whether a call would be admitted, in the time that it takes to ask the ledger. Try
// asks whether the lease admits it. Record is Try, and records the outcome.
const (
	Peek Mode = iota
	Try
	Record
)

// Decision is the answer of an account to one call.
type Decision struct {
	window.Verdict
	AskLedger bool  // the account cannot decide: a message to the ledger must be answered first
	SettleAt  int64 // when the account should settle, if that is earlier than it is due; or 0
}

// bound is what the admissions of a window never pass for a call.
func (c *Call) bound(t *Terms) uint64 {
	if t.Suppressed {
		return c.Law.Hard
	}
	return c.Capacity
}

// maxCount is where counting ends, in a window and in a message, as in package redisproto.
const maxCount = 1 << 51
