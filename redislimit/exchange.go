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
//   - While a batch of calls for a key is under way, later calls for that key gather in the next one. So there is at most one
//     batch of a key under way, the calls of a key are decided in the order in which they came, and a key that is asked
//     for a lot costs one script call per round trip.
//   - Batches that are ready leave together, in flights. There are at most maxFlights at a time; while all are in the air,
//     batches for more keys gather for the next. A flight that has not ended at its deadline, because the client can not be
//     interrupted, is lost: another may go in its place.
//
// A batch is in one state at a time, which mu guards: ready, sent, and then settled, once, by whoever comes first: the
// answer, the deadline, or Close. Only who settles a batch writes to its calls, and its callers wait for that.
type exchange struct {
	server  *script.Server
	breaker *breaker.Breaker
	timeout time.Duration
	decide  *operation

	ctx    context.Context // ended by Close
	cancel context.CancelFunc
	flying sync.WaitGroup
	calls  sync.Pool

	mu      sync.Mutex
	closed  bool
	lanes   map[string]*lane // by key: those with a batch that is not settled
	ready   []*batch
	flights int
	lost    int    // flights that are not counted any more, but may still end
	first   *batch // of those not settled, in the order of their deadlines
	last    *batch
	watch   *time.Timer // settles what is too late
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
	dice   bool // that the script throws
	script func(*script.Scripts) script.Script

	// keys are the KEYS for a batch, if they are not its key alone; such a batch travels alone.
	keys func(key string) []string

	// args returns the ARGV of one run of the script for batches that ask the same.
	args func(batches []*batch) []string
	// read takes the answer to one batch, and tells it the calls; nil if nobody waits for them any more.
	read func(r *script.Reader, runs []run, calls []*call) error
}

// run is a number of equal calls in a row.
type run struct {
	capacity, cost uint64
	record         bool
	life           int64 // µs; that of a reservation with an expiry, or 0
	n              int
}

// call is one question of one caller. What is asked is written before it is handed over, the answer before done.
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

	done chan struct{} // takes one element
}

// newCall returns a call to fill in. Their channels belong to the clock that the provider lives in, so the pool does, too.
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
	key      string
	op       *operation
	calls    []*call // nil where the caller has left, until it is sent
	runs     []run   // what calls ask, from when it is sent: they may be others once it is settled
	dice     []byte
	set      []string
	state    state
	flight   *flight // that it left with
	deadline time.Time
	before   *batch
	after    *batch
}

// flight is a goroutine that makes exchanges.
type flight struct{ lost bool }

type state uint8

const (
	waiting state = iota // behind another batch of its key, or for a flight
	sent
	settled
)

func newExchange(s *script.Server, b *breaker.Breaker, timeout time.Duration, decide *operation) *exchange {
	x := &exchange{server: s, breaker: b, timeout: timeout, decide: decide, lanes: make(map[string]*lane)}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x
}

// do asks Redis, and returns when c has its answer, or why it has none: a trouble if the failure policy has to decide. An
// ErrInDoubt leaves c to Redis; it must not be used again.
func (x *exchange) do(ctx context.Context, op *operation, key string, c *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if probe, cause := x.breaker.Down(); cause != nil {
		if probe {
			// It asks for the same key, records nothing, and nobody waits for it.
			_, _ = x.submit(x.decide, key, &call{capacity: 1, cost: 1, done: make(chan struct{}, 1)})
		}
		return &trouble{cause}
	}
	b, err := x.submit(op, key, c)
	if err != nil {
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
		return x.leave(ctx, b, c)
	}
}

// leave takes a call whose context has ended out of its batch, unless the answer is there.
func (x *exchange) leave(ctx context.Context, b *batch, c *call) error {
	x.mu.Lock()
	state := b.state
	if state == waiting {
		b.calls[slices.Index(b.calls, c)] = nil
	}
	x.mu.Unlock()
	switch state {
	case waiting:
		return fmt.Errorf("redislimit: not sent to Redis: %w", ctx.Err())
	case sent:
		return fmt.Errorf("%w: %w", ErrInDoubt, ctx.Err())
	}
	<-c.done // what settles a batch finishes it at once
	return c.err
}

// submit puts a call into a batch.
func (x *exchange) submit(op *operation, key string, c *call) (*batch, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, trypema.ErrClosed
	}
	l := x.lanes[key]
	if l != nil {
		b := l.batches[len(l.batches)-1]
		if b.state == waiting && b.op == op && !op.single && len(b.calls) < maxCalls {
			b.calls = append(b.calls, c)
			return b, nil
		}
	}
	b := &batch{key: key, op: op, calls: []*call{c}, deadline: time.Now().Add(x.timeout)}
	x.pushLocked(b)
	if l != nil {
		l.batches = append(l.batches, b)
		return b, nil
	}
	x.lanes[key] = &lane{batches: []*batch{b}}
	x.launchLocked(b)
	return b, nil
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
	for batches := x.board(f); len(batches) > 0; batches = x.board(f) {
		x.run(batches)
	}
}

