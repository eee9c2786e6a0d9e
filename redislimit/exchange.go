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
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// exchange takes calls to Redis and brings back the answers. Calls share round trips:
//
//   - While a batch of calls for a key is under way, later calls for that key gather in the next one. So at
//     most one batch of a key is under way, the calls of a key are decided in the order in which they came,
//     and a key that is asked for a lot costs one script call per round trip.
//   - Batches that are ready leave together, in flights. At most maxFlights are in the air. Meanwhile batches
//     for more keys gather for the next.
//
// The invariant: a batch is waiting, then sent, then ended, and it ends once. What comes first ends it: the
// answer, the deadline of its last call, or Close. Only what ends a batch writes to its calls, and their
// callers wait for that. mu guards the states.
//
// Each call has the whole timeout, from its own arrival, whatever batch it joins. A call whose deadline
// passes leaves its batch, and the others go on. An exchange has the timeout, too, from its start. It counts
// as a failure of a server if that answers none of its calls in time, unless the server has answered another
// exchange since the latest of these calls was made: then they have waited for others, and not for the
// server.
//
// A flight that has not ended when its last call is late is lost: the client cannot be interrupted. Another
// flight may go in its place, up to maxLost.
type exchange struct {
	server   *redisproto.Server
	breakers *breaker.Set
	timeout  time.Duration
	decide   *operation
	started  time.Time

	ctx    context.Context // ended by Close
	cancel context.CancelFunc
	flying sync.WaitGroup
	calls  sync.Pool

	mu      sync.Mutex // guards what follows, and in batches, parts and flights what they say
	closed  bool
	lanes   map[string]*lane // by key: those with a batch that has not ended
	ready   []*batch         // first batches of their lanes, for the next flight; some have ended
	flights int              // in the air, without the lost ones
	lost    int

	// The calls whose batches have not ended are a list, in the order of their deadlines. A timer watches the
	// first of them, so that no call needs one.
	first, last *call
	watch       *time.Timer
	armed       bool
}

const (
	maxFlights = 4
	maxLost    = 16
	maxCalls   = 512 // in a batch
	maxBatches = 256 // in an exchange
	maxKeys    = 64  // in one run of a script
)

// operation is a script, how to ask it and how to read its answer.
type operation struct {
	single bool // each call is a batch, and travels alone
	once   bool // it is not sent again: twice would not do the same as once
	dice   bool // the calls bring dice for the script
	script func(*redisproto.Scripts) redisproto.Script

	// keys are the KEYS for a batch, if they are not its key alone; such a batch travels alone.
	keys func(key string) []string
	// windows are those of a batch.
	windows func(key string) redisproto.Windows

	// args returns the ARGV of one run of the script for batches that ask the same.
	args func(batches []*batch) []string
	// read reads the answer to one batch, and writes it to the calls, which are nil if the batch has ended
	// already. It returns what is wrong. An error about what the key holds becomes that of the calls, unless
	// it is redisproto.ErrAnswered: then they have an answer all the same.
	read func(r *redisproto.Reader, runs []run, calls []*call) error
}

// run is a number of equal calls in a row.
type run struct {
	capacity, cost uint64
	record         bool
	life           int64 // µs; that of a reservation with an expiry, or 0
	n              int
}

// call is one question of one caller. Its caller writes the question before it submits the call. What ends
// its batch writes the answer, and then sends on done. So neither needs a lock.
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

	// The lock of the exchange guards these.
	batch         *batch // nil unless the call is in the list of the exchange
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

// lane holds the batches of one key in the order in which they go. The first is ready or sent.
type lane struct{ batches []*batch }

// batch is calls for one key that one run of a script decides. The lock of the exchange guards it until it is
// sent. From then on its flight reads what was packed for the script, without the lock, and the lock guards
// the rest.
type batch struct {
	key   string
	op    *operation
	calls []*call // before it is sent, nil where a call has left; afterwards a ghost
	left  int     // number of its calls that are in the list of the exchange
	head  int     // number of calls in front that have left
	state state

	// Packed when it is sent. The calls cannot be read for that: once the batch has ended, their callers use
	// them for something else.
	runs   []run
	dice   []byte
	set    []string
	flight *flight
	part   *part
}

// flight is a goroutine that makes exchanges, one after the other.
type flight struct {
	lost  bool    // the lock of the exchange guards it
	parts []*part // of the present exchange
}

// part is what one server has to do with an exchange.
type part struct {
	breaker  *breaker.Breaker
	deadline int64 // of the latest of its calls, in ns since started

	// The lock of the exchange guards these.
	open     int  // batches that have not ended
	answered bool // an answer ended one

	// The lock of the run guards these.
	good  bool  // the server has answered
	cause error // why it has not
}

// state is the state of a batch.
type state uint8

// A batch waits behind another one of its key, or for a flight.
const (
	waiting state = iota
	sent
	ended
)

