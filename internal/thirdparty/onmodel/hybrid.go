package onmodel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
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
	slowest  time.Duration
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

// trouble is when something was wrong between instances and Redis.
type trouble struct{ from, to time.Time }

// change is one of a rate, and what the capacity was before.
type change struct {
	at     time.Time
	window time.Duration
	was    uint64
}

// member is an instance, with the line between it and Redis.
type member struct {
	*hybridlimit.Provider
	*wire
	name  string
	gone  atomic.Bool // it takes Redis for gone
	asked time.Time   // when it was called first, since there was trouble
}

// record is what is known of a window of a key.
type record struct {
	events []*event
	judged []*event  // which the bound has to hold
	seen   time.Time // when it was looked at last
	twin   *twin     // of a fleet that is calm
	loose  bool      // the groups of the twin need not be those of the provider any more
}

// span is a number that is not known for certain.
type span struct{ low, high uint64 }

// event is a call that was recorded, from some instant to another.
type event struct {
	at                 place
	from, to           time.Time
	by                 *member
	admitted, declined span
	charged            uint64 // against the bound
	fallback           bool
	synced             bool      // the ledger has it
	late               time.Time // no later than this it was settled, if it is synced
	crowd              bool      // so many calls were not settled that groups may have been taken together
	cut                bool      // it may have been deleted since

	life   time.Duration // of a reservation with an expiry that is not settled: so long it counts for certain; or 0
	unsure bool          // it may be settled after all
}

// counts is how long an event counts for certain, and at most, but for what it may be late.
func (e *event) counts() (least, most time.Duration) {
	least, most = e.at.window, e.at.window
	if e.life > 0 {
		least = e.life
		if !e.unsure && !e.crowd {
			most = e.life
		}
	}
	return least, most
}

// promise is a reservation that can still be settled.
type promise struct {
	*trypema.Reservation
	decision trypema.Decision
	by       *member
	key      string
	events   []*event
	estimate uint64
	expires  time.Time // or zero
}

// pendingGroups is how many groups an instance holds apart until they are settled.
const pendingGroups = 16

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
	o.OnChange = func(h redislimit.Health) { m.gone.Store(!h.Available) }
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
		actions["take away"], actions["restore"] = f.takeAway, f.restore
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
		if m.storms() {
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
	var all []place
	for p := range f.records {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b place) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return all
}

func (f *Fleet) record(p place) *record {
	r := f.records[p]
	if r == nil {
		r = &record{}
		if f.Calm {
			r.twin = &twin{Twin: model.Twin{Span: f.span(p.window)}}
		}
		f.records[p] = r
	}
	return r
}

func (f *Fleet) span(w time.Duration) window.Span {
	return window.Span{Window: int64(w), Bucket: int64(f.Options.BucketOf(w))}
}

func (f *Fleet) now() int64 { return int64(time.Since(f.began)) }

// Waiting.

func (f *Fleet) wait(t *rapid.T) {
	w, b, s := f.Options.Window, f.Options.Bucket, f.Options.SyncInterval
	f.sleep(rapid.SampledFrom([]time.Duration{
		s, b, 2 * s, w / 10, w / 4, w - b, w - s, w - 1, w, w + 1, w + b, w + 2*s, 3 * w, 5 * s, 20 * s, f.Options.Timeout, f.Options.RetryInterval,
	}).Draw(t, "time"))
}

func (f *Fleet) waitLittle(t *rapid.T) {
	b, s := f.Options.Bucket, f.Options.SyncInterval
	f.sleep(rapid.SampledFrom([]time.Duration{time.Microsecond, s / 2, s - time.Microsecond, s + time.Microsecond, b / 3, b - time.Microsecond, b + time.Microsecond}).Draw(t, "time"))
}

// waitForEdge goes to the instant at which the oldest event of a window is as old as that, or near it.
func (f *Fleet) waitForEdge(t *rapid.T) {
	all := f.places()
	if len(all) == 0 {
		t.Skip("there is none")
	}
	p := rapid.SampledFrom(all).Draw(t, "window")
	near := rapid.SampledFrom([]time.Duration{0, -time.Microsecond, time.Microsecond, f.Options.BucketOf(p.window), f.Options.SyncInterval}).Draw(t, "beyond")
	for _, e := range f.records[p].events {
		if d := time.Until(e.to.Add(p.window + near)); d > 0 {
			f.sleep(d)
			return
		}
	}
	t.Skip("they have all expired")
}

// sleep sleeps. Redis counts in microseconds, so time goes by in these.
func (f *Fleet) sleep(d time.Duration) {
	to := time.Now().Add(max(d, time.Microsecond) + time.Microsecond - 1)
	time.Sleep(time.Until(to.Truncate(time.Microsecond)))
	synctest.Wait()
	f.expire()
}

// Calls.

// call is one that was drawn.
type call struct {
	by      *member
	key     string
	windows []time.Duration // of several limits, or nil
	cost    uint64
	peek    bool
	holds   bool          // reserves
	expiry  time.Duration // of that
	after   time.Duration // to wait before
	patient time.Duration // when the caller gives up; 0 for never
}

func (f *Fleet) drawMember(t *rapid.T) *member {
	return f.members[rapid.IntRange(0, len(f.members)-1).Draw(t, "instance")]
}

