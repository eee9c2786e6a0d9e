// Package onmodel is a state machine that drives a provider through all of its verbs, with the naive twin of
// each window beside it. The steps are drawn by rapid, which shrinks a run that fails: -rapid.checks says how
// many runs there are, and -rapid.steps how long one is on average; a failure says the -rapid.seed that
// repeats it.
package onmodel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/internal/window"
)

// Subject is what is driven: one strategy of a provider, in a clock that stands still while it is asked.
type Subject struct {
	Limiter  trypema.Limiter
	Bind     func(trypema.Strategy, ...trypema.Limit) (*trypema.Bound, error) // nil to leave several limits out
	Strategy trypema.Strategy
	Options  trypema.Options // with their defaults

	Unit    time.Duration       // in which it counts time
	Step    time.Duration       // the shortest time between two instants
	Advance func(time.Duration) // moves the clock

	// Peers are instances that share the keys, with another bucket or hard limit factor, or of another
	// version; the first is that of the fields above. Each call is made by one of them. None where there is
	// only one.
	Peers      []Peer
	Unreserved bool // nothing is reserved
	Cells      bool // windows have cells, unless they have too many buckets

	Capacities []uint64 // the limits to draw from
	Costs      []uint64
	Held       func() int // with Options.MaxKeys: how many keys it holds
}

// Peer is an instance. Its window is that of the others.
type Peer struct {
	Limiter trypema.Limiter
	Bind    func(trypema.Strategy, ...trypema.Limit) (*trypema.Bound, error)
	Options trypema.Options
	Old     bool // it is of the version before
}

// Machine is a run.
type Machine struct {
	Subject
	peer     int   // that makes the calls
	now      int64 // in units
	twins    map[place]*twin
	reserved []*reservation

	evictions int // keys that were seen to make room for another
}

// place is a window of a key.
type place struct {
	key    string
	window time.Duration
}

// twin is what the model knows of a window.
type twin struct {
	model.Of
	groups      *model.Twin // the same, if it has groups
	window.Span             // of the window, for whoever asks next
	law         window.Span // for window.NewLaw
	called      int64       // when it was asked for last

	// The judge of the bound, which knows nothing of groups or cells: the admissions of calls that all had
	// the same capacity.
	capacity uint64
	admitted []*anywindow.Admission
}

// reservation is one that can still be settled.
type reservation struct {
	*trypema.Reservation
	key      string
	windows  []time.Duration
	log      []*anywindow.Admission // what the judges have of it; nil where they have nothing
	estimate uint64
	at       int64 // when it was admitted
	life     int64 // until it expires, or 0
	expired  bool
	by       int // the peer that settles it
}

// from is where a window has recorded a reservation.
func (m *Machine) from(r *reservation, w time.Duration) int64 {
	return m.twin(r.key, w).Backdate(r.at, r.life)
}

// New returns a machine that knows of nothing yet.
func New(s Subject) *Machine { return &Machine{Subject: s, twins: map[place]*twin{}} }

// Run makes a run of random length.
func (m *Machine) Run(t *rapid.T) {
	actions := map[string]func(*rapid.T){
		"wait": m.wait, "wait for an edge": m.waitForEdge,
		"allow": m.allow, "allow again": m.allow, "allow many": m.allowMany, "allow for a while": m.allowForAWhile,
		"peek": m.peek, "usage": m.usage, "set": m.set, "delete": m.remove, "bad": m.bad,
	}
	if m.Bind != nil {
		actions["several"] = m.several
		actions["several again"] = m.several
		actions["several: usage"] = m.severalUsage
		actions["several: delete"] = m.severalDelete
		if !m.Unreserved {
			actions["reserve"] = m.reserve
			actions["commit"] = m.commit
		}
	}
	if len(m.Peers) > 0 {
		for name, action := range actions {
			actions[name] = func(t *rapid.T) { m.pass(t); action(t) }
		}
	}
	t.Repeat(actions)
	for p := range m.twins {
		if p.window == m.Options.Window {
			m.checkUsage(t, p.key, m.Capacities[0])
		}
	}
}

