// Package leak is the TestMain of packages whose tests run limiters of other libraries.
package leak

import (
	"testing"

	"go.uber.org/goleak"
)

// Check runs the tests, and fails if a goroutine is left.
func Check(m *testing.M) {
	// ulule's store ends its cleaner when the garbage collector finds the store, which it need not do before the end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/ulule/limiter/v3/drivers/store/memory.(*cleaner).Run"))
}
