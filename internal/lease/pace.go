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

const (
	// MaxBatch is how many keys settle in one exchange: what the server does without a break for others.
	MaxBatch = 2048
	// MaxFlights is how many exchanges there are at a time for calls that wait.
	MaxFlights = 4
)

// NewPace returns the pace of a holder whose exchanges take so long, rtt, and whose keys near their limit settle so often,
// which is seldom where there are too many of them, and which has so many keys in use. Leases live long enough for that.
func NewPace(t *Terms, rtt, interval int64, active int) *Pace {
	ms := 1000 * t.Micro
	trip := 2*rtt + ms/10
	p := &Pace{
		Interval: interval,
		Near:     2*(interval+trip) + ms,
		Trip:     trip,
		Slack:    interval + trip,
	}
	// Far from the limit, half a window, but at least some seconds where the window is not very short, and at most a minute; all
	// that longer if settling is slow, or if there are so many keys that to renew their leases would be a load by itself.
	far := min(max(t.Window/2, min(5000*ms, 10*t.Window)), 60_000*ms)
	p.Far = max(far, 4*p.Near, min(int64(active)*ms*1000/renewals, 600_000*ms))
	return p
}

// renewals is how many leases far from the limit a holder may have to renew in a second, by and large.
const renewals = 4000

// Load decides how often keys settle near their limit, by what there was to do. The zero value is no load.
type Load struct{ interval float64 }

const (
	busy     = .25 // share of the time in exchanges beside that of the way, from which settling is slowed down
	lapses   = 64  // one in so many active keys may have lost its lease meanwhile
	slowdown = 1.3 // for each tick
	recovery = .9
)

// Tick takes what happened between two ticks: how long they were apart, how long exchanges took that were answered, all together,
// how many those were, and rtt, which each of them takes on the way; how many keys are ready still, how many leases have ended because they were
// not renewed in time, and how many keys are in use. It returns how often keys near their limit are to settle.
func (l *Load) Tick(t *Terms, apart, took int64, exchanges int, rtt int64, left, lapsed, active int) (interval int64) {
	l.interval = max(l.interval, float64(t.Interval))
	if exchanges == 0 { // nothing was answered, so it is not this that leases ended of
		lapsed = 0
	}
	took -= int64(exchanges) * rtt
	if left > 0 || lapsed > 8+active/lapses || float64(took) > busy*float64(apart) {
		l.interval = min(l.interval*slowdown, float64(max(t.Window, t.Interval)))
	} else {
		l.interval = max(l.interval*recovery, float64(t.Interval))
	}
	return int64(l.interval)
}
