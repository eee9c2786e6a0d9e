package replay

import (
	"cmp"
	"slices"
	"time"
)

// order holds lines back until no earlier one can come, and hands them on by their time. Servers write a line
// when a request ends, and some with the time when it began: such a line is late by as long as the request
// took.
//
// Lines lie in a ring of slots of equal length. A line costs what it takes to copy it to the end of its slot.
// A slot is sorted when it is handed on, if one of its lines is late.
type order struct {
	see func(*line)

	width  int64 // of a slot, in ns; 0 if no line is held back
	slots  [ringLen]batch
	newest int64 // number of the newest slot; the oldest that may hold lines is ringLen-1 before it
	held   int   // lines in all slots
	most   int   // of these; with more, the oldest are handed on early
	latest int64 // time of a line
	sorted uint64
	turns  []int // in which the lines of a slot are handed on
}

const (
	ringLen = 65
	maxHeld = 1 << 20 // lines
)

func newOrder(by time.Duration, see func(*line)) *order {
	return &order{see: see, most: maxHeld, width: (int64(by) + ringLen - 2) / (ringLen - 1)}
}

// add takes a line. One that is late by more than the ring is long is handed on at once.
func (o *order) add(l *line) {
	if o.width == 0 {
		o.see(l)
		return
	}
	number := l.at / o.width
	if number <= o.newest-ringLen {
		o.see(l)
		return
	}
	if l.at < o.latest {
		o.sorted++
	}
	o.latest = max(o.latest, l.at)
	o.advance(number)
	o.slots[number%ringLen].add(l)
	for o.held++; o.held > o.most; {
		o.advance(o.newest + 1)
	}
}

// advance makes a slot the newest, if it is newer than all, and hands on those that are then too old.
func (o *order) advance(number int64) {
	for turn := 0; o.newest < number && turn < ringLen; turn++ {
		o.newest++
		o.hand(&o.slots[o.newest%ringLen])
	}
	o.newest = max(o.newest, number)
}

// flush hands on all lines that are held back.
func (o *order) flush() { o.advance(o.newest + ringLen) }

// hand hands on the lines of a slot.
func (o *order) hand(b *batch) {
	o.held -= len(b.at)
	o.turns = o.turns[:0]
	for i := range b.at {
		o.turns = append(o.turns, i)
	}
	if !slices.IsSorted(b.at) {
		slices.SortStableFunc(o.turns, func(i, j int) int { return cmp.Compare(b.at[i], b.at[j]) })
	}
	for _, i := range o.turns {
		o.see(&line{at: b.at[i], key: b.key(i)})
	}
	b.clear()
	if cap(b.at) > 2*o.most/ringLen {
		*b = batch{} // a burst does not keep its memory
	}
}
