package measure

import (
	"syscall"
	"time"
	"unsafe"
)

// processorTime returns how long a process has run on processors, of this process for pid 0. It reports false
// where that is not known.
func processorTime(pid int) (time.Duration, bool) {
	const perProcess = 2 // CPUCLOCK_SCHED, of all threads
	clock := uintptr(uint32(int32(^pid<<3 | perProcess)))
	var t syscall.Timespec
	_, _, err := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano()), err == 0
}
