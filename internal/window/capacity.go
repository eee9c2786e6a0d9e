package window

import "math"

// MaxCapacity bounds every capacity, so that sums of two counts can not wrap.
const MaxCapacity = math.MaxInt64

// Capacity returns how many events one window of so many seconds may hold: the whole part of the product, or
// that above it if the product is within one part in 10¹⁵ of that; at most MaxCapacity. It returns 0 for a
// rate that is not a positive number, or too low for one event.
func Capacity(perSecond, seconds float64) uint64 {
	x := perSecond * seconds
	if !(x > 0 && perSecond <= math.MaxFloat64) { // NaN fails every comparison
		return 0
	}
	if x >= MaxCapacity {
		return MaxCapacity
	}
	return uint64(x + min(x*1e-15, 0.25))
}
