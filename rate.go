package trypema

import (
	"math"
	"time"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/window"
)

// Rate is a number of events per second. It need not be whole: 0.5 is one event every two seconds.
type Rate float64

// Unlimited is a rate that is never reached in practice. Events are still counted.
const Unlimited Rate = math.MaxFloat64

// PerSecond is n events per second.
func PerSecond(n float64) Rate { return Rate(n) }

// PerMinute is n events per minute.
func PerMinute(n float64) Rate { return Rate(n / 60) }

// PerHour is n events per hour.
func PerHour(n float64) Rate { return Rate(n / 3600) }

// PerDay is n events per 24 hours.
func PerDay(n float64) Rate { return Rate(n / 86400) }

// Per is n events per d. A d of zero or less gives a rate that every verb refuses with ErrInvalidRate.
func Per(n float64, d time.Duration) Rate {
	if d <= 0 {
		return Rate(math.NaN())
	}
	return Rate(n / d.Seconds())
}

// Capacity is how much cost one window may hold at this rate: the whole part of rate × window, at most 2⁶³−1.
// A product within one part in 10¹⁵ below a whole number is that number, so that PerHour(1000) over an hour
// is 1000 although the division was rounded. It is ErrInvalidRate when the rate is not a positive number, or
// when less than one event fits into the window.
func (r Rate) Capacity(w time.Duration) (uint64, error) {
	c := window.Capacity(float64(r), w.Seconds())
	if c == 0 {
		return 0, rateError(r, w)
	}
	return c, nil
}

func rateError(r Rate, w time.Duration) error {
	switch f := float64(r); {
	case math.IsNaN(f):
		return invalid.Errorf(ErrInvalidRate, "rate is NaN; it must be a number of events per second above 0")
	case math.IsInf(f, 0):
		return invalid.Errorf(ErrInvalidRate, "rate is %v; it must be finite, or Unlimited", f)
	case f <= 0:
		return invalid.Errorf(ErrInvalidRate, "rate is %v per second; it must be above 0", f)
	default:
		return invalid.Errorf(ErrInvalidRate,
			"rate is %v per second, less than one event in a window of %v; raise the rate or lengthen Options.Window",
			f, w)
	}
}
