package measure

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/screen"
)

const (
	countedOps  = 100_000
	collections = 5

	// Keys in Redis must not go before they are counted, nor stay long after; and among few of them other
	// memory shows.
	remoteKeysLast = time.Minute
	minRemoteKeys  = 10_000
)

// footprint is what a limiter costs in memory. What is nil could not be measured.
type footprint struct {
	// live heap, all in, of an instance; the key strings are the harness's and not counted unless copied
	bytesPerKey      *float64
	allocsPerOp      *float64 // for keys that are known
	redisBytesPerKey *float64 // as the server tells, all in
}

// footprint fills a new limiter with every key, calls filled when it is in this process, and then makes calls
// on it while nothing else allocates. With a Redis server in the same process nothing can be measured.
func (p plan) footprint(ctx context.Context, name string, filled func()) (f footprint, err error) {
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
	l, err := p.openPeer(ctx, name, limit)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if l.Process != nil {
		return p.footprintThere(ctx, name, l)
	}
	began, work := time.Now(), limit.Server.Watch(ctx)
	if _, err := fill(ctx, name, l, p.work); err != nil {
		return f, err
	}
	keys := len(p.work.keys)
	if w := work(); w != nil && keys >= minRemoteKeys && time.Since(began) < remoteKeysLast {
		f.redisBytesPerKey = ptr(float64(w.Memory) / float64(keys))
	}
	f.bytesPerKey = ptr((float64(liveHeap()) - float64(before)) / float64(keys*len(l.Verbs())))
	filled()

	var workers []*worker
	for i := range p.work.sequences {
		workers = append(workers, newWorker(l, &p, i))
	}
	call := func() error {
		return share(len(workers), p.counted, func(i int) error {
			w := workers[i%len(workers)]
			w.call()
			return w.firstFail
		})
	}
	err = call() // not counted: a key that is called again gets what its window needs in use
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	err = errors.Join(err, call())
	runtime.ReadMemStats(&end)
	f.allocsPerOp = ptr(float64(end.Mallocs-start.Mallocs) / float64(p.counted))
	if err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// footprintThere is the footprint of a limiter in another process, by what its allocator has handed out: with
// the keys, which it copies.
func (p plan) footprintThere(ctx context.Context, name string, l peer.Limiter) (f footprint, err error) {
	before, err := l.Process.Memory(ctx)
	if err != nil {
		return f, err
	}
	if _, err := fill(ctx, name, l, p.work); err != nil {
		return f, err
	}
	after, err := l.Process.Memory(ctx)
	if before != nil && after != nil {
		f.bytesPerKey = ptr((float64(*after) - float64(*before)) / float64(len(p.work.keys)))
	}
	return f, err
}

// Footprint is what a limiter costs in memory, and the garbage collector with it. What is null could not be
// measured.
type Footprint struct {
	Limiter     string    `json:"limiter"`
	Failed      string    `json:"failed"`
	Keys        int       `json:"keys"`
	BytesPerKey []float64 `json:"memory_per_key_bytes"` // each time that it was measured, as all that follows
	AllocsPerOp []float64 `json:"allocations_per_op"`

	// A forced collection with all keys in place, and the longest that it stopped all goroutines. The keys'
	// own strings, which the harness holds, have their part in it: that of limiter "" is theirs alone.
	Collection []float64 `json:"gc_ms"`
	Pause      []float64 `json:"gc_pause_us"`
}

// Footprints measures, for each limiter that the command compares, its memory with all keys in it, so many
// times. It leaves out what can not be had here.
func (c *Command) Footprints(
	ctx context.Context, times int, progress func(part float64, doing string),
) (out []Footprint, err error) {
	p, names, err := c.prepare(ctx, c.Window)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.limit.Server.Close()) }()
	harness := Footprint{Keys: len(p.work.keys)}
	for range times {
		harness.collect()
	}
	out = append(out, harness)
	for i, name := range names {
		f, missing := Footprint{Limiter: name, Keys: len(p.work.keys)}, false
		for k := range times {
			progress(float64(i*times+k)/float64(len(names)*times), name)
			once, err := p.footprint(ctx, name, f.collect)
			if ctx.Err() != nil {
				return nil, errInterrupted
			}
			if err != nil {
				f.Failed = err.Error()
				missing = isMissing(err)
				break
			}
			if once.bytesPerKey != nil {
				f.BytesPerKey = append(f.BytesPerKey, *once.bytesPerKey)
			}
			if once.allocsPerOp != nil {
				f.AllocsPerOp = append(f.AllocsPerOp, *once.allocsPerOp)
			}
		}
		if !missing {
			out = append(out, f)
		}
	}
	return out, nil
}

// collect forces collections and notes what they took.
func (f *Footprint) collect() {
	runtime.GC() // ends the sweep of the one before
	for range collections {
		began := time.Now()
		runtime.GC()
		f.Collection = append(f.Collection, screen.Milliseconds(time.Since(began)))
		var s debug.GCStats
		debug.ReadGCStats(&s)
		f.Pause = append(f.Pause, float64(s.Pause[0])/float64(time.Microsecond))
	}
}

// liveHeap is the size of what is reachable. A second collection ends the sweep of the first, and takes what
// finalizers let go: one goroutine runs these in turn, so the end of one that was set last is waited for.
func liveHeap() uint64 {
	ran := make(chan struct{})
	runtime.SetFinalizer(new(*int), func(**int) { close(ran) })
	for collected := false; !collected; {
		runtime.GC()
		select {
		case <-ran:
			collected = true
		case <-time.After(time.Millisecond):
		}
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
