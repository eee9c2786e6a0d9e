package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/bench/rustpeer"
	"github.com/trypema/trypema/internal/cli/latency"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/poisson"
)

// sampleEvery is how many calls there are to one that is timed in max mode, where the two clock reads cost as
// much as a call; sampleEveryRemote is that for calls to a server, which are fewer, while the many histograms
// of their many workers are in no cache. They are prime, so that they fall into step with no sequence.
const (
	sampleEvery       = 61
	sampleEveryRemote = 7
)

// maxFills is how often keys are called to be known, where leases are lost faster than they can be had.
const maxFills = 3

// worker is one caller. It shares nothing that is written with the others while it runs.
type worker struct {
	limiter  peer.Limiter
	keys     []string
	sequence []uint32
	mask     uint64
	fresh    bool
	own      []byte   // the text of the next key, where keys are fresh
	some     []string // the keys of calls that are made at a time
	owns     [][]byte // their texts, where keys are fresh
	base     time.Time
	latency  latency.Histogram

	calls           uint64
	allowed, denied uint64
	skipped         uint64 // target mode: due, but never made
	failed          uint64
	firstFail       error

	_ [128]byte // keeps the counters of two workers on different cache lines
}

func newWorker(l peer.Limiter, p *plan, i int) *worker {
	w := &worker{
		limiter:  l.Bound(i),
		keys:     p.work.keys,
		sequence: p.work.sequences[i],
		mask:     uint64(len(p.work.sequences[i]) - 1),
		fresh:    p.fresh,
		own:      []byte(keyText(0)),
		latency:  latency.NewHistogram(),
	}
	if p.many > 1 && l.Many != nil {
		w.some = make([]string, p.many)
		for range w.some {
			w.owns = append(w.owns, []byte(keyText(0)))
		}
	}
	return w
}

// key returns the key of the next call but so many of the sequence. Where keys are fresh, its text is written
// into own.
func (w *worker) key(after int, own []byte) string {
	i := w.sequence[(w.calls+uint64(after))&w.mask]
	if w.fresh {
		renumber(own, i)
		return unsafe.String(&own[0], len(own))
	}
	return w.keys[i]
}

// call makes the next call of the sequence, or as many as are made at a time.
func (w *worker) call() {
	if w.some != nil {
		w.callMany()
		return
	}
	ok, err := w.limiter.Allow(w.key(0, w.own))
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

func (w *worker) callMany() {
	for i := range w.some {
		w.some[i] = w.key(i, w.owns[i])
	}
	allowed, err := w.limiter.Many(w.some)
	n := uint64(len(w.some))
	w.calls += n
	if err != nil {
		w.failed += n
		w.firstFail = err
		return
	}
	w.allowed += uint64(allowed)
	w.denied += n - uint64(allowed)
}

func (w *worker) clock() time.Duration { return time.Since(w.base) }

// flatOut calls as often as it can, and times some of the calls. It makes a few in any case, also where it
// comes to run only when the time is over.
func (w *worker) flatOut(stop *atomic.Bool) {
	untimed := sampleEvery - 1
	if w.limiter.Waits() {
		untimed = sampleEveryRemote - 1
	}
	for {
		for range untimed {
			w.call()
		}
		began := w.clock()
		w.call()
		w.latency.Record(w.clock() - began)
		if stop.Load() {
			return
		}
	}
}

// onSchedule makes burst calls at each instant of a Poisson process, and times every call from the instant at
// which it was due: when one is late because those before it were slow, that is part of its latency. The
// first that is due is made in any case.
func (w *worker) onSchedule(stop *atomic.Bool, perSecond float64, burst int) {
	bursts := poisson.New(perSecond / float64(burst))
	for first := true; w.waitUntil(bursts.Due(), stop) || first && bursts.Due() <= w.clock(); bursts.Next() {
		first = false
		for range burst {
			w.call()
			w.latency.Record(w.clock() - bursts.Due())
		}
	}
	w.skipped += bursts.SkipTo(w.clock()) * uint64(burst)
}

// waitUntil returns at the instant due, or at once when that has passed; false when it was stopped. The
// operating system wakes a sleeper a millisecond late, so the last part of the wait is spent awake; but not
// by the many who call a server.
func (w *worker) waitUntil(due time.Duration, stop *atomic.Bool) bool {
	const nap = 20 * time.Millisecond
	awake := 2 * time.Millisecond
	if w.limiter.Waits() {
		awake = 0
	}
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
	processor       time.Duration // of the process of the limiter, callers included; 0 where that is not known
	ops             uint64
	allowed, denied uint64
	skipped         uint64
	latency         latency.Histogram
	server          *store.Work // nil where there is none, or it does not tell

	audit
}

// audit is what the calls of a session came to, from the first one on.
type audit struct {
	touched, expected int
	held              *int    // keys, by the limiter's own word
	admittedToLimit   float64 // admitted by what an exact limiter could have admitted at most
	settled           *uint64 // admitted, by what Redis was told, where it could be compared with what was admitted
}

// session is one limiter under the workload, in which every key is already known. Its workers go on where
// they stopped, so that it can be driven in turns with others.
type session struct {
	plan
	name    string
	limiter peer.Limiter
	workers []*worker
	latency latency.Histogram // of the timed calls in all
	fills   uint64            // calls to each key by which it was made known
	filled  uint64            // those that were allowed
	began   time.Time
	spans   []span // in which calls were made
}

// span is a time from an instant to another.
type span struct{ from, until time.Time }

// active notes that calls were made from an instant until now. A pause shorter than a window is taken for
// none.
func (s *session) active(from time.Time) {
	now := time.Now()
	if last := len(s.spans) - 1; last >= 0 && from.Sub(s.spans[last].until) < s.limit.Options.Window {
		s.spans[last].until = now
		return
	}
	s.spans = append(s.spans, span{from, now})
}

// windows is how many of them cover all the time in which calls were made.
func (s *session) windows() (n uint64) {
	for _, x := range s.spans {
		n += uint64(math.Ceil(x.until.Sub(x.from).Seconds() / s.limit.Options.Window.Seconds()))
	}
	return n
}

// openPeer returns a new limiter. One in another process knows the workload.
func (p plan) openPeer(ctx context.Context, name string, limit peer.Limit) (peer.Limiter, error) {
	l, err := peer.Open(ctx, name, limit)
	if err == nil && l.Process != nil {
		if err = l.Process.Workload(ctx, len(p.work.keys), p.work.sequences); err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", name, err), l.Close())
		}
	}
	return l, err
}

