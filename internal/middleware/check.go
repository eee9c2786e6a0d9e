package middleware

import (
	"math"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
)

// Check returns what is wrong with the options of that name that say who decides and by which rate, or nil.
// If a function decides, there must be neither.
func Check(options string, l trypema.Limiter, rate trypema.Rate, rateOf, decide bool) error {
	bad := func(format string, args ...any) error {
		return invalid.Errorf(trypema.ErrInvalidOptions, options+"."+format, args...)
	}
	switch {
	case decide && (l != nil || rate != 0 || rateOf):
		return bad("Decide is set, and Limiter, Rate or RateOf, too; they must be left out")
	case decide:
		return nil
	case invalid.Nil(l):
		return bad("Limiter is nil; it must be the limiter that decides")
	case rate == 0 && !rateOf:
		return bad("Rate is 0 and RateOf is nil; one of them must be set")
	case rate != 0 && rateOf:
		return bad("Rate is %v and RateOf is set; one of them must be left out", float64(rate))
	case rateOf:
		return nil
	}
	return CheckRate(options, l, rate)
}

// CheckRate returns what is wrong with the Rate of the options of that name, which is that of every call to a
// limiter, or nil. A limiter of ours says how long its window is, so that a rate is refused here, and not at
// each call, if nothing fits into the window.
func CheckRate(options string, l trypema.Limiter, rate trypema.Rate) error {
	bad := func(format string, args ...any) error {
		return invalid.Errorf(trypema.ErrInvalidOptions, options+".Rate is "+format, args...)
	}
	switch {
	case !(rate > 0):
		return bad("%v; it must be above 0", float64(rate))
	case math.IsInf(float64(rate), 0):
		return bad("%v; it must be finite, or trypema.Unlimited", float64(rate))
	}
	if windowed, ok := l.(interface{ Window() time.Duration }); ok {
		if _, err := rate.Capacity(windowed.Window()); err != nil {
			return bad("%v, less than one event in the limiter's window of %v; raise the rate or lengthen the window", rate, windowed.Window())
		}
	}
	return nil
}
