package fakeredis

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/internal/redisproto"
)

// Liar is a redislimit.Conn to a Server whose replies do not arrive as they are: the bytes of a tape say what
// becomes of them.
type Liar struct {
	*Server
	mu      sync.Mutex
	tape    *model.Tape
	told    []any
	granted uint64
}

// NewLiar returns a liar, who tells the truth once the tape is over.
func NewLiar(tape *model.Tape) *Liar { return &Liar{Server: New(), tape: tape} }

// Told returns the reply that was told last.
func (l *Liar) Told() []any {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.told)
}

// Granted returns how much all answers to messages of package lease have granted, if each is about one key.
func (l *Liar) Granted() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.granted
}

// Sane reports whether a decision does not contradict itself. The zero one is that of a verb that makes none.
func Sane(d trypema.Decision) bool {
	return d == (trypema.Decision{}) ||
		(d.Outcome == trypema.OutcomeAllowed) == d.Allowed && (d.RetryAfter == 0) == d.Allowed && d.RetryAfter >= 0 &&
			d.Remaining <= d.Limit && d.RemainingAfterWaiting <= d.Limit &&
			d.SuppressionFactor >= 0 && d.SuppressionFactor <= 1 &&
			(d.RetryAfter != trypema.Never || d.RemainingAfterWaiting == 0)
}

// Run implements redislimit.Conn.
func (l *Liar) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	l.Server.Run(ctx, source, sha1, keys, args, func(i int, reply []any, err error) {
		l.mu.Lock()
		if err == nil {
			reply, err = l.bend(reply)
		}
		l.told = reply
		if len(reply) > 0 && redisproto.NameOf(source) == "settle.lua" {
			if n, ok := reply[0].(int64); ok && n > 0 {
				l.granted += uint64(n)
			}
		}
		l.mu.Unlock()
		answer(i, reply, err)
	})
}

// bend changes a reply in a few places, or altogether.
func (l *Liar) bend(reply []any) ([]any, error) {
	in := l.tape
	for range in.Next() % 4 {
		at := 0
		if len(reply) > 0 {
			at = int(in.Next()) % len(reply)
		}
		switch op := in.Next() % 16; {
		case op < 8 && len(reply) > 0:
			reply[at] = l.value(reply[at])
		case op < 10:
			reply = slices.Insert(reply, at, l.value(nil))
		case op < 12 && len(reply) > 0:
			reply = slices.Delete(reply, at, at+1)
		case op < 13:
			reply = reply[:at]
		case op < 14:
			reply = nil
			for range in.Next() % 32 {
				reply = append(reply, l.value(nil))
			}
		case op < 15:
			return nil, errors.New(model.Pick(in, "", "ERR x", "NOTAWINDOW x", "WRONGTYPE x", "MOVED 1 :2",
				"CROSSSLOT x", "ERR variable 'struct'"))
		}
	}
	return reply, nil
}

// value is what may stand in a reply, or what a client may make of it.
func (l *Liar) value(was any) any {
	in := l.tape
	if text, ok := was.(string); ok && text != "" && in.Next() < 128 { // a byte of it is another, or it ends
		b := []byte(text)
		at := int(in.Next()) % len(b)
		b[at] ^= in.Next()
		return string(b[:len(b)-int(in.Next()%2)*at])
	}
	return model.Pick[any](in,
		int64(0), int64(1), int64(-1), int64(in.Next()), int64(1<<51-1), int64(1<<51), int64(1<<53),
		int64(math.MaxInt64), int64(math.MinInt64),
		in.Text(int(in.Next()%64)), "", "NOTAWINDOW x", string(make([]byte, 21)), nil, 1.5, true,
		[]any{int64(1)}, []byte("1"), errors.New("x"))
}
