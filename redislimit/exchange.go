package redislimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/breaker"
	"github.com/trypema/trypema/internal/script"
	"github.com/trypema/trypema/internal/window"
)

// exchange takes calls to Redis and brings back the answers. Calls share round trips:
//
//   - While a batch of calls for a key is under way, later calls for that key gather in the next one. So
//     there is at most one batch of a key under way, the calls of a key are decided in the order in which
//     they came, and a key that is asked for a lot costs one script call per round trip.
//   - Batches that are ready leave together, in flights. There are at most maxFlights at a time; while all
//     are in the air, batches for more keys gather for the next. A flight that has not ended at its deadline,
//     because the client can not be interrupted, is lost: another may go in its place.
//
// A batch is in one state at a time, which mu guards: waiting, sent, and then settled, once, by whoever comes
// first: the answer, the deadline of its last call, or Close. Only who settles a batch writes to its calls,
// and its callers wait for that.
//
// Each call has the whole timeout, from its own arrival, however old the batch is that it joins and whatever
// else travels with it. A call whose deadline passes leaves its batch, and the others go on. An exchange has
// the timeout, too, from its start. It counts against a server if that gives no answer to any of its calls in
// time, unless it has given another one since the latest of these calls was made: then they have waited for
// others and not for the server.
type exchange struct {
	server   *script.Server
	breakers *breaker.Set
	timeout  time.Duration
	decide   *operation
	started  time.Time

	ctx    context.Context // ended by Close
	cancel context.CancelFunc
	flying sync.WaitGroup
	calls  sync.Pool

	mu      sync.Mutex
	closed  bool
	lanes   map[string]*lane // by key: those with a batch that is not settled
	ready   []*batch
	flights int
	lost    int   // flights that are not counted any more, but may still end
	first   *call // of those whose batches are not settled, in the order of their deadlines
	last    *call
	watch   *time.Timer // ends calls that are too late
	armed   bool
}

const (
	maxFlights = 4
	maxLost    = 16
	maxCalls   = 512 // in a batch
	maxBatches = 256 // in an exchange
	maxKeys    = 64  // in one run of a script
)

// operation is a script, with how to ask it and how to read its answer.
type operation struct {
	single bool // each call is a batch, and travels alone
	once   bool // it is not sent again: what it does twice would not be the same
	dice   bool // that the script throws
	script func(*script.Scripts) script.Script

	// keys are the KEYS for a batch, if they are not its key alone; such a batch travels alone.
	keys func(key string) []string
	// windows are those of a batch.
	windows func(key string) script.Windows

	// args returns the ARGV of one run of the script for batches that ask the same.
	args func(batches []*batch) []string
	// read takes the answer to one batch, and tells it the calls; nil if no caller waits for them any more.
	// An
	// error about what the key holds is that of the calls, unless they have an answer all the same.
	read func(r *script.Reader, runs []run, calls []*call) error
}

// run is a number of equal calls in a row.
type run struct {
	capacity, cost uint64
	record         bool
	life           int64 // µs; that of a reservation with an expiry, or 0
	n              int
}

// call is one question of one caller. What is asked is written before it is handed over, the answer before
// done.
type call struct {
	capacity, cost uint64
	record         bool     // or only ask
	life           int64    // as in a run
	dice           uint32   // 24 bits
	set            []string // arguments of set.lua or commit.lua

	verdict window.Verdict // times in µs
	counts  window.Counts  // in the window, before the call
	matched bool
	each    []each // of several limits, if that is wanted
	refused int    // which of them, or -1
	err     error

	done chan struct{} // takes one element; nil in a ghost, which stands for a call that has left

	deadline int64 // ns since started

	// Guarded by the lock of the exchange.
	batch         *batch // nil unless it is in the list of the exchange
	before, after *call
}

// newCall returns a call to fill in. Their channels belong to the clock that the provider lives in, so the
// pool does, too.
func (x *exchange) newCall() *call {
	if c, ok := x.calls.Get().(*call); ok {
		return c
	}
	return &call{done: make(chan struct{}, 1)}
}

// free takes back a call whose answer has been read.
func (x *exchange) free(c *call) {
	*c = call{done: c.done}
	x.calls.Put(c)
}

// lane holds the batches of one key in turn. The first is ready or sent.
type lane struct{ batches []*batch }

type batch struct {
	key    string
	op     *operation
	calls  []*call // nil where a call has left, until it is sent, and a ghost from then on
	left   int     // calls that are in the list of the exchange
	head   int     // calls in front that have left
	runs   []run   // what calls ask, from when it is sent: they may be others once it is settled
	dice   []byte
	set    []string
	state  state
	flight *flight // that it left with
	part   *part
}

