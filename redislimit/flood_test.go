package redislimit_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// While Redis is gone, FailLocal keeps at most MaxKeys keys, however many new ones come, in memory that stays
// what it is; and a key that is in use meanwhile has its limit.
func TestFloodWithoutRedis(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const window, capacity = time.Second, 100
			f := fakeredis.New()
			p := open(t, f, redislimit.Options{
				Options: trypema.Options{Window: window, MaxKeys: 1000, HardLimitFactor: 1},
				Timeout: 10 * time.Millisecond, RetryInterval: time.Minute,
			})
			limiter := p.Absolute()
			if suppressed {
				limiter = p.Suppressed()
			}
			f.TakeAway()
			defer f.Restore()
			for range 10 { // until it is taken for gone
				if _, err := limiter.Allow(t.Context(), "first", 10); err != nil {
					t.Fatal(err)
				}
			}
			var log []anywindow.Admission
			var early uint64
			for i := range 300 {
				for j := range 50 {
					if d, err := limiter.Allow(t.Context(), fmt.Sprint(i*50+j), 10); err != nil ||
						!d.Fallback || !d.Allowed {
						t.Fatalf("%+v, %v", d, err)
					}
				}
				for range 2 {
					d, err := limiter.Allow(t.Context(), "victim", trypema.Per(capacity, window))
					if err == nil && d.Allowed {
						log = append(log, anywindow.Admission{From: time.Now(), To: time.Now(), Cost: 1})
					}
				}
				if i == 100 {
					early = heap()
				}
				time.Sleep(10 * time.Millisecond)
			}
			if late := heap(); late > early+1<<19 {
				t.Errorf("suppressed %v: %d bytes after 5,000 keys, %d after 15,000", suppressed, early, late)
			}
			if most := anywindow.Most(log, window); most != capacity || len(log) < 3*capacity*95/100 {
				t.Errorf("suppressed %v: %d of %d admitted in a window, %d in three", suppressed, most,
					capacity, len(log))
			}
		})
	}
}

// heap returns the bytes in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Ten thousand callers of one key at once: the capacity is admitted, to the last, in a few round trips,
// within a Timeout.
func TestCrowdOnOneKey(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const callers, capacity = 10_000, 1234
			f := fakeredis.New()
			f.Delay = time.Millisecond
			p := open(t, f,
				redislimit.Options{Options: trypema.Options{HardLimitFactor: 1}, OnFailure: redislimit.FailClosed})
			limiter := p.Absolute()
			if suppressed {
				limiter = p.Suppressed()
			}
			var admitted atomic.Int64
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					d, err := limiter.Allow(t.Context(), "k", trypema.Per(capacity, 10*time.Second))
					if err != nil || d.Fallback {
						t.Errorf("%+v, %v", d, err)
					}
					if d.Allowed {
						admitted.Add(1)
					}
				})
			}
			began := time.Now()
			all.Wait()
			if n, took := admitted.Load(), time.Since(began); n != capacity || took > 50*time.Millisecond {
				t.Errorf("suppressed %v: %d admitted in %v, want %d", suppressed, n, took, capacity)
			}
			synctest.Wait() // for exchanges, which count themselves
			if f.Runs > 50 {
				t.Errorf("suppressed %v: %d round trips", suppressed, f.Runs)
			}
		})
	}
}

// The longest key is a megabyte; one byte more is an error that says so.
func TestHugeKeys(t *testing.T) {
	p := open(t, fakeredis.New(), redislimit.Options{OnFailure: redislimit.FailClosed})
	longest := strings.Repeat("x", 1<<20)
	for _, limiter := range []trypema.Limiter{p.Absolute(), p.Suppressed()} {
		if d, err := limiter.Allow(t.Context(), longest, 10); err != nil || !d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
		if d, err := limiter.Allow(t.Context(), longest+"x", 10); !errors.Is(err, trypema.ErrInvalidKey) ||
			len(err.Error()) > 200 || !strings.Contains(err.Error(), "1048577") || d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
	}
}
