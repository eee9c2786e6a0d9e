package onrelease

import (
	"os"
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
)

func TestMain(m *testing.M) {
	code := leak.Run(m)
	_ = os.RemoveAll(original.dir)
	os.Exit(code)
}
