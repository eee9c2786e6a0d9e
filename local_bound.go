package trypema

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/inuse"
	"github.com/trypema/trypema/internal/keys"
	"github.com/trypema/trypema/internal/window"
)

// localKeeper keeps limits on Local. A decision locks the windows of the key, judges by each, and records in
// all or none.
//
// Locks are taken in the order of lockOrder; everything else takes one at a time. So nothing waits in a
// circle.
type localKeeper struct {
	limits   []localLimit // in the order of the locks
	strategy Strategy
	counter  *localKeys // those of the strategy, which count for the Observer
	owner    *Local
	group    string // what its keys start with, if they are those of a group
}

type localLimit struct {
	*localKeys
	label    string
	place    int // among the limits as they were given
	rate     Rate
	capacity uint64
	shown    uint64      // what Decision.Limit says instead of the capacity, unless 0
	law      *window.Law // of Suppressed
}

// Bind returns limits that are kept for any key, or what is wrong with them: see CheckLimits. It is cheap.
func (l *Local) Bind(s Strategy, limits ...Limit) (*Bound, error) {
	if l == nil || l.done == nil {
		return nil, errNoLocal
	}
	return NewBound(s, limits, func(limits []Limit) (Keeper, error) { return l.keep(s, limits).alone(), nil })
}

// keep returns a keeper of limits that were checked.
func (l *Local) keep(s Strategy, limits []Limit) *localKeeper {
	m := &localKeeper{strategy: s, counter: l.own(s), owner: l}
	m.limits = make([]localLimit, 0, len(limits))
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, limit := range limits {
		c, _ := limit.Capacity() // it was checked
		one := localLimit{localKeys: l.keysOfLocked(s, limit.Window), label: limit.Label(), place: i,
			rate: limit.Rate, capacity: c}
		if s == StrategySuppressed {
			one.law = window.NewLaw(one.lawSpan, c, l.suppressed.hardFactor)
		}
		m.limits = append(m.limits, one)
		inuse.Hold(&m.limits[i], &one.users) // which keepers of groups have, too
	}
	slices.SortFunc(m.limits, func(a, b localLimit) int { return a.compare(b.localKeys) })
	return m
}

// InGroup returns a keeper of the same limits for the keys of a group: see Keeper.
func (m *localKeeper) InGroup(group string) Keeper {
	in := *m
	in.group = groupkey.Prefix(group)
	return in.alone()
}

// Showing returns a keeper of the same limits that says instead of each capacity, in the order in which the
// limits were given, that of another provider, whose share it is.
func (m *localKeeper) Showing(capacities []uint64) Keeper {
	in := *m
	in.limits = slices.Clone(m.limits)
	for i := range in.limits {
		l := &in.limits[i]
		l.shown = capacities[l.place]
		inuse.Hold(l, &l.users)
	}
	runtime.KeepAlive(m) // or what they have could go before they are held again
	return in.alone()
}

// Done is closed by Close of the provider: see Keeper.
func (m *localKeeper) Done() <-chan struct{} { return m.owner.done }

// form returns the form of a key.
func (m *localKeeper) form(key string) string { return form(m.group, key) }

// form returns the form of a key, which starts with group if it is that of one.
func form(group, key string) string {
	if group == "" {
		return groupkey.Plain(key)
	}
	return group + key
}

// localAlone is a keeper of a single limit, which decides with no more than a Limiter has to do.
type localAlone struct {
	limit localLimit // a copy, which is one pointer less to follow
	localKeeper
}

// alone returns the keeper, as a localAlone if it is one.
func (m *localKeeper) alone() Keeper {
	if len(m.limits) > 1 {
		return m
	}
	return &localAlone{m.limits[0], *m}
}

// localOf returns the keeper behind one of Local, or nil if it is none.
func localOf(k Keeper) *localKeeper {
	switch k := k.(type) {
	case *localKeeper:
		return k
	case *localAlone:
		return &k.localKeeper
	}
	return nil
}

func (m *localAlone) AllowN(_ context.Context, key string, n uint64) (d Decision, err error) {
	err = m.allow(&d, key, n)
	return d, err
}

// allow is AllowN without a copy of the decision.
func (m *localAlone) allow(d *Decision, key string, n uint64) error {
	l := &m.limit
	if n == 0 || len(key) > maxKeyLen || l.closed.Load() {
		return m.counter.failed(n, m.check(key))
	}
	key = m.form(key)
	if l.law == nil {
		l.absolute(d, key, l.capacity, n)
	} else {
		l.suppressed(d, key, l.law, m.owner.suppressed.dice(), n)
	}
	m.told(d)
	return nil
}

