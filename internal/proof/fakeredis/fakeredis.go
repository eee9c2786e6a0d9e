// Package fakeredis is a server for tests that lives in the process, and in its clock: also in that of
// testing/synctest.
package fakeredis

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// Server is a redislimit.Conn to a server. It does what absolute.lua, suppressed.lua, multi.lua, commit.lua
// and set.lua say, by package window, settle.lua, by package lease, and mend.lua, for keys that were spoiled.
// That the scripts do the same, and all else that takes Lua, is tested on real servers, in
// internal/thirdparty.
type Server struct {
	mu      sync.Mutex
	groups  window.Groups
	windows map[string]*window.Window
	ledgers map[string]*lease.Ledger
	spoiled map[string]bool
	Runs    int // exchanges
	Calls   int // scripts in them
	Keys    int // keys of those

	CrossSlot bool                                    // it is many servers after all
	Delay     time.Duration                           // of the network, there and back
	Fault     func(key string) (reply []any, e error) // what to answer instead, unless both are nil
	Lose      func() bool                             // whether an answer gets lost; nil for never
	ahead     time.Duration                           // of the clock of the process
	hang      chan struct{}                           // if not nil, nothing is answered until it is closed
}

// New returns a server without any key.
func New() *Server {
	return &Server{
		windows: map[string]*window.Window{}, ledgers: map[string]*lease.Ledger{}, spoiled: map[string]bool{},
	}
}

// now is the server's clock, in µs, under the lock.
func (f *Server) now() int64 { return time.Now().Add(f.ahead).UnixMicro() }

// Step sets the server's clock forward; or back, upon which windows wait until it has come as far again,
// however far that is: it is otherwise only in the scripts.
func (f *Server) Step(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead += d
}

// OneServer implements redislimit.Conn.
func (f *Server) OneServer() bool { return true }

// TakeAway makes exchanges hang until Restore.
func (f *Server) TakeAway() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang = make(chan struct{})
}

// Restore ends what TakeAway began.
func (f *Server) Restore() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hang != nil {
		close(f.hang)
		f.hang = nil
	}
}

// Forget is a restart without persistence.
func (f *Server) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.windows)
	clear(f.ledgers)
}

// Spoil has a key hold a string that is not a window.
func (f *Server) Spoil(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spoiled[key] = true
}

// instead returns what to answer about a key instead of what a script would, unless both are nil.
func (f *Server) instead(script, key string) (reply []any, err error) {
	if f.Fault != nil {
		reply, err = f.Fault(key)
	}
	if reply == nil && err == nil && script != "mend.lua" && f.spoiled[key] {
		reply = []any{"NOTAWINDOW the key was spoiled"}
	}
	return reply, err
}

// mend begins a key again if it was spoiled.
func (f *Server) mend(key string) []any {
	if !f.spoiled[key] {
		return []any{int64(0)}
	}
	delete(f.spoiled, key)
	delete(f.windows, key)
	delete(f.ledgers, key)
	return []any{int64(1)}
}

// ErrKey is what Redis says of a key that holds something else.
var ErrKey = errors.New("WRONGTYPE Operation against a key holding the wrong kind of value")

