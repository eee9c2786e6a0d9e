package hybridlimit

import "time"

// suspension finds out that the machine was suspended. The process's clock stands still then, so a lease
// would be used when the ledger does not charge it any more. The wall clock goes on: after a suspension it is
// ahead by more than before.
//
// The two clocks cannot be read at once, and the goroutine may stop between the readings for any time. So the
// process's clock is read first, which can only make the wall look ahead; only the least of all readings
// counts; and several readings in a row must agree. A wall clock that is set forward costs a lease. One that
// is set back costs nothing.
type suspension struct {
	wall  func() int64 // ns
	ahead int64        // by how much the wall is ahead without a suspension; it follows the wall slowly
	read  int64        // when the wall was read last
	lost  int64        // how much further ahead the wall was then
}

const (
	wallSlew = 256 // as a divisor: by how much the wall may be faster without a suspension
	readings = 3   // of the wall that must agree
)

func (s *suspension) init(now int64) {
	s.wall = func() int64 { return time.Now().UnixNano() }
	s.read = now
	s.ahead = s.wall() - now
}

// ended reports whether the machine was suspended for half a window or more since it last did. What a shorter
// suspension leaves on lease is still charged, and settles before that ends.
func (s *suspension) ended(now func() int64, window int64) bool {
	for range readings {
		if s.measure(now()); s.lost < window/2 {
			return false
		}
	}
	s.ahead, s.lost = s.ahead+s.lost, 0
	return true
}

// measure reads the wall clock. The process's clock must have been read just before, as now.
func (s *suspension) measure(now int64) {
	ahead := s.wall() - now
	s.ahead = min(s.ahead+(now-s.read)/wallSlew, ahead)
	s.read, s.lost = now, ahead-s.ahead
}
