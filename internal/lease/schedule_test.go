package lease_test

import (
	"slices"
	"testing"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// The unit of time is a µs here, and ticks are 100 µs apart.
var ticks = lease.Terms{Span: window.Span{Window: 10_000, Bucket: 100}, Micro: 1, Interval: 100}

type timed struct {
	lease.Turn
	n int
}

func newSchedule() *lease.Schedule[*timed] {
	s := new(lease.Schedule[*timed])
	s.Init(&ticks)
	return s
}

func keysOf(n int) (keys []*timed) {
	for i := range n {
		keys = append(keys, &timed{n: i})
	}
	return keys
}

func numbers(keys []*timed) (all []int) {
	for _, k := range keys {
		all = append(all, k.n)
	}
	return all
}

// Each key is ready at the first tick at or after its instant, however far ahead that is, and in the order of
// the ticks. The earlier of two instants counts.
func TestScheduleTicks(t *testing.T) {
	s := newSchedule()
	keys := keysOf(7)
	if rest := s.Start(0); rest != 100 {
		t.Errorf("the first tick is in %d", rest)
	}
	far := int64(3 * 1024 * 100) // the wheel has gone round three times by then
	for i, at := range []int64{250, 200, 201, far, 0, 900, 300} {
		s.Settle(keys[i], at)
	}
	s.Settle(keys[5], 300)
	s.Settle(keys[6], 700)
	for _, tick := range []struct {
		now  int64
		want []int
	}{
		{100, []int{4}}, {200, []int{1}}, {299, nil}, {300, []int{0, 2, 6, 5}}, {1000, nil}, {far - 1, nil}, {far, []int{3}},
	} {
		s.BeginTick(tick.now)
		batch, probes := s.Take(nil)
		if got := numbers(batch); !slices.Equal(got, tick.want) || len(probes) > 0 {
			t.Errorf("at %d: %v are ready, and %v probe, want %v", tick.now, got, numbers(probes), tick.want)
		}
		for _, k := range batch {
			s.Retire(k)
		}
	}
	if _, more := s.EndTick(far, far+10, 0); more || s.Running() || !s.Rests() {
		t.Error("a schedule without keys goes on")
	}
}

// An exchange takes so many keys, and the others stay in their order. Keys of a server that is unavailable
// stay, too, are no load, and some probe it.
func TestScheduleTake(t *testing.T) {
	s := newSchedule()
	keys := keysOf(2*lease.MaxBatch + 3)
	s.Start(0)
	for _, k := range keys {
		s.Settle(k, 0)
	}
	reach := func(k *timed) lease.Reach {
		switch {
		case k.n%2 == 0:
			return lease.Reachable
		case k.n < 10:
			return lease.Probe
		}
		return lease.Unreachable
	}
	batch, probes := s.Take(reach)
	if len(batch) != lease.MaxBatch || batch[1].n != 2 || !slices.Equal(numbers(probes), []int{1, 3, 5, 7, 9}) {
		t.Fatalf("%d keys, and %v probe", len(batch), numbers(probes))
	}
	batch, _ = s.Take(reach)
	if !slices.Equal(numbers(batch), []int{2 * lease.MaxBatch, 2*lease.MaxBatch + 2}) {
		t.Errorf("then %v", numbers(batch))
	}
	s.EndTick(0, 0, 0)
	if got := s.Pace().Interval; got != ticks.Interval {
		t.Errorf("keys that cannot be reached slow settling down to %d", got)
	}
	batch, _ = s.Take(nil)
	if len(batch) != lease.MaxBatch-4 || batch[0].n != 11 || batch[1].n != 13 {
		t.Errorf("then %d keys, the first %v", len(batch), numbers(batch[:2]))
	}
	s.Settle(keys[0], 0)
	s.EndTick(0, 0, 0)
	if got := s.Pace().Interval; got <= ticks.Interval {
		t.Errorf("keys that are left do not slow settling down: %d", got)
	}
}

// Urgent keys go in flights, of which there are so many, and each key is in one of them. A key that is
// urgent, ready or due does not retire.
func TestScheduleUrgent(t *testing.T) {
	s := newSchedule()
	keys := keysOf(lease.MaxBatch)
	flights := 0
	for range 2 {
		for _, k := range keys {
			if s.Urge(k) {
				flights++
			}
		}
	}
	s.Retire(keys[0])
	if flights != lease.MaxFlights || !keys[0].Active() || s.Active() != len(keys) {
		t.Errorf("%d flights, %d active keys", flights, s.Active())
	}
	var all []int
	for batch := s.TakeUrgent(); len(batch) > 0; batch = s.TakeUrgent() {
		if len(batch) > lease.MaxBatch/4 {
			t.Errorf("%d urgent keys at once", len(batch))
		}
		all = append(all, numbers(batch)...)
	}
	if !slices.Equal(all, numbers(keys)) {
		t.Errorf("%d keys came, want each of %d once, in order", len(all), len(keys))
	}
	s.Start(0)
	s.Settle(keys[0], 0)
	s.Settle(keys[1], 1000)
	for _, k := range keys {
		s.Retire(k)
	}
	if s.Active() != 2 || !keys[0].Active() || !keys[1].Active() {
		t.Errorf("%d keys are active, want one that is ready and one that is due", s.Active())
	}
	if !s.Urge(keys[5]) {
		t.Error("one flight has ended, and no other begins")
	}
}

// The first round trip sets the pace at once. Later ones do so at a tick, those of large exchanges never. An
// answer that was too late for its lease does so at once.
func TestScheduleMeasures(t *testing.T) {
	s := newSchedule()
	trip := func() int64 { return s.Pace().Trip - 100 } // a tenth of a ms is added
	if got := trip(); got != 2000 {
		t.Errorf("assumed %d for a message and its answer", got)
	}
	s.Answered(300, 1)
	if got := trip(); got != 600 {
		t.Errorf("measured 300, taken for %d", got)
	}
	s.Answered(1100, 1)
	s.Answered(99_000, lease.MaxRun+1)
	if got := trip(); got != 600 {
		t.Errorf("%d before the tick", got)
	}
	s.EndTick(100, 150, 0)
	if got := trip(); got != 800 {
		t.Errorf("%d after the tick", got)
	}
	s.Slowed(5000)
	s.Slowed(4000)
	if got := trip(); got != 10_000 {
		t.Errorf("%d after an answer that took 5000", got)
	}
}

// The next tick is at a multiple of the interval, or a quarter of one after an exchange that took longer.
func TestScheduleRests(t *testing.T) {
	for _, test := range []struct{ began, ended, rest int64 }{
		{100, 100, 100}, {100, 140, 60}, {130, 140, 60}, {100, 180, 25}, {100, 900, 25},
	} {
		s := newSchedule()
		s.Start(0)
		s.Settle(new(timed), 5000)
		if rest, more := s.EndTick(test.began, test.ended, 0); !more || rest != test.rest {
			t.Errorf("from %d to %d: rests %d, want %d", test.began, test.ended, rest, test.rest)
		}
	}
}

// However many keys there are, a lease that keeps much from others who need it lives for a window at most,
// unless keys settle less often than that. But they are not renewed more than 4000 times a second otherwise.
func TestPaceOfManyKeys(t *testing.T) {
	const ms = 1_000_000
	for _, w := range []int64{1000 * ms, 10_000 * ms, 60_000 * ms} {
		terms := &lease.Terms{Span: window.Span{Window: w, Bucket: w / 100}, Micro: 1000, Interval: w / 200}
		for _, active := range []int{1, 10_000, 100_000, 10_000_000} {
			for _, interval := range []int64{terms.Interval, w} {
				p := lease.NewPace(terms, ms, interval, active)
				if p.Brief < w/10 || p.Brief > max(w, 4*p.Near) || p.Brief > p.Far {
					t.Errorf("window %d ms, %d keys: a brief lease lives for %d ms, others for %d ms", w/ms, active,
						p.Brief/ms, p.Far/ms)
				}
				if p.Spread*4000 < int64(active)*1000*ms && p.Spread < 600_000*ms || p.Spread > p.Far {
					t.Errorf("window %d ms: the leases of %d keys are renewed in %d ms, and live for %d ms", w/ms, active,
						p.Spread/ms, p.Far/ms)
				}
				if first := map[bool]uint64{false: 16, true: 64}[active > 1000]; p.First != first {
					t.Errorf("%d keys: a new one wants one %d-th, want %d", active, p.First, first)
				}
			}
		}
	}
}

// An exchange that took longer than an interval beside the way, or was lost, makes the next ones smaller. One
// that is full and in time makes them larger again.
func TestScheduleBatch(t *testing.T) {
	s := newSchedule()
	most := func() int {
		for _, k := range keysOf(lease.MaxBatch) {
			s.Settle(k, 0)
		}
		batch, _ := s.Take(nil)
		for rest := batch; len(rest) > 0; {
			rest, _ = s.Take(nil)
		}
		return len(batch)
	}
	s.Answered(30, 1) // the way
	for _, test := range []struct {
		what       string
		took       int64 // 0 for never
		keys, want int
	}{
		{"in time", 160, lease.MaxBatch, lease.MaxBatch},
		{"late", 161, lease.MaxBatch, lease.MaxBatch / 2},
		{"late, but small", 1000, lease.MaxRun, lease.MaxBatch / 2},
		{"not full", 10, lease.MaxBatch/2 - 1, lease.MaxBatch / 2},
		{"in time again", 100, lease.MaxBatch / 2, lease.MaxBatch},
		{"lost", 0, 1000, 500},
		{"lost, and it was small", 0, 10, lease.MaxRun},
	} {
		if test.took == 0 {
			s.Lost(test.keys)
		} else {
			s.Answered(test.took, test.keys)
		}
		if got := most(); got != test.want {
			t.Errorf("after one with %d keys that was %s, %d at a time, want %d", test.keys, test.what, got, test.want)
		}
	}
	full := 0 // exchanges in time, a tick each: that is half a second if ticks are 100 ms apart, as they are at most
	for ; most() < lease.MaxBatch && full < 100; full++ {
		s.Answered(50, most())
	}
	if full != 5 {
		t.Errorf("%d exchanges in time made them as large as ever, want 5", full)
	}
}
