package serve

import (
	"math"
	"runtime"
	"runtime/debug"
	gc "runtime/metrics"
	"testing"
)

// TestReserveHeap: the collector lets the heap grow by as much as was reserved, unless the environment says
// otherwise.
func TestReserveHeap(t *testing.T) {
	t.Setenv("GOGC", "") // as it is without
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	goal := func() uint64 {
		runtime.GC()
		read := []gc.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
		gc.Read(read)
		return read[0].Value.Uint64() - read[1].Value.Uint64()
	}
	reserved := reserveHeap()
	if room := goal(); room < heapRoom {
		t.Errorf("the heap may grow by %d bytes, want %d or more", room, heapRoom)
	}
	runtime.KeepAlive(reserved)
	t.Setenv("GOGC", "100")
	if reserveHeap() != nil {
		t.Error("it does not leave the heap alone although GOGC is set")
	}
	t.Setenv("GOGC", "")
	limit := debug.SetMemoryLimit(math.MaxInt64 - 1)
	defer debug.SetMemoryLimit(limit)
	if reserveHeap() != nil {
		t.Error("it does not leave the heap alone although there is a limit")
	}
}
