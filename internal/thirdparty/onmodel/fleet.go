package onmodel

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/internal/window"
)

// Fleet is a run of some instances of the Hybrid provider, which share a server in their own clock, through
// anything that may happen to them. Its judges know what calls were told, and when, and nothing else: each
// event counts in a window for certain until it is a window old, and for no longer than the product says
// where it is approximate. What has to hold exactly, and what nearly:
//
//   - The bound is exact: by anywindow, over all that any instance admitted.
//   - The ledger is exact: it holds all events that are certainly younger than a window, and none that is older than that by more than what
//     it may be late. Of one instance that is a bucket: its groups, which settle in parts, may be others in the ledger. Where several instances
//     use a key, an event that is settled late is taken for as old as the next group of others, which may be as young as its settlement.
//   - Usage is what the ledger holds, with all that its instance knows. What others have not settled it need not see.
//   - A lone instance decides by a window of its own, which is that of the naive twin: it never admits what the twin would not, and what it
//     says of an admitted call, Remaining and the suppression factor, is what the twin says. It may notice late that something has expired, by a
//     bucket, two intervals and two round trips: so long it may deny what the twin would admit, or say that less remains, and so late may
//     RetryAfter be, but never early. (With buckets of up to a quarter of the window. With longer ones it takes over the groups of the ledger.)
type Fleet struct {
	Setup
	Figures *Figures

	redis    *fakeredis.Server
	began    time.Time
	capacity map[time.Duration]uint64 // of the windows
	members  []*member
	dead     []*member
	named    int
	records  map[place]*record
	promises []*promise

	mu       sync.Mutex // guards the below, and records, while calls are made at once
	history  []line
	wrong    []string
	troubles []trouble
	forgets  []time.Time // when the server lost its keys
	rates    []change
	apart    bool // something has happened to one instance only
	away     bool // the server is
	stranded bool // an instance has left something on lease
}

// Setup is what instances have in common.
type Setup struct {
	Options  hybridlimit.Options
	Strategy trypema.Strategy
	Calm     bool // there is one instance, and nothing happens to it
	Mixed    bool // each has a bucket, an interval and a factor of its own, at most those of Options
}

// Figures are what was done in all runs.
type Figures struct {
	Runs, Steps, Calls, Allowed, Denied, Fallbacks, Errors, Settled int
	Faults                                                          map[string]int
	// keys judged, and how many of those held as much as they may
	Bounds, Full int
	// compared, and ledgers of which no event was in doubt
	Usages, Ledgers, Exact int
	// how often the whole capacity was there after a pause
	Whole  int
	Twins  int
	Events uint64
	Share  float64
}

// line is one of the history: of a key, or of all of them.
type line struct{ key, text string }

// member is an instance, with the line between it and Redis.
type member struct {
	*hybridlimit.Provider
	*wire
	name  string
	asked time.Time // when it was called first, since there was trouble
}

// NewFleet returns a fleet of n.
func NewFleet(t *rapid.T, s Setup, n int, figures *Figures) *Fleet {
	var err error
	if s.Options, err = s.Options.WithDefaults(); err != nil {
		t.Fatal(err)
	}
	f := &Fleet{
		Setup: s, Figures: figures, redis: fakeredis.New(), began: time.Now(),
		records: map[place]*record{}, capacity: map[time.Duration]uint64{},
	}
	for _, w := range f.windows() {
		f.capacity[w] = f.drawCapacity(t)
	}
	for range n {
		f.join(t)
	}
	return f
}

func (f *Fleet) windows() []time.Duration {
	w := f.Options.Window
	return []time.Duration{w / 4, w, 3 * w}
}

func (f *Fleet) drawCapacity(t *rapid.T) uint64 {
	return rapid.SampledFrom([]uint64{5, 1, 20, 100, 1000, 1e6}).Draw(t, "capacity")
}

func (f *Fleet) suppressed() bool { return f.Strategy == trypema.StrategySuppressed }