// flight is a goroutine that makes exchanges.
type flight struct {
	lost  bool // guarded by the lock of the exchange
	parts []*part
}

// part is that of one server in an exchange.
type part struct {
	breaker  *breaker.Breaker
	deadline int64 // the latest of its calls, in ns since started

	// Guarded by the lock of the exchange.
	open     int  // batches that are not settled
	answered bool // one was settled by an answer

	good  bool  // guarded by the lock of the run: there was an answer
	cause error // and so is this: why there was none
}

type state uint8

const (
	waiting state = iota // behind another batch of its key, or for a flight
	sent
	settled
)

func newExchange(s *script.Server, b *breaker.Set, timeout time.Duration, decide *operation) *exchange {
	x := &exchange{server: s, breakers: b, timeout: timeout, decide: decide, started: time.Now()}
	x.lanes = make(map[string]*lane)
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x
}

// do asks Redis, and returns when c has its answer, or why it has none: a trouble if the failure policy has
// to decide. An ErrInDoubt leaves c to Redis; it must not be used again.
func (x *exchange) do(ctx context.Context, op *operation, key string, c *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.breakers.Gone() {
		if probe, cause := x.breakers.Of(key).Down(); cause != nil {
			if probe {
				// It asks for the same key, records nothing, and nobody waits for it.
				_ = x.submit(x.decide, key, &call{capacity: 1, cost: 1, done: make(chan struct{}, 1)})
			}
			return &trouble{cause}
		}
	}
	if err := x.submit(op, key, c); err != nil {
		return err
	}
	if ctx.Done() == nil {
		<-c.done
		return c.err
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return x.leave(ctx, c)
	}
}

// leave takes a call whose context has ended out of its batch, unless it is finished.
func (x *exchange) leave(ctx context.Context, c *call) error {
	x.mu.Lock()
	b := c.batch
	inDoubt := b != nil && b.state == sent // its answer is to come
	if b != nil && !inDoubt {
		x.dropLocked(c)
	}
	x.mu.Unlock()
	switch {
	case inDoubt:
		return fmt.Errorf("%w: %w", ErrInDoubt, ctx.Err())
	case b != nil:
		return fmt.Errorf("redislimit: not sent to Redis: %w", ctx.Err())
	}
	<-c.done // what takes a call off the list finishes it at once
	return c.err
}

// submit puts a call into a batch.
func (x *exchange) submit(op *operation, key string, c *call) error {
	// Deadlines are in the order of the list, except for the time that the lock takes.
	c.deadline = int64(time.Since(x.started) + x.timeout)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return trypema.ErrClosed
	}
	l := x.lanes[key]
	if l != nil {
		b := l.batches[len(l.batches)-1]
		if b.state == waiting && b.op == op && !op.single && len(b.calls) < maxCalls {
			x.pushLocked(b, c)
			return nil
		}
	}
	b := &batch{key: key, op: op}
	x.pushLocked(b, c)
	if l != nil {
		l.batches = append(l.batches, b)
		return nil
	}
	x.lanes[key] = &lane{batches: []*batch{b}}
	x.launchLocked(b)
	return nil
}

// launchLocked has a batch taken by the next flight, and sees to it that there is one.
func (x *exchange) launchLocked(b *batch) {
	x.ready = append(x.ready, b)
	x.departLocked()
}

// departLocked starts a flight, if there may be one more.
func (x *exchange) departLocked() {
	if x.flights < maxFlights && len(x.ready) > 0 && !x.closed {
		x.flights++
		x.flying.Go(func() { x.fly(new(flight)) })
	}
}

// fly makes exchanges until no batch is ready, or it was lost.
func (x *exchange) fly(f *flight) {
	defer x.land(f) // also if the Conn has ended the goroutine
	for batches := x.board(f); len(batches) > 0; batches = x.board(f) {
		x.run(f, batches)
	}
}

// land is the end of a flight. What has become ready since it found nothing needs another.
func (x *exchange) land(f *flight) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.lost {
		x.lost--
		return
	}
	x.flights--
	x.departLocked()
}

// board takes the batches of the next exchange of a flight. If there are none, the flight is over.
func (x *exchange) board(f *flight) []*batch {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.lost {
		return nil
	}
	batches := x.boardLocked()
	f.parts = nil
	for _, b := range batches {
		p := f.partOf(x.breakers.Of(b.key))
		p.open++
		p.deadline = max(p.deadline, b.calls[len(b.calls)-1].deadline)
		b.flight, b.part = f, p
	}
	return batches
}

// partOf returns the part of a server in the exchange of a flight.
func (f *flight) partOf(b *breaker.Breaker) *part {
	for _, p := range f.parts {
		if p.breaker == b {
			return p
		}
	}
	p := &part{breaker: b}
	f.parts = append(f.parts, p)
	return p
}