func (p plan) open(ctx context.Context, name string) (*session, error) {
	l, err := p.openPeer(ctx, name, p.limit)
	if err != nil {
		return nil, err
	}
	s := p.session(name, l)
	s.fills = 0
	if err := s.fill(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

// fill makes every key known. With hybrid the first of many keys may have been idle for too long by the time
// the last has its lease, and few workers that wait for each would never have all of them in use; so it goes
// on until hardly any waits.
func (s *session) fill(ctx context.Context) error {
	var cold time.Duration // how long it took first
	for range maxFills {
		began := time.Now()
		if err := s.fillOnce(ctx); err != nil {
			return err
		}
		took := time.Since(began)
		if s.limiter.Provider != store.Hybrid || took < cold/4 {
			break
		}
		cold = cmp.Or(cold, took)
	}
	return nil
}

func (s *session) fillOnce(ctx context.Context) error {
	defer s.active(time.Now())
	n, err := fill(ctx, s.name, s.limiter, s.work)
	s.filled += n
	s.fills += uint64(len(s.limiter.Verbs()))
	return err
}

func (p plan) session(name string, l peer.Limiter) *session {
	s := &session{plan: p, name: name, limiter: l, latency: latency.NewHistogram(), fills: 1, began: time.Now()}
	for i := range p.work.sequences {
		s.workers = append(s.workers, newWorker(l, &p, i))
	}
	return s
}

// where is where the limiter keeps its counts.
func (s *session) where() store.Where {
	w := s.limit.Server.Where(s.limiter.Provider, s.limit.Options.Window)
	if s.limiter.Remote() && !peer.IsOurs(s.name) {
		w.Client = store.GoRedis
	}
	return w
}

// wake is for a limiter that others had their turn after. The keys of one that is hybrid have been idle
// meanwhile, and may have no lease any more.
func (s *session) wake(ctx context.Context) error {
	if s.limiter.Provider != store.Hybrid {
		return nil
	}
	if err := s.fillOnce(ctx); err != nil {
		return err
	}
	return s.warm(ctx)
}

// warm drives the limiter before it is timed.
func (s *session) warm(ctx context.Context) error {
	if s.warmUp == 0 {
		return nil
	}
	_, err := s.drive(ctx, s.warmUp, func(float64) {})
	if errors.Is(err, errIdle) { // at a low rate it may be too short for any
		err = nil
	}
	s.latency.Reset()
	return err
}

// measure runs the workload on a new limiter, and fails when a premise does.
func (p plan) measure(
	ctx context.Context, name string, duration time.Duration, progress func(part float64),
) (r run, err error) {
	s, err := p.open(ctx, name)
	if err != nil {
		return run{}, err
	}
	defer func() { err = errors.Join(err, s.limiter.Close()) }()
	if err := s.warm(ctx); err != nil {
		return run{}, err
	}
	if r, err = s.drive(ctx, duration, progress); err != nil {
		return run{}, err
	}
	r.audit, err = s.verify(ctx)
	return r, err
}

// fill calls each instance once for every key, from as many goroutines as the workload has or as make good
// use of a server, and returns how many calls were allowed.
func fill(ctx context.Context, name string, l peer.Limiter, w *workload) (uint64, error) {
	verbs, callers := l.Verbs(), len(w.sequences)
	if l.Remote() {
		callers = max(callers, remoteWorkers)
	}
	if l.Process != nil {
		n, err := l.Process.Fill(ctx, callers)
		if ctx.Err() != nil {
			err = errInterrupted
		}
		return n, err
	}
	var allowed atomic.Uint64
	err := share(callers, len(verbs)*len(w.keys), func(i int) error {
		ok, err := verbs[i/len(w.keys)](w.keys[i%len(w.keys)])
		switch {
		case ctx.Err() != nil:
			return errInterrupted
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case ok:
			allowed.Add(1)
		}
		return nil
	})
	return allowed.Load(), err
}

// share does n things by so many goroutines, each of which ends with its first error.
func share(goroutines, n int, do func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n && errs[g] == nil; i += goroutines {
				errs[g] = do(i)
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// drive lets the workers loose for the duration, or until ctx ends.
func (s *session) drive(ctx context.Context, duration time.Duration, progress func(part float64)) (run, error) {
	if s.procs > 0 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(s.procs))
	}
	runtime.GC() // each limiter starts without the garbage of the one before

	before := s.sum()
	for _, w := range s.workers {
		w.latency.Reset()
	}
	work := func() *store.Work { return nil }
	if s.limiter.Remote() {
		work = s.limit.Server.Watch(ctx)
	}
	pid := 0
	if s.limiter.Process != nil {
		pid = s.limiter.Process.ID()
	}
	began := time.Now()
	ran, known := processorTime(pid)
	var elapsed time.Duration
	var err error
	if s.limiter.Process != nil {
		elapsed, err = s.driveThere(ctx, duration, progress)
	} else {
		elapsed = s.driveHere(ctx, duration, progress)
	}
	s.active(began)

	r := s.sum()
	if until, ok := processorTime(pid); known && ok {
		r.processor = until - ran
	}
	s.latency.Merge(r.latency)
	r.elapsed = elapsed
	r.server = work()
	r.ops -= before.ops
	r.allowed -= before.allowed
	r.denied -= before.denied
	r.skipped -= before.skipped
	switch {
	case ctx.Err() != nil:
		return r, errInterrupted
	case err != nil:
		return r, fmt.Errorf("%s: %w", s.name, err)
	case r.ops == 0:
		return r, fmt.Errorf("%s: %w", s.name, errIdle)
	case r.ops != r.allowed+r.denied:
		var failed uint64
		var firstFail error
		for _, w := range s.workers {
			failed += w.failed
			firstFail = cmp.Or(firstFail, w.firstFail)
		}
		if failed > 0 {
			return r, fmt.Errorf("%s: %d of %d calls failed: %w", s.name, failed, r.ops, firstFail)
		}
		return r, fmt.Errorf("%s: %d calls, but %d allowed and %d denied", s.name, r.ops, r.allowed, r.denied)
	}
	return r, nil
}

// driveHere lets the workers loose in this process.
func (s *session) driveHere(
	ctx context.Context, duration time.Duration, progress func(part float64),
) time.Duration {
	var (
		stop  atomic.Bool
		wg    sync.WaitGroup
		gate  = make(chan struct{})
		began time.Time
	)
	for _, w := range s.workers {
		wg.Go(func() {
			<-gate
			w.base = began
			if s.qps > 0 {
				w.onSchedule(&stop, s.qps/float64(len(s.workers)), s.burst)
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
	return time.Since(began)
}

// driveThere has the limiter's own process let its workers loose, and notes what each of them has done.
func (s *session) driveThere(
	ctx context.Context, duration time.Duration, progress func(part float64),
) (time.Duration, error) {
	pass := rustpeer.Pass{
		Duration: duration, SampleEvery: sampleEvery, QPS: s.qps, Burst: s.burst, Fresh: s.fresh,
	}
	if s.limiter.Waits() {
		pass.SampleEvery = sampleEveryRemote
	}
	watched := watch(ctx, duration, progress)
	r, err := s.limiter.Process.Drive(ctx, pass)
	watched()
	if err == nil && len(r.Workers) != len(s.workers) {
		err = fmt.Errorf("%d workers there, %d here", len(r.Workers), len(s.workers))
	}
	if err != nil {
		return 0, err
	}
	for i, did := range r.Workers {
		w := s.workers[i]
		w.calls += did.Calls
		w.allowed += did.Allowed
		w.denied += did.Denied
		w.skipped += did.Skipped
		if w.failed += did.Failed; did.Failed > 0 {
			w.firstFail = errors.New(did.FirstFail)
		}
	}
	s.workers[0].latency.Merge(r.Latency)
	return r.Elapsed, nil
}

// sum adds up what the workers have done since the session began; the latencies are those of the last drive.
func (s *session) sum() run {
	r := run{latency: latency.NewHistogram()}
	for _, w := range s.workers {
		r.ops += w.calls
		r.allowed += w.allowed
		r.denied += w.denied
		r.skipped += w.skipped
		r.latency.Merge(w.latency)
	}
	return r
}

// watch reports the progress of what the caller does meanwhile, which takes the duration, until the function
// that it returns is called.
func watch(ctx context.Context, duration time.Duration, progress func(part float64)) (watched func()) {
	ctx, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { wait(ctx, duration, progress) })
	return func() {
		stop()
		watcher.Wait()
	}
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

// verify checks the premises of a session: that it touched the keys it should, that the limiter still knows
// them, and that what was admitted fits to what was offered, and to what Redis was told. A limiter of another
// library may admit too much, which is reported; ours may not.
func (s *session) verify(ctx context.Context) (a audit, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", s.name, err)
		}
	}()
	r := s.sum()
	var calls []uint64
	for _, w := range s.workers {
		calls = append(calls, w.calls)
	}
	counts := s.work.offered(calls)
	if a.touched, a.expected, err = s.work.verify(calls, counts); err != nil {
		return a, err
	}
	if s.limiter.Len != nil {
		a.held = ptr(s.limiter.Len())
	}
	withinWindow := time.Since(s.began) < s.limit.Options.Window // after the keys were counted: they go with it
	if withinWindow && a.held != nil && *a.held != len(s.work.keys) {
		return a, fmt.Errorf("the limiter holds %d keys, but %d were called within a window", *a.held,
			len(s.work.keys))
	}

	// An exact limiter admits at most the capacity in each of the windows that cover the session.
	windows := s.windows()
	most := windows * s.limit.Capacity
	calm := uint64(0.75 * float64(s.limit.Capacity)) // from 0.8 of it Suppressed may decline
	var permitted, excess uint64
	allCalm := true
	for _, n := range counts {
		n += s.fills
		permitted += min(n, most)
		excess += n - min(n, 2*most)
		allCalm = allCalm && n <= calm
	}
	admitted := r.allowed + s.filled
	a.admittedToLimit = float64(admitted) / float64(permitted)
	// What a hybrid instance has on lease no other can admit, nor can it do so itself where it comes too
	// late.
	hybrid := s.limiter.Provider == store.Hybrid
	if hybrid {
		allCalm = false
	}
	switch {
	case allCalm && r.denied > 0:
		return a, fmt.Errorf("%d calls were denied, though no key came near its limit", r.denied)
	case excess > 0 && r.denied == 0:
		return a, errors.New("no call was denied, though a key was far over its limit")
	case !peer.IsOurs(s.name):
		return a, nil
	case s.limit.Suppressed && float64(admitted) > float64(permitted)*s.limit.Options.HardLimitFactor:
		return a, fmt.Errorf("%d admitted, above the hard limit factor %v times the %d that %d "+
			"windows permit", admitted, s.limit.Options.HardLimitFactor, permitted, windows)
	case !s.limit.Suppressed && admitted > permitted:
		return a, fmt.Errorf("%d admitted, but %d windows permit %d", admitted, windows, permitted)
	case !s.limit.Suppressed && !hybrid && withinWindow && admitted != permitted:
		return a, fmt.Errorf("%d admitted, but all calls lie within one window, which permits exactly %d",
			admitted, permitted)
	case hybrid:
		offered := r.ops + s.fills*uint64(len(s.work.keys))
		a.settled, err = s.reconcile(ctx, admitted, offered-admitted)
	}
	return a, err
}
