// Package pertime reads and writes numbers per time as people write them: 10/s, 1000/h, 5/15m, 20/7d.
package pertime

import (
	"strconv"
	"strings"
	"time"
)

const (
	day     = 24 * time.Hour
	maxDays = 36500

	// Max is the longest time that Duration reads.
	Max = maxDays * day
)

// Rule says what Parse reads, for errors.
const Rule = "a number per time, as in 10/s, 1000/h, 20/d or 5/15m"

// Parse reads a number per time. It reports false for anything else, signs and exponents included.
func Parse(s string) (n float64, per time.Duration, ok bool) {
	number, unit, _ := strings.Cut(s, "/")
	if unit != "" && !digits(unit[:1]) {
		unit = "1" + unit // 10/s is 10/1s
	}
	per, ok = Duration(unit)
	whole, part, dot := strings.Cut(number, ".")
	n, err := strconv.ParseFloat(number, 64)
	return n, per, ok && err == nil && digits(whole) && (digits(part) || !dot)
}

// Format writes what Parse reads as the same number and time.
func Format(n float64, per time.Duration) string {
	unit := FormatDuration(per)
	if len(unit) == 2 && unit[0] == '1' {
		unit = unit[1:]
	}
	return strconv.FormatFloat(n, 'f', -1, 64) + "/" + unit
}

// Duration reads a duration as Go writes it, or with a number of days before that: 500ms, 1h30m, 7d, 1d12h.
// It reports false unless the duration is from 1ms to Max.
func Duration(s string) (time.Duration, bool) {
	var d time.Duration
	if days, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || !digits(days) || n > maxDays {
			return 0, false
		}
		d, s = time.Duration(n)*day, rest
		if s == "" {
			s = "0s"
		}
	}
	if s == "" || !digits(s[:1]) {
		return 0, false
	}
	rest, err := time.ParseDuration(s)
	if err != nil {
		return 0, false
	}
	d += rest
	return d, d >= time.Millisecond && d <= Max
}

// FormatDuration writes a duration without parts that are zero: 1m, not 1m0s. Whole days are days.
func FormatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if d > 0 && d%time.Minute == 0 {
		s = strings.TrimSuffix(s, "0s")
	}
	if d > 0 && d%time.Hour == 0 {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// digits reports whether there is nothing but digits, and at least one.
func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
