package demo

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

// choose begins a scene, and returns the status and what was said.
func (p page) choose(id string) (status int, said string) {
	p.Helper()
	response, err := p.client.PostForm(p.url+"/scene", url.Values{"id": {id}})
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func (p page) untilOver() stageView {
	return p.until("the scene is over", func(v stageView) bool { return v.Scene.ID != "" && v.Scene.Part == 1 })
}

// TestScenes plays them, in virtual time, all of them to the end where tests explore: what each shows is so.
func TestScenes(t *testing.T) {
	virtually(t, func(t *testing.T, w *web) {
		p := open(t, Command{Rate: ptr(20.0), web: w, redis: virtualRedis{fakeredis.New()}})
		p.until("calls", admitting)

		if status, said := p.choose("edge"); status != http.StatusNoContent {
			t.Errorf("%d: %s", status, said)
		}
		v := p.untilOver()
		if v.Knobs.Shape != edge || !slices.Equal(v.Scene.Lanes, []string{localAbsolute, fixedWindow, tokenBucket}) {
			t.Errorf("%+v, %+v", v.Knobs, v.Scene)
		}
		var window, windowMost, bucketMost, ourMost, limit int
		if _, err := fmt.Sscanf(v.Scene.Says,
			"In its fullest %d s the fixed window admitted %d calls, the token bucket %d, Trypema %d. "+
				"The limit is %d.",
			&window, &windowMost, &bucketMost, &ourMost, &limit); err != nil {
			t.Errorf("%q: %v", v.Scene.Says, err)
		}
		// 75 calls are due before the edge on average, and 8.7 is their standard deviation.
		if window != 2 || limit != 60 || ourMost != 60 || windowMost < 100 || windowMost > 120 ||
			bucketMost < 110 || bucketMost > 120 {
			t.Errorf("unexpected: %s", v.Scene.Says)
		}
		for _, id := range []string{fixedWindow, tokenBucket} {
			if l := v.lane(id); l.Tone != over {
				t.Errorf("%s: %s", id, l.Verdict)
			}
		}
		if l := v.lane(localAbsolute); l.Verdict != "1.00 × the limit in its fullest window" || l.Tone != fine {
			t.Errorf("ours: %s", l.Verdict)
		}
		if l := v.lane(redisAbsolute); l.Admitted+l.Declined > 0 {
			t.Error("a limiter that is not shown got calls")
		}

		p.choose("outage")
		v = p.until("Redis is unavailable",
			func(v stageView) bool { return v.Scene.Says == unavailable && !v.Knobs.Redis })
		for _, id := range v.Scene.Lanes {
			if l := v.lane(id); l.Verdict+"." != unavailable || l.Tone != neutral {
				t.Errorf("%s: %s", id, l.Verdict)
			}
		}
		if explore.Long() {
			v = p.untilOver()
			if !v.Knobs.Redis || !slices.Contains(v.Outage, true) || v.Outage[len(v.Outage)-1] {
				t.Errorf("Redis %v, outage %v", v.Knobs.Redis, v.Outage)
			}
			var decided, failed int
			if _, err := fmt.Sscanf(v.Scene.Says,
				"While Redis was unavailable, the instances decided %d calls by themselves. %d calls failed.",
				&decided, &failed); err != nil ||
				decided < 500 || failed > 0 {
				t.Errorf("%q: %v", v.Scene.Says, err)
			}
			p.choose("overload")
			p.until("the load rises", func(v stageView) bool { return v.Knobs.Load == 5 })
			v = p.untilOver()
			said := regexp.MustCompile(`Local Absolute admitted (\S+) × the limit with pauses of up to ` +
				`(\S+)\x{a0}s, Local Suppressed (\S+) × with pauses of up to ` +
				`(\S+)\x{a0}s\.`).FindStringSubmatch(v.Scene.Says)
			if said == nil {
				t.Fatalf("%q", v.Scene.Says)
			}
			var numbers [4]float64
			for i := range numbers {
				if _, err := fmt.Sscan(said[i+1], &numbers[i]); err != nil {
					t.Error(err)
				}
			}
			if numbers[0] < 0.9 || numbers[0] > 1.01 || numbers[2] < 0.85 || numbers[2] > 1.2 ||
				numbers[1] < 2*numbers[3] {
				t.Errorf("unexpected: %s", v.Scene.Says)
			}
			if !slices.Equal(v.Scene.Lanes, ours) {
				t.Errorf("%v", v.Scene.Lanes)
			}
		}

		// A hand on a knob ends a scene, and so does the choice of none.
		p.turn(`{"load": 3, "redis": true}`)
		v = p.until("all six again", func(v stageView) bool { return v.Scene.ID == "" && admitting(v) })
		if !slices.Equal(v.Scene.Lanes, ours) || v.Scene.Says != "" || v.Knobs.Load != 3 {
			t.Errorf("%+v, %+v", v.Scene, v.Knobs)
		}
		p.choose("overload")
		p.choose("")
		v = p.until("none", func(v stageView) bool { return v.Scene.ID == "" })
		if v.Knobs.Load != 3 || v.Knobs.Limit != 40 || !v.Knobs.Redis {
			t.Errorf("the knobs are not as before: %+v", v.Knobs)
		}

		if status, said := p.choose("nothing"); status != http.StatusBadRequest ||
			!strings.Contains(said, `scene is \"nothing\"; it must be one of edge, overload, outage, or empty`) {
			t.Errorf("%d: %s", status, said)
		}
		if err := p.stop(); err != nil {
			t.Error(err) // a limiter for comparison that is above its limit is no failure
		}
	})
}

// TestScenesAreValid: knobs of scenes are those that people can set.
func TestScenesAreValid(t *testing.T) {
	for _, c := range scenes {
		k := plain
		for i, a := range c.acts {
			a.turn(&k)
			if wrong := k.wrong(); wrong != nil {
				t.Errorf("%s, act %d: %s", c.ID, i, wrong.Error)
			}
			if a.at >= c.length || i > 0 && a.at <= c.acts[i-1].at || a.says == "" {
				t.Errorf("%s, act %d: at %v of %v, %q", c.ID, i, a.at, c.length, a.says)
			}
		}
	}
}

// TestPeers: the limiters for comparison do what those do whose names they have.
func TestPeers(t *testing.T) {
	const window = 2 * time.Second
	ask := func(t *testing.T, l decider, n int) (admitted int, last trypema.Decision) {
		t.Helper()
		for range n {
			d, err := l.Allow(context.Background(), "", 10)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				admitted++
			}
			last = d
		}
		return admitted, last
	}
	t.Run(tokenBucket, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newPeer(tokenBucket, window)
			n, d := ask(t, l, 50)
			if n != 20 || d.RetryAfter != 100*time.Millisecond || d.Limit != 20 || d.Remaining != 0 {
				t.Errorf("a full one admits %d, and then says %+v", n, d)
			}
			time.Sleep(time.Second)
			if n, _ := ask(t, l, 50); n != 10 {
				t.Errorf("%d after a second", n)
			}
			time.Sleep(time.Hour)
			if n, _ := ask(t, l, 50); n != 20 {
				t.Errorf("%d after an hour", n)
			}
		})
	})
	t.Run(fixedWindow, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newPeer(fixedWindow, window)
			time.Sleep(window - sinceEdge(time.Now(), window) + 3*window/4)
			if n, d := ask(t, l, 50); n != 20 || d.RetryAfter != window/4 || d.Limit != 20 || d.Remaining != 0 {
				t.Errorf("an empty one admits %d, and then says %+v", n, d)
			}
			time.Sleep(window/4 - 1)
			if n, _ := ask(t, l, 50); n != 0 {
				t.Errorf("%d at the end of the window", n)
			}
			time.Sleep(time.Nanosecond)
			if n, _ := ask(t, l, 50); n != 20 {
				t.Errorf("%d at the beginning of the next", n)
			}
		})
	})
	for _, name := range []string{tokenBucket, fixedWindow} {
		if _, err := newPeer(name, window).Allow(t.Context(), "", trypema.Rate(math.NaN())); err == nil {
			t.Errorf("%s takes a rate that is not a number", name)
		}
	}
}

// TestTimePassesWhileKnobsTurn: a scene does not wait for a lock, at which virtual time would stand still.
func TestTimePassesWhileKnobsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := new(stage)
		go s.direct(ctx)
		s.turning.Lock()
		time.Sleep(4 * tick)
		s.turning.Unlock()
	})
}
