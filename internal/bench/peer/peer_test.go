package peer

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/bench/leak"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

// TestEveryPeerHasTheSameLimit: a burst of twice the capacity is admitted to one half, for each key apart.
func TestEveryPeerHasTheSameLimit(t *testing.T) {
	limit := func(capacity uint64) Limit {
		return Limit{
			Capacity: capacity,
			// what a bucket refills during the test is nothing
			Rate:    (float64(capacity) + 0.01) / time.Hour.Seconds(),
			Options: trypema.Options{Window: time.Hour, Bucket: time.Minute, HardLimitFactor: 1.5},
		}
	}
	testPeers(t, limit(100), append(NamesIn(store.Local), Ours+"-local"))
	t.Run("redis", func(t *testing.T) {
		url := "redis://" + withCell(t).Addr()
		for _, f := range []store.Flags{
			{Provider: "redis"},
			{Provider: "redis", Client: ptr(store.Rueidis)},
			{Provider: "redis", Instances: ptr(3)},
			{Provider: "hybrid"},
			{Provider: "hybrid", Client: ptr(store.Rueidis)},
		} {
			f.Redis, f.Patience = &url, time.Minute
			s, err := f.Open(t.Context(), time.Hour)
			must.OK(t, err)
			l := limit(cellCapacity)
			l.Server = s
			testPeers(t, l, append(NamesIn(store.Redis), Variants()...))
			l.Suppressed = true
			l.Options.HardLimitFactor = 1 // which makes it as exact as the others
			testPeers(t, l, append(Variants(), Ours))
			must.Report(t, s.Close())
		}
	})
}

const cellCapacity = 6

// withCell returns a server whose CL.THROTTLE counts up to the limit, and looks at what it was asked. It is
// not redis-cell: what that decides is not tested here.
func withCell(t *testing.T) *miniredis.Miniredis {
	m := miniredis.RunT(t)
	counts := make(map[string]int)
	err := m.Server().Register("CL.THROTTLE", func(c *server.Peer, _ string, args []string) {
		key, rest := args[0], strings.Join(args[1:], " ")
		if rest != "5 1 600 1" { // 6 at once, and 6 an hour
			c.WriteError("ERR unexpected " + rest)
			return
		}
		m.Lock()
		defer m.Unlock()
		limited := 1
		if counts[key] < cellCapacity {
			counts[key]++
			limited = 0
		}
		c.WriteLen(5)
		for _, n := range []int{limited, cellCapacity, 0, -1, 0} {
			c.WriteInt(n)
		}
	})
	must.OK(t, err)
	return m
}

// skipMissing ends a test for a limiter that can not be had here.
func skipMissing(t *testing.T, err error) {
	t.Helper()
	var missing *MissingError
	if errors.As(err, &missing) {
		t.Skip(missing)
	}
	must.OK(t, err)
}

func testPeers(t *testing.T, limit Limit, names []string) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			// whose windows begin with the hour: it must not be about to
			if name == "httprate" || name == "slidingwindow" {
				synctest.Test(t, func(t *testing.T) { testPeer(t, limit, name) })
				return
			}
			testPeer(t, limit, name)
		})
	}
}

func testPeer(t *testing.T, limit Limit, name string) {
	l, err := Open(t.Context(), name, limit)
	skipMissing(t, err)
	defer func() {
		must.Report(t, l.Close())
	}()
	admittedOf := make(map[string]uint64)
	for _, key := range []string{"a", "b"} {
		var admitted uint64
		for i := range int(2 * limit.Capacity) {
			ok, err := l.Bound(i).Allow(key)
			must.OK(t, err)
			if ok {
				admitted++
			}
		}
		least := limit.Capacity
		if l.Provider == "hybrid" { // in which a lease ends that is used too late, or another instance has it
			least = 1
		}
		if admitted < least || admitted > limit.Capacity {
			t.Errorf("key %s: %d admitted, want %d", key, admitted, limit.Capacity)
		}
		admittedOf[key] = admitted
	}
	if want := providerOf(name, limit); l.Provider != want || l.Remote() != (want != "local") ||
		l.Waits() != (want == "redis") {
		t.Errorf("it keeps its counts in %s, want %s", l.Provider, want)
	}
	if l.Remote() != NeedsServer(name) && name != Ours {
		t.Errorf("that it needs a server is %v", NeedsServer(name))
	}
	if l.Flush != nil {
		must.Report(t, l.Flush(t.Context()))
		if a, _, err := l.Settled(t.Context(), "a"); a != admittedOf["a"] || err != nil {
			t.Errorf("Redis was told of %d, %v, want %d", a, err, admittedOf["a"])
		}
	}
	if l.Len != nil && l.Len() != 2 {
		t.Errorf("holds %d keys, want 2", l.Len())
	}
}

