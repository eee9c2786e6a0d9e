package lease

// waits is what an account knows of denied calls: whether they wait for room. A call that says that it has
// waited is believed at once. The others are believed to wait while they mostly keep to what they were told:
// none comes before that, and one comes soon after. Traffic does so one time in twelve at most, whatever its
// rate: see soonPart.
type waits struct {
	promised promise // when denied calls were told to come again
	previous promise // that of before
	judged   bool    // a call has come that tells whether promised is kept
	kept     int8    // promises kept of late, less those that were not

	cost  uint64 // of the call that was denied last, if it is believed to wait; or 0
	until int64  // by then it has come again
}

// promise is what a denied call was told: to come again at an instant. It is kept if the next call of all
// comes from then on, and before soon.
type promise struct{ at, soon int64 }

const (
	believed = 2 // promises kept
	mostKept = 4

	// soonPart is which part of the time until a promise, as a divisor, is soon after it. Of calls at random,
	// at a rate of r, the first comes within it with a probability of e^-rt - e^-r(t+t/4): at most 0.082.
	soonPart = 4
)

func (p *promise) holds(now int64) bool { return now >= p.at && now < p.soon }

// came notes that a call has come at m.Now.
func (w *waits) came(m *Moment, c *Call) {
	switch {
	case c.Mode == Peek:
	case c.Again:
		w.kept = mostKept
	case w.judged || w.previous.holds(m.Now):
	case w.promised.holds(m.Now):
		w.kept, w.judged = min(w.kept+1, mostKept), true
	default:
		w.kept, w.judged = max(w.kept-1, 0), true
	}
}

// denied notes that a call was denied at m.Now, and told to come again at an instant.
func (w *waits) denied(m *Moment, c *Call, at int64) {
	if c.Mode == Peek {
		return
	}
	if w.promised.at != at {
		soon := at + max((at-m.Now)/soonPart, m.Pace.Trip)
		w.previous, w.promised, w.judged = w.promised, promise{at, soon}, false
	}
	if w.kept >= believed || c.Again {
		w.cost, w.until = c.Cost, at+m.Pace.Near
	}
}