// join adds an instance.
func (f *Fleet) join(t *rapid.T) {
	w := &wire{Server: f.redis}
	f.named++
	m := &member{wire: w, name: fmt.Sprint("instance ", f.named)}
	o := f.Options
	if f.Mixed {
		upTo := func(most time.Duration, label string) time.Duration {
			third := max(time.Millisecond, (most / 3).Truncate(time.Microsecond))
			return rapid.SampledFrom([]time.Duration{most, time.Millisecond, third}).Draw(t, label)
		}
		o.Bucket, o.SyncInterval = upTo(o.Bucket, "bucket"), upTo(o.SyncInterval, "interval")
		factors := []float64{o.HardLimitFactor, 1, (1 + o.HardLimitFactor) / 2}
		o.HardLimitFactor = rapid.SampledFrom(factors).Draw(t, "hard limit factor")
	}
	var err error
	if m.Provider, err = hybridlimit.New(w, o); err != nil {
		t.Fatal(err)
	}
	f.members = append(f.members, m)
}

// Run makes a run of random length.
func (f *Fleet) Run(t *rapid.T) {
	actions := map[string]func(*rapid.T){
		"wait": f.wait, "wait a little": f.waitLittle, "wait for an edge": f.waitForEdge,
		"allow": f.one, "allow again": f.one, "allow many": f.many, "several": f.several, "several again": f.several,
		"usage": f.usage, "flush": f.flush, "set": f.set, "reserve": f.reserve, "reserve again": f.reserve, "commit": f.commit, "commit again": f.commit, "commit once more": f.commit,
		"rest": f.rest, "rate": f.rate, "": f.check,
	}
	if !f.Calm {
		actions["at once"] = f.atOnce
		actions["take away"] = func(*rapid.T) { f.takeAway() }
		actions["restore"] = func(*rapid.T) { f.restore() }
		actions["wires"], actions["wires again"] = f.wires, f.wires
		actions["forget"], actions["replace"], actions["die"] = f.forget, f.replace, f.die
	}
	t.Repeat(actions)
	f.finish(t)
	f.Figures.Runs++
}

// check ends each step.
func (f *Fleet) check(t *rapid.T) {
	f.Figures.Steps++
	f.expire()
	for _, p := range f.places() {
		f.checkBound(p)
	}
	for _, m := range f.members {
		if m.storm.Load() {
			f.fault("%s does not stop asking", m.name)
		}
	}
	f.report(t)
}

// report fails with what is wrong, and the history that matters.
func (f *Fleet) report(t *rapid.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.wrong) == 0 {
		return
	}
	var all strings.Builder
	for _, l := range f.history {
		if l.key == "" || strings.Contains(f.wrong[0], fmt.Sprintf("%q", l.key)) {
			all.WriteString("\n\t" + l.text)
		}
	}
	if len(f.wrong) > 3 {
		f.wrong = append(f.wrong[:3], "...")
	}
	t.Fatalf("%s\n%+v, window %v, bucket %v, interval %v, timeout %v, capacities %v:%s", strings.Join(f.wrong, "\n"), f.Strategy,
		f.Options.Window, f.Options.Bucket, f.Options.SyncInterval, f.Options.Timeout, f.capacity, all.String())
}

// note adds to the history, under the lock.
func (f *Fleet) note(key, format string, args ...any) {
	f.history = append(f.history,
		line{key, fmt.Sprintf("%-12v", time.Since(f.began)) + fmt.Sprintf(format, args...)})
}

// fault says that something is wrong, under the lock.
func (f *Fleet) fault(format string, args ...any) {
	f.wrong = append(f.wrong, fmt.Sprintf("at %v: ", time.Since(f.began))+fmt.Sprintf(format, args...))
}

