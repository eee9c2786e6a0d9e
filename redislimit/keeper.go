package redislimit

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// keeper keeps limits: by multi.lua, which decides by all of them in one step. A window of one of them has
// the Redis key that a limiter with such a window has.
//
// It goes through the exchange of its strategy, where the Redis key of its first limit stands for all.
type keeper struct {
	*limiter
	limits  []limit
	longest time.Duration
	tight   uint64 // the least of the capacities
	factor  string // the hard limit factor
	both    operation
	reserve operation // as both, for calls with a life
	commit  operation
	fail    failLocal
	done    <-chan struct{} // is closed with the provider
	joined  []string        // its keys, one for each limit, if they are of several calls: see AllowAll
	group   string          // what the forms of its keys start with, if they are those of a group
}

type limit struct {
	label    string
	capacity uint64
	span     window.Span
	names    redisproto.Names
	law      func(capacity uint64) *window.Law
	set      operation
	giveBack operation // as set, but never sent twice
}

// failLocal is what FailLocal knows, for several limits; all share what they count.
type failLocal struct {
	all   trypema.Keeper // without any limit, to remember by
	whole trypema.Keeper // that enforces the limits
	share trypema.Keeper // that enforces its share; nil if that is less than one call
}

// each is what one of several limits says of a call.
type each struct {
	at     int64 // µs: when it was recorded
	counts window.Counts
	factor float64
}

// Bind returns limits that are kept for any key, several of them by one script, or what is wrong with them:
// see trypema.CheckLimits. It is cheap.
func (p *Provider) Bind(s trypema.Strategy, limits ...trypema.Limit) (*trypema.Bound, error) {
	return trypema.NewBound(s, limits, func(limits []trypema.Limit) (trypema.Keeper, error) {
		return p.keep(s, limits)
	})
}

// keep returns a keeper of limits that were checked.
func (p *Provider) keep(s trypema.Strategy, limits []trypema.Limit) (*keeper, error) {
	m := &keeper{limiter: p.absolute, done: p.done, tight: math.MaxUint64}
	if s == trypema.StrategySuppressed {
		m.limiter = p.suppressed
	}
	m.factor = strconv.FormatFloat(p.options.HardLimitFactor, 'g', -1, 64)
	var capacities []uint64
	for _, l := range limits {
		c := redisproto.CapacityOf(l)
		span := spanOf(l.Window, p.options.BucketOf(l.Window))
		names := redisproto.NewNames(p.options.Prefix, m.letter, l.Window)
		one := limit{label: l.Label(), capacity: c, span: span, names: names}
		one.set = setOperation(m.letter, span)
		one.giveBack = one.set
		one.giveBack.once = true
		if s == trypema.StrategySuppressed {
			one.law = lawOf(span, p.options.HardLimitFactor)
		}
		m.limits, capacities = append(m.limits, one), append(capacities, c)
		m.tight, m.longest = min(m.tight, c), max(m.longest, l.Window)
	}
	m.setOperations()
	if p.local == nil {
		return m, nil
	}
	return m, m.fail.init(p, s, limits, capacities)
}

// setOperations sets what the keeper asks Redis.
func (m *keeper) setOperations() {
	m.both = operation{
		dice:    m.limits[0].law != nil,
		script:  func(s *redisproto.Scripts) redisproto.Script { return s.Multi },
		keys:    m.keys,
		windows: m.windows,
		args:    m.args,
		read:    m.read,
	}
	m.reserve = m.both
	m.commit = operation{
		single:  true,
		once:    true,
		script:  func(s *redisproto.Scripts) redisproto.Script { return s.Commit },
		keys:    m.keys,
		windows: m.windows,
		args:    func(batches []*batch) []string { return append(m.head(), batches[0].set...) },
		read:    m.readCommit,
	}
}

// localKeeper is what a trypema.Keeper of trypema.Local can do in addition.
type localKeeper interface {
	InGroup(group string) trypema.Keeper
	Showing(capacities []uint64) trypema.Keeper
	AllowAll(ctx context.Context, asks []trypema.KeptAsk) (trypema.Decision, bool, error)
	GiveBack(ctx context.Context, key string, n uint64) error
}

