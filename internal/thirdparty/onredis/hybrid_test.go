package onredis

import (
	"sync"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

func openHybrid(t testing.TB, c redislimit.Conn, o hybridlimit.Options) *hybridlimit.Provider {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = prefix()
	}
	p, err := hybridlimit.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestHybridConformance(t *testing.T) {
	conn := adapters[0].dial(t, []string{redisserver.Start(t).Addr()})
	var suites sync.WaitGroup
	for _, suppressed := range []bool{false, true} {
		suites.Go(func() {
			t.Run(map[bool]string{false: "Absolute", true: "Suppressed"}[suppressed], func(t *testing.T) {
				limittest.Run(t, limittest.Subject{
					New: func(t *testing.T, o trypema.Options) trypema.Limiter {
						p := openHybrid(t, conn, hybridlimit.Options{Options: patient(t, o)})
						if suppressed {
							return p.Suppressed()
						}
						return p.Absolute()
					},
					Suppressed: suppressed,
					Window:     2 * time.Second,
					Resolution: time.Microsecond,
					Lag:        30 * time.Millisecond,
					Jitter:     50 * time.Millisecond,
					Use:        .95,
				})
			})
		})
	}
	suites.Wait()
}
