package resp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/pipes"
)

func TestMain(m *testing.M) { leak.Main(m) }

// serve starts a server in memory. It is ended with the test.
func serve(t testing.TB, o Options) (*Server, *pipes.Listener) {
	t.Helper()
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Engine = engine.New(limits, engine.Options{})
	o.Logger = slog.New(slog.DiscardHandler)
	s, l := New(o), pipes.New()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		must.Report(t, s.Shutdown(context.Background()))
		must.Report(t, <-ended)
		o.Engine.Close()
		limits.Close()
	})
	return s, l
}

// client speaks to a server as a program would.
type client struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func dial(t testing.TB, l *pipes.Listener) *client {
	c := l.Dial()
	t.Cleanup(func() { _ = c.Close() })
	return &client{t, c, bufio.NewReader(c)}
}

func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// do sends a command and returns its answer: elements of arrays have spaces between them.
func (c *client) do(command string) string {
	c.t.Helper()
	c.send(encode(strings.Fields(command)...))
	return c.receive()
}

func (c *client) send(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) receive() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "end: " + err.Error()
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	switch line[0] {
	case '%':
		n *= 2
		fallthrough
	case '*':
		all := make([]string, n)
		for i := range all {
			all[i] = c.receive()
		}
		return strings.Join(all, " ")
	case '$':
		if n < 0 {
			return "null"
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, b); err != nil {
			return "end: " + err.Error()
		}
		return string(b[:n])
	case ':', '+':
		return line[1:]
	case '_':
		return "null"
	}
	return line
}

// TestThrottle: the answers of CL.THROTTLE. With a burst of 0 they are those of redis-cell at every instant;
// with one, what expires does so as it came.
func TestThrottle(t *testing.T) {
	type step struct {
		after   time.Duration
		command string
		want    string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"burst 0", []step{
			{0, "CL.THROTTLE k 0 1 2", "0 1 0 -1 2"},
			{0, "CL.THROTTLE k 0 1 2", "1 1 0 2 2"},
			{time.Second, "CL.THROTTLE k 0 1 2", "1 1 0 1 1"},
			{500 * time.Millisecond, "CL.THROTTLE k 0 1 2", "1 1 0 1 1"},
			{500 * time.Millisecond, "CL.THROTTLE k 0 1 2", "0 1 0 -1 2"},
		}},
		{"a new key", []step{{0, "CL.THROTTLE user123 15 30 60", "0 16 15 -1 32"}}}, // redis-cell: 2
		{"burst 4", []step{
			{0, "CL.THROTTLE k 4 1 1 6", "1 5 5 -1 0"}, // more than can ever fit
			{0, "CL.THROTTLE k 4 1 1", "0 5 4 -1 5"},
			{0, "cl.throttle k 4 1 1 1", "0 5 3 -1 5"},
			{0, "CL.THROTTLE k 4 1 1", "0 5 2 -1 5"},
			{0, "CL.THROTTLE k 4 1 1", "0 5 1 -1 5"},
			{0, "CL.THROTTLE k 4 1 1", "0 5 0 -1 5"},
			{0, "CL.THROTTLE k 4 1 1", "1 5 0 5 5"}, // redis-cell: retry after 1
			{5 * time.Second, "CL.THROTTLE k 4 1 1 5", "0 5 0 -1 5"},
		}},
		{"quantity 0 looks", []step{
			{0, "CL.THROTTLE k 1 1 1 0", "0 2 2 -1 0"},
			{0, "CL.THROTTLE k 1 1 1 2", "0 2 0 -1 2"},
			{time.Second, "CL.THROTTLE k 1 1 1 0", "0 2 0 -1 1"},
		}},
		{"parameters belong to the call", []step{
			{0, "CL.THROTTLE k 1 1 1 2", "0 2 0 -1 2"},
			{0, "CL.THROTTLE k 3 2 1 1", "0 4 1 -1 2"}, // the same window, a higher limit
			{0, "CL.THROTTLE k 0 1 1 1", "0 1 0 -1 1"}, // another window
		}},
		{"faster than a window can be", []step{
			{0, "CL.THROTTLE k 0 10000 1 10", "0 1 0 -1 1"}, {0, "CL.THROTTLE k 0 10000 1", "1 1 0 1 1"},
			{time.Millisecond, "CL.THROTTLE k 0 10000 1", "0 1 1 -1 1"},
		}},
		{"wrong", []step{
			{
				0,
				"CL.THROTTLE k 1 1",
				"-Cell error: Store error: Usage: cl.throttle <key> <max_burst> <count per period> <period> [<quantity>]",
			},
			{
				0,
				"CL.THROTTLE k 1 1 1 1 1",
				"-Cell error: Store error: Usage: cl.throttle <key> <max_burst> <count per period> <period> [<quantity>]",
			},
			{0, "CL.THROTTLE k x 1 1", "-Cell error: Store error: Couldn't parse as integer: x"},
			{0, "CL.THROTTLE k 1 1 1.5", "-Cell error: Store error: Couldn't parse as integer: 1.5"},
			{0, "CL.THROTTLE k 1 0 1", "-Cell error: Store error: Zero rates are not supported"},
			{0, "CL.THROTTLE k 1 1 0", "-Cell error: Store error: Zero rates are not supported"},
			{
				0,
				"CL.THROTTLE k -1 1 1",
				"-Cell error: Store error: max_burst is -1; it must be from 0 to 9223372036854775806",
			},
			{
				0,
				"CL.THROTTLE k 1 -1 1",
				"-Cell error: Store error: count is -1, period is 1, quantity is 1; none may be negative",
			},
			{
				0,
				"CL.THROTTLE k 1 1 9000000000000",
				"-Cell error: Store error: period is 9000000000000; it must be at most 3153600000",
			},
			{
				0,
				"CL.THROTTLE k 9223372036854775806 1 60",
				"-Cell error: Store error: 9223372036854775807 at 1 per 1m0s takes longer than 876000h0m0s",
			},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, l := serve(t, Options{})
				c := dial(t, l)
				for i, s := range tt.steps {
					time.Sleep(s.after)
					if got := c.do(s.command); got != s.want {
						t.Errorf("step %d: %s:\n got %s\nwant %s", i+1, s.command, got, s.want)
					}
				}
			})
		})
	}
}

