package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/must"
)

var plain = knobs{Limit: 100, Window: 2, Bucket: 20, HardLimitFactor: 1.5, Load: 3, Instances: 2,
	Shape: steady, Redis: true}

func TestKnobs(t *testing.T) {
	for _, tt := range []struct {
		body, knob, says string
	}{
		{`{"limit": 50}`, "", ""},
		{`{"limit": 0}`, "limit", "limit is 0; it must be from 1 to 200"},
		{`{"limit": 201}`, "limit", "limit is 201; it must be from 1 to 200"},
		{`{"limit": "many"}`, "limit", "limit is a string; it must be a float64"},
		{`{"load": -1}`, "load", "load is -1; it must be from 0 to 10"},
		{`{"load": 9}`, "load", "load is 9; it must be at most 8 with a limit of 100: 800 calls per second"},
		{`{"window": 1e99}`, "window", "window is 1e+99; it must be from 1 to 10"},
		{`{"bucket": 5}`, "bucket", "bucket is 5; it must be from 10 to 1000"},
		{`{"hard_limit_factor": 0.5}`, "hard_limit_factor", "hard_limit_factor is 0.5; it must be from 1 to 3"},
		{`{"instances": 9}`, "instances", "instances is 9; it must be from 1 to 8"},
		{`{"instances": 1.5}`, "instances", "instances is a number 1.5; it must be a int"},
		{`{"shape": "odd"}`, "shape",
			`shape is "odd"; it must be one of steady, step, spike, sine, on-off, greedy, edge`},
		{`{"paused": 3}`, "paused", "paused is 3; it must be the number of one of the 2 instances, or 0"},
		{`{"instances": 1, "paused": 1}`, "paused", "paused is 1; it must be 0 where there is only one instance"},
		{`{"nothing": 1}`, "", `that is no JSON object of knobs: json: unknown field "nothing"`},
		{`{"limit": 50} {}`, "", "that is no JSON object of knobs: more than one value"},
		{`limit=50`, "", "that is no JSON object of knobs: invalid character"},
	} {
		got, wrong := plain.change([]byte(tt.body))
		switch {
		case tt.says == "" && wrong != nil:
			t.Errorf("%s: %s", tt.body, wrong.Error)
		case tt.says == "":
		case wrong == nil:
			t.Errorf("%s is taken", tt.body)
		case wrong.Knob != tt.knob || !strings.HasPrefix(wrong.Error, tt.says) || got != plain:
			t.Errorf("%s: %s: %s", tt.body, wrong.Knob, wrong.Error)
		}
	}
}

// TestFewerInstancesPauseNone: an instance that is no more can not be paused.
func TestFewerInstancesPauseNone(t *testing.T) {
	k := plain
	k.Paused = 2
	k, wrong := k.change([]byte(`{"instances": 1}`))
	if wrong != nil || k.Paused != 0 {
		t.Errorf("%+v, %+v", k, wrong)
	}
}

func TestShapes(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		shape string
		at    time.Duration
		want  float64
	}{
		{steady, 0, 3}, {step, 3 * s, 0.5}, {step, 5 * s, 3}, {spike, s, 3}, {spike, 2 * s, 0.5}, {spike, 11 * s, 3},
		{edge, s, 0}, {edge, 3 * s / 2, 3}, {edge, 4*s - 1, 3}, {edge, 4 * s, 0},
		{sine, 0, 0}, {sine, 5 * s, 3}, {onOff, s, 3}, {onOff, 4 * s, 0}, {onOff, 7 * s, 3}, {greedy, s, 3},
	} {
		if got := loadAt(tt.shape, tt.at, 3, 2*s); got != tt.want {
			t.Errorf("%s at %v: %v, want %v", tt.shape, tt.at, got, tt.want)
		}
	}
	if got := loadAt(step, 0, 0.2, s); got != 0.2 {
		t.Errorf("a low step begins at %v", got)
	}
}

func TestCallers(t *testing.T) {
	shares := func(shape string, load float64) (n [5]int) {
		for i := range 1000 {
			n[caller(shape, load, float64(i)/1000)]++
		}
		return n
	}
	if got := shares(steady, 3); got != [5]int{200, 200, 200, 200, 200} {
		t.Errorf("alike: %v", got)
	}
	if got := shares(greedy, 5); got != [5]int{25, 25, 25, 25, 900} {
		t.Errorf("polite ones have half of the limit together: %v", got)
	}
	if got := shares(greedy, 0.4); got != [5]int{200, 200, 200, 200, 200} {
		t.Errorf("nobody can be greedy with so little: %v", got)
	}
}

