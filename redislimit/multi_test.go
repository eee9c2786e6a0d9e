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
			limittest.RunMulti(t, limittest.Subject{Suppressed: suppressed, In: synctest.Test, Resolution: time.Microsecond},
				func(t *testing.T, o trypema.Options) limittest.MultiProvider {
					return open(t, fakeredis.New(), redislimit.Options{Options: o, OnFailure: redislimit.FailClosed})
				})
		})
	}
}