// boardLocked takes the batches of the next flight, all of one operation.
func (x *exchange) boardLocked() (batches []*batch) {
	i := 0
	for ; i < len(x.ready) && len(batches) < maxBatches; i++ {
		b := x.ready[i]
		if b.state == settled {
			continue
		}
		if len(batches) > 0 && b.op != batches[0].op {
			break
		}
		b.calls, b.head = slices.DeleteFunc(b.calls, func(c *call) bool { return c == nil }), 0
		if len(b.calls) == 0 {
			x.settleLocked(b)
			continue
		}
		b.state = sent
		b.runs, b.set = runsOf(b.calls, b.op.dice), b.calls[0].set
		if b.op.dice {
			b.dice = diceOf(b.calls)
		}
		batches = append(batches, b)
	}
	clear(x.ready[:i])
	x.ready = x.ready[i:]
	if len(x.ready) == 0 {
		x.ready = nil
	}
	return batches
}

// madeBefore returns when a call with a deadline was made.
func (x *exchange) madeBefore(deadline int64) time.Time {
	return x.started.Add(time.Duration(deadline) - x.timeout)
}

// run makes one exchange.
func (x *exchange) run(f *flight, batches []*batch) {
	ctx, cancel := context.WithTimeout(x.ctx, x.timeout)
	defer cancel()
	op, parts := batches[0].op, f.parts
	var mu sync.Mutex // of what the answers find out
	script.Run(ctx, x.server, op.script, batches, pack,
		func(parcel []*batch) (keys, args []string) {
			if op.keys != nil {
				return op.keys(parcel[0].key), op.args(parcel)
			}
			for _, b := range parcel {
				keys = append(keys, b.key)
			}
			return keys, op.args(parcel)
		},
		func(parcel []*batch, reply []any, err error, last bool) (again, mend []*batch) {
			inTime, wrong, again, mend := x.answer(parcel, reply, err, last)
			mu.Lock()
			defer mu.Unlock()
			if p := parcel[0].part; wrong == nil && (inTime || ctx.Err() == nil) {
				p.good = true
			} else if inTime {
				p.cause = wrong
			}
			return again, mend
		},
		func(b *batch) script.Windows { return b.op.windows(b.key) })
	for _, p := range parts {
		switch {
		case p.good:
			p.breaker.Success()
		case p.cause != nil && ctx.Err() != nil:
			p.breaker.Silence(p.cause, x.madeBefore(p.deadline))
		case p.cause != nil:
			p.breaker.Failure(p.cause)
		}
	}
}

// pack puts together the batches that one run of the script can answer: those that ask the same, if they may.
func pack(batches []*batch, together bool) (parcels [][]*batch) {
	alike := make(map[run]int) // where the parcel for such a run is
	for _, b := range batches {
		if !together || b.op.single || b.op.keys != nil || len(b.runs) > 1 {
			parcels = append(parcels, []*batch{b})
			continue
		}
		i, ok := alike[b.runs[0]]
		if !ok || len(parcels[i]) == maxKeys {
			i = len(parcels)
			alike[b.runs[0]] = i
			parcels = append(parcels, nil)
		}
		parcels[i] = append(parcels[i], b)
	}
	return parcels
}

// answer gives batches what Redis said, but for those to be asked for again, as their windows cannot be read:
// see script.Run. It reports whether that was in time for any, and what is wrong with Redis, if anything.
func (x *exchange) answer(batches []*batch, reply []any, err error, last bool) (
	inTime bool, wrong error, again, mend []*batch,
) {
	r := script.NewReader(reply)
	for i, b := range batches {
		err, read := err, false
		if fault, ok := r.Fault(); ok && err == nil {
			err = errors.New(fault)
		} else {
			read = err == nil
		}
		if script.IsUnreadable(err) && !last && !b.op.once {
			again, inTime = append(again, b), true
			continue
		}
		mine := x.settle(b)
		inTime = inTime || mine
		calls := b.calls
		if !mine {
			calls = nil // they may be others by now
		}
		if read {
			err = b.op.read(r, b.runs, calls)
			if i == len(batches)-1 {
				err = cmp.Or(err, r.Done())
			}
		}
		if script.IsUnreadable(err) {
			mend = append(mend, b)
		}
		switch {
		case errors.Is(err, errAnswered):
			err = nil
		case script.IsKeyFault(err): // Redis has done its part
			err = fmt.Errorf("redislimit: the Redis key %q: %w", b.key, err)
		case err != nil:
			wrong = err
			err = &trouble{err}
		}
		if mine {
			b.finish(err)
		}
	}
	return inTime, wrong, again, mend
}

