package rig

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package, which must not leave a goroutine behind. Those that are about to end have time to, on a busy machine.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	for began := time.Now(); code == 0; time.Sleep(20 * time.Millisecond) {
		err := goleak.Find(options...)
		if err == nil {
			break
		}
		if time.Since(began) > Patience {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
