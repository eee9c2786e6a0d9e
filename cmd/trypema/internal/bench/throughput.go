package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/arrivals"
	"github.com/trypema/trypema/cmd/trypema/internal/latency"
	"github.com/trypema/trypema/cmd/trypema/internal/peer"
)

// sampleEvery is how many calls there are to one that is timed in max mode, where the two clock reads cost as much as
// a call. It is prime, so that it falls into step with no sequence.
const sampleEvery = 61

// worker is one caller. It shares nothing that is written with the others while it runs.
type worker struct {
	allow    func(string) (bool, error)
	keys     []string
	sequence []uint32
	mask     uint64
	base     time.Time
	latency  latency.Histogram

	calls           uint64
	allowed, denied uint64
	skipped         uint64 // target mode: due, but never made
	failed          uint64
	firstFail       error

	_ [128]byte // keeps the counters of two workers on different cache lines
}

func newWorker(l peer.Limiter, w *workload, i int) *worker {
	return &worker{
		allow:    l.Allow,
		keys:     w.keys,
		sequence: w.sequences[i],
		mask:     uint64(len(w.sequences[i]) - 1),
		latency:  latency.NewHistogram(),
	}
}

// call makes the next call of the sequence.
func (w *worker) call() {
	ok, err := w.allow(w.keys[w.sequence[w.calls&w.mask]])
	w.calls++
	switch {
	case err != nil:
		w.failed++
		w.firstFail = err
	case ok:
		w.allowed++
	default:
		w.denied++
	}
}

func (w *worker) clock() time.Duration { return time.Since(w.base) }

// flatOut calls as often as it can, and times every sampleEvery-th call.
func (w *worker) flatOut(stop *atomic.Bool) {
	for !stop.Load() {
		for range sampleEvery - 1 {
			w.call()
		}
		began := w.clock()
		w.call()
		w.latency.Record(w.clock() - began)
	}
}

// onSchedule makes burst calls at each instant of a Poisson process, and times every call from the instant at which it
// was due: when one is late because those before it were slow, that is part of its latency.
func (w *worker) onSchedule(stop *atomic.Bool, perSecond float64, burst int) {
	bursts := arrivals.NewPoisson(perSecond / float64(burst))
	for ; w.waitUntil(bursts.Due(), stop); bursts.Next() {
		for range burst {
			w.call()
			w.latency.Record(w.clock() - bursts.Due())
		}
	}
	w.skipped = bursts.SkipTo(w.clock()) * uint64(burst)
}

// waitUntil returns at the instant due, or at once when that has passed; false when it was stopped. The operating
// system wakes a sleeper a little late, so the last part of the wait is spent awake.
func (w *worker) waitUntil(due time.Duration, stop *atomic.Bool) bool {
	const awake, nap = 200 * time.Microsecond, 20 * time.Millisecond
	for !stop.Load() {
		switch left := due - w.clock(); {
		case left <= 0:
			return true
		case left > awake:
			time.Sleep(min(left-awake, nap))
		default:
			runtime.Gosched()
		}
	}
	return false
}

// run is what one timed pass over the workload came to.
type run struct {
	elapsed         time.Duration
	calls           []uint64 // of each worker
	ops             uint64
	allowed, denied uint64
	skipped         uint64
	latency         latency.Histogram

	touched, expected int
	held              *int    // keys, by the limiter's own word
	admittedToLimit   float64 // admitted by what an exact limiter could have admitted at most
}

// measure runs the workload on a new limiter in which every key is already known. It fails when a premise does.
func (p plan) measure(ctx context.Context, name string, duration time.Duration, progress func(part float64)) (run, error) {
	l, err := peer.Open(name, p.limit)
	if err != nil {
		return run{}, err
	}
	began := time.Now()
	filled, err := fill(l, p.work)
	if err == nil {
		var r run
		if r, err = p.drive(ctx, l, duration, progress); err == nil {
			err = p.verify(name, l, &r, filled, time.Since(began))
		}
		if err == nil {
			return r, l.Close()
		}
	}
	return run{}, errors.Join(fmt.Errorf("%s: %w", name, err), l.Close())
}

// fill calls once for every key, and returns how many of these calls were allowed.
func fill(l peer.Limiter, w *workload) (allowed uint64, err error) {
	for _, key := range w.keys {
		ok, err := l.Allow(key)
		if err != nil {
			return allowed, err
		}
		if ok {
			allowed++
		}
	}
	return allowed, nil
}

