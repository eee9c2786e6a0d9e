package onmodel

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "100", "rapid.steps": "60"} {
		if err := flag.Set(name, value); err != nil { // unless the command line says otherwise, which is read later
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}
