package onfaults

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// kinds are all limiters.
var kinds = []rig.Kind{{}, {Suppressed: true}, {Hybrid: true}, {Hybrid: true, Suppressed: true}}

// A key of another type is an error for its callers, with every verb, and for no others. A foreign string is
// overwritten.
func TestForeignKeys(t *testing.T) {
	for _, topology := range rig.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			addrs := topology.Start(t)
			client := rig.GoRedis(t, addrs)
			for _, kind := range kinds {
				if kind.Hybrid && topology.Name == "miniredis" {
					continue
				}
				o := rig.Patient(t, trypema.Options{})
				o.Prefix = rig.Unique("foreign")
				l := rig.Strategy(kind.Open(t, rig.Adapters[0].Dial(t, addrs), o), kind.Suppressed)
				for what, put := range map[string]func(key string) error{
					"a list":         func(key string) error { return client.RPush(t.Context(), key, "x").Err() },
					"a short string": func(key string) error { return client.Set(t.Context(), key, "hello", 0).Err() },
					"a long string":  func(key string) error { return client.Set(t.Context(), key, strings.Repeat("hello", 100), 0).Err() },
				} {
					must.OK(t, put(kind.RedisKey(o.Prefix, what, 10*time.Second)))
					d, err := l.Allow(t.Context(), what, 1)
					_, usage := l.Usage(t.Context(), what, 1)
					_, set := l.Set(t.Context(), what, trypema.Always(), 1, trypema.Replace)
					list := what == "a list"
					for verb, err := range map[string]error{"Allow": err, "Usage": usage, "Set": set} {
						text := fmt.Sprint(err)
						named := strings.Contains(text, "WRONGTYPE") && strings.Contains(text, what)
						if (err != nil) != list || list && !named {
							t.Errorf("%v: %s with %s in the way: %v", kind, verb, what, err)
						}
					}
					if d.Allowed == list {
						t.Errorf("%v: with %s in the way: %+v", kind, what, d)
					}
				}
				if d, err := l.Allow(t.Context(), "mine", 1); err != nil || !d.Allowed {
					t.Errorf("%v: %+v, %v", kind, d, err)
				}
			}
		})
	}
}

// Contents that look like a window of ours and are not, by chance or on purpose: a decision, at once, and no
// key admits more than its limit by them. Callers of other keys notice nothing.
func TestHostileContents(t *testing.T) {
	server := redisserver.Start(t)
	for _, kind := range kinds {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			hostile(t, server.Client(), rig.Adapters[0].Dial(t, []string{server.Addr()}), kind)
		})
	}
}

func hostile(t *testing.T, admin *redis.Client, conn redislimit.Conn, kind rig.Kind) {
	const (
		window   = time.Second
		capacity = 6
		callers  = 8
	)
	rate := trypema.Per(capacity, window)
	tries := 120
	if explore.Long() {
		tries = 100_000
	}
	seed := explore.Seed(t)
	o := rig.Patient(t, trypema.Options{Window: window, HardLimitFactor: 1})
	o.Prefix = rig.Unique("hostile")
	p := kind.Open(t, conn, o)
	l := rig.Strategy(p, kind.Suppressed)
	good := windows(t, admin, kind, o)

	var slowest atomic.Int64
	var decided, refused, fellBack atomic.Int64
	timed := func(what string, f func() error) {
		began := time.Now()
		err := f()
		if took := int64(time.Since(began)); took > slowest.Load() {
			slowest.Store(took)
		}
		if err != nil {
			refused.Add(1)
			t.Errorf("%s: %v", what, err)
		} else {
			decided.Add(1)
		}
	}
	ctx := context.Background()
	try := func(rng *rand.Rand, i int) {
		key := fmt.Sprint("bad", i)
		content := mutate(rng, good)
		what := fmt.Sprintf("seed %d, %d: %x", seed, i, content)
		name := kind.RedisKey(o.Prefix, key, window)
		put := func() {
			must.Report(t, admin.Set(ctx, name, content, time.Minute).Err())
		}
		put()
		var admitted uint64
		began := time.Now()
		for _, n := range []uint64{capacity, capacity, 1, 1} {
			timed(what, func() error {
				d, err := l.AllowN(ctx, key, rate, n)
				if d.Allowed {
					admitted += n
				}
				if d.Fallback {
					fellBack.Add(1)
				}
				return err
			})
		}
		if admitted > capacity && time.Since(began) < window {
			t.Errorf("%s: %d admitted", what, admitted)
		}
		put()
		timed(what, func() error { _, err := l.Usage(ctx, key, rate); return err })
		put()
		timed(what, func() error { _, err := l.Set(ctx, key, trypema.Always(), 3, trypema.KeepNewest); return err })
		timed(what, func() error { return l.Delete(ctx, key) })
	}
	stop := make(chan struct{})
	var bystanders, all sync.WaitGroup
	calls := 0
	bystanders.Go(func() {
		for ; ; calls++ {
			select {
			case <-stop:
				return
			default:
			}
			if d, err := l.AllowN(ctx, fmt.Sprint("good", calls%100), rate, 1); err != nil || d.Fallback {
				t.Errorf("a key that is in order: %+v, %v", d, err)
			}
			time.Sleep(4 * time.Millisecond)
		}
	})
	for c := range callers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(c)))
			for i := c; i < tries && !t.Failed(); i += callers {
				try(rng, i)
			}
		})
	}
	all.Wait()
	close(stop)
	bystanders.Wait()
	t.Logf("%d contents: %d calls were decided, %d by the policy, %d were errors; the slowest took %v; %d calls of other keys", tries, decided.Load(), fellBack.Load(), refused.Load(), time.Duration(slowest.Load()), calls)
	if n := fellBack.Load(); n > 0 {
		t.Errorf("%d were decided by the policy", n)
	}
}

