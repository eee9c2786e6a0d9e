package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/redislimit"
)

// Patience is how long a test waits for what must come about: so long that it does on any machine.
const Patience = 4 * time.Minute

// Load says what a fleet is, and what it is asked.
type Load struct {
	Kind
	Window  time.Duration // default 2s
	Rate    float64       // of a key, per second; default 500
	Keys    []string      // default one
	Callers int           // of each instance at a time; default 1
	Times   float64       // how much is offered, in units of the limits of all keys
	First   float64       // the share of that which the first instance gets; 0 for an even one
}

// Call is one call of a fleet, and what became of it.
type Call struct {
	anywindow.Admission
	Key      string
	Instance int
	Allowed  bool
	Fallback bool
}

// Fleet is some instances in this process, each with a client of its own, and what became of the calls.
type Fleet struct {
	testing.TB
	Load
	Prefix    string
	Instances []trypema.Provider
	Began     time.Time

	seed    uint64
	stop    chan struct{}
	callers sync.WaitGroup

	mu    sync.Mutex
	calls []Call // guarded by mu; what is in it stays as it is
}

// NewFleet returns a fleet with an instance for each connection.
func NewFleet(t testing.TB, load Load, o redislimit.Options, conns ...redislimit.Conn) *Fleet {
	t.Helper()
	load.Window = cmp.Or(load.Window, 2*time.Second)
	load.Rate = cmp.Or(load.Rate, 500)
	if load.Keys == nil {
		load.Keys = []string{"k"}
	}
	f := &Fleet{TB: t, Load: load, Prefix: Unique("fleet"), seed: explore.Seed(t)}
	f.Add(o, conns...)
	return f
}

// Add adds instances with other options. It must be called before Start.
func (f *Fleet) Add(o redislimit.Options, conns ...redislimit.Conn) {
	f.Helper()
	o.Window, o.Prefix = f.Window, f.Prefix
	for _, c := range conns {
		f.Instances = append(f.Instances, f.Open(f.TB, c, o))
	}
}

// Capacity is that of a window of one key.
func (f *Fleet) Capacity() uint64 { return uint64(f.Rate * f.Window.Seconds()) }

// Name is what a key is called in Redis.
func (f *Fleet) Name(key string) string { return f.RedisKey(f.Prefix, key, f.Window) }

// Offer makes calls for some time.
func (f *Fleet) Offer(d time.Duration) {
	f.Start()
	time.Sleep(d)
	f.Stop()
}

// Start makes calls as Poisson processes, until Stop.
func (f *Fleet) Start() {
	f.Began, f.stop = time.Now(), make(chan struct{})
	for i := range f.Instances {
		share := 1 / float64(len(f.Instances))
		if f.First > 0 {
			share = (1 - f.First) / float64(len(f.Instances)-1)
			if i == 0 {
				share = f.First
			}
		}
		callers := max(f.Callers, 1)
		rate := f.Rate * float64(len(f.Keys)) * f.Times * share / float64(callers)
		for c := range callers {
			rng := rand.New(rand.NewPCG(f.seed, uint64(i*callers+c)))
			f.callers.Go(func() { f.call(rng, i, rate) })
		}
	}
}

// Stop ends the calls, and returns when all have.
func (f *Fleet) Stop() {
	close(f.stop)
	f.callers.Wait()
}

// call is one caller.
func (f *Fleet) call(rng *rand.Rand, instance int, rate float64) {
	l := Strategy(f.Instances[instance], f.Suppressed)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := f.Began; ; {
		next = next.Add(time.Duration(rng.ExpFloat64() / rate * 1e9))
		// Not 0: in a bubble, with the race detector, a select on a timer that is due at once can crash the
		// runtime.
		timer.Reset(max(time.Until(next), 1))
		select {
		case <-timer.C:
		case <-f.stop:
			return
		}
		f.ask(l, instance, f.Keys[rng.IntN(len(f.Keys))])
	}
}

// ask makes a call. Errors are those of the test.
func (f *Fleet) ask(l trypema.Limiter, instance int, key string) {
	c := Call{Key: key, Instance: instance, Admission: anywindow.Admission{From: time.Now(), Cost: 1}}
	d, err := l.Allow(context.Background(), key, trypema.Rate(f.Rate))
	c.To, c.Allowed, c.Fallback = time.Now(), d.Allowed, d.Fallback
	if err != nil && !errors.Is(err, trypema.ErrClosed) {
		f.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, c)
}

// Calls returns those so far, in the order of their ends.
func (f *Fleet) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[:len(f.calls):len(f.calls)]
}

// Of returns the calls for which a condition holds.
func (f *Fleet) Of(wanted func(Call) bool) (calls []Call) {
	for _, c := range f.Calls() {
		if wanted(c) {
			calls = append(calls, c)
		}
	}
	return calls
}