// told makes a decision one of the limit.
func (m *localAlone) told(d *Decision) {
	if m.limit.shown != 0 {
		m.limit.show(d)
	}
	if !d.Allowed {
		d.RefusedBy = m.limit.label
	}
}

func (m *localKeeper) AllowN(_ context.Context, key string, n uint64) (d Decision, err error) {
	err = m.take(&d, key, n, 0, nil, false)
	return d, err
}

// Again is AllowN for a call that was denied before, and that Suppressed has counted as declined: see Keeper.
func (m *localKeeper) Again(_ context.Context, key string, n uint64) (d Decision, err error) {
	err = m.take(&d, key, n, 0, nil, true)
	return d, err
}

// take decides a call, records it, with a life if that is not 0, and counts it. A call that is made again is
// neither recorded nor counted if it is denied.
func (m *localKeeper) take(
	d *Decision, key string, n uint64, life time.Duration, at *[MaxLimits]int64, again bool,
) error {
	if err := m.check(key); err != nil || n == 0 {
		return m.counter.failed(n, err)
	}
	key = m.form(key)
	now := m.counter.now()
	if at != nil || m.strategy != StrategyAbsolute || !m.denied(d, key, now, n) {
		var all [MaxLimits]party
		parties := m.parties(all[:0], key, n)
		m.decide(d, parties, now, true, again, life, at)
	}
	if d.Allowed || !again {
		m.counter.count(d.Allowed, key, now)
	}
	return nil
}

func (m *localKeeper) Peek(_ context.Context, key string, n uint64) (d Decision, err error) {
	if err := m.check(key); err != nil {
		return d, err
	}
	now := m.counter.now()
	key, n = m.form(key), max(n, 1)
	if m.strategy != StrategyAbsolute || !m.denied(&d, key, now, n) {
		var all [MaxLimits]party
		m.decide(&d, m.parties(all[:0], key, n), now, false, false, 0, nil)
	}
	return d, nil
}

// check returns what is wrong with a key, or that the provider is closed.
func (m *localKeeper) check(key string) error {
	if k := m.limits[0].localKeys; len(key) > maxKeyLen || k.closed.Load() {
		return k.refuse(key, Unlimited)
	}
	return nil
}

// party is one limit of one key in a decision, and what is locked for it.
type party struct {
	*localLimit
	key  string
	hash uint64
	cost uint64

	keys.Held
	there  bool
	newest int64 // which cell was, before the call
	now    int64 // by the clock of the window, which is that of its provider
	v      window.Verdict
}

// parties appends the limits, in the order of the locks, as they decide a call.
func (m *localKeeper) parties(to []party, key string, n uint64) []party {
	for i := range m.limits {
		l := &m.limits[i]
		to = append(to, party{localLimit: l, key: key, hash: l.table.Hash(key), cost: n})
	}
	return to
}

// lockOrder is the order in which entries are locked: by the keys that they belong to, and then by hash.
func lockOrder(a, b party) int {
	return cmp.Or(a.compare(b.localKeys), cmp.Compare(a.hash, b.hash), cmp.Compare(a.key, b.key))
}

// after reports whether party i has the same table as the one before it.
func after(parties []party, i int) bool {
	return i > 0 && parties[i].localKeys == parties[i-1].localKeys
}

