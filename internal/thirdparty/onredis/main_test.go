package onredis

import (
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
)

func TestMain(m *testing.M) {
	if isChild() {
		child()
		return
	}
	leak.Main(m)
}