// pass has another peer make the calls from now on.
func (m *Machine) pass(t *rapid.T) {
	if len(m.Peers) > 0 {
		m.use(rapid.IntRange(0, len(m.Peers)-1).Draw(t, "peer"))
	}
}

func (m *Machine) use(peer int) {
	if len(m.Peers) > 0 {
		p := &m.Peers[peer]
		m.peer, m.Limiter, m.Bind, m.Options = peer, p.Limiter, p.Bind, p.Options
	}
}

// hardest is the largest hard capacity that a peer holds a window to.
func (m *Machine) hardest(key string, w time.Duration, capacity uint64) (hard uint64) {
	defer m.use(m.peer)
	for i := range max(1, len(m.Peers)) {
		m.use(i)
		hard = max(hard, m.law(key, w, capacity).Hard)
	}
	return hard
}

func (m *Machine) units(d time.Duration) int64 { return int64(d / m.Unit) }

func (m *Machine) twin(key string, w time.Duration) *twin {
	p := place{key, w}
	span := window.Span{Window: m.units(w), Bucket: m.units(m.Options.BucketOf(w))}
	if m.twins[p] == nil {
		m.twins[p] = newTwin(span)
		if m.Cells {
			m.twins[p] = &twin{Span: span}
			m.twins[p].Of, m.twins[p].law = model.OfLocal(span)
		}
	}
	tw := m.twins[p]
	if tw.groups != nil {
		tw.groups.Splits = len(m.Peers) > 0 && m.Peers[m.peer].Old
		// The bucket is that of the call.
		tw.Span, tw.law, tw.groups.Span = span, span, span
	}
	return tw
}

// newTwin returns one with groups.
func newTwin(s window.Span) *twin {
	groups := &model.Twin{Span: s}
	return &twin{Of: groups, groups: groups, Span: s, law: s}
}

// settle looks at the keys, before the clock moves: a hot key of Local takes the instant at which it is
// looked at for that of its last event.
func (m *Machine) settle() {
	for p := range m.twins {
		if m.Cells && p.window == m.Options.Window {
			_, _ = m.Limiter.Usage(context.Background(), p.key, 1e9) // whether it is right is asked elsewhere
		}
	}
}

func (m *Machine) law(key string, w time.Duration, capacity uint64) *window.Law {
	return window.NewLaw(m.twin(key, w).law, capacity, m.Options.HardLimitFactor)
}

func (m *Machine) suppressed() bool { return m.Strategy == trypema.StrategySuppressed }

// denial is the outcome of a call that a strategy denies.
func denial(s trypema.Strategy) trypema.Outcome {
	if s == trypema.StrategySuppressed {
		return trypema.OutcomeSuppressed
	}
	return trypema.OutcomeRejected
}

// Keys are short, or too long for an entry of the table, or such as encodings might take apart.
var keys = []string{"k", "another", "a key that is too long to be stored in an entry", "2001:db8::1", "}{\x00\xff"}

// drawKey draws one of them, most often the first, so that much happens to it.
func drawKey(t *rapid.T) string {
	return keys[max(0, rapid.IntRange(-4, len(keys)-1).Draw(t, "key"))]
}

func (m *Machine) drawCapacity(t *rapid.T) uint64 {
	return rapid.SampledFrom(m.Capacities).Draw(t, "capacity")
}

func (m *Machine) drawCost(t *rapid.T, capacity uint64) uint64 {
	costs := append([]uint64{1, 1, 2, capacity, capacity + 1}, m.Costs...)
	if m.Held != nil {
		costs = m.Costs // one above the limit need not count as asking for the key
	}
	return rapid.SampledFrom(costs).Draw(t, "cost")
}

