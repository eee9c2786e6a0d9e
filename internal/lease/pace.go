package lease

// Pace is how fast settling is.
type Pace struct {
	Interval  int64 // of settling, near the limit
	Near, Far int64 // lives of leases
	Trip      int64 // of a message and its answer, with some to spare
	Slack     int64 // from when an account is due until its answer is here
}

// FarLife is the life of leases far from the limit, in µs.
func (p *Pace) FarLife(t *Terms) int64 { return p.Far / t.Micro }

// NewPace returns the pace of a holder whose exchanges take so long, rtt, and whose keys near their limit
// settle so often, which is seldom where there are too many of them, and which has so many keys in use.
// Leases live long enough for that.
func NewPace(t *Terms, rtt, interval int64, active int) *Pace {
	ms := 1000 * t.Micro
	trip := 2*rtt + ms/10
	p := &Pace{
		Interval: interval,
		Near:     2*(interval+trip) + ms,
		Trip:     trip,
		Slack:    interval + trip,
	}
	// Far from the limit, half a window, but at least some seconds where the window is not very short, and at
	// most a minute; all that longer if settling is slow, or if there are so many keys that to renew their
	// leases would be a load by itself.
	far := min(max(t.Window/2, min(5000*ms, 10*t.Window)), 60_000*ms)
	p.Far = max(far, 4*p.Near, min(int64(active)*ms*1000/renewals, 600_000*ms))
	return p
}

// renewals is how many leases far from the limit a holder may have to renew in a second, by and large.
const renewals = 4000

// Load decides how often keys settle near their limit, by what there was to do. The zero value is no load.
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
