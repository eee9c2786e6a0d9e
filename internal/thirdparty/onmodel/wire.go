package onmodel

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/redisproto"
)

// wire is the line between an instance and the server.
type wire struct {
	*fakeredis.Server
	mu    sync.Mutex
	now   state
	n     int       // answers
	at    time.Time // of the last message
	burst int       // exchanges at that instant

	heard atomic.Bool // messages may have arrived twice
	storm atomic.Bool // there were too many exchanges at an instant
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
	w.mu.Unlock()
	if storm {
		w.storm.Store(true)
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
	if s.echo > 0 {
		w.heard.Store(true)
	}
}

func (w *wire) state() state {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
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