// board takes the batches of the next exchange of a flight. If there are none, the flight is over.
func (x *exchange) board(f *flight) []*batch {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.lost {
		x.lost--
		return nil
	}
	batches := x.boardLocked()
	for _, b := range batches {
		b.flight = f
	}
	if len(batches) == 0 {
		x.flights--
	}
	return batches
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
		b.calls = slices.DeleteFunc(b.calls, func(c *call) bool { return c == nil })
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

// run makes one exchange.
func (x *exchange) run(batches []*batch) {
	// The newest batch has the latest deadline; older ones are settled at theirs.
	ctx, cancel := context.WithDeadline(x.ctx, batches[len(batches)-1].deadline)
	defer cancel()
	op := batches[0].op
	var mu sync.Mutex // of what the answers find out
	var cause error
	good := false
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
		func(parcel []*batch, reply []any, err error) {
			inTime, wrong := x.answer(parcel, reply, err)
			mu.Lock()
			defer mu.Unlock()
			if inTime && wrong != nil {
				cause = wrong
			} else if inTime {
				good = true
			}
		})
	switch {
	case good:
		x.breaker.Success()
	case cause != nil:
		x.breaker.Failure(cause)
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

// answer gives batches what Redis said. It reports whether that was in time for any, and what is wrong with Redis, if
// anything.
func (x *exchange) answer(batches []*batch, reply []any, err error) (inTime bool, wrong error) {
	r := script.NewReader(reply)
	for i, b := range batches {
		mine := x.settle(b)
		inTime = inTime || mine
		calls := b.calls
		if !mine {
			calls = nil // they may be others by now
		}
		err := err
		if fault, ok := r.Fault(); ok && err == nil {
			err = errors.New(fault)
		} else if err == nil {
			err = b.op.read(r, b.runs, calls)
			if i == len(batches)-1 {
				err = cmp.Or(err, r.Done())
			}
		}
		switch {
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
	return inTime, wrong
}

// settle makes a batch settled, and lets the next of its key go. It reports whether it was the first to.
func (x *exchange) settle(b *batch) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b.state == settled {
		return false
	}
	x.settleLocked(b)
	return true
}

func (x *exchange) settleLocked(b *batch) {
	b.state = settled
	x.unlinkLocked(b)
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
		if c != nil {
			c.err = err
			c.done <- struct{}{}
		}
	}
}

// pushLocked and unlinkLocked keep the list of batches that are not settled.
func (x *exchange) pushLocked(b *batch) {
	if b.before = x.last; b.before != nil {
		b.before.after = b
	} else {
		x.first = b
	}
	x.last = b
	if !x.armed {
		x.armed = true
		x.armLocked()
	}
}

func (x *exchange) unlinkLocked(b *batch) {
	if b.before != nil {
		b.before.after = b.after
	} else {
		x.first = b.after
	}
	if b.after != nil {
		b.after.before = b.before
	} else {
		x.last = b.before
	}
	b.before, b.after = nil, nil
}

func (x *exchange) armLocked() {
	if d := time.Until(x.first.deadline); x.watch == nil {
		x.watch = time.AfterFunc(d, x.expire)
	} else {
		x.watch.Reset(d)
	}
}

// expire settles the batches that are too late.
func (x *exchange) expire() {
	x.mu.Lock()
	now := time.Now()
	late := x.settleUntilLocked(func(b *batch) bool { return now.Before(b.deadline) })
	for _, b := range late {
		if f := b.flight; f != nil && !f.lost && x.lost < maxLost {
			f.lost = true
			x.lost++
			x.flights--
			x.departLocked()
		}
	}
	if x.armed = x.first != nil; x.armed {
		x.armLocked()
	}
	x.mu.Unlock()
	if len(late) == 0 {
		return
	}
	err := fmt.Errorf("no answer within %v", x.timeout)
	x.breaker.Failure(err)
	for _, b := range late {
		b.finish(&trouble{err})
	}
}

// settleUntilLocked settles the oldest batches, up to one that is to stay.
func (x *exchange) settleUntilLocked(stays func(*batch) bool) (gone []*batch) {
	for x.first != nil && !stays(x.first) {
		gone = append(gone, x.first)
		x.settleLocked(x.first)
	}
	x.ready = slices.DeleteFunc(x.ready, func(b *batch) bool { return b.state == settled })
	return gone
}

// close ends all calls with ErrClosed, and returns when nothing runs any more, or after the timeout, if the client does not
// end its exchanges.
func (x *exchange) close() error {
	x.mu.Lock()
	x.closed = true
	gone := x.settleUntilLocked(func(*batch) bool { return false })
	if x.watch != nil {
		x.watch.Stop()
	}
	x.mu.Unlock()
	x.cancel()
	for _, b := range gone {
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
		return fmt.Errorf("redislimit: Close: the client has not ended its exchange with Redis after %v", x.timeout)
	}
}