// InGroup returns a limiter that keeps the same limits for the keys of a group, as trypema.Policies needs it.
func (m *keeper) InGroup(group string) trypema.Keeper {
	in := *m
	in.group = groupkey.Prefix(group)
	for _, l := range []*trypema.Keeper{&in.fail.all, &in.fail.whole, &in.fail.share} {
		if *l != nil {
			*l = (*l).(localKeeper).InGroup(group)
		}
	}
	return &in
}

// Done is closed by Close of the provider: see trypema.Keeper.
func (m *keeper) Done() <-chan struct{} { return m.done }

// check returns what is wrong with a key.
func (m *keeper) check(key string) error {
	if m.group != "" && len(key) <= redisproto.MaxKeyLen {
		return nil // it may be empty
	}
	return redisproto.CheckKey(key)
}

// form returns the form of a key.
func (m *keeper) form(key string) string {
	if m.group == "" {
		return groupkey.Plain(key)
	}
	return m.group + key
}

func (f *failLocal) init(
	p *Provider, s trypema.Strategy, limits []trypema.Limit, capacities []uint64,
) (err error) {
	of := func(change func(l trypema.Limit, capacity uint64) trypema.Limit) trypema.Keeper {
		changed := slices.Clone(limits)
		for i := range changed {
			changed[i] = change(changed[i], capacities[i]).Named(changed[i].Name)
			if changed[i].Blocks() {
				return nil
			}
		}
		b, e := p.local.Bind(s, changed...)
		if err = cmp.Or(err, e); err != nil {
			return nil
		}
		return b.Keeper().(localKeeper).Showing(capacities)
	}
	f.all = of(func(l trypema.Limit, _ uint64) trypema.Limit {
		return trypema.Limit{Rate: trypema.Unlimited, Window: l.Window}
	})
	f.whole = of(func(l trypema.Limit, _ uint64) trypema.Limit { return l })
	f.share = of(func(l trypema.Limit, capacity uint64) trypema.Limit {
		return trypema.AtMost(capacity/uint64(p.options.Instances), l.Window)
	})
	return err
}

// lane is the key by which the exchange knows a key, and keys are the Redis keys of it.
func (m *keeper) lane(key string) string { return m.limits[0].names.Of(m.form(key)) }

func (m *keeper) keys(lane string) []string {
	if m.joined != nil {
		return m.joined
	}
	form := m.limits[0].names.Form(lane)
	keys := make([]string, len(m.limits))
	for i := range m.limits {
		keys[i] = m.limits[i].names.Of(form)
	}
	return keys
}

// windows are those of a batch.
func (m *keeper) windows(lane string) redisproto.Windows {
	w := redisproto.Windows{Kind: m.letter, Keys: m.keys(lane)}
	for i := range m.limits {
		w.Spans = append(w.Spans, m.limits[i].span)
	}
	return w
}

// head are the ARGV that both scripts begin with.
func (m *keeper) head() []string { return append(redisproto.SpanArgs(m.limits[0].span), m.letter) }

func (m *keeper) args(batches []*batch) []string {
	b := batches[0]
	args := append(m.head(), m.factor, string(b.dice))
	for i := range m.limits {
		args = append(args, redisproto.SpanArgs(m.limits[i].span)...)
		args = append(args, strconv.FormatUint(m.limits[i].capacity, 10))
	}
	for _, r := range b.runs {
		args = r.append(args)
		args = append(args[:len(args)-3], args[len(args)-2:]...) // the capacity is that of the limit
		args = append(args, strconv.FormatInt(r.life, 10))
	}
	return args
}

// read takes the answers of all limits to the calls, and tells the calls what they mean together.
func (m *keeper) read(r *redisproto.Reader, runs []run, calls []*call) error {
	alone, err := m.readEach(r, runs, calls)
	if err != nil && !errors.Is(err, redisproto.ErrAnswered) {
		return err
	}
	for j, c := range calls {
		if err := m.judgeTogether(c, alone, j); err != nil {
			return err
		}
	}
	return err
}

