package redisproto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/guard"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/window"
)

// Conn is redislimit.Conn, which says what it promises.
type Conn interface {
	Run(ctx context.Context, script, sha1 string, keys, args [][]string, answer func(i int, reply []any, err error))
	OneServer() bool
}

// CheckConn returns why the function of that name refuses a Conn, as a trypema.ErrInvalidOptions, or nil.
func CheckConn(function string, c Conn) error {
	switch {
	case c == nil:
		return invalid.Errorf(trypema.ErrInvalidOptions,
			"%s got no Conn; it needs one, such as goredisconn.New returns", function)
	case invalid.Nil(c):
		return invalid.Errorf(trypema.ErrInvalidOptions,
			"%s got a Conn that is a nil %T; it needs one, such as goredisconn.New returns", function, c)
	}
	if c, ok := c.(interface{ Check() error }); ok {
		if err := c.Check(); err != nil {
			return invalid.Errorf(trypema.ErrInvalidOptions,
				"%s got a Conn that cannot work: %v", function, err)
		}
	}
	return nil
}

// Server is what is behind a Conn, and what turned out about it.
type Server struct {
	conn    Conn
	lacking atomic.Bool // its Lua lacks struct
	many    atomic.Bool // it is several, though the Conn said otherwise
	mended  *atomic.Uint64
	loading loadings
}

// NewServer returns the server behind a Conn, of which nothing is known yet.
func NewServer(c Conn) *Server { return &Server{conn: c, mended: new(atomic.Uint64)} }

// Mended returns how many windows could not be read and were begun again, in a counter that does not keep the
// Server.
func (s *Server) Mended() *atomic.Uint64 { return s.mended }

// Node returns what tells on which of several servers a key is; nil if they are one, or the Conn does not
// know.
func (s *Server) Node() func(key string) string {
	if c, ok := s.conn.(interface{ Node(key string) string }); ok && !s.conn.OneServer() {
		return c.Node
	}
	return nil
}

// movingPause is how long keys that are on two nodes of a Cluster are left alone before they are asked for
// again.
const movingPause = 10 * time.Millisecond

// Windows are the windows of an item, as mend.lua must know them.
type Windows struct {
	Kind  string // the letter in their names
	Keys  []string
	Spans []window.Span
}

// tries is how often an item is asked for whose windows cannot be read: once more when they have been looked
// through and those that are not in order begun again, and once more when all of them have been.
const tries = 3

// Run runs a script on items in one exchange, and once more with those that the server has refused in the
// form in which they came, which it then remembers. Where a run was for several items and broke off over one
// of them, they are asked for one by one: those before it are then recorded twice, which errs on the safe
// side. Items whose keys are moving from one node of a Cluster to another are asked for again until they have
// arrived, or ctx ends.
//
// pack puts together the items that one run of the script can answer; unless together is set, each is a
// parcel of its own. ask returns KEYS, one for each item, and ARGV for a parcel.
//
// answer is told what became of a parcel, from any goroutine and before Run returns: once for each, but not
// for one that was refused, whose items are packed again. It returns items of which it has found that their
// windows cannot be read. Run has these mended, and asks once more for those in again, which answer has not
// told yet. It must tell them all if last is set.
func Run[T any](
	ctx context.Context, s *Server, pick func(*Scripts) Script, items []T,
	pack func(items []T, together bool) (parcels [][]T),
	ask func(parcel []T) (keys, args []string),
	answer func(parcel []T, reply []any, err error, last bool) (again, mend []T),
	windows func(item T) Windows,
) {
	for try := 1; len(items) > 0; try++ {
		var mu sync.Mutex // guards the two below
		var again, unreadable []T
		run(ctx, s, pick, items, try > 1, pack, ask, func(parcel []T, reply []any, err error) {
			more, mend := answer(parcel, reply, err, try == tries)
			mu.Lock()
			defer mu.Unlock()
			again, unreadable = append(again, more...), append(append(unreadable, more...), mend...)
		})
		mend(ctx, s, unreadable, try > 1, windows)
		items = again
	}
}

// mend begins the windows of items again that are not in order, or all of them, and counts them. What is
// wrong comes up again when the items are asked for.
func mend[T any](ctx context.Context, s *Server, items []T, all bool, windows func(item T) Windows) {
	pick := func(s *Scripts) Script { return s.Mend }
	run(ctx, s, pick, items, true, each[T], func(parcel []T) (keys, args []string) {
		w := windows(parcel[0])
		args = append(SpanArgs(w.Spans[0]), w.Kind, "0")
		if all {
			args[3] = "1"
		}
		for _, span := range w.Spans {
			args = append(args, SpanArgs(span)...)
		}
		return w.Keys, args
	}, func(_ []T, reply []any, _ error) {
		for r := NewReader(reply); r.More() && r.Err() == nil; {
			s.mended.Add(r.Count(1))
		}
	})
}

