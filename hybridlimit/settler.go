package hybridlimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
	"weak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/script"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// settler sees to it that keys settle: those that are due, in one exchange each interval, and those that calls wait for, at
// once. A key that is in use is active, and has one place: it is due at a tick, it is ready for the next one, or a message
// of its is under way.
//
// The timer runs only while there are active keys, and knows the limiter by a weak pointer: one that is dropped without
// Close is collected. A key leaves when nobody has asked for it for a while and it has given back what it had.
type settler struct {
	mu     sync.Mutex
	active map[*account]struct{}
	tick   int64 // ticks are multiples of the interval; the last one that was looked at
	wheel  [wheelLen][]entry
	ready  []*account
	urgent []*account
	timer  *time.Timer
	armed  bool // the timer will fire, or its function runs
	closed bool

	flights int            // of urgent keys
	running sync.WaitGroup // ticks and flights

	wall   func() int64 // in ns; unlike that of the process, this clock goes on while the machine is suspended
	ahead  int64        // of the process's clock, when leases were ended last; it follows the wall slowly
	looked int64        // when the wall was looked at last
	slept  int64        // how much further ahead the wall was then

	rtt    float64 // ns of an exchange, on average; 0 until one was measured
	load   lease.Load
	before int64 // when the last tick began
	spent  int64 // in exchanges since then, all together
	made   int   // of those exchanges
}

// entry is a key in the wheel; out of date if it is due at another tick by now.
type entry struct {
	k   *account
	due int64
}

const (
	wheelLen = 1024
	maxKeys  = 64 // in one run of the script

	assumedTrip = float64(time.Millisecond) // of an exchange, until one was measured

	wallSlew = 256 // as a divisor: how much faster the wall may run without a suspension
	looks    = 3   // at the wall that must agree
)

func (s *settler) init(l *limiter) {
	s.active = make(map[*account]struct{})
	s.wall = func() int64 { return time.Now().UnixNano() }
	s.looked = l.now()
	s.ahead = s.wall() - s.looked
	l.setPace(l.terms.Interval)
}

// measured takes how long an exchange took, under the lock. The first is believed at once: who is told when to come again reckons
// with it, and must not be told of a later instant once it is known better.
func (l *limiter) measured(took float64) {
	s := &l.settler
	if s.rtt > 0 {
		s.rtt += (took - s.rtt) / 8
		return
	}
	s.rtt = max(took, 1)
	l.setPace(l.terms.Interval)
}

// believe takes it that exchanges take so long from now on: an answer came when what it granted had ended
// already, and so would the next one.
func (l *limiter) believe(took int64) {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	if float64(took) > s.rtt {
		s.rtt = float64(took)
		l.setPace(l.pace.Load().Interval)
	}
}

// setPace decides how fast settling is from now on.
func (l *limiter) setPace(interval int64) {
	rtt := l.settler.rtt
	if rtt == 0 {
		rtt = assumedTrip
	}
	l.pace.Store(lease.NewPace(&l.terms, int64(rtt), interval, len(l.settler.active)))
}

// schedule has a key settle at an instant, or earlier if it is due earlier.
func (l *limiter) schedule(k *account, at int64) {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.activateLocked(k)
	l.armLocked()
	if k.ready {
		return
	}
	due := (at + l.terms.Interval - 1) / l.terms.Interval
	switch {
	case due <= s.tick:
		k.due, k.ready = s.tick, true
		s.ready = append(s.ready, k)
	case k.due == 0 || due < k.due:
		s.placeLocked(entry{k, due})
	}
}

func (s *settler) activateLocked(k *account) {
	if !k.active {
		k.active = true
		s.active[k] = struct{}{}
	}
}

func (s *settler) placeLocked(e entry) {
	e.k.due = e.due
	slot := &s.wheel[min(e.due, s.tick+wheelLen-1)%wheelLen]
	*slot = append(*slot, e)
}

// advanceLocked makes ready what is due.
func (s *settler) advanceLocked(tick int64) {
	s.tick = max(s.tick, tick-wheelLen)
	for s.tick < tick {
		s.tick++
		slot := &s.wheel[s.tick%wheelLen]
		entries := *slot
		*slot = entries[:0]
		for _, e := range entries {
			switch {
			case e.k.due != e.due || e.k.ready:
			case e.due > tick:
				s.placeLocked(e)
			default:
				e.k.ready = true
				s.ready = append(s.ready, e.k)
			}
		}
		clear(entries[len(*slot):])
	}
}

