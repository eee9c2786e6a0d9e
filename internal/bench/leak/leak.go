// Package leak is the TestMain of packages whose tests run limiters of other libraries.
package leak

import (
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
)

// Main runs the tests, and fails if a goroutine is left.
func Main(m *testing.M) {
	// ulule's store ends its cleaner when the garbage collector finds the store, which it need not do before
	// the end.
	leak.Main(m, "github.com/ulule/limiter/v3/drivers/store/memory.(*cleaner).Run")
}