// rateOf is the rate at which a window holds a capacity.
func rateOf(capacity uint64, w time.Duration) trypema.Rate {
	if capacity == math.MaxInt64 {
		return trypema.Unlimited
	}
	return trypema.Per(float64(capacity), w)
}

func (m *Machine) wait(t *rapid.T) {
	w, b := m.Options.Window, m.Options.Bucket
	m.advance(t, max(m.Step, rapid.SampledFrom([]time.Duration{
		m.Step, b - m.Step, b, b + m.Step, b / 3, w / 10, w / 4, w - b, w - m.Step, w, w + m.Step, 3 * w, 3*w + b,
	}).Draw(t, "time")))
}

// waitForEdge goes to the instant at which the newest group of a window, or what was reserved, expires; or
// one before.
func (m *Machine) waitForEdge(t *rapid.T) {
	at := m.twin(drawKey(t), m.Options.Window).Last() + m.units(m.Options.Window)
	if len(m.reserved) > 0 && rapid.Bool().Draw(t, "of a reservation") {
		r := rapid.SampledFrom(m.reserved).Draw(t, "reservation")
		w := rapid.SampledFrom(r.windows).Draw(t, "limit")
		at = rapid.SampledFrom([]int64{r.at, m.from(r, w)}).Draw(t,
			"of the admission or the expiry") + m.units(w)
	}
	at -= m.units(m.Step) * int64(rapid.IntRange(0, 1).Draw(t, "before"))
	if at < m.now+m.units(m.Step) {
		t.Skip("it is past that")
	}
	m.advance(t, time.Duration(at-m.now)*m.Unit)
}

// advance moves the clock. What is reserved expires by itself; the judges are told.
func (m *Machine) advance(t *rapid.T, d time.Duration) {
	t.Helper()
	m.settle()
	m.Advance(time.Duration(m.units(d)) * m.Unit)
	m.now += m.units(d)
	for _, r := range m.reserved {
		if r.life > 0 && !r.expired && r.at+r.life <= m.now {
			r.expired = true
			for i, w := range r.windows {
				if tw := m.twin(r.key, w); slices.Contains(tw.admitted, r.log[i]) {
					r.log[i].Cost = 0
				}
			}
		}
	}
}

func (m *Machine) allow(t *rapid.T) {
	c := m.drawCapacity(t)
	m.take(t, drawKey(t), c, m.drawCost(t, c), true)
}

// allowMany asks so often that a key becomes hot.
func (m *Machine) allowMany(t *rapid.T) {
	c, key, n := m.drawCapacity(t), drawKey(t), rapid.Uint64Range(1, 2).Draw(t, "cost")
	for range rapid.IntRange(2, 40).Draw(t, "times") {
		m.take(t, key, c, n, true)
		m.pass(t)
	}
}

// allowForAWhile makes many groups.
func (m *Machine) allowForAWhile(t *rapid.T) {
	c, key, n := m.drawCapacity(t), drawKey(t), rapid.Uint64Range(1, 2).Draw(t, "cost")
	pace := max(m.Step, rapid.SampledFrom([]time.Duration{m.Options.Bucket, m.Options.Bucket / 3, m.Options.Window / 100}).Draw(t, "pace"))
	for range rapid.IntRange(2, 30).Draw(t, "times") {
		m.take(t, key, c, n, true)
		m.advance(t, pace)
		m.pass(t)
	}
}

func (m *Machine) peek(t *rapid.T) {
	c := m.drawCapacity(t)
	m.take(t, drawKey(t), c, rapid.SampledFrom([]uint64{0, m.drawCost(t, c)}).Draw(t, "cost or 0"), false)
}

// thrown are the throws of dice that explain an answer. Which it was nobody knows outside of the limiter: an
// admission is explained by the highest, and a denial by the lowest, or where several limits refuse by
// different odds by one of these.
func (m *Machine) thrown(allowed bool, factors ...float64) []float64 {
	if allowed {
		return []float64{math.Nextafter(1, 0)}
	}
	return append([]float64{0}, factors...)
}

