package rules

import (
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
