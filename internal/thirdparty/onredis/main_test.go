package onredis

import (
	"testing"

	"github.com/trypema/trypema/internal/thirdparty/rig"
)

func TestMain(m *testing.M) {
	if isChild() {
		child()
		return
	}
	rig.Main(m)
}