// retire takes out keys that need nothing any more, unless somebody has asked for them meanwhile.
func (l *limiter) retire(keys []*account) {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if !k.ready && k.due == 0 && !k.urged {
			delete(s.active, k)
			k.active = false
		}
	}
}

func (l *limiter) armLocked() {
	s := &l.settler
	if s.armed {
		return
	}
	s.armed = true
	s.tick = max(s.tick, l.now()/l.terms.Interval)
	l.resetLocked(time.Duration(l.terms.Interval))
}

func (l *limiter) resetLocked(d time.Duration) {
	s := &l.settler
	if s.timer != nil {
		s.timer.Reset(d)
		return
	}
	w := weak.Make(l)
	s.timer = time.AfterFunc(d, func() {
		if l := w.Value(); l != nil {
			l.onTick()
		}
	})
}

// onTick is one firing of the timer: one exchange with the keys that are ready, or as many as fit.
func (l *limiter) onTick() {
	s := &l.settler
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.running.Add(1)
	began := l.now()
	resumed := s.lookLocked(l.now, l.terms.Window)
	s.mu.Unlock()
	if resumed {
		l.endLeases(began)
	}
	s.mu.Lock()
	s.advanceLocked(began / l.terms.Interval)
	batch, probes, held := l.takeReadyLocked()
	s.mu.Unlock()
	if len(probes) > 0 { // they may take long, and the others must not wait for that
		s.running.Add(1)
		go func() {
			defer s.running.Done()
			_ = l.settle(probes)
		}()
	}
	_ = l.settle(batch) // what is wrong comes up again, and the breaker knows

	s.mu.Lock()
	defer s.mu.Unlock()
	s.running.Done()
	took := l.now() - began
	rest := max(l.terms.Interval-began%l.terms.Interval-took, l.terms.Interval/4)
	left := max(0, len(s.ready)-held) // the others wait for their server, and not because there is too much to do
	lapsed := int(l.lapsed.Swap(0))
	l.setPace(s.load.Tick(&l.terms, began-s.before, s.spent, s.made, int64(s.rtt), left, lapsed, len(s.active)))
	s.before, s.spent, s.made = began, 0, 0
	if len(s.active) == 0 || s.closed {
		s.armed = false
		return
	}
	l.resetLocked(time.Duration(rest))
}

// lookLocked is resumedLocked at several looks. Between the readings of two clocks a goroutine may be
// suspended for any time, and so one look proves nothing.
func (s *settler) lookLocked(now func() int64, window int64) bool {
	for range looks - 1 {
		if s.sleptLocked(now()); s.slept < window/2 {
			return false
		}
	}
	return s.resumedLocked(now(), window)
}

// resumedLocked reports whether the machine was suspended for half a window or more, as the clock on the wall
// says. The process's own clock stands still then, so a lease would be used when the ledger does not charge
// it any more. What was suspended for less is charged still, and settled before that ends. A wall that is set
// forward costs a lease; one that is set back, nothing.
func (s *settler) resumedLocked(now, window int64) bool {
	s.sleptLocked(now)
	if s.slept < window/2 {
		return false
	}
	s.ahead, s.slept = s.ahead+s.slept, 0
	return true
}

// sleptLocked looks how long the machine was suspended since leases were ended for that. The process's clock
// must be read before the wall: a look that takes long then says too much, and the next one is right again,
// because only the least counts.
func (s *settler) sleptLocked(now int64) {
	ahead := s.wall() - now
	s.ahead = min(s.ahead+(now-s.looked)/wallSlew, ahead)
	s.looked, s.slept = now, ahead-s.ahead
}

// endLeases ends all that is on lease, and has every key settle and hear of the window anew.
func (l *limiter) endLeases(now int64) {
	s := &l.settler
	s.mu.Lock()
	keys := slices.Collect(maps.Keys(s.active))
	s.mu.Unlock()
	for _, k := range keys {
		sh := l.lock(k)
		k.End(now)
		sh.Unlock()
		l.schedule(k, 0)
	}
}