func ptr[T any](v T) *T { return &v }

func providerOf(name string, l Limit) string {
	switch {
	case name == Ours:
		return l.Server.Provider()
	case IsOurs(name):
		return strings.TrimPrefix(name, Ours+"-")
	case slices.Contains(NamesIn(store.Redis), name):
		return "redis"
	}
	return "local"
}

func TestBound(t *testing.T) {
	var calls [3]int
	var l Limiter
	for i := range calls {
		l.Instances = append(l.Instances, func(string) (bool, error) { calls[i]++; return true, nil })
	}
	l.Allow = l.Instances[0]
	for caller := range 8 {
		if _, err := l.Bound(caller).Allow("k"); err != nil {
			t.Error(err)
		}
	}
	if calls != [3]int{3, 3, 2} {
		t.Errorf("calls to the instances: %v", calls)
	}
	one := Limiter{Allow: func(string) (bool, error) { calls[0] = 0; return true, nil }}
	if _, err := one.Bound(7).Allow("k"); err != nil || calls[0] != 0 || len(one.Verbs()) != 1 {
		t.Error("a limiter without instances is not one")
	}
}

func TestOpenUnknown(t *testing.T) {
	if _, err := Open(t.Context(), "nobody", Limit{}); err == nil {
		t.Error("no error")
	}
	if names := Names(); names[0] != Ours || slices.Contains(names, "") ||
		len(slices.Compact(slices.Sorted(slices.Values(names)))) != 1+len(others) {
		t.Errorf("names are %v", names)
	}
}

func TestRedisCellIsMissing(t *testing.T) {
	s, err := store.Flags{Provider: "redis"}.Open(t.Context(), time.Second)
	must.OK(t, err)
	defer func() {
		must.Report(t, s.Close())
	}()
	var missing *MissingError
	limit := Limit{Capacity: 1, Rate: 1, Options: trypema.Options{Window: time.Second}, Server: s}
	if _, err := Open(t.Context(), "redis-cell", limit); !errors.As(err, &missing) {
		t.Errorf("error is %v", err)
	}
}

func TestDecisionsWithoutRedisAreFailures(t *testing.T) {
	for _, provider := range []string{store.Redis, store.Hybrid} {
		t.Run(provider, func(t *testing.T) {
			m := miniredis.RunT(t)
			url := "redis://" + m.Addr()
			s, err := store.Flags{Provider: provider, Redis: &url, Patience: time.Minute}.Open(t.Context(), time.Second)
			must.OK(t, err)
			l, err := Open(t.Context(), Ours,
				Limit{Capacity: 10, Rate: 10, Options: trypema.Options{Window: time.Second}, Server: s})
			must.OK(t, err)
			if ok, err := l.Allow("k"); !ok || err != nil {
				t.Errorf("got %v, %v", ok, err)
			}
			m.SetError("LOADING Redis is loading the dataset in memory")
			if _, err := l.Allow("other"); err == nil {
				t.Error("no error")
			}
			m.SetError("")
			must.Report(t, errors.Join(l.Close(), s.Close()))
		})
	}
}

func TestInWholeSeconds(t *testing.T) {
	tests := []struct {
		n              uint64
		window         time.Duration
		count, seconds uint64
	}{
		{1000, time.Second, 1000, 1},
		{1000, 10 * time.Second, 100, 1},
		{100, 500 * time.Millisecond, 200, 1},
		{1, time.Hour, 1, 3600},
		{7, 3 * time.Millisecond, 7000, 3},
		{1_000_000_000, 24 * time.Hour, 312500, 27},
	}
	for _, tt := range tests {
		if count, seconds := inWholeSeconds(tt.n, tt.window); count != tt.count || seconds != tt.seconds {
			t.Errorf("%d in %v: %d in %ds, want %d in %ds", tt.n, tt.window, count, seconds, tt.count,
				tt.seconds)
		}
	}
}