// page is one that is served for a test.
type page struct {
	*testing.T
	client *http.Client
	url    string
	stdout *bytes.Buffer
	stop   func() error
}

func open(t *testing.T, c Command) page {
	t.Helper()
	free := freeAddr
	c.Provider, c.Addr = store.Local, &free
	c.Load, c.HardLimitFactor = 3, 1.5
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	p := page{T: t, client: c.network().client(t), stdout: new(bytes.Buffer)}
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, screen.Streams{Out: p.stdout, Err: w})
		_ = w.Close()
	}()
	p.stop = func() error {
		cancel()
		return <-ended
	}
	said := bufio.NewReader(r)
	line, err := said.ReadString('\n')
	if err != nil {
		t.Fatal(p.stop())
	}
	p.url, _, _ = strings.Cut(line, " ")
	go func() { _, _ = io.Copy(io.Discard, said) }() // until the program has ended
	return p
}

// turn sends knobs, and returns the status and what was said.
func (p page) turn(body string) (status int, said map[string]any) {
	p.Helper()
	response, err := p.client.Post(p.url+"/knobs", "application/json", strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(response.Body).Decode(&said); err != nil {
		p.Fatal(err)
	}
	return response.StatusCode, said
}

// until watches until what is seen is as wanted.
func (p page) until(what string, ok func(v stageView) bool) stageView {
	p.Helper()
	// on a machine that is busy; mostly it takes a second
	ctx, cancel := context.WithTimeout(p.Context(), 5*time.Minute)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/events", http.NoBody)
	response, err := p.client.Do(request)
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var v stageView
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			for i := range v.Lanes {
				v.Lanes[i].Chart = nil
			}
			p.Fatalf("%s: %v; last: %+v", what, err, v)
		}
		if text, found := strings.CutPrefix(line, "data: "); found {
			v = stageView{}
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				p.Fatal(err)
			}
			for _, l := range v.Lanes {
				if !l.Held && slices.Contains(ours, l.ID) {
					p.Errorf("%s: %d in a window, of %d", l.ID, l.Fullest, l.Bound)
				}
			}
			if ok(v) {
				return v
			}
		}
	}
}

func (v stageView) lane(id string) laneView {
	for _, l := range v.Lanes {
		if l.ID == id {
			return l
		}
	}
	return laneView{}
}

// near reports whether all that is smooth admits about so much a second. Absolute admits all of a window at
// once.
func near(perSecond float64) func(stageView) bool {
	return func(v stageView) bool {
		for _, l := range v.Lanes {
			if smooth := strings.HasSuffix(l.ID, suppressed); smooth &&
				(l.Admitted < 0.7*perSecond || l.Admitted > 1.3*perSecond) {
				return false
			}
		}
		return true
	}
}