func (f *Fleet) drawCall(t *rapid.T) call {
	c := call{by: f.drawMember(t), key: rapid.SampledFrom(keys[:3]).Draw(t, "key"), peek: rapid.IntRange(0, 5).Draw(t, "peek") == 5}
	capacity := f.capacity[f.Options.Window]
	c.cost = rapid.SampledFrom([]uint64{1, 1, 2, 3, 7, capacity/2 + 1, capacity, capacity + 1}).Draw(t, "cost")
	if !f.Calm && rapid.IntRange(0, 9).Draw(t, "gives up") == 9 {
		c.patient = rapid.SampledFrom([]time.Duration{time.Microsecond, f.Options.Timeout / 8, f.Options.Timeout / 2}).Draw(t, "after")
	}
	return c
}

func (f *Fleet) drawSeveral(t *rapid.T) call {
	c := f.drawCall(t)
	w := f.Options.Window
	c.windows = rapid.SampledFrom([][]time.Duration{{w}, {w, 3 * w}, {3 * w, w / 4}, {3 * w, w / 4, w}}).Draw(t,
		"windows")
	return c
}

func (f *Fleet) one(t *rapid.T) { f.do(f.drawCall(t)) }

func (f *Fleet) several(t *rapid.T) { f.do(f.drawSeveral(t)) }

func (f *Fleet) many(t *rapid.T) {
	c := f.drawCall(t)
	c.cost = rapid.Uint64Range(1, 2).Draw(t, "cost of each")
	pause := rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, f.Options.Bucket, f.Options.SyncInterval / 3}).Draw(t, "pause")
	for range rapid.IntRange(2, 40).Draw(t, "times") {
		f.do(c)
		if pause > 0 {
			f.sleep(pause)
		}
	}
}

func (f *Fleet) reserve(t *rapid.T) {
	c := f.drawSeveral(t)
	w := f.Options.Window
	c.peek, c.patient, c.holds, c.cost = false, 0, true, rapid.Uint64Range(1, 8).Draw(t, "estimate")
	c.expiry = rapid.SampledFrom([]time.Duration{0, f.Options.SyncInterval, w / 2, w - time.Millisecond, 2 * w}).Draw(t, "expiry")
	f.do(c)
}

// atOnce makes several calls at once, and something may happen meanwhile.
func (f *Fleet) atOnce(t *rapid.T) {
	var all sync.WaitGroup
	var calls []call
	for range rapid.IntRange(2, 12).Draw(t, "calls") {
		c := f.drawCall(t)
		if rapid.Bool().Draw(t, "several") {
			c = f.drawSeveral(t)
		}
		c.after = rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, f.Options.Timeout / 16, f.Options.SyncInterval}).Draw(t, "later")
		calls = append(calls, c)
	}
	happens := rapid.SampledFrom([]func(){nil, nil, f.hang, f.unhang}).Draw(t, "meanwhile")
	when := rapid.SampledFrom([]time.Duration{time.Microsecond, f.Options.Timeout / 16, f.Options.Timeout / 8}).Draw(t, "then")
	for _, c := range calls {
		all.Go(func() {
			time.Sleep(c.after)
			f.do(c)
		})
	}
	if happens != nil {
		time.Sleep(when)
		happens()
	}
	all.Wait()
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
	if f.suppressed() {
		return m.Suppressed()
	}
	return m.Absolute()
}

