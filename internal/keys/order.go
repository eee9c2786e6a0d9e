package keys

import "math"

// order finds the key that was used the longest ago. It is a heap of keys by a time at which they were used,
// which may be out of date: callers note that they use a key in its index, and do not touch the order. Who
// takes the first of the heap looks when it was used last, and puts it back if that is later. So calls for
// two keys write to nothing that they share, and the answer is exact all the same.
//
// A key that is removed otherwise stays in the heap until it is first, or until there are too many such.
type order []turn

type turn struct {
	used int64
	h    Handle
}

func (o *order) add(h Handle, used int64) {
	*o = append(*o, turn{used, h})
	heap := *o
	for i := len(heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if heap[parent].used <= heap[i].used {
			return
		}
		heap[parent], heap[i] = heap[i], heap[parent]
		i = parent
	}
}

// sink moves the first to where it belongs.
func (o order) sink() {
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < len(o) && o[child+1].used < o[child].used {
			child++
		}
		if child >= len(o) || o[i].used <= o[child].used {
			return
		}
		o[i], o[child] = o[child], o[i]
		i = child
	}
}

// drop removes the first.
func (o *order) drop() {
	heap := *o
	last := len(heap) - 1
	heap[0] = heap[last]
	*o = heap[:last]
	o.sink()
}

// evict removes the key that was used the longest ago.
func (t *Table) evict() {
	for {
		first, when := -1, int64(math.MaxInt64)
		for i := range t.oldest {
			if at := t.oldest[i].Load(); at < when {
				first, when = i, at
			}
		}
		if first < 0 || t.evictFrom(&t.shards[first], when) {
			return // or every key is just being added or removed
		}
	}
}

// evictFrom removes the first key of the order of a shard, if it was used last at when, and reports whether
// it has. If it was used later, it moves to its place.
func (t *Table) evictFrom(sh *shard, when int64) bool {
	sh.Lock()
	defer sh.Unlock()
	defer sh.publishOldest()
	if len(sh.order) == 0 || sh.order[0].used != when {
		return false
	}
	h, ix := sh.order[0].h, sh.index.Load()
	if ix.Entry(h).length == unused {
		sh.order.drop()
		return false
	}
	hd := Held{t: t, sh: sh}
	hd.lockAt(ix, h, ix.Entry(h))
	hd.settle()
	if used := *usedAt(ix, h); used > when {
		hd.Unlock()
		sh.order[0].used = used
		sh.order.sink()
		return false
	}
	sh.order.drop()
	t.remove(&hd)
	return true
}

// publishOldest tells evict of the first key of the order.
func (sh *shard) publishOldest() {
	if sh.oldest == nil {
		return
	}
	at := int64(math.MaxInt64)
	if len(sh.order) > 0 {
		at = sh.order[0].used
	}
	sh.oldest.Store(at)
}

// reorder makes the order one of the keys that are there, if it has many that are not.
func (t *Table) reorder(sh *shard) {
	if len(sh.order) <= 2*sh.n+64 {
		return
	}
	ix := sh.index.Load()
	sh.order = nil
	for h := Handle(0); h < sh.end; h = h.Next() {
		if e := ix.Entry(h); e.length != unused {
			hd := Held{t: t, sh: sh}
			hd.lockAt(ix, h, e)
			sh.order.add(h, *usedAt(ix, h))
			hd.Unlock()
		}
	}
}
