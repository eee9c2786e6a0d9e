package report

import (
	"fmt"
	"slices"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/screen"
)

func nanoseconds(x float64) string { return screen.Nanoseconds(int64(x)) }
func perSecond(x float64) string   { return screen.PerSecond(x) }

// spread writes the median of values with the least and the greatest of them.
func spread(values []float64, write func(float64) string) string {
	if len(values) == 0 {
		return "–"
	}
	low, high := slices.Min(values), slices.Max(values)
	if write(low) == write(high) {
		return write(low)
	}
	return fmt.Sprintf("%s (%s – %s)", write(median(values)), write(low), write(high))
}

func milliseconds(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }
