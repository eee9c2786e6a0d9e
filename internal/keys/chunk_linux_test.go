package keys

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// The system was asked for huge pages where the entries of a large table are.
func TestHugePagesAreAskedFor(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil {
		t.Skip("this system has none: ", err)
	}
	tab := New(options(time.Minute, 0, false))
	defer tab.Close()
	tab.count.Store(int64(manyKeys)) // it is large
	page := pageOfChunk(t, tab)
	tab.count.Store(0)
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	at := uintptr(unsafe.Pointer(&page[0]))
	inside := false
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			if !strings.Contains(flags, " hg") {
				t.Errorf("the flags of the mapping are%s", flags)
			}
			return
		}
	}
	t.Skip("the system does not tell")
}
