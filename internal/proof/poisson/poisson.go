// Package poisson says when calls are due, whether or not the callers can keep up.
package poisson

import (
	"math/rand/v2"
	"time"
)

// Process is a Poisson process: its instants are independent of each other, as those of many independent
// callers are.
type Process struct {
	mean float64 // nanoseconds
	due  time.Duration
}

// New returns a process of so many instants per second, from 0 on.
func New(perSecond float64) *Process {
	p := &Process{mean: float64(time.Second) / perSecond}
	p.Next()
	return p
}

// Due is the instant of the next arrival.
func (p *Process) Due() time.Duration { return p.due }

// Next goes on to the arrival after that.
func (p *Process) Next() { p.due += time.Duration(rand.ExpFloat64() * p.mean) }

// SkipTo passes over the arrivals before now, and returns their number.
func (p *Process) SkipTo(now time.Duration) (skipped uint64) {
	for ; p.due < now; p.Next() {
		skipped++
	}
	return skipped
}