// do makes a call and judges the answer.
func (f *Fleet) do(c call) *promise {
	ctx, end := context.Background(), func() {}
	if c.patient > 0 {
		ctx, end = context.WithTimeout(ctx, c.patient)
	}
	defer end()
	windows := c.windows
	var d trypema.Decision
	var r *trypema.Reservation
	var err error
	from, verb := time.Now(), "AllowN"
	switch {
	case c.holds:
		verb = "Reserve"
		if r, err = f.multi(c.by, windows).Reserve(ctx, c.key, c.cost, c.expiry); err == nil {
			d = r.Decision
		}
	case windows != nil && c.peek:
		verb = "Peek"
		d, err = f.multi(c.by, windows).Peek(ctx, c.key, c.cost)
	case windows != nil:
		d, err = f.multi(c.by, windows).AllowN(ctx, c.key, c.cost)
	default:
		windows = []time.Duration{f.Options.Window}
		l := f.limiter(c.by)
		if c.peek {
			verb = "Peek"
			d, err = l.Peek(ctx, c.key, rateOf(f.capacity[windows[0]], windows[0]), c.cost)
		} else {
			d, err = l.AllowN(ctx, c.key, rateOf(f.capacity[windows[0]], windows[0]), c.cost)
		}
	}
	to := time.Now()

	f.mu.Lock()
	defer f.mu.Unlock()
	f.Figures.Calls++
	excused := f.excused(c.by, from, to)
	f.note(c.key, "%s: %s(%q, %v, %d) since %v: %+v, %v", c.by.name, verb, c.key, windows, c.cost,
		from.Sub(f.began), d, err)
	f.slowest = max(f.slowest, to.Sub(from))
	if to.Sub(from) > f.Options.Timeout {
		f.fault("%s of %q took %v", verb, c.key, to.Sub(from))
	}
	if err != nil {
		f.Figures.Errors++
		if c.patient == 0 || !errors.Is(err, context.DeadlineExceeded) || to.Sub(from) < c.patient {
			f.fault("%s of %q: %v", verb, c.key, err)
		}
		return &promise{}
	}
	if problem := f.incoherent(d, c.cost, windows); problem != "" {
		f.fault("%s of %q, cost %d: %+v: %s", verb, c.key, c.cost, d, problem)
	}
	if d.Fallback {
		f.Figures.Fallbacks++
		if !excused {
			f.fault("%s of %q: a fallback that nobody has caused: %+v", verb, c.key, d)
		}
	}
	if f.Calm {
		f.checkTwins(verb, c, windows, d)
	}
	p := &promise{Reservation: r, decision: d, by: c.by, key: c.key, estimate: c.cost}
	if c.peek {
		return p
	}
	if d.Allowed {
		f.Figures.Allowed++
	} else {
		f.Figures.Denied++
	}
	for _, w := range windows {
		e := &event{at: place{c.key, w}, from: from, to: to, by: c.by, fallback: d.Fallback}
		if d.Allowed && c.expiry < w {
			e.life = c.expiry
		}
		switch {
		case d.Allowed:
			e.admitted, e.charged = span{c.cost, c.cost}, c.cost
		case f.suppressed() && (!d.Fallback || f.Options.OnFailure != redislimit.FailClosed):
			e.declined = span{c.cost, c.cost}
		default:
			continue
		}
		f.enter(e)
		p.events = append(p.events, e)
	}
	if r == nil {
		return p
	}
	if !d.Allowed {
		if err := r.Commit(context.Background(), 1); !errors.Is(err, trypema.ErrDenied) {
			f.fault("a reservation of %q that was denied was committed: %v", c.key, err)
		}
		return p
	}
	if c.expiry > 0 {
		p.expires = from.Add(c.expiry)
	}
	f.promises = append(f.promises, p)
	return p
}

// enter notes an event, under the lock.
func (f *Fleet) enter(e *event) {
	r := f.record(e.at)
	r.events = append(r.events, e)
	if e.charged > 0 {
		r.judged = append(r.judged, e)
	}
	apart, last := 0, time.Time{}
	for _, o := range r.events {
		if o.by == e.by && !o.synced && !o.to.Equal(last) {
			apart, last = apart+1, o.to
		}
	}
	if apart < pendingGroups {
		return
	}
	for _, o := range r.events {
		o.crowd = o.crowd || o.by == e.by && !o.synced
	}
}

// incoherent says how a decision contradicts itself.
func (f *Fleet) incoherent(d trypema.Decision, n uint64, windows []time.Duration) string {
	limits := make([]uint64, 0, 3)
	for _, w := range windows {
		limits = append(limits, f.capacity[w])
	}
	denial := trypema.OutcomeRejected
	if f.suppressed() {
		denial = trypema.OutcomeSuppressed
	}
	switch {
	case !fakeredis.Sane(d) || d == trypema.Decision{}:
		return "it contradicts itself"
	case !d.Allowed && d.Outcome != denial:
		return "another outcome"
	case !slices.Contains(limits, d.Limit):
		return "another limit"
	case !f.suppressed() && d.Allowed && n > slices.Min(limits):
		return "more than a limit was admitted"
	case d.Allowed && d.RemainingAfterWaiting != d.Remaining:
		return "an admitted call has nothing to wait for"
	case !d.Allowed && !d.Fallback && d.RetryAfter == trypema.Never && n <= slices.Min(limits):
		return "it fits some day"
	case !d.Allowed && n > slices.Max(limits) && d.RetryAfter != trypema.Never:
		return "it never fits"
	case !d.Allowed && !f.suppressed() && !d.Fallback && d.RetryAfter != trypema.Never && d.RemainingAfterWaiting < n:
		return "it does not fit after waiting"
	case d.SuppressionFactor > 0 && !f.suppressed():
		return "a suppression factor"
	}
	return ""
}

// counts are what a window holds for an instance that looks at it from one instant to another: all that it
// must see, and all that may be there. An instance must see what it has recorded itself, and what the ledger
// has.
func (f *Fleet) counts(p place, by *member, from, to time.Time) (admitted, declined span) {
	r := f.record(p)
	for _, e := range r.events {
		least, most := e.counts()
		if (e.synced || e.by == by) && to.Sub(e.from) < least-2*time.Microsecond {
			admitted.low += e.admitted.low
			declined.low += e.declined.low
		}
		if from.Sub(f.latest(p, e, from)) < most {
			admitted.high += e.admitted.high
			declined.high += e.declined.high
		}
	}
	return admitted, declined
}

// latest is the latest instant that the ledger may take an event for.
func (f *Fleet) latest(p place, e *event, now time.Time) time.Time {
	late := 2*time.Microsecond + f.Options.BucketOf(p.window)
	switch {
	case f.Calm && !e.crowd:
		return e.to.Add(late)
	case e.synced:
		return e.late.Add(late)
	}
	return now.Add(late)
}

// sync notes that the ledger has all of an instance in a window, under the lock.
func (r *record) sync(by *member, from, to time.Time) {
	for _, e := range r.events {
		if e.by == by && !e.synced && !e.to.After(from) {
			e.synced, e.late = true, to
		}
	}
}

