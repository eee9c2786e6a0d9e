package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/peer"
)

const (
	countedOps = 100_000

	// Keys in Redis must not go before they are counted, nor stay long after; and among few of them other memory shows.
	remoteKeysLast = time.Minute
	minRemoteKeys  = 10_000
)

// footprint is what a limiter costs in memory. What is nil could not be measured.
type footprint struct {
	bytesPerKey      *float64 // live heap, all in, of an instance; the key strings are the harness's and not counted unless copied
	allocsPerOp      *float64 // for keys that are known
	redisBytesPerKey *float64 // as the server tells, all in
}

// footprint fills a new limiter with every key, and then makes calls on it while nothing else allocates. With a Redis
// server in the same process nothing can be measured.
func (p plan) footprint(ctx context.Context, name string) (f footprint, err error) {
	limit := p.limit
	switch {
	case limit.Server.Embedded():
		return f, nil
	case limit.Server != nil:
		if limit, err = resized(limit, limit.Capacity, remoteKeysLast); err != nil {
			return f, err
		}
	}
	before := liveHeap()
	l, err := peer.Open(name, limit)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	began, work := time.Now(), limit.Server.Watch(ctx)
	if _, err := fill(ctx, name, l, p.work); err != nil {
		return f, err
	}
	keys := len(p.work.keys)
	if w := work(); w != nil && keys >= minRemoteKeys && time.Since(began) < remoteKeysLast {
		f.redisBytesPerKey = ptr(float64(w.Memory) / float64(keys))
	}
	f.bytesPerKey = ptr((float64(liveHeap()) - float64(before)) / float64(keys*len(l.Verbs())))

	var workers []*worker
	for i := range p.work.sequences {
		workers = append(workers, newWorker(l, p.work, i))
	}
	var wg sync.WaitGroup
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	for i, w := range workers {
		wg.Go(func() {
			for j := i; j < countedOps; j += len(workers) {
				w.call()
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&end)
	f.allocsPerOp = ptr(float64(end.Mallocs-start.Mallocs) / countedOps)
	var failed error
	for _, w := range workers {
		failed = cmp.Or(failed, w.firstFail)
	}
	if failed != nil {
		return f, fmt.Errorf("%s: %w", name, failed)
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
