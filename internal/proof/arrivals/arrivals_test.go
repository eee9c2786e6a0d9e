package arrivals_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/arrivals"
	"github.com/trypema/trypema/internal/proof/explore"
)

const (
	window   = 100 * time.Millisecond
	bucket   = 10 * time.Millisecond
	capacity = 8
)

// fixed counts from the beginning of each window.
func fixed() func(arrivals.Call) (bool, time.Duration) {
	var ends time.Time
	var used uint64
	return func(c arrivals.Call) (bool, time.Duration) {
		if now := time.Now(); !now.Before(ends) {
			ends, used = now.Truncate(window).Add(window), 0
		}
		if used+c.Cost > capacity {
			return false, time.Until(ends)
		}
		used += c.Cost
		return true, 0
	}
}

// byFirst slides, by groups that expire when their first event is a window old.
func byFirst() func(arrivals.Call) (bool, time.Duration) {
	type group struct {
		first time.Time
		cost  uint64
	}
	var groups []group
	return func(c arrivals.Call) (bool, time.Duration) {
		now := time.Now()
		for len(groups) > 0 && now.Sub(groups[0].first) >= window {
			groups = groups[1:]
		}
		var used uint64
		for _, g := range groups {
			used += g.cost
		}
		if used+c.Cost > capacity {
			if len(groups) == 0 {
				return false, window
			}
			return false, window - now.Sub(groups[0].first)
		}
		if last := len(groups) - 1; last >= 0 && now.Sub(groups[last].first) < bucket {
			groups[last].cost += c.Cost
		} else {
			groups = append(groups, group{now, c.Cost})
		}
		return true, 0
	}
}

// tokens is a bucket that is refilled all the time.
func tokens() func(arrivals.Call) (bool, time.Duration) {
	const each = window / capacity
	full := time.Now() // when it is
	return func(c arrivals.Call) (bool, time.Duration) {
		now := time.Now()
		if full.Before(now) {
			full = now
		}
		then := full.Add(time.Duration(c.Cost) * each)
		if wait := then.Sub(now) - window; wait > 0 {
			return false, wait
		}
		full = then
		return true, 0
	}
}

// exact is a log of all events.
func exact() func(arrivals.Call) (bool, time.Duration) {
	var log []anywindow.Admission
	return func(c arrivals.Call) (bool, time.Duration) {
		now := time.Now()
		for len(log) > 0 && now.Sub(log[0].To) >= window {
			log = log[1:]
		}
		var used uint64
		for _, a := range log {
			used += a.Cost
		}
		if used+c.Cost > capacity {
			return false, window
		}
		log = append(log, anywindow.Admission{From: now, To: now, Cost: c.Cost})
		return true, 0
	}
}

// What the search is worth: the worst that weak limiters do is found, whatever the seed, and nothing is found
// where there is nothing.
func TestFindsWeakLimiters(t *testing.T) {
	space := arrivals.Space{Window: window, Bucket: bucket, Capacity: capacity, Calls: 24}
	for _, test := range []struct {
		name  string
		make  func() func(arrivals.Call) (bool, time.Duration)
		want  uint64
		tries int
	}{
		{"fixed window", fixed, 2 * capacity, 500},
		{"groups that expire by their first event", byFirst, 2*capacity - 1, 1500},
		{"token bucket", tokens, 2*capacity - 1, 1500},
		{"exact", exact, capacity, 500},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range uint64(explore.Size(2, 5)) {
					tried, found := 0, 0
					best, most := space.Search(seed, test.tries, func(s arrivals.Schedule) uint64 {
						n := anywindow.Most(s.Run(false, test.make()), window)
						if tried++; n >= test.want && found == 0 {
							found = tried
						}
						return n
					})
					t.Logf("seed %d: %d of %d, after %d tries", seed, most, capacity, found)
					if most != test.want {
						t.Errorf("seed %d: the most found is %d, want %d: %v", seed, most, test.want, best)
					}
				}
			})
		})
	}
}

func TestAll(t *testing.T) {
	seen := map[string]bool{}
	for s := range arrivals.All(3, []time.Duration{0, 1}, []uint64{1, 2, 3}) {
		seen[s.String()] = true
	}
	if len(seen) != 216 {
		t.Errorf("%d schedules, want 6³", len(seen))
	}
}