// lost notes that what an instance had not settled in a window may be there or not.
func (r *record) lost(by *member) {
	for _, e := range r.events {
		if e.by == by && !e.synced {
			e.admitted.low, e.declined.low, e.cut = 0, 0, true
		}
	}
}

// doubt notes that anything may have been deleted; the judges begin anew.
func (r *record) doubt() {
	for _, e := range r.events {
		e.admitted.low, e.declined.low, e.cut = 0, 0, true
	}
	r.judged, r.loose = nil, true
}

func (f *Fleet) usage(t *rapid.T) {
	m, key := f.drawMember(t), rapid.SampledFrom(keys[:3]).Draw(t, "key")
	if rapid.Bool().Draw(t, "several") {
		f.lookAll(m, key)
	} else {
		f.look(m, place{key, f.Options.Window})
	}
}

// look asks for the usage of a window, and judges it.
func (f *Fleet) look(m *member, p place) {
	from := time.Now()
	u, err := f.limiter(m).Usage(context.Background(), p.key, rateOf(f.capacity[p.window], p.window))
	f.judgeUsage(m, p, u, err, from)
}

func (f *Fleet) lookAll(m *member, key string) {
	from := time.Now()
	all, err := f.multi(m, f.windows()).Usage(context.Background(), key)
	for i, w := range f.windows() {
		u := trypema.Usage{}
		if err == nil {
			u = all[i]
		}
		f.judgeUsage(m, place{key, w}, u, err, from)
	}
}

func (f *Fleet) judgeUsage(m *member, p place, u trypema.Usage, err error, from time.Time) {
	to := time.Now()
	f.expire()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(p.key, "%s: Usage(%q, %v) since %v: %+v, %v", m.name, p.key, p.window, from.Sub(f.began), u, err)
	if took := to.Sub(from); took > f.Options.Timeout {
		f.fault("Usage of %q took %v", p.key, took)
	}
	if err != nil {
		f.unavailable(m, "Usage", p.key, err, from, to)
		return
	}
	r := f.record(p)
	admitted, declined := f.counts(p, m, from, to)
	f.Figures.Usages++
	c := f.capacity[p.window]
	if a := u.Total - u.Declined; u.Declined > u.Total || a < admitted.low || a > admitted.high || u.Declined < declined.low || u.Declined > declined.high ||
		u.Limit != c || u.Remaining != c-min(c, a) || u.SuppressionFactor < 0 || u.SuppressionFactor > 1 {
		f.fault("%s: Usage(%q, %v): %+v, want %+v admitted and %+v declined, of %d", m.name, p.key, p.window,
			u, admitted, declined, c)
	}
	r.sync(m, from, to)
}

// unavailable judges the error of a verb that no policy answers.
func (f *Fleet) unavailable(m *member, verb, key string, err error, from, to time.Time) {
	f.Figures.Errors++
	if !errors.Is(err, redislimit.ErrUnavailable) || !f.excused(m, from, to) {
		f.fault("%s of %q: %v", verb, key, err)
	}
}

// flush has an instance settle all it has, or all of them, upon which all agree.
func (f *Fleet) flush(t *rapid.T) {
	members := f.members
	if rapid.Bool().Draw(t, "one") {
		members = []*member{f.drawMember(t)}
	}
	good := true
	for _, m := range members {
		good = f.settle("Flush", m, func() error { return m.Flush(context.Background()) }) && good
	}
	if good && len(members) == len(f.members) {
		for _, p := range f.places() {
			if p.window == f.Options.Window {
				for _, m := range f.members {
					f.look(m, p)
				}
			}
		}
	}
}

// settle has an instance settle, by Flush or Close, and reports whether it did.
func (f *Fleet) settle(verb string, m *member, do func() error) bool {
	from := time.Now()
	err := do()
	to := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("", "%s: %s since %v: %v", m.name, verb, from.Sub(f.began), err)
	if err != nil && !f.troubled(from, to) {
		f.fault("%s of %s: %v", verb, m.name, err)
	}
	if err == nil {
		for _, r := range f.records {
			r.sync(m, from, to)
		}
	}
	return err == nil
}

func (f *Fleet) set(t *rapid.T) {
	m, p := f.drawMember(t), place{rapid.SampledFrom(keys[:3]).Draw(t, "key"), f.Options.Window}
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0: // several windows
		windows := rapid.SampledFrom([][]time.Duration{{p.window}, {3 * p.window, p.window / 4}}).Draw(t,
			"windows")
		from := time.Now()
		err := f.multi(m, windows).Delete(context.Background(), p.key)
		for _, w := range windows {
			f.judgeSet(m, place{p.key, w}, trypema.Always(), 0, trypema.Replace, nil, err, from)
		}
	case 1:
		from := time.Now()
		err := f.limiter(m).Delete(context.Background(), p.key)
		f.judgeSet(m, p, trypema.Always(), 0, trypema.Replace, nil, err, from)
	default:
		near := rapid.Uint64Range(0, 10).Draw(t, "near")
		when := rapid.SampledFrom([]trypema.Condition{
			trypema.Always(), trypema.Equal(near), trypema.NotEqual(near), trypema.Less(near), trypema.Greater(near),
		}).Draw(t, "when")
		total := rapid.SampledFrom([]uint64{0, 1, 3, 20, 60}).Draw(t, "total")
		keep := rapid.SampledFrom([]trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}).Draw(t,
			"keep")
		from := time.Now()
		got, err := f.limiter(m).Set(context.Background(), p.key, when, total, keep)
		f.judgeSet(m, p, when, total, keep, &got, err, from)
	}
}

