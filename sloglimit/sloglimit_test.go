package sloglimit_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/sloglimit"
)

type buffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// logger returns a logger, and what takes the lines that it has written since it was asked last.
func logger() (l *slog.Logger, lines func() string) {
	text := new(buffer)
	start := time.Now()
	l = slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Duration("at", a.Value.Time().Sub(start))
		}
		return a
	}}))
	return l, func() string {
		synctest.Wait()
		text.mu.Lock()
		defer text.mu.Unlock()
		defer text.Reset()
		return text.String()
	}
}

func TestLimiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, lines := logger()
		changes := sloglimit.New(logger, sloglimit.Options{})
		l, err := trypema.NewLocal(trypema.Options{Observer: changes, Name: "api"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		deny := func(n int) {
			for range n {
				l.Absolute().AllowN(t.Context(), "k", 1, 11)
			}
		}
		expect := func(want string) {
			t.Helper()
			if got := lines(); got != want {
				t.Errorf("got  %swant %s", got, want)
			}
		}
		time.Sleep(1500 * time.Millisecond)
		expect("")
		deny(3)
		time.Sleep(time.Second)
		expect("at=2s level=INFO msg=\"trypema: denies calls\" policy=api provider=local strategy=absolute denied=3\n")
		for range 30 { // it goes on
			deny(2)
			time.Sleep(time.Second)
		}
		expect("")
		time.Sleep(20 * time.Second)
		expect("at=42s level=INFO msg=\"trypema: denies no more calls\" policy=api provider=local strategy=absolute denied=60\n")
		if err := changes.Close(); err != nil {
			t.Fatal(err)
		}
		deny(1)
		time.Sleep(time.Minute)
		if err := changes.Close(); err != nil {
			t.Fatal(err)
		}
		expect("")
	})
}

// However often Redis comes and goes, there is a line each Interval, which tells how many changes it stands
// for.
func TestRedisThatComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, lines := logger()
		changes := sloglimit.New(logger, sloglimit.Options{Interval: time.Minute})
		defer changes.Close()
		f := fakeredis.New()
		o := redislimit.Options{RetryInterval: 100 * time.Millisecond}
		o.Observer, o.Name = changes, "api"
		p, err := redislimit.New(f, o)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		down := func(d time.Duration) {
			f.TakeAway()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				p.Absolute().Allow(t.Context(), "k", 1000)
			}
			f.Restore()
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				p.Absolute().Allow(t.Context(), "k", 1000)
			}
		}
		for range 100 {
			down(3 * time.Second)
		}
		time.Sleep(2 * time.Minute)
		got := lines()
		n := strings.Count(got, "\n")
		if n < 5 || n > 10 || !strings.Contains(got, "level=WARN msg=\"trypema: Redis unavailable, failure policy active\" policy=api provider=redis fallbacks=") ||
			!strings.Contains(got, "no answer within 250ms") {
			t.Errorf("%d lines in ten minutes, want one each minute:\n%s", n, got)
		}
		told := 0
		for line := range strings.Lines(got) {
			told++
			var more int
			if _, after, ok := strings.Cut(line, "unlogged="); ok {
				if _, err := fmt.Sscan(after, &more); err != nil {
					t.Error(err)
				}
				told += more
			}
		}
		if told != 200 || !strings.Contains(got[strings.LastIndex(got, "at="):], "Redis available again") {
			t.Errorf("%d changes were told of, want 200; the last that it is back:\n%s", told, got)
		}
	})
}

// Windows that could not be read are a warning, at most one in an interval.
func TestUnreadableWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, lines := logger()
		changes := sloglimit.New(logger, sloglimit.Options{})
		defer changes.Close()
		f := fakeredis.New()
		var o redislimit.Options
		o.Observer, o.Name = changes, "api"
		p, err := redislimit.New(f, o)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		spoil := func(key string) {
			f.Spoil("{trypema:" + key + "}:a:10s")
			if d, err := p.Absolute().Allow(t.Context(), key, 1000); err != nil || !d.Allowed {
				t.Errorf("%+v, %v", d, err)
			}
		}
		const line = "at=%s level=WARN msg=\"trypema: windows in Redis could not be read, " +
			"and were started again\" policy=api provider=redis windows=%d\n"
		spoil("a")
		time.Sleep(1500 * time.Millisecond)
		if got, want := lines(), fmt.Sprintf(line, "1s", 1); got != want {
			t.Errorf("got  %swant %s", got, want)
		}
		spoil("b")
		spoil("c")
		time.Sleep(time.Minute)
		if got, want := lines(), fmt.Sprintf(line, "11s", 2); got != want {
			t.Errorf("got  %swant %s", got, want)
		}
	})
}

func TestDroppedIsCollected(*testing.T) {
	collected := make(chan struct{})
	func() {
		changes := sloglimit.New(slog.New(slog.DiscardHandler), sloglimit.Options{})
		runtime.AddCleanup(changes, func(c chan struct{}) { close(c) }, collected)
	}()
	for { // the time-out of the tests ends this
		runtime.GC()
		select {
		case <-collected:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
