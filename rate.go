package trypema

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/pertime"
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

// String returns the rate in the unit in which people would write it: 100/s, 5/m, or 20/d.
func (r Rate) String() string {
	f := float64(r)
	switch {
	case r == Unlimited:
		return "unlimited"
	case math.IsNaN(f), math.IsInf(f, 0):
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	for _, unit := range []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		n := f * unit.Seconds()
		short := math.Round(n*1000) / 1000
		if math.Abs(n) >= 1 && math.Abs(n) < 1e15 && math.Abs(n-short) <= 1e-12*math.Abs(n) {
			return pertime.Format(short, unit)
		}
	}
	return strconv.FormatFloat(f, 'g', -1, 64) + "/s"
}

// ParseRate reads a rate as text: 100/s, 0.5/m, 5/15m, 20/d, or unlimited. The error names the text and the
// rule.
func ParseRate(s string) (Rate, error) {
	if s == "unlimited" {
		return Unlimited, nil
	}
	n, per, ok := pertime.Parse(s)
	if !ok { // as String writes what is no round number in any unit
		number, per := strings.CutSuffix(s, "/s")
		f, err := strconv.ParseFloat(number, 64)
		ok = per && err == nil
		if r := Rate(f); ok && r > 0 && r <= Unlimited {
			return r, nil
		}
	}
	if r := Per(n, per); ok && r > 0 && r <= Unlimited {
		return r, nil
	}
	return 0, invalid.Errorf(ErrInvalidRate, "rate is %q; it must be %s and above 0, or unlimited", s, pertime.Rule)
}

// MarshalText writes what ParseRate reads as the same rate, or one within a part in 10¹² of it.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRate. It leaves the rate as it is if the text is wrong.
func (r *Rate) UnmarshalText(text []byte) error {
	read, err := ParseRate(string(text))
	if err == nil {
		*r = read
	}
	return err
}

func rateError(r Rate, w time.Duration) error {
	switch f := float64(r); {
	case math.IsNaN(f):
		return invalid.Errorf(ErrInvalidRate, "rate is NaN; it must be a number of events per second above 0")
	case math.IsInf(f, 0):
		return invalid.Errorf(ErrInvalidRate, "rate is %v; it must be finite, or Unlimited", f)
	case f <= 0:
		return invalid.Errorf(ErrInvalidRate, "rate is %v; it must be above 0", r)
	default:
		return invalid.Errorf(ErrInvalidRate,
			"rate is %v, less than one event in a window of %v; raise the rate or lengthen the window", r, w)
	}
}
