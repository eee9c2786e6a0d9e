package demo

import (
	"math"
	"time"
)

// The shapes that load has over time.
const (
	steady = "steady"
	step   = "step"
	spike  = "spike"
	sine   = "sine"
	onOff  = "on-off"
	edge   = "edge"
	greedy = "greedy" // one client asks for most, and the others politely for little
)

var shapes = []string{steady, step, spike, sine, onOff, greedy, edge}

const (
	calm       = 0.5 // of the limit: before a step, between spikes, and of all polite clients
	stepAfter  = 4 * time.Second
	spikeEvery = 10 * time.Second
	spikeFor   = 1500 * time.Millisecond
	sinePeriod = 10 * time.Second
	turns      = 3 * time.Second // of on and off

	// The period of edge, in windows: calls come from a quarter of a window before its end to the end of the
	// next one.
	edgePeriod = 3
)

// loadAt is the load, of the limit, so long after the shape or the load was chosen, when it is so much at its
// height. For edge it is the time since the clock passed a multiple of the period.
func loadAt(shape string, t time.Duration, height float64, window time.Duration) float64 {
	low := min(calm, height)
	switch shape {
	case step:
		if t < stepAfter {
			return low
		}
	case spike:
		if t%spikeEvery >= spikeFor {
			return low
		}
	case sine:
		return height * (1 - math.Cos(2*math.Pi*t.Seconds()/sinePeriod.Seconds())) / 2
	case edge:
		if t < window-window/4 || t >= 2*window {
			return 0
		}
	case onOff:
		if t/turns%2 == 1 {
			return 0
		}
	}
	return height
}

// callers are the clients, the last of whom is the greedy one.
var callers = []string{"ada", "bob", "cleo", "dan", "greta"}

// caller is who makes a call, of a load, when x is drawn evenly from 0 to 1.
func caller(shape string, load, x float64) int {
	polite := float64(len(callers) - 1)
	if shape != greedy || load <= calm {
		return int(x * float64(len(callers)))
	}
	if at := x * load / calm; at < 1 {
		return int(at * polite)
	}
	return len(callers) - 1
}
