package demo

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/cli/store"
)

const (
	absolute   = "absolute"
	suppressed = "suppressed"

	laneWorkers = 48  // requests to a limiter that are in flight at most
	laneQueue   = 256 // and that wait for a worker; what is due beyond is skipped
	lastAnswers = 2   // that are shown
)

// lane is one of the limiters, under load: a path that it guards on each of its servers, the clients that ask
// for the path, and the accounts of both sides.
type lane struct {
	provider, strategy string
	rate               *atomic.Uint64 // bits of the limit per second
	due                chan int       // who is to make a call
	idle               atomic.Bool    // no calls are made

	mu      sync.Mutex // guards the fields below
	meter   *meter     // of the limiter as it is since it was made
	bound   uint64     // the most that any window may hold, of those that the meter judges
	factor  float64    // at the last decision
	room    uint64
	recent  latency.Histogram // since the last sample
	clients []asked           // since the load or the limit has changed
	answers []answer
	counted counted // at the last sample
	before  counted // of limiters that are no more, and what was skipped
}

// counted is what a lane has seen.
type counted struct{ admitted, declined, fallback, failed, skipped uint64 }

func (c counted) minus(o counted) counted {
	return counted{c.admitted - o.admitted, c.declined - o.declined, c.fallback - o.fallback,
		c.failed - o.failed, c.skipped - o.skipped}
}

func (c counted) plus(o counted) counted {
	return counted{c.admitted + o.admitted, c.declined + o.declined, c.fallback + o.fallback,
		c.failed + o.failed, c.skipped + o.skipped}
}

// asked is how much a client has asked for, and got.
type asked struct {
	Client   string `json:"client"`
	Asked    uint64 `json:"asked"`
	Admitted uint64 `json:"admitted"`
}

// answer is what a client was told.
type answer struct {
	At       string `json:"at"`
	Client   string `json:"client"`
	Instance int    `json:"instance"`
	Status   string `json:"status"`
	Headers  string `json:"headers"`
}

func newLane(provider, strategy string, rate *atomic.Uint64) *lane {
	l := &lane{provider: provider, strategy: strategy, rate: rate, due: make(chan int, laneQueue),
		recent: latency.NewHistogram()}
	l.forget()
	return l
}

// id is the path of the lane without its slash, and its name in the page.
func (l *lane) id() string {
	if l.isPeer() {
		return l.provider
	}
	return l.provider + "-" + l.strategy
}

// title is its name for people.
func (l *lane) title() string {
	name := title(strings.ReplaceAll(l.provider, "-", " "))
	if l.isPeer() {
		return name
	}
	return name + " " + title(l.strategy)
}

// isPeer reports whether the limiter is one that is shown for comparison.
func (l *lane) isPeer() bool { return l.strategy == "" }

func (l *lane) remote() bool { return l.provider == store.Redis || l.provider == store.Hybrid }

// forget empties the accounts of the clients. The caller holds mu, or is the only one.
func (l *lane) forget() {
	l.clients = make([]asked, len(callers))
	for i, name := range callers {
		l.clients[i].Client = name
	}
}

// renew begins with the meter of a new limiter.
func (l *lane) renew(k knobs) {
	m := newMeter(k.options().Window, k.Limit*k.Load)
	m.apart = l.remote()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before = l.countLocked()
	l.meter, l.bound = m, k.bound(l.strategy)
	l.forget()
}

// judgeAnew is for another limit or load, which is in force.
func (l *lane) judgeAnew(k knobs) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meter.judgeAnew()
	l.bound = k.bound(l.strategy)
	l.forget()
}

// guard is the handler of the path: it asks the limiter, keeps account, and answers.
func (l *lane) guard(limiter decider, window time.Duration) (http.Handler, error) {
	return limited(window, func(r *http.Request) (trypema.Decision, error) {
		l.mu.Lock()
		m := l.meter
		l.mu.Unlock()
		d, took, err := m.ask(r.Context(), limiter, "everyone", func() trypema.Rate {
			return trypema.Rate(math.Float64frombits(l.rate.Load()))
		})
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.factor, l.room = d.SuppressionFactor, d.Remaining
			l.recent.Record(took)
		}
		return d, err
	})
}

// offer hands a call of a client to a worker, or counts it as skipped.
func (l *lane) offer(who int) {
	select {
	case l.due <- who:
	default:
		l.mu.Lock()
		l.before.skipped++
		l.mu.Unlock()
	}
}

// drain forgets the calls that are due.
func (l *lane) drain() {
	for {
		select {
		case <-l.due:
		default:
			return
		}
	}
}

// work makes calls until ctx ends.
func (l *lane) work(ctx context.Context, s *stage, client *http.Client) {
	for {
		select {
		case <-ctx.Done():
			return
		case who := <-l.due:
			l.call(s, client, who)
		}
	}
}

// call makes one. The providers and servers do not change while it is under way.
func (l *lane) call(s *stage, client *http.Client, who int) {
	s.calling.enter()
	defer s.calling.leave()
	if s.fleet == nil { // it could not be made anew, and the show is over
		return
	}
	url, instance := s.fleet.url(l)
	status, header, err := get(client, url)
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &l.clients[who]
	a.Asked++
	if err == nil && status == http.StatusOK {
		a.Admitted++
	}
	shown := answer{At: time.Now().Format("15:04:05.000"), Client: a.Client, Instance: instance,
		Status: http.StatusText(status)}
	if err != nil {
		shown.Status = err.Error()
	} else {
		shown.Status = strconv.Itoa(status) + " " + shown.Status
	}
	var headers []string
	for _, name := range []string{"RateLimit-Policy", "RateLimit", "Retry-After"} {
		if v := header.Get(name); v != "" {
			headers = append(headers, name+": "+v)
		}
	}
	shown.Headers = strings.Join(headers, "  ")
	l.answers = append(l.answers, shown)
	l.answers = l.answers[max(0, len(l.answers)-lastAnswers):]
}

// countLocked is all that the lane has seen.
func (l *lane) countLocked() counted {
	if l.meter == nil {
		return l.before
	}
	return l.countedLocked(l.meter.read())
}

// countedLocked is countLocked where the meter has been read.
func (l *lane) countedLocked(m reading) counted {
	return l.before.plus(counted{m.total.admitted, m.total.declined, m.fallback, m.failed, 0})
}

// sample is what happened in a lane between two ticks.
type sample struct {
	counted
	took   time.Duration
	factor float64
	room   float64 // of the capacity
	p50    time.Duration
	p99    time.Duration
}

// moment is what held for all lanes as a sample was taken.
type moment struct {
	limit   float64 // per second
	outage  bool    // of Redis
	resting bool    // without anybody who looks, no calls are made
	since   time.Time
}

// sample is what happened since the last one, so long ago.
func (l *lane) sample(took time.Duration, k knobs) sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.countLocked()
	p := l.recent.Percentiles()
	l.recent.Reset()
	l.counted, now = now, now.minus(l.counted)
	return sample{
		counted: now,
		took:    took,
		factor:  l.factor,
		room:    min(1, float64(l.room)/float64(k.bound(absolute))),
		p50:     time.Duration(p.P50),
		p99:     time.Duration(p.P99),
	}
}