// judge asks the twin of one window.
func (m *Machine) judge(
	key string, w time.Duration, capacity, n uint64, dice float64, record bool,
) window.Verdict {
	if m.suppressed() {
		return m.twin(key, w).Suppressed(m.law(key, w, capacity), m.now, n, dice, record)
	}
	return m.twin(key, w).Absolute(capacity, m.now, n, record)
}

// decision is what a verdict means.
func (m *Machine) decision(capacity uint64, v window.Verdict) trypema.Decision {
	d := trypema.Decision{
		Allowed: v.Allowed, Outcome: denial(m.Strategy), Limit: capacity, Remaining: window.Room(capacity, v.Now),
		RetryAfter: trypema.Never, SuppressionFactor: v.Factor,
	}
	if v.Allowed {
		d.Outcome = trypema.OutcomeAllowed
	}
	if v.Wait != window.Never {
		d.RetryAfter = time.Duration(v.Wait) * m.Unit
		d.RemainingAfterWaiting = window.Room(capacity, v.Then)
	}
	return d
}

// known is a decision but for what is not known beside the version before: of two groups that end at one
// instant, which it alone makes, the room of one is told.
func (m *Machine) known(d trypema.Decision) trypema.Decision {
	if slices.ContainsFunc(m.Peers, func(p Peer) bool { return p.Old }) {
		d.RemainingAfterWaiting = 0
	}
	return d
}

// hotDenial is a decision on a call that was declined and recorded, if the key is hot in Local: its last
// event is then not known, and taken for one at the end of the cell.
func (m *Machine) hotDenial(key string, w time.Duration, capacity, n uint64, v window.Verdict) trypema.Decision {
	grid, ok := m.twin(key, w).Of.(*model.Grid)
	if !ok || !m.suppressed() || v.Allowed || v.Wait == window.Never {
		return m.decision(capacity, v)
	}
	late := grid.Clone()
	late.Touch(math.MaxInt64)
	after := late.Suppressed(m.law(key, w, capacity), m.now, n, 0, false)
	v.Wait, v.Then = after.Wait+late.Last()-m.now, after.Then
	return m.decision(capacity, v)
}

func (m *Machine) take(t *rapid.T, key string, capacity, n uint64, record bool) {
	t.Helper()
	verb, name := m.Limiter.Peek, "Peek"
	if record {
		verb, name = m.Limiter.AllowN, "AllowN"
	}
	held, fresh := 0, m.twin(key, m.Options.Window).Counts(m.now).Observed() == 0
	if m.Held != nil {
		held = m.Held()
	}
	got, err := verb(context.Background(), key, rateOf(capacity, m.Options.Window), n)
	if err != nil {
		t.Fatalf("%s(%q, limit %d, %d): %v", name, key, capacity, n, err)
	}
	n = max(n, 1)
	v := m.judge(key, m.Options.Window, capacity, n, m.thrown(got.Allowed)[0], record)
	if want := m.decision(capacity, v); m.known(got) != m.known(want) &&
		(!record || got != m.hotDenial(key, m.Options.Window, capacity, n, v)) {
		t.Fatalf("at %d, %s(%q, limit %d, %d):\n got %+v\nwant %+v", m.now, name, key, capacity, n, got, want)
	}
	if got.Allowed && record {
		m.log(t, key, m.Options.Window, capacity, n)
	}
	if m.Held != nil && record {
		m.twin(key, m.Options.Window).called = m.now
		if fresh { // to look takes hot keys back, so not after each call
			m.evicted(t, held)
		}
	}
}

