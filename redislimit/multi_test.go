package redislimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/fakeredis"
	"github.com/trypema/trypema/limittest"
	"github.com/trypema/trypema/redislimit"
)

func TestMulti(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		t.Run(map[bool]string{false: "Absolute", true: "Suppressed"}[suppressed], func(t *testing.T) {
			servers := map[limittest.MultiProvider]*fakeredis.Server{}
			on := func(t *testing.T, f *fakeredis.Server, o trypema.Options) limittest.MultiProvider {
				p := open(t, f, redislimit.Options{Options: o, OnFailure: redislimit.FailClosed})
				servers[p] = f
				return p
			}
			limittest.RunMulti(t, limittest.Subject{
				Suppressed: suppressed, In: synctest.Test, Resolution: time.Microsecond,
				Join: func(t *testing.T, p limittest.MultiProvider) limittest.MultiProvider {
					return on(t, servers[p], trypema.Options{})
				},
			}, func(t *testing.T, o trypema.Options) limittest.MultiProvider { return on(t, fakeredis.New(), o) })
		})
	}
}
