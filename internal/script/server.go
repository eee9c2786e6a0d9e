package script

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is redislimit.Conn, which says what it promises.
type Conn interface {
	Run(ctx context.Context, script, sha1 string, keys, args [][]string, answer func(i int, reply []any, err error))
	OneServer() bool
}

// Server is what is behind a Conn, and what turned out about it.
type Server struct {
	conn    Conn
	lacking atomic.Bool // its Lua lacks struct
	many    atomic.Bool // it is several, though the Conn said otherwise
}

// NewServer returns the server behind a Conn, of which nothing is known yet.
func NewServer(c Conn) *Server { return &Server{conn: c} }

// Node returns what tells on which of several servers a key is; nil if they are one, or the Conn does not
// know.
func (s *Server) Node() func(key string) string {
	if c, ok := s.conn.(interface{ Node(key string) string }); ok && !s.conn.OneServer() {
		return c.Node
	}
	return nil
}

// movingPause is how long keys that are on two nodes of a Cluster are left alone before they are asked for again.
const movingPause = 10 * time.Millisecond

// Run runs a script on items in one exchange, and once more with those that the server has refused in the form in which they
// came, which it then remembers. Where a run was for several items and broke off over one of them, they are asked for one by one:
// those before it are then recorded twice, which errs on the safe side. Items whose keys are moving from one node of a Cluster to
// another are asked for again until they have arrived, or ctx ends.
//
// pack puts together the items that one run of the script can answer; unless together is set, each is a parcel of its own.
// ask returns KEYS, one for each item, and ARGV for a parcel. answer is told what became of a parcel, from any goroutine and
// before Run returns: once for each, but not for one that was refused, whose items are packed again.
func Run[T any](
	ctx context.Context, s *Server, pick func(*Scripts) Script, items []T,
	pack func(items []T, together bool) (parcels [][]T),
	ask func(parcel []T) (keys, args []string),
	answer func(parcel []T, reply []any, err error),
) {
	apart := false
	for len(items) > 0 {
		lacking, together := s.lacking.Load(), s.conn.OneServer() && !s.many.Load() && !apart
		set := plain
		if lacking {
			set = portable
		}
		p := pick(set)
		parcels := pack(items, together)
		keys, args := make([][]string, len(parcels)), make([][]string, len(parcels))
		for i, parcel := range parcels {
			keys[i], args[i] = ask(parcel)
		}
		var mu sync.Mutex // guards what follows
		var again []T
		var wait bool
		s.conn.Run(ctx, p.Source, p.SHA1, keys, args, func(i int, reply []any, err error) {
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
