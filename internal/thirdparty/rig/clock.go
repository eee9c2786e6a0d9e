package rig

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"encoding/hex"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/redislimit"
)

// Clocked is a Conn that has the scripts read another clock than that of the server: Lua is what they call, which returns what TIME does.
type Clocked struct {
	redislimit.Conn
	Lua string
}

// Run implements redislimit.Conn.
func (c Clocked) Run(ctx context.Context, script, _ string, keys, args [][]string, answer func(int, []any, error)) {
	const wall = "call('TIME')"
	if strings.Count(script, wall) != 1 {
		panic("the script does not read the clock as expected")
	}
	script = strings.Replace(script, wall, c.Lua, 1)
	sum := sha1.Sum([]byte(script)) //nolint:gosec // it is how Redis names scripts
	c.Conn.Run(ctx, script, hex.EncodeToString(sum[:]), keys, args, answer)
}

// Clock is one that only goes on when it is told to.
type Clock struct {
	client redis.UniversalClient
	name   string
	Now    int64 // in µs
}

// NewClock returns a clock on the server of a client, and a connection whose scripts read it.
func NewClock(t testing.TB, client redis.UniversalClient) (*Clock, Clocked) {
	c := &Clock{client: client, name: "{" + Unique("clock") + "}"}
	c.Advance(t, 1.8e15)
	return c, Clocked{goredisconn.New(client), "{0, call('GET', '" + c.name + "')}"}
}

// Advance moves the clock, by some µs.
func (c *Clock) Advance(t testing.TB, later int64) {
	t.Helper()
	c.Now += later
	if err := c.client.Set(context.Background(), c.name, strconv.FormatInt(c.Now, 10), 0).Err(); err != nil {
		t.Fatal(err)
	}
}
