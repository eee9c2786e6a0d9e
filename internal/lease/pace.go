package lease

// Pace is how fast keys settle. It does not change: a limiter that settles faster or slower has another one.
//
// Its invariant: a lease near the limit lives for two intervals and two trips. So it ends after the answer to
// the message that renews it, also if that message leaves an interval late.
type Pace struct {
	Interval int64  // of settling, near the limit
	Near     int64  // life of a lease near the limit
	Far      int64  // longest life of a lease far from it
	Brief    int64  // shortest life of one
	Spread   int64  // life of all leases at which renewing them is no load
	First    uint64 // part of the capacity, as a divisor, that an account wants while its demand is not known
	Trip     int64  // of a message and its answer, with some to spare
	Slack    int64  // from when an account is due until its answer is here
}

// FarLife is the life of leases far from the limit, in µs.
func (p *Pace) FarLife(t *Terms) int64 { return p.Far / t.Micro }

// NewPace returns the pace of a limiter whose exchanges take rtt, whose keys near their limit settle once in
// an interval, and which has so many keys in use.
func NewPace(t *Terms, rtt, interval int64, active int) *Pace {
	ms := 1000 * t.Micro
	trip := 2*rtt + ms/10
	p := &Pace{
		Interval: interval,
		Near:     2*(interval+trip) + ms,
		Trip:     trip,
		Slack:    interval + trip,
	}
	// A window; at least twenty seconds, unless that is more than twenty windows; at most a minute. Under
	// Suppressed, where others must know what was declined, half and a quarter of that. It is longer if keys
	// settle slowly, or if there are so many that renewing their leases would be a load.
	far := max(t.Window, min(20_000*ms, 20*t.Window))
	if t.Suppressed {
		far = max(t.Window/2, min(5000*ms, 10*t.Window))
	}
	p.Spread = min(int64(active)*ms*1000/renewals, 600_000*ms)
	p.Far = max(min(far, 60_000*ms), 4*p.Near, p.Spread)
	// However many leases there are, one that keeps much from others who need it lives for a window at most.
	p.Brief = max(t.Window/10, 4*p.Near, min(p.Spread, t.Window))
	// Few keys get much at first, so that a burst does not wait. Many get little, which they keep for long:
	// the callers must come back to each before its lease ends, or else each call waits, for ever.
	if p.First = coldPart; active > fewKeys {
		p.First = smallPart
	}
	return p
}

// renewals is about how many leases far from the limit a limiter renews in a second, at most.
const renewals = 4000

// fewKeys is how many keys have large leases at first.
const fewKeys = 1000

// Load decides how often keys near their limit settle, by what there was to do. The zero value is no load. If
// there is too much to do, the interval grows at each tick, up to a window; otherwise it shrinks to that of
// the terms. So the work is spread, and no call waits for it.
type Load struct{ interval float64 }

const (
	busy     = .25 // part of the time in exchanges, without the way, above which keys settle less often
	lapses   = 64  // one in so many active keys may have lost its lease meanwhile
	slowdown = 1.3 // for each tick
	recovery = .9
)

// Work is what a limiter did between two ticks.
type Work struct {
	Apart      int64 // time from tick to tick
	Exchanging int64 // time that answered exchanges took, all together
	Exchanges  int   // number of those
	RoundTrip  int64 // part of each that was spent on the way
	Ready      int   // keys that are still ready, although Redis can be asked
	Lapsed     int   // leases that ended because they were not renewed in time
	Active     int   // keys in use
}

// Tick returns how often keys near their limit settle from now on.
func (l *Load) Tick(t *Terms, w Work) (interval int64) {
	l.interval = max(l.interval, float64(t.Interval))
	lapsed := w.Lapsed
	if w.Exchanges == 0 { // Redis did not answer, so leases did not end because of the load
		lapsed = 0
	}
	computing := w.Exchanging - int64(w.Exchanges)*w.RoundTrip
	if w.Ready > 0 || lapsed > 8+w.Active/lapses || float64(computing) > busy*float64(w.Apart) {
		l.interval = min(l.interval*slowdown, float64(max(t.Window, t.Interval)))
	} else {
		l.interval = max(l.interval*recovery, float64(t.Interval))
	}
	return int64(l.interval)
}
