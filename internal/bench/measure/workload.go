package measure

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
)

const (
	minSequence = 1 << 16
	maxSequence = 1 << 22
)

// workload is what the workers will ask for, made before the clock starts: the hot loop only walks it. Each
// worker has a sequence of its own, which it walks in circles.
type workload struct {
	keys      []string
	sequences [][]uint32 // indexes of keys; the length is a power of two
	hot       float64    // the part of the calls that goes to the first key
}

// newWorkload draws the sequences: hot of the calls go to the first key, the others evenly to the rest.
func newWorkload(keySpace, workers int, hot float64) *workload {
	w := &workload{keys: make([]string, keySpace), sequences: make([][]uint32, workers), hot: hot}
	for i := range w.keys {
		w.keys[i] = keyText(i)
	}
	// Long enough to touch nearly every key, and to be no pattern that a cache could learn.
	length := min(max(minSequence, 1<<bits.Len(uint(16*keySpace/workers))), maxSequence)
	for i := range w.sequences {
		rng := rand.New(rand.NewPCG(1, uint64(i))) // the same calls in every run
		s := make([]uint32, length)
		for j := range s {
			switch {
			case hot > 0 && (hot == 1 || keySpace == 1 || rng.Float64() < hot):
			case hot > 0:
				s[j] = 1 + rng.Uint32N(uint32(keySpace-1))
			default:
				s[j] = rng.Uint32N(uint32(keySpace))
			}
		}
		w.sequences[i] = s
	}
	return w
}

// keyText is the text of a key.
func keyText(number int) string { return fmt.Sprintf("user:%08d", number) }

// renumber makes the text of a key that of another one.
func renumber(text []byte, number uint32) {
	for i := len(text) - 1; i >= len("user:"); i-- {
		text[i] = '0' + byte(number%10)
		number /= 10
	}
}

// offered counts the calls for each key after each worker has made so many.
func (w *workload) offered(calls []uint64) []uint64 {
	counts := make([]uint64, len(w.keys))
	for i, n := range calls {
		s := w.sequences[i]
		length := uint64(len(s))
		if rounds := n / length; rounds > 0 {
			for _, key := range s {
				counts[key] += rounds
			}
		}
		for _, key := range s[:n%length] {
			counts[key]++
		}
	}
	return counts
}

// verify checks that the calls went where the flags say: the number of different keys, and of calls to the
// first one, are what the distribution predicts for as many independent draws, within what chance may add.
func (w *workload) verify(calls, counts []uint64) (touched, expected int, err error) {
	part := w.hot // of the calls, to the first key
	if w.hot == 0 || len(w.keys) == 1 {
		part = 1 / float64(len(w.keys))
	}
	var draws, total, variance, rounds float64
	for i, n := range calls {
		// A sequence is walked in circles, and what chance has put into it counts in each round.
		drawn := float64(min(n, uint64(len(w.sequences[i]))))
		repeated := math.Ceil(float64(n) / float64(len(w.sequences[i])))
		draws, total = draws+drawn, total+float64(n)
		variance += repeated * repeated * drawn * part * (1 - part)
		rounds = max(rounds, repeated)
	}
	for _, n := range counts {
		if n > 0 {
			touched++
		}
	}
	cold, others, first := draws*(1-w.hot), float64(len(w.keys)), 0.0
	if w.hot > 0 {
		others, first = others-1, 1
	}
	want, spread := first, 0.0
	if others > 0 && cold > 0 {
		load := cold / others
		missed := math.Exp(-load)
		want += others * (1 - missed)
		// of the keys missed, and of how many draws are cold
		spread = others*missed*(1-(1+load)*missed) + missed*missed*cold*w.hot
	}
	expected = int(math.Round(want))
	if math.Abs(float64(touched)-want) > byChance(spread, 1)+1 {
		return touched, expected, fmt.Errorf("%d different keys were called, the distribution predicts %d",
			touched, expected)
	}
	if predicted := part * total; math.Abs(float64(counts[0])-predicted) > byChance(variance, rounds)+1 {
		return touched, expected, fmt.Errorf("%d of the calls went to the first key, "+
			"the distribution predicts %.0f", counts[0], predicted)
	}
	return touched, expected, nil
}

// byChance is how far a sum of independent values may lie from its mean, given its variance and by how much a
// value may be above its own mean. By the inequality of Bennett it lies further away less than once in 10⁸
// times, also in a run with few calls. The number of empty bins is such a sum, too (Vatutin and Mikhailov,
// 1982).
func byChance(variance, most float64) float64 {
	const unlikely = 19.2           // ln(2 × 10⁸)
	variance = max(variance, 1e-12) // which a subtraction may have made negative
	beyond := func(far float64) bool {
		u := far * most / variance
		return variance/(most*most)*((1+u)*math.Log1p(u)-u) > unlikely
	}
	low, high := 0.0, most
	for !beyond(high) {
		low, high = high, 2*high
	}
	for range 40 {
		if middle := (low + high) / 2; beyond(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}
