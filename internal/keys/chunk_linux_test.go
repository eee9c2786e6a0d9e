package keys

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// The system was asked for huge pages where the entries of a large table are. What a chunk begins with is up
// to the heap of Go, so one of several is enough.
func TestHugePagesAreAskedFor(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil {
		t.Skip("this system has none: ", err)
	}
	tab := New(options(time.Minute, 0, false))
	defer tab.Close()
	tab.count.Store(int64(manyKeys)) // it is large
	defer tab.count.Store(0)
	unaligned := 0
	for range 20 {
		tab.page(pageLen)
		made(tab)
		at := uintptr(unsafe.Pointer(&tab.chunks.next[0]))
		tab.chunks.next = nil
		if at%hugePage != 0 {
			unaligned++
			continue
		}
		flags, ok := flagsOf(t, at)
		if !ok {
			t.Skip("the system does not tell")
		}
		if !strings.Contains(flags, " hg") {
			t.Errorf("the flags of the mapping are%s", flags)
		}
		return
	}
	t.Errorf("%d chunks begin within a huge page", unaligned)
}

// flagsOf returns the flags of the mapping at an address.
func flagsOf(t *testing.T, at uintptr) (flags string, ok bool) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	inside := false
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return flags, true
		}
	}
	return "", false
}
