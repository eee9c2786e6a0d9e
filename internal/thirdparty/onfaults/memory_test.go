package onfaults

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/anywindow"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

var evictions = []string{
	"noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
}

// Redis is full of other keys, and more are written all the time. With noeviction it refuses writes: the policy decides, and no window
// holds more than the limit. With any other policy it may drop a key, which then begins anew: so a window holds the limit once
// more for each time that the key was dropped in it. No call is an error, and all is well once there is room again.
func TestMemory(t *testing.T) {
	for _, kind := range both {
		for _, eviction := range evictions {
			t.Run(fmt.Sprintf("%v, %s", kind, eviction), func(t *testing.T) {
				t.Parallel()
				repeat(t, func(t *testing.T) { full(t, kind, eviction) })
			})
		}
	}
}

// dropped is what a server has said of keys that it has evicted.
type dropped struct {
	keys map[string][]anywindow.Admission
}

// listen hears of it until the function that it returns is called.
func (d *dropped) listen(t *testing.T, c *redis.Client) (end func()) {
	do(t, c, "CONFIG", "SET", "notify-keyspace-events", "Ee")
	events := c.PSubscribe(t.Context(), "__keyevent@0__:evicted")
	if _, err := events.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	var heard sync.WaitGroup
	messages := events.Channel(redis.WithChannelSize(100_000))
	heard.Go(func() {
		for m := range messages {
			now := time.Now()
			d.keys[m.Payload] = append(d.keys[m.Payload], anywindow.Admission{From: now, To: now, Cost: 1})
		}
	})
	return func() {
		_ = events.Close()
		heard.Wait()
	}
}

func full(t *testing.T, kind rig.Kind, eviction string) {
	const (
		filler = 20_000 // bytes
		fill   = 2 * time.Second
		late   = time.Second // is as late as it is heard of an eviction, at most
	)
	server := redisserver.Start(t, "--maxmemory-policy", eviction, "--maxmemory-samples", "1")
	admin := server.Client()
	ctx := t.Context()
	drops := &dropped{keys: map[string][]anywindow.Admission{}}
	end := sync.OnceFunc(drops.listen(t, admin))
	defer end()
	f := rig.NewFleet(t, rig.Load{Kind: kind, Window: window, Rate: perSec, Times: 3, Callers: 2, Keys: []string{"a", "b", "c", "d"}},
		hasty(redislimit.FailClosed, 1), dial(t, server.Addr()), dial(t, server.Addr()))
	f.Start()
	time.Sleep(window / 2)
	used, err := admin.Info(ctx, "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	_, rest, _ := strings.Cut(used, "used_memory:")
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		t.Fatal(err)
	}
	do(t, admin, "CONFIG", "SET", "maxmemory", bytes+40*filler)
	refused, size := 0, filler
	for i, began := 0, time.Now(); time.Since(began) < fill; i++ {
		if err := admin.Set(ctx, fmt.Sprint("filler", i), strings.Repeat("x", size), time.Hour).Err(); err != nil {
			refused++
			size = max(size/2, 1) // so that there is no room for small writes, either
		}
		time.Sleep(time.Millisecond)
	}
	do(t, admin, "CONFIG", "SET", "maxmemory", "0")
	ended := time.Now()
	back(f)
	time.Sleep(2 * window)
	f.Stop()
	end()

	fallbacks := len(f.Of(rig.Fellback))
	ours := 0
	for _, key := range f.Keys {
		dropped := drops.keys[f.Name(key)]
		ours += len(dropped)
		bound := f.Capacity() * (1 + anywindow.Most(dropped, window+late))
		f.Bound("of a key that was dropped "+fmt.Sprint(len(dropped), " times"), bound, func(c rig.Call) bool { return c.Key == key })
	}
	f.Summary(timeout, fmt.Sprintf("%s: our keys were dropped %d times, %d writes of others were refused", eviction, ours, refused))
	if eviction == "noeviction" {
		if ours > 0 || refused == 0 || fallbacks == 0 {
			t.Errorf("%d keys dropped, %d writes refused, %d calls decided by the policy", ours, refused, fallbacks)
		}
	} else if len(drops.keys) == 0 {
		t.Error("nothing was dropped")
	}
	f.Use("afterwards", .9, rig.Since(ended.Add(window)))
}
