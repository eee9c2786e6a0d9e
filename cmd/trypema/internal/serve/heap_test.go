package serve

import (
	"bytes"
	"fmt"
	"math"
	"os"
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

// TestReserveIsNotTouched: what is reserved is no memory of the machine, also where it begins in memory that
// was in use before.
func TestReserveIsNotTouched(t *testing.T) {
	resident := func() int {
		data, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Skipf("the resident memory is unknown: %v", err)
		}
		var size, pages int
		if _, err := fmt.Sscan(string(data), &size, &pages); err != nil {
			t.Fatal(err)
		}
		return pages * os.Getpagesize()
	}
	t.Setenv("GOGC", "")
	used := bytes.Repeat([]byte{1}, heapRoom/16)
	runtime.KeepAlive(used)
	used = nil //nolint:ineffassign,wastedassign // so that it can be collected
	runtime.GC()
	before := resident()
	reserved := reserveHeap()
	grown := resident() - before
	runtime.KeepAlive(reserved)
	if grown > heapRoom/4 {
		t.Errorf("the process has grown by %d bytes", grown)
	}
}