func (f *Fleet) judgeSet(
	m *member, p place, when trypema.Condition, total uint64, keep trypema.History, got *trypema.SetResult,
	err error, from time.Time,
) {
	to := time.Now()
	f.expire()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(p.key, "%s: Set(%q, %v, %v, %d, %v) since %v: %+v, %v", m.name, p.key, p.window, when, total, keep,
		from.Sub(f.began), got, err)
	if took := to.Sub(from); took > f.Options.Timeout {
		f.fault("Set of %q took %v", p.key, took)
	}
	r := f.record(p)
	if err != nil { // it may have been done
		f.unavailable(m, "Set", p.key, err, from, to)
		r.doubt()
		r.events = append(r.events,
			&event{at: p, from: from, to: to, by: m, admitted: span{0, total}, declined: span{0, total}, cut: true})
		return
	}
	admitted, declined := f.counts(p, m, from, to)
	r.sync(m, from, to)
	if got != nil {
		if now := got.Previous; now < admitted.low+declined.low || now > admitted.high+declined.high || got.Matched != when.Holds(now) ||
			got.Matched && got.Current != total || !got.Matched && got.Current != now {
			f.fault("%s: Set(%q, %v, %v, %d, %v): %+v, want %+v admitted and %+v declined", m.name, p.key,
				p.window, when, total, keep, *got, admitted, declined)
		}
		if !got.Matched {
			return
		}
	}
	for _, e := range r.events {
		if e.synced {
			e.admitted, e.declined = span{}, span{}
		}
	}
	r.doubt()
	e := &event{at: p, from: from, to: to, by: m, admitted: span{total, total}, synced: true, late: to}
	if keep != trypema.Replace && got.Previous > 0 {
		e.admitted, e.declined, e.cut = span{0, total}, span{0, total}, true
	}
	r.events = append(r.events, e)
}

// rate changes the rate of a window, for all keys.
func (f *Fleet) rate(t *rapid.T) {
	f.seldom(t)
	w := rapid.SampledFrom(f.windows()).Draw(t, "window")
	c := f.drawCapacity(t)
	f.note("", "the capacity of %v is %d now, after %d", w, c, f.capacity[w])
	f.rates = append(f.rates, change{time.Now(), w, f.capacity[w]})
	f.capacity[w] = c
}

// Reservations.

// commit settles a reservation, perhaps one that has expired, or a second time.
func (f *Fleet) commit(t *rapid.T) {
	if len(f.promises) == 0 {
		t.Skip("there is none")
	}
	i := rapid.IntRange(0, len(f.promises)-1).Draw(t, "reservation")
	p := f.promises[i]
	f.expire()
	f.promises = slices.Delete(f.promises, i, i+1)
	is := rapid.SampledFrom([]uint64{0, p.estimate, p.estimate + 3, p.estimate / 2, 1}).Draw(t,
		"cost in the end")
	for _, e := range p.events {
		f.checkBound(e.at)
	}
	from := time.Now()
	err := p.Commit(context.Background(), is)
	to := time.Now()
	again := p.Refund(context.Background())
	f.expire()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(p.key, "%s: Commit(%q, %d) since %v, of %d at %v: %v", p.by.name, p.key, is, from.Sub(f.began),
		p.estimate, p.events[0].to.Sub(f.began), err)
	if !errors.Is(again, trypema.ErrSettled) {
		f.fault("a reservation of %q was settled twice: %v", p.key, again)
	}
	if took := to.Sub(from); took > 2*f.Options.Timeout {
		f.fault("Commit of %q took %v", p.key, took)
	}
	if err != nil {
		f.unavailable(p.by, "Commit", p.key, err, from, to)
	}
	f.settled(p, is, err == nil, f.excused(p.by, from, to), to)
	f.Figures.Settled++
}

// expire tells the judges of the bound which reservations have expired. Whoever has them recorded knows it by
// itself.
func (f *Fleet) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.promises {
		if !p.expires.IsZero() && !p.expires.After(time.Now()) {
			f.note(p.key, "the reservation of %q at %v expired", p.key, p.events[0].to.Sub(f.began))
			p.expires = time.Time{}
			for _, e := range p.events {
				if e.life > 0 {
					e.charged = 0
				}
			}
		}
	}
}

