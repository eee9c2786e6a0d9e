// Package deadline sets the deadlines of busy connections seldom. To set one for each request costs about a
// twentieth of a small request.
package deadline

import "time"

// Slack is how much later than asked for a deadline may be. A busy connection sets one once in that time.
const Slack = time.Second

// Move sets a deadline that is at least so far away, or none for 0, unless by, the one that is set, will do.
func Move(by *time.Time, after time.Duration, set func(time.Time) error) error {
	if after == 0 {
		if by.IsZero() {
			return nil
		}
		*by = time.Time{}
		return set(*by)
	}
	first := time.Now().Add(after)
	last := first.Add(Slack)
	if by.Before(first) || by.After(last) {
		*by = last
		return set(*by)
	}
	return nil
}