// takeReadyLocked takes the keys of the next exchange, and those whose server is gone and may be asked
// whether it is back. It returns how many are left that wait for their server.
func (l *limiter) takeReadyLocked() (batch, probes []*account, held int) {
	s := &l.settler
	switch {
	case len(s.ready) == 0:
		return nil, nil, 0
	case !l.breakers.Gone():
		batch = takeLocked(&s.ready, lease.MaxBatch)
	case l.breakers.Single():
		if probe, cause := l.breakers.Of("").Down(); cause != nil && !probe {
			return nil, nil, len(s.ready)
		}
		batch = takeLocked(&s.ready, lease.MaxBatch)
	default:
		batch, probes, held = l.pickReadyLocked()
	}
	for _, k := range slices.Concat(batch, probes) {
		k.due, k.ready = 0, false
	}
	return batch, probes, held
}

// pickReadyLocked is takeReadyLocked where some of several servers are gone.
func (l *limiter) pickReadyLocked() (batch, probes []*account, held int) {
	s := &l.settler
	asked := make(map[*breaker.Breaker]bool) // whether a server that is gone is asked now
	rest := s.ready[:0]
	for _, k := range s.ready {
		b := k.server.Load()
		gone := b.Gone()
		if gone {
			may, seen := asked[b]
			if !seen {
				probe, cause := b.Down()
				may = probe || cause == nil
				asked[b] = may
			}
			if !may {
				rest, held = append(rest, k), held+1
				continue
			}
			b = l.breakers.Of(k.name) // the key may have moved
			k.server.Store(b)
			gone = b.Gone()
		}
		switch {
		case gone && len(probes) < lease.MaxBatch:
			probes = append(probes, k)
		case !gone && len(batch) < lease.MaxBatch:
			batch = append(batch, k)
		default:
			rest = append(rest, k)
		}
	}
	clear(s.ready[len(rest):])
	s.ready = rest
	return batch, probes, held
}

// takeLocked takes up to n keys off a queue.
func takeLocked(queue *[]*account, n int) []*account {
	n = min(n, len(*queue))
	batch := slices.Clone((*queue)[:n])
	*queue = slices.Delete(*queue, 0, n)
	return batch
}

// urge has a key settle at once, for callers who wait. It reports whether that is possible still.
func (l *limiter) urge(k *account) bool {
	s := &l.settler
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || k.urged {
		return !s.closed
	}
	k.urged = true
	s.urgent = append(s.urgent, k)
	s.activateLocked(k)
	if s.flights < lease.MaxFlights {
		s.flights++
		s.running.Add(1)
		go l.fly()
	}
	return true
}