// log tells the judge of an admission.
func (m *Machine) log(t *rapid.T, key string, w time.Duration, capacity, n uint64) {
	t.Helper()
	tw := m.twin(key, w)
	if tw.capacity != capacity { // another rate judges what is there
		tw.capacity, tw.admitted = capacity, nil
		if m.twin(key, w).Counts(m.now).Admitted > n {
			tw.capacity = 0 // until the window is empty
		}
	}
	if tw.capacity == 0 || n > math.MaxInt64/4 {
		return
	}
	at := time.Unix(0, 0).Add(time.Duration(m.now) * m.Unit)
	tw.admitted = append(tw.admitted, &anywindow.Admission{From: at, To: at, Cost: n})
	if len(tw.admitted) > 1000 {
		tw.admitted = tw.admitted[500:]
	}
	bound := capacity
	if m.suppressed() {
		bound = m.hardest(key, w, capacity)
	}
	var log []anywindow.Admission
	for _, a := range tw.admitted {
		log = append(log, *a)
	}
	if most := anywindow.Most(log, w); most > bound {
		t.Fatalf("at %d, %q: %d admitted in a window of %v, of at most %d", m.now, key, most, w, bound)
	}
}

// unjudged forgets what the judge knows of a window, whose counts were changed.
func (tw *twin) unjudged() { tw.capacity, tw.admitted = 0, nil }

func (m *Machine) usage(t *rapid.T) { m.checkUsage(t, drawKey(t), m.drawCapacity(t)) }

func (m *Machine) checkUsage(t *rapid.T, key string, capacity uint64) {
	t.Helper()
	got, err := m.Limiter.Usage(context.Background(), key, rateOf(capacity, m.Options.Window))
	if want := m.usageOf(key, m.Options.Window, capacity); err != nil || got != want {
		t.Fatalf("at %d, Usage(%q, limit %d): %+v, %v, want %+v", m.now, key, capacity, got, err, want)
	}
}

func (m *Machine) usageOf(key string, w time.Duration, capacity uint64) trypema.Usage {
	c := m.twin(key, w).Counts(m.now)
	u := trypema.Usage{Total: c.Observed(), Declined: c.Declined, Limit: capacity, Remaining: window.Room(capacity, c.Admitted)}
	if m.suppressed() {
		u.SuppressionFactor = m.judge(key, w, capacity, 1, 0, false).Factor
	}
	return u
}

// drawCondition draws one on a total that is near a number.
func drawCondition(t *rapid.T, near uint64) trypema.Condition {
	return rapid.SampledFrom([]trypema.Condition{
		trypema.Always(), trypema.Equal(near), trypema.NotEqual(near), trypema.Less(near), trypema.Greater(near),
	}).Draw(t, "when")
}

func drawHistory(t *rapid.T) trypema.History {
	all := []trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}
	return rapid.SampledFrom(all).Draw(t, "keep")
}

func (m *Machine) set(t *rapid.T) {
	key := drawKey(t)
	tw := m.twin(key, m.Options.Window)
	have := tw.Counts(m.now).Observed()
	near := rapid.SampledFrom([]uint64{have, have + 1, have - min(have, 1), 0, 5}).Draw(t, "near")
	when := drawCondition(t, near)
	total := rapid.SampledFrom([]uint64{0, 1, have / 2, have, have + 3, 20, 60}).Draw(t, "total")
	total = min(total, 1e6)
	keep := drawHistory(t)
	want := trypema.SetResult{Matched: when.Holds(have), Previous: have, Current: have}
	if m.Held != nil && have == 0 {
		t.Skip("it is not known whether such a key is held, and so whether it is new")
	}
	got, err := m.Limiter.Set(context.Background(), key, when, total, keep)
	if want.Matched {
		want.Current = total
		tw.unjudged()
		switch {
		case total == 0:
			tw.Delete()
		case keep == trypema.Replace || have == 0:
			tw.Replace(m.now, total)
		case keep == trypema.KeepNewest:
			tw.Resize(m.now, total, window.Newest)
		default:
			tw.Resize(m.now, total, window.Oldest)
		}
	}
	if err != nil || got != want {
		t.Fatalf("at %d, Set(%q, %v, %d, %v): %+v, %v, want %+v", m.now, key, when, total, keep, got, err, want)
	}
}

