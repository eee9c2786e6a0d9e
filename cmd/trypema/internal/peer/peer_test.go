package peer

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"go.uber.org/goleak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/redisserver"
)

func TestMain(m *testing.M) {
	// ulule's store ends its cleaner when the garbage collector finds the store, which it need not do before the end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/ulule/limiter/v3/drivers/store/memory.(*cleaner).Run"))
}

// TestEveryPeerHasTheSameLimit: a burst of twice the capacity is admitted to one half, for each key apart.
func TestEveryPeerHasTheSameLimit(t *testing.T) {
	limit := func(capacity uint64) Limit {
		return Limit{
			Capacity: capacity,
			Rate:     float64(capacity) / time.Hour.Seconds(), // what a bucket refills during the test is nothing
			Options:  trypema.Options{Window: time.Hour},
		}
	}
	testPeers(t, limit(1000), NamesIn(false))
	t.Run("redis", func(t *testing.T) {
		url := "redis://" + withCell(t).Addr()
		for _, client := range []string{redisserver.GoRedis, redisserver.Rueidis} {
			s, err := redisserver.Flags{Provider: "redis", Redis: &url, Client: &client}.Open(t.Context(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			l := limit(100)
			l.Server = s
			testPeers(t, l, NamesIn(true))
			l.Suppressed = true
			l.Options.HardLimitFactor = 1 // which makes it as exact as the others
			testPeers(t, l, NamesIn(true)[:1])
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// withCell returns a server whose CL.THROTTLE counts up to the limit, and looks at what it was asked. It is not redis-cell:
// what that decides is not tested here.
func withCell(t *testing.T) *miniredis.Miniredis {
	m := miniredis.RunT(t)
	counts := make(map[string]int)
	err := m.Server().Register("CL.THROTTLE", func(c *server.Peer, _ string, args []string) {
		key, rest := args[0], strings.Join(args[1:], " ")
		if rest != "99 1 36 1" { // 100 at once, and 100 an hour
			c.WriteError("ERR unexpected " + rest)
			return
		}
		m.Lock()
		defer m.Unlock()
		limited := 1
		if counts[key] < 100 {
			counts[key]++
			limited = 0
		}
		c.WriteLen(5)
		for _, n := range []int{limited, 100, 0, -1, 0} {
			c.WriteInt(n)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testPeers(t *testing.T, limit Limit, names []string) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			l, err := Open(name, limit)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}()
			for _, key := range []string{"a", "b"} {
				var admitted uint64
				for range 2 * limit.Capacity {
					ok, err := l.Allow(key)
					if err != nil {
						t.Fatal(err)
					}
					if ok {
						admitted++
					}
				}
				if admitted != limit.Capacity {
					t.Errorf("key %s: %d admitted, want %d", key, admitted, limit.Capacity)
				}
			}
			if l.Remote != (limit.Server != nil) {
				t.Errorf("remote is %v", l.Remote)
			}
			if l.Len != nil && l.Len() != 2 {
				t.Errorf("holds %d keys, want 2", l.Len())
			}
		})
	}
}

func TestOpenUnknown(t *testing.T) {
	if _, err := Open("governor", Limit{}); err == nil {
		t.Error("no error")
	}
	if names := Names(); names[0] != Ours || slices.Contains(names, "") || len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(peers) {
		t.Errorf("names are %v", names)
	}
}

func TestRedisCellIsMissing(t *testing.T) {
	s, err := redisserver.Flags{Provider: "redis"}.Open(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := Open("redis-cell", Limit{Capacity: 1, Rate: 1, Options: trypema.Options{Window: time.Second}, Server: s}); !errors.Is(err, ErrMissing) {
		t.Errorf("error is %v", err)
	}
}

func TestDecisionsWithoutRedisAreFailures(t *testing.T) {
	m := miniredis.RunT(t)
	url := "redis://" + m.Addr()
	s, err := redisserver.Flags{Provider: "redis", Redis: &url}.Open(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Ours, Limit{Capacity: 10, Rate: 10, Options: trypema.Options{Window: time.Second}, Server: s})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := l.Allow("k"); !ok || err != nil {
		t.Errorf("got %v, %v", ok, err)
	}
	m.SetError("LOADING Redis is loading the dataset in memory")
	if _, err := l.Allow("k"); err == nil {
		t.Error("no error")
	}
	if err := errors.Join(l.Close(), s.Close()); err != nil {
		t.Error(err)
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
			t.Errorf("%d in %v: %d in %ds, want %d in %ds", tt.n, tt.window, count, seconds, tt.count, tt.seconds)
		}
	}
}