// Most returns the most that was certainly admitted of one key in a window, by calls for which all conditions
// hold.
func (f *Fleet) Most(wanted ...func(Call) bool) (most uint64) {
	logs := make(map[string][]anywindow.Admission)
	for _, c := range f.Of(Admitted) {
		if !slices.ContainsFunc(wanted, func(w func(Call) bool) bool { return !w(c) }) {
			logs[c.Key] = append(logs[c.Key], c.Admission)
		}
	}
	for _, log := range logs {
		most = max(most, anywindow.Most(log, f.Window))
	}
	return most
}

// Since is the condition that a call began at t or later. What was admitted in a burst is admitted in one
// again, so to see what is used of a limit it matters where a window begins, and Most looks at all of them.
func Since(t time.Time) func(Call) bool { return func(c Call) bool { return !c.From.Before(t) } }

// Until is the condition that a call has ended before t.
func Until(t time.Time) func(Call) bool { return func(c Call) bool { return c.To.Before(t) } }

// By is the condition that one of the instances was called.
func By(instances ...int) func(Call) bool {
	return func(c Call) bool { return slices.Contains(instances, c.Instance) }
}

// Fewest returns the least cost that may have been in the window when a call was denied: what was admitted by
// calls that may have been judged at most so long before it, while not after. A limiter that uses its limit
// denies nothing below that, however fast or slow its callers are.
func Fewest(admitted, denied []anywindow.Admission, before time.Duration) (fewest uint64) {
	froms, tos := slices.Clone(admitted), slices.Clone(admitted)
	slices.SortFunc(froms, func(a, b anywindow.Admission) int { return a.From.Compare(b.From) })
	slices.SortFunc(tos, func(a, b anywindow.Admission) int { return a.To.Compare(b.To) })
	sums := func(log []anywindow.Admission) []uint64 {
		sums := make([]uint64, 1, len(log)+1)
		for _, a := range log {
			sums = append(sums, sums[len(sums)-1]+a.Cost)
		}
		return sums
	}
	begun, ended := sums(froms), sums(tos)
	fewest = math.MaxUint64
	for _, d := range denied {
		in, _ := slices.BinarySearchFunc(froms, d.To, func(a anywindow.Admission, t time.Time) int { return cmp.Or(a.From.Compare(t), -1) })
		out, _ := slices.BinarySearchFunc(tos, d.From.Add(-before), func(a anywindow.Admission, t time.Time) int { return cmp.Or(a.To.Compare(t), -1) })
		fewest = min(fewest, begun[in]-ended[out])
	}
	return fewest
}

// Admitted is the condition that a call was allowed.
func Admitted(c Call) bool { return c.Allowed }

// Fellback is the condition that the policy has decided.
func Fellback(c Call) bool { return c.Fallback }

// Longest returns how long the longest call took.
func (f *Fleet) Longest() (longest time.Duration) {
	for _, c := range f.Calls() {
		longest = max(longest, c.To.Sub(c.From))
	}
	return longest
}

// Summary logs what became of the calls, and fails if one has hung. How long a call takes at most is a matter
// of virtual time (TestTimeout of redislimit): here a machine may be as slow as it likes.
func (f *Fleet) Summary(what string) {
	f.Helper()
	calls, longest := f.Calls(), f.Longest()
	f.Logf("%s: %d calls, the longest took %v, %d admitted, %d decided by the policy; at most %d of %d in a window",
		what, len(calls), longest.Round(time.Millisecond), len(f.Of(Admitted)), len(f.Of(Fellback)), f.Most(), f.Capacity())
	if longest > Patience {
		f.Errorf("%s: a call took %v", what, longest)
	}
}

// Bound fails if more was admitted in a window than is allowed.
func (f *Fleet) Bound(what string, bound uint64, wanted ...func(Call) bool) {
	f.Helper()
	if most := f.Most(wanted...); most > bound {
		f.Errorf("%d admitted in a window %s, want at most %d", most, what, bound)
	}
}

// Used waits until a share of the limit is used in a window, and fails if that does not come about. Callers
// that are too slow to use the limit at first, while the machine is busy, have time to.
func (f *Fleet) Used(what string, share float64, wanted ...func(Call) bool) {
	f.Helper()
	Wait(f.TB, func() error {
		if most := f.Most(wanted...); float64(most) < share*float64(f.Capacity()) {
			return fmt.Errorf("%d of %d admitted in the fullest window %s; %d calls in all", most,
				f.Capacity(), what, len(f.Calls()))
		}
		return nil
	})
}

// Wait waits until there is no error, and fails with the last one if that does not come about. It tries for a
// tenth of the time at most, as what it waits for needs the rest.
func Wait(t testing.TB, try func() error) {
	t.Helper()
	for began := time.Now(); ; {
		tried := time.Now()
		err := try()
		if err == nil {
			return
		}
		if time.Since(began) > Patience {
			t.Error(err)
			return
		}
		time.Sleep(20*time.Millisecond + 9*time.Since(tried))
	}
}