// drive lets the workers loose for the duration, or until ctx ends.
func (p plan) drive(ctx context.Context, l peer.Limiter, duration time.Duration, progress func(part float64)) (run, error) {
	workers := make([]*worker, len(p.work.sequences))
	for i := range workers {
		workers[i] = newWorker(l, p.work, i)
	}
	runtime.GC() // each limiter starts without the garbage of the one before

	var (
		stop  atomic.Bool
		wg    sync.WaitGroup
		gate  = make(chan struct{})
		began time.Time
	)
	for _, w := range workers {
		wg.Go(func() {
			<-gate
			w.base = began
			if p.qps > 0 {
				w.onSchedule(&stop, p.qps/float64(len(workers)), p.burst)
			} else {
				w.flatOut(&stop)
			}
		})
	}
	began = time.Now()
	close(gate)
	wait(ctx, duration, progress)
	stop.Store(true)
	wg.Wait()

	r := run{elapsed: time.Since(began), latency: latency.NewHistogram()}
	var failed uint64
	var firstFail error
	for _, w := range workers {
		r.calls = append(r.calls, w.calls)
		r.ops += w.calls
		r.allowed += w.allowed
		r.denied += w.denied
		r.skipped += w.skipped
		r.latency.Merge(w.latency)
		failed += w.failed
		if firstFail == nil {
			firstFail = w.firstFail
		}
	}
	switch {
	case ctx.Err() != nil:
		return r, errInterrupted
	case failed > 0:
		return r, fmt.Errorf("%d of %d calls failed: %w", failed, r.ops, firstFail)
	case r.ops != r.allowed+r.denied:
		return r, fmt.Errorf("%d calls, but %d allowed and %d denied", r.ops, r.allowed, r.denied)
	case r.ops == 0:
		return r, errors.New("no call was made")
	}
	return r, nil
}

// wait reports progress until the duration is over or ctx ends.
func wait(ctx context.Context, duration time.Duration, progress func(part float64)) {
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	over := time.NewTimer(duration)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case <-tick.C:
			progress(float64(time.Since(began)) / float64(duration))
		}
	}
}

// verify checks the premises of a run: that it touched the keys it should, that the limiter still knows them, and that
// what was admitted fits to what was offered. A limiter of another library may admit too much, which is reported; ours
// may not.
func (p plan) verify(name string, l peer.Limiter, r *run, filled uint64, took time.Duration) error {
	counts := p.work.offered(r.calls)
	var err error
	if r.touched, r.expected, err = p.work.verify(r.calls, counts); err != nil {
		return err
	}
	withinWindow := took < p.limit.Options.Window
	if l.Len != nil {
		held := l.Len()
		r.held = &held
		if withinWindow && held != len(p.work.keys) {
			return fmt.Errorf("the limiter holds %d keys, but %d were called within a window", held, len(p.work.keys))
		}
	}

	// An exact limiter admits at most the capacity in each of the windows that cover the run.
	windows := math.Ceil(took.Seconds() / p.limit.Options.Window.Seconds())
	most := uint64(windows) * p.limit.Capacity
	calm := uint64(0.75 * float64(p.limit.Capacity)) // from 0.8 of it Suppressed may decline
	var permitted, excess uint64
	allCalm := true
	for _, n := range counts {
		n++ // the call that filled it in
		permitted += min(n, most)
		excess += n - min(n, 2*most)
		allCalm = allCalm && n <= calm
	}
	admitted := r.allowed + filled
	r.admittedToLimit = float64(admitted) / float64(permitted)
	switch {
	case allCalm && r.denied > 0:
		return fmt.Errorf("%d calls were denied, though no key came near its limit", r.denied)
	case excess > 0 && r.denied == 0:
		return errors.New("no call was denied, though a key was far over its limit")
	case name != peer.Ours:
		return nil
	case p.limit.Suppressed && float64(admitted) > float64(permitted)*p.limit.Options.HardLimitFactor:
		return fmt.Errorf("%d admitted, above the hard limit factor %v times the %d that %v windows permit", admitted, p.limit.Options.HardLimitFactor, permitted, windows)
	case !p.limit.Suppressed && admitted > permitted:
		return fmt.Errorf("%d admitted, but %v windows permit %d", admitted, windows, permitted)
	case !p.limit.Suppressed && withinWindow && admitted != permitted:
		return fmt.Errorf("%d admitted, but all calls lie within one window, which permits exactly %d", admitted, permitted)
	}
	return nil
}
