package sim

import "time"

// shape is how the load goes over time.
type shape struct {
	name             string
	window, duration int64
	base             float64 // the load while it is not at its height
}

const (
	steady = "steady"
	step   = "step"
	spike  = "spike"
	onOff  = "on-off"
)

var shapes = []string{steady, step, spike, onOff}

const baseLoad = 0.5 // of step and spike

func newShape(name string, window, duration time.Duration) shape {
	s := shape{name: name, window: int64(window), duration: int64(duration)}
	if name == step || name == spike {
		s.base = baseLoad
	}
	return s
}

// at returns the load at an instant, as a multiple of the limit, when it is so much at its height.
func (s shape) at(now int64, height float64) float64 {
	high := true
	switch s.name {
	case step:
		high = now >= s.duration/3
	case spike:
		high = now >= s.duration/2 && now < s.duration/2+s.window/2
	case onOff:
		high = now/s.window%2 == 0
	}
	if high {
		return height
	}
	return s.base
}
