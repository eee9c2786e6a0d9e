package model

import (
	"encoding/binary"
	"math/rand/v2"
)

// Tape turns bytes into choices: the same bytes are the same run, so that a failure replays and a fuzzer can
// search.
type Tape struct{ Data []byte }

// Next returns the next byte, 0 when the tape is over.
func (t *Tape) Next() (b byte) {
	if len(t.Data) > 0 {
		b, t.Data = t.Data[0], t.Data[1:]
	}
	return b
}

// Text returns the next bytes, at most n.
func (t *Tape) Text(n int) (text string) {
	n = min(n, len(t.Data))
	text, t.Data = string(t.Data[:n]), t.Data[n:]
	return text
}

// Pick chooses one of the values by the next byte.
func Pick[T any](t *Tape, values ...T) T { return values[int(t.Next())%len(values)] }

// Noise returns at least n random bytes.
func Noise(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, seed))
	var data []byte
	for len(data) < n {
		data = binary.LittleEndian.AppendUint64(data, rng.Uint64())
	}
	return data
}
