package resp

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
)

// command is what a client can ask for.
type command struct {
	least, most int // arguments, with the name
	forAll      bool
	run         func(*conn)
}

var commands map[string]command

func init() { // here, because INFO counts them
	commands = map[string]command{
		"cl.throttle":     {1, maxArgs, false, (*conn).throttle},
		"trypema.allow":   {4, 5, false, (*conn).allow},
		"trypema.peek":    {4, 5, false, (*conn).peek},
		"trypema.usage":   {4, 4, false, (*conn).usage},
		"trypema.reserve": {5, 6, false, (*conn).reserve},
		"trypema.commit":  {3, 3, false, (*conn).commit},
		"trypema.delete":  {4, 4, false, (*conn).delete},

		"ping":    {1, 2, false, (*conn).ping},
		"echo":    {2, 2, false, func(c *conn) { c.bulk(string(c.args[1])) }},
		"hello":   {1, 9, true, (*conn).hello},
		"auth":    {2, 3, true, (*conn).auth},
		"quit":    {1, maxArgs, true, func(c *conn) { c.isLast = true; c.simple("OK") }},
		"reset":   {1, 1, true, (*conn).reset},
		"select":  {2, 2, false, (*conn).selectDatabase},
		"client":  {2, maxArgs, false, (*conn).client},
		"command": {1, maxArgs, false, (*conn).command},
		"config":  {2, maxArgs, false, func(c *conn) { c.pairs(0) }}, // benchmarks ask for it
		"info":    {1, maxArgs, false, (*conn).info},
		"time":    {1, 1, false, (*conn).time},
	}
}

// serveCommand answers the command in args.
func (c *conn) serveCommand() {
	var lower [32]byte
	name := c.args[0]
	if len(name) > len(lower) {
		name = name[:len(lower)]
	}
	for i, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		lower[i] = b
	}
	one, ok := commands[string(lower[:len(name)])]
	before := len(c.out)
	switch {
	case !ok:
		c.fail("ERR unknown command %.64q", c.args[0])
	case !one.forAll && !c.isAuthenticated:
		c.fail("NOAUTH Authentication required.")
	case len(c.args) < one.least || len(c.args) > one.most:
		c.fail("ERR wrong number of arguments for '%s' command", lower[:len(name)])
	default:
		one.run(c)
	}
	if c.server.Served != nil {
		label := "unknown"
		if ok {
			label = string(lower[:len(name)])
		}
		c.server.Served(label, len(c.out) > before && c.out[before] == '-')
	}
}

// throttle is CL.THROTTLE key max_burst count period [quantity], as redis-cell has it. What it limits is an
// exact window of max_burst + 1, which is as long as count in each period takes for that many.
func (c *conn) throttle() {
	wrong := func(format string, args ...any) { c.fail("Cell error: Store error: "+format, args...) }
	if len(c.args) != 5 && len(c.args) != 6 {
		wrong("Usage: cl.throttle <key> <max_burst> <count per period> <period> [<quantity>]")
		return
	}
	numbers := [4]int64{3: 1}
	for i, arg := range c.args[2:] {
		n, err := strconv.ParseInt(string(arg), 10, 64)
		if err != nil {
			wrong("Couldn't parse as integer: %.64s", arg)
			return
		}
		numbers[i] = n
	}
	burst, count, period, quantity := numbers[0], numbers[1], numbers[2], numbers[3]
	switch {
	case count == 0 || period == 0:
		wrong("Zero rates are not supported")
		return
	case burst < 0 || burst == math.MaxInt64:
		wrong("max_burst is %d; it must be from 0 to %d", burst, int64(math.MaxInt64-1))
		return
	case count < 0 || period < 0 || quantity < 0:
		wrong("count is %d, period is %d, quantity is %d; none may be negative", count, period, quantity)
		return
	case period > maxPeriod:
		wrong("period is %d; it must be at most %d", period, int64(maxPeriod))
		return
	}
	limit, err := engine.Scaled(uint64(burst)+1, uint64(count), time.Duration(period)*time.Second)
	if err != nil {
		wrong("%s", text(err))
		return
	}
	t := engine.Target{Limit: limit, Key: string(c.args[1])}
	var d trypema.Decision
	if quantity == 0 {
		d, err = c.server.Engine.Peek(c.server.conns.Context, &t, 1)
		d.Allowed = err == nil // a look is never limited
	} else {
		d, err = c.server.Engine.Allow(c.server.conns.Context, &t, uint64(quantity))
	}
	reset := limit.Window // of what was just recorded
	if err == nil && (quantity == 0 || !d.Allowed) {
		reset, err = c.server.Engine.ResetAfter(c.server.conns.Context, &t)
	}
	if err != nil {
		wrong("%s", text(err))
		return
	}
	limited, retry := int64(0), int64(-1)
	if !d.Allowed {
		limited = 1
		if d.RetryAfter != trypema.Never {
			retry = seconds(d.RetryAfter)
		}
	}
	c.array(5)
	c.integer(limited)
	c.integer(burst + 1)
	c.integer(int64(min(d.Remaining, uint64(burst)+1)))
	c.integer(retry)
	c.integer(seconds(reset))
}