// settled enters what a reservation costs now, if that is known, under the lock. In trouble it may be settled
// later, and the estimate counts until it expires.
func (f *Fleet) settled(p *promise, is uint64, known, trouble bool, to time.Time) {
	for _, e := range p.events {
		r, was, age := f.record(e.at), e.admitted, to.Sub(e.from)
		at := int64(e.to.Sub(f.began))
		if r.twin != nil && known {
			r.twin.Commit(f.now(), r.twin.Backdate(at, int64(e.life)), at, p.estimate, is)
		}
		e.charged = min(e.charged, is)
		if e.cut { // others' events may have been taken for those
			r.doubt()
		}
		switch {
		case !known:
			e.admitted, e.unsure = span{min(was.low, is), was.high + is}, true
			if e.life > 0 {
				e.charged = 0
			}
		case age >= e.at.window-2*time.Microsecond:
			e.admitted, e.life = span{0, was.high + is}, 0
			r.loose = true
		default:
			if e.life > 0 && (trouble || age >= e.life-2*time.Microsecond) { // the estimate leaves by itself
				rest := *e
				rest.admitted.low, rest.charged = 0, 0
				r.events = append(r.events, &rest)
			}
			e.admitted, e.life, e.synced = span{is, is}, 0, e.synced && !trouble
		}
	}
}

// Judges.

// life is how long a lease lives, at most, and is kept by an instance that nobody asks: far from its limit,
// when there is so much to do, or answers take so long, that keys settle once in a window, or if it is one of
// a few calls, for 60 intervals.
func (f *Fleet) life(w time.Duration) time.Duration {
	return 5*time.Second + 8*w + 20*f.Options.Timeout + 3*70*f.Options.SyncInterval
}

// bound is what a window may hold of which the first call was made at an instant or later: the capacity, or
// the highest of those that leases were granted for which somebody may still have, and so much again for each
// time that the server has forgotten these.
func (f *Fleet) bound(w time.Duration, from time.Time) uint64 {
	c, times := f.capacity[w], uint64(1)
	for _, r := range f.rates {
		if r.window == w && r.at.After(from.Add(-f.life(w))) {
			c = max(c, r.was)
		}
	}
	for _, at := range f.forgets {
		if at.After(from.Add(-f.life(w))) {
			times++
		}
	}
	if f.suppressed() {
		c = uint64(float64(c) * f.Options.HardLimitFactor)
	}
	return c * times
}

// checkBound judges what was admitted, by all or, where each decides alone, by each.
func (f *Fleet) checkBound(p place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.record(p)
	since := r.seen.Add(-p.window)
	r.judged = slices.DeleteFunc(r.judged, func(e *event) bool { return e.to.Before(since) })
	r.seen = time.Now()
	bound := f.bound(p.window, since)
	judge := func(whose string, pick func(*event) bool) {
		var log []anywindow.Admission
		for _, e := range r.judged {
			if e.charged > 0 && pick(e) {
				log = append(log, anywindow.Admission{From: e.from, To: e.to, Cost: e.charged})
			}
		}
		if len(log) == 0 {
			return
		}
		most := anywindow.Most(log, p.window)
		f.Figures.Bounds++
		f.Figures.Share = max(f.Figures.Share, float64(most)/float64(bound))
		if most == bound {
			f.Figures.Full++
		}
		if most > bound {
			f.fault("%s: %d of %q in a window of %v, of at most %d", whose, most, p.key, p.window, bound)
		}
	}
	switch f.Options.OnFailure {
	case redislimit.FailClosed:
		judge("all", func(*event) bool { return true })
	case redislimit.FailLocal:
		for _, m := range slices.Concat(f.members, f.dead) {
			judge(m.name, func(e *event) bool { return e.by == m })
		}
		if f.Options.Instances >= f.named && !f.apart {
			judge("the policy", func(e *event) bool { return e.fallback })
		}
	}
}

// lag is how late a lone instance may notice that there is room.
func (f *Fleet) lag(w time.Duration) time.Duration {
	interval := f.Options.SyncInterval
	if w > f.Options.Window {
		interval *= 3
	}
	return f.Options.BucketOf(w) + 2*max(interval, time.Millisecond) + 10*time.Millisecond
}