func TestCommands(t *testing.T) {
	tests := []struct {
		name  string
		steps []string // command, answer, command, answer
	}{
		{"ALLOW", []string{
			"TRYPEMA.ALLOW k 3 60", "1 3 2 0", "TRYPEMA.ALLOW k 3 1m 2", "1 3 0 0", "TRYPEMA.ALLOW k 3 60s", "0 3 0 60000",
			"TRYPEMA.ALLOW k 3 60 4", "0 3 0 -1", "TRYPEMA.PEEK k 5 60 2", "1 5 2 0", "TRYPEMA.PEEK k 3 60", "0 3 0 60000",
			"TRYPEMA.USAGE k 5 60", "3 5 2", "TRYPEMA.USAGE other 5 60", "0 5 5", "TRYPEMA.DELETE k 3 60", "OK", "TRYPEMA.USAGE k 5 60", "0 5 5",
			"TRYPEMA.ALLOW k 0 60", "0 0 0 -1",
		}},
		{"wrong", []string{
			"TRYPEMA.ALLOW k", "-ERR wrong number of arguments for 'trypema.allow' command",
			"TRYPEMA.ALLOW k x 60", `-ERR limit is "x"; it must be a whole number`,
			"TRYPEMA.ALLOW k -1 60", `-ERR limit is "-1"; it must be a whole number`,
			"TRYPEMA.ALLOW k 3 soon", `-ERR window is "soon"; it must be a number of seconds, or a duration such as 500ms or 1h`,
			"TRYPEMA.ALLOW k 3 0", "-ERR window is 0s; it must be from 1ms to 876000h0m0s",
			"TRYPEMA.ALLOW k 3 60 0", "-ERR cost is 0; it must be at least 1",
			"TRYPEMA.RESERVE k 3 60 0", "-ERR estimate is 0; it must be at least 1",
			"TRYPEMA.RESERVE k 3 60 1 0", "-ERR expiry is 0; it must be above 0",
			"TRYPEMA.RESERVE k 3 60 5", "0 3 3 -1 null",
			"TRYPEMA.COMMIT none 1", "-ERR the reservation is unknown, settled or expired",
			"GET k", `-ERR unknown command "GET"`,
			"QUIT", "OK",
		}},
		{"connection", []string{
			"PING", "PONG", "PING hello", "hello", "ECHO x", "x", "SELECT 0", "OK", "SELECT 1", "-ERR DB index is out of range",
			"CLIENT GETNAME", "null", "CLIENT SETNAME me", "OK", "CLIENT GETNAME", "me", "CLIENT SETINFO LIB-NAME x", "OK",
			"COMMAND DOCS", "", "CONFIG GET save", "", "AUTH x", "-ERR AUTH called without any password configured for the default user. Are you sure your configuration is correct?",
			"HELLO 4", "-NOPROTO unsupported protocol version", "HELLO x", "-ERR Protocol version is not an integer or out of range",
			"HELLO 3 FOO", `-ERR Syntax error in HELLO option "FOO"`,
			"HELLO 3 SETNAME you", "server trypema version 7.0.0 proto 3 id 1 mode standalone role master modules ",
			"CLIENT GETNAME", "you", "RESET", "RESET", "CLIENT GETNAME", "null", "HELLO", "server trypema version 7.0.0 proto 2 id 1 mode standalone role master modules ",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, l := serve(t, Options{})
				c := dial(t, l)
				for i := 0; i < len(tt.steps); i += 2 {
					if got := c.do(tt.steps[i]); got != tt.steps[i+1] {
						t.Errorf("%s:\n got %s\nwant %s", tt.steps[i], got, tt.steps[i+1])
					}
				}
			})
		})
	}
}

func TestReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := serve(t, Options{})
		c := dial(t, l)
		answer := c.do("TRYPEMA.RESERVE k 10 1h 8 30s")
		name, ok := strings.CutPrefix(answer, "1 10 2 0 ")
		if !ok || len(name) != 32 {
			t.Fatal(answer)
		}
		if got := c.do("TRYPEMA.COMMIT " + name + " 3"); got != "OK" {
			t.Error(got)
		}
		if got := c.do("TRYPEMA.USAGE k 10 1h"); got != "3 10 7" {
			t.Error(got)
		}
	})
}

// TestRaw: what comes is answered whatever its pieces are, and what is no command ends the connection.
func TestRaw(t *testing.T) {
	tests := []struct {
		name, send, want string
		isEnd            bool
	}{
		{"pipeline", encode("PING") + encode("PING", "2") + "ping 3\r\n", "PONG | 2 | 3", false},
		{"inline with quotes", "PING \"a\"\n", "a", false},
		{"empty lines", "\r\n\r\n*0\r\nPING\r\n", "PONG", false},
		{"binary", encode("PING", "\x00\xff\r\n"), "\x00\xff\r\n", false},
		{"empty argument", encode("PING", ""), "", false},
		{"too many arguments", "*65\r\n", "-ERR Protocol error: invalid multibulk length", true},
		{
			"count without end",
			"*9000000000000000000\r\n$1\r\na\r\n",
			"-ERR Protocol error: invalid multibulk length",
			true,
		},
		{"negative count", "*-5\r\nPING\r\n", "PONG", false},
		{"count no number", "*x\r\n", "-ERR Protocol error: invalid multibulk length", true},
		{
			"huge length",
			"*1\r\n$9223372036854775807\r\nx\r\n",
			"-ERR Protocol error: invalid bulk length",
			true,
		},
		{"long argument", "*1\r\n$65537\r\n", "-ERR Protocol error: invalid bulk length", true},
		{
			"long command",
			"*3\r\n$65536\r\n" + strings.Repeat("x", 65536) + "\r\n$65536\r\n" + strings.Repeat("x",
				65536) + "\r\n$1\r\n",
			"-ERR Protocol error: invalid bulk length",
			true,
		},
		{"negative length", "*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length", true},
		{"no length", "*1\r\nPING\r\n", `-ERR Protocol error: expected '$', got "P"`, true},
		{
			"no end of an argument",
			"*1\r\n$4\r\nPINGPONG\r\n",
			"-ERR Protocol error: expected CRLF after a bulk",
			true,
		},
		{"long line", strings.Repeat("x", 5000), "-ERR Protocol error: too big inline request", true},
		{"many words", strings.Repeat("x ", 65) + "\n", "-ERR Protocol error: too big inline request", true},
		{"open quotes", "PING \"a\n", "-ERR Protocol error: unbalanced quotes in request", true},
		{
			"long name",
			encode(strings.Repeat("X", 100)),
			`-ERR unknown command "` + strings.Repeat("X", 64) + `"`,
			false,
		},
		{"HTTP", "GET / HTTP/1.1\r\n", `-ERR unknown command "GET"`, false},
	}
	for _, tt := range tests {
		for _, piece := range []int{1, 7, 1 << 20} {
			if piece == 1 && len(tt.send) > 1<<16 {
				continue
			}
			t.Run(fmt.Sprintf("%s in pieces of %d", tt.name, piece), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, l := serve(t, Options{})
					c := dial(t, l)
					go func() {
						for i := 0; i < len(tt.send); i += piece {
							if _, err := io.WriteString(c, tt.send[i:min(i+piece, len(tt.send))]); err != nil {
								return // it was cut
							}
						}
					}()
					for i, want := range strings.Split(tt.want, " | ") {
						if got := c.receive(); got != want {
							t.Errorf("answer %d: %q, want %q", i+1, got, want)
						}
					}
					if tt.isEnd {
						if got := c.receive(); got != "end: EOF" {
							t.Errorf("the connection goes on with %q", got)
						}
					} else if got := c.do("PING"); got != "PONG" {
						t.Errorf("afterwards: %q", got)
					}
				})
			})
		}
	}
}

func TestAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := serve(t, Options{Tokens: []string{"old", "secret"}})
		steps := []string{
			"PING", "-NOAUTH Authentication required.",
			"TRYPEMA.ALLOW k 1 1", "-NOAUTH Authentication required.",
			"AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.",
			"AUTH someone secret", "-WRONGPASS invalid username-password pair or user is disabled.",
			"HELLO 3 AUTH default wrong", "-WRONGPASS invalid username-password pair or user is disabled.",
			"PING", "-NOAUTH Authentication required.",
			"AUTH secret", "OK", "PING", "PONG",
			"RESET", "RESET", "PING", "-NOAUTH Authentication required.",
			"AUTH default old", "OK", "PING", "PONG",
		}
		c := dial(t, l)
		for i := 0; i < len(steps); i += 2 {
			if got := c.do(steps[i]); got != steps[i+1] {
				t.Errorf("%s: %q, want %q", steps[i], got, steps[i+1])
			}
		}
		if got := dial(t, l).do("HELLO 3 AUTH default secret"); !strings.HasPrefix(got, "server trypema") {
			t.Errorf("HELLO with the token: %q", got)
		}
		stranger := dial(t, l)
		stranger.send("*2\r\n$4\r\nAUTH\r\n$1025\r\n")
		if got := stranger.receive(); got != "-ERR Protocol error: invalid bulk length" {
			t.Errorf("a long password: %q", got)
		}
	})
}

// TestSlowClients: a client that does not end a command is cut, also if it sends a byte of it every second.
// One that reads no answers is cut, and after Idle one that sends nothing.
func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := serve(t, Options{Patience: 10 * time.Second, Idle: time.Hour})
		slow, drop, deaf, idle := dial(t, l), dial(t, l), dial(t, l), dial(t, l)
		slow.send("*1\r\n$4\r\nPI")
		go func() {
			for {
				if _, err := io.WriteString(drop, "P"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		deaf.send(encode("PING"))
		synctest.Wait()
		if n := s.Conns(); n != 4 {
			t.Fatalf("%d connections, want 4", n)
		}
		time.Sleep(12 * time.Second)
		if n := s.Conns(); n != 1 {
			t.Errorf("after 12s %d connections, want the idle one", n)
		}
		if got := idle.do("PING"); got != "PONG" {
			t.Errorf("the idle one: %q", got)
		}
		time.Sleep(time.Hour - time.Second)
		if got := idle.do("PING"); got != "PONG" {
			t.Errorf("the idle one, before an hour: %q", got)
		}
		time.Sleep(time.Hour + 2*time.Second)
		synctest.Wait()
		if n := s.Conns(); n != 0 {
			t.Errorf("after an hour %d connections, want none", n)
		}
	})
}

