// Package lease is how instances share one limit without asking for every call: each leases a part of the
// window from a ledger, admits calls from that by itself, and settles now and then. It takes the time as an
// argument, holds no lock and does no I/O: the Hybrid provider drives it with Redis for a ledger, the
// simulator with a ledger in Go.
//
// # The bound
//
// The ledger of a key is a window of what was settled, and what its holders have on lease. For each holder it
// charges an amount, until some instant. These hold at all times:
//
//	(1) what the ledger has settled in the last window, and what it charges to all holders, is together no more
//	    than the capacity: a grant sees to that, and what is settled leaves the charge by as much;
//	(2) what is settled is recorded when it was admitted, or later;
//	(3) what a holder has admitted in the last window and the ledger has not recorded, together with what it may
//	    still admit, is no more than its charge;
//	(4) a holder admits nothing after its lease, whose life counts from the instant at which it asked, and the
//	    charge goes on for a window after the end of the longest lease that the holder may have heard of.
//
// So what all holders have admitted in the last window, at any instant, is no more than the capacity; and
// every interval of the length of a window ends at one.
//
// (3) holds because of what a message says. Either it settles: then it has all that is not recorded, and what
// the holder may still admit, which is the new charge until it is answered. Or the holder keeps its own
// window: then it says how much that holds together with what the holder may still admit, and that is the new
// charge. What leaves that window, a window and a thousandth after it was admitted, may be admitted again. As
// long as it is not known whether the ledger has recorded something, that is not a part of the window that
// the holder keeps, and the next message settles.
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
// A key is far from its limit until a twentieth of the capacity is left; less, if the capacity is large: see
// reserve. Then a lease is a window lease: as much as the holder's own window will nearly always be below.
// The holder settles nothing; it renews its lease now and then, and has it grow and shrink, by messages
// without groups. The larger the lease, the shorter it lives, so that a holder that falls silent keeps no
// more than a sixteenth of what a window holds from others. With thousands of keys, to renew their leases is
// a load. So those that others do not need live longer, and may keep up to all that a window holds. Only a
// small one, up to a 64th of the capacity, lives for as long as any, and no longer for a holder that asks for
// a large one: the ledger charges one amount until one instant. Who is alone gets all that there is.
//
// A holder whose callers wait for each key comes back to a key late. If its lease has ended by then, every
// call waits, for ever. So a new key among many wants little, which it keeps for long; a small lease rests
// while nothing comes, and is not given back; and leases live longer the more keys there are.
//
// Near the limit a lease lives for two intervals of settling, and a holder gets what it needs for one, but no
// more than half of what is free as long as others hold something. A holder with little to do keeps that
// little for some intervals more, and does not settle before it is used up.
//
// While calls of several holders wait for room, what is free goes to the holders in turns: see turns.go.
//
// Under Suppressed others must know what was declined, so only a holder without others keeps a window, of up
// to the hard capacity. It settles all of that once the ledger knows another holder, which by then has
// declined too little: no more is admitted than the hard capacity. With others, a key is far from its limit
// until a quarter is taken. Leases are large there, up to half of what is left of that quarter, and live for
// seconds. Without a lease, what a holder knows suffices to decline a call, and never to admit it.
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

// Kept returns for how long the windows of keys keep an event: see Account.Lend.
func (t *Terms) Kept() int64 { return t.ownWindow() }

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
	Again    bool // it was denied before, and has waited for room
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
