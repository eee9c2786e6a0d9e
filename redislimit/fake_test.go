package redislimit_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/window"
)

// fakeRedis is a Conn to a server that lives in the test, and in its clock. It does what absolute.lua and set.lua say, by
// package window. That the scripts do the same, and all else that takes Lua, is tested on real servers, in internal/thirdparty.
type fakeRedis struct {
	mu      sync.Mutex
	groups  window.Groups
	windows map[string]*window.Window
	runs    int // exchanges
	calls   int // scripts in them
	keys    int // keys of those

	crossSlot bool                                    // it is many servers after all
	delay     time.Duration                           // of the network, there and back
	fault     func(key string) (reply []any, e error) // what to answer instead, unless both are nil
	hang      chan struct{}                           // if not nil, nothing is answered until it is closed
}

func newFakeRedis() *fakeRedis { return &fakeRedis{windows: map[string]*window.Window{}} }

// OneServer implements redislimit.Conn.
func (f *fakeRedis) OneServer() bool { return true }

// takeAway makes exchanges hang until restore.
func (f *fakeRedis) takeAway() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang = make(chan struct{})
}

func (f *fakeRedis) restore() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hang != nil {
		close(f.hang)
		f.hang = nil
	}
}

// forget is a restart without persistence.
func (f *fakeRedis) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.windows)
}

var errFakeKey = errors.New("WRONGTYPE Operation against a key holding the wrong kind of value")

func (f *fakeRedis) Run(ctx context.Context, script, _ string, keys, args [][]string, answer func(int, []any, error)) {
	f.mu.Lock()
	f.runs++
	for i := range keys {
		f.keys += len(keys[i])
	}
	f.calls += len(keys)
	delay, hang := f.delay, f.hang
	f.mu.Unlock()
	var err error
	if hang != nil {
		<-hang // as a client that does not look at its context
		err = errors.New("connection reset by peer")
	}
	select {
	case <-time.After(delay / 2):
	case <-ctx.Done():
		err = ctx.Err()
	}
	replies, errs := make([][]any, len(keys)), make([]error, len(keys))
	for i := range keys {
		errs[i] = err
		if err == nil && f.crossSlot && len(keys[i]) > 1 {
			errs[i] = errors.New("CROSSSLOT Keys in request don't hash to the same slot")
		}
		for _, key := range keys[i] {
			if errs[i] == nil {
				var reply []any
				reply, errs[i] = f.eval(script, key, args[i])
				replies[i] = append(replies[i], reply...)
			}
		}
	}
	time.Sleep(delay / 2)
	for i := range keys {
		answer(i, replies[i], errs[i])
	}
}

func (f *fakeRedis) eval(script, key string, args []string) ([]any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		if reply, err := f.fault(key); reply != nil || err != nil {
			return reply, err
		}
	}
	s := window.Span{Window: int64(number(args[0])), Bucket: int64(number(args[1]))}
	w := f.windows[key]
	if w == nil {
		w = new(window.Window)
		f.windows[key] = w
	}
	now := w.Advance(&f.groups, s, time.Now().UnixMicro())
	switch {
	case strings.HasPrefix(script, "-- Decides calls under Absolute"):
		return f.absolute(w, s, now, args[2:]), nil
	case strings.HasPrefix(script, "-- Makes the total"):
		return f.set(w, s, now, args[2], number(args[3]), args[4]), nil
	}
	return nil, errors.New("ERR the fake does not know Suppressed")
}

func (f *fakeRedis) absolute(w *window.Window, s window.Span, now int64, runs []string) (reply []any) {
	for ; len(runs) > 0; runs = runs[min(3, len(runs)):] {
		capacity, cost, count := run(runs)
		have, fit := w.Counts().Admitted, uint64(0)
		var v window.Verdict
		for i := uint64(0); i == 0 || i < count; i++ {
			v = window.Verdict{}
			w.Absolute(&v, &f.groups, s, capacity, now, cost, count > 0)
			if v.Allowed && count > 0 {
				fit++
			}
		}
		if v.Wait == window.Never {
			v.Wait = -1
		}
		if v.Allowed {
			v.Then = 0
		}
		reply = append(reply, int64(have), int64(fit))
		if fit < max(count, 1) {
			reply = append(reply, v.Wait, int64(v.Then))
		}
	}
	return reply
}

func (f *fakeRedis) set(w *window.Window, s window.Span, now int64, when string, total uint64, keep string) []any {
	have := w.Counts().Observed()
	op, rest, _ := strings.Cut(when, "(")
	n := uint64(0)
	if op != "Always" {
		n = number(strings.TrimSuffix(rest, ")"))
	}
	if !map[string]bool{"Always": true, "Equal": have == n, "NotEqual": have != n, "Less": have < n, "Greater": have > n}[op] {
		return []any{int64(0), int64(have)}
	}
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