// TestDeadlines: a busy connection sets a deadline once a second, not for each command.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			idle time.Duration
			most int
		}{{0, 11}, {time.Hour, 22}} {
			_, l := serve(t, Options{Idle: tt.idle})
			n := 0
			ours, theirs := net.Pipe()
			l.Give(&counting{theirs, &n})
			c := &client{t, ours, bufio.NewReader(ours)}
			for range 1000 {
				if got := c.do("PING"); got != "PONG" {
					t.Fatal(got)
				}
				time.Sleep(10 * time.Millisecond)
			}
			_ = ours.Close()
			synctest.Wait()
			if n == 0 || n > tt.most {
				t.Errorf("idle %v: %d deadlines in 10s, want at most %d", tt.idle, n, tt.most)
			}
		}
	})
}

// counting is a connection that counts the deadlines that are set.
type counting struct {
	net.Conn
	n *int
}

func (c *counting) SetReadDeadline(by time.Time) error {
	*c.n++
	return c.Conn.SetReadDeadline(by)
}

func (c *counting) SetWriteDeadline(by time.Time) error {
	*c.n++
	return c.Conn.SetWriteDeadline(by)
}

// TestShutdown: what was read is answered, and then the connections end.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := serve(t, Options{})
		busy, idle := dial(t, l), dial(t, l)
		busy.send(encode("PING") + encode("PING", "2"))
		synctest.Wait() // its answer is on the way
		ended := make(chan error)
		go func() { ended <- s.Shutdown(context.Background()) }()
		if got := idle.receive(); got != "end: EOF" {
			t.Errorf("the idle connection: %q", got)
		}
		if a, b, end := busy.receive(), busy.receive(), busy.receive(); a != "PONG" || b != "2" ||
			end != "end: EOF" {
			t.Errorf("the busy connection: %q, %q, %q", a, b, end)
		}
		must.Report(t, <-ended)
	})
}

// TestManyClients: commands of many connections and pipelines are never above the limit together.
func TestManyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := serve(t, Options{})
		var group sync.WaitGroup
		admitted := make(chan int, 20)
		for range 20 {
			c := dial(t, l)
			group.Go(func() {
				go c.send(strings.Repeat(encode("CL.THROTTLE", "k", "99", "1", "3600"), 50))
				n := 0
				for range 50 {
					if strings.HasPrefix(c.receive(), "0 ") {
						n++
					}
				}
				admitted <- n
			})
		}
		group.Wait()
		total := 0
		for range 20 {
			total += <-admitted
		}
		if total != 100 {
			t.Errorf("%d were admitted, want 100", total)
		}
	})
}

// FuzzConn: whatever a client sends, the server lives, and answers others.
func FuzzConn(f *testing.F) {
	f.Add([]byte(encode("CL.THROTTLE", "k", "1", "1", "1") + "PING\r\n"))
	f.Add([]byte("*1\r\n$9223372036854775807\r\n"))
	f.Add([]byte("*3\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n"))
	f.Add([]byte("TRYPEMA.RESERVE k 1 1 1 1ns\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, l := serve(t, Options{Patience: time.Second})
		c := l.Dial()
		go func() {
			_, _ = io.Copy(io.Discard, c)
		}()
		_, _ = c.Write(data)
		_ = c.Close()
		if got := dial(t, l).do("PING"); got != "PONG" {
			t.Fatalf("another connection: %q", got)
		}
	})
}

// TestBytesByChance: random bytes in random pieces do not keep a connection, or the server, from ending.
func TestBytesByChance(t *testing.T) {
	var seed [32]byte
	copy(seed[:], "resp: bytes by chance, one seed.")
	random := rand.NewChaCha8(seed)
	_, l := serve(t, Options{Patience: time.Second})
	letters := []byte("*$:+-0123456789\r\n CL.THROTTLEPINGHELLO\x00\xff")
	for range 200 {
		b := make([]byte, 1+random.Uint64()%300)
		for i := range b {
			b[i] = letters[random.Uint64()%uint64(len(letters))]
		}
		c := l.Dial()
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_, _ = io.Copy(c, bytes.NewReader(b))
		_ = c.Close()
	}
	if got := dial(t, l).do("PING"); got != "PONG" {
		t.Errorf("afterwards: %q", got)
	}
}
