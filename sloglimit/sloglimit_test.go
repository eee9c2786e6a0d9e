package sloglimit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
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
		l := fixture.Local(t, trypema.Options{Observer: changes, Name: "api"})
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
		expect("at=42s level=INFO msg=\"trypema: denies no more calls\" policy=api provider=local " +
			"strategy=absolute denied=60\n")
		must.OK(t, changes.Close())
		deny(1)
		time.Sleep(time.Minute)
		must.OK(t, changes.Close())
		expect("")
	})
}

// A denial by a policy is one line, and not one of its provider, too, which has a line for what it denies by
// itself.
func TestPoliciesAndProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, lines := logger()
		changes := sloglimit.New(logger, sloglimit.Options{})
		defer changes.Close()
		l := fixture.Local(t, trypema.Options{Observer: changes, Name: "all"})
		plans := fixture.Policies(t, l,
			trypema.Policy{Name: "free", Limits: []trypema.Limit{trypema.AtMost(1, time.Hour)}},
			trypema.Policy{Name: "none", Limits: []trypema.Limit{trypema.AtMost(0, time.Hour)}})
		plans.Observe(changes)
		expect := func(want ...string) {
			t.Helper()
			got := lines()
			n := strings.Count(got, "\n")
			for _, line := range want {
				if !strings.Contains(got, line) {
					t.Errorf("%q is missing", line)
				}
			}
			if n != len(want) || t.Failed() {
				t.Errorf("%d lines, want %d:\n%s", n, len(want), got)
			}
		}
		for i := range 20 { // at random instants between two looks
			for range 3 + i%5 {
				plans.Allow(t.Context(), "free", "k")
				time.Sleep(137 * time.Millisecond)
			}
		}
		expect("policy=free provider=policies")
		time.Sleep(30 * time.Second)
		expect("denies no more calls\" policy=free provider=policies")
		plans.Allow(t.Context(), "none", "k") // which the provider does not see
		time.Sleep(30 * time.Second)
		expect("denies calls\" policy=none provider=policies", "no more calls\" policy=none provider=policies")
		for range 3 {
			plans.Allow(t.Context(), "free", "k")
			for range 2 {
				l.Absolute().AllowN(t.Context(), "k", 1, 11)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		expect("denies calls\" policy=free provider=policies", "denies calls\" policy=all provider=local")
		time.Sleep(30 * time.Second)
		expect("no more calls\" policy=free provider=policies", "no more calls\" policy=all provider=local")
		plans.Allow(t.Context(), "free", "k")
		if err := changes.Close(); err != nil { // with a last look
			t.Fatal(err)
		}
		expect("denies calls\" policy=free provider=policies")
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
		p := fixture.Redis(t, f, o)
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
		const warns = `level=WARN msg="trypema: Redis unavailable, failure policy active" policy=api provider=redis `
		if n < 5 || n > 10 || !strings.Contains(got, warns+"fallbacks=") ||
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
		p := fixture.Redis(t, f, o)
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

// A logger that panics costs a line of any kind, and does not end the program.
func TestLoggerThatPanics(t *testing.T) {
	for kind, happen := range map[string]func(context.Context, *redislimit.Provider, *fakeredis.Server){
		"limiting": func(ctx context.Context, p *redislimit.Provider, _ *fakeredis.Server) {
			p.Absolute().AllowN(ctx, "k", 1, 11)
		},
		"unreadable": func(ctx context.Context, p *redislimit.Provider, f *fakeredis.Server) {
			f.Spoil("{trypema:k}:a:10s")
			p.Absolute().Allow(ctx, "k", 1000)
		},
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logger := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{
					ReplaceAttr: func([]string, slog.Attr) slog.Attr { panic("no paper") },
				}))
				changes, f := sloglimit.New(logger, sloglimit.Options{}), fakeredis.New()
				var o redislimit.Options
				o.Observer = changes
				happen(t.Context(), fixture.Redis(t, f, o), f)
				if err := changes.Close(); err == nil || !strings.Contains(err.Error(), "no paper") {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
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
