package rig

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

// Clocked is a Conn whose scripts go by the clock Time instead of that of their server, which they read and
// forget: each call brings the time along. Keys live 1,000 times as long, so that a slow machine does not see
// them expire by the clock of the server.
type Clocked struct {
	redislimit.Conn
	Time func() int64 // in µs; called once for each run of a script, in order
}

// Run implements redislimit.Conn.
func (c Clocked) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	s := clocked(script)
	if sha1 == "" {
		s.SHA1 = ""
	}
	timed := make([][]string, len(args))
	for i := range args {
		timed[i] = append(slices.Clip(args[i]), strconv.FormatInt(c.Time(), 10))
	}
	c.Conn.Run(ctx, s.Source, s.SHA1, keys, timed, answer)
}

var scripts sync.Map // of redisproto.Script, by the source that was changed

// clocked returns the script with another clock: the last of its arguments.
func clocked(script string) redisproto.Script {
	if s, ok := scripts.Load(script); ok {
		return s.(redisproto.Script)
	}
	plain := script
	for _, change := range [][2]string{
		{"call('TIME')", "call('TIME') and {0, table.remove(ARGV)}"},
		{"local call = redis.call\n", `local call = function(...)
  local words = {...}
  if words[1] == 'PEXPIRE' then words[3] = words[3] * 1000 end
  if words[4] == 'PX' then words[5] = words[5] * 1000 end
  return redis.call(unpack(words))
end
`},
	} {
		if n := strings.Count(script, change[0]); n != 1 {
			panic(fmt.Sprintf("the script has %q %d times, want once", change[0], n))
		}
		script = strings.Replace(script, change[0], change[1], 1)
	}
	s := redisproto.Script{Source: script, SHA1: redis.NewScript(script).Hash()}
	scripts.Store(plain, s)
	return s
}

// Clock is a clock that a test moves.
type Clock struct{ now atomic.Int64 } // in µs

// Now returns what the clock says, in µs.
func (c *Clock) Now() int64 { return c.now.Load() }

// NewClock returns a clock, and a connection whose scripts read it.
func NewClock(c redislimit.Conn) (*Clock, Clocked) {
	clock := new(Clock)
	clock.now.Store(1.8e15)
	return clock, Clocked{c, clock.Now}
}

// Advance moves the clock, by some µs.
func (c *Clock) Advance(later int64) { c.now.Add(later) }

// Bridge leads from bubbles of testing/synctest to a server outside of them. The time of a bubble stands
// still during an exchange, and the scripts read it (Clocked). So what a test says of time holds on the real
// server, with a real client, on a machine of any speed.
type Bridge struct {
	conn  redislimit.Conn
	trips chan *trip
}

// trip is an exchange. Who makes it waits for the mutex: of all that a goroutine can wait for, that, made in
// a bubble, does not let its time go on, and may be ended by a goroutine outside.
type trip struct {
	script, sha1 string
	keys, args   [][]string
	replies      [][]any
	errs         []error
	under        sync.Mutex // locked until there are replies
}

// tripTimeout is how long a server may take. It is real time, which a bubble has none of.
const tripTimeout = 2 * time.Minute

// NewBridge returns a bridge to a connection. It must be called outside of bubbles.
func NewBridge(t testing.TB, c redislimit.Conn) *Bridge {
	b := &Bridge{conn: c, trips: make(chan *trip)}
	var all sync.WaitGroup
	all.Go(func() {
		for r := range b.trips {
			all.Go(func() { b.make(r) })
		}
	})
	t.Cleanup(func() {
		close(b.trips)
		all.Wait()
	})
	return b
}

func (b *Bridge) make(r *trip) {
	defer r.under.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), tripTimeout)
	defer cancel()
	b.conn.Run(ctx, r.script, r.sha1, r.keys, r.args, func(i int, reply []any, err error) {
		r.replies[i], r.errs[i] = reply, err
	})
}

// Conn returns a connection for a bubble, whose scripts read the time of the bubble.
func (b *Bridge) Conn() redislimit.Conn {
	return Clocked{b, func() int64 { return time.Now().UnixMicro() }}
}

// OneServer implements redislimit.Conn.
func (b *Bridge) OneServer() bool { return b.conn.OneServer() }

// Run implements redislimit.Conn.
func (b *Bridge) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	r := &trip{
		script: script, sha1: sha1, keys: keys, args: args,
		replies: make([][]any, len(keys)), errs: make([]error, len(keys)),
	}
	if err := ctx.Err(); err != nil {
		for i := range keys {
			answer(i, nil, err)
		}
		return
	}
	r.under.Lock()
	b.trips <- r
	r.under.Lock()
	for i := range keys {
		answer(i, r.replies[i], r.errs[i])
	}
}

// Far is a connection to a server that is so far away, there and back.
type Far struct {
	redislimit.Conn
	Delay time.Duration
}

// Run implements redislimit.Conn.
func (f Far) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	time.Sleep(f.Delay / 2)
	back := sync.OnceFunc(func() { time.Sleep(f.Delay / 2) })
	f.Conn.Run(ctx, script, sha1, keys, args, func(i int, reply []any, err error) {
		back()
		answer(i, reply, err)
	})
}