// TestPage is in virtual time.
func TestPage(t *testing.T) {
	virtually(t, func(t *testing.T, w *web) {
		p := open(t, Command{Rate: ptr(30.0), web: w, redis: virtualRedis{fakeredis.New()}})
		v := p.until("all at the limit, and in the charts", func(v stageView) bool {
			return near(30)(v) && len(v.Lanes[0].Chart) > 8
		})
		for _, l := range v.Lanes {
			if !slices.Contains(ours, l.ID) {
				if l.Admitted+l.Declined > 0 {
					t.Errorf("%s got calls without a scene", l.ID)
				}
				continue
			}
			if last := l.Chart[len(l.Chart)-1]; len(l.Chart) != len(v.Limits) || len(v.Limits) != len(v.Outage) ||
				last[0]+last[1] < 30 || v.Limits[len(v.Limits)-1] != 30 {
				t.Errorf("%s: the chart is %v, with %d limits and %d outages", l.ID, l.Chart, len(v.Limits),
					len(v.Outage))
			}
			if len(l.Clients) != 5 || len(l.Answers) == 0 ||
				!strings.Contains(l.Answers[0].Headers,
					`RateLimit-Policy: "default";q=60;w=2  RateLimit: "default";r=`) {
				t.Errorf("%s: %+v, %+v", l.ID, l.Clients, l.Answers)
			}
			if l.Fallback+l.Failed+l.Skipped > 0 {
				t.Errorf("%s: %d fallbacks, %d failed, %d skipped", l.ID, l.Fallback, l.Failed, l.Skipped)
			}
		}
		if v.Busy != "" {
			t.Error(v.Busy)
		}

		// Another limit acts at once, on all of them.
		if status, said := p.turn(`{"limit": 12}`); status != http.StatusOK || said["limit"] != 12.0 {
			t.Errorf("%d: %v", status, said)
		}
		p.until("all at the lower limit", near(12))

		// Redis goes, and comes back.
		p.turn(`{"redis": false}`)
		v = p.until("fallbacks", func(v stageView) bool {
			return v.lane("redis-absolute").Fallback > 0 && v.lane("redis-suppressed").Fallback > 0 &&
				v.lane("hybrid-absolute").Fallback > 0
		})
		if n := v.lane("local-absolute").Fallback; n > 0 {
			t.Errorf("Local had %d fallbacks", n)
		}
		p.turn(`{"redis": true}`)
		before := v.lane("redis-absolute").Fallback
		p.until("no more fallbacks", func(v stageView) bool {
			n := v.lane("redis-absolute").Fallback
			same := n == before
			before = n
			return same && near(12)(v)
		})

		// One instance stands still.
		p.turn(`{"paused": 1}`)
		p.until("only the other one answers", func(v stageView) bool {
			for _, a := range v.lane("hybrid-absolute").Answers {
				if a.Instance == 1 {
					return false
				}
			}
			return true
		})
		if status, said := p.turn(`{"window": 3, "instances": 3, "delay": 20}`); status != http.StatusOK ||
			said["paused"] != 0.0 {
			t.Errorf("%d: %v", status, said)
		}
		p.until("all at the limit, with new providers",
			func(v stageView) bool { return near(12)(v) && v.Lanes[0].Capacity == 36 })

		if status, said := p.turn(`{"limit": 1e9}`); status != http.StatusBadRequest ||
			said["error"] != "limit is 1e+09; it must be from 1 to 200" {
			t.Errorf("%d: %v", status, said)
		}
		status, _ := p.turn(`{"shape": "` + strings.Repeat("x", maxBody) + `"}`)
		if status != http.StatusRequestEntityTooLarge {
			t.Errorf("a long body: %d", status)
		}
		foreign, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/knobs",
			strings.NewReader(`{"limit": 50}`))
		foreign.Header.Set("Sec-Fetch-Site", "cross-site")
		response, err := p.client.Do(foreign)
		must.OK(t, err)
		if _ = response.Body.Close(); response.StatusCode != http.StatusForbidden {
			t.Errorf("another page's: %s", response.Status)
		}

		must.Report(t, p.stop())
		if !strings.Contains(p.stdout.String(), "hybrid suppressed") {
			t.Errorf("no summary: %s", p.stdout)
		}
	})
}

// admitting reports whether all six limiters admit something.
func admitting(v stageView) bool {
	for _, id := range ours {
		if v.lane(id).Admitted == 0 {
			return false
		}
	}
	return true
}

// TestPageOnSockets is on real servers, proxies and sockets. How soon what happens there depends on the
// machine.
func TestPageOnSockets(t *testing.T) {
	p := open(t, Command{Rate: ptr(10.0)})
	p.until("all six limiters admit", admitting)
	p.turn(`{"redis": false}`)
	v := p.until("fallbacks", func(v stageView) bool {
		return v.lane("redis-absolute").Fallback > 0 && v.lane("redis-suppressed").Fallback > 0
	})
	if n := v.lane("local-absolute").Fallback; n > 0 {
		t.Errorf("Local had %d fallbacks", n)
	}
	if status, said := p.turn(`{"instances": 3}`); status != http.StatusOK { // which is possible meanwhile, too
		t.Errorf("%d: %v", status, said)
	}
	p.turn(`{"redis": true}`)
	p.until("all six limiters admit again", func(v stageView) bool {
		return admitting(v) && v.Knobs.Instances == 3 && v.Knobs.Redis
	})
	must.Report(t, p.stop())
}

