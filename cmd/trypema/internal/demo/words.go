package demo

import (
	"fmt"
	"math"
	"time"
)

// The tones of a verdict.
const (
	fine    = "fine"
	over    = "over" // above the limit
	neutral = "neutral"
)

// standing is how a lane stands, since limit or load changed.
type standing struct {
	strategy  string
	peer      bool
	away      bool // it needs Redis, which is unavailable
	instances int
	hard      float64 // factor of the hard limit
	fullest   uint64  // in any window
	capacity  uint64
	bound     uint64
	average   float64 // admitted, of the limit, over whole windows; NaN before there is one
	asked     float64 // the same of what was offered
	declined  uint64
	bursts    bool // what counts is the fullest window
	pause     time.Duration
}

// verdict is the standing in words, and its tone.
func (x standing) verdict() (text, tone string) {
	above := x.fullest > x.bound
	fullest := fmt.Sprintf("%.2f × the limit in its fullest window", float64(x.fullest)/float64(x.capacity))
	switch {
	case above && x.peer:
		return fullest, over
	case above:
		return fmt.Sprintf("Above the limit: %d in a window that allows %d", x.fullest, x.bound), over
	case x.away && x.instances == 1:
		return "Redis is unavailable: the instance holds the limit by itself", neutral
	case x.away:
		return "Redis is unavailable: each instance holds its share", neutral
	case math.IsNaN(x.average):
		return "The first window is not over yet", neutral
	case x.asked == 0:
		return "No calls", neutral
	case x.declined == 0:
		return fmt.Sprintf("%.2f × the limit is asked for, and admitted", x.asked), fine
	}
	if x.bursts {
		text = fullest
		if x.strategy == suppressed && x.hard > 1 {
			text += fmt.Sprintf(", which may have %g ×", x.hard)
		}
		return text, toneOf(x)
	}
	never := "never above"
	switch {
	case x.peer:
		never = "not above so far"
	case x.strategy == suppressed && x.hard > 1:
		never = fmt.Sprintf("never above %g ×", x.hard)
	}
	text = fmt.Sprintf("%.2f × the limit, %s, longest pause %s", x.average, never, seconds(x.pause))
	return text, toneOf(x)
}

// toneOf is that of a limiter that is not above the limit, which others promise only until they are.
func toneOf(x standing) string {
	if x.peer {
		return neutral
	}
	return fine
}

// seconds is a time with one decimal, and no line breaks before its unit.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f\u00a0s", d.Seconds()) }

// averages are what was admitted and what was offered, of the limit, over the last whole windows of what is
// shown; NaN where there is none. A change of the limit begins again.
func averages(series []sample, moments []moment, k knobs) (admitted, offered float64) {
	var took time.Duration
	var in, all uint64
	admitted, offered = math.NaN(), math.NaN()
	window := k.options().Window
	whole := window // how long is enough for the next whole window
	for i := len(series) - 1; i >= 0; i-- {
		if moments[i].since != moments[len(moments)-1].since || moments[i].resting {
			break
		}
		took += series[i].took
		in += series[i].admitted
		all += series[i].admitted + series[i].declined
		if took >= whole {
			whole = (took/window + 1) * window
			capacity := k.Limit * took.Seconds()
			admitted, offered = float64(in)/capacity, float64(all)/capacity
		}
	}
	return admitted, offered
}
