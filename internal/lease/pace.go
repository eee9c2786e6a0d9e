package lease

// Pace is how fast settling is.
type Pace struct {
	Near, Far int64 // lives of leases
	Trip      int64 // of a message and its answer, with some to spare
	Slack     int64 // from when an account is due until its answer is here
}

// FarLife is the life of leases far from the limit, in µs.
func (p Pace) FarLife(t *Terms) int64 { return p.Far / t.Micro }

const (
	// MaxBatch is how many keys settle in one exchange: what the server does without a break for others.
	MaxBatch = 2048
	// MaxFlights is how many exchanges there are at a time for calls that wait.
	MaxFlights = 4
)

// NewPace returns the pace of a holder whose exchanges take so long, rtt, and whose keys wait for a cycle until they have
// their turn, because there are more of them than an exchange holds. Leases live long enough for that.
func NewPace(t *Terms, rtt, cycle int64) Pace {
	ms := 1000 * t.Micro
	trip := 2*rtt + ms/10
	p := Pace{
		Near:  2*(t.Interval+trip+cycle) + ms,
		Trip:  trip,
		Slack: t.Interval + trip + cycle,
	}
	// Far from the limit, half a window, but at least some seconds where the window is not very short, and at most a minute.
	far := min(max(t.Window/2, min(5000*ms, 10*t.Window)), 60_000*ms)
	p.Far = max(far, 2*p.Near, 4*cycle)
	return p
}

// Rest returns how long to rest after an exchange of so many keys, which began at an instant and took so long, with so many keys left that
// are ready: until the next multiple of the interval, or, if there is more to do than fits, as long as it took. cycle is how
// long it will take until all that are ready have had their turn.
func (t *Terms) Rest(began, took int64, keys, left int) (rest, cycle int64) {
	rest = max(t.Interval-began%t.Interval-took, 1000*t.Micro)
	if left > 0 && keys == MaxBatch {
		rest = max(rest, took)
		cycle = int64(left/MaxBatch+1) * (rest + took)
	}
	return rest, cycle
}