// TestBusyPage: that the machine is too busy is said for a while.
func TestBusyPage(t *testing.T) {
	s := &stage{broken: make(map[string]string)}
	for _, tt := range []struct {
		lates []time.Duration
		want  string
	}{
		{nil, ""},
		{[]time.Duration{veryLate, 0}, ""},
		{[]time.Duration{0, veryLate + 1, 0, 0}, tooBusy},
	} {
		s.lates = tt.lates
		if got := s.view(plain).Busy; got != tt.want {
			t.Errorf("%v: %q", tt.lates, got)
		}
	}
}

// TestBrokenBound: a limiter that admits one too many is found out, and ends the program with an error; what
// was decided without Redis is no concern of the bound, nor what began before the limit was changed.
func TestBrokenBound(t *testing.T) {
	l := newLane(store.Redis, absolute, new(atomic.Uint64))
	s := &stage{lanes: []*lane{l}, series: make([][]sample, 1), broken: make(map[string]string)}
	l.renew(plain)
	before := l.meter.clock()
	for range 200 {
		l.meter.decided(before, 0, true, false)
		l.meter.decided(before, 0, true, true)
	}
	if v := s.view(plain); !v.Lanes[0].Held || v.Lanes[0].Fullest != 200 || s.judge() != nil {
		t.Errorf("%+v, %v", v.Lanes[0], s.judge())
	}
	less := plain
	less.Limit = 50
	l.judgeAnew(less)
	l.meter.decided(before, 0, true, false)
	for range 101 {
		if v := s.view(less); !v.Lanes[0].Held || s.judge() != nil {
			t.Fatalf("%+v, %v", v.Lanes[0], s.judge())
		}
		l.meter.decided(l.meter.clock(), 0, true, false)
	}
	if v := s.view(less); v.Lanes[0].Held || s.judge() == nil ||
		s.judge().Error() != "redis, absolute: 101 in the fullest window of 2s, at most 100 allowed" {
		t.Errorf("%+v, %v", v.Lanes[0], s.judge())
	}
}

// TestPageFlags: what the page can not show is refused.
func TestPageFlags(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must.OK(t, err)
	defer func() { _ = taken.Close() }()
	addr := taken.Addr().String()
	url, cluster := "redis://127.0.0.1:1", "redis://127.0.0.1:1,redis://127.0.0.1:2"
	good := Command{Flags: store.Flags{Provider: store.Local}, Rate: ptr(100.0), Load: 3,
		HardLimitFactor: 1.5, Addr: &addr}
	for _, tt := range []struct {
		with func(c *Command)
		says string
	}{
		{func(*Command) {}, "--addr is " + addr + "; it must be an address to listen on that is free"},
		{func(c *Command) { c.Rate = ptr(1000.0) },
			"--rate is 1000; it must be from 1 to 200, for the page (--headless takes more)"},
		{func(c *Command) { c.HardLimitFactor = 9 }, "--hard-limit-factor is 9; it must be from 1 to 3, for the page"},
		{func(c *Command) { c.Provider = store.Redis }, "--provider is redis; it must be left out without --headless"},
		{func(c *Command) { c.Redis = &url }, "--redis is redis://127.0.0.1:1, which cannot be used"},
		{func(c *Command) { c.Redis = &cluster }, "--redis is "},
	} {
		c := good
		tt.with(&c)
		err := c.Run(t.Context(), quiet())
		if err == nil || !strings.HasPrefix(err.Error(), tt.says) {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
	c := good
	c.Headless, c.Duration, c.Clients = true, time.Second, 1
	if err := c.Run(t.Context(), quiet()); !flags.IsWrong(err) {
		t.Errorf("--addr with --headless: %v", err)
	}
}

// TestAnotherPort: where the usual port is taken, it is another.
func TestAnotherPort(t *testing.T) {
	if taken, err := net.Listen("tcp", defaultAddr); err == nil {
		defer func() { _ = taken.Close() }()
	}
	var said bytes.Buffer
	l, err := new(Command).listen(screen.Streams{Err: &said})
	must.OK(t, err)
	defer func() { _ = l.Close() }()
	if l.Addr().String() == defaultAddr || said.String() != defaultAddr+" is taken; another port it is\n" {
		t.Errorf("%v: %s", l.Addr(), &said)
	}
}

func quiet() screen.Streams { return screen.Streams{Out: io.Discard, Err: io.Discard} }