func newExchange(s *redisproto.Server, b *breaker.Set, timeout time.Duration, decide *operation) *exchange {
	x := &exchange{server: s, breakers: b, timeout: timeout, decide: decide, started: time.Now()}
	x.lanes = make(map[string]*lane)
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x
}

// do asks Redis. It returns when c has its answer, or why it has none: a trouble if the failure policy must
// decide. After an ErrInDoubt c must not be used again: the answer will be written to it.
func (x *exchange) do(ctx context.Context, op *operation, key string, c *call) error {
	if err := x.passes(ctx, key); err != nil {
		return err
	}
	x.mu.Lock()
	err := x.submitLocked(op, key, c)
	x.mu.Unlock()
	if err != nil {
		return err
	}
	return x.await(ctx, c)
}

// doAll is do for a call for each key, in order. The calls enter together, so those that can share a round
// trip do. It returns the errors of the calls.
func (x *exchange) doAll(ctx context.Context, op *operation, keys []string, calls []*call) []error {
	errs := make([]error, len(calls))
	for i := range calls {
		errs[i] = x.passes(ctx, keys[i])
	}
	for i := 0; i < len(calls); {
		x.mu.Lock() // flights board what has entered
		for end := min(i+maxFlights*maxBatches, len(calls)); i < end; i++ {
			if errs[i] == nil {
				errs[i] = x.submitLocked(op, keys[i], calls[i])
			}
		}
		x.mu.Unlock()
	}
	for i, c := range calls {
		if errs[i] == nil {
			errs[i] = x.await(ctx, c)
		}
	}
	return errs
}

// passes returns why a call for a key must not ask Redis, if it must not.
func (x *exchange) passes(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !x.breakers.Gone() {
		return nil
	}
	probe, cause := x.breakers.Of(key).Down()
	if cause == nil {
		return nil
	}
	if probe {
		// A call for the same key finds out whether the server answers. It records nothing, and no caller
		// waits for it.
		x.mu.Lock()
		_ = x.submitLocked(x.decide, key, &call{capacity: 1, cost: 1, done: make(chan struct{}, 1)})
		x.mu.Unlock()
	}
	return &trouble{cause}
}

// await returns when a call that was submitted has its answer, or the context ends.
func (x *exchange) await(ctx context.Context, c *call) error {
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

// leave takes a call whose context has ended out of its batch, unless the batch was sent or has ended.
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
	<-c.done // the batch has ended, and the call gets its answer at once
	return c.err
}

