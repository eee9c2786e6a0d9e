package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/store"
)

// smooth is a setup and a reading in which Suppressed does what it promises.
func smooth() (setup, *route, reading) {
	s := setup{
		rate:     100,
		load:     3,
		options:  trypema.Options{Window: 5 * time.Second, HardLimitFactor: 1.5},
		capacity: 500,
		hard:     750,
		duration: 25 * time.Second,
	}
	r := &route{path: "/suppressed", strategy: "suppressed", bound: 750, sent: sent{admitted: 2500, declined: 5000}}
	m := reading{
		elapsed:      25 * time.Second,
		account:      account{total: tally{2500, 5000}, settled: tally{2000, 4000}},
		settledTook:  20 * time.Second,
		fullest:      600,
		longestPause: 100 * time.Millisecond,
	}
	return s, r, m
}

func TestFindings(t *testing.T) {
	const rate, pause = "G6 settled rate", "G6 longest pause"
	type change = func(*setup, *route, *reading)
	clients := func(of func(*sent)) change { return func(_ *setup, r *route, _ *reading) { of(&r.sent) } }
	meter := func(of func(*reading)) change { return func(_ *setup, _ *route, m *reading) { of(m) } }
	admitted := func(n uint64) change { return meter(func(m *reading) { m.settled.admitted = n }) }
	settled := func(at tally) change { return meter(func(m *reading) { m.settled = at }) }
	fullest := func(n uint64) change { return meter(func(m *reading) { m.fullest = n }) }
	elapsed := func(d time.Duration) change { return meter(func(m *reading) { m.elapsed = d }) }
	paused := func(d time.Duration) change { return meter(func(m *reading) { m.longestPause = d }) }
	late := func(n uint64) change { return clients(func(s *sent) { s.late = n }) }
	tests := []struct {
		name      string
		change    change
		guarantee string
		want      verdict
		says      string
	}{
		{"bound reached", fullest(750), "G1 bound", held, "750 in the fullest window of 5s, at most 750"},
		{"bound passed", fullest(751), "G1 bound", broken, "G1 bound broken: 751"},

		{"all add up", func(*setup, *route, *reading) {}, "sums", held, "0 decisions"},
		{"an answer without a decision", clients(func(s *sent) { s.admitted++ }), "sums", broken, "1 decisions"},
		{"a decision without an answer", clients(func(s *sent) { s.declined -= 2 }), "sums", broken, "2 decisions"},
		{"a decision whose request failed", clients(func(s *sent) { s.declined--; s.failed++ }), "sums", held, ""},
		{"a request that failed before", clients(func(s *sent) { s.failed++ }), "sums", held, ""},
		{"an error of the limiter", meter(func(m *reading) { m.failed = 1 }), "sums", broken, "1 decisions"},

		// 100/s for 20s: 3 % and five times 1/√2000 = 11.2 %.
		{"rate at the limit", func(*setup, *route, *reading) {}, rate, held, "allowed 85.8 to 114.2"},
		{"rate just below the upper bound", admitted(2283), rate, held, ""},
		{"rate above", admitted(2284), rate, broken, "114.2 per second"},
		{"rate below", admitted(1716), rate, broken, ""},
		{"rate below while the machine stood still", meter(func(m *reading) {
			m.settled.admitted, m.stalled = 1716, time.Second
		}), rate, held, ""},
		{"wider above 20×", settled(tally{2320, 60000}), rate, held, "to 116.2"},
		{"wider for hybrid", func(s *setup, _ *route, m *reading) {
			s.where.Provider, m.settled.admitted = store.Hybrid, 2320
		}, rate, held, "to 116.2"},
		{"not above 100×", settled(tally{4000, 240000}), rate, notJudged, ""},
		{"not below 1.1×", settled(tally{2100, 0}), rate, notJudged, ""},
		{"not for another factor", func(s *setup, _ *route, _ *reading) {
			s.options.HardLimitFactor = 1
		}, rate, notJudged, ""},
		{"not in less than four windows", elapsed(19 * time.Second), rate, notJudged, ""},
		{"not before anything settled", meter(func(m *reading) {
			*m = reading{elapsed: time.Second}
		}), rate, notJudged, ""},

		{"not with late calls", late(76), rate, notJudged, ""},
		{"with a few", late(75), rate, held, ""},
		{"not with skipped calls", clients(func(s *sent) { s.skipped = 76 }), rate, notJudged, ""},

		// 500ms, and 16.2 times the mean distance of 30 admissions a second.
		{"pause at the bound", paused(1040 * time.Millisecond), pause, held, ""},
		{"pause too long", paused(1041 * time.Millisecond), pause, broken,
			"1041 ms without an admission, at most 1040"},
		{"pause with late calls", func(_ *setup, r *route, m *reading) {
			r.sent.late, m.longestPause = 76, time.Minute
		}, pause, notJudged, ""},
		{"pause in two windows", elapsed(10 * time.Second), pause, held, ""},
		{"not in less", elapsed(10*time.Second - 1), pause, notJudged, ""},
		{"pause of a low rate", func(s *setup, _ *route, m *reading) {
			s.capacity, m.settled, m.longestPause = 245, tally{980, 4000}, time.Second
		}, pause, notJudged, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, r, m := smooth()
			tt.change(&s, r, &m)
			for _, f := range findings(s, r, m) {
				if f.Guarantee != tt.guarantee {
					continue
				}
				if f.Verdict != tt.want || !strings.Contains(f.String(), tt.says) {
					t.Errorf("got %q: %s (%s), want %q saying %q", f.Verdict, f, f.Note, tt.want, tt.says)
				}
				return
			}
			t.Errorf("no finding about %s", tt.guarantee)
		})
	}
}

func TestAbsoluteIsNotJudgedBySmoothness(t *testing.T) {
	s, r, m := smooth()
	r.strategy = "absolute"
	m.longestPause = 4 * time.Second
	if all := findings(s, r, m); len(all) != 2 {
		t.Errorf("%d findings, want bound and sums: %v", len(all), all)
	}
}