// fly makes exchanges with the keys that callers wait for, until there are none.
func (l *limiter) fly() {
	s := &l.settler
	defer s.running.Done()
	for {
		s.mu.Lock()
		batch := takeLocked(&s.urgent, lease.MaxBatch/4)
		for _, k := range batch {
			k.urged = false
		}
		if len(batch) == 0 {
			s.flights--
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		_ = l.settle(batch) // those who wait find out
	}
}

// item is one message in an exchange.
type item struct {
	k       *account
	server  *breaker.Breaker
	seq     uint64
	ask     string
	whole   bool
	settled bool // heard, or lost
}

// end settles an item, under the lock of its key, unless that has happened already. It reports whether it did.
func (i *item) end() bool {
	if i.settled || !i.k.Asking() || i.k.Seq() != i.seq {
		return false
	}
	i.settled = true
	return true
}

// settle asks Redis about keys, unless a message of theirs is under way.
func (l *limiter) settle(batch []*account) error {
	items := make([]*item, 0, len(batch))
	var done []*account
	for _, k := range batch {
		sh := l.lock(k)
		now := l.now()
		idle := k.gone || len(k.waiting) == 0 && k.Idle(&l.terms, now)
		switch {
		case k.Asking():
		case idle && (!k.Unsettled() && !k.Lent(now) || k.fault != nil):
			l.noteLease(k, 0)
			done = append(done, k)
		default:
			items = append(items, l.message(k, now, idle))
		}
		sh.Unlock()
	}
	l.retire(done)
	return l.exchange(context.Background(), items)
}

// message makes the next message of a key, whose lock is held.
func (l *limiter) message(k *account, now int64, giveBack bool) *item {
	server := l.breakers.Of(k.name)
	k.server.Store(server)
	want := lease.More
	switch {
	case giveBack:
		want = lease.Nothing
	case l.takesNothing(k):
		want = lease.Same
	}
	need := uint64(0)
	for _, w := range k.waiting {
		w.asked = true
		if w.mode != lease.Peek { // who only looks needs none
			need = min(need+w.cost, w.capacity)
		}
	}
	m := k.Ask(&l.terms, l.pace.Load(), now, need, want)
	return &item{k: k, server: server, seq: m.Seq, ask: script.Message(m), whole: m.Whole}
}

// exchange sends messages, and returns when all of them are answered or lost, with what is wrong with Redis, or with any of
// the keys. A client that can not be interrupted may overstay; its answers are then not heard.
func (l *limiter) exchange(caller context.Context, items []*item) error {
	if len(items) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(caller, l.options.Timeout)
	defer cancel()
	began := l.now()
	var mu sync.Mutex // guards the three below
	var wrong error
	answered := int64(0) // when the last answer came that was good and in time; 0 for none
	servers := outcomesOf(items)
	done := make(chan struct{})
	common := append(l.spanArgs(), strconv.FormatInt(l.pace.Load().FarLife(&l.terms), 10))
	go func() {
		defer close(done)
		script.Run(ctx, l.server, func(s *script.Scripts) script.Script { return s.Settle }, items,
			func(items []*item, together bool) [][]*item {
				n := 1
				if together {
					n = maxKeys
				}
				return slices.Collect(slices.Chunk(items, n))
			},
			func(parcel []*item) (keys, args []string) {
				args = slices.Clone(common)
				for _, i := range parcel {
					keys = append(keys, i.k.name)
					args = append(args, i.ask)
				}
				return keys, args
			},
			func(parcel []*item, reply []any, err error, last bool) (again, mend []*item) {
				r := script.NewReader(reply)
				for _, i := range parcel {
					err := l.answer(i, r, err, last)
					if script.IsUnreadable(err) {
						if !last {
							again = append(again, i)
							continue
						}
						mend = append(mend, i)
					}
					mu.Lock()
					if err != nil {
						wrong, servers.of(i).wrong = err, err
					}
					if ctx.Err() == nil && (err == nil || script.IsKeyFault(err)) { // or it is too late
						answered, servers.of(i).good = l.now(), true
					}
					mu.Unlock()
				}
				return again, mend
			},
			func(i *item) script.Windows { return l.windowOf(i.k.name) })
	}()
	overdue := time.NewTimer(l.options.Timeout + l.options.Timeout/4)
	defer overdue.Stop()
	var late error
	select {
	case <-done:
	case <-overdue.C:
		late = l.noAnswer()
	case <-caller.Done():
		if late = ended(caller); errors.Is(late, redislimit.ErrUnavailable) {
			late = l.noAnswer()
		}
	}
	if late != nil {
		for _, i := range items {
			if l.lost(i, late) {
				mu.Lock()
				wrong, servers.of(i).wrong = late, late
				mu.Unlock()
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	given := caller.Err() == nil || l.now()-began >= int64(l.options.Timeout) // the time
	for _, o := range servers {
		switch {
		case o.good:
			o.server.Success()
		case given:
			o.server.Failure(cmp.Or(o.wrong, l.noAnswer())) // which came, but too late
		}
	}
	switch {
	case answered > 0:
		took := answered - began // what did not answer says nothing of those who do
		l.settler.mu.Lock()
		if len(items) <= maxKeys { // larger ones say more of themselves than of the way
			l.measured(float64(took))
		}
		l.settler.spent += took
		l.settler.made++
		l.settler.mu.Unlock()
		l.failing.Store(0)
	case given:
		l.failing.CompareAndSwap(0, began)
	}
	return wrong
}

func (l *limiter) noAnswer() error { return fmt.Errorf("no answer within %v", l.options.Timeout) }

// outcome is what came of an exchange with one server.
type outcome struct {
	server *breaker.Breaker
	good   bool
	wrong  error
}

// outcomes are those of the few servers in one exchange.
type outcomes []*outcome

func outcomesOf(items []*item) (all outcomes) {
	for _, i := range items {
		if all.of(i) == nil {
			all = append(all, &outcome{server: i.server})
		}
	}
	return all
}

func (all outcomes) of(i *item) *outcome {
	for _, o := range all {
		if o.server == i.server {
			return o
		}
	}
	return nil
}

// span is the window and the bucket as Redis counts them.
func (l *limiter) span() window.Span {
	return window.Span{Window: l.terms.Window / l.terms.Micro, Bucket: l.terms.Bucket / l.terms.Micro}
}

// spanArgs are the arguments that every script begins with.
func (l *limiter) spanArgs() []string { return script.SpanArgs(l.span()) }

// windowOf is the window with that name, as mend.lua must know it.
func (l *limiter) windowOf(name string) script.Windows {
	return script.Windows{Kind: l.names.Letter(), Keys: []string{name}, Spans: []window.Span{l.span()}}
}

// answer takes what Redis says to one message. It returns what is wrong with it. A message whose key cannot
// be read is still under way then, unless it is the last time.
func (l *limiter) answer(i *item, r *script.Reader, err error, last bool) error {
	var m lease.Answer
	if err == nil {
		if fault, ok := r.Fault(); ok {
			err = errors.New(fault)
		} else {
			m, err = script.ReadAnswer(r, i.whole)
		}
	}
	if script.IsUnreadable(err) && !last {
		return err
	}
	if err != nil {
		l.lost(i, err)
		return err
	}
	k := i.k
	sh := l.lock(k)
	now := l.now()
	if !i.end() {
		sh.Unlock()
		return nil
	}
	groups := &sh.Memory
	if k.gone {
		groups = new(window.Groups)
	}
	pace := l.pace.Load()
	k.Hear(groups, &l.terms, pace, now, m)
	wasted := m.Grant > 0 && !k.Fresh(now)
	l.noteLease(k, int64(k.Leased()))
	k.fault = nil
	more, due := false, now
	if k.gone {
		k.fail(nil) // they find another
	} else {
		more = l.serve(sh, k, now)
		due = k.Due(groups, &l.terms, pace, now)
	}
	k.wake()
	took := now - k.SentAt()
	sh.Unlock()
	if wasted {
		l.believe(took)
	}
	l.schedule(k, due)
	if more {
		l.urge(k)
	}
	return nil
}

// lost notes that a message has no answer. It reports whether it had none so far.
func (l *limiter) lost(i *item, err error) bool {
	k := i.k
	sh := l.lock(k)
	if !i.end() {
		sh.Unlock()
		return false
	}
	k.Lost()
	again := l.terms.Interval
	if script.IsKeyFault(err) {
		k.fault = fmt.Errorf("hybridlimit: the Redis key %q: %w", k.name, err)
		again = int64(l.options.RetryInterval)
	}
	k.fail(k.fault)
	k.wake()
	sh.Unlock()
	l.schedule(k, l.now()+again)
	return true
}

// settled calls then under the lock of a key that has just settled, and if so wished given back its lease.
func (l *limiter) settled(
	ctx context.Context, form string, giveBack bool, then func(*shard, *account),
) error {
	hash := l.table.Hash(form)
	return l.settledAt(ctx, l.names.Of(form), func(now int64) (*shard, *account) {
		sh, _, k := l.acquire(hash, form, now)
		return sh, k
	}, giveBack, then)
}

// settledAt is settled for the account with a name in Redis that find finds, under its lock.
func (l *limiter) settledAt(
	ctx context.Context, name string, find func(now int64) (*shard, *account), giveBack bool,
	then func(*shard, *account),
) error {
	k, i, err := l.claim(ctx, name, find, giveBack)
	if err != nil {
		return err
	}
	err = l.exchange(ctx, []*item{i})
	sh := l.lock(k)
	defer sh.Unlock()
	switch {
	case k.fault != nil:
		return k.fault
	case ctx.Err() != nil:
		return ended(ctx)
	case err != nil && !errors.Is(err, redislimit.ErrUnavailable):
		return fmt.Errorf("%w: %w", redislimit.ErrUnavailable, err)
	case err != nil:
		return err
	}
	then(sh, k)
	return nil
}

// claim makes the next message of the account that find finds, under its lock, once none is under way.
func (l *limiter) claim(
	ctx context.Context, name string, find func(now int64) (*shard, *account), giveBack bool,
) (*account, *item, error) {
	for began := l.now(); l.now()-began < int64(l.options.Timeout); {
		if l.breakers.Gone() {
			if probe, cause := l.breakers.Of(name).Down(); cause != nil && !probe {
				return nil, nil, fmt.Errorf("%w: %w", redislimit.ErrUnavailable, cause)
			}
		}
		if ctx.Err() != nil {
			return nil, nil, ended(ctx)
		}
		now := l.now()
		sh, k := find(now)
		if l.closed.Load() {
			sh.Unlock()
			return nil, nil, trypema.ErrClosed
		}
		if !k.Asking() {
			i := l.message(k, now, giveBack || k.gone || !k.Fresh(now))
			sh.Unlock()
			return k, i, nil
		}
		answered := k.wait()
		sh.Unlock()
		if err := l.await(ctx, answered, began); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("%w: no answer within %v", redislimit.ErrUnavailable, l.options.Timeout)
}

// runSet runs set.lua.
func (l *limiter) runSet(ctx context.Context, name string, args []string) (matched bool, have uint64, err error) {
	err = l.runOne(ctx, name, func(s *script.Scripts) script.Script { return s.Set }, append(l.spanArgs(), args...), func(r *script.Reader) {
		matched, have = r.Count(1) == 1, r.Count(1<<53)
	})
	return matched, have, err
}

// runOne runs a script on one key, and reads its reply. It does not wait for a client that can not be interrupted.
func (l *limiter) runOne(ctx context.Context, name string, pick func(*script.Scripts) script.Script, args []string, read func(*script.Reader)) error {
	type result struct {
		reply []any
		err   error
	}
	done := make(chan result, 1)
	go script.Run(ctx, l.server, pick, []string{name},
		func(names []string, _ bool) [][]string { return [][]string{names} },
		func([]string) ([]string, []string) { return []string{name}, args },
		func(names []string, reply []any, err error, last bool) (again, mend []string) {
			if fault, ok := script.NewReader(reply).Fault(); ok && err == nil {
				err = errors.New(fault)
			}
			if script.IsUnreadable(err) && !last {
				return names, nil
			}
			done <- result{reply, err}
			return nil, nil
		}, l.windowOf)
	var err error
	select {
	case got := <-done:
		if err = got.err; err != nil {
			break
		}
		r := script.NewReader(got.reply)
		read(r)
		err = r.Done()
	case <-ctx.Done():
		err = ended(ctx)
	}
	switch {
	case script.IsKeyFault(err):
		return fmt.Errorf("hybridlimit: the Redis key %q: %w", name, err)
	case err != nil && !errors.Is(err, redislimit.ErrUnavailable):
		return fmt.Errorf("%w: %w", redislimit.ErrUnavailable, err)
	}
	return err
}

// within bounds all that one call does, by the timeout.
func (l *limiter) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, l.options.Timeout, fmt.Errorf("%w: no answer within %v", redislimit.ErrUnavailable, l.options.Timeout))
}

// ended returns why a context has ended: it is over, or that of a call was, by within.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, redislimit.ErrUnavailable) {
		return cause
	}
	return ctx.Err()
}

// flush settles what there is, and gives all back if so wished.
func (l *limiter) flush(ctx context.Context, giveBack bool) error {
	s := &l.settler
	s.mu.Lock()
	keys := make([]*account, 0, len(s.active))
	for k := range s.active {
		keys = append(keys, k)
	}
	s.mu.Unlock()
	var wrong error
	for len(keys) > 0 && (wrong == nil || script.IsKeyFault(wrong)) {
		n := min(lease.MaxBatch, len(keys))
		var items []*item
		var later []*account
		var waits []chan struct{}
		for _, k := range keys[:n] {
			sh := l.lock(k)
			switch {
			case k.Asking():
				later = append(later, k)
				waits = append(waits, k.wait())
			case k.Unsettled() || giveBack && k.Lent(l.now()):
				items = append(items, l.message(k, l.now(), giveBack))
			}
			sh.Unlock()
		}
		keys = append(later, keys[n:]...)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.exchange(ctx, items); err != nil {
			wrong = err
		}
		for _, w := range waits {
			select {
			case <-w:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if wrong != nil {
		return fmt.Errorf("hybridlimit: not all could be settled: %w", wrong)
	}
	return nil
}

// close ends the timer and the flights, and settles everything, once.
func (l *limiter) close() error {
	var err error
	l.closing.Do(func() {
		l.closed.Store(true)
		s := &l.settler
		s.mu.Lock()
		s.closed = true
		if s.timer != nil {
			s.timer.Stop()
		}
		s.mu.Unlock()
		s.running.Wait()
		err = l.flush(context.Background(), true)
		s.mu.Lock()
		active := s.active
		s.active = nil
		s.mu.Unlock()
		for k := range active { // those who wait see that it is closed
			sh := l.lock(k)
			k.fail(nil)
			k.wake()
			sh.Unlock()
		}
		l.table.Close()
	})
	return err
}