func (f *Fleet) places() []place {
	return slices.SortedFunc(maps.Keys(f.records), func(a, b place) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
}

func (f *Fleet) record(p place) *record {
	r := f.records[p]
	if r == nil {
		r = &record{}
		if f.Calm {
			r.twin = newTwin(f.span(p.window))
		}
		f.records[p] = r
	}
	return r
}

func (f *Fleet) span(w time.Duration) window.Span {
	return window.Span{Window: int64(w), Bucket: int64(f.Options.BucketOf(w))}
}

func (f *Fleet) now() int64 { return int64(time.Since(f.began)) }

func (f *Fleet) drawMember(t *rapid.T) *member {
	return f.members[rapid.IntRange(0, len(f.members)-1).Draw(t, "instance")]
}

func (f *Fleet) multi(m *member, windows []time.Duration) *trypema.Bound {
	var limits []trypema.Limit
	for _, w := range windows {
		limits = append(limits, trypema.Limit{Rate: rateOf(f.capacity[w], w), Window: w})
	}
	l, err := m.Bind(f.Strategy, limits...)
	if err != nil {
		panic(err) // they are good
	}
	return l
}

func (f *Fleet) limiter(m *member) trypema.Limiter {
	return rig.Strategy(m, f.suppressed())
}

// leave takes note that an instance has ended. It says whether the ledger has all of it.
func (f *Fleet) leave(m *member, settled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = slices.DeleteFunc(f.members, func(o *member) bool { return o == m })
	f.promises = slices.DeleteFunc(f.promises, func(p *promise) bool { return p.by == m })
	f.dead = append(f.dead, m)
	if settled {
		return
	}
	f.stranded = true
	for _, r := range f.records {
		r.lost(m)
	}
}

// replace closes an instance, and another one takes its place.
func (f *Fleet) replace(t *rapid.T) {
	f.seldom(t)
	m := f.drawMember(t)
	f.expire()
	f.leave(m, f.settle("Close", m, m.Close))
	f.join(t)
	f.happens("closed: "+m.name, func() {})
}

// die ends an instance as it is.
func (f *Fleet) die(t *rapid.T) {
	f.seldom(t)
	m := f.drawMember(t)
	m.set(state{cut: true})
	f.leave(m, false)
	f.join(t)
	f.happens("dies: "+m.name, func() {})
}

// seldom skips most of what would keep other things from being seen.
func (f *Fleet) seldom(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "not now") > 0 {
		t.Skip("not now")
	}
}

// rest lets everything end: then the whole capacity is there for any instance.
func (f *Fleet) rest(t *rapid.T) {
	m, key := f.drawMember(t), rapid.SampledFrom(keys[:3]).Draw(t, "key")
	w := rapid.SampledFrom(f.windows()).Draw(t, "window")
	f.heal()
	longest := 3 * f.Options.Window
	f.sleep(longest + f.Options.BucketOf(longest) + f.life(longest))
	c := call{by: m, key: key, windows: []time.Duration{w}, cost: f.capacity[w]}
	if f.suppressed() { // from cold, so much is not declined
		c.cost = max(c.cost*4/5, 1)
		if f.Options.OnEmpty == hybridlimit.EmptyReject { // the first is, and tells of a load
			c.cost = 1
		}
	}
	tries := 4
	if f.Options.OnEmpty == hybridlimit.EmptyReject { // until it is known that Redis is not far away any more
		tries = 40
	}
	for range tries {
		d := f.do(c).decision
		switch {
		case d.Allowed:
			f.Figures.Whole++
			return
		case d.Fallback: // it had not looked
			f.sleep(f.recovery())
		default:
			f.sleep(min(d.RetryAfter, f.life(w)))
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault("%s: %d of %q in %v are not admitted, long after the last use", m.name, c.cost, key, w)
}

// finish closes all instances, and compares the ledgers with what was recorded.
func (f *Fleet) finish(t *rapid.T) {
	f.heal()
	for _, m := range slices.Clone(f.members) {
		f.expire()
		f.leave(m, f.settle("Close", m, m.Close))
	}
	f.check(t)
	letter := map[bool]string{false: "ha", true: "hs"}[f.suppressed()]
	for _, p := range f.places() {
		f.mu.Lock()
		admitted, declined := f.counts(p, nil, time.Now(), time.Now())
		live, leased := f.redis.Live(redisproto.NewNames(f.Options.Prefix, letter, p.window).Of(p.key),
			p.window, f.Options.BucketOf(p.window))
		if live.Admitted < admitted.low || live.Admitted > admitted.high || live.Declined < declined.low ||
			live.Declined > declined.high {
			f.fault("the ledger of %q, %v: %+v, want %+v admitted and %+v declined", p.key, p.window, live,
				admitted, declined)
		}
		if leased > 0 && !f.stranded {
			f.fault("%d of %q, %v, are on lease after the end", leased, p.key, p.window)
		}
		f.Figures.Ledgers++
		if admitted.low == admitted.high && declined.low == declined.high {
			f.Figures.Exact++
			f.Figures.Events += live.Observed()
		}
		f.mu.Unlock()
	}
	f.report(t)
}

// end has nothing of the run go on, whatever has become of it.
func (f *Fleet) end() {
	f.redis.Restore()
	for _, m := range slices.Concat(f.members, f.dead) { // those that have died, too
		_ = m.Close()
	}
	time.Sleep(f.Options.Window) // for echoes
}