// decide makes d, and tells when it was admitted in each window if that is wanted. Parties are in the order
// of the locks.
//
// Invariant: all entries are locked from the first verdict to the last record, so a call is recorded by all
// parties or by none, at one instant.
//
// Its arguments, like those of take, are what AllowN, Again, Peek and Reserve ask for differently.
func (m *localKeeper) decide(
	d *Decision, parties []party, now int64, record, again bool, life time.Duration, at *[MaxLimits]int64,
) {
	allowed, dice, certain := true, m.owner.suppressed.dice(), false
	for i := range parties {
		p := &parties[i]
		certain = certain || p.law == nil && p.cost > p.capacity
		p.now = p.instant(m.counter, now)
	}
	for !lockAll(parties, record, certain) {
		runtime.Gosched() // another call is adding or removing one of the keys
	}
	for i := range parties {
		p := &parties[i]
		p.newest = p.Newest()
		p.now = p.Advance(p.now)
		if p.law == nil {
			p.Absolute(&p.v, p.capacity, p.now, p.cost, false)
		} else {
			p.Throw(&p.v, p.law, p.now, p.cost, dice)
		}
		allowed = allowed && p.v.Allowed
	}
	var t window.Joint
	for i := range parties {
		p := &parties[i]
		var counts window.Counts
		switch {
		case !record:
		case allowed:
			counts.Admitted = p.cost
		case p.law != nil && !again:
			counts.Declined = p.cost
		}
		if counts != (window.Counts{}) {
			p.record(counts, life)
		}
		switch {
		case p.law != nil:
			p.Tell(&p.v, p.law, p.now, p.cost)
		case allowed && record:
			p.v.Now += p.cost
			p.v.Then = p.v.Now
		}
		t.Add(i, p.capacity, &p.v)
		if at != nil {
			at[i] = p.now
		}
		if !allowed && record && p.law == nil && p.there {
			p.Asked(p.newest, p.capacity, nil, p.now)
		}
	}
	unlockAll(parties)
	parties[t.Limit].tell(d, &t)
}

// unlockAll unlocks the entries of all parties. Then their tables evict keys beyond MaxKeys.
func unlockAll(parties []party) {
	for i := range parties {
		parties[i].Unlock()
	}
	for i := range parties {
		if i+1 == len(parties) || !after(parties, i+1) {
			parties[i].table.Trim()
		}
	}
}

// enters reports whether a party adds its key. What records nothing must not make a key.
func (p *party) enters(record, certain bool) bool { return record && (!certain || p.law != nil) }

// lockAll locks the entries of all parties that are there, or are to be added, or reports that it could not.
//
// Whoever holds an entry must not wait for a shard of the same table. So if two parties have one table, all
// keys are added before the first is locked, and all is given back if one of them has gone by then.
func lockAll(parties []party, record, certain bool) (ok bool) {
	several := false
	for i := range parties {
		several = several || after(parties, i)
	}
	if several {
		for i := range parties {
			if p := &parties[i]; p.enters(record, certain) {
				p.table.Enter(p.hash, p.key, p.now)
			}
		}
	}
	locked, missing := 0, 0
	defer func() {
		for i := range parties[:locked] {
			if !ok {
				parties[i].Unlock()
			}
		}
	}()
	for i := range parties {
		p := &parties[i]
		p.table.Look(&p.Held, p.hash)
		sure := true
		switch {
		case !several && p.enters(record, certain):
			p.Acquire(p.key, p.now)
			p.there = true
		case after(parties, i):
			p.there, sure = p.TryFind(p.key)
		default:
			p.there = p.Find(p.key)
		}
		locked++
		if !sure || several && !p.there && p.enters(record, certain) {
			return false
		}
		if !p.there {
			missing++
		} else if record {
			p.Use(p.now)
		}
	}
	// A key that was not there when it was looked for must not be there now, when the others are locked.
	for i := range parties {
		if p := &parties[i]; missing > 0 && locked > 1 && !p.there && !p.table.Misses(p.hash, p.key) {
			return false
		}
	}
	return true
}

// record records a call, with a life if that is not 0. The entry must be locked.
func (p *party) record(counts window.Counts, life time.Duration) {
	if from := p.span.Backdate(p.now, int64(life)); counts.Admitted > 0 && from < p.now {
		p.Place(p.now, from, counts)
	} else {
		p.Record(p.now, counts)
	}
}

// denied reports whether a call is denied without any lock: the key is hot in all windows, and one of them
// has no room. It then makes d.
func (m *localKeeper) denied(d *Decision, key string, now int64, n uint64) bool {
	var t window.Joint
	for i := range m.limits {
		l := &m.limits[i]
		f := l.table.Hot(l.table.Hash(key), key)
		if f == nil {
			return false
		}
		l.table.Called(f, now)
		a, have, at, then := f.Take(l.capacity, now, n, false)
		if a == keys.Unknown {
			return false
		}
		v := window.Verdict{Allowed: a == keys.Admitted, Now: have, Then: then}
		if !v.Allowed {
			v.Wait = at - now
		}
		t.Add(i, l.capacity, &v)
	}
	if t.Allowed {
		return false
	}
	m.limits[t.Limit].tell(d, &t)
	return true
}

// tell makes d what a tally means that is about the limit.
func (l *localLimit) tell(d *Decision, t *window.Joint) {
	denial := OutcomeRejected
	if l.law != nil {
		denial = OutcomeSuppressed
	}
	d.set(t.Capacity, &t.Verdict, denial)
	d.SuppressionFactor = t.Most
	l.show(d)
	if !t.Allowed {
		d.RefusedBy = l.label
	}
}

