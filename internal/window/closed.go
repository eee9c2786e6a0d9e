package window

import (
	"math/bits"
	"sort"

	"github.com/trypema/trypema/internal/table/slab"
)

// group is a closed group: no event will join it.
type group struct {
	last int64  // its last event
	upto Counts // running counts up to its end
}

// Groups is the memory in which windows keep their closed groups. Windows that share it share one lock.
type Groups struct{ slab.Slab[uint64] }

// closed is the closed groups of a window, oldest first: some of the oldest at hand, then a ring in a block,
// then some of the newest at hand. Unless it is empty there is one at hand before the ring. With many keys
// the ring is in no cache; a window in which every event closes a group and expires one looks at it once in
// atHand events, and not twice in each.
//
// A group is one word while it can be: the low bits of the instant, as many as tell apart the instants of two
// windows, above the low bits of the admitted events. The rest of the instant follows from the last event of
// the window, the rest of the counts from what is gone. For that, these hold of every group in one word:
//
//   - it is less than two windows older than the last event, and
//   - since what is gone, up to its end, less than 1<<short were admitted, and none declined. With a window
//     of 10 s these are 29 bits, of a day 16, of 30 days 11.
//
// Who would break that widens all groups first, to three words each. They stay so until there are none.
type closed struct {
	// Upwards, the newest first, those before the ring; downwards from the end, the oldest first, those after
	// it.
	hand  [atHand]uint64
	block slab.Ref
	head  uint32 // where in the block the ring begins, in groups
	n     uint32 // groups in all
	front uint8  // groups at hand before the ring
	back  uint8  // and after it
	class uint8  // of the block
	short uint8  // bits for the admitted events in a group of one word; 0 if all have three
}

const (
	atHand     = 3 // words
	wide       = 3 // words of a group that does not fit into one
	leastClass = 2 // of a block
)

// size is the number of words of a group.
func (q *closed) size() int {
	if q.short == 0 {
		return wide
	}
	return 1
}

// ring is the number of groups in the ring.
func (q *closed) ring() int { return int(q.n) - int(q.front) - int(q.back) }

// limit is the number of groups that the block holds.
func (q *closed) limit() int {
	switch {
	case q.block == 0:
		return 0
	case q.short == 0:
		return 1 << q.class / wide
	default:
		return 1 << q.class
	}
}

// inRing returns where the i-th oldest group of the ring is, or is to be.
func (q *closed) inRing(g *Groups, i int) []uint64 {
	if i += int(q.head); i >= q.limit() {
		i -= q.limit()
	}
	size := q.size()
	return g.Block(q.block, q.class)[i*size:][:size]
}

// inFront returns where the i-th oldest of the groups before the ring is.
func (q *closed) inFront(i int) []uint64 {
	size := q.size()
	return q.hand[(int(q.front)-1-i)*size:][:size]
}

// inBack returns where the i-th oldest of the groups after the ring is.
func (q *closed) inBack(i int) []uint64 {
	size := q.size()
	return q.hand[atHand-(i+1)*size:][:size]
}

// at returns where the i-th oldest group is.
func (q *closed) at(g *Groups, i int) []uint64 {
	if i < int(q.front) {
		return q.inFront(i)
	}
	i -= int(q.front)
	if ring := q.ring(); i >= ring {
		return q.inBack(i - ring)
	}
	return q.inRing(g, i)
}

// closedAt returns the i-th oldest closed group.
func (w *Window) closedAt(g *Groups, i int) group { return w.unpack(w.at(g, i)) }

func (w *Window) unpack(x []uint64) group {
	if w.short == 0 {
		return group{int64(x[0]), Counts{x[1], x[2]}}
	}
	return group{w.instant(x[0]), Counts{w.gone.Admitted + w.low(x[0]-w.gone.Admitted), w.gone.Declined}}
}

func (w *Window) pack(x []uint64, c group) {
	if w.short == 0 {
		x[0], x[1], x[2] = uint64(c.last), c.upto.Admitted, c.upto.Declined
		return
	}
	x[0] = uint64(c.last)<<(w.short&63) | w.low(c.upto.Admitted)
}

// low returns the low bits of admitted events, as many as a word has.
func (q *closed) low(admitted uint64) uint64 { return admitted & (1<<(q.short&63) - 1) }

// instant returns the last event of a group of one word.
func (w *Window) instant(word uint64) int64 {
	short := w.short & 63
	age := (uint64(w.last)<<short - word&^(1<<short-1)) >> short
	return w.last - int64(age)
}

// oldest returns the last event of the oldest group.
func (w *Window) oldest() int64 {
	switch {
	case w.n == 0:
		return w.last
	case w.short == 0:
		return int64(w.hand[0])
	default:
		return w.instant(w.hand[(w.front-1)%atHand])
	}
}

// fit sees to it that closed groups can hold so many events since what is gone.
func (w *Window) fit(g *Groups, c Counts) {
	if w.short > 0 && (c.Declined > 0 || c.Admitted>>w.short > 0) {
		w.widen(g)
	}
}

// widen gives each group three words.
func (w *Window) widen(g *Groups) {
	old := *w
	w.closed = closed{}
	for i := range int(old.n) {
		w.push(g, old.closedAt(g, i))
	}
	old.release(g)
}

// close moves the newest group among the closed ones. An event at next has followed it.
func (w *Window) close(g *Groups, s Span, next int64) {
	if w.n == 0 {
		w.short = uint8(bits.LeadingZeros64(uint64(s.Window))) - 1
	}
	if w.short > 0 && next-w.oldest() >= s.Window { // it was not seen to that what has expired is gone
		w.widen(g)
	}
	w.fit(g, w.Counts())
	w.push(g, group{w.last, w.upto})
}

