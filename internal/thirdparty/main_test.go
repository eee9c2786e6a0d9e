package thirdparty

import (
	"testing"

	"go.uber.org/goleak"
)

// No test may leave a goroutine behind: not the callers of a history, nor anything of a limiter that was closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