// Run implements redislimit.Conn.
func (f *Server) Run(
	ctx context.Context, source, _ string, keys, args [][]string, answer func(int, []any, error),
) {
	f.mu.Lock()
	f.Runs++
	for i := range keys {
		f.Keys += len(keys[i])
	}
	f.Calls += len(keys)
	delay, hang, script := f.Delay, f.hang, redisproto.NameOf(source)
	f.mu.Unlock()
	var err error
	if hang != nil {
		<-hang // as a client that does not look at its context
		err = errors.New("connection reset by peer")
	}
	if delay > 0 {
		select {
		case <-time.After(delay / 2):
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	replies, errs := make([][]any, len(keys)), make([]error, len(keys))
	for i := range keys {
		errs[i] = err
		if err == nil && f.CrossSlot && len(keys[i]) > 1 {
			errs[i] = errors.New("CROSSSLOT Keys in request don't hash to the same slot")
		}
		if errs[i] == nil && script == "multi.lua" {
			replies[i], errs[i] = f.multi(keys[i], args[i])
			continue
		}
		for k, key := range keys[i] {
			if errs[i] == nil {
				var reply []any
				reply, errs[i] = f.eval(script, key, k, len(keys[i]), args[i])
				replies[i] = append(replies[i], reply...)
			}
		}
	}
	time.Sleep(delay / 2)
	for i := range keys {
		if f.Lose != nil && f.Lose() {
			replies[i], errs[i] = nil, errors.New("i/o timeout")
		}
		answer(i, replies[i], errs[i])
	}
}

// eval runs a script for the key that is number k of a number of keys.
func (f *Server) eval(script, key string, k, keys int, args []string) ([]any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reply, err := f.instead(script, key); reply != nil || err != nil {
		return reply, err
	}
	if script == "mend.lua" {
		return f.mend(key), nil
	}
	s := spanOf(args)
	if script == "settle.lua" {
		return f.settle(key, s, int64(number(args[2])), args[3+k]), nil
	}
	if script == "commit.lua" {
		return f.commit(key, args[2], number(args[3]), number(args[4]), args[5+4*k:]), nil
	}
	if l := f.ledgers[key]; l != nil {
		return f.setLedger(l, s, args[2], args[3], args[4]), nil
	}
	l := f.limit(key, s)
	switch script {
	case "absolute.lua":
		return f.alone(l, "", "", args[2:]), nil
	case "suppressed.lua":
		dice := args[3][len(args[3])*k/keys : len(args[3])*(k+1)/keys]
		return f.alone(l, args[2], dice, args[4:]), nil
	case "set.lua":
		return f.set(l.w, s, l.now, args[2], args[3], args[4]), nil
	}
	return nil, errors.New("ERR the fake does not know the script")
}

// entry returns what a key holds, which is there from now on.
func entry[T any](of map[string]*T, key string) *T {
	if of[key] == nil {
		of[key] = new(T)
	}
	return of[key]
}

func (f *Server) commit(key, kind string, was, is uint64, args []string) []any {
	s, from, at := spanOf(args), int64(number(args[2])), int64(number(args[3]))
	var removed, added uint64
	if kind[0] == 'h' {
		removed, added = entry(f.ledgers, key).Commit(s, f.now(), from, at, was, is)
	} else {
		w := entry(f.windows, key)
		removed, added = w.Commit(&f.groups, s, w.Advance(&f.groups, s, f.now()), from, at, was, is)
	}
	return []any{int64(removed), int64(added)}
}

// limit is a window that a script decides about, and what the script replies of it.
type limit struct {
	w        *window.Window
	s        window.Span
	now      int64 // by the window, whose clock does not step back
	capacity uint64
	law      *window.Law // of Suppressed, otherwise nil
	reply    []any

	// as a run of calls begins
	before window.Counts
	recent uint64
	joined uint64 // recent once the run has recorded anything, less that
}

func (f *Server) limit(key string, s window.Span) limit {
	w := entry(f.windows, key)
	return limit{w: w, s: s, now: w.Advance(&f.groups, s, f.now())}
}

// holdTo sets the capacity for the next runs, and by a factor, which Absolute has none of, the law.
func (l *limit) holdTo(capacity uint64, factor string) {
	l.capacity = capacity
	if factor != "" {
		h, err := strconv.ParseFloat(factor, 64)
		if err != nil {
			panic(err)
		}
		l.law = window.NewLaw(l.s, capacity, h)
		l.law.Hard = min(l.law.Hard, redisproto.Most)
	}
}

// judge returns what a limit by itself says of a call.
func (l *limit) judge(g *window.Groups, cost uint64, thrown float64) (v window.Verdict) {
	if l.law != nil {
		l.w.Suppressed(&v, g, l.s, l.law, l.now, cost, thrown, false)
	} else {
		l.w.Absolute(&v, g, l.s, l.capacity, l.now, cost, false)
	}
	return v
}

// record records a call, the first of a run or a later one.
func (l *limit) record(g *window.Groups, cost uint64, admitted bool, life int64, first bool) {
	c := window.Counts{}
	switch {
	case admitted:
		c.Admitted = cost
	case l.law != nil: // as much as is declined must be a number that the script can count with
		c.Declined = min(cost, redisproto.Most-min(redisproto.Most, l.w.Counts().Observed()))
	}
	if c == (window.Counts{}) {
		return
	}
	if from := l.s.Backdate(l.now, life); admitted && from < l.now {
		l.w.Place(g, l.s, l.now, from, from, c)
		return
	}
	l.w.Record(g, l.s, l.now, c)
	if first {
		l.joined = l.w.Since(g, l.now-l.s.Recent()) - c.Observed()
	}
}

// batch is the calls that a script decides by some limits together.
type batch struct {
	groups *window.Groups
	limits []limit
	dice   string // of Suppressed
	wanted bool   // whether the reply has the groups of the windows
}

// run decides equal calls: what is admitted is recorded in all windows, or in none.
func (b *batch) run(cost, count uint64, life int64) {
	for i := range b.limits {
		l := &b.limits[i]
		l.before, l.recent = l.w.Counts(), l.w.Since(b.groups, l.now-l.s.Recent())
		l.joined = l.recent
	}
	b.wanted = b.wanted || count == 0
	bits, fit := []any{}, uint64(0)
	for j := range count {
		passes, thrown := true, 0.
		if dice := b.dice; dice != "" {
			thrown = (float64(uint32(dice[0])<<16|uint32(dice[1])<<8|uint32(dice[2])) + 0.5) / (1 << 24)
			b.dice = dice[3:]
		}
		for i := range b.limits {
			passes = passes && b.limits[i].judge(b.groups, cost, thrown).Allowed
		}
		if j%32 == 0 {
			bits = append(bits, int64(0))
		}
		if passes {
			fit++
			bits[len(bits)-1] = bits[len(bits)-1].(int64) | 1<<(j%32)
		}
		b.wanted = b.wanted || !passes
		for i := range b.limits {
			b.limits[i].record(b.groups, cost, passes, life, j == 0)
		}
	}
	for i := range b.limits {
		l := &b.limits[i]
		if l.law != nil {
			l.reply = append(l.reply, int64(l.before.Admitted), int64(l.before.Declined),
				int64(l.recent), int64(l.joined))
			l.reply = append(l.reply, bits...)
			continue
		}
		l.reply = append(l.reply, int64(l.before.Admitted), int64(fit))
		if fit < max(count, 1) {
			v := l.judge(b.groups, cost, 0)
			if v.Wait == window.Never {
				v.Wait = -1
			}
			if v.Allowed {
				v.Then = 0
			}
			l.reply = append(l.reply, v.Wait, int64(v.Then))
		}
	}
}

// reply returns what the script replies, with the groups of the windows if they are wanted and there are any.
func (b *batch) reply() (reply []any) {
	for i := range b.limits {
		l := &b.limits[i]
		reply = append(reply, l.reply...)
		switch {
		case l.law == nil:
		case !b.wanted || l.w.Counts() == (window.Counts{}):
			reply = append(reply, int64(0))
		default:
			var groups []lease.Group
			for last, counts := range l.w.All(b.groups) {
				groups = append(groups, lease.Group{Age: l.now - last, Counts: counts})
			}
			reply = append(reply, l.now, int64(0), int64(0), redisproto.Log(l.now, groups))
		}
	}
	return reply
}

// alone decides runs by one limit, each with its own capacity.
func (f *Server) alone(l limit, factor, dice string, runs []string) []any {
	b := batch{groups: &f.groups, limits: []limit{l}, dice: dice}
	for ; len(runs) > 0; runs = runs[min(3, len(runs)):] {
		capacity, cost, count := run(runs)
		b.limits[0].holdTo(capacity, factor)
		b.run(cost, count, 0)
	}
	return b.reply()
}

func spanOf(args []string) window.Span {
	return window.Span{Window: int64(number(args[0])), Bucket: int64(number(args[1]))}
}

// multi decides runs by several limits, and has each window say what it would by itself.
func (f *Server) multi(keys, args []string) ([]any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := batch{groups: &f.groups, dice: args[4]}
	factor := ""
	if args[2] == "s" {
		factor = args[3]
	}
	args = args[5:]
	for _, key := range keys {
		if reply, err := f.instead("multi.lua", key); reply != nil || err != nil {
			return reply, err
		}
		l := f.limit(key, spanOf(args))
		l.holdTo(number(args[2]), factor)
		l.reply = []any{l.now}
		b.limits, args = append(b.limits, l), args[3:]
	}
	for ; len(args) > 0; args = args[3:] {
		b.run(number(args[0]), number(args[1]), int64(number(args[2])))
	}
	return b.reply(), nil
}

func (f *Server) set(w *window.Window, s window.Span, now int64, when, wanted, keep string) []any {
	have := w.Counts().Observed()
	if !holds(when, have) {
		return []any{int64(0), int64(have)}
	}
	total := totalOf(wanted, have)
	switch {
	case total == 0:
		w.Clear(&f.groups)
	case keep == "Replace" || have == 0:
		w.Replace(&f.groups, s, now, total)
	case keep == "KeepNewest":
		w.Resize(&f.groups, s, total, window.Newest)
	default:
		w.Resize(&f.groups, s, total, window.Oldest)
	}
	return []any{int64(1), int64(have)}
}

// totalOf returns the total that set.lua is to make of the one that is there.
func totalOf(wanted string, have uint64) uint64 {
	if less, ok := strings.CutPrefix(wanted, "-"); ok {
		return have - min(have, number(less))
	}
	return number(wanted)
}

// holds reports whether a total meets a condition, as set.lua is told it.
func holds(when string, have uint64) bool {
	op, rest, _ := strings.Cut(when, "(")
	n := uint64(0)
	if op != "Always" {
		n = number(strings.TrimSuffix(rest, ")"))
	}
	return map[string]bool{"Always": true, "Equal": have == n, "NotEqual": have != n, "Less": have < n,
		"Greater": have > n}[op]
}

func (f *Server) settle(key string, s window.Span, farLife int64, message string) []any {
	l := entry(f.ledgers, key)
	ask := redisproto.ParseMessage(message)
	a := l.Settle(s, f.now(), farLife, ask)
	if a.Stale {
		return []any{int64(-1)}
	}
	kind := int64(0)
	switch {
	case a.Lone:
		kind = 2
	case a.Far:
		kind = 1
	}
	reply := []any{int64(a.Grant), a.Life, kind, int64(a.Slot), int64(a.Live.Admitted),
		int64(a.Live.Declined), int64(a.Others), int64(a.Kept),
		running(a.Before.Admitted), running(a.Before.Declined), running(a.After.Admitted),
		running(a.After.Declined), a.Now, a.Next}
	if !ask.Whole {
		return reply
	}
	if len(a.Groups) == 0 {
		return append(reply, int64(0))
	}
	return append(reply, f.now(), int64(0), int64(0), redisproto.Log(f.now(), a.Groups))
}

// running is a running count as Redis has it, where they begin anew once they are large.
func running(n uint64) int64 { return int64(n % redisproto.Most) }

func (f *Server) setLedger(l *lease.Ledger, s window.Span, when, wanted, keep string) []any {
	now := f.now()
	live, _ := l.Live(s, now)
	if !holds(when, live.Observed()) {
		return []any{int64(0), int64(live.Observed())}
	}
	side := window.Newest
	if keep == "KeepOldest" {
		side = window.Oldest
	}
	l.Set(s, now, totalOf(wanted, live.Observed()), side, keep == "Replace")
	return []any{int64(1), int64(live.Observed())}
}

// Live returns what a ledger holds, and what is on lease.
func (f *Server) Live(key string, w, bucket time.Duration) (c window.Counts, leased uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.ledgers[key]
	if l == nil {
		return c, 0
	}
	return l.Live(window.Span{Window: w.Microseconds(), Bucket: bucket.Microseconds()}, f.now())
}

func run(args []string) (capacity, cost, count uint64) {
	capacity, cost, count = number(args[0]), 1, 1
	if len(args) > 1 {
		cost = number(args[1])
	}
	if len(args) > 2 {
		count = number(args[2])
	}
	return capacity, cost, count
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
