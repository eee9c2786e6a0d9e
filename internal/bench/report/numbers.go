package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trypema/trypema/internal/bench/measure"
	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/screen"
)

func nanoseconds(x float64) string { return screen.Nanoseconds(int64(x)) }

// ours reports whether a limiter, or what a row is called, is Trypema in Go.
func ours(name string) bool { return strings.HasPrefix(name, peer.Ours) }

// spread writes the median of values with the least and the greatest of them.
func spread(values []float64, write func(float64) string) string {
	if len(values) == 0 {
		return "–"
	}
	low, high := slices.Min(values), slices.Max(values)
	if write(low) == write(high) {
		return write(low)
	}
	return fmt.Sprintf("%s (%s – %s)", write(measure.Median(values)), write(low), write(high))
}

// unique returns each text once, in the order in which they were first there.
func unique(all []string) (once []string) {
	for _, s := range all {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}
