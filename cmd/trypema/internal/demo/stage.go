package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
)

const (
	tick        = 250 * time.Millisecond
	shown       = 30 * time.Second // in the charts
	rateOver    = 4                // ticks that a rate is the mean of
	lateFor     = 8                // ticks for which it is said that calls came late
	veryLate    = 100 * time.Millisecond
	restAfter   = 10 * time.Second // without anybody who looks
	worstWindow = "%s, %s: %d in the fullest window of %vs, at most %d allowed"
)

// stage is the six limiters under the same load, for people who look at the page and turn its knobs.
type stage struct {
	web   web
	redis backend
	lanes []*lane
	rate  atomic.Uint64 // bits of the limit per second
	say   func(string)  // to who has started it
	over  chan struct{} // closed when something has failed that ends the show

	calling gate   // while it is closed, the fleet can change
	fleet   *fleet // of the calls that are inside

	turning sync.Mutex // held by who turns a knob, one after the other
	own     knobs      // as they were before the first of the scenes that are played; guarded by turning

	mu       sync.Mutex // guards the fields below
	knobs    knobs
	turned   time.Time // when shape, load or limit were
	failed   error     // what has ended the show
	series   [][]sample
	moments  []moment          // of the samples
	playing  *playing          // a scene, or nil
	broken   map[string]string // guarantees, by lane
	watchers map[chan []byte]bool
	lonely   time.Time       // since when there is no watcher
	late     time.Duration   // by which calls came too late since the last tick, at most
	lates    []time.Duration // the same of the ticks before
}

func newStage(w web, redis backend, k knobs, say func(string)) (*stage, error) {
	s := &stage{
		web: w, redis: redis, knobs: k, say: say, over: make(chan struct{}),
		turned: time.Now(), lonely: time.Now(),
		broken: make(map[string]string), watchers: make(map[chan []byte]bool),
	}
	for _, strategy := range []string{absolute, suppressed} {
		for _, provider := range []string{store.Local, store.Redis, store.Hybrid} {
			s.lanes = append(s.lanes, newLane(provider, strategy, &s.rate))
		}
	}
	for _, peer := range []string{fixedWindow, tokenBucket} {
		s.lanes = append(s.lanes, newLane(peer, "", &s.rate))
	}
	s.show(nil)
	s.calling = make(gate, len(s.lanes)*laneWorkers)
	s.series = make([][]sample, len(s.lanes))
	err := s.build(k)
	return s, err
}

// build replaces the fleet. No call must be under way.
func (s *stage) build(k knobs) error {
	s.rate.Store(math.Float64bits(k.Limit))
	for _, l := range s.lanes {
		l.renew(k)
	}
	f, err := newFleet(k, s.web, s.redis, s.lanes)
	s.fleet = f
	return err
}

// turn sets knobs, as a body in JSON says, or says which of them is wrong, and then changes nothing.
func (s *stage) turn(body []byte) (knobs, *knobError) {
	s.turning.Lock()
	defer s.turning.Unlock()
	was := s.now()
	k, wrong := was.change(body)
	if wrong != nil || k == was {
		return was, wrong
	}
	s.mu.Lock()
	played := s.playing != nil
	s.mu.Unlock()
	k, wrong = s.set(k)
	if played && wrong == nil { // a hand on a knob ends it
		s.show(nil)
		s.restart()
	}
	return k, wrong
}

// set makes the knobs be as they are given, which are valid. The caller holds turning.
func (s *stage) set(k knobs) (knobs, *knobError) {
	was := s.now()
	if s.fleet == nil { // it could not be built, and the show is over
		return was, &knobError{"", "the program is about to end"}
	}
	another := k.Limit != was.Limit || k.Load != was.Load || k.Shape != was.Shape
	if k.rebuilds(was) {
		if err := s.rebuild(k); err != nil {
			s.fail(err)
			return was, &knobError{"", err.Error()}
		}
	} else {
		s.rate.Store(math.Float64bits(k.Limit))
		s.fleet.set(k) // which only a turn replaces
		if another {
			for _, l := range s.lanes {
				l.judgeAnew(k)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knobs = k
	if another {
		s.turned = time.Now()
	}
	return k, nil
}

// restart judges all lanes from now on. The caller holds turning.
func (s *stage) restart() {
	k := s.now()
	for _, l := range s.lanes {
		l.judgeAnew(k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turned = time.Now()
}

// rebuild ends the fleet and makes another one, while no call is under way. The new one has keys of its own,
// so what the old one could not settle does not matter to it.
func (s *stage) rebuild(k knobs) error {
	s.calling.close()
	defer s.calling.open()
	if err := s.fleet.close(); err != nil {
		s.say(err.Error())
	}
	return s.build(k)
}

func (s *stage) now() knobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knobs
}

// fail ends the show.
func (s *stage) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		close(s.over)
	}
	s.failed = errors.Join(s.failed, err)
}

// run offers load and tells the watchers, until ctx ends, and returns what went wrong.
func (s *stage) run(ctx context.Context) error {
	transport := s.web.transport(len(s.lanes) * laneWorkers)
	client := &http.Client{Transport: transport, Timeout: requestTimeout}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		select {
		case <-ctx.Done():
		case <-s.over:
			cancel()
		}
	})
	for _, l := range s.lanes {
		for range laneWorkers {
			all.Go(func() { l.work(ctx, s, client) })
		}
	}
	all.Go(func() { s.offer(ctx) })
	all.Go(func() { s.tell(ctx) })
	all.Go(func() { s.direct(ctx) })
	all.Wait()
	transport.CloseIdleConnections()
	var err error
	if s.fleet != nil {
		err = s.fleet.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failed, err)
}

