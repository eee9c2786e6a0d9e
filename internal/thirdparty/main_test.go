package thirdparty

import (
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/thirdparty/rig"
)

// No test may leave a goroutine behind: not the callers of a history, nor anything of a limiter that was
// closed.
func TestMain(m *testing.M) {
	rig.Rapid(5, 2000)
	leak.Main(m)
}