const maxPeriod = 100 * 365 * 24 * 3600

// seconds is a duration in whole seconds, never less.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// text is what a client may be told of an error.
func text(err error) string {
	s, _ := engine.Problem(err)
	return s
}

// failed answers with an error of the engine.
func (c *conn) failed(err error) {
	s, isClients := engine.Problem(err)
	if !isClients {
		c.server.Logger.Warn("resp: a command failed", "err", err)
	}
	c.fail("ERR %s", s)
}

// target reads key, limit and window from the arguments.
func (c *conn) target() (t engine.Target, ok bool) {
	limit, ok := c.uint(2, "limit")
	if !ok {
		return t, false
	}
	window, ok := c.duration(3, "window")
	if !ok {
		return t, false
	}
	return engine.Target{Key: string(c.args[1]), Limit: engine.Limit{Capacity: limit, Window: window}}, true
}

func (c *conn) uint(i int, what string) (uint64, bool) {
	n, err := strconv.ParseUint(string(c.args[i]), 10, 64)
	if err != nil {
		c.fail("ERR %s is %.64q; it must be a whole number", what, c.args[i])
	}
	return n, err == nil
}

// duration reads a number of seconds, or a duration with a unit.
func (c *conn) duration(i int, what string) (time.Duration, bool) {
	arg := string(c.args[i])
	if n, err := strconv.ParseInt(arg, 10, 64); err == nil && n >= 0 && n <= maxPeriod {
		return time.Duration(n) * time.Second, true
	}
	d, err := time.ParseDuration(arg)
	if err != nil {
		c.fail("ERR %s is %.64q; it must be a number of seconds, or a duration such as 500ms or 1h", what,
			arg)
	}
	return d, err == nil
}

// cost reads an argument that can be left out.
func (c *conn) cost(i int, otherwise uint64) (uint64, bool) {
	if len(c.args) <= i {
		return otherwise, true
	}
	return c.uint(i, "cost")
}

// decision answers with allowed, limit, remaining and, in milliseconds, retry after: 0 if the call was
// allowed, -1 if it never can be.
func (c *conn) decision(d *trypema.Decision, more int) {
	c.array(4 + more)
	if d.Allowed {
		c.integer(1)
	} else {
		c.integer(0)
	}
	c.integer(int64(min(d.Limit, math.MaxInt64)))
	c.integer(int64(min(d.Remaining, math.MaxInt64)))
	c.integer(milliseconds(d.RetryAfter))
}