// push makes a group the newest closed one.
func (w *Window) push(g *Groups, c group) {
	room := atHand / w.size()
	switch {
	case w.n == 0:
		w.front = 1
		w.pack(w.inFront(0), c)
	case int(w.front+w.back) < room:
		w.pack(w.inBack(int(w.back)), c)
		w.back++
	case w.back > 0:
		w.flush(g)
		w.pack(w.inBack(0), c)
		w.back = 1
	default:
		w.reserve(g, 1)
		w.pack(w.inRing(g, w.ring()), c)
	}
	w.n++
}

// insert makes a group the i-th oldest closed one. It must be as old as that, and less than a window older
// than the last event.
func (w *Window) insert(g *Groups, s Span, i int, c group) {
	if w.n == 0 {
		w.short = uint8(bits.LeadingZeros64(uint64(s.Window))) - 1
	}
	w.fit(g, c.upto.minus(w.gone))
	n := int(w.n)
	if i == n {
		w.push(g, c)
		return
	}
	w.push(g, w.closedAt(g, n-1))
	for j := n - 1; j > i; j-- {
		w.pack(w.at(g, j), w.closedAt(g, j-1))
	}
	w.pack(w.at(g, i), c)
}

// flush moves the groups after the ring into it.
func (q *closed) flush(g *Groups) {
	q.reserve(g, int(q.back))
	end := q.ring()
	for i := range int(q.back) {
		copy(q.inRing(g, end+i), q.inBack(i))
	}
	q.back = 0
}

// reserve sees to it that the ring has room for so many groups more.
func (q *closed) reserve(g *Groups, more int) {
	for q.ring()+more > q.limit() {
		q.rehouse(g, g, max(leastClass, q.class+1))
	}
}

// rehouse moves the ring into a block of another class, possibly in other memory.
func (q *closed) rehouse(from, to *Groups, class uint8) {
	block := to.Alloc(class)
	words := to.Block(block, class)
	for i := range q.ring() {
		words = words[copy(words, q.inRing(from, i)):]
	}
	if q.block != 0 {
		from.Free(q.block, q.class)
	}
	q.block, q.class, q.head = block, class, 0
}

// Move takes the closed groups from one memory to another.
func (q *closed) Move(from, to *Groups) {
	if q.block != 0 {
		q.rehouse(from, to, q.class)
	}
}

// drop removes the k oldest groups.
func (q *closed) drop(g *Groups, k int) {
	ring := q.ring()
	q.n -= uint32(k)
	if k < int(q.front) {
		q.front -= uint8(k)
		return
	}
	k -= int(q.front)
	q.front = 0
	skipped := min(k, ring)
	q.skip(skipped)
	if ring > skipped {
		q.flush(g)
		q.fetch(g)
	} else { // what is left is after the ring
		size := q.size()
		left := q.hand[atHand-int(q.back)*size : atHand-(k-skipped)*size]
		q.front, q.back = q.back-uint8(k-skipped), 0
		copy(q.hand[:], left)
	}
	if words := q.ring() * q.size(); q.class > leastClass && words < 1<<q.class/4 {
		q.rehouse(g, g, max(leastClass, slab.Class(words+wide)))
	}
}

// fetch moves as many groups as there is room for from the ring to before it. There must be none after it.
func (q *closed) fetch(g *Groups) {
	q.front = uint8(min(q.ring(), atHand/q.size()))
	for i := range int(q.front) {
		copy(q.inFront(i), q.inRing(g, i))
	}
	q.skip(int(q.front))
}

// skip moves the beginning of the ring.
func (q *closed) skip(k int) {
	if q.head += uint32(k); int(q.head) >= q.limit() {
		q.head -= uint32(q.limit())
	}
}

// truncate removes all but the n oldest groups.
func (q *closed) truncate(n int) {
	front, size := int(q.front), q.size()
	if n < front {
		copy(q.hand[:], q.hand[(front-n)*size:front*size])
		front = n
	}
	q.back = uint8(max(0, n-front-q.ring()))
	q.front, q.n = uint8(front), uint32(n)
}

// release gives the memory back. There are no groups then.
func (q *closed) release(g *Groups) {
	if q.block != 0 {
		g.Free(q.block, q.class)
	}
	*q = closed{}
}

// search returns the index of the first closed group, oldest first, for which found holds, or their number.
// found must hold for all groups after one for which it holds. It looks at the oldest groups first, by
// doubling steps: the answer is mostly there, and the ring of a key that is not in the cache is looked at in
// as few places as possible.
func (w *Window) search(g *Groups, found func(c group) bool) int {
	at := func(i int) bool { return found(w.closedAt(g, i)) }
	low, high := 0, 1 // it holds for none below low
	for high <= int(w.n) && !at(high-1) {
		low, high = high, 2*high
	}
	high = min(high-1, int(w.n))
	return low + sort.Search(high-low, func(i int) bool { return at(low + i) })
}

// searchBack is search for an index that is mostly near the newest group: it looks at the newest groups
// first.
func (w *Window) searchBack(g *Groups, found func(c group) bool) int {
	at := func(i int) bool { return found(w.closedAt(g, i)) }
	high, step := int(w.n), 1 // it holds from high on
	for high >= step && at(high-step) {
		high, step = high-step, 2*step
	}
	low := max(high-step+1, 0)
	return low + sort.Search(high-low, func(i int) bool { return at(low + i) })
}
