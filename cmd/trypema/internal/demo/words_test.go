package demo

import (
	"math"
	"testing"
	"time"
)

func TestVerdictInWords(t *testing.T) {
	const pause = 120 * time.Millisecond
	full := standing{
		strategy: absolute, instances: 2, hard: 1.5, fullest: 100, capacity: 100, bound: 100,
		average: 0.998, asked: 3, declined: 7, pause: pause,
	}
	for _, tt := range []struct {
		name       string
		with       func(*standing)
		text, tone string
	}{
		{"Absolute", func(*standing) {}, "1.00 × the limit, never above, longest pause 0.1\u00a0s", fine},
		{"Suppressed", func(x *standing) { x.strategy, x.fullest, x.bound = suppressed, 137, 150 },
			"1.00 × the limit, never above 1.5 ×, longest pause 0.1\u00a0s", fine},
		{"Suppressed without headroom", func(x *standing) { x.strategy, x.hard = suppressed, 1 },
			"1.00 × the limit, never above, longest pause 0.1\u00a0s", fine},
		{"above", func(x *standing) { x.fullest = 101 }, "Above the limit: 101 in a window that allows 100", over},
		{"above while away", func(x *standing) { x.fullest, x.away = 101, true },
			"Above the limit: 101 in a window that allows 100", over},
		{"away", func(x *standing) { x.away = true }, "Redis is unavailable: each instance holds its share", neutral},
		{"away, alone", func(x *standing) { x.away, x.instances = true, 1 },
			"Redis is unavailable: the instance holds the limit by itself", neutral},
		{"at first", func(x *standing) { x.average = math.NaN() }, "The first window is not over yet", neutral},
		{"silence", func(x *standing) { x.average, x.asked, x.declined = 0, 0, 0 }, "No calls", neutral},
		{"below the limit", func(x *standing) { x.average, x.asked, x.declined = 0.5, 0.5, 0 },
			"0.50 × the limit is asked for, and admitted", fine},
		{"bursts", func(x *standing) { x.bursts = true }, "1.00 × the limit in its fullest window", fine},
		{"bursts under Suppressed",
			func(x *standing) { x.bursts, x.strategy, x.fullest, x.bound = true, suppressed, 149, 150 },
			"1.49 × the limit in its fullest window, which may have 1.5 ×", fine},
		{"a peer", func(x *standing) { x.peer, x.strategy = true, "" },
			"1.00 × the limit, not above so far, longest pause 0.1\u00a0s", neutral},
		{"a peer that is above", func(x *standing) { x.peer, x.strategy, x.fullest = true, "", 199 },
			"1.99 × the limit in its fullest window", over},
	} {
		x := full
		tt.with(&x)
		if text, tone := x.verdict(); text != tt.text || tone != tt.tone {
			t.Errorf("%s: %q, %s; want %q, %s", tt.name, text, tone, tt.text, tt.tone)
		}
	}
}

// TestAverages: they are of whole windows, since limit or load changed and since there are calls.
func TestAverages(t *testing.T) {
	k := plain // 100/s, a window of 2s
	now := time.Now()
	var series []sample
	var moments []moment
	add := func(n int, admitted, declined uint64, m moment) {
		for range n {
			series = append(series, sample{counted: counted{admitted: admitted, declined: declined}, took: tick})
			moments = append(moments, m)
		}
	}
	check := func(name string, wantAdmitted, wantOffered float64) {
		t.Helper()
		admitted, offered := averages(series, moments, k)
		same := func(got, want float64) bool { return math.IsNaN(got) && math.IsNaN(want) || math.Abs(got-want) < 1e-9 }
		if !same(admitted, wantAdmitted) || !same(offered, wantOffered) {
			t.Errorf("%s: %v and %v, want %v and %v", name, admitted, offered, wantAdmitted, wantOffered)
		}
	}
	check("nothing", math.NaN(), math.NaN())
	add(5, 1000, 1000, moment{since: now.Add(-time.Hour)}) // before the change
	add(7, 25, 50, moment{since: now})
	check("less than a window", math.NaN(), math.NaN())
	add(1, 25, 50, moment{since: now})
	check("a window", 1, 3)
	add(8, 0, 50, moment{since: now})
	check("two windows", 0.5, 2.5)
	add(4, 50, 0, moment{since: now})
	check("the last two whole windows of two and a half", (8*25-4*25+4*50)/400.0, (4*75+8*50+4*50)/400.0)
	add(1, 0, 0, moment{since: now, resting: true})
	check("nobody looks", math.NaN(), math.NaN())
	add(8, 10, 0, moment{since: now})
	check("somebody looks again", 0.4, 0.4)
}
