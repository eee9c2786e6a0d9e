package bench

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/trypema/trypema/cmd/trypema/internal/peer"
)

const countedOps = 100_000

// footprint is what a limiter costs in memory.
type footprint struct {
	bytesPerKey float64 // live heap, all in; the key strings are the harness's and not counted unless copied
	allocsPerOp float64 // for keys that are known
}

// footprint fills a new limiter with every key, and then makes the first worker's calls on it, alone, so that nothing
// else allocates meanwhile.
func (p plan) footprint(name string) (f footprint, err error) {
	before := liveHeap()
	l, err := peer.Open(name, p.limit)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if _, err := fill(l, p.work); err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	f.bytesPerKey = (float64(liveHeap()) - float64(before)) / float64(len(p.work.keys))

	w := newWorker(l, p.work, 0)
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	for range countedOps {
		w.call()
	}
	runtime.ReadMemStats(&end)
	f.allocsPerOp = float64(end.Mallocs-start.Mallocs) / countedOps
	if w.failed > 0 {
		return f, fmt.Errorf("%s: %w", name, w.firstFail)
	}
	return f, nil
}

// liveHeap is the size of what is reachable. The second collection ends the sweep of the first, and takes what
// finalizers let go.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