// settle makes a batch settled, and lets the next of its key go. It reports whether it was the first to.
func (x *exchange) settle(b *batch) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b.state == settled {
		return false
	}
	b.part.answered = true
	x.settleLocked(b)
	return true
}

func (x *exchange) settleLocked(b *batch) {
	b.state = settled
	if b.part != nil {
		b.part.open--
	}
	for _, c := range b.calls {
		if c != nil && c.batch != nil {
			x.unlinkLocked(c)
		}
	}
	l := x.lanes[b.key]
	i := slices.Index(l.batches, b)
	l.batches = slices.Delete(l.batches, i, i+1)
	switch {
	case len(l.batches) == 0:
		delete(x.lanes, b.key)
	case i == 0:
		x.launchLocked(l.batches[0])
	}
}

// finish wakes the callers of a settled batch.
func (b *batch) finish(err error) {
	for _, c := range b.calls {
		if c != nil && c.done != nil {
			c.finish(err)
		}
	}
}

func (c *call) finish(err error) {
	c.err = err
	c.done <- struct{}{}
}

// pushLocked adds a call to a batch and to the list, unlinkLocked takes it off the list, and dropLocked out
// of its batch, too.
func (x *exchange) pushLocked(b *batch, c *call) {
	b.calls = append(b.calls, c)
	b.left++
	c.batch = b
	if c.before = x.last; c.before != nil {
		c.before.after = c
	} else {
		x.first = c
	}
	x.last = c
	if !x.armed {
		x.armed = true
		x.armLocked()
	}
}

func (x *exchange) unlinkLocked(c *call) {
	if c.before != nil {
		c.before.after = c.after
	} else {
		x.first = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	} else {
		x.last = c.before
	}
	c.batch.left--
	c.batch, c.before, c.after = nil, nil, nil
}

func (x *exchange) dropLocked(c *call) {
	b := c.batch
	x.unlinkLocked(c)
	var ghost *call
	if b.state == sent { // the answer will be about it, too
		ghost = &call{capacity: c.capacity, cost: c.cost, record: c.record, dice: c.dice}
	}
	i := b.head + slices.Index(b.calls[b.head:], c)
	b.calls[i] = ghost
	if i == b.head {
		b.head++
	}
}

func (x *exchange) armLocked() {
	d := time.Duration(x.first.deadline) - time.Since(x.started)
	if x.watch == nil {
		x.watch = time.AfterFunc(d, x.expire)
	} else {
		x.watch.Reset(d)
	}
}

// expire ends the calls that are too late, and settles the batches of which none is left.
func (x *exchange) expire() {
	err := &trouble{fmt.Errorf("no answer within %v", x.timeout)}
	x.mu.Lock()
	now := int64(time.Since(x.started))
	var late []*call
	var silent []*part
	for x.first != nil && x.first.deadline <= now {
		c := x.first
		b := c.batch
		x.dropLocked(c)
		late = append(late, c)
		if b.left > 0 {
			continue
		}
		x.settleLocked(b)
		f := b.flight
		if f == nil {
			continue
		}
		if b.part.open == 0 && !b.part.answered {
			silent = append(silent, b.part)
		}
		pending := slices.ContainsFunc(f.parts, func(p *part) bool { return p.open > 0 })
		if !f.lost && x.lost < maxLost && !pending {
			f.lost = true
			x.lost++
			x.flights--
			x.departLocked()
		}
	}
	x.ready = slices.DeleteFunc(x.ready, func(b *batch) bool { return b.state == settled })
	if x.armed = x.first != nil; x.armed {
		x.armLocked()
	}
	x.mu.Unlock()
	for _, p := range silent {
		p.breaker.Silence(err.cause, x.madeBefore(p.deadline))
	}
	for _, c := range late {
		c.finish(err)
	}
}

// close ends all calls with ErrClosed, and returns when nothing runs any more, or after the timeout, if the
// client does not end its exchanges.
func (x *exchange) close() error {
	x.mu.Lock()
	x.closed = true
	var ended []*batch
	for _, l := range x.lanes {
		for _, b := range slices.Clone(l.batches) {
			x.settleLocked(b)
			ended = append(ended, b)
		}
	}
	x.ready = nil
	if x.watch != nil {
		x.watch.Stop()
	}
	x.mu.Unlock()
	x.cancel()
	for _, b := range ended {
		b.finish(trypema.ErrClosed)
	}
	landed := make(chan struct{})
	go func() {
		x.flying.Wait()
		close(landed)
	}()
	select {
	case <-landed:
		return nil
	case <-time.After(x.timeout):
		return fmt.Errorf("redislimit: Close: the client has not ended its exchange with Redis after %v",
			x.timeout)
	}
}
