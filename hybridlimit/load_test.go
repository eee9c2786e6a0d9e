package hybridlimit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// Keys that wait for Redis to come back are no load: settling is as fast as ever when it does.
func TestOutageIsNoLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeredis.New()
		p, err := New(f, Options{Options: redislimit.Options{Options: trypema.Options{Window: time.Second}}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close() //nolint:errcheck // the test is over
		l := p.absolute
		slowest := int64(0)
		for i := range 3000 {
			switch i {
			case 1000:
				f.TakeAway()
			case 2000:
				f.Restore()
			}
			if _, err := l.Allow(context.Background(), "k", 100); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
			slowest = max(slowest, l.pace.Load().Interval)
		}
		if slowest > l.terms.Interval {
			t.Errorf("keys settled once in %v, want %v", time.Duration(slowest),
				time.Duration(l.terms.Interval))
		}
	})
}
