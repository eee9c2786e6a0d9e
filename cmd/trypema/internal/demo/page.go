package demo

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cli/browser"

	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
)

const (
	defaultAddr = "127.0.0.1:8080"
	maxBody     = 4 << 10
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle []byte
	//go:embed page.js
	pageScript []byte

	pageTemplate = template.Must(template.New("page").Parse(pageText))
)

// show serves the page until ctx ends, and says what came of it.
func (c *Command) show(ctx context.Context, out screen.Streams) (err error) {
	k, err := c.knobs()
	err = flags.First(
		flags.Check(c.Provider == store.Local, "provider", c.Provider,
			"left out without --headless: the page shows all of them"),
		err,
	)
	if err != nil {
		return err
	}
	redis, about, end, err := c.backend(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	l, err := c.listen(out)
	if err != nil {
		return err
	}
	s, err := newStage(c.network(), redis, k, func(text string) { fmt.Fprintln(out.Err, text) })
	if err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pages := serveOn(l, s.handler(ctx, about), cancel)
	fmt.Fprintf(out.Err, "%s shows all six limiters under the same traffic. Ctrl-C ends it.\n", pages.url)
	if c.Open && screen.IsTerminal(out.Out) && hasBrowser() {
		browser.Stdout, browser.Stderr = io.Discard, io.Discard
		_ = browser.OpenURL(pages.url) // the address stands above
	}
	err = s.run(ctx)
	cancel() // which ends the streams of the watchers
	return errors.Join(err, servers{pages}.close(), s.table(out.Out), s.judge())
}

// backend returns the server that the flags name, what there is to say about it, and what ends it.
func (c *Command) backend(ctx context.Context) (_ backend, about string, end func() error, err error) {
	if c.redis != nil {
		return c.redis, "", func() error { return nil }, nil
	}
	f := c.Flags
	f.Provider, f.Instances = store.Hybrid, nil
	redis, err := f.Open(ctx, time.Second)
	if err == nil && redis.IsCluster() {
		err = errors.Join(flags.Check(false, "redis", "a Cluster",
			"one server, for the page: it puts a proxy before it"), redis.Close())
	}
	if err != nil {
		return nil, "", nil, err
	}
	return realRedis{redis}, redis.Where(store.Redis, 0).Server, redis.Close, nil
}

// hasBrowser reports whether there is a screen on which one could open.
func hasBrowser() bool {
	return runtime.GOOS == "windows" || runtime.GOOS == "darwin" || os.Getenv("DISPLAY") != "" ||
		os.Getenv("WAYLAND_DISPLAY") != ""
}

// listen returns where the page is served: at the address that the flags name, or else at the default one,
// or, where that is taken, at a free port.
func (c *Command) listen(out screen.Streams) (net.Listener, error) {
	addr := c.addr()
	listen := c.network().listen
	l, err := listen(addr)
	if err == nil {
		return l, nil
	}
	if c.Addr != nil {
		return nil, &flags.Error{Name: "addr", Value: addr,
			Rule: fmt.Sprintf("an address to listen on that is free (%v)", err)}
	}
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		fmt.Fprintf(out.Err, "%s is taken; another port it is\n", addr)
		return listen(freeAddr)
	}
	return nil, err
}

func (c *Command) addr() string { return flags.Or(c.Addr, defaultAddr) }

// handler serves the page, what it needs, the stream of what there is to see, and the knobs.
func (s *stage) handler(ctx context.Context, server string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = pageTemplate.Execute(w, map[string]any{
			"Scenes": scenes, "Sliders": sliders, "Shapes": shapes, "Knobs": s.now(), "Lanes": s.about(),
			"Server": server,
		})
	})
	for path, asset := range map[string]struct {
		kind string
		body []byte
	}{"/page.css": {"text/css", pageStyle}, "/page.js": {"text/javascript", pageScript}} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", asset.kind+"; charset=utf-8")
			_, _ = w.Write(asset.body)
		})
	}
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { s.stream(ctx, w, r) })
	mux.HandleFunc("POST /scene", func(w http.ResponseWriter, r *http.Request) {
		if id := r.FormValue("id"); !s.play(id) {
			answerJSON(w, http.StatusBadRequest,
				knobError{"", fmt.Sprintf("scene is %q; it must be one of %s, or empty", id, sceneNames())})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /knobs", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			answerJSON(w, http.StatusRequestEntityTooLarge,
				knobError{"", fmt.Sprintf("that is longer than %d bytes", maxBody)})
			return
		}
		k, wrong := s.turn(body)
		if wrong != nil {
			answerJSON(w, http.StatusBadRequest, wrong)
			return
		}
		answerJSON(w, http.StatusOK, k)
	})
	own := http.NewCrossOriginProtection().Handler(mux) // pages of others do not turn knobs
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:")
		h.Set("Cache-Control", "no-store")
		own.ServeHTTP(w, r)
	})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// stream sends what there is to see, until the watcher goes or the show ends.
func (s *stage) stream(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	messages, end := s.watch()
	defer end()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.Context().Done():
			return
		case m := <-messages:
			_, err := fmt.Fprintf(w, "data: %s\n\n", m)
			if errors.Join(err, out.Flush()) != nil {
				return
			}
		}
	}
}

func sceneNames() string {
	var names []string
	for _, c := range scenes {
		names = append(names, c.ID)
	}
	return strings.Join(names, ", ")
}

// laneAbout is what the page says of a lane.
type laneAbout struct{ ID, Title, Text string }

func (s *stage) about() (all []laneAbout) {
	for _, l := range s.lanes {
		all = append(all, laneAbout{l.id(), l.title(), map[string]string{
			store.Local:  "in this process",
			store.Redis:  "each call asks Redis",
			store.Hybrid: "leases from Redis",
			tokenBucket:  "as x/time/rate",
			fixedWindow:  "as INCR and EXPIRE in Redis",
		}[l.provider]})
	}
	return all
}

func title(word string) string { return string(word[0]-'a'+'A') + word[1:] }

// table writes what all lanes have done.
func (s *stage) table(w io.Writer) error {
	var rows [][]string
	for _, l := range s.lanes {
		l.mu.Lock()
		m, bound := l.meter.read(), l.bound
		all := l.countedLocked(m)
		l.mu.Unlock()
		if l.isPeer() {
			continue
		}
		rows = append(rows, []string{
			l.provider + " " + l.strategy,
			screen.Count(all.admitted), screen.Count(all.declined),
			screen.Count(all.fallback), screen.Count(all.failed),
			fmt.Sprintf("%d of %d", m.fullest, bound),
			screen.Duration(m.longestPause.Round(time.Millisecond)), screen.Nanoseconds(m.latency.P99),
		})
	}
	defer fmt.Fprintln(w, " ¹ since the limit or the load was changed last; "+
		"of what was decided with Redis, where it is needed")
	return screen.Table(w,
		[]string{"", "admitted", "declined", "fallback", "errors", "most in any window ¹", "longest pause ¹", "p99"},
		rows)
}

// judge returns an error for each guarantee that was broken.
func (s *stage) judge() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, l := range s.lanes {
		if text, ok := s.broken[l.id()]; ok {
			errs = append(errs, errors.New(text))
		}
	}
	return errors.Join(errs...)
}