// offer makes calls due, the same ones for each lane, as a Poisson process whose rate changes.
func (s *stage) offer(ctx context.Context) {
	const pause = 2 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := time.Now()
	for resting := false; ; {
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := time.Now()
		s.mu.Lock()
		s.late = max(s.late, now.Sub(last)-pause)
		k, since := s.knobs, time.Since(s.turned)
		rests := len(s.watchers) == 0 && time.Since(s.lonely) > restAfter
		s.mu.Unlock()
		if rests != resting {
			if resting = rests; resting {
				s.say("no browser shows the page: no calls are made")
			} else {
				s.say("a browser shows the page")
			}
		}
		window := k.options().Window
		if k.Shape == edge { // by the clock, as the windows of others
			since = sinceEdge(now, edgePeriod*window)
		}
		load := loadAt(k.Shape, since, k.Load, window)
		mean := load * k.Limit * min(now.Sub(last), patience).Seconds()
		last = now
		if resting {
			continue
		}
		for due := rand.ExpFloat64(); due < mean; due += rand.ExpFloat64() {
			who := caller(k.Shape, load, rand.Float64())
			for _, l := range s.lanes {
				if !l.idle.Load() {
					l.offer(who)
				}
			}
		}
	}
}

// tell takes a sample at each tick, and tells the watchers.
func (s *stage) tell(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	const kept = int(shown/tick) + rateOver
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		s.mu.Lock()
		k := s.knobs
		for i, l := range s.lanes {
			s.series[i] = append(s.series[i], l.sample(now.Sub(last), k))
			s.series[i] = s.series[i][max(0, len(s.series[i])-kept):]
		}
		rests := len(s.watchers) == 0 && now.Sub(s.lonely) > restAfter
		s.moments = append(s.moments, moment{k.Limit, !k.Redis, rests, s.turned})
		s.moments = s.moments[max(0, len(s.moments)-kept):]
		last = now
		s.lates = append(s.lates, s.late)
		s.lates = s.lates[max(0, len(s.lates)-lateFor):]
		s.late = 0
		s.mu.Unlock()
		message, err := json.Marshal(s.view(k))
		if err != nil {
			s.fail(err)
			return
		}
		s.mu.Lock()
		for w := range s.watchers {
			select {
			case w <- message:
			default: // it is slow; the next one is newer
			}
		}
		s.mu.Unlock()
	}
}

// watch returns what the watchers are told from now on, and what ends it.
func (s *stage) watch() (messages <-chan []byte, end func()) {
	c := make(chan []byte, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[c] = true
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, c)
		s.lonely = time.Now()
	}
}

// stageView is what the page shows.
type stageView struct {
	Knobs  knobs      `json:"knobs"`
	Scene  sceneView  `json:"scene"`
	Lanes  []laneView `json:"lanes"`
	Limits []float64  `json:"limits"` // per second, of what the charts show, the oldest first
	Outage []bool     `json:"outage"` // the same, of Redis
	Busy   string     `json:"busy"`   // why it does not show what it should; empty when it does
}

// tooBusy does not change while it is shown.
const tooBusy = "This machine is too busy: calls are made late, " +
	"and the limiters seem slower and less smooth than they are."

