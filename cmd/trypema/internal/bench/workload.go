package bench

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

// workload is what the workers will ask for, made before the clock starts: the hot loop only walks it. Each worker has
// a sequence of its own, which it walks in circles.
type workload struct {
	keys      []string
	sequences [][]uint32 // indexes of keys; the length is a power of two
	hot       float64    // the part of the calls that goes to the first key
}

// newWorkload draws the sequences: hot of the calls go to the first key, the others evenly to the rest.
func newWorkload(keySpace, workers int, hot float64) *workload {
	w := &workload{keys: make([]string, keySpace), sequences: make([][]uint32, workers), hot: hot}
	for i := range w.keys {
		w.keys[i] = fmt.Sprintf("user:%08d", i)
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

// offered counts the calls for each key after each worker has made so many.
func (w *workload) offered(calls []uint64) []uint64 {
	counts := make([]uint64, len(w.keys))
	for i, n := range calls {
		length := uint64(len(w.sequences[i]))
		rounds, rest := n/length, n%length
		for j, key := range w.sequences[i] {
			counts[key] += rounds
			if uint64(j) < rest {
				counts[key]++
			}
		}
	}
	return counts
}

// verify checks that the calls went where the flags say: the number of different keys, and the part of the first one,
// are what the distribution predicts for as many independent draws, within six standard deviations.
func (w *workload) verify(calls, counts []uint64) (touched, expected int, err error) {
	var draws, total float64
	for i, n := range calls {
		draws += float64(min(n, uint64(len(w.sequences[i]))))
		total += float64(n)
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
	want, sigma := first, 0.0
	if others > 0 && cold > 0 {
		load := cold / others
		missed := math.Exp(-load)
		want += others * (1 - missed)
		sigma = math.Sqrt(others * missed * (1 - (1+load)*missed))
	}
	expected = int(math.Round(want))
	if math.Abs(float64(touched)-want) > 6*sigma+1 {
		return touched, expected, fmt.Errorf("%d different keys were called, the distribution predicts %d", touched, expected)
	}
	share := float64(counts[0]) / total
	predicted := max(w.hot, 1/float64(len(w.keys)))
	if w.hot < 1 && math.Abs(share-predicted) > 6*math.Sqrt(predicted*(1-predicted)/draws)+1/total {
		return touched, expected, fmt.Errorf("%.4f of the calls went to the first key, the distribution predicts %.4f", share, predicted)
	}
	return touched, expected, nil
}