// readEach takes the answers of each limit to the calls, as if it were alone. With redisproto.ErrAnswered,
// there are all of them.
func (m *keeper) readEach(r *redisproto.Reader, runs []run, calls []*call) (alone [][]*call, _ error) {
	answers, pointers := make([]call, len(m.limits)*len(calls)), make([]*call, len(m.limits)*len(calls))
	for i := range answers {
		pointers[i] = &answers[i]
	}
	alone = make([][]*call, len(m.limits))
	var odd error // of a limit whose calls have an answer all the same
	for i := range m.limits {
		l := &m.limits[i]
		at := int64(r.Count(1 << 53))
		mine := make([]run, len(runs))
		for j, run := range runs {
			run.capacity = l.capacity
			mine[j] = run
		}
		alone[i] = pointers[i*len(calls):][:len(calls)]
		if calls == nil {
			alone[i] = nil
		}
		for j := range calls {
			if each := calls[j].each; each != nil {
				each[i].at = at
			}
		}
		var err error
		if l.law == nil {
			err = readAbsolute(r, mine, alone[i])
		} else {
			err = readSuppressed(r, l.span, l.law, diceOfPeeks(calls), mine, alone[i])
		}
		if errors.Is(err, redisproto.ErrAnswered) {
			odd = err
		} else if err != nil {
			return nil, err
		}
	}
	return alone, odd
}

// judgeTogether tells a call, whose place is j, what the answers of the limits mean together.
func (m *keeper) judgeTogether(c *call, alone [][]*call, j int) error {
	var t window.Joint
	passes := alone[0][j].verdict.Allowed // if it is recorded, by all or by none
	for i := range m.limits {
		l, one := &m.limits[i], alone[i][j]
		if c.each != nil {
			c.each[i].counts, c.each[i].factor = one.counts, one.verdict.Factor
		}
		v := one.verdict
		if !v.Allowed && !m.refuses(c, &v) {
			v.Allowed, v.Wait = true, 0
		}
		t.Add(i, l.capacity, &v)
	}
	if c.record && t.Allowed && !passes { // in case Lua rounds differently from Go
		one := alone[t.Limit][j]
		t.Verdict = one.verdict
	}
	c.capacity, c.verdict, c.refused = t.Capacity, t.Verdict, -1
	if err := unexplained([]*call{c}); err != nil {
		return err
	}
	c.verdict.Factor = t.Most
	if !t.Allowed {
		c.refused = t.Limit
	}
	return nil
}

// refuses reports whether a limit itself refuses a call. v is its verdict on the call, which another limit
// may have refused.
func (m *keeper) refuses(c *call, v *window.Verdict) bool {
	if m.both.dice {
		return c.thrown() < v.Factor
	}
	return v.Wait > 0
}

// thrown is the throw of the dice for a call, as suppressed.lua makes it of their bits.
func (c *call) thrown() float64 { return (float64(c.dice) + .5) / (1 << 24) }

// diceOfPeeks are the throws for those calls that are not recorded, in turn.
func diceOfPeeks(calls []*call) func() float64 {
	return func() float64 {
		for calls[0].record {
			calls = calls[1:]
		}
		thrown := calls[0].thrown()
		calls = calls[1:]
		return thrown
	}
}

// throw throws the dice for a call.
func throw() uint32 { return rand.Uint32N(1 << 24) }

// askAll asks Redis about one call, by the arguments of the script: each is where the answers of single
// limits go, or nil, and life is how long a reservation may be settled, or 0.
func (m *keeper) askAll(
	ctx context.Context, key string, n uint64, record bool, dice uint32, each []each, life int64,
) (*call, error) {
	if err := m.check(key); err != nil {
		return nil, err
	}
	c := m.newCall(n, record, dice)
	c.each, c.life = each, life
	op := &m.both
	if life > 0 {
		op = &m.reserve
	}
	return c, m.exchange.do(ctx, op, m.lane(key), c)
}

func (m *keeper) newCall(n uint64, record bool, dice uint32) *call {
	c := m.exchange.newCall()
	c.cost, c.record, c.dice = min(n, redisproto.Most), record, dice
	return c
}

// told returns the decision by the answer to a call, and frees the call.
func (m *keeper) told(c *call) (d trypema.Decision) {
	redisproto.Decide(&d, c.capacity, &c.verdict, time.Microsecond, m.denial)
	if c.refused >= 0 {
		d.RefusedBy = m.limits[c.refused].label
	}
	m.exchange.free(c)
	return d
}

// count counts a decision if there is an Observer.
func (m *keeper) count(key string, d *trypema.Decision, err error, began time.Time) {
	if m.tally != nil {
		m.limiter.count(groupkey.Shown(m.form(key)), d, err, began)
	}
}

// AllowN implements trypema.Keeper.
func (m *keeper) AllowN(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	began := m.began()
	if n == 0 {
		err = redisproto.ErrZeroCost
	} else {
		d, err = m.judgeAll(ctx, key, n, true, throw())
	}
	m.count(key, &d, err, began)
	return d, err
}

// Again is AllowN for a call that was denied before, which Suppressed has counted already: see
// trypema.Keeper. Suppressed looks first, and records the call only if it is admitted by the dice that it
// then has.
func (m *keeper) Again(ctx context.Context, key string, n uint64) (d trypema.Decision, err error) {
	began, dice := m.began(), throw()
	if m.both.dice {
		if d, err = m.judgeAll(ctx, key, n, false, dice); err != nil || !d.Allowed {
			return d, err
		}
	}
	if d, err = m.judgeAll(ctx, key, n, true, dice); err != nil || d.Allowed {
		m.count(key, &d, err, began)
	}
	return d, err
}

// Peek implements trypema.Keeper.
func (m *keeper) Peek(ctx context.Context, key string, n uint64) (trypema.Decision, error) {
	return m.judgeAll(ctx, key, max(n, 1), false, throw())
}

func (m *keeper) judgeAll(
	ctx context.Context, key string, n uint64, record bool, dice uint32,
) (d trypema.Decision, err error) {
	c, err := m.askAll(ctx, key, n, record, dice, nil, 0)
	return m.judged(ctx, key, n, record, c, err)
}

// judged makes a decision of what Redis has answered to a call, or why it has not. It takes all that the call
// asked for: without an answer, FailLocal decides it again.
func (m *keeper) judged(
	ctx context.Context, key string, n uint64, record bool, c *call, err error,
) (d trypema.Decision, _ error) {
	switch {
	case err == nil:
		d = m.told(c)
		if record && d.Allowed && m.local != nil {
			mine, err := m.memory().AllowN(ctx, key, n)
			m.correct(&d, &mine, err)
		}
		return d, nil
	case !isTrouble(err):
		return d, err
	case m.policy != FailLocal:
		return m.withoutRedis(n), nil
	}
	share := m.sharing()
	switch {
	case share == nil:
		return m.withoutRedis(n), nil
	case record:
		d, err = share.AllowN(ctx, key, n)
	default:
		d, err = share.Peek(ctx, key, n)
	}
	m.fallsBack() // before and after the decision: see decideLocally
	d.Fallback = true
	return d, err
}

// memory is the keeper in which calls that Redis has admitted are recorded: see remember.
func (m *keeper) memory() trypema.Keeper {
	if m.fellBackWithin(m.longest) {
		return m.fail.whole
	}
	return m.fail.all
}

// correct replaces d by the decision of the memory, if that is a denial.
func (m *keeper) correct(d, mine *trypema.Decision, err error) {
	if err == nil && !mine.Allowed {
		*d = *mine
		d.Fallback = true
	}
}

// sharing returns the keeper that decides for FailLocal; nil if the share is less than one call.
func (m *keeper) sharing() trypema.Keeper {
	m.fallsBack()
	return m.fail.share
}

// withoutRedis decides without any memory.
func (m *keeper) withoutRedis(n uint64) (d trypema.Decision) {
	if m.policy == FailOpen {
		d = redisproto.Open(m.tight, n)
	} else {
		d = redisproto.Closed(m.tight, n, m.retry, m.denial)
	}
	d.Fallback = true
	return d
}

// Usage implements trypema.Keeper.
func (m *keeper) Usage(ctx context.Context, key string) ([]trypema.Usage, error) {
	each := make([]each, len(m.limits))
	c, err := m.askAll(ctx, key, 1, false, throw(), each, 0)
	if err != nil {
		return nil, err
	}
	m.exchange.free(c)
	all := make([]trypema.Usage, len(m.limits))
	for i := range m.limits {
		all[i] = usageOf(m.limits[i].capacity, each[i].counts, each[i].factor)
	}
	return all, nil
}

// Delete implements trypema.Keeper. It takes a round trip for each limit.
func (m *keeper) Delete(ctx context.Context, key string) error {
	if err := m.check(key); err != nil {
		return err
	}
	form := m.form(key)
	for i := range m.limits {
		l := &m.limits[i]
		_, err := m.runSet(ctx, &l.set, l.names.Of(form), trypema.Always(), 0, trypema.Replace)
		if err != nil {
			return err
		}
	}
	return nil
}