func milliseconds(d time.Duration) int64 {
	if d == trypema.Never {
		return -1
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func (c *conn) allow() { c.ask(c.server.Engine.Allow) }
func (c *conn) peek()  { c.ask(c.server.Engine.Peek) }

// ask answers with a decision about a key, a limit, a window and perhaps a cost.
func (c *conn) ask(
	decide func(ctx context.Context, t *engine.Target, cost uint64) (trypema.Decision, error),
) {
	t, ok := c.target()
	if !ok {
		return
	}
	cost, ok := c.cost(4, 1)
	if !ok {
		return
	}
	d, err := decide(c.server.conns.Context, &t, cost)
	if err != nil {
		c.failed(err)
		return
	}
	c.decision(&d, 0)
}

// usage answers with used, limit and remaining.
func (c *conn) usage() {
	t, ok := c.target()
	if !ok {
		return
	}
	used, limits, err := c.server.Engine.Usage(c.server.conns.Context, &t)
	if err != nil {
		c.failed(err)
		return
	}
	c.array(3)
	c.integer(int64(min(used[0].Total, math.MaxInt64)))
	c.integer(int64(limits[0].Capacity))
	c.integer(int64(limits[0].Capacity - min(limits[0].Capacity, used[0].Total)))
}

// reserve is TRYPEMA.RESERVE key limit window estimate [expiry]. It answers as TRYPEMA.ALLOW does, and with
// the name of the reservation, or null.
func (c *conn) reserve() {
	t, ok := c.target()
	if !ok {
		return
	}
	estimate, ok := c.uint(4, "estimate")
	if !ok {
		return
	}
	expiry := time.Duration(0)
	if len(c.args) > 5 {
		if expiry, ok = c.duration(5, "expiry"); !ok {
			return
		}
		if expiry == 0 {
			c.fail("ERR expiry is 0; it must be above 0")
			return
		}
	}
	name, d, err := c.server.Engine.Reserve(c.server.conns.Context, &t, estimate, expiry)
	if err != nil {
		c.failed(err)
		return
	}
	c.decision(&d, 1)
	if name == "" {
		c.null()
		return
	}
	c.bulk(name)
}

func (c *conn) commit() {
	cost, ok := c.uint(2, "cost")
	if !ok {
		return
	}
	if err := c.server.Engine.Commit(c.server.conns.Context, string(c.args[1]), cost); err != nil {
		c.failed(err)
		return
	}
	c.simple("OK")
}

func (c *conn) delete() {
	t, ok := c.target()
	if !ok {
		return
	}
	if err := c.server.Engine.Delete(c.server.conns.Context, &t); err != nil {
		c.failed(err)
		return
	}
	c.simple("OK")
}

func (c *conn) ping() {
	if len(c.args) == 2 {
		c.bulk(string(c.args[1]))
		return
	}
	c.simple("PONG")
}

// hello is HELLO [version [AUTH user password] [SETNAME name]].
func (c *conn) hello() {
	version := map[bool]int{false: 2, true: 3}[c.isVersion3]
	if len(c.args) > 1 {
		var ok bool
		if version, ok = number(c.args[1]); !ok {
			c.fail("ERR Protocol version is not an integer or out of range")
			return
		}
	}
	if version != 2 && version != 3 {
		c.fail("NOPROTO unsupported protocol version")
		return
	}
	for i := 2; i < len(c.args); {
		switch option := strings.ToLower(string(c.args[i])); {
		case option == "auth" && i+2 < len(c.args):
			if !c.authenticate(c.args[i+1], c.args[i+2]) {
				return
			}
			i += 3
		case option == "setname" && i+1 < len(c.args):
			c.name = string(c.args[i+1])
			i += 2
		default:
			c.fail("ERR Syntax error in HELLO option %.64q", c.args[i])
			return
		}
	}
	if !c.isAuthenticated {
		c.fail("NOAUTH HELLO must be called with the client already authenticated, " +
			"otherwise the HELLO <proto> AUTH <user> <pass> option can be used")
		return
	}
	c.isVersion3 = version == 3
	c.pairs(7)
	for _, pair := range [][2]string{{"server", "trypema"}, {"version", redisVersion}} {
		c.bulk(pair[0])
		c.bulk(pair[1])
	}
	c.bulk("proto")
	c.integer(int64(version))
	c.bulk("id")
	c.integer(c.id)
	c.bulk("mode")
	c.bulk("standalone")
	c.bulk("role")
	c.bulk("master")
	c.bulk("modules")
	c.array(0)
}

// redisVersion is the version of Redis whose clients feel at home here.
const redisVersion = "7.0.0"

// auth is AUTH [user] password.
func (c *conn) auth() {
	user, password := []byte("default"), c.args[len(c.args)-1]
	if len(c.args) == 3 {
		user = c.args[1]
	}
	if len(c.server.tokens) == 0 {
		c.fail("ERR AUTH called without any password configured for the default user. " +
			"Are you sure your configuration is correct?")
		return
	}
	if c.authenticate(user, password) {
		c.simple("OK")
	}
}

// authenticate checks a password. It answers if it is wrong.
func (c *conn) authenticate(user, password []byte) bool {
	if len(c.server.tokens) == 0 && string(user) == "default" {
		return true
	}
	if string(user) != "default" || !c.server.tokens.Have(string(password)) {
		c.fail("WRONGPASS invalid username-password pair or user is disabled.")
		return false
	}
	c.isAuthenticated = true
	return true
}

func (c *conn) reset() {
	c.isVersion3, c.name, c.isAuthenticated = false, "", len(c.server.tokens) == 0
	c.simple("RESET")
}

func (c *conn) selectDatabase() {
	if n, ok := number(c.args[1]); !ok || n != 0 {
		c.fail("ERR DB index is out of range")
		return
	}
	c.simple("OK")
}

// client answers what clients tell of themselves when they connect.
func (c *conn) client() {
	switch strings.ToLower(string(c.args[1])) {
	case "setname":
		if len(c.args) != 3 {
			c.fail("ERR wrong number of arguments for 'client|setname' command")
			return
		}
		c.name = string(c.args[2])
		c.simple("OK")
	case "getname":
		if c.name == "" {
			c.null()
			return
		}
		c.bulk(c.name)
	case "id":
		c.integer(c.id)
	case "setinfo", "no-evict", "no-touch", "reply":
		c.simple("OK")
	default:
		c.fail("ERR unknown subcommand %.64q. Try CLIENT ID, GETNAME, SETINFO or SETNAME.", c.args[1])
	}
}

// command is COMMAND, which lists the commands, COMMAND COUNT, and COMMAND DOCS, for which there are none.
func (c *conn) command() {
	sub := ""
	if len(c.args) > 1 {
		sub = strings.ToLower(string(c.args[1]))
	}
	switch sub {
	case "count":
		c.integer(int64(len(commands)))
	case "docs":
		c.pairs(0)
	case "", "info", "list":
		c.array(0)
	default:
		c.fail("ERR unknown subcommand %.64q. Try COMMAND COUNT or DOCS.", c.args[1])
	}
}

func (c *conn) info() {
	c.bulk(fmt.Sprintf("# Server\r\nredis_version:%s\r\nredis_mode:standalone\r\nserver_name:trypema\r\n"+
		"uptime_in_seconds:%d\r\n# Clients\r\nconnected_clients:%d\r\n",
		redisVersion, int64(time.Since(c.server.started)/time.Second), c.server.Conns()))
}

func (c *conn) time() {
	now := time.Now().UnixMicro()
	c.array(2)
	c.bulk(strconv.FormatInt(now/1_000_000, 10))
	c.bulk(strconv.FormatInt(now%1_000_000, 10))
}

// Commands returns the names of all commands, in lower case.
func Commands() []string { return slices.Sorted(maps.Keys(commands)) }
