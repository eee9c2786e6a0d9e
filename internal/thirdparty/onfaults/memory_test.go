package onfaults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

var evictions = []string{
	"noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
}

// Redis is full of other keys, and more are written all the time. With noeviction it refuses writes: the
// policy decides, and no window holds more than the limit. With any other policy it may drop a key, which
// then begins anew: so a window holds the limit once more for each time that the key was dropped in it. No
// call is an error, and all is well once there is room again.
func TestMemory(t *testing.T) {
	for i, kind := range both {
		for j, eviction := range evictions {
			// In short, writes are refused, keys are dropped by chance, and ours before others, which live
			// longer.
			if !explore.Long() && !slices.Contains([]string{"noeviction", []string{"allkeys-random", "volatile-ttl"}[i]}, evictions[j]) {
				continue
			}
			t.Run(fmt.Sprintf("%v, %s", kind, eviction), func(t *testing.T) {
				t.Parallel()
				repeat(t, func(t *testing.T) { full(t, kind, eviction) })
			})
		}
	}
}

// dropped is what a server has said of keys that it has evicted. Messages come in the order of what they tell
// of, and marks of this process are among them. So what comes between two marks happened after the first was
// sent and before the second had arrived, however late it is heard.
type dropped struct {
	marks []anywindow.Admission // from before each was sent until it had arrived
	keys  map[string][]int      // of each eviction, the mark before it
}

// listen hears of it until the function that it returns is called.
func listen(t *testing.T, c *redis.Client) (end func() *dropped) {
	do(t, c, "CONFIG", "SET", "notify-keyspace-events", "Ee")
	const evicted, mark = "__keyevent@0__:evicted", "mark"
	events := c.Subscribe(context.Background(), evicted, mark)
	for range 2 {
		if _, err := events.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	d := &dropped{keys: map[string][]int{}}
	var all sync.WaitGroup
	stop := make(chan struct{})
	all.Go(func() {
		for last := false; !last; {
			word := "go on"
			select {
			case <-stop:
				word, last = "end", true
			case <-time.After(20 * time.Millisecond):
			}
			a := anywindow.Admission{From: time.Now()}
			if err := c.Publish(context.Background(), mark, word).Err(); err != nil {
				t.Error(err)
			}
			a.To = time.Now()
			d.marks = append(d.marks, a)
		}
	})
	messages := events.Channel(redis.WithChannelSize(100_000))
	all.Go(func() {
		n := -1
		for m := range messages {
			if m.Channel == mark {
				n++
				if m.Payload == "end" {
					return
				}
			} else if n >= 0 {
				d.keys[m.Payload] = append(d.keys[m.Payload], n)
			}
		}
	})
	return sync.OnceValue(func() *dropped {
		close(stop)
		all.Wait()
		_ = events.Close()
		return d
	})
}

// most returns how often a key may have been evicted in a window of length w.
func (d *dropped) most(key string, w time.Duration) (most uint64) {
	for _, first := range d.keys[key] {
		n := uint64(0)
		for _, other := range d.keys[key] {
			if ends := d.marks[first+1].To; !d.marks[other+1].To.Before(ends) &&
				d.marks[other].From.Before(ends.Add(w)) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// statistic returns a number that a server tells of itself.
func statistic(t *testing.T, c *redis.Client, section, name string) (n int64) {
	t.Helper()
	info, err := c.Info(context.Background(), section).Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "\n"+name+":")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(name, err)
	}
	return n
}

func full(t *testing.T, kind rig.Kind, eviction string) {
	const (
		filler = 20_000 // bytes
		// a lease lives no longer: one of a key that was dropped may be used in the next window, too
		life = time.Second
	)
	server := redisserver.Start(t, "--maxmemory-policy", eviction, "--maxmemory-samples", "1")
	admin := server.Client()
	ctx := t.Context()
	end := listen(t, admin)
	defer end()
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 3, Callers: 2, Keys: []string{"a", "b", "c", "d"}},
		hasty(redislimit.FailClosed, 1), dial(t, server.Addr()), dial(t, server.Addr()))
	f.Start()
	f.Used("before", .9)
	do(t, admin, "CONFIG", "SET", "maxmemory", statistic(t, admin, "memory", "used_memory")+40*filler)
	began := time.Now()
	refused, size := 0, filler
	happened := func() bool {
		if eviction == "noeviction" {
			return refused > 0 && len(f.Of(rig.Fellback)) > 0
		}
		return statistic(t, admin, "stats", "evicted_keys") > 0
	}
	for i := 0; time.Since(began) < 2*window || time.Since(began) < rig.Patience && !happened(); i++ {
		if err := admin.Set(ctx, fmt.Sprint("filler", i), strings.Repeat("x", size), time.Hour).Err(); err != nil {
			refused++
			size = max(size/2, 1) // so that there is no room for small writes, either
		}
		time.Sleep(2 * time.Millisecond)
	}
	do(t, admin, "CONFIG", "SET", "maxmemory", "0")
	ended := time.Now()
	back(f)
	f.Used("afterwards", .9, rig.Since(ended.Add(window)))
	f.Stop()
	drops := end()

	fallbacks := len(f.Of(rig.Fellback))
	ours := 0
	for _, key := range f.Keys {
		n := len(drops.keys[f.Name(key)])
		ours += n
		bound := f.Capacity() * (1 + drops.most(f.Name(key), window+life))
		f.Bound(fmt.Sprintf("of a key that was dropped %d times", n), bound, func(c rig.Call) bool { return c.Key == key })
	}
	f.Summary(fmt.Sprintf("%s: our keys were dropped %d times, %d writes of others were refused", eviction, ours, refused))
	if eviction == "noeviction" {
		if ours > 0 || refused == 0 || fallbacks == 0 {
			t.Errorf("%d keys dropped, %d writes refused, %d calls decided by the policy", ours, refused,
				fallbacks)
		}
	} else if len(drops.keys) == 0 {
		t.Error("nothing was dropped")
	}
}