// checkTwins judges the answer of a lone instance by the twins, under the lock.
func (f *Fleet) checkTwins(verb string, c call, windows []time.Duration, d trypema.Decision) {
	var remaining []uint64
	least := uint64(math.MaxUint64)
	most, known, all := 0., true, true
	wait := int64(0)
	excused, edge := false, false
	for _, w := range windows {
		p, capacity := place{c.key, w}, f.capacity[w]
		r := f.record(p)
		f.refresh(p, r)
		known = known && !r.loose && f.Options.BucketOf(w) <= w/4 && f.Options.BucketOf(w)%time.Microsecond == 0
		law := window.NewLaw(r.twin.Span, capacity, f.Options.HardLimitFactor)
		var v window.Verdict
		if f.suppressed() {
			v = r.twin.Suppressed(law, f.now(), c.cost, math.Nextafter(1, 0), false)
			most = max(most, v.Factor)
			if v.Allowed {
				v.Wait = 0
			}
		} else {
			v = r.twin.Absolute(capacity, f.now(), c.cost, false)
		}
		all, wait = all && v.Allowed, max(wait, v.Wait)
		// What there may be in the ledger still.
		held, bound := uint64(0), capacity
		if f.suppressed() {
			bound = law.Hard
		}
		for _, e := range r.events {
			// Where groups were taken together, an event may be taken for one as late as its settlement.
			least, most := e.counts()
			if age := time.Since(e.to); age < most+f.lag(w) || e.crowd && age < 3*w {
				held += e.admitted.high
				edge = edge || age >= least
			}
		}
		excused = excused || held+c.cost > bound
		if d.Allowed && !c.peek {
			held += c.cost
		}
		least = min(least, window.Room(capacity, held))
		if !c.peek {
			switch {
			case d.Allowed:
				r.twin.Place(f.now(), r.twin.Backdate(f.now(), int64(c.expiry)),
					window.Counts{Admitted: c.cost})
			case f.suppressed():
				r.twin.Record(f.now(), window.Counts{Declined: c.cost})
			}
		}
		remaining = append(remaining, window.Room(capacity, r.twin.Counts(f.now()).Admitted))
	}
	if !known {
		return
	}
	f.Figures.Twins++
	switch {
	case d.Allowed && !all:
		f.fault("%s of %q, cost %d: %+v, and the twin denies", verb, c.key, c.cost, d)
	case !d.Allowed && all && most == 0 && !excused:
		f.fault("%s of %q, cost %d: %+v, and the twin has admitted it for %v", verb, c.key, c.cost, d,
			f.lag(windows[0]))
	case !slices.Contains(remaining, d.Remaining) && (!edge || d.Remaining < least || d.Remaining > slices.Max(remaining)):
		f.fault("%s of %q, cost %d: %+v, and of the twins %v remain", verb, c.key, c.cost, d, remaining)
	case d.Allowed && !edge && d.SuppressionFactor != most:
		f.fault("%s of %q, cost %d: %+v, and the factor is %v", verb, c.key, c.cost, d, most)
	case !d.Allowed && !f.suppressed() && wait > 0 && len(windows) == 1 &&
		(int64(d.RetryAfter) < wait || wait != window.Never && int64(d.RetryAfter) > wait+int64(f.lag(windows[0]))):
		f.fault("%s of %q, cost %d: %+v, and the twin says %v", verb, c.key, c.cost, d, time.Duration(wait))
	}
}

// refresh begins a twin anew, once nothing is left of what it does not know.
func (f *Fleet) refresh(p place, r *record) {
	if r.loose && !slices.ContainsFunc(r.events, func(e *event) bool { return time.Since(e.to) < 3*p.window }) {
		r.loose = false
		r.twin.Delete()
	}
}

// What happens.

// happens has something begin or end, and notes since when there is trouble.
func (f *Fleet) happens(what string, change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.note("", "%s", what)
	if !f.Calm {
		f.Figures.Faults[strings.SplitN(what, ":", 2)[0]]++
	}
	bad := f.away
	for _, m := range f.members {
		bad = bad || m.bad(f.Options.Timeout)
	}
	last := len(f.troubles) - 1
	switch open := last >= 0 && f.troubles[last].to.IsZero(); {
	case bad && !open:
		f.troubles = append(f.troubles, trouble{from: time.Now()})
		for _, m := range f.members {
			m.asked = time.Time{}
		}
	case !bad && open:
		f.troubles[last].to = time.Now()
	}
}

// recovery is how long it takes at most until nothing reminds of a trouble.
func (f *Fleet) recovery() time.Duration {
	d := f.Options.RetryInterval + 3*f.Options.Timeout + 4*f.Options.SyncInterval
	if f.Options.OnFailure == redislimit.FailLocal && f.Options.Instances > 1 {
		d += 8 * f.Options.Window // instances that share go on until all must have settled
	}
	return d
}

// troubled reports whether anything was wrong, or had been wrong shortly before.
func (f *Fleet) troubled(from, to time.Time) bool {
	return slices.ContainsFunc(f.troubles, func(tr trouble) bool {
		return !tr.from.After(to) && (tr.to.IsZero() || tr.to.Add(f.recovery()).After(from))
	})
}

// excused reports whether an instance may take Redis for gone in a call, of which it was told: if that was
// so, or if it was so when the instance was called last, as it does not look by itself.
func (f *Fleet) excused(m *member, from, to time.Time) bool {
	if f.troubled(from, to) {
		m.asked = time.Time{}
		return true
	}
	if m.asked.IsZero() {
		m.asked = from
	}
	return len(f.troubles) > 0 && from.Sub(m.asked) < f.recovery()
}

func (f *Fleet) hang() {
	if !f.away {
		f.happens("the server goes", func() { f.redis.TakeAway(); f.away = true })
	}
}

func (f *Fleet) unhang() {
	if f.away {
		f.happens("the server comes back", func() { f.redis.Restore(); f.away = false })
	}
}

func (f *Fleet) takeAway(*rapid.T) { f.hang() }
func (f *Fleet) restore(*rapid.T)  { f.unhang() }

// wires makes the line of an instance another.
func (f *Fleet) wires(t *rapid.T) {
	m, timeout := f.drawMember(t), f.Options.Timeout
	var s state
	what := rapid.SampledFrom([]string{"a good line", "a long line", "a line that is cut", "a line that loses answers", "a line with echoes"}).Draw(t, "line")
	switch what {
	case "a long line":
		s.delay = rapid.SampledFrom([]time.Duration{time.Millisecond, timeout / 50, timeout / 8, timeout / 2, timeout * 3 / 2, timeout * 3}).Draw(t, "delay")
	case "a line that is cut":
		s.cut = true
	case "a line that loses answers":
		s.loses = rapid.SampledFrom([]int{2, 1, 3}).Draw(t, "one of")
	case "a line with echoes":
		s.echo = rapid.SampledFrom([]time.Duration{time.Microsecond, f.Options.SyncInterval, f.Options.Window / 2}).Draw(t, "after")
	}
	f.happens(fmt.Sprintf("%s: of %s, %+v", what, m.name, s), func() {
		m.set(s)
		f.apart = f.apart || m.bad(timeout)
	})
}