type laneView struct {
	ID         string   `json:"id"`
	Offered    float64  `json:"offered_per_second"`
	Admitted   float64  `json:"admitted_per_second"`
	Declined   float64  `json:"declined_per_second"`
	Factor     float64  `json:"suppression_factor"`
	Room       float64  `json:"room_ratio"`
	P50        string   `json:"p50"`
	P99        string   `json:"p99"`
	Pause      string   `json:"longest_pause"`
	Fullest    uint64   `json:"largest_any_window"`
	Capacity   uint64   `json:"capacity"`
	Bound      uint64   `json:"bound"`
	Held       bool     `json:"held"`
	Fallback   uint64   `json:"fallback"`
	Failed     uint64   `json:"failed"`
	Skipped    uint64   `json:"skipped"`
	FirstError string   `json:"first_error"`
	Clients    []asked  `json:"clients"`
	Answers    []answer `json:"answers"`
	Verdict    string   `json:"verdict"`
	Tone       string   `json:"tone"`
	Chart      [][2]int `json:"chart"`   // admitted and declined per second; −1 where no calls were made
	Summary    string   `json:"summary"` // of the chart, in words
}

// view is what there is to see. It notes which guarantees are broken.
func (s *stage) view(k knobs) stageView {
	v := stageView{Knobs: k}
	s.mu.Lock()
	moments := s.moments
	v.Scene = s.playing.view()
	if slices.ContainsFunc(s.lates, func(late time.Duration) bool { return late > veryLate }) {
		v.Busy = tooBusy
	}
	all := slices.Clone(s.series)
	s.mu.Unlock()
	for i := rateOver - 1; i < len(moments); i++ {
		v.Limits = append(v.Limits, moments[i].limit)
		v.Outage = append(v.Outage, moments[i].outage)
	}
	for i, l := range s.lanes {
		x := l.view(k, all[i], moments)
		if !x.Held && !l.isPeer() {
			s.mu.Lock()
			s.broken[x.ID] = fmt.Sprintf(worstWindow, l.provider, l.strategy, x.Fullest, k.Window, x.Bound)
			s.mu.Unlock()
		}
		v.Lanes = append(v.Lanes, x)
	}
	return v
}

func (l *lane) view(k knobs, series []sample, moments []moment) laneView {
	l.mu.Lock()
	m, bound := l.meter.read(), l.bound
	clients := append([]asked{}, l.clients...) // never null, which the page cannot go through
	answers := append([]answer{}, l.answers...)
	all := l.countedLocked(m)
	l.mu.Unlock()
	x := laneView{
		ID:       l.id(),
		Pause:    screen.Duration(m.longestPause.Round(time.Millisecond)),
		Fullest:  m.fullest,
		Capacity: k.bound(absolute),
		Bound:    bound,
		Fallback: all.fallback,
		Failed:   all.failed,
		Skipped:  all.skipped,
		Clients:  clients,
		Answers:  answers,
	}
	x.Held = x.Fullest <= x.Bound
	if m.firstFail != nil {
		x.FirstError = m.firstFail.Error()
	}
	if len(series) > 0 {
		now := mean(series)
		x.Offered, x.Admitted, x.Declined = now.perSecond(now.admitted+now.declined),
			now.perSecond(now.admitted), now.perSecond(now.declined)
		x.Factor, x.Room = now.factor, now.room
		x.P50, x.P99 = screen.Nanoseconds(int64(now.p50)), screen.Nanoseconds(int64(now.p99))
	}
	st := standing{
		strategy: l.strategy, peer: l.isPeer(),
		away: l.remote() && !k.Redis, instances: k.Instances, hard: k.HardLimitFactor,
		fullest: m.fullest, capacity: x.Capacity, bound: bound, pause: m.longestPause,
		bursts: k.Shape == edge,
	}
	st.average, st.asked = averages(series, moments, k)
	for _, c := range clients {
		st.declined += c.Asked - c.Admitted
	}
	x.Verdict, x.Tone = st.verdict()
	for i := rateOver - 1; i < len(series); i++ {
		point := [2]int{-1, -1}
		if !moments[i].resting {
			of := mean(series[:i+1])
			rounded := func(n uint64) int { return int(math.Round(of.perSecond(n))) }
			point = [2]int{rounded(of.admitted), rounded(of.declined)}
		}
		x.Chart = append(x.Chart, point)
	}
	x.Summary = fmt.Sprintf("%s: %.0f calls per second offered, %.0f admitted, %.0f declined; the limit is %g",
		l.title(), x.Offered, x.Admitted, x.Declined, k.Limit)
	return x
}

// mean is the last of the samples with the counts of some more.
func mean(series []sample) sample {
	x := series[len(series)-1]
	for _, o := range series[max(0, len(series)-rateOver) : len(series)-1] {
		x.counted = x.plus(o.counted)
		x.took += o.took
	}
	return x
}

func (s sample) perSecond(n uint64) float64 {
	if s.took <= 0 {
		return 0
	}
	return float64(n) / s.took.Seconds()
}
