package rig

import (
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
)

// Main is leak.Main.
func Main(m *testing.M, ignore ...string) { leak.Main(m, ignore...) }
