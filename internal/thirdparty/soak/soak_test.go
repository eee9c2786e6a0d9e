package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// hurried are the rules that a machine can break by being slow, which make soak judges, and this test does
// not.
var hurried = []string{
	"new keys", "fallbacks without a fault", "seconds to recover from a fault", "Redis is unavailable at the end", "seconds that closing took",
	"use of the hot key", "median latency, µs", "p99.9 of latency, µs", "goroutines left at the end",
}

// A few seconds of all of it: what does not depend on the machine holds, and what it writes can be read. On
// one that is too busy for a fault or a sample in that time, it takes longer.
func TestSoak(t *testing.T) {
	for took := 3 * time.Second; ; took *= 4 {
		var out bytes.Buffer
		dir := filepath.Join(t.TempDir(), "new")
		c := command{For: took, Churn: int64(500 * took.Seconds()), Flood: 100_000, Faults: time.Second, JSON: true, Out: dir}
		if err := c.run(t.Context(), &out, io.Discard); err != nil && !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		var r result
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		for _, one := range r.Rules {
			if one.Verdict == fail && !slices.Contains(hurried, one.Name) {
				t.Errorf("%+v", one)
			}
		}
		svg, err := os.ReadFile(filepath.Join(dir, "soak.svg"))
		for d := xml.NewDecoder(bytes.NewReader(svg)); err == nil; {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("the picture: %v", err)
		}
		if r.Faults > 0 && len(r.Samples) > 0 && r.NewKeys > 0 && r.Calls > 0 && len(r.Rules) > 50 {
			break
		}
		if took > time.Minute {
			t.Fatalf("%d faults, %d samples, %d new keys, %d calls, %d rules", r.Faults, len(r.Samples),
				r.NewKeys, r.Calls, len(r.Rules))
		}
	}
}

// A picture has a line for each quantity, with gaps where samples are excused.
func TestPicture(t *testing.T) {
	samples, lanes := healthy()
	samples[50].Excused = true
	svg := string(picture(samples, lanes))
	for _, want := range []string{"<svg", "heap after a collection", "p99.9 of latency, µs", "redis absolute", "</svg>"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is missing", want)
		}
	}
	const curves = 3 + 1 + 3 + 1 + 1 + 1
	if n := strings.Count(svg, "M"); n != curves*2+6+1 { // two parts each, the axes of six panels, and MB
		t.Errorf("%d parts of curves, want %d", n, curves*2+6+1)
	}
}

func TestWrongFlags(t *testing.T) {
	if err := (&command{For: time.Millisecond, Faults: time.Second}).run(t.Context(), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "--for") {
		t.Error(err)
	}
}