func (m *Machine) remove(t *rapid.T) {
	key := drawKey(t)
	if err := m.Limiter.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	m.forget(key, m.Options.Window)
}

func (m *Machine) forget(key string, w time.Duration) {
	tw := m.twin(key, w)
	tw.Delete()
	tw.unjudged()
}

// bad asks what is not to be asked; nothing may change by it.
func (m *Machine) bad(t *rapid.T) {
	key := drawKey(t)
	rate := rateOf(5, m.Options.Window)
	bad := rapid.SampledFrom([]trypema.Rate{
		0, -1, trypema.Rate(math.NaN()), trypema.Rate(math.Inf(1)), trypema.Rate(math.Inf(-1)), trypema.Per(.999, m.Options.Window),
	}).Draw(t, "rate")
	ctx := context.Background()
	_, zero := m.Limiter.AllowN(ctx, key, rate, 0)
	_, allow := m.Limiter.Allow(ctx, key, bad)
	_, peek := m.Limiter.Peek(ctx, key, bad, 1)
	_, usage := m.Limiter.Usage(ctx, key, bad)
	_, history := m.Limiter.Set(ctx, key, trypema.Always(), 1, trypema.KeepOldest+1)
	for _, e := range []struct{ got, want error }{
		{zero, trypema.ErrInvalidCost}, {allow, trypema.ErrInvalidRate}, {peek, trypema.ErrInvalidRate},
		{usage, trypema.ErrInvalidRate}, {history, trypema.ErrInvalidOptions},
	} {
		if !errors.Is(e.got, e.want) {
			t.Fatalf("at %d, %q, rate %v: %v, want %v", m.now, key, bad, e.got, e.want)
		}
	}
}

// limit is one of several.
type limit struct {
	trypema.Limit
	capacity uint64
}

// drawWindows draws those of several limits.
func drawWindows(t *rapid.T, w time.Duration) []time.Duration {
	all := [][]time.Duration{{w}, {w, 3 * w}, {3 * w, w / 4}, {3 * w, w / 4, w}}
	return rapid.SampledFrom(all).Draw(t, "windows")
}

// drawLimits draws some limits: one with the window of the options, which is shared, and others.
func (m *Machine) drawLimits(t *rapid.T) (*trypema.Bound, []limit) {
	var limits []limit
	var plain []trypema.Limit
	for i, w := range drawWindows(t, m.Options.Window) {
		c := m.drawCapacity(t)
		limits = append(limits,
			limit{trypema.Limit{Name: fmt.Sprint("limit ", i), Rate: rateOf(c, w), Window: w}, c})
		plain = append(plain, limits[i].Limit)
	}
	l, err := m.Bind(m.Strategy, plain...)
	if err != nil {
		t.Fatal(err)
	}
	return l, limits
}

func (m *Machine) several(t *rapid.T) {
	l, limits := m.drawLimits(t)
	key, n := drawKey(t), m.drawCost(t, limits[0].capacity)
	record := rapid.IntRange(0, 3).Draw(t, "peek") > 0
	verb := l.Peek
	if record {
		verb = l.AllowN
	}
	times := rapid.SampledFrom([]int{1, 1, 1, 20}).Draw(t, "times")
	for range times {
		got, err := verb(context.Background(), key, n)
		if err != nil {
			t.Fatal(err)
		}
		m.checkSeveral(t, limits, key, n, got, record, 0)
	}
}

