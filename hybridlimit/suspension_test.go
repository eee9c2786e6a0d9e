package hybridlimit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The clocks of the process and on the wall are read one after the other, and anything may happen in between:
// the lock is taken, the scheduler gives the processor to another. That is no suspension, however often it
// happens; nor is a wall that is slewed or set back. Time that the process's clock has missed is one, in one
// piece or in several.
func TestBusyIsNotSuspended(t *testing.T) {
	const (
		window = int64(10 * time.Second)
		tick   = int64(50 * time.Millisecond)
		hour   = int64(time.Hour)
	)
	ppm := func(n int64) func(now int64) int64 { return func(now int64) int64 { return now / 1_000_000 * n } }
	jump := func(by time.Duration, times ...time.Duration) func(now int64) int64 {
		return func(now int64) (ahead int64) {
			for _, at := range times {
				if now >= int64(at) {
					ahead += int64(by)
				}
			}
			return ahead
		}
	}
	for _, test := range []struct {
		name    string
		ahead   func(now int64) int64      // of the wall, beyond the process's clock
		late    func(rnd *rand.Rand) int64 // between two readings
		resumed int
	}{
		{"nothing", ppm(0), nil, 0},
		{"2ms at every second look", ppm(0), func(rnd *rand.Rand) int64 { return int64(rnd.IntN(2)) * 2e6 }, 0},
		{"up to 100ms at every look", ppm(0), func(rnd *rand.Rand) int64 { return rnd.Int64N(100e6) }, 0},
		{"up to 20s at one look of a hundred", ppm(0), func(rnd *rand.Rand) int64 {
			if rnd.IntN(100) > 0 {
				return 0
			}
			return rnd.Int64N(20e9)
		}, 0},
		{"slewed forward", ppm(500), nil, 0},
		{"slewed back", ppm(-500), nil, 0},
		{"slewed forward on a busy machine", ppm(500), func(rnd *rand.Rand) int64 { return rnd.Int64N(100e6) }, 0},
		{"set back", jump(-time.Hour, time.Minute, 2*time.Minute), nil, 0},
		{"set back and forward a little", jump(3*time.Second, time.Minute), nil, 0},
		{"suspended for half a window", jump(5*time.Second+time.Millisecond, time.Minute), nil, 1},
		{"suspended for less", jump(5*time.Second-time.Millisecond, time.Minute), nil, 0},
		{"suspended for a day, twice", jump(24*time.Hour, time.Minute, 30*time.Minute), nil, 2},
		{"suspended again and again, for a second each time", jump(time.Second, 60e9, 61e9, 62e9, 63e9, 64e9, 65e9), nil, 1},
		{"suspended on a busy machine", jump(8*time.Second, time.Minute), func(rnd *rand.Rand) int64 { return rnd.Int64N(100e6) }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			var now int64
			s := &suspension{wall: func() int64 {
				if test.late != nil {
					now += test.late(rnd)
				}
				return now + test.ahead(now)
			}}
			s.ahead = s.wall() - now
			resumed := 0
			for now < hour {
				now += tick
				if s.ended(func() int64 { return now }, window) {
					resumed++
				}
			}
			if resumed != test.resumed {
				t.Errorf("taken for suspended %d times in an hour, want %d", resumed, test.resumed)
			}
		})
	}
}
