package demo

import (
	"cmp"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/proof/anywindow"
)

const (
	// A gap between two calls is the machine's, not chance, when it is this long and this many calls were due
	// in it: by chance that happens once in e²⁰ gaps.
	stallLength = 50 * time.Millisecond
	stallCalls  = 20
)

// meter is the account of one route: what was decided, when, and how long it took. It is kept where the
// decisions are made, in the server. Its size depends on the window, not on how long it runs.
type meter struct {
	window time.Duration
	asked  float64 // calls per second that the clients try to make
	start  time.Time

	// Where a limit that a server keeps is judged apart from what was decided without it, which the server
	// does not know.
	apart bool

	mu      sync.Mutex // guards the fields below
	judged  judged
	fullest *anywindow.Counter
	latency latency.Histogram
	account

	last         time.Duration // the latest decision
	lastAdmitted time.Duration
	refused      uint64 // since then
	longestPause time.Duration
}

// account is what a meter has counted.
type account struct {
	total     tally
	settled   tally  // after the first window
	fallback  uint64 // decided without the server that should have
	stalled   time.Duration
	failed    uint64
	firstFail error
}

// judged is since when the limit and the load are what they are, and how much was offered before.
type judged struct {
	since   time.Duration
	offered uint64
}

// tally counts decisions.
type tally struct{ admitted, declined uint64 }

func (t tally) offered() uint64 { return t.admitted + t.declined }

func (t *tally) add(allowed bool) {
	if allowed {
		t.admitted++
	} else {
		t.declined++
	}
}

func newMeter(window time.Duration, asked float64) *meter {
	return &meter{
		window:  window,
		asked:   asked,
		start:   time.Now(),
		fullest: anywindow.NewCounter(window),
		latency: latency.NewHistogram(),
	}
}

func (m *meter) clock() time.Duration { return time.Since(m.start) }

// decided records a decision that was made after the instant before and took so long. The clock is read again
// under the lock, so that the order of the records is the order of their instants, as the Counter of windows
// wants it; this makes the interval in which the decision fell a little wider, never wrong. That holds for a
// decision by a server too.
func (m *meter) decided(before, took time.Duration, allowed, fallback bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	m.latency.Record(took)
	m.total.add(allowed)
	if fallback {
		m.fallback++
	}
	if now >= m.window {
		m.settled.add(allowed)
		gap := now - max(m.last, m.window)
		if gap > stallLength && gap.Seconds()*m.asked > stallCalls {
			m.stalled += gap
		}
	}
	m.last = now
	if !allowed {
		m.refused++
		return
	}
	if before >= m.judged.since && (!fallback || !m.apart) {
		m.fullest.Add(before, now, 1)
	}
	m.longestPause = m.pauseAt(now)
	m.lastAdmitted, m.refused = now, 0
}

// judgeAnew forgets the fullest window and the longest pause, after the limit or the load has changed. Who
// calls has the new limit in force: what began before this may have been decided by the old one, and is in no
// window from now on.
func (m *meter) judgeAnew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	m.judged = judged{now, m.total.offered()}
	m.fullest = anywindow.NewCounter(m.window)
	m.longestPause, m.lastAdmitted, m.refused = 0, now, 0
}

// pauseAt is the longest pause if the one that runs now ended at now. A gap is a pause only if callers were
// turned away in it, at no less than half the pace of the whole run: where nobody called, the limiter did not
// pause.
func (m *meter) pauseAt(now time.Duration) time.Duration {
	gap := now - m.lastAdmitted
	expected := float64(m.total.offered()-m.judged.offered) * gap.Seconds() / (now - m.judged.since).Seconds()
	if m.refused > 0 && float64(m.refused) >= expected/2 {
		return max(m.longestPause, gap)
	}
	return m.longestPause
}

// errored records a call that the limiter answered with an error, so that it was neither admitted nor
// declined.
func (m *meter) errored(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed++
	m.firstFail = cmp.Or(m.firstFail, err)
}

// reading is what a meter shows at one instant.
type reading struct {
	account
	elapsed      time.Duration
	settledTook  time.Duration
	longestPause time.Duration
	fullest      uint64
	latency      latency.Percentiles
}

func (m *meter) read() reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return reading{
		account:      m.account,
		elapsed:      m.clock(),
		settledTook:  max(0, m.last-m.window),
		longestPause: m.pauseAt(m.last),
		fullest:      m.fullest.Max(),
		latency:      m.latency.Percentiles(),
	}
}
