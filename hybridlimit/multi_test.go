package hybridlimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/fakeredis"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

func TestMulti(t *testing.T) {
	for _, delay := range []time.Duration{0, 2 * time.Millisecond} {
		for _, suppressed := range []bool{false, true} {
			t.Run(name(suppressed)+", "+delay.String()+" away", func(t *testing.T) {
				subject := limittest.Subject{
					Suppressed: suppressed,
					In:         synctest.Test,
					Resolution: time.Microsecond,
					Jitter:     delay,
					Lag:        2*100*time.Millisecond + 12*time.Millisecond, // two intervals of the longest window and a few trips
					Use:        .97,
				}
				limittest.RunMulti(t, subject, func(t *testing.T, o trypema.Options) limittest.MultiProvider {
					f := fakeredis.New()
					f.Delay = delay
					return open(t, f, hybridlimit.Options{Options: redislimit.Options{Options: o, OnFailure: redislimit.FailClosed}})
				})
			})
		}
	}
}