// checkSeveral judges the answer of several limits: all or nothing, and that of the limit which refuses for
// longest, or of an admitted call that of the one with the least room. Where two are alike it may be that of
// either.
func (m *Machine) checkSeveral(
	t *rapid.T, limits []limit, key string, n uint64, got trypema.Decision, record bool, life int64,
) {
	t.Helper()
	var factors []float64
	for _, l := range limits {
		factors = append(factors, m.judge(key, l.Window, l.capacity, n, 0, false).Factor)
	}
	most := slices.Max(factors)
	// What each thinks of it, by every throw of the dice that there may have been.
	var verdicts [][]window.Verdict
	for _, dice := range m.thrown(got.Allowed, factors...) {
		var all []window.Verdict
		for _, l := range limits {
			all = append(all, m.judge(key, l.Window, l.capacity, n, dice, false))
		}
		verdicts = append(verdicts, all)
	}
	counts := window.Counts{}
	switch {
	case got.Allowed:
		counts.Admitted = n
	case m.suppressed():
		counts.Declined = n
	}
	if record {
		for _, l := range limits {
			if tw := m.twin(key, l.Window); got.Allowed {
				tw.Place(m.now, tw.Backdate(m.now, life), counts)
			} else {
				tw.Record(m.now, counts)
			}
		}
	}
	var possible []trypema.Decision
	for _, all := range verdicts {
		denied := slices.ContainsFunc(all, func(v window.Verdict) bool { return !v.Allowed })
		if denied == got.Allowed {
			continue
		}
		longest, least := int64(0), uint64(math.MaxUint64)
		for i, l := range limits {
			v := &all[i]
			if record {
				v.Now = m.twin(key, l.Window).Counts(m.now).Admitted
			}
			if v.Allowed {
				v.Then = v.Now
				least = min(least, window.Room(l.capacity, v.Now))
				continue
			}
			if m.suppressed() { // the wait is that from the state after the call, of which the declined are a part
				after := m.judge(key, l.Window, l.capacity, n, 0, false)
				v.Wait, v.Then = after.Wait, after.Then
			}
			longest = max(longest, v.Wait)
		}
		for i, l := range limits {
			v := all[i]
			if denied && (v.Allowed || v.Wait != longest) || !denied && window.Room(l.capacity, v.Now) != least {
				continue
			}
			v.Factor = most
			d := m.decision(l.capacity, v)
			if denied {
				d.RefusedBy = l.Name
			}
			possible = append(possible, m.known(d))
			if denied && record && len(limits) == 1 {
				d := m.hotDenial(key, l.Window, l.capacity, n, v)
				d.RefusedBy = l.Name
				possible = append(possible, d)
			}
		}
	}
	if !slices.Contains(possible, m.known(got)) {
		t.Fatalf("at %d, %q, limits %+v, cost %d, record %v:\n got %+v\nwant one of %+v", m.now, key, limits,
			n, record, got, possible)
	}
	if got.Allowed && record {
		for _, l := range limits {
			m.log(t, key, l.Window, l.capacity, n)
		}
	}
}

func (m *Machine) severalUsage(t *rapid.T) {
	l, limits := m.drawLimits(t)
	key := drawKey(t)
	got, err := l.Usage(context.Background(), key)
	var want []trypema.Usage
	for _, l := range limits {
		want = append(want, m.usageOf(key, l.Window, l.capacity))
	}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("at %d, usage of %q, limits %+v: %+v, %v, want %+v", m.now, key, limits, got, err, want)
	}
}

func (m *Machine) severalDelete(t *rapid.T) {
	l, limits := m.drawLimits(t)
	key := drawKey(t)
	if err := l.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	for _, l := range limits {
		m.forget(key, l.Window)
	}
}