// show has d say the capacity that is shown instead of that of the limit, if one is.
func (l *localLimit) show(d *Decision) {
	if l.shown == 0 {
		return
	}
	d.Limit = l.shown
	d.Remaining = min(d.Remaining, d.Limit)
	d.RemainingAfterWaiting = min(d.RemainingAfterWaiting, d.Limit)
}

// AllowAll decides calls of several keepers of Local, of one provider or of several, in one step: see All.
// What the same key is asked in the same window adds up, and the least of the limits counts.
func (m *localKeeper) AllowAll(_ context.Context, asks []KeptAsk) (d Decision, ok bool, err error) {
	parties := make([]party, 0, 2*len(asks))
	for _, a := range asks {
		k := localOf(a.Keeper)
		if k == nil {
			return d, false, nil
		}
		if err := k.check(a.Key); err != nil {
			return d, false, k.counter.failed(a.Cost, err)
		}
		parties = k.parties(parties, k.form(a.Key), a.Cost)
	}
	slices.SortStableFunc(parties, lockOrder)
	parties = mergeParties(parties)
	now := m.counter.now()
	m.decide(&d, parties, now, true, false, 0, nil)
	for _, a := range asks {
		k := localOf(a.Keeper)
		k.counter.count(d.Allowed, k.form(a.Key), k.counter.instant(m.counter, now))
	}
	return d, true, nil
}

// mergeParties makes one party of those that share a window.
func mergeParties(parties []party) []party {
	merged := parties[:0]
next:
	for _, p := range parties {
		for i := range merged {
			of := &merged[i]
			if of.localKeys != p.localKeys || of.key != p.key {
				continue
			}
			if p.capacity < of.capacity {
				of.localLimit = p.localLimit
			}
			of.cost = window.SumOf(of.cost, p.cost)
			continue next
		}
		merged = append(merged, p)
	}
	return merged
}

func (m *localKeeper) Reserve(
	_ context.Context, key string, estimate uint64, expiry time.Duration,
) (*Reservation, error) {
	if expiry < 0 {
		return nil, expiryError(expiry)
	}
	var d Decision
	at := new([MaxLimits]int64)
	if err := m.take(&d, key, estimate, expiry, at, false); err != nil {
		return nil, err
	}
	return NewReservation(d, estimate, 0, func(_ context.Context, was, is uint64) error {
		return m.settle(key, expiry, at, was, is)
	}), nil
}

// settle changes what a call counts that was admitted at the given instants, with a life.
func (m *localKeeper) settle(key string, life time.Duration, at *[MaxLimits]int64, was, is uint64) error {
	if err := m.check(key); err != nil {
		return err
	}
	key = m.form(key)
	for i := range m.limits {
		l := &m.limits[i]
		var hd keys.Held
		now, there := l.find(&hd, key)
		if !there && is > 0 && now-at[i] < l.span.Window {
			hd.Acquire(key, now)
			now = hd.Advance(now)
			there = true
		}
		if there {
			hd.Commit(now, l.span.Backdate(at[i], int64(life)), at[i], was, is)
		}
		hd.Unlock()
	}
	return nil
}

// GiveBack takes up to n out of each window of a key, one after the other: see Keeper.
func (m *localKeeper) GiveBack(_ context.Context, key string, n uint64) error {
	if err := m.check(key); err != nil {
		return err
	}
	key = m.form(key)
	for i := range m.limits {
		m.limits[i].giveBack(key, n)
	}
	return nil
}

func (m *localKeeper) Usage(_ context.Context, key string) ([]Usage, error) {
	if err := m.check(key); err != nil {
		return nil, err
	}
	key = m.form(key)
	all := make([]Usage, len(m.limits))
	for i := range m.limits {
		l := &m.limits[i]
		var law func(uint64) *window.Law
		if l.law != nil {
			law = func(uint64) *window.Law { return l.law }
		}
		u, err := l.usage(key, l.rate, law)
		if err != nil {
			return nil, err
		}
		all[l.place] = u
	}
	return all, nil
}

func (m *localKeeper) Delete(_ context.Context, key string) error {
	if err := m.check(key); err != nil {
		return err
	}
	key = m.form(key)
	for i := range m.limits {
		m.limits[i].remove(key)
	}
	return nil
}
