package onredis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/anywindow"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

const (
	sharedRate   = 1000 // per second
	sharedWindow = time.Second
	sharedTime   = 5 * time.Second
)

// child is another process that wants all it can get. It prints when its calls were admitted.
func child() {
	if os.Getenv(hybridVariable) != "" {
		hybridChild(os.Getenv(childVariable))
		return
	}
	client := redis.NewClient(&redis.Options{Addr: os.Getenv(childVariable)})
	p, err := redislimit.New(goredisconn.New(client), redislimit.Options{
		Options: trypema.Options{Window: sharedWindow, Bucket: time.Millisecond}, Prefix: "shared", OnFailure: redislimit.FailClosed, Timeout: 5 * time.Second,
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedTime)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	out := bufio.NewWriter(os.Stdout)
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				before := time.Now()
				d, err := p.Absolute().Allow(context.Background(), "k", sharedRate)
				after := time.Now()
				switch {
				case err != nil:
					panic(err)
				case d.Allowed:
					mu.Lock()
					fmt.Fprintln(out, before.UnixNano(), after.UnixNano())
					mu.Unlock()
				default:
					time.Sleep(min(d.RetryAfter, time.Millisecond))
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(out.Flush(), p.Close(), client.Close()); err != nil {
		panic(err)
	}
}

const childVariable = "TRYPEMA_TEST_CHILD"

func isChild() bool { return os.Getenv(childVariable) != "" }

// Two processes on one key admit, together, the limit, and never more in any window.
func TestTwoProcesses(t *testing.T) {
	s := redisserver.Start(t)
	var logs [2][]anywindow.Admission
	var all sync.WaitGroup
	for i := range logs {
		all.Go(func() {
			c := exec.CommandContext(t.Context(), os.Args[0])
			c.Env = append(os.Environ(), childVariable+"="+s.Addr())
			c.Stderr = os.Stderr
			out, err := c.Output()
			if err != nil {
				t.Error(err)
			}
			for _, m := range regexp.MustCompile(`(\d+) (\d+)`).FindAllStringSubmatch(string(out), -1) {
				before, _ := strconv.ParseInt(m[1], 10, 64)
				after, _ := strconv.ParseInt(m[2], 10, 64)
				logs[i] = append(logs[i], anywindow.Admission{From: time.Unix(0, before), To: time.Unix(0, after), Cost: 1})
			}
		})
	}
	all.Wait()
	both := append(slices.Clone(logs[0]), logs[1]...)
	if len(logs[0]) == 0 || len(logs[1]) == 0 {
		t.Fatalf("%d and %d admitted", len(logs[0]), len(logs[1]))
	}
	capacity := int(sharedRate * sharedWindow.Seconds())
	most := anywindow.Most(both, sharedWindow)
	if most > uint64(capacity) {
		t.Errorf("%d admitted in one window, more than %d", most, capacity)
	}
	// Both want more all the time, so the windows from the first call on are used. In which of them a slow call was counted is not known.
	first := both[0].From
	windows := int(sharedTime/sharedWindow) - 1
	used, sum := make([]int, windows), 0
	for _, a := range both {
		if i := int(a.To.Sub(first) / sharedWindow); i < windows {
			used[i]++
			sum++
		}
	}
	t.Logf("%d and %d admitted, %v in one window after the other; at most %d in any, certainly", len(logs[0]), len(logs[1]), used, most)
	if least := windows * capacity * 99 / 100; sum < least {
		t.Errorf("%d used in %d windows of %d, want %d", sum, windows, capacity, least)
	}
}

// A window of an hour and groups of 100 ms: 20,000 groups that expire at once do no harm, nor do 36,000 live ones.
func TestManyGroups(t *testing.T) {
	t.Parallel()
	client := redisserver.Start(t).Client()
	for _, suppressed := range []bool{false, true} {
		o := newOracle(t, client, trypema.Options{Window: time.Hour, Bucket: 100 * time.Millisecond}, suppressed, nil)
		l := rig.Strategy(rig.Open(t, o, rig.Patient(t, trypema.Options{Window: time.Hour, Bucket: 100 * time.Millisecond})), suppressed)
		rate := trypema.PerHour(1e6)
		allow := func(n uint64) trypema.Decision {
			t.Helper()
			d, err := l.AllowN(t.Context(), "k", rate, n)
			if err != nil || d.Fallback {
				t.Fatal(d, err)
			}
			return d
		}
		groups := 35_990
		if testing.Short() {
			groups = 20_000
		}
		allow(550_000)
		for range groups {
			if d := allow(1); !d.Allowed {
				t.Fatal(d)
			}
			o.Advance(t, 100_000)
		}
		if d := allow(2e6); d.Allowed || d.RetryAfter != trypema.Never || d.Remaining != 450_000-uint64(groups) {
			t.Errorf("%+v", d)
		}
		if d := allow(1e6); d.Allowed || d.RetryAfter <= 0 || d.RetryAfter > time.Hour {
			t.Errorf("%+v", d)
		}
		// All but some expire.
		o.Advance(t, time.Hour.Microseconds()-20*100_000)
		d := allow(1)
		if want := uint64(1e6 - 19 - 1); !d.Allowed || d.Remaining != want {
			t.Errorf("after all but 19 have expired: %+v, want %d remaining", d, want)
		}
		// Their memory is given back.
		for range 200 {
			o.Advance(t, 100_000)
			allow(1)
		}
		keys, err := client.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if n := client.StrLen(t.Context(), key).Val(); n > 20_000 {
				t.Errorf("%s has %d bytes", key, n)
			}
			client.Del(t.Context(), key)
		}
	}
}

var usedMemory = regexp.MustCompile(`(?m)^used_memory:(\d+)`)

func memory(t *testing.T, c *redis.Client) int {
	t.Helper()
	info, err := c.Info(t.Context(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(usedMemory.FindStringSubmatch(info)[1])
	return n
}

// Idle keys take little memory, and go away by themselves.
func TestIdleKeys(t *testing.T) {
	const keys = 100_000
	client := redisserver.Start(t).Client()
	conn := goredisconn.New(client)
	fill := func(l trypema.Limiter) {
		var all sync.WaitGroup
		for i := range 64 {
			all.Go(func() {
				for k := i; k < keys; k += 64 {
					if d, err := l.Allow(t.Context(), fmt.Sprintf("user:%07d", k), 10); err != nil || !d.Allowed || d.Fallback {
						t.Error(d, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	for _, suppressed := range []bool{false, true} {
		before := memory(t, client)
		fill(rig.Strategy(rig.Open(t, conn, rig.Patient(t, trypema.Options{Window: time.Hour})), suppressed))
		perKey := float64(memory(t, client)-before) / keys
		t.Logf("suppressed %v: %.0f bytes per key", suppressed, perKey)
		if perKey > 350 {
			t.Errorf("suppressed %v: %.0f bytes per key, want at most 350", suppressed, perKey)
		}
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}

		o := trypema.Options{Window: 300 * time.Millisecond}
		fill(rig.Strategy(rig.Open(t, conn, rig.Patient(t, o)), suppressed))
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			n, err := client.DBSize(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("suppressed %v: %d of %d keys are left", suppressed, n, keys)
			}
		}
	}
}