// Judged in pieces, a log shows what it shows as a whole, however the pieces lie, with calls that end long
// after they began.
func TestWatchJudgesAllWindows(t *testing.T) {
	for seed := range uint64(explore.Runs(50, 2000)) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w := &watch{window: time.Second}
		var log []anywindow.Admission
		now := time.Now()
		longest := 0
		for next := now; len(log) < 400; {
			now = now.Add(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
			from := now.Add(-time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
			a := anywindow.Admission{From: from, To: now, Cost: 1 + rng.Uint64N(3)}
			w.add(a.From, a.To, a.Cost)
			log = append(log, a)
			longest = max(longest, len(w.log))
			if now.After(next) {
				w.judge(now)
				next = now.Add(time.Duration(rng.Int64N(int64(2 * time.Second))))
			}
		}
		w.judge(now)
		if got, _ := w.fullest(); got != anywindow.Most(log, time.Second) {
			t.Fatalf("seed %d: %d in pieces, %d as a whole", seed, got, anywindow.Most(log, time.Second))
		}
		if longest > 300 {
			t.Errorf("seed %d: %d held", seed, longest)
		}
	}
}

// series is n values of f, of i from 0 to 1.
func series(n int, f func(x float64) float64) (all []float64) {
	for i := range n {
		all = append(all, f(float64(i)/float64(n)))
	}
	return all
}

// What grows is found, and what only swings, or begins high, is not.
func TestFlat(t *testing.T) {
	swing := func(x float64) float64 { return 20 + 5*float64(int(x*1000)%3) }
	for _, test := range []struct {
		name string
		f    func(float64) float64
		want verdict
	}{
		{"still", func(float64) float64 { return 20 }, pass},
		{"swings", swing, pass},
		{"falls", func(x float64) float64 { return 40 - 20*x }, pass},
		{"grows by half in all", func(x float64) float64 { return 20 + 10*x }, fail},
		{"swings, and grows by half", func(x float64) float64 { return swing(x) + 10*x }, fail},
		{"jumps", func(x float64) float64 { return map[bool]float64{false: 20, true: 25}[x > 0.6] }, fail},
		{"has one peak", func(x float64) float64 { return map[bool]float64{false: 20, true: 500}[x == 0.9] }, pass},
	} {
		if r := flat("heap", "here", series(200, test.f), 1.1, 1); r.Verdict != test.want {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
	if r := flat("heap", "here", series(12, swing), 1.1, 1); r.Verdict != notJudged {
		t.Errorf("a few values: %+v", r)
	}
}

// healthy is a run of 100 samples in which all is well, of one lane.
func healthy() (samples []sample, lanes []*lane) {
	l := &lane{provider: "redis", strategy: "absolute"}
	l.watches = []*watch{{key: "a", bound: 100, most: 100}, {key: "b", bound: 10, most: 4}}
	for i := range 100 {
		samples = append(samples, sample{
			Seconds: float64(i + 1), Heap: 20, RSS: 60, Goroutines: 50, LocalKeys: 1000, HybridKeys: 500, RedisMB: 4, RedisKeys: 3000,
			Lanes: []laneSample{{P50: 200, P999: 5000, Hot: 1, Most: 1}},
		})
	}
	return samples, []*lane{l}
}

// Each rule is kept by a run in which all is well, and broken by what breaks it, and by nothing else.
func TestEachRuleCanBeBroken(t *testing.T) {
	late := func(f func(*sample)) func([]sample, []*lane) {
		return func(samples []sample, _ []*lane) {
			for i := 60; i < len(samples); i++ {
				f(&samples[i])
			}
		}
	}
	for want, breaks := range map[string]func([]sample, []*lane){
		"":                            func([]sample, []*lane) {},
		"heap after a collection, MB": late(func(s *sample) { s.Heap = 24 }),
		"resident memory, MB":         late(func(s *sample) { s.RSS = 81 }),
		"goroutines":                  late(func(s *sample) { s.Goroutines = 60 }),
		"keys held Local":             late(func(s *sample) { s.LocalKeys = 1400 }),
		"keys held Hybrid":            late(func(s *sample) { s.HybridKeys = 800 }),
		"memory, MB Redis":            late(func(s *sample) { s.RedisMB = 6 }),
		"keys Redis":                  late(func(s *sample) { s.RedisKeys = 3600 }),
		"median latency, µs":          late(func(s *sample) { s.Lanes[0].P50 = 410 }),
		"p99.9 of latency, µs":        late(func(s *sample) { s.Lanes[0].P999 = 11_500 }),
		"use of the hot key":          late(func(s *sample) { s.Lanes[0].Hot = 0.8 }),
		"most in any window":          func(_ []sample, lanes []*lane) { lanes[0].watches[1].most = 11 },
		"most in any window redis":    func(_ []sample, lanes []*lane) { lanes[0].watches[0].most = 101 },
	} {
		samples, lanes := healthy()
		breaks(samples, lanes)
		broken := 0
		for _, r := range append(bound(lanes), steady(samples, lanes)...) {
			if r.Verdict == pass {
				continue
			}
			broken++
			if want == "" || !strings.HasPrefix(r.Name+" "+r.Where, want) {
				t.Errorf("%q: %+v", want, r)
			}
		}
		if wanted := min(len(want), 1); broken != wanted {
			t.Errorf("%q: %d rules are broken, want %d", want, broken, wanted)
		}
		// Faults excuse it.
		for i := range samples {
			samples[i].Excused = i >= 60
		}
		if failed(steady(samples, lanes)) {
			t.Errorf("%q: what faults explain is held against it", want)
		}
	}
}

// A fallback is explained by a fault that was there at the time, or a little before, if it is one that
// explains fallbacks.
func TestUnexplained(t *testing.T) {
	began := time.Now()
	at := func(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }
	periods := []period{{"server stopped", at(10), at(11), true}, {"scripts flushed", at(30), at(30), false}}
	for _, test := range []struct {
		at   float64
		want int
	}{{9, 1}, {9.7, 0}, {10.5, 0}, {13.9, 0}, {14.1, 1}, {30, 1}} {
		if got := unexplained([]time.Time{at(test.at)}, periods); got != test.want {
			t.Errorf("a fallback at %v s: %d unexplained, want %d", test.at, got, test.want)
		}
	}
	if excused(periods, at(15), at(20)) || !excused(periods, at(29), at(31)) || !excused(periods, at(12), at(20)) {
		t.Error("other times are excused")
	}
}

// Recovery counts from the end of a fault to the first interval in which all is well again.
func TestRecovers(t *testing.T) {
	began := time.Now()
	stopped := period{"server stopped", began.Add(20 * time.Second), began.Add(21 * time.Second), true}
	for _, test := range []struct {
		name   string
		breaks func(*laneSample)
		until  int
		want   verdict
	}{
		{"at once", func(l *laneSample) { l.Fallback = 9 }, 22, pass},
		{"fallbacks for ten seconds", func(l *laneSample) { l.Fallback = 9 }, 32, fail},
		{"nothing admitted for ten seconds", func(l *laneSample) { l.Hot = 0 }, 32, fail},
		{"never", func(l *laneSample) { l.Hot = 0 }, 100, fail},
	} {
		samples, _ := healthy()
		for i := 20; i < test.until; i++ {
			test.breaks(&samples[i].Lanes[0])
		}
		if r := recovers("redis", 0, samples, []period{stopped}, began); r.Verdict != test.want {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
}

// A run that was broken says so by its exit status, a server that does not start by an error.
func TestTableAndHost(t *testing.T) {
	rules := []rule{judge("heap", "here", 3, "≤", 2), tooShort("keys", "there"), judge("errors", "all", 0, "=", 0)}
	var out bytes.Buffer
	if err := table(&out, rules); err != nil || !failed(rules) || failed(rules[1:]) {
		t.Error(err, failed(rules))
	}
	for _, want := range []string{"heap    here   3         ≤ 2    FAIL", "too short a run"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	t.Setenv("REDIS_SERVER", "no-such-program")
	c := command{For: time.Second, Faults: time.Second}
	if err := c.run(t.Context(), io.Discard, io.Discard); err == nil || errors.Is(err, errBroken) ||
		!strings.Contains(err.Error(), "no-such-program") {
		t.Error(err)
	}
}
