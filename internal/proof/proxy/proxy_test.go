package proxy_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/proxy"
)

func start(t *testing.T, target string) *proxy.Proxy {
	t.Helper()
	p, err := proxy.Start(target)
	must.OK(t, err)
	t.Cleanup(func() { must.OK(t, p.Close()) })
	return p
}

// echo is a server that sends back what it gets. It returns its address, and what it has got.
func echo(t *testing.T) (addr string, got <-chan string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.OK(t, err)
	all := make(chan string, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				b := make([]byte, 100)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					all <- string(b[:n])
					_, _ = c.Write(b[:n])
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return l.Addr().String(), all
}

func next(t *testing.T, got <-chan string) string {
	t.Helper()
	select {
	case s := <-got:
		return s
	case <-time.After(long):
		t.Fatal("nothing arrives")
		return ""
	}
}

// line is a connection through a proxy.
type line struct {
	t *testing.T
	net.Conn
}

func dial(t *testing.T, p *proxy.Proxy) line {
	c, err := net.Dial("tcp", p.Addr())
	must.OK(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return line{t, c}
}

// say sends a word and returns what comes back within the time: "" for nothing, "closed" for the end.
func (l line) say(word string, within time.Duration) string {
	l.t.Helper()
	_, err := l.Write([]byte(word))
	must.OK(l.t, err)
	return l.hear(within)
}

func (l line) hear(within time.Duration) string {
	l.t.Helper()
	_ = l.SetReadDeadline(time.Now().Add(within))
	b := make([]byte, 100)
	n, err := l.Read(b)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ""
	case err != nil:
		return "closed"
	}
	return string(b[:n])
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

const (
	long  = 5 * time.Minute
	short = 100 * time.Millisecond
)

func TestProxy(t *testing.T) {
	target, got := echo(t)

	t.Run("Passes", func(t *testing.T) {
		p := start(t, target)
		a, b := dial(t, p), dial(t, p)
		expect(t, "first", a.say("one", long), "one")
		expect(t, "second", b.say("two", long), "two")
		next(t, got)
		next(t, got)
	})

	t.Run("Delays", func(t *testing.T) {
		p := start(t, target)
		l := dial(t, p)
		const delay = 200 * time.Millisecond
		p.SetDelay(delay)
		start := time.Now()
		expect(t, "delayed", l.say("late", long), "late")
		if d := time.Since(start); d < delay {
			t.Errorf("it took %v, not %v", d, delay)
		}
		next(t, got)
		p.SetDelay(0)
		took := long
		for range 20 { // a machine may be slow, but not always
			start := time.Now()
			expect(t, "not delayed", l.say("soon", long), "soon")
			next(t, got)
			if took = min(took, time.Since(start)); took < delay {
				return
			}
		}
		t.Errorf("not delayed any more, it took %v", took)
	})

	t.Run("DelaysDoNotAddUp", func(t *testing.T) {
		p := start(t, target)
		l := dial(t, p)
		const delay = 300 * time.Millisecond
		p.SetDelay(delay)
		took := long
		for range 20 { // a machine may be slow, but not always
			start := time.Now()
			_, err := l.Write([]byte("one"))
			must.OK(t, err)
			time.Sleep(delay / 2)
			_, err = l.Write([]byte("two"))
			must.OK(t, err)
			expect(t, "first", l.hear(long), "one")
			expect(t, "second", l.hear(long), "two")
			next(t, got)
			next(t, got)
			if took = min(took, time.Since(start)); took < 2*delay {
				return
			}
		}
		t.Errorf("what was sent after half a delay has arrived after %v, of delays of %v", took, delay)
	})

	t.Run("DropsReplies", func(t *testing.T) {
		p := start(t, target)
		deaf, idle := dial(t, p), dial(t, p)
		p.DropReplies(true)
		expect(t, "reply", deaf.say("lost", short), "")
		expect(t, "request", next(t, got), "lost")
		p.DropReplies(false)
		expect(t, "reply after one was lost", deaf.say("lost too", short), "")
		expect(t, "request after its reply was lost", next(t, got), "lost too")
		expect(t, "other connection", idle.say("heard", long), "heard")
		expect(t, "new connection", dial(t, p).say("too", long), "too")
		next(t, got)
		next(t, got)
	})

	t.Run("Blackhole", func(t *testing.T) {
		p := start(t, target)
		old := dial(t, p)
		p.Blackhole(true)
		expect(t, "reply", old.say("kept", short), "")
		fresh := dial(t, p)
		expect(t, "reply on a new connection", fresh.say("new", short), "")
		if len(got) > 0 {
			t.Errorf("%q has passed", <-got)
		}
		p.Blackhole(false)
		expect(t, "reply afterwards", old.hear(long), "kept")
		expect(t, "reply on a new connection afterwards", fresh.hear(long), "new")
		next(t, got)
		next(t, got)
		p.Blackhole(true)
		_ = old.say("and it ends like this", 0)
	})

	t.Run("HoldsRequests", func(t *testing.T) {
		p := start(t, target)
		l := dial(t, p)
		p.Hold(true, false)
		expect(t, "reply", l.say("kept", short), "")
		if len(got) > 0 {
			t.Errorf("%q has passed", <-got)
		}
		p.Hold(false, false)
		expect(t, "reply afterwards", l.hear(long), "kept")
		next(t, got)
	})

	t.Run("HoldsReplies", func(t *testing.T) {
		p := start(t, target)
		l := dial(t, p)
		p.Hold(false, true)
		expect(t, "reply", l.say("kept", short), "")
		expect(t, "request", next(t, got), "kept")
		p.Hold(true, false) // what was sent before still comes, and nothing more goes
		expect(t, "reply once it may pass", l.hear(long), "kept")
		expect(t, "reply to what is held", l.say("more", short), "")
		if len(got) > 0 {
			t.Errorf("%q has passed", <-got)
		}
		p.Hold(false, false)
		expect(t, "reply afterwards", l.hear(long), "more")
		next(t, got)
	})

	t.Run("Resets", func(t *testing.T) {
		p := start(t, target)
		l := dial(t, p)
		expect(t, "before", l.say("one", long), "one")
		p.Reset()
		expect(t, "old connection", l.hear(long), "closed")
		expect(t, "new connection", dial(t, p).say("two", long), "two")
		next(t, got)
		next(t, got)
	})

	t.Run("Refuses", func(t *testing.T) {
		p := start(t, target)
		old := dial(t, p)
		expect(t, "before", old.say("one", long), "one")
		p.Refuse(true)
		expect(t, "old connection", old.hear(long), "closed")
		if c, err := net.Dial("tcp", p.Addr()); err == nil { // or it was refused so fast that dialing has noticed
			expect(t, "new connection", line{t, c}.hear(long), "closed")
			must.OK(t, c.Close())
		}
		p.Refuse(false)
		expect(t, "afterwards", dial(t, p).say("two", long), "two")
		next(t, got)
		next(t, got)
	})

	t.Run("HasNoTarget", func(t *testing.T) {
		nobody, err := net.Listen("tcp", "127.0.0.1:0")
		must.OK(t, err)
		_ = nobody.Close()
		l := dial(t, start(t, nobody.Addr().String()))
		if b, err := io.ReadAll(l); len(b) > 0 {
			t.Errorf("%q came from nobody; error %v", b, err)
		}
	})
}