// The log of a ledger is cut off, which an instance finds when it asks for all of it: the calls have an
// answer at once, and the ledger is in order again.
func TestLedgerIsCutOff(t *testing.T) {
	server := redisserver.Start(t)
	admin, conn := server.Client(), rig.Adapters[0].Dial(t, []string{server.Addr()})
	for _, kind := range kinds {
		if !kind.Hybrid {
			continue
		}
		t.Run(kind.String(), func(t *testing.T) {
			o := rig.Patient(t, trypema.Options{})
			o.Prefix = rig.Unique("cut")
			one := rig.Strategy(kind.Open(t, conn, o), kind.Suppressed)
			for range 3 {
				if d, err := one.Allow(t.Context(), "whole", 100); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
				if _, err := one.Usage(t.Context(), "whole", 100); err != nil { // it settles
					t.Fatal(err)
				}
				time.Sleep(110 * time.Millisecond) // a bucket
			}
			content, err := admin.Get(t.Context(), kind.RedisKey(o.Prefix, "whole", 10*time.Second)).Bytes()
			name := kind.RedisKey(o.Prefix, "cut", 10*time.Second)
			log := 120 + 43*int(content[118])
			if err != nil || len(content) < log+2*21 {
				t.Fatalf("%x, %v: no log of two groups", content, err)
			}
			if err := admin.Set(t.Context(), name, content[:len(content)-5], time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
			another := rig.Strategy(kind.Open(t, conn, o), kind.Suppressed)
			for range 2 {
				if d, err := another.Allow(t.Context(), "cut", 100); err != nil || !d.Allowed || d.Fallback {
					t.Errorf("%+v, %v", d, err)
				}
			}
			for began := time.Now(); ; time.Sleep(time.Millisecond) { // it is mended after that
				content, err = admin.Get(t.Context(), name).Bytes()
				log = 120 + 43*int(content[118])
				if groups := int(content[61]); err == nil && len(content) == log+21*groups {
					break
				}
				if time.Since(began) > rig.Patience {
					t.Fatalf("%x, %v: not in order", content, err)
				}
			}
		})
	}
}

// windows returns what a limiter has written: windows of a few groups, of many, and with some that have
// expired.
func windows(t *testing.T, admin *redis.Client, kind rig.Kind, o redislimit.Options) (all [][]byte) {
	t.Helper()
	o.Prefix = rig.Unique("real")
	l := rig.Strategy(kind.Open(t, dialPatiently(t, admin.Options().Addr), o), kind.Suppressed)
	for began := time.Now(); len(all) < 12; {
		if _, err := l.Allow(t.Context(), "k", 1000); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Millisecond)
		if time.Since(began) > time.Duration(len(all)+1)*120*time.Millisecond {
			b, err := admin.Get(t.Context(), kind.RedisKey(o.Prefix, "k", o.Window)).Bytes()
			must.OK(t, err)
			all = append(all, b)
		}
	}
	return all
}

// mutate returns something that is nearly a window.
func mutate(rng *rand.Rand, good [][]byte) []byte {
	b := bytes.Clone(good[rng.IntN(len(good))])
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			break
		}
		at := rng.IntN(len(b))
		if rng.IntN(2) == 0 {
			at = rng.IntN(min(len(b), 130)) // the header
		}
		switch rng.IntN(7) {
		case 0: // a byte
			b[at] = byte(rng.Uint32())
		case 1: // a bit
			b[at] ^= 1 << rng.IntN(8)
		case 2: // the end is missing
			b = b[:at]
		case 3: // there is more
			for range 1 + rng.IntN(100) {
				b = append(b, byte(rng.Uint32()))
			}
		case 4: // a number is as large as can be, or nothing, or near 2^53
			value := []byte{0, 255, 127, 31, 32}[rng.IntN(5)]
			for i := range min(7, len(b)-at) {
				b[at+i] = 255
				if value == 0 || value == 32 && i < 6 {
					b[at+i] = 0
				}
				if i == 6 {
					b[at+i] = value
				}
			}
		case 5: // it is another's
			other := good[rng.IntN(len(good))]
			if at < len(other) {
				b = append(b[:at], other[at:]...)
			}
		case 6: // a piece of it is somewhere else
			copy(b[rng.IntN(len(b)):], b[at:])
		}
	}
	return b
}
