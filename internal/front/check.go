package front

import (
	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
)

// Check returns what is wrong with the options of that name that say who decides and by which rate, or nil. If a function decides, there
// must be neither.
func Check(options string, l trypema.Limiter, rate trypema.Rate, rateOf, decide bool) error {
	bad := func(format string, args ...any) error {
		return invalid.Errorf(trypema.ErrInvalidOptions, options+"."+format, args...)
	}
	switch {
	case decide && (l != nil || rate != 0 || rateOf):
		return bad("Decide is set, and Limiter, Rate or RateOf, too; they must be left out")
	case decide:
		return nil
	case l == nil:
		return bad("Limiter is nil; it must be the limiter that decides")
	case rate == 0 && !rateOf:
		return bad("Rate is 0 and RateOf is nil; one of them must be set")
	case rate != 0 && rateOf:
		return bad("Rate is %v and RateOf is set; one of them must be left out", float64(rate))
	case !(rate >= 0):
		return bad("Rate is %v; it must be above 0", float64(rate))
	}
	return nil
}
