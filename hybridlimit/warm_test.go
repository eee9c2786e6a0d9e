package hybridlimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// A hot key whose window is full is in use, although its calls are denied without the lock: when there is
// room again, its lease is there, and hardly any call waits for Redis.
func TestFullAndHotStaysWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		f.Delay = time.Millisecond
		l := open(t, f, hybridlimit.Options{Options: redislimit.Options{}}).Absolute()
		began, waited := time.Now(), 0
		for time.Since(began) < time.Minute {
			called := time.Now()
			if _, err := l.Allow(ctx, "k", 100); err != nil {
				t.Fatal(err)
			}
			if at := called.Sub(began); time.Since(called) > 0 && at > 5*time.Second {
				waited++
			}
			time.Sleep(4 * time.Millisecond)
		}
		if waited > 2 {
			t.Errorf("%d calls waited in less than six windows", waited)
		}
	})
}