// each is a pack of parcels of one item.
func each[T any](items []T, _ bool) (parcels [][]T) {
	for i := range items {
		parcels = append(parcels, items[i:][:1])
	}
	return parcels
}

// run is Run for windows that can be read. apart is set if no run may be for several items.
func run[T any](
	ctx context.Context, s *Server, pick func(*Scripts) Script, items []T, apart bool,
	pack func(items []T, together bool) (parcels [][]T),
	ask func(parcel []T) (keys, args []string),
	answer func(parcel []T, reply []any, err error),
) {
	for len(items) > 0 {
		one, unable := s.OneServer()
		lacking, together := s.lacking.Load(), one && !apart
		set := plain
		if lacking {
			set = portable
		}
		p := pick(set)
		parcels := pack(items, together)
		if unable != nil {
			for _, parcel := range parcels {
				answer(parcel, nil, unable)
			}
			return
		}
		keys, args := make([][]string, len(parcels)), make([][]string, len(parcels))
		for i, parcel := range parcels {
			keys[i], args[i] = ask(parcel)
		}
		var mu sync.Mutex // guards what follows
		var again []T
		var wait bool
		s.exchange(ctx, p, keys, args, func(i int, reply []any, err error) {
			// Nothing has been executed if the server could not, in any of these cases.
			noStruct, crossSlot := !lacking && lacksStruct(err), len(parcels[i]) > 1 && isCrossSlot(err)
			moving := isMoving(err) && ctx.Err() == nil
			broken := brokeOff(err)
			switch {
			case moving:
			case noStruct:
				s.lacking.Store(true)
			case crossSlot:
				s.many.Store(true)
			case broken && len(parcels[i]) > 1:
			default:
				if broken && !IsKeyFault(err) {
					err = fmt.Errorf("NOTAWINDOW the key holds a string that only looks like a window: %w", err)
				}
				answer(parcels[i], reply, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			again = append(again, parcels[i]...)
			wait, apart = wait || moving, apart || broken
		})
		items = again
		if wait {
			select {
			case <-time.After(movingPause):
			case <-ctx.Done():
			}
		}
	}
}

// OneServer reports whether a run may have several keys, or why the Conn does not say.
func (s *Server) OneServer() (one bool, err error) {
	err = guard.Call(whose, func() { one = s.conn.OneServer() && !s.many.Load() })
	return one, err
}

// send has the Conn run a script, or bring it if it has no SHA1, and answers each run once, whatever the Conn
// does: it may panic, forget a run or answer it twice.
func (s *Server) send(
	ctx context.Context, p Script, keys, args [][]string, answer func(i int, reply []any, err error),
) {
	answered := make([]atomic.Bool, len(keys))
	var bug atomic.Pointer[any] // a panic of answer, which is our own code
	once := func(i int, reply []any, err error) {
		if i < 0 || i >= len(keys) || answered[i].Swap(true) {
			return
		}
		defer func() {
			if p := recover(); p != nil {
				bug.Store(&p)
				panic(p)
			}
		}()
		answer(i, reply, sound(err))
	}
	var panicked error
	defer func() { // also if the Conn has ended the goroutine
		if p := bug.Load(); p != nil {
			panic(*p)
		}
		told := panicked == nil
		for i := range keys {
			if !answered[i].Load() {
				once(i, nil, cmp.Or(panicked, errSilent))
				told = true
			}
		}
		if !told {
			slog.Error("trypema: a panic was recovered", "err", panicked)
		}
	}()
	panicked = guard.Call(whose, func() { s.conn.Run(ctx, p.Source, p.SHA1, keys, args, once) })
}

const whose = "the Conn"

var errSilent = errors.New(whose + " has not answered")

// sound returns an error that can be asked what it says. That of a Conn may be a nil pointer, or panic.
func sound(err error) error {
	if err == nil {
		return nil
	}
	if invalid.Nil(err) {
		return fmt.Errorf("%s has answered with an error that is a nil %T", whose, err)
	}
	what := fmt.Sprintf("%s has answered with a %T, which", whose, err)
	if p := guard.Call(what, func() { _ = err.Error() }); p != nil {
		return p
	}
	return err
}
