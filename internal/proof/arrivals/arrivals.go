// Package arrivals looks for patterns of calls at which a limiter admits more in a window than it may.
//
// A limiter that is wrong is wrong at edges: the first event of a group, its last, the instant when it
// expires, the instant that a denial has named. So gaps between calls are mostly such spans, or a nanosecond
// or a microsecond beside them. A search that climbs from random beginnings puts them together; a limiter of
// fixed windows gives itself away after some dozen schedules, and TestFindsWeakLimiters holds how soon others
// do.
package arrivals

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
)

// Call is some equal calls at one instant.
type Call struct {
	Gap      time.Duration // since the calls before, or AsTold
	Cost     uint64        // of each
	Times    int
	Instance int
}

// AsTold is the gap of a caller who waits exactly as long as the last denial has said.
const AsTold time.Duration = -1

// Schedule is what a caller, or several who conspire, will do.
type Schedule []Call

// String writes gap:times×cost@instance for each call.
func (s Schedule) String() string {
	var all []string
	for _, c := range s {
		gap := c.Gap.String()
		if c.Gap == AsTold {
			gap = "told"
		}
		all = append(all, fmt.Sprintf("%s:%d×%d@%d", gap, c.Times, c.Cost, c.Instance))
	}
	return strings.Join(all, " ")
}

// Run makes the calls of a schedule in virtual time, and returns those that were admitted. Allow reports
// whether a call was, and if not, how long it was told to wait. Where calls may wait for each other, they
// have to be concurrent: no call then waits for the end of another.
func (s Schedule) Run(
	concurrent bool, allow func(Call) (bool, time.Duration),
) (admitted []anywindow.Admission) {
	var mu sync.Mutex // guards admitted and told
	var told time.Duration
	call := func(c Call) {
		from := time.Now()
		ok, wait := allow(c)
		to := time.Now()
		mu.Lock()
		defer mu.Unlock()
		if ok {
			admitted = append(admitted, anywindow.Admission{From: from, To: to, Cost: c.Cost})
		} else {
			told = wait
		}
	}
	var calls sync.WaitGroup
	for _, c := range s {
		gap := c.Gap
		if gap == AsTold {
			if concurrent {
				synctest.Wait()
			}
			mu.Lock()
			gap = min(told, 3*time.Second) // some windows, if it was told never to come back
			mu.Unlock()
		}
		time.Sleep(gap)
		for range c.Times {
			if concurrent {
				calls.Go(func() { call(c) })
			} else {
				call(c)
			}
		}
	}
	calls.Wait()
	return admitted
}

// Space is the schedules among which to search.
type Space struct {
	Window, Bucket time.Duration
	Capacity       uint64
	Instances      int
	Calls          int // in a schedule, at most
}

// Search tries so many schedules, and returns the one of which trial says the most.
func (s Space) Search(seed uint64, tries int, trial func(Schedule) uint64) (best Schedule, most uint64) {
	const patience = 60 // tries without anything better, until it begins elsewhere
	rng := rand.New(rand.NewPCG(seed, 0))
	var here Schedule
	var height uint64
	for stuck := patience; tries > 0; tries-- {
		next := s.random(rng)
		begins := stuck >= patience
		if !begins {
			next = s.vary(rng, here)
		}
		got := trial(next)
		if stuck++; begins || got > height {
			stuck = 0
		}
		if begins || got >= height { // to walk about on a plain leads to its edge
			here, height = next, got
		}
		if got > most || best == nil {
			best, most = next, got
		}
	}
	return best, most
}

func (s Space) random(rng *rand.Rand) (all Schedule) {
	for range 2 + rng.IntN(s.Calls-1) {
		all = append(all, s.call(rng))
	}
	return all
}

// vary returns a schedule that differs a little.
func (s Space) vary(rng *rand.Rand, from Schedule) Schedule {
	all := slices.Clone(from)
	for range 1 + rng.IntN(3) {
		i := rng.IntN(len(all))
		switch rng.IntN(8) {
		case 0:
			all[i] = s.call(rng)
		case 1:
			all[i].Gap = s.gap(rng)
		case 2:
			all[i].Cost, all[i].Times = s.cost(rng)
		case 3:
			all[i].Instance = rng.IntN(max(s.Instances, 1))
		case 4:
			if all[i].Gap > time.Microsecond {
				all[i].Gap += pick(rng, -time.Microsecond, -1, 1, time.Microsecond)
			}
		case 5:
			all = slices.Insert(all, i, s.call(rng))
		case 6: // the same once more
			j := i + 1 + rng.IntN(len(all)-i)
			all = slices.Insert(all, j, slices.Clone(all[i:j])...)
		default:
			if len(all) > 1 {
				all = slices.Delete(all, i, i+1)
			}
		}
	}
	return all[:min(len(all), s.Calls)]
}

func (s Space) call(rng *rand.Rand) Call {
	c := Call{Gap: s.gap(rng), Instance: rng.IntN(max(s.Instances, 1))}
	c.Cost, c.Times = s.cost(rng)
	return c
}

func (s Space) gap(rng *rand.Rand) time.Duration {
	w, b := s.Window, s.Bucket
	if rng.IntN(8) == 0 {
		return time.Duration(rng.Int64N(int64(pick(rng, w, b))))
	}
	edge := pick(rng, 0, b, w-b, w, w+b, w/2, w/time.Duration(s.Capacity), AsTold)
	if edge > time.Microsecond {
		edge += pick(rng, 0, 0, -1, 1, -time.Microsecond, time.Microsecond)
	}
	return edge
}

func (s Space) cost(rng *rand.Rand) (cost uint64, times int) {
	c := s.Capacity
	switch rng.IntN(4) {
	case 0: // as many as make a key hot
		return 1, pick(rng, 1, 2, 20, 40, int(c), int(c-1))
	case 1:
		return 1 + rng.Uint64N(c), 1
	default:
		return pick(rng, 1, 2, max(c/2, 1), c-1, c, c+1), 1
	}
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// Tries is n in "make test", and ten times n where tests explore.
func Tries(n int) int {
	if explore.Long() {
		return 10 * n
	}
	return n
}

// All yields each schedule of so many calls, with these gaps and costs.
func All(calls int, gaps []time.Duration, costs []uint64) iter.Seq[Schedule] {
	return func(yield func(Schedule) bool) {
		kinds := len(gaps) * len(costs)
		all := 1
		for range calls {
			all *= kinds
		}
		for n := range all {
			var s Schedule
			for range calls {
				s = append(s, Call{Gap: gaps[n%kinds/len(costs)], Cost: costs[n%len(costs)], Times: 1})
				n /= kinds
			}
			if !yield(s) {
				return
			}
		}
	}
}