func (m *Machine) reserve(t *rapid.T) {
	l, limits := m.drawLimits(t)
	key, n := drawKey(t), rapid.Uint64Range(1, 8).Draw(t, "estimate")
	w, b := m.Options.Window, m.Options.Bucket
	expiry := rapid.SampledFrom([]time.Duration{0, m.Step, b, w / 20, w / 2, w - b, w - m.Step, w, 2 * w}).Draw(t,
		"expiry")
	got, err := l.Reserve(context.Background(), key, n, expiry)
	if err != nil {
		t.Fatal(err)
	}
	r := &reservation{Reservation: got, key: key, estimate: n, at: m.now, life: m.units(expiry + m.Unit - 1), by: m.peer}
	m.checkSeveral(t, limits, key, n, got.Decision, true, r.life)
	if !got.Allowed {
		if err := got.Commit(context.Background(), 1); !errors.Is(err, trypema.ErrDenied) {
			t.Fatalf("a reservation that was denied was committed: %v", err)
		}
		return
	}
	for _, l := range limits {
		tw := m.twin(key, l.Window)
		r.windows = append(r.windows, l.Window)
		var last *anywindow.Admission
		if k := len(tw.admitted); k > 0 && tw.capacity == l.capacity {
			last = tw.admitted[k-1]
		}
		r.log = append(r.log, last)
	}
	m.reserved = append(m.reserved, r)
}

// commit settles a reservation, perhaps one that has expired, or a second time.
func (m *Machine) commit(t *rapid.T) {
	if len(m.reserved) == 0 {
		t.Skip("there is none")
	}
	i := rapid.IntRange(0, len(m.reserved)-1).Draw(t, "reservation")
	r := m.reserved[i]
	is := rapid.SampledFrom([]uint64{0, r.estimate, r.estimate + 3, r.estimate / 2, 1}).Draw(t,
		"cost in the end")
	var err error
	if is == 0 {
		err = r.Refund(context.Background())
	} else {
		err = r.Commit(context.Background(), is)
	}
	if err != nil {
		t.Fatalf("at %d: commit of %q: %v", m.now, r.key, err)
	}
	m.committed(r, is)
	if err := r.Commit(context.Background(), 1); !errors.Is(err, trypema.ErrSettled) {
		t.Fatalf("it was settled twice: %v", err)
	}
	m.reserved = slices.Delete(m.reserved, i, i+1)
}

// committed enters into the twins what a reservation costs now.
func (m *Machine) committed(r *reservation, is uint64) {
	defer m.use(m.peer)
	m.use(r.by)
	for i, w := range r.windows {
		tw := m.twin(r.key, w)
		removed, added := tw.Commit(m.now, m.from(r, w), r.at, r.estimate, is)
		switch a := r.log[i]; {
		case removed == 0 && added == 0:
		case !r.expired && removed == r.estimate && is <= r.estimate && slices.Contains(tw.admitted, a):
			a.Cost = is
		default: // it may hold more than its capacity now, or other events were taken for those
			tw.unjudged()
		}
	}
}

// evicted finds out which key has made room for one that was just asked for, if one has: there is only one,
// only if there were as many as there may be, and it is the one of those with something in the window that
// was asked for the longest ago.
func (m *Machine) evicted(t *rapid.T, before int) {
	t.Helper()
	if n := m.Held(); n > m.Options.MaxKeys {
		t.Fatalf("at %d: %d keys, of at most %d", m.now, n, m.Options.MaxKeys)
	}
	oldest := int64(math.MaxInt64)
	var gone []*twin
	for p, tw := range m.twins {
		have := tw.Counts(m.now).Observed()
		if have == 0 {
			continue // nobody can tell
		}
		oldest = min(oldest, tw.called)
		u, err := m.Limiter.Usage(context.Background(), p.key, 1e9)
		switch {
		case err == nil && u.Total == have:
		case err == nil && u.Total == 0:
			gone = append(gone, tw)
		default:
			t.Fatalf("at %d, %q: %+v, %v, want %d or nothing", m.now, p.key, u, err, have)
		}
	}
	if len(gone) == 0 {
		return
	}
	if len(gone) > 1 || before < m.Options.MaxKeys || gone[0].called != oldest {
		t.Fatalf("at %d: %d keys went of %d, the first of them last asked for at %d; another one was at %d",
			m.now, len(gone), before, gone[0].called, oldest)
	}
	gone[0].Delete()
	gone[0].unjudged()
	m.evictions++
}
