package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trypema/trypema/internal/cli/store"
)

// scene is a play of some seconds: knobs turn by themselves, and a sentence says what there is to see.
type scene struct {
	ID, Title, About string

	lanes    []string // that get calls, and are shown
	acts     []act
	length   time.Duration
	conclude func(lanes map[string]outcome, k knobs) string
}

// act is a change of the knobs.
type act struct {
	at   time.Duration // since the scene began
	turn func(*knobs)
	says string
}

// outcome is what became of a lane since limit or load changed.
type outcome struct {
	fullest          uint64
	average          float64 // of the limit, over whole windows
	pause            time.Duration
	fallback, failed uint64 // since the scene began
}

const (
	localAbsolute    = store.Local + "-" + absolute
	localSuppressed  = store.Local + "-" + suppressed
	redisAbsolute    = store.Redis + "-" + absolute
	redisSuppressed  = store.Redis + "-" + suppressed
	hybridAbsolute   = store.Hybrid + "-" + absolute
	hybridSuppressed = store.Hybrid + "-" + suppressed
)

// ours are the lanes that are shown while no scene is played.
var ours = []string{
	localAbsolute, redisAbsolute, hybridAbsolute,
	localSuppressed, redisSuppressed, hybridSuppressed,
}

// begin sets what every scene begins with.
func begin(k *knobs, limit, load float64, shape string) {
	*k = knobs{
		Limit: limit, Load: load, Shape: shape,
		Window: 2, Bucket: 20, HardLimitFactor: 1.5, Instances: 2, Redis: true,
	}
}

var scenes = []scene{
	{
		ID: "edge", Title: "A burst at a window’s edge", About: "beside two other limiters",
		lanes:  []string{localAbsolute, fixedWindow, tokenBucket},
		length: 15 * time.Second,
		acts: []act{{
			turn: func(k *knobs) { begin(k, 30, 5, edge) },
			says: "All three have a limit of 60 calls in 2 s. " +
				"A client waits, then sends 5 × the limit across the edge of a window.",
		}},
		conclude: func(lanes map[string]outcome, k knobs) string {
			return fmt.Sprintf("In its fullest %g s the fixed window admitted %d calls, "+
				"the token bucket %d, Trypema %d. "+
				"The limit is %d.", k.Window, lanes[fixedWindow].fullest, lanes[tokenBucket].fullest,
				lanes[localAbsolute].fullest, k.bound(absolute))
		},
	},
	{
		ID: "overload", Title: "Overload", About: "under both strategies",
		lanes:  ours,
		length: 17 * time.Second,
		acts: []act{
			{
				turn: func(k *knobs) { begin(k, 40, 0, steady) },
				says: "At first there are no calls.",
			},
			{
				at: 3 * time.Second, turn: func(k *knobs) { k.Load = 5 },
				says: "Now 5 × the limit. Absolute fills the window and stops until it has room. " +
					"Suppressed declines a part of the calls at all times.",
			},
		},
		conclude: func(lanes map[string]outcome, _ knobs) string {
			a, s := lanes[localAbsolute], lanes[localSuppressed]
			return fmt.Sprintf("Local Absolute admitted %.2f × the limit with pauses of up to %s, "+
				"Local Suppressed %.2f × with pauses of up to %s.",
				a.average, seconds(a.pause), s.average, seconds(s.pause))
		},
	},
	{
		ID: "outage", Title: "Redis dies", About: "and comes back",
		lanes:  []string{redisAbsolute, hybridAbsolute, redisSuppressed, hybridSuppressed},
		length: 24 * time.Second,
		acts: []act{
			{
				turn: func(k *knobs) { begin(k, 40, 2, steady) },
				says: "Two instances share a limit of 40 calls a second through Redis.",
			},
			{
				at: 6 * time.Second, turn: func(k *knobs) { k.Redis = false },
				says: unavailable,
			},
			{
				at: 16 * time.Second, turn: func(k *knobs) { k.Redis = true },
				says: "Redis is back. The instances share the limit through it again.",
			},
		},
		conclude: func(lanes map[string]outcome, _ knobs) string {
			var fallback, failed uint64
			for _, o := range lanes {
				fallback, failed = fallback+o.fallback, failed+o.failed
			}
			return fmt.Sprintf("While Redis was unavailable, the instances decided %d calls by themselves. "+
				"%d calls failed.", fallback, failed)
		},
	},
}

