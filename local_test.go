package trypema_test

import (
	"testing"
	"testing/synctest"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/limittest"
)

func TestLocalConforms(t *testing.T) {
	for name, suppressed := range map[string]bool{"Absolute": false, "Suppressed": true} {
		t.Run(name, func(t *testing.T) {
			limittest.Run(t, limittest.Subject{
				New: func(t *testing.T, o trypema.Options) trypema.Limiter {
					if suppressed {
						return newLocal(t, o).Suppressed()
					}
					return newLocal(t, o).Absolute()
				},
				Suppressed: suppressed,
				In:         synctest.Test,
				EmptyKey:   true,
			})
		})
	}
}