// submitLocked puts a call into the last batch of its key that still waits, or into a new one.
func (x *exchange) submitLocked(op *operation, key string, c *call) error {
	c.deadline = int64(time.Since(x.started) + x.timeout) // deadlines are in the order of the list
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

// launchLocked makes a batch ready, and starts a flight for it unless all are in the air.
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

// fly makes exchanges until no batch is ready, or the flight is lost.
func (x *exchange) fly(f *flight) {
	defer x.land(f) // also if the Conn ends the goroutine
	for batches := x.board(f); len(batches) > 0; batches = x.board(f) {
		x.run(f, batches)
	}
}

// land is the end of a flight. Batches that became ready after it found none need another flight.
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

// board takes the batches of the next exchange of a flight, and notes which servers have to do with it. The
// flight is over if there are none.
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

// boardLocked takes up to maxBatches off the ready ones, all of one operation, and packs them.
func (x *exchange) boardLocked() (batches []*batch) {
	i := 0
	for ; i < len(x.ready) && len(batches) < maxBatches; i++ {
		b := x.ready[i]
		if b.state == ended {
			continue
		}
		if len(batches) > 0 && b.op != batches[0].op {
			break
		}
		b.calls, b.head = slices.DeleteFunc(b.calls, func(c *call) bool { return c == nil }), 0
		if len(b.calls) == 0 {
			x.endLocked(b)
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

// madeBefore returns when a call was made that has a deadline.
func (x *exchange) madeBefore(deadline int64) time.Time {
	return x.started.Add(time.Duration(deadline) - x.timeout)
}

// run makes one exchange, and tells the breakers what came of it.
func (x *exchange) run(f *flight, batches []*batch) {
	ctx, cancel := context.WithTimeout(x.ctx, x.timeout)
	defer cancel()
	op, parts := batches[0].op, f.parts
	var mu sync.Mutex // guards good and cause of the parts: answers come on any goroutine
	redisproto.Run(ctx, x.server, op.script, batches, pack,
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
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
				err = x.noAnswer() // what the client says of our deadline means nothing to a caller
			}
			inTime, again, mend, wrong := x.answer(parcel, reply, err, last)
			mu.Lock()
			defer mu.Unlock()
			if p := parcel[0].part; wrong == nil && (inTime || ctx.Err() == nil) {
				p.good = true
			} else if inTime {
				p.cause = wrong
			}
			return again, mend
		},
		func(b *batch) redisproto.Windows { return b.op.windows(b.key) })
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

// pack makes parcels of batches, one for each run of the script. Batches that ask the same share a parcel, if
// several keys may share a run.
func pack(batches []*batch, together bool) (parcels [][]*batch) {
	parcelOf := make(map[run]int)
	for _, b := range batches {
		if !together || b.op.single || b.op.keys != nil || len(b.runs) > 1 {
			parcels = append(parcels, []*batch{b})
			continue
		}
		i, ok := parcelOf[b.runs[0]]
		if !ok || len(parcels[i]) == maxKeys {
			i = len(parcels)
			parcelOf[b.runs[0]] = i
			parcels = append(parcels, nil)
		}
		parcels[i] = append(parcels[i], b)
	}
	return parcels
}

// answer ends batches by what Redis said. Those whose windows cannot be read are asked for again, and mended
// if that was the last time: see redisproto.Run. It reports whether the answer was in time for any of them,
// and what is wrong with Redis.
func (x *exchange) answer(batches []*batch, reply []any, err error, last bool) (
	inTime bool, again, mend []*batch, wrong error,
) {
	r := redisproto.NewReader(reply)
	for i, b := range batches {
		err, read := err, false
		if fault, ok := r.Fault(); ok && err == nil {
			err = errors.New(fault)
		} else {
			read = err == nil
		}
		if redisproto.IsUnreadable(err) && !last && !b.op.once {
			again, inTime = append(again, b), true
			continue
		}
		mine := x.end(b)
		inTime = inTime || mine
		calls := b.calls
		if !mine {
			calls = nil // their callers may use them for something else by now
		}
		if read {
			err = b.op.read(r, b.runs, calls)
			if i == len(batches)-1 {
				err = cmp.Or(err, r.Done())
			}
		}
		if redisproto.IsUnreadable(err) {
			mend = append(mend, b)
		}
		switch {
		case errors.Is(err, redisproto.ErrAnswered):
			err = nil
		case redisproto.IsKeyFault(err): // the key is at fault, and not Redis
			err = fmt.Errorf("redislimit: the Redis key %q: %w", b.key, err)
		case err != nil:
			wrong = err
			err = &trouble{err}
		}
		if mine {
			b.finish(err)
		}
	}
	return inTime, again, mend, wrong
}

// end ends a batch by an answer, and makes the next batch of its key ready. It reports false if the batch had
// ended already.
func (x *exchange) end(b *batch) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b.state == ended {
		return false
	}
	b.part.answered = true
	x.endLocked(b)
	return true
}

// endLocked ends a batch: it takes its calls off the list, and makes the next batch of its key ready. The
// caller must finish the calls once it has unlocked the exchange.
func (x *exchange) endLocked(b *batch) {
	b.state = ended
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

// finish wakes the callers of a batch that has ended.
func (b *batch) finish(err error) {
	for _, c := range b.calls {
		if c != nil && c.done != nil {
			c.finish(err)
		}
	}
}

// finish gives a call its error and wakes its caller.
func (c *call) finish(err error) {
	c.err = err
	c.done <- struct{}{}
}

// pushLocked adds a call to a batch, and to the end of the list.
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

// unlinkLocked takes a call off the list.
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

// dropLocked takes a call off the list and out of its batch. If that was sent, the answer will be about the
// call, too: a ghost takes its place.
func (x *exchange) dropLocked(c *call) {
	b := c.batch
	x.unlinkLocked(c)
	var ghost *call
	if b.state == sent {
		ghost = &call{capacity: c.capacity, cost: c.cost, record: c.record, dice: c.dice}
	}
	i := b.head + slices.Index(b.calls[b.head:], c)
	b.calls[i] = ghost
	if i == b.head {
		b.head++
	}
}

// armLocked sets the timer to the first deadline.
func (x *exchange) armLocked() {
	d := time.Duration(x.first.deadline) - time.Since(x.started)
	if x.watch == nil {
		x.watch = time.AfterFunc(d, x.expire)
	} else {
		x.watch.Reset(d)
	}
}

func (x *exchange) noAnswer() error { return fmt.Errorf("no answer within %v", x.timeout) }

// expire finishes the calls whose deadline is over, and ends the batches of which no call is left. A flight
// whose batches have all ended that way is lost.
func (x *exchange) expire() {
	err := &trouble{x.noAnswer()}
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
		x.endLocked(b)
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
	x.ready = slices.DeleteFunc(x.ready, func(b *batch) bool { return b.state == ended })
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
	var batches []*batch
	for _, l := range x.lanes {
		for _, b := range slices.Clone(l.batches) {
			x.endLocked(b)
			batches = append(batches, b)
		}
	}
	x.ready = nil
	if x.watch != nil {
		x.watch.Stop()
	}
	x.mu.Unlock()
	x.cancel()
	for _, b := range batches {
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