const unavailable = "Redis is unavailable: each instance holds its share."

// playing is a scene that goes on, or has ended and is still shown.
type playing struct {
	scene
	began time.Time
	acted int // acts so far
	over  bool
	says  string
	from  map[string]counted // what the lanes had seen as it began
}

// sceneView is a scene as the page shows it.
type sceneView struct {
	ID    string   `json:"id"` // empty where none is played
	Says  string   `json:"says"`
	Part  float64  `json:"part"` // of its length
	Lanes []string `json:"lanes"`
}

func (p *playing) view() sceneView {
	if p == nil {
		return sceneView{Lanes: ours}
	}
	part := 1.0
	if !p.over {
		part = min(0.999, time.Since(p.began).Seconds()/p.length.Seconds()) // at 1 all has been said
	}
	return sceneView{p.ID, p.says, part, p.lanes}
}

// play begins a scene. If id is empty, it ends the one that is played, and the knobs are again as they were
// before. It reports whether there is one of that name.
func (s *stage) play(id string) bool {
	s.turning.Lock()
	defer s.turning.Unlock()
	s.mu.Lock()
	played := s.playing != nil
	s.mu.Unlock()
	if id == "" {
		s.show(nil)
		if played {
			_, _ = s.set(s.own) // an error ends the show, and is said then
		}
		s.restart()
		return true
	}
	i := slices.IndexFunc(scenes, func(c scene) bool { return c.ID == id })
	if i < 0 {
		return false
	}
	if !played {
		s.own = s.now()
	}
	p := &playing{scene: scenes[i], from: make(map[string]counted)}
	s.show(p)
	s.act(p)
	s.restart() // also where the knobs stood as the scene wants them
	for _, l := range s.lanes {
		l.drain()
		l.mu.Lock()
		p.from[l.id()] = l.countLocked()
		l.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.began = time.Now()
	s.moments = nil // the charts begin with the scene
	for i := range s.series {
		s.series[i] = nil
	}
	return true
}

// show has the lanes of a scene get calls, or ours where there is none. The caller holds turning.
func (s *stage) show(p *playing) {
	lanes := p.view().Lanes
	for _, l := range s.lanes {
		l.idle.Store(!slices.Contains(lanes, l.id()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.playing = p
}

// act turns the knobs as the next act of the scene wants it. The caller holds turning.
func (s *stage) act(p *playing) {
	a, k := p.acts[p.acted], s.now()
	a.turn(&k)
	_, wrong := s.set(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.acted++
	p.says = a.says
	if wrong != nil {
		p.over, p.says = true, wrong.Error
	}
}

// direct has the scene that is played go on, until ctx ends.
func (s *stage) direct(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.advance()
		}
	}
}

// advance does what is due in the scene that is played.
func (s *stage) advance() {
	if !s.turning.TryLock() { // the next tick will do; and virtual time passes only where nothing waits for a lock
		return
	}
	defer s.turning.Unlock()
	s.mu.Lock()
	p := s.playing
	s.mu.Unlock()
	if p == nil || p.over { // which only a holder of turning changes
		return
	}
	t := time.Since(p.began)
	if p.acted < len(p.acts) && t >= p.acts[p.acted].at {
		s.act(p)
	}
	if t < p.length {
		return
	}
	k, lanes := s.now(), make(map[string]outcome)
	for i, l := range s.lanes {
		if slices.Contains(p.lanes, l.id()) {
			lanes[l.id()] = s.outcome(i, p.from[l.id()])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.over, p.says = true, p.conclude(lanes, k)
}

// outcome is that of a lane, which had seen so much before.
func (s *stage) outcome(i int, from counted) outcome {
	l := s.lanes[i]
	s.mu.Lock()
	average, _ := averages(s.series[i], s.moments, s.knobs)
	s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.meter.read()
	seen := l.countedLocked(m).minus(from)
	return outcome{m.fullest, average, m.longestPause, seen.fallback, seen.failed}
}