func (f *Fleet) forget(t *rapid.T) {
	f.seldom(t)
	f.happens("the server forgets", func() {
		f.redis.Forget()
		f.forgets = append(f.forgets, time.Now())
		// an echo may come to a server that does not know that its holder has said more since
		for _, m := range f.members {
			f.stranded = f.stranded || m.echoes()
		}
		for _, r := range f.records {
			judged := r.judged // they still have to hold the bound
			r.doubt()
			r.judged = judged
		}
	})
}

// leave ends an instance, and reports whether the ledger has all of it.
func (f *Fleet) leave(m *member, end func() bool) {
	good := end()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = slices.DeleteFunc(f.members, func(o *member) bool { return o == m })
	f.promises = slices.DeleteFunc(f.promises, func(p *promise) bool { return p.by == m })
	f.dead = append(f.dead, m)
	if good {
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
	f.leave(m, func() bool { return f.settle("Close", m, m.Close) })
	f.join(t)
	f.happens("closed: "+m.name, func() {})
}

// die ends an instance as it is.
func (f *Fleet) die(t *rapid.T) {
	f.seldom(t)
	m := f.drawMember(t)
	f.leave(m, func() bool { m.set(state{cut: true}); return false })
	f.join(t)
	f.happens("dies: "+m.name, func() {})
}

// heal ends all that is wrong, and waits until that is over.
func (f *Fleet) heal() {
	f.unhang()
	if slices.ContainsFunc(f.members, func(m *member) bool { return m.state() != state{} }) {
		f.happens("all lines are good", func() {
			for _, m := range f.members {
				m.set(state{})
			}
		})
	}
	if now := time.Now(); f.troubled(now, now) {
		f.sleep(f.recovery() + time.Microsecond)
	}
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
	f.fault("%s: %d of %q in %v are not to be had, long after anybody has used it", m.name, c.cost, key, w)
}

// finish closes all instances, and compares the ledgers with what was recorded.
func (f *Fleet) finish(t *rapid.T) {
	f.heal()
	for _, m := range slices.Clone(f.members) {
		f.expire()
		f.leave(m, func() bool { return f.settle("Close", m, m.Close) })
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

// wire is the line between an instance and the server.
type wire struct {
	*fakeredis.Server
	mu    sync.Mutex
	now   state
	n     int       // answers
	at    time.Time // of the last message
	burst int       // exchanges at that instant
	heard bool      // there were echoes
	storm bool      // there were too many
}

// maxBurst is how many exchanges there may be at an instant.
const maxBurst = 1000

// paced has time go on if it stands still for too many exchanges.
func (w *wire) paced() {
	w.mu.Lock()
	if now := time.Now(); !now.Equal(w.at) {
		w.at, w.burst = now, 0
	}
	w.burst++
	storm := w.burst > maxBurst
	w.storm = w.storm || storm
	w.mu.Unlock()
	if storm {
		time.Sleep(time.Millisecond)
	}
}

// state is what is wrong with a line.
type state struct {
	delay time.Duration // there and back
	cut   bool          // nothing passes
	loses int           // one of so many answers; 0 for none
	echo  time.Duration // each message arrives once more, so much later; 0 if not
}

func (w *wire) set(s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = s
	w.heard = w.heard || s.echo > 0
}

func (w *wire) state() state {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// storms reports whether there were too many exchanges at an instant.
func (w *wire) storms() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.storm
}

// echoes reports whether messages may have arrived twice.
func (w *wire) echoes() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

// bad reports whether calls may fail by it.
func (w *wire) bad(timeout time.Duration) bool {
	s := w.state()
	return s.cut || s.loses > 0 || s.delay > timeout/8
}

func (w *wire) lost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	return w.now.cut || w.now.loses > 0 && w.n%w.now.loses == 0
}

// Run implements redislimit.Conn.
func (w *wire) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	w.paced()
	s := w.state()
	err := error(nil)
	if s.cut {
		err = errors.New("connection refused")
	}
	if s.delay > 0 {
		select {
		case <-time.After(s.delay / 2):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		for i := range keys {
			answer(i, nil, err)
		}
		return
	}
	replies, errs := make([][]any, len(keys)), make([]error, len(keys))
	w.Server.Run(ctx, source, sha1, keys, args, func(i int, reply []any, err error) { replies[i], errs[i] = reply, err })
	if s.echo > 0 && redisproto.NameOf(source) == "settle.lua" {
		time.AfterFunc(s.echo, func() {
			w.Server.Run(context.Background(), source, sha1, keys, args, func(int, []any, error) {})
		})
	}
	time.Sleep(s.delay / 2)
	for i := range keys {
		if w.lost() {
			replies[i], errs[i] = nil, errors.New("i/o timeout")
		}
		answer(i, replies[i], errs[i])
	}
}
