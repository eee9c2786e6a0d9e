package serve

import (
	"math"
	"os"
	"runtime/debug"
	"strings"
)

// heapRoom is how much the heap may grow between two runs of the garbage collector, at least. What a request
// allocates is garbage at once, and a server holds little else: with the usual rule the collector would run
// dozens of times a second, for a tenth of the processor.
const heapRoom = 32 << 20

// reserveHeap returns memory that is never touched, so it costs no memory of the machine. The collector
// counts it, and runs when as much again was allocated. It returns nil if the environment has its own rule,
// GOGC or GOMEMLIMIT.
func reserveHeap() *strings.Builder {
	if os.Getenv("GOGC") != "" || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return nil
	}
	// Unlike make, a Builder does not clear its memory. To clear it is to touch it, and Go does so if a part
	// of it was in use before.
	b := new(strings.Builder)
	b.Grow(heapRoom)
	return b
}
